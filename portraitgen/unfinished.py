"""Edits that are under way, kept so that a run which is cut off is gone on with: in the folder that the edited portrait will have."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .editors import Editor, EditRequest, Remembering
from .fitting import Course, FitConfig, Fitted
from .portrait import Portrait, ask_key, file_sha256
from .reconstruction import part_of, read_fitted, save_fitted

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEPT = "editing.safetensors"  # gone once the edit is done


@dataclass
class EditCourse:
    """How far an edit is: with the `Fitted` and what the editor remembers, all that the rest of it depends on.

    Attributes:
        number: the pass, from 0.
        edited: its key frames that came back from the editor ``[3, S, S]``, in [0, 1]; none once they agree.
        images: all of its key frames, made to agree and freed of their background ``[M, 3, S, S]`` uint8; None before.
        fitting: how far the pass's fit is; None before it.
    """

    number: int = 0
    edited: list[Tensor] = field(default_factory=list)
    images: Tensor | None = None
    fitting: Course | None = None

    def next_pass(self) -> None:
        """Go on with the next pass."""
        self.number, self.edited, self.images, self.fitting = self.number + 1, [], None, None

    def shares(self, key_frames: int, steps: int, passes: int) -> dict[str, float]:
        """Share of each stage of the edit that is done, in passes of so many key frames and steps."""
        edited = 1.0 if self.images is not None else len(self.edited) / key_frames
        fitted = self.fitting.step / steps if self.fitting is not None else 0.0
        return {"edit": (self.number + edited) / passes, "fitting": (self.number + fitted) / passes}

    def tensors(self) -> dict[str, Tensor]:
        """The same as tensors, for `resume`."""
        tensors = {"number": torch.tensor(self.number)}
        if self.edited:
            tensors["edited"] = torch.stack(self.edited)
        if self.images is not None:
            tensors["images"] = self.images
        if self.fitting is not None:
            tensors |= {f"fitting.{name}": value for name, value in self.fitting.tensors().items()}
        return tensors

    @classmethod
    def resume(cls, fitted: Fitted, config: FitConfig, tensors: Mapping[str, Tensor]) -> EditCourse:
        """What `tensors` gave for an edit of ``fitted`` as it was then."""
        device = fitted.avatar.features.device
        fitting = part_of(tensors, "fitting.")
        return cls(
            int(tensors["number"]),
            list(tensors["edited"].to(device)) if "edited" in tensors else [],
            tensors["images"].to(device) if "images" in tensors else None,
            Course.resume(fitted, config, fitting) if fitting else None,
        )


def begin_edit(portrait: Portrait, folder: Path, request: EditRequest, preset: str) -> Portrait:
    """The ``folder`` of the edit ``request`` of ``portrait``, as a run of the same that was cut off has left it, or new."""
    key = ask_key(request, preset, file_sha256(portrait.path("avatar.safetensors")))
    if Portrait.exists(folder):
        left = Portrait.load(folder)
        if left.pending == key:
            return left
        if "edit" not in left.stages:  # else it is whole but for its clip: nobody's to delete
            shutil.rmtree(folder)
    return portrait.copy_to(folder, without=("avatar.safetensors",), pending=key)


def end_edit(edited: Portrait, fitted: Fitted, request: EditRequest, seconds: float) -> None:
    """Enter the edit of ``begin_edit`` as done, with the seconds it took; what was kept of it goes."""
    save_fitted(edited, fitted)
    edited.kept.clear()
    edited.stages["edit"] = round(seconds, 3)
    edited.record_edit(request)
    edited.path(_KEPT).unlink(missing_ok=True)


def keep_edit(
    edited: Portrait, fitted: Fitted, course: EditCourse, editor: Editor, shares: Mapping[str, float]
) -> None:
    """Write how far an edit is, for `kept_edit`."""
    tensors = {f"course.{name}": value for name, value in course.tensors().items()}
    if isinstance(editor, Remembering):
        tensors |= {f"memory.{name}": value for name, value in editor.memory().items()}
    save_fitted(edited, fitted, _KEPT, tensors)
    for stage, share in shares.items():
        edited.keep(stage, share)


def kept_edit(
    edited: Portrait, config: FitConfig, editor: Editor, device: torch.device
) -> tuple[Fitted, EditCourse] | None:
    """What `keep_edit` wrote of an edit, which the ``editor`` recalls too; None if nothing is kept."""
    if not edited.path(_KEPT).is_file():
        return None
    tensors, fitted = edited.load_tensors(_KEPT), read_fitted(edited, _KEPT, device)
    if isinstance(editor, Remembering):
        editor.recall(part_of(tensors, "memory."))
    return fitted, EditCourse.resume(fitted, config, part_of(tensors, "course."))
