"""What is left of a visitor's finished job: what they are shown then, and its place among their earlier results."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .editors import EditRequest
from .sessions import Job, Result, Session, history, remember, show, source_of
from .wording import EDIT_TITLES

if TYPE_CHECKING:
    import numpy as np

KEPT_RESULTS = 8  # of a visitor; earlier ones are deleted
_THUMBNAIL = 320  # px, longest side


def conclude(session: Session, job: Job) -> Session:
    """The session of a visitor whose job is done, and who is shown what came of it, whatever they looked at meanwhile."""
    if job.verb == "reconstruct":
        return replace(session, learned=str(job.portrait))
    if job.verb == "edit":
        session = finish_edit(session, job)
    elif job.source == job.portrait:
        session = replace(session, learned=str(job.portrait), edited="")
    else:
        session = next((show(session, row) for row in history(session) if row.portrait == str(job.source)), session)
    anew = job.source == job.portrait and job.clip.is_file()  # else the clip in the form may be another one
    return replace(session, result=str(job.output), source=str(job.clip) if anew else source_of(str(job.source)))


def finish_edit(session: Session, job: Job) -> Session:
    """Enter a finished edit in the visitor's history and forget the earliest if there are too many."""
    import cv2

    portrait, picture = Path(job.options["save"]), job.output.with_suffix(".jpg")
    frame = middle_frame(job.output)
    scale = _THUMBNAIL / max(frame.shape[:2])
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(picture), small[..., ::-1])
    title = edit_title(job.options["request"])
    result = Result(title, str(job.output), str(picture), str(portrait), str(job.portrait), job.preset)
    rows = [*history(session), result]
    for old in rows[:-KEPT_RESULTS]:
        shutil.rmtree(old.portrait, ignore_errors=True)
        for path in (old.clip, old.picture):
            Path(path).unlink(missing_ok=True)
    remember(session, rows[-KEPT_RESULTS:])
    return replace(session, learned=str(job.portrait), edited=str(portrait))


def edit_title(request: EditRequest) -> str:
    """An edit in a few words."""
    words = request.text or (request.picture.stem if request.picture else "")
    words = " ".join(words.replace("_", " ").split())
    return EDIT_TITLES[request.kind] + (words if len(words) <= 40 else f"{words[:39]}…")


def middle_frame(clip: Path) -> np.ndarray:
    """A frame ``[H, W, 3]`` uint8 from the middle of a clip."""
    from .clip import probe
    from .inspection import sample_frames

    return next(sample_frames(clip, probe(clip), 1))[1]
