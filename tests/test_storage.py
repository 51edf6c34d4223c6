"""Whole files or none, and a sentence for each refusal of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from portraitgen.errors import InputError
from portraitgen.storage import check_output, explain_os_error, names_file, replacing


def write(path: Path, failure: BaseException | None) -> None:
    with replacing(path) as temporary:
        assert temporary.suffix == path.suffix, "some writers choose the format by it"
        temporary.write_text("new")
        if failure is not None:
            raise failure


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    write(path, None)
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError, r"disk is full at .*x\.json"),
        (OSError(errno.EDQUOT, "Quota exceeded"), InputError, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), InputError, "not allowed"),
        (OSError(errno.EIO, "Input/output error"), InputError, r"Input/output error at .*x\.json"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException, kind: type[BaseException], words: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(kind, match=words):
        write(path, failure)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        write(tmp_path / "missing" / "x.json", None)
    with pytest.raises(InputError, match="is a folder"):
        write(tmp_path, None)


def test_a_missing_output_folder_is_made(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deep" / "out.mp4")
    assert (tmp_path / "new" / "deep").is_dir()


def test_outputs_that_cannot_be_are_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "dir.mp4").mkdir()
    for output, words in (
        (tmp_path / "out.gif", "does not end in .mp4"),
        (tmp_path / "dir.mp4", "is a folder"),
        (file / "out.mp4", "is a file, not a folder"),
        (Path("/proc/nowhere/out.mp4"), "cannot be|not allowed|no such"),
    ):
        with pytest.raises(InputError, match=words):
            check_output(output)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, 5])
def test_sentences(number: int) -> None:
    said = explain_os_error(OSError(number, os.strerror(number), "/x"))
    assert said.endswith(".")
    assert "Errno" not in said
    assert "\n" not in said


def test_what_is_typed_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "here.png").touch()
    assert names_file(str(tmp_path / "here.png"))
    for text in ("", "warm light from the left", str(tmp_path), "a" * 100_000, "a\0b", "\ud800"):
        assert not names_file(text)
