"""Work in a process of its own, for an app that must not do it itself.

On ZeroGPU the seconds of a call count whether the GPU is used or not, and the process that lends it must never start CUDA, which Warp does.
So what needs no GPU (looking for the face, tracking, matting) runs apart before the call. What it takes of memory goes back when it ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from .errors import InputError
from .progress import Progress

_BEAT = 0.5  # seconds after which the last news is repeated, so that whoever listens can stop
_PATIENCE = 5.0  # seconds for an end on request


def apart(work: Callable[..., Iterator[Progress]], *arguments: Any, **options: Any) -> Iterator[Progress]:
    """Yield the progress of ``work(*arguments, **options)``, done in a process without a GPU, at least twice a second.

    Closing this early ends the process.

    Args:
        work: a function of a module; it, its arguments and its progress are pickled.

    Raises:
        InputError: as ``work`` does.
        RuntimeError: for any other error of it, whose traceback is in the log, or if the process was killed.
    """
    here, there = os.pipe(), os.pipe()  # news to here; the order to there
    found = os.pathsep.join(filter(None, [_root(), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": found}
    command = [sys.executable, "-m", "portraitgen.apart", str(there[0]), str(here[1])]
    with subprocess.Popen(command, pass_fds=(there[0], here[1]), env=environment) as process:
        for end in (there[0], here[1]):
            os.close(end)
        try:
            with Connection(there[1], readable=False) as order, Connection(here[0], writable=False) as news:
                with contextlib.suppress(BrokenPipeError):  # it died at once, which the news will say
                    order.send((work, arguments, options))
                yield from _listen(news, work.__name__)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            process.kill()


def _listen(news: Connection, name: str) -> Iterator[Progress]:
    last = None
    while True:
        if not news.poll(_BEAT):
            if last is not None:
                yield last
            continue
        try:
            kind, content = news.recv()
        except EOFError:
            raise RuntimeError(f"The process of {name} was killed.") from None
        if kind == "done":
            return
        if kind == "refused":
            raise InputError(content)
        if kind == "failed":
            raise RuntimeError(content)
        last = content
        yield content


def _root() -> str:
    """The folder that holds this package, wherever the app was started."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(order: int, news: int) -> None:
    """The other side: take the order, do the work, send what it yields."""
    with Connection(order, writable=False) as orders, Connection(news, readable=False) as line:
        work, arguments, options = orders.recv()
        try:
            for step in work(*arguments, **options):
                line.send(("step", step))
            line.send(("done", None))
        except InputError as error:
            line.send(("refused", str(error)))
        except BrokenPipeError:  # nobody listens any more
            return
        except Exception as error:
            line.send(("failed", f"{type(error).__name__} in {work.__name__}"))
            raise


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
