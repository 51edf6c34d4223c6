from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from portraitgen.errors import InputError
from portraitgen.streaming import feed, watched


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
