"""Whether a long clip costs more memory, and more than its share of time: reconstruct and render at two lengths.

    python benchmarks/length.py [CLIP] [--seconds 5 60] [--steps 30] [--preset preview]

The clip is played forwards and backwards until it is long enough. Each job is a process of its own, whose peak memory is
the most that the system counted for it. ``--steps`` shortens the optimisation, which does not depend on the length.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen.clip import ClipInfo, probe, read_frames, write_video


def looped(path: Path, count: int) -> Iterator[np.ndarray]:
    """``count`` frames of the clip, forwards and backwards in turn, kept as PNG in between."""
    kept = [cv2.imencode(".png", frame)[1] for frame in read_frames(path, probe(path))]
    there_and_back = [*range(len(kept)), *range(len(kept) - 2, 0, -1)]
    for number in itertools.islice(itertools.cycle(there_and_back), count):
        yield cv2.imdecode(kept[number], cv2.IMREAD_COLOR)


def make(source: Path, path: Path, seconds: float) -> None:
    """Write the clip at a length of ``seconds``."""
    info = probe(source)
    count = round(seconds * info.rate)
    times = tuple(float(number / info.rate) for number in range(count))
    long = ClipInfo(info.width, info.height, count, info.rate, float(count / info.rate), False, 0, times)
    write_video(path, looped(source, count), long, crf=14)


def reconstruct(clip: Path, folder: Path, preset: str, steps: int | None) -> dict[str, float]:
    """Seconds of each stage."""
    from portraitgen import pipeline, reconstruction

    if steps is not None:
        config = reconstruction.PRESETS[preset]
        fit = dataclasses.replace(config.fit, steps=steps, coarse_steps=min(config.fit.coarse_steps, steps // 2))
        reconstruction.PRESETS[preset] = dataclasses.replace(config, fit=fit)
    for _ in pipeline.reconstruct(clip, folder, preset=preset):
        pass
    return pipeline.timings(folder)


def render(folder: Path, output: Path) -> dict[str, float]:
    """Seconds of the rendering."""
    from portraitgen import pipeline

    started = time.perf_counter()
    for _ in pipeline.render(folder, output):
        pass
    return {"render": time.perf_counter() - started}


def work(options: argparse.Namespace) -> None:
    """One job, in a process of its own; prints its seconds and its peak memory as JSON."""
    if options.job == "make":
        make(options.clip, options.output, options.seconds[0])
        return
    if options.job == "reconstruct":
        seconds = reconstruct(options.clip, options.output, options.preset, options.steps)
    else:
        seconds = render(options.clip, options.output)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak": peak}))


def run(job: str, source: str, output: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, source, "--job", job, "--output", output, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job} failed: {done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout.strip() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 60.0], help="the lengths to compare")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the preset's")
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--job", choices=("make", "reconstruct", "render"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(options)
        return
    shorter = [] if options.steps is None else ["--steps", str(options.steps)]
    results: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in options.seconds:
            clip, portrait = f"{folder}/{seconds:g}.mp4", f"{folder}/{seconds:g}"
            run("make", str(options.clip.resolve()), clip, "--seconds", str(seconds))
            learned = run("reconstruct", clip, portrait, "--preset", options.preset, *shorter)
            rendered = run("render", portrait, f"{portrait}.rendered.mp4")
            spent = {f"{name}, s": value for name, value in (learned["seconds"] | rendered["seconds"]).items()}
            results.append(spent | {"reconstruct, GiB": learned["peak"], "render, GiB": rendered["peak"]})
    rows = []
    for what in results[0]:
        row: dict[str, Any] = {"what": what}
        row |= {f"{seconds:g} s": result[what] for seconds, result in zip(options.seconds, results, strict=True)}
        rows.append(row | {"ratio": results[-1][what] / max(results[0][what], 1e-9)})
    report("length", rows, clip=options.clip.name, preset=options.preset, steps=options.steps)


if __name__ == "__main__":
    main()
