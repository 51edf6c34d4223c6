"""Visitors of the page: a folder for each, and their requests as plain values. No gradio in here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .editors import EditRequest, check_request, load_editor
from .errors import InputError
from .estimates import finished_stages, is_pending
from .limits import MAX_SEED
from .pipeline import PRESETS
from .progress import EDIT_STAGES, RECONSTRUCT_STAGES
from .storage import replacing
from .sweeping import sweep_folders

if TYPE_CHECKING:
    from .clip import ClipInfo

ROOT = Path(tempfile.gettempdir()) / "portraitgen-sessions"
KEPT_SECONDS = 3500  # a folder younger than this is in use, or is kept for someone who may come back
SWEPT_EVERY = 600  # seconds
# Seconds; what is untouched for longer is swept, whatever became of its owner: nothing lies longer than the page says.
MAX_AGE = 3 * 3600 - SWEPT_EVERY
TEXT_LIMIT = 400  # letters of an instruction
VIEWS = 25  # of the turntable
VERBS: dict[str, tuple[str, ...]] = {
    "reconstruct": (),
    "edit": EDIT_STAGES,
    "render": ("render",),
    "webm": ("render",),
    "orbit": ("render",),
    "views": ("render",),
    "ply": ("export",),
    "zip": ("export",),
}
PACKED = {"ply": ".ply", "zip": ".zip", "views": ".jpg"}  # what `export` writes, by the ending of its file
_SUFFIXES = {"webm": ".webm", "orbit": ".mp4", **PACKED}
_HISTORY, _OVERRUNS = "history.json", "overruns"


@dataclass
class Session:
    """What one visitor owns and is shown. One and the same for all that the visitor starts, a job and a choice beside it too.

    Attributes:
        folder: their own; its name is a secret, whoever knows it is that visitor.
        learned: the portrait of the latest clip.
        edited: the portrait of the result that is shown, if it is an edit.
        result: the clip that is shown as the result, if one is.
        source: the visitor's clip that it is shown beside.
    """

    folder: str = ""
    learned: str = ""
    edited: str = ""
    result: str = ""
    source: str = ""

    def become(self, other: Session) -> None:
        """Take everything over from another one."""
        vars(self).update(vars(other))


@dataclass(frozen=True)
class Result:
    """One finished edit of a visitor.

    Attributes:
        title: its name in words.
        clip: the edited clip.
        picture: what it looks like.
        portrait: to go on from.
        learned: the portrait of the visitor's clip that it was made from, with no edit.
        preset: the quality that the edit was asked for in.
    """

    title: str
    clip: str
    picture: str
    portrait: str
    learned: str
    preset: str


@dataclass(frozen=True)
class Job:
    """One request in plain values: on ZeroGPU it is pickled and sent to the worker."""

    clip: Path
    portrait: Path
    preset: str
    max_seconds: float
    verb: str = "reconstruct"
    source: Path = Path()  # of everything but a reconstruction: the portrait to edit, to show or to pack
    output: Path = Path()  # of the same: the file to write
    options: dict[str, Any] = field(default_factory=dict)
    notice: str = ""
    frame_count: int = 0
    start: float = 0.0  # second of the clip from which on it is used
    learned: bool = False  # the portrait is ready, as the caller knows
    overruns: int = 0  # calls of a shared GPU that were too short for this before

    @property
    def learns(self) -> bool:
        """Whether the clip is learned first, as far as it is not yet."""
        return self.verb in ("reconstruct", "edit", "render") and not self.learned

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this job goes through, in order."""
        return (RECONSTRUCT_STAGES if self.learns else ()) + VERBS[self.verb]


def open_session(session: Session) -> Session:
    """Give a visitor a folder at their first job, and sweep the folders that nobody came back to."""
    folder = Path(session.folder)
    if session.folder and folder.is_dir():
        os.utime(folder)
        return session
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep_folders(ROOT, MAX_AGE)
    folder = ROOT / secrets.token_urlsafe(24)
    folder.mkdir(mode=0o700)
    return Session(str(folder))


def touch(session: Session, job: Job) -> None:
    """Keep what a running job needs from being swept: the visitor's folder and the uploads, some of which are read late."""
    request = job.options.get("request")
    for path in (session.folder, job.clip, request and request.picture, job.options.get("background")):
        with contextlib.suppress(OSError):
            if path and os.path.isabs(path):  # a background may be a name
                os.utime(path)


def close_session(session: Session) -> None:
    """Delete everything a visitor left; gradio calls this an hour after they have gone.

    Someone who closed the page and came back has a new session in the same folder, which is then younger than that hour.
    """
    with contextlib.suppress(OSError):
        if session.folder and time.time() - Path(session.folder).stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(session.folder, ignore_errors=True)


