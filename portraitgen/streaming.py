"""Jobs that can be stopped: generators that are never silent for long, and work that looks now and then whether it is still wanted.

Whoever listens to a job can leave it only when it yields, and a job does nothing while it is being listened to. So `steady` runs it in a
thread of its own and repeats its latest news, and what takes long between two pieces of news calls `breathe` on the way.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_PATIENCE = 0.3  # seconds between two looks at how far a function is
# Items that wait for the writer: enough for it to work beside the producer, few enough to keep memory flat.
_WAITING = 2


class Abandoned(Exception):
    """Ends work that nobody wants any more."""


class Stop(threading.Event):
    """Set when nobody wants the work of a thread any more."""


_work = threading.local()  # .stop: of the work that this thread does


def breathe() -> None:
    """End the work here if whoever wanted it has left; to be called several times a second by whatever takes long, wherever it runs."""
    stop = getattr(_work, "stop", None)
    if stop is not None and stop.is_set():
        raise Abandoned


def steady(job: Callable[Parameters, Iterator[Item]]) -> Callable[Parameters, Iterator[Item]]:
    """A generator function whose generators run in threads of their own and repeat their latest item, a few times a second, until the next.

    As before, they go on only when the next item is asked for. Closing one ends its work at its next item or `breathe`, and waits for that.
    """

    @functools.wraps(job)
    def made(*arguments: Parameters.args, **options: Parameters.kwargs) -> Iterator[Item]:
        news: queue.Queue[tuple[str, Any]] = queue.Queue()
        wanted, stop = threading.Semaphore(0), Stop()

        def run() -> None:
            _work.stop = stop
            items = iter(job(*arguments, **options))
            try:
                wanted.acquire()
                for item in items:
                    news.put(("item", item))
                    wanted.acquire()
                    breathe()
                news.put(("end", None))
            except BaseException as error:  # handed to the listener's thread, which raises it
                close = getattr(items, "close", None)
                if close is not None:
                    close()
                news.put(("failure", error))

        thread = threading.Thread(target=run, name=job.__name__, daemon=True)
        thread.start()
        wanted.release()
        latest: list[Item] = []
        try:
            while True:
                try:
                    kind, content = news.get(timeout=_PATIENCE)
                except queue.Empty:
                    yield from latest
                    continue
                if kind == "end":
                    return
                if kind == "failure":
                    raise content
                latest = [content]
                yield content
                wanted.release()
        finally:
            stop.set()
            wanted.release()
            thread.join()

    return made


def aside(work: Callable[[], Result]) -> Result:
    """The result of ``work``, which cannot `breathe` and may be left running when nobody wants it: an import, something that is cached."""
    outcome: list[Result] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised where the result is wanted
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="aside", daemon=True).start()
    while not done.wait(_PATIENCE):
        breathe()
    if failure:
        raise failure[0]
    return outcome[0]


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
                raise Abandoned
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
    if failure and not isinstance(failure[0], Abandoned):
        raise failure[0]


def watched(
    work: Callable[[Callable[[float], None]], Result], tell: Callable[[float], Item]
) -> Generator[Item, None, Result]:
    """Run ``work(report)`` in a thread of its own and yield, a few times a second, ``tell`` of the fraction that it last reported.

    Returns what it returns and raises what it raises. Closing the generator ends the work at its next report or `breathe`.
    """
    fraction, stop, done = [0.0], Stop(), threading.Event()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def report(value: float) -> None:
        breathe()
        fraction[0] = value

    def run() -> None:
        _work.stop = stop
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
        stop.set()
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
