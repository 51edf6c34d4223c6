"""Visitors of the page: a folder for each, and their requests as plain values. No gradio in here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .__main__ import EDIT_STAGES, RECONSTRUCT_STAGES
from .editors import EditRequest, check_request, load_editor
from .errors import InputError

ROOT = Path(tempfile.gettempdir()) / "portraitgen-sessions"
MAX_AGE = 3 * 3600  # seconds; a folder untouched for longer is swept, whatever became of its owner
TEXT_LIMIT = 400  # letters of an instruction


@dataclass(frozen=True)
class Session:
    """What one visitor owns: a folder of their own and, in it, the portrait of the latest edit."""

    folder: str = ""
    edited: str = ""


@dataclass(frozen=True)
class Job:
    """One request in plain values: on ZeroGPU it is pickled and sent to the worker."""

    clip: Path
    portrait: Path
    preset: str
    max_seconds: float
    verb: str = "reconstruct"
    source: Path = Path()  # of an edit or a render: the portrait to edit or to show
    output: Path = Path()  # of an edit or a render: the clip to write
    options: dict[str, Any] = field(default_factory=dict)
    notice: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this job goes through, in order."""
        return RECONSTRUCT_STAGES + {"edit": EDIT_STAGES, "render": ("render",)}.get(self.verb, ())


def gpu_seconds(job: Job) -> int:
    """GPU seconds to reserve on ZeroGPU: within an anonymous visitor's quota unless the preset is high."""
    per_preset = {"preview": 20, "standard": 35, "high": 80}[job.preset]
    ceiling = 120 if job.preset == "high" else 60
    return min(ceiling, round(10 + per_preset * (1.5 if job.verb == "edit" else 1) + job.max_seconds))


def open_session(session: Session) -> Session:
    """Give a visitor a folder at their first job, and sweep the folders that nobody came back to."""
    folder = Path(session.folder)
    if session.folder and folder.is_dir():
        os.utime(folder)
        return session
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in ROOT.iterdir():
        with contextlib.suppress(OSError):  # another process may sweep the same folder
            if time.time() - old.stat().st_mtime > MAX_AGE:
                shutil.rmtree(old)
    return Session(folder=tempfile.mkdtemp(dir=ROOT))


def close_session(session: Session) -> None:
    """Delete everything a visitor left; gradio calls this an hour after they have gone."""
    if session.folder:
        shutil.rmtree(session.folder, ignore_errors=True)


def make_job(clip: str | None, preset: str, max_seconds: float, session: Session) -> Job:
    """A reconstruction of this clip in the visitor's folder; the same clip and settings get the same portrait."""
    from .clip import probe

    if not clip:
        raise InputError("There is no clip yet. Upload or record one first.")
    probe(Path(clip), max_seconds=max_seconds)
    key = hashlib.sha256()
    with open(clip, "rb") as file:
        while piece := file.read(1 << 20):
            key.update(piece)
    portrait = Path(session.folder) / f"{key.hexdigest()[:16]}-{preset}-{max_seconds:g}"
    return Job(Path(clip), portrait, preset, float(max_seconds))


def make_edit(
    job: Job, session: Session, request: EditRequest, background: str, *, behind: str = "", again: bool = False
) -> Job:
    """Turn a reconstruction into an edit; a request that cannot be carried out is answered before any work.

    Args:
        background: as for `pipeline.edit`, but no path: what a visitor types must not name a file of this machine.
        behind: an uploaded picture to put behind the person instead.
        again: go on from the session's latest edit, if there is one.
    """
    request = replace(request, text=request.text.strip())
    check_request(request)
    if len(request.text) > TEXT_LIMIT:
        raise InputError(f"The instruction is longer than {TEXT_LIMIT} letters. Say it in fewer words.")
    from .backgrounds import NAMED, SCENES, parse_background

    if background not in (*SCENES, *NAMED) and not re.fullmatch(r"#[0-9a-fA-F]{6}", background):
        raise InputError("The background is no colour such as #203040 and none of the names in the list. Choose one.")
    background = behind or background
    suffix = parse_background(background).suffix
    notice = ""
    if request.engine == "builtin":
        notice = f"Understood: {load_editor(request, 'cpu').understood}"
    folder = Path(session.folder)
    source = Path(session.edited) if again and session.edited and Path(session.edited).is_dir() else job.portrait
    for old in (*folder.glob("edited-*"), *folder.glob("turned-*")):  # the page has its own copies of earlier results
        if old != source:
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    name = f"edited-{time.time_ns():x}"
    options = {"request": request, "background": background, "save": folder / name}
    return replace(job, verb="edit", source=source, output=folder / f"{name}{suffix}", options=options, notice=notice)


def make_render(job: Job, session: Session, **options: Any) -> Job:
    """Turn a reconstruction into a render from another camera, of the latest edit if there is one."""
    source = Path(session.edited) if session.edited and Path(session.edited).is_dir() else job.portrait
    output = Path(session.folder) / f"turned-{time.time_ns():x}.mp4"
    return replace(job, verb="render", source=source, output=output, options=options)
