"""Writing to disk: whole files or none, and one sentence for everything that a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well and is removed when it does not.

    What the machine refuses meanwhile becomes an InputError.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the path of a file to write.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}. Make it first or write elsewhere.")
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(explain_os_error(error, path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def explain_os_error(error: OSError, path: Path | None = None) -> str:
    """Say in one sentence what the machine refused and what to do about it.

    Args:
        path: what was being written, named in place of what the error names.
    """
    where = f" at {path or error.filename}" if path or error.filename else ""
    if error.errno in _FULL:
        return f"The disk is full{where}. Free some space or choose another folder, and run it again."
    if error.errno in _CLOSED:
        return f"Writing or reading is not allowed{where}. Choose another folder or change its permissions."
    if error.errno in _MISPLACED:
        return f"A file is where a folder should be, or the other way round{where}. Choose another path."
    if error.errno == errno.ENOENT:
        return f"There is no such file or folder{where}. Check the path."
    if error.errno == errno.ENAMETOOLONG:
        return "The name of a file is too long. Choose a shorter one."
    if error.errno == errno.ENOMEM:
        return "The memory is full. Use a shorter clip or a smaller preset."
    return f"The machine reports: {error.strerror or error}{where}."


def names_file(text: str) -> bool:
    """Whether what a person typed is the path of a file; nothing is too long or too odd to ask."""
    with contextlib.suppress(OSError, ValueError):
        return Path(text).is_file()
    return False


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in _FULL


def check_output(output: Path, suffix: str = ".mp4") -> None:
    """Find out before the long work, not after it, that nothing can be written at ``output``; makes its folder if there is none."""
    if output.suffix.lower() != suffix:
        raise InputError(f"The output {output} does not end in {suffix}. Name a file that does.")
    if output.is_dir():
        raise InputError(f"The output {output} is a folder. Name a file to write.")
    check_writable(output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(explain_os_error(error, output.parent)) from error


def check_writable(directory: Path) -> None:
    """Refuse early if nothing can be written in ``directory``, which need not exist yet."""
    existing = next(p for p in itertools.chain([directory], directory.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise InputError(f"{existing} is a file, not a folder. Choose another folder to write to.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} cannot be written to. Choose a folder that you can write to.")