def resume_session(name: str) -> Session | None:
    """The session of a visitor who comes back with the name of their folder, or None if nothing is left of it."""
    if not re.fullmatch(r"[\w-]{32}", name or "", re.ASCII) or not (ROOT / name).is_dir():
        return None
    folder = ROOT / name
    new = Session(str(folder))
    # Edits and clips that were learned, by when they were done.
    ends = [(Path(row.clip).stat().st_mtime, show(new, row)) for row in history(new)]
    ends += [
        ((path / "portrait.json").stat().st_mtime, replace(new, learned=str(path))) for path in _learned_in(folder)
    ]
    if not ends:
        return None
    os.utime(folder)
    return max(ends, key=lambda end: end[0])[1]


def _learned_in(folder: Path) -> list[Path]:
    """The portraits of clips in a visitor's folder, as `make_job` names them, that are finished."""
    return [path for path in folder.glob("[0-9a-f]" * 16 + "-*") if "reconstruction" in finished_stages(path)]


def history(session: Session) -> list[Result]:
    """A visitor's results that are still there, the earliest first."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        rows = [Result(**row) for row in json.loads((Path(session.folder) / _HISTORY).read_text("utf-8"))]
        return [row for row in rows if Path(row.clip).is_file() and Path(row.portrait).is_dir()]
    return []


def remember(session: Session, rows: list[Result]) -> None:
    """Keep a visitor's results for `history`."""
    with replacing(Path(session.folder) / _HISTORY) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows]), "utf-8")


def overruns(session: Session) -> int:
    """How many calls of a shared GPU, one after the other, were too short for this visitor's job."""
    with contextlib.suppress(OSError, ValueError):
        return int((Path(session.folder) / _OVERRUNS).read_text())
    return 0


def count_overruns(session: Session, count: int) -> None:
    """Keep that number."""
    (Path(session.folder) / _OVERRUNS).write_text(str(count))


def shown(session: Session) -> Result | None:
    """The visitor's edit that is shown, if one is and it is still there."""
    return next((row for row in history(session) if row.portrait == session.edited), None)


def show(session: Session, row: Result) -> Session:
    """The session of a visitor who is shown this result, beside its clip."""
    return replace(session, learned=row.learned, edited=row.portrait, result=row.clip, source=source_of(row.portrait))


def source_of(portrait: str) -> str:
    """The visitor's clip that a portrait was made from, if it is still there."""
    return next((str(path) for path in Path(portrait).glob("source.*")), "")


def number(value: Any, what: str) -> float:
    """A number from a form, in which it may have been left out; InputError if it is none."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    raise InputError(f"The {what} is not a number. Enter one.")


def check_uploads(what: str, *paths: str | Path | None) -> None:
    """InputError if one of these files is no longer there: uploads go after some hours. Says no path, which is none of the visitor's."""
    if not all(Path(path).is_file() for path in paths if path):
        raise InputError(f"The {what} is no longer on this machine. Upload it again.")


def make_job(
    clip: str | None, preset: str, start: float, max_seconds: float, session: Session, info: ClipInfo | None = None
) -> Job:
    """A reconstruction of a part of this clip in the visitor's folder; the same part and settings get the same portrait.

    Args:
        info: what `clip.probe` said, if it was asked already.
    """
    from .clip import probe
    from .portrait import file_sha256

    if not clip:
        raise InputError("There is no clip yet. Upload or record one first.")
    if preset not in PRESETS:  # it becomes part of a path
        raise InputError(f"There is no preset called {preset!r}. Choose one of: {', '.join(PRESETS)}.")
    start, max_seconds = number(start, "start"), number(max_seconds, "length to use")
    check_uploads("clip", clip)
    info = info or probe(Path(clip), start=start, max_seconds=max_seconds)
    name = _portrait_name(file_sha256(Path(clip))[:16], preset, info.start, max_seconds)
    return Job(
        Path(clip),
        Path(session.folder) / name,
        preset,
        float(max_seconds),
        frame_count=info.frame_count,
        start=info.start,
    )


def _portrait_name(clip: str, preset: str, start: float, max_seconds: float) -> str:
    """What the portrait of a part of a clip is called, by the beginning of the clip's hash; `learned_with` reads it."""
    return f"{clip}-{preset}-{start:.4f}-{max_seconds:g}"


def learned_before(session: Session, clip: Path) -> tuple[str, float, float] | None:
    """Preset, start and length with which this visitor had a clip learned last, or None if they never had."""
    from .portrait import file_sha256

    folders = list(Path(session.folder).glob(f"{file_sha256(clip)[:16]}-*")) if session.folder else []
    if not folders:
        return None
    return learned_with(max(folders, key=lambda folder: folder.stat().st_mtime))


def learned_with(portrait: Path) -> tuple[str, float, float]:
    """Preset, start and length that the portrait of a clip was learned with, by its `_portrait_name`."""
    _, preset, start, max_seconds = portrait.name.split("-")
    return preset, float(start), float(max_seconds)


