"""A job in a terminal: its progress bar and notes, its streams, Ctrl-C, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .progress import Progress

INTERRUPTED = threading.Event()  # set by Ctrl-C, of which a process has one
JUDGING_STAGES = ("clip", "tracking")  # these find out whether the clip can be used


def fail(message: str, code: int = 2) -> NoReturn:
    """Write one line to stderr and leave."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def follow(steps: Iterator[Progress], stages: Sequence[str]) -> dict[str, float]:
    """Run a job to its end with one progress bar over its stages, and then print its notes; return the seconds each stage took.

    In a log, which keeps what a terminal would overwrite, the bar waits until the stages that judge the clip are through, so
    that an error about the clip is the only line.
    """
    from tqdm import tqdm

    order = list(stages)
    seconds: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    last = time.perf_counter()
    bar: Any = None
    # A fixed miniters: tqdm would otherwise learn it from a fast stage and then sleep through a slow one.
    options: dict[str, Any] = {
        "leave": False,
        "dynamic_ncols": True,
        "file": sys.stderr,
        "miniters": 0,
        "mininterval": 0.5,
    }
    with contextlib.ExitStack() as stack:
        for step in steps:
            if INTERRUPTED.is_set():
                raise KeyboardInterrupt
            if step.stage not in order:
                order.append(step.stage)
            new_stage = step.stage not in seconds
            now = time.perf_counter()
            notes = tuple(dict.fromkeys(notes + step.notes))
            seconds[step.stage] = seconds.get(step.stage, 0.0) + now - last
            last = now
            if bar is None and (sys.stderr.isatty() or (step.stage not in JUDGING_STAGES and step.fraction > 0)):
                layout = "{percentage:3.0f}%|{bar}| {elapsed} {desc}"
                bar = stack.enter_context(contextlib.closing(tqdm(total=len(order), bar_format=layout, **options)))
            if bar is not None:
                bar.total = len(order)
                text = f"{step.stage}: {step.message}" if step.message else step.stage
                bar.set_description_str(text, refresh=False)
                bar.update(order.index(step.stage) + min(max(step.fraction, 0.0), 1.0) - bar.n)
                if new_stage:
                    bar.refresh()  # a short stage shows too
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return {stage: round(value, 3) for stage, value in seconds.items()}


def keep_interrupts() -> None:
    """Remember a Ctrl-C: libraries that catch everything while they are being imported would lose it."""

    def note(number: int, frame: Any) -> None:
        INTERRUPTED.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)


def keep_streams() -> None:
    """Keep stdout and stderr for Python: native libraries write their own log straight to descriptors 1 and 2."""
    void = os.open(os.devnull, os.O_WRONLY)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        number = stream.fileno()
        kept = os.fdopen(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
        setattr(sys, name, kept)
        os.dup2(void, number)
    os.close(void)
