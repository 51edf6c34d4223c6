"""How soon a job can be stopped, by stage: the longest silence, the longest time between two looks at whether to go on, and real stops.

A stop takes effect at the next piece of news, and ends the work at its next look (`streaming.breathe`). Every stage is begun, closed on the
way and gone on with, in a process that has imported nothing yet, which is how the first visitor finds it. On a machine that does other
things besides, ``cpu_s`` says what the longest time would have been on a quiet one.

    python benchmarks/stop.py [CLIP] [--max-seconds 2] [--text "..."]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen import pipeline
from portraitgen.editors import EditRequest
from portraitgen.progress import EDIT_STAGES, RECONSTRUCT_STAGES, Progress
from portraitgen.streaming import Stop

EVERY = 0.02  # seconds between two looks at where a thread is
CLOSED_AT = 0.3  # of a stage


@dataclass
class Spell:
    """A time without a look: how long, what the process spent on its processor, and where its thread was seen."""

    seconds: float = 0.0
    cpu: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)


class Clock:
    """Notes, by stage, the longest spells between two looks of a thread at its `Stop`."""

    def __init__(self) -> None:
        self.stage = ""
        self.longest: dict[str, Spell] = {}
        self.began: dict[int, tuple[float, float, Counter[str]]] = {}  # of the spell that each thread is in
        look = Stop.is_set

        def noted(stop: Stop) -> bool:
            self.look()
            return look(stop)

        Stop.is_set = noted  # type: ignore[method-assign]
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        """A thread has looked: its spell is over and the next one begins."""
        now, cpu, thread = time.perf_counter(), time.process_time(), threading.get_ident()
        begin, spent, seen = self.began.get(thread, (now, cpu, Counter[str]()))
        if now - begin > self.longest.setdefault(self.stage, Spell()).seconds:
            self.longest[self.stage] = Spell(now - begin, cpu - spent, seen)
        self.began[thread] = time.perf_counter(), time.process_time(), Counter()

    def _watch(self) -> None:
        while True:
            time.sleep(EVERY)
            frames = sys._current_frames()
            for thread, (_, _, seen) in list(self.began.items()):
                if thread in frames:
                    seen[place(frames[thread])] += 1
                else:  # it has ended
                    self.began.pop(thread, None)


def place(frame: FrameType | None) -> str:
    """The innermost of our own functions that a thread is in."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(ROOT / "portraitgen")):
            return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


class Listener:
    """Runs jobs; notes the longest silence of each stage and the seconds that it took to close it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.silence: dict[str, float] = {}
        self.closing: dict[str, float] = {}

    def listen(self, job: Iterator[Progress], until: str | None = None) -> None:
        """Run a job to its end, or close it on the way through the stage ``until``."""
        began = time.perf_counter()
        for step in job:
            now = time.perf_counter()
            self.clock.stage = stage = step.stage
            self.silence[stage] = max(self.silence.get(stage, 0.0), now - began)
            began = now
            if stage == until and CLOSED_AT <= step.fraction < 1:
                job.close()  # type: ignore[attr-defined]
                self.closing[stage] = time.perf_counter() - began
                return

    def rows(self) -> list[dict[str, Any]]:
        """What was noted, a row for each stage."""
        rows = []
        for stage, silence in self.silence.items():
            spell = self.clock.longest.get(stage, Spell())
            where = ", ".join(name for name, _ in spell.seen.most_common(2))
            rows.append(
                {
                    "stage": stage,
                    "silence_s": round(silence, 2),
                    "no_look_s": round(spell.seconds, 2),
                    "cpu_s": round(spell.cpu, 2),
                    "where": where,
                    "stopped_in_s": round(self.closing[stage], 2) if stage in self.closing else None,
                }
            )
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clip", type=Path, nargs="?", default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--max-seconds", type=float, default=2.0)
    parser.add_argument("--text", default="turn him into a bronze statue")
    arguments = parser.parse_args()
    request = EditRequest("text", arguments.text, engine="builtin")
    listener = Listener()
    with tempfile.TemporaryDirectory(prefix="portraitgen-stop-") as folder:
        portrait, output = Path(folder) / "portrait", Path(folder) / "edited.mp4"

        def learn() -> Iterator[Progress]:
            return pipeline.reconstruct(arguments.clip, portrait, max_seconds=arguments.max_seconds)

        def edit() -> Iterator[Progress]:
            return pipeline.edit(portrait, output, request=request)

        jobs: list[tuple[tuple[str, ...], Callable[[], Iterator[Progress]]]] = [
            (RECONSTRUCT_STAGES, learn),
            (EDIT_STAGES, edit),
        ]
        for stages, job in jobs:
            for stage in (*stages, None):
                listener.listen(job(), until=stage)
        assert output.is_file()
    report("stop", listener.rows(), max_seconds=arguments.max_seconds, load=round(os.getloadavg()[0], 1))


if __name__ == "__main__":
    main()