def make_edit(
    job: Job,
    session: Session,
    request: EditRequest,
    background: str,
    *,
    behind: str = "",
    again: bool = False,
    mark: bool = False,
) -> Job:
    """Turn a reconstruction into an edit; a request that cannot be carried out is answered before any work.

    Args:
        background: as for `pipeline.edit`, but no path: what a visitor types must not name a file of this machine.
        behind: an uploaded picture to put behind the person instead.
        again: go on from the edit that is shown, if there is one, whatever the clip: nothing is learned then.
        mark: say in a corner of the picture that it is AI-edited.
    """
    check_uploads("picture", request.picture, behind)
    request = replace(request, text=request.text.strip())
    check_request(request)
    if len(request.text) > TEXT_LIMIT:
        raise InputError(f"The instruction is longer than {TEXT_LIMIT} letters. Say it in fewer words.")
    if not 0 <= request.seed <= MAX_SEED:
        raise InputError(f"The seed is {request.seed}. Enter a whole number from 0 to {MAX_SEED} under Advanced.")
    from .backgrounds import NAMED, SCENES, parse_background
    from .portrait import ask_key

    if background not in (*SCENES, *NAMED) and not re.fullmatch(r"#[0-9a-fA-F]{6}", background):
        raise InputError("The background is no colour such as #203040 and none of the names in the list. Choose one.")
    background = behind or background
    suffix = parse_background(background).suffix
    notice = ""
    if request.engine == "builtin":
        notice = f"Understood: {load_editor(request, 'cpu').understood}"
    folder = Path(session.folder)
    source = job.portrait
    if again and (row := shown(session)):
        source = Path(row.portrait)
        clip = portrait_facts(source)["clip"]
        part: dict[str, Any] = {"frame_count": clip["frame_count"], "start": clip.get("start", 0.0)}
        job = replace(job, portrait=Path(row.learned), learned=True, **part)
    output = folder / f"edited-{time.time_ns():x}{_place(job)}{suffix}"
    save = _edit_folder(folder, ask_key(request, job.preset, str(source))[:16])
    options = {"request": request, "background": background, "save": save, "mark": mark}
    return replace(job, verb="edit", source=source, output=output, options=options, notice=notice)


def _edit_folder(folder: Path, key: str) -> Path:
    """Where the edit of a ``key`` is saved: where a run of the same that was cut off has left it, or anew. What any other has left goes."""
    name = f"edited-{key}-"
    pending = [path for path in folder.glob("edited-*") if is_pending(path)]
    for path in pending:
        if not path.name.startswith(name):
            shutil.rmtree(path, ignore_errors=True)
    return next((path for path in pending if path.name.startswith(name)), folder / f"{name}{time.time_ns():x}")


def make_render(job: Job, session: Session, **options: Any) -> Job:
    """Turn a reconstruction into a render from another camera, of the edit that is shown if it is one of this part of this clip."""
    row = shown(session)
    source = Path(row.portrait) if row and _belongs(row, job) else job.portrait
    place = _fresh(session, "turned", f"{_place(job)}.mp4")
    return replace(job, verb="render", source=source, output=place, options=options, learned=source != job.portrait)


def _belongs(row: Result, job: Job) -> bool:
    """Whether an edit is of the part of a clip that a job asks for, in its quality."""
    learned = Path(row.learned)
    # An edit of an edit may have been asked for in another quality than its clip was learned in.
    asked = learned.with_name(_portrait_name(learned.name.split("-")[0], row.preset, *learned_with(learned)[1:]))
    return job.portrait in (learned, asked)


def make_export(verb: str, session: Session, *, mark: bool = False) -> Job:
    """A file made from what the visitor sees: one of the verbs of `VERBS` beyond reconstruct, edit and render; videos with a mark."""
    source = Path(session.edited or session.learned)
    if not session.folder or not (source / "portrait.json").is_file():
        raise InputError("There is no result yet. Edit a clip first.")
    options: dict[str, dict[str, Any]] = {
        "webm": {"background": "transparent", "mark": mark},
        "orbit": {"view": "crop", "background": "white", "orbit": True, "mark": mark},
    }
    facts = portrait_facts(source)
    count = VIEWS if verb == "views" else facts["clip"]["frame_count"]
    return Job(
        source / facts["source_name"],
        source,
        facts["settings"]["preset"],
        float(facts["settings"]["max_seconds"] or facts["clip"]["duration"]),
        verb=verb,
        source=source,
        output=_fresh(session, f"portrait-{verb}", _SUFFIXES[verb]),
        options=options.get(verb, {}),
        frame_count=count,
    )


def portrait_facts(portrait: Path) -> dict[str, Any]:
    """What a portrait folder says of itself."""
    facts: dict[str, Any] = json.loads((portrait / "portrait.json").read_text("utf-8"))
    return facts


def _place(job: Job) -> str:
    """What a clip made by ``job`` is called after: where in the visitor's clip it begins, for the page plays both."""
    return f"-from-{job.start:.3f}" if job.start else ""


def _fresh(session: Session, stem: str, suffix: str) -> Path:
    """A new path in the visitor's folder; what such a name was used for before goes, for the page has its own copy."""
    folder = Path(session.folder)
    for old in folder.glob(f"{stem}-*{Path(suffix).suffix}"):
        old.unlink(missing_ok=True)
    return folder / f"{stem}-{time.time_ns():x}{suffix}"
