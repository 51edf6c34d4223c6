"""Fidelity and cost of reconstruction on held-out frames: PSNR, SSIM, perceptual distance, sharpness, seconds by stage, peak memory.

    python benchmarks/reconstruction.py [CLIP ...] [--preset preview] [--holdout 0.2] [--max-seconds S] [--device auto] [--name NAME]

Each clip is reconstructed and evaluated by the command line, in processes of their own. The last part of every clip is tracked but never
trained on. The default clip is the example. Writes results/NAME.json and results/NAME.jpg: held-out frames as source | ours | error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _report import RESULTS, ROOT, report

MOMENTS = (0.25, 0.75)  # of the held-out part
SHOWN = 320  # px, height of a picture in the sheet


def portraitgen(*arguments: str) -> tuple[str, float, float]:
    """What a command prints, its seconds, and its largest resident memory in GiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        command = [sys.executable, "-m", "portraitgen", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone; that of all children only ever grows
        seconds, process.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            said = errors.read().strip().splitlines() or ["nothing was said"]
            sys.exit(f"{arguments[0]} ended with {process.returncode}: {said[-1]}")
        return out.read(), seconds, usage.ru_maxrss / 2**20


def measure(clip: Path, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """One row of the table, and pictures of the held-out part."""
    portrait, rendered = str(folder / "portrait"), str(folder / "rendered.mp4")
    limit = [] if options.max_seconds is None else ["--max-seconds", str(options.max_seconds)]
    common = ["--preset", options.preset, "--device", options.device, "--holdout", str(options.holdout)]
    _, seconds, peak = portraitgen("reconstruct", str(clip.resolve()), "-o", portrait, *common, *limit)
    values = json.loads(portraitgen("evaluate", portrait)[0])
    portraitgen("render", portrait, "-o", rendered, "--view", "crop", "--background", "white")
    stages = values["seconds"]
    row = {"clip": clip.name, "frames": values["trained"]["frames"], "held out": values["held_out"]["frames"]}
    row |= {
        name: values["held_out"][key]
        for name, key in (("PSNR", "psnr"), ("PSNR 256²", "psnr_256"), ("SSIM", "ssim"), ("perceptual", "perceptual"))
    }
    row |= {
        "perceptual network": values["perceptual_network"],
        "PSNR trained": values["trained"]["psnr"],
        "sharpness": values["sharpness"],
        "track error %": 100 * values["track_error"]["mean"],
        "Gaussians": values["gaussians"],
    }
    row |= {f"{stage} s": stages[stage] for stage in ("clip", "tracking", "matting", "reconstruction")}
    row |= {"command s": seconds, "peak GiB": peak, "render fps": values["frames_per_second"]}
    return row, sheet(Path(portrait) / "frames.mp4", Path(rendered), row["frames"])


def sheet(source: Path, ours: Path, first: int) -> np.ndarray:
    """Source | ours | three times the error, of moments after frame ``first``."""
    clips = [read(path) for path in (source, ours)]
    rows = []
    for moment in MOMENTS:
        index = min(len(clips[0]) - 1, first + int(moment * (len(clips[0]) - first)))
        a, b = clips[0][index], clips[1][index]
        error = np.clip(3.0 * cv2.absdiff(a, b), 0, 255).astype(np.uint8)
        row = np.hstack([a, b, error])
        rows.append(cv2.resize(row, (3 * SHOWN, SHOWN), interpolation=cv2.INTER_AREA))
    return np.vstack(rows)


def read(path: Path) -> list[np.ndarray]:
    """All frames of a short clip, BGR."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=[ROOT / "examples" / "portrait.mp4"])
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--holdout", type=float, default=0.2)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--name", default="reconstruction", help="of the files below results (%(default)s)")
    options = parser.parse_args()
    rows, sheets = [], []
    for clip in options.clips:
        with tempfile.TemporaryDirectory() as folder:
            row, picture = measure(clip, options, Path(folder))
        rows.append(row)
        sheets.append(picture)
        numbers = [key for key, value in row.items() if isinstance(value, float)]
        means = {key: float(np.mean([row[key] for row in rows])) for key in numbers}
        # Hours of work: what is there is written down after every clip.
        report(options.name, rows, preset=options.preset, holdout=options.holdout, means=means)
        # The example's pictures may be shown; those of other people's clips stay on the machine.
        cv2.imwrite(str(RESULTS / f"{options.name}.jpg"), np.vstack(sheets), [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(json.dumps({key: round(value, 4) for key, value in means.items()}))


if __name__ == "__main__":
    main()
