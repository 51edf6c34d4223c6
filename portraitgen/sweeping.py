"""Old files of a server deleted by their age, whatever became of those who left them."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any


def sweep_folders(root: Path, age: float) -> None:
    """Delete the folders in ``root`` that were last touched more than ``age`` seconds ago, with all that is in them."""
    for folder in root.glob("*"):
        with contextlib.suppress(OSError):  # another process may sweep the same folder
            if time.time() - folder.stat().st_mtime > age:
                shutil.rmtree(folder)


def sweep_files(root: Path, age: float, keep: Collection[str] = ()) -> None:
    """Delete the files below ``root`` that came there more than ``age`` seconds ago, but for ``keep``, and folders left empty."""
    for path in sorted(root.rglob("*"), reverse=True):  # what is in a folder before the folder
        with contextlib.suppress(OSError):  # gone already, or a folder that is not empty
            if time.time() - path.stat().st_ctime > age and str(path) not in keep:
                path.rmdir() if path.is_dir() else path.unlink()


def shown_always(demo: Any) -> set[str]:
    """Files of a gradio app's cache that belong to the page itself, such as its example pictures."""
    return {path for block in demo.blocks.values() for path in getattr(block, "keep_in_cache", ())}


def every(seconds: float, work: Callable[[], None]) -> threading.Event:
    """Do ``work`` now and then every so many seconds in the background, until the event that this returns is set."""
    ended = threading.Event()

    def repeat() -> None:
        work()
        while not ended.wait(seconds):
            work()

    threading.Thread(target=repeat, name="sweeping", daemon=True).start()
    return ended
