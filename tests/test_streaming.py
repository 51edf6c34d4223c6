from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from portraitgen.errors import InputError
from portraitgen.streaming import aside, breathe, feed, steady, watched


def test_every_item_is_written_in_order_and_reported() -> None:
    written: list[int] = []
    assert list(feed(written.extend, range(50))) == list(range(50))
    assert written == list(range(50))


def test_a_writer_that_fails_ends_the_producer_with_its_error() -> None:
    def write(items: Iterator[int]) -> None:
        next(items)
        raise OSError("no space")

    produced = []
    with pytest.raises(OSError, match="no space"):
        produced.extend(feed(write, range(10_000)))
    assert len(produced) < 100


def test_a_producer_that_fails_reaches_the_writer_as_an_error() -> None:
    cleaned = []

    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    def write(stream: Iterator[int]) -> None:
        try:
            list(stream)
            cleaned.append("kept")
        except Exception:
            cleaned.append("removed")
            raise

    with pytest.raises(KeyboardInterrupt):
        list(feed(write, items()))
    assert cleaned == ["removed"]


def test_closing_the_generator_abandons_the_output() -> None:
    seen = []

    def write(stream: Iterator[int]) -> None:
        try:
            for _ in stream:
                pass
            seen.append("kept")
        except Exception:
            seen.append("removed")
            raise

    stream = feed(write, range(1000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert seen == ["removed"]


def test_a_watched_function_reports_returns_and_raises() -> None:
    def work(report: Callable[[float], None]) -> str:
        for step in range(8):
            report(step / 8)
            time.sleep(0.1)
        return "done"

    steps = watched(work, float)
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as ended:
            returned = ended.value
            break
    assert returned == "done"
    assert len(seen) >= 2
    assert seen == sorted(seen)

    def fail(report: Callable[[float], None]) -> None:
        raise InputError("No face.")

    with pytest.raises(InputError, match="No face"):
        list(watched(fail, float))


def test_a_watched_function_ends_when_nobody_listens() -> None:
    ended = threading.Event()

    def work(report: Callable[[float], None]) -> None:
        try:
            while True:
                report(0.5)
                time.sleep(0.02)
        finally:
            ended.set()

    steps = watched(work, float)
    assert next(steps) in (0.0, 0.5)
    steps.close()
    assert ended.wait(1)


@steady
def counting(count: int, ended: list[str]) -> Iterator[int]:
    """Numbers, with a long silence after the first, in which it breathes."""
    try:
        for number in range(count):
            yield number
            for _ in range(60 if number == 0 else 0):
                breathe()
                time.sleep(0.02)
        ended.append("done")
    finally:
        ended.append(threading.current_thread().name)


def test_a_steady_job_repeats_its_news_and_loses_none() -> None:
    ended: list[str] = []
    seen = list(counting(5, ended))
    assert list(dict.fromkeys(seen)) == [0, 1, 2, 3, 4]
    assert seen.count(0) > 1, "repeated while there was nothing new"
    assert seen == sorted(seen)
    assert ended == ["done", "counting"], "in a thread of its own"


def test_closing_a_steady_job_ends_it_in_the_middle_of_a_silence() -> None:
    ended: list[str] = []
    job = counting(5, ended)
    assert next(job) == next(job) == 0
    job.close()  # type: ignore[attr-defined]
    assert ended == ["counting"], "it has ended when it is closed, and not by itself"
    assert "counting" not in {thread.name for thread in threading.enumerate()}


def test_a_steady_job_waits_for_its_listener() -> None:
    made: list[int] = []

    @steady
    def job() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    steps = job()
    assert made == []
    assert next(steps) == 0
    time.sleep(0.1)
    assert made == [0]
    steps.close()  # type: ignore[attr-defined]
    assert made == [0]


def test_the_errors_of_a_steady_job_are_raised_where_it_is_listened_to() -> None:
    @steady
    def job() -> Iterator[int]:
        yield 1
        raise InputError("No face.")

    steps = job()
    assert next(steps) == 1
    with pytest.raises(InputError, match="No face"):
        list(steps)


def test_a_stop_reaches_work_within_work() -> None:
    """A steady job within another, with watched work and a writer in it."""
    ended: list[str] = []

    def work(report: Callable[[float], None]) -> None:
        try:
            while True:
                breathe()
                time.sleep(0.02)
        finally:
            ended.append("work")

    @steady
    def outer() -> Iterator[float]:
        try:
            yield from inner()
        finally:
            ended.append("outer")

    @steady
    def inner() -> Iterator[float]:
        yield 0.5
        yield from watched(work, float)

    steps = outer()
    assert next(steps) == 0.5
    assert next(steps) in (0.0, 0.5)
    steps.close()  # type: ignore[attr-defined]
    assert ended == ["work", "outer"]
    breathe()  # here nobody asked for a stop


def test_what_is_left_aside_does_not_hold_up_a_stop() -> None:
    release, ended = threading.Event(), threading.Event()

    @steady
    def job() -> Iterator[str]:
        yield "loading"
        aside(lambda: (release.wait(60), ended.set()))
        yield "loaded"

    steps = job()
    assert next(steps) == next(steps) == "loading"
    steps.close()  # type: ignore[attr-defined]
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
    assert aside(lambda: 5) == 5
    with pytest.raises(InputError, match="No face"):
        aside(lambda: (_ for _ in ()).throw(InputError("No face.")))
