"""Seconds by stage, peak memory and quality of a whole job through the command line: reconstruct, edit, evaluate.

    python benchmarks/whole_job.py [CLIP] [--seconds 3] [--preset preview] [--text "..."] [--skip-quality]

Each command is a process of its own, as a person would run it, so the times include starting Python. The default clip is the example.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import ROOT, report


def run(arguments: list[str]) -> tuple[float, float, Any]:
    """Wall seconds, peak memory in GiB so far over all commands, and what the command printed as JSON."""
    command = [sys.executable, "-m", "portraitgen", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return time.perf_counter() - started, peak, json.loads(done.stdout) if done.stdout.strip() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--text", default="turn her into a bronze statue")
    parser.add_argument("--skip-quality", action="store_true", help="leave out the evaluation, which takes minutes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        portrait, edited = os.path.join(folder, "portrait"), os.path.join(folder, "edited.mp4")
        common = ["--preset", options.preset, "--json"]
        clip = str(options.clip.resolve())
        learned, peak_learning, stages = run(
            ["reconstruct", clip, "-o", portrait, "--max-seconds", str(options.seconds), *common]
        )
        changed, peak_editing, edit_stages = run(["edit", portrait, "-o", edited, "--text", options.text, *common])
        quality = {} if options.skip_quality else run(["evaluate", portrait])[2]
        steadiness = {} if options.skip_quality else run(["evaluate", portrait, "--edited", edited])[2]
    rows = [{"stage": name, "seconds": value} for name, value in (stages | edit_stages).items()]
    rows += [
        {"stage": "reconstruct, as a command", "seconds": learned},
        {"stage": "edit, as a command", "seconds": changed},
    ]
    rows += [{"stage": "whole job", "seconds": learned + changed}]
    notes = {
        "clip": options.clip.name,
        "clip_seconds": options.seconds,
        "preset": options.preset,
        "text": options.text,
        "peak_memory_gib": round(max(peak_learning, peak_editing), 2),
        "reconstruction": quality,
        "edit": steadiness,
    }
    report("whole_job", rows, **notes)
    print(json.dumps(notes, indent=1))


if __name__ == "__main__":
    main()
