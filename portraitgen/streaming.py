"""Generators over work that is none: a writer that pulls its frames, a function that reports how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_PATIENCE = 0.3  # seconds between two looks at how far a function is
_WAITING = (
    2  # items that wait for the writer: enough for it to work beside the producer, few enough to keep memory flat
)


class _Abandoned(Exception):
    """Tells the writer that no more items will come and that what it wrote is not wanted."""


def feed(write: Callable[[Iterator[Item]], Any], items: Iterable[Item]) -> Iterator[Item]:
    """Run ``write`` on ``items`` in a thread of its own, so that producing and writing overlap; yields each item handed over.

    An error of either side ends both and is raised here. Closing the generator makes the writer's iterator raise, so that a writer which
    cleans up after errors leaves nothing behind.
    """
    handed: queue.Queue[Any] = queue.Queue(_WAITING)
    end, abandon = object(), object()
    failure: list[BaseException] = []
    done = threading.Event()

    def pull() -> Iterator[Item]:
        while True:
            item = handed.get()
            if item is abandon:
                raise _Abandoned
            if item is end:
                return
            yield item

    def run() -> None:
        try:
            write(pull())
        except BaseException as error:  # handed to the caller's thread, which raises it
            failure.append(error)
        finally:
            done.set()

    def hand(item: Any) -> None:
        while not done.is_set():
            try:
                handed.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    thread = threading.Thread(target=run, name="writer", daemon=True)
    thread.start()
    finished = False
    try:
        for item in items:
            hand(item)
            if done.is_set():
                break
            yield item
        finished = True
    finally:
        hand(end if finished else abandon)
        thread.join()
    if failure and not isinstance(failure[0], _Abandoned):
        raise failure[0]


def watched(
    work: Callable[[Callable[[float], None]], Result], tell: Callable[[float], Item]
) -> Generator[Item, None, Result]:
    """Run ``work(report)`` in a thread of its own and yield, a few times a second, ``tell`` of the fraction that it last reported.

    Returns what it returns and raises what it raises. Closing the generator ends the work at its next report.
    """
    fraction, stopped, done = [0.0], threading.Event(), threading.Event()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def report(value: float) -> None:
        if stopped.is_set():
            raise _Abandoned
        fraction[0] = value

    def run() -> None:
        try:
            outcome.append(work(report))
        except BaseException as error:  # handed to the caller's thread, which raises it
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    try:
        while not done.wait(_PATIENCE):
            yield tell(fraction[0])
    finally:
        stopped.set()
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
