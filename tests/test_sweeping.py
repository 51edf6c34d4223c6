"""Old files go, young ones and those of the page stay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

from portraitgen.sweeping import every, shown_always, sweep_files, sweep_folders


def test_folders_go_by_when_they_were_touched(tmp_path: Path) -> None:
    for name in ("old", "young"):
        (tmp_path / name / "inside").mkdir(parents=True)
        (tmp_path / name / "inside" / "clip.mp4").touch()
    os.utime(tmp_path / "old", (0, 0))
    sweep_folders(tmp_path, 3600)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
    sweep_folders(tmp_path / "missing", 3600)


def test_files_go_by_when_they_came(tmp_path: Path) -> None:
    for name in ("a/result.mp4", "b/example.png", "b/upload.png", "c/d/deep.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.utime(tmp_path / "a/result.mp4", (0, 0))  # the age of what is inside a file does not count
    sweep_files(tmp_path, 3600)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4
    sweep_files(tmp_path, -1, {str(tmp_path / "b/example.png")})
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["b", "b/example.png"]
    assert tmp_path.is_dir()


def test_files_of_the_page() -> None:
    blocks = {1: SimpleNamespace(keep_in_cache={"a"}), 2: SimpleNamespace(), 3: SimpleNamespace(keep_in_cache={"b"})}
    assert shown_always(SimpleNamespace(blocks=blocks)) == {"a", "b"}


def test_again_and_again_until_told() -> None:
    times: list[float] = []
    ended = every(0.02, lambda: times.append(time.monotonic()))
    end = time.monotonic() + 10
    while len(times) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(times) >= 4
    ended.set()
    time.sleep(0.1)
    count = len(times)
    time.sleep(0.2)
    assert len(times) == count
