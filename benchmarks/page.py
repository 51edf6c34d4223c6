"""How long a visitor waits for the page, in a real Chromium: until it can be used, for a stored example, for the first look at a clip.

    python benchmarks/page.py [CLIP] [--starts 3]

Every start is ``python app.py`` in a process of its own and a browser that has seen nothing yet; "interactive" is from the command to an
answer that a click on a tab brings. An example is shown once the player has a picture of the clip and of the result. The clip looked at is
by default the stored one, repeated for ten seconds at 1280x720. Needs Chromium and the tests' requirements.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from _report import ROOT, report

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

PLAYING = "() => [...document.querySelectorAll('.player video')].filter((video) => video.readyState >= 2).length == 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    from chromium import CHROMIUM, FLAGS
    from playwright.sync_api import sync_playwright

    rows: list[dict[str, Any]] = []

    def add(what: str, seconds: float) -> None:
        rows.append({"what": what, "seconds": round(seconds, 2), "load": round(os.getloadavg()[0], 1)})

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for number in range(options.starts):
            last = number == options.starts - 1
            with Server(Path(folder)) as server:
                url = server.wait()
                answered = time.perf_counter() - server.started
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                view = browser.new_page(viewport={"width": 1440, "height": 1000})
                view.goto(url)
                view.get_by_role("tab", name="Relighting").click()
                view.locator("#light").wait_for()
                add(f"start {number + 1}: interactive", time.perf_counter() - server.started)
                add(f"start {number + 1}: server answers", answered)
                view.get_by_role("tab", name="Text").click()
                if last:
                    time.sleep(10)  # what is warmed up behind the page
                    examples(view, add)
                    clip = options.clip or ten_seconds(Path(folder) / "clip.mp4")
                    for turn in ("first", "second"):
                        add(f"{turn} look at a clip", look(view, clip))
                browser.close()
    report("page", rows, clip="" if options.clip is None else options.clip.name)


class Server:
    """``python app.py`` on a free port, ended when the block is left."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder

    def __enter__(self) -> Server:
        variables = os.environ | {"GRADIO_SERVER_PORT": str(self.port), "TMPDIR": str(self.folder)}
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        return self

    def wait(self) -> str:
        """The page's address, once it answers."""
        url = f"http://127.0.0.1:{self.port}/"
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"app.py ended with code {self.process.returncode}")
            try:
                with urllib.request.urlopen(url, timeout=60):
                    return url
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def examples(view: Any, add: Callable[[str, float], None]) -> None:
    """Click every stored example, the page emptied between them as a reload does."""
    for number in range(view.locator("#shelf button").count()):
        view.reload()
        button = view.locator("#shelf button").nth(number)
        button.wait_for()
        view.wait_for_timeout(2000)
        started = time.perf_counter()
        button.click()
        view.wait_for_function(PLAYING)
        add(f"stored example {number + 1}", time.perf_counter() - started)
        view.wait_for_timeout(1000)


def look(view: Any, clip: Path) -> float:
    """Seconds from the upload of a clip until face, crop and cost are shown."""
    view.reload()
    view.locator("#shelf button").first.wait_for()
    view.wait_for_timeout(1000)
    started = time.perf_counter()
    view.locator("#clip input[type=file]").set_input_files(str(clip))
    view.locator("#look img").wait_for()
    view.get_by_text("to learn the clip, once").wait_for()
    return time.perf_counter() - started


def ten_seconds(target: Path) -> Path:
    """Write the stored clip as ten seconds of 1280x720."""
    import cv2
    import numpy as np

    from portraitgen.clip import ClipInfo, probe, read_frames, write_video

    source = ROOT / "examples" / "portrait.mp4"
    info = probe(source)
    scale = 720 / info.height
    frames = []
    for frame in read_frames(source, info):
        picture = cv2.resize(frame, (round(info.width * scale), 720), interpolation=cv2.INTER_CUBIC)
        left = (1280 - picture.shape[1]) // 2
        frames.append(np.pad(picture, ((0, 0), (left, 1280 - left - picture.shape[1]), (0, 0)), mode="edge"))
    count = round(10 * info.rate)
    clip = ClipInfo(
        1280, 720, count, Fraction(info.rate), 10.0, False, 0, tuple(n / float(info.rate) for n in range(count))
    )
    write_video(target, (frames[number % len(frames)] for number in range(count)), clip)
    return target


if __name__ == "__main__":
    main()
