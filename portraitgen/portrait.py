"""Everything known about one clip, on disk as one folder: json for facts, safetensors for tensors, mp4 for pictures; no pickle.

A stage writes its files under temporary names, renames them, and only then enters itself in ``portrait.json``; whatever moment a run is
killed at, the next one goes on after the last stage that is entered there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .clip import ClipInfo
from .crop import Crop
from .errors import InputError
from .progress import RECONSTRUCT_STAGES
from .storage import replacing

if TYPE_CHECKING:
    from .editors import EditRequest
    from .landmarks import Landmarks
    from .tracking import Tracking

FORMAT_VERSION = 1
_FACTS = "portrait.json"


@dataclass(frozen=True)
class Settings:
    """What a portrait was asked to be; a run resumes a folder only if these are equal.

    Attributes:
        source_sha256: hash of the clip.
        preset: name of the quality preset.
        body: name of the body model.
        holdout: fraction of the frames, at the end, that is tracked but never trained on.
        max_seconds: how much of the clip is used, or None for all.
        seed: seed of everything random.
        start: second of the clip from which on it is used.
    """

    source_sha256: str
    preset: str
    body: str
    holdout: float
    max_seconds: float | None
    seed: int
    start: float = 0.0


@dataclass
class Portrait:
    """One clip's folder.

    Attributes:
        stages: seconds that each finished stage took.
        edits: what was done to the avatar, one after the other; see `record_edit`.
        notes: sentences about frames that could not be treated like the others.
        kept: of each stage that was left in the middle, and can be gone on with, the share of its time that is done.
        pending: of an edit that is not rendered yet, what was asked, see `unfinished.begin_edit`; empty of everything else.
    """

    directory: Path
    settings: Settings
    source_name: str
    clip: ClipInfo
    crop: Crop
    stages: dict[str, float] = field(default_factory=dict)
    edits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: dict[str, float] = field(default_factory=dict)
    pending: str = ""

    @classmethod
    def load(cls, directory: Path) -> Portrait:
        """Read a portrait folder; raises InputError if it is none or was written by a newer version."""
        try:
            facts = json.loads((directory / _FACTS).read_text("utf-8"))
            version = facts["version"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(_no_portrait(directory)) from None
        if version != FORMAT_VERSION:
            raise InputError(
                f"{directory} was written in format {version}, this version reads {FORMAT_VERSION}. Reconstruct the clip again."
            )
        try:
            return cls(
                directory=directory,
                settings=Settings(**facts["settings"]),
                source_name=facts["source_name"],
                clip=ClipInfo.from_json(facts["clip"]),
                crop=Crop.from_json(facts["crop"]),
                stages=facts["stages"],
                kept=facts.get("kept", {}),
                edits=facts.get("edits", []),
                notes=facts.get("notes", []),
                pending=facts.get("pending", ""),
            )
        except (ValueError, KeyError, TypeError):
            raise InputError(_no_portrait(directory)) from None

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether ``directory`` holds a portrait, finished or not."""
        return (directory / _FACTS).is_file()

    def save(self) -> None:
        """Write ``portrait.json`` atomically."""
        facts = {
            "version": FORMAT_VERSION,
            "settings": asdict(self.settings),
            "source_name": self.source_name,
            "clip": self.clip.to_json(),
            "crop": self.crop.to_json(),
            "stages": self.stages,
            "kept": self.kept,
            "edits": self.edits,
            "notes": self.notes,
            "pending": self.pending,
        }
        with replacing(self.directory / _FACTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False), "utf-8")

    def finish(self, stage: str, seconds: float) -> None:
        """Enter a stage as finished; its files must be in place."""
        self.kept.pop(stage, None)
        self.stages[stage] = round(seconds, 3)
        self.save()

    def keep(self, stage: str, share: float) -> None:
        """Enter how much of an unfinished stage is kept; its files must be in place."""
        self.kept[stage] = round(share, 3)
        self.save()

    def record_edit(self, request: EditRequest) -> None:
        """Enter an edit as done; its picture, if any, is kept in the folder."""
        facts = asdict(request)
        if request.picture is not None:
            facts["picture"] = f"edit-{len(self.edits) + 1}{request.picture.suffix.lower()}"
            shutil.copyfile(request.picture, self.path(facts["picture"]))
        self.edits.append(facts)
        self.save()

    def edit_requests(self) -> list[EditRequest]:
        """What was done to the avatar, one after the other."""
        from .editors import EditRequest

        return [
            EditRequest(**{**facts, "picture": facts["picture"] and self.path(facts["picture"])})
            for facts in self.edits
        ]

    def require(self, stage: str) -> None:
        """Raise InputError unless ``stage`` is finished, or if an edit of the portrait is not."""
        if self.pending and "edit" not in self.stages:
            raise InputError(
                f"{self.directory} holds an edit that is not finished. Run the same edit again to finish it."
            )
        if stage not in self.stages:
            raise InputError(
                f"{self.directory} stopped before its {stage} stage. Finish it with: "
                f"python -m portraitgen reconstruct CLIP -o {self.directory}"
            )

    def path(self, name: str) -> Path:
        """Path of a file inside the folder."""
        return self.directory / name

    @property
    def source(self) -> Path:
        """The clip as it was given."""
        return self.directory / self.source_name

    @property
    def trained_frames(self) -> int:
        """How many frames, from the first, may be trained on."""
        return max(1, round(self.clip.frame_count * (1 - self.settings.holdout)))

    def save_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write ``name`` (safetensors) atomically."""
        from safetensors.torch import save_file

        with replacing(self.path(name)) as temporary:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, str(temporary))

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read ``name`` (safetensors); raises InputError if it is missing or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(self.path(name)))
        except (OSError, SafetensorError):
            raise InputError(f"{self.path(name)} is missing or broken. Reconstruct the clip again.") from None

    def landmarks(self) -> Landmarks:
        """What the clip stage saw."""
        from .landmarks import Landmarks

        return Landmarks.from_tensors(self.load_tensors("landmarks.safetensors"))

    def tracking(self) -> Tracking:
        """What the tracking stage found."""
        from .tracking import Tracking

        return Tracking.from_tensors(self.load_tensors("tracking.safetensors"))

    def copy_to(self, directory: Path, *, without: tuple[str, ...], pending: str = "") -> Portrait:
        """Copy the folder to ``directory`` but for the files ``without``; the copy appears whole or not at all.

        With ``pending`` it is to become an edit of this one, which may have been edited before. Files are never changed in place, so that
        the copy shares them on the disk where the file system can.
        """
        if directory.exists() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty. Choose a new folder.")
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        try:
            shutil.copytree(
                self.directory,
                temporary,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns(*without),
                copy_function=_linked,
            )
            if pending:
                stages = {stage: self.stages[stage] for stage in RECONSTRUCT_STAGES if stage in self.stages}
                replace(self, directory=temporary, stages=stages, pending=pending).save()
            if directory.exists():
                directory.rmdir()
            os.replace(temporary, directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Portrait.load(directory)


def _no_portrait(directory: Path) -> str:
    return f"{directory} is not a portrait folder. Make one with: python -m portraitgen reconstruct CLIP -o {directory}"


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def ask_key(request: EditRequest, *more: str) -> str:
    """The same for edits that ask for the same of the same, as ``more`` says, and for no others."""
    facts = asdict(request)
    facts["picture"] = request.picture and file_sha256(request.picture)
    return hashlib.sha256(json.dumps([facts, *more]).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes; those of a file that has not changed are read once."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    """The same, for a file of this size that was changed at this time; read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
