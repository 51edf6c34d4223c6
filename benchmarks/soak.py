"""Memory and disk of one server over many jobs: edits of all four kinds and renders by visitors who come one after the other.

    python benchmarks/soak.py [CLIP] [--jobs 30] [--seconds 1] [--steps 4] [--each 5]

The page and the pipeline are the real ones, with few optimiser steps and a small copy of the clip (10 frames a second, 320 lines); the
jobs come over HTTP from another process. Growth is measured from job 5 on, when every library is loaded. At the end everything is
swept as if it were old.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from _report import ROOT, report

WARM = 5  # jobs after which every library is loaded


def serve(folder: str, steps: int, line: Any) -> None:
    """Run the app with its files in ``folder``; a message on ``line`` sweeps them as if they were old."""
    os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "gradio")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    sys.path.insert(0, str(ROOT))
    import app
    from portraitgen import editing, reconstruction, sessions
    from portraitgen.sweeping import shown_always, sweep_files, sweep_folders

    learning, changing = reconstruction.PRESETS["preview"], editing.PRESETS["preview"]
    few = replace(learning.fit, steps=steps)
    reconstruction.PRESETS["preview"] = replace(learning, views=2, frames=8, fit=few, realign=())
    few = replace(changing.fit, steps=steps, coarse_steps=0)
    editing.PRESETS["preview"] = replace(changing, key_frames=2, passes=1, fit=few)
    demo = app.build()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    line.send(url)
    line.recv()
    sweep_folders(sessions.ROOT, -1)
    sweep_files(Path(os.environ["GRADIO_TEMP_DIR"]), -1, shown_always(demo))
    line.send("swept")
    line.recv()
    demo.close()


def small_copy(clip: Path, target: Path, seconds: float) -> Path:
    """Write the start of a clip with 10 frames a second and 320 lines, without sound."""
    sys.path.insert(0, str(ROOT))
    import cv2

    from portraitgen.clip import ClipInfo, probe, read_frames, write_video

    info = probe(clip, max_seconds=seconds)
    count = max(2, round(info.duration * 10))
    wanted = {round(number * info.frame_count / count) for number in range(count)}
    size = (round(info.width * 320 / info.height), 320)
    frames = [cv2.resize(frame, size) for number, frame in enumerate(read_frames(clip, info)) if number in wanted]
    times = tuple(number / 10 for number in range(len(frames)))
    write_video(target, frames, ClipInfo(*size, len(frames), Fraction(10), len(frames) / 10, False, 0, times))
    return target


def measure(process: int, folder: Path) -> dict[str, Any]:
    """Memory of a process in MiB, its threads and open files, and what lies in ``folder`` in MiB, links counted once."""
    status = Path(f"/proc/{process}/status").read_text()
    resident, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            sizes[facts.st_ino] = facts.st_size
    return {
        "rss_mib": round(resident / 1024, 1),
        "threads": threads,
        "open_files": len(os.listdir(f"/proc/{process}/fd")),
        "disk_mib": round(sum(sizes.values()) / 2**20, 2),
        "files": len(sizes),
    }


def requests() -> list[tuple[str, dict[str, Any]]]:
    """One of each kind: endpoint and arguments."""
    from gradio_client import handle_file

    def first(folder: str) -> Any:
        return handle_file(str(min(path for path in (ROOT / "examples" / folder).iterdir() if path.suffix != ".py")))

    return [
        ("/edit_text", {"text": "turn her into a bronze statue"}),
        ("/edit_style", {"style": first("styles")}),
        ("/render", {"yaw": 10}),
        ("/edit_tryon", {"garment": first("garments")}),
        ("/edit_relight", {"light": "warm sunset from the left"}),
        ("/edit_text", {"text": "pencil sketch", "background": "transparent"}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1.0, help="of the clip; the page's least is 1")
    parser.add_argument("--steps", type=int, default=4, help="of every optimisation")
    parser.add_argument("--each", type=int, default=5, help="jobs of a visitor")
    options = parser.parse_args()
    from gradio_client import Client, handle_file

    wishes, rows, client = requests(), [], None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as downloads:
        line, other = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, options.steps, other))
        server.start()
        url = line.recv()
        clip = handle_file(str(small_copy(options.clip, Path(downloads, "clip.mp4"), options.seconds)))
        for number in range(options.jobs):
            if number % options.each == 0:
                client = Client(url, verbose=False, download_files=downloads)
            name, values = wishes[number % len(wishes)]
            started = time.perf_counter()
            client.predict(clip=clip, max_seconds=options.seconds, api_name=name, **values)
            seconds = round(time.perf_counter() - started, 1)
            rows.append({"job": number + 1, "endpoint": name, "seconds": seconds, **measure(server.pid, Path(folder))})
            print(rows[-1], flush=True)
        line.send("sweep")
        line.recv()
        left = measure(server.pid, Path(folder))
        line.send("end")
        server.join()
    warm, last = rows[min(WARM, len(rows)) - 1], rows[-1]
    growth = last["rss_mib"] / warm["rss_mib"] - 1
    notes = {
        "clip": options.clip.name,
        "steps": options.steps,
        "growth_since_job_5": round(growth, 4),
        "disk_mib_after_sweep": left["disk_mib"],
        "files_after_sweep": left["files"],
    }
    report("soak", rows, **notes)
    print(notes)


if __name__ == "__main__":
    main()
