"""The embedded text editor: an instruction becomes a plan (`instructions.py`), the plan becomes pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from . import EditBatch, catalogue, effects, grids, light, looks, materials, painting, recolour
from .catalogue import Operation
from .colour import blend
from .instructions import CannotEdit, Plan, parse
from .lexicon import PERSON
from .surface import region_mask

GRIDS = {
    "pixel art": grids.pixel_art,
    "blocks": grids.blocks,
    "mosaic": grids.mosaic,
    "comic": grids.comic,
    "pop art": grids.pop_art,
}

__all__ = ["BuiltinLooks", "CannotEdit", "Plan", "capabilities", "parse"]


class BuiltinLooks:
    """Colours, materials, drawn and painted looks, light and make-up, without any downloaded weights."""

    name = "Built-in looks"
    reads_render = False
    face_aware = False

    def __init__(self, instruction: str) -> None:
        """Read the instruction. Raises InputError if it says nothing, CannotEdit if nothing of it can be done."""
        self.plan = parse(instruction)
        self.understood = self.plan.understood
        self.edits_background = "background" in self.plan.regions

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1], as the instruction says.

        Raises CannotEdit when the frames lack every region that the instruction is about.
        """
        plan = self.plan
        strength = min(max(float(batch.strength), 0.0), 1.0)
        missing = [name for name in PERSON if name in plan.regions and name not in batch.regions]
        if missing and plan.regions <= set(missing) and bool((batch.alpha > 0.5).any()):
            raise CannotEdit(f"The clip shows no {' or '.join(missing)} to change. Choose another part.")
        image = batch.source.clamp(0, 1)
        if strength == 0:
            return image.clone()
        for operation in plan.operations:
            image = apply(batch, image, operation, strength)
        return image


def apply(batch: EditBatch, image: Tensor, operation: Operation, strength: float = 1.0) -> Tensor:
    """One operation on ``image`` [B, 3, H, W], masked to its regions."""
    wide = operation.kind == "effect" and operation.name in effects.WIDE
    mask = batch.alpha.clamp(0, 1) if wide else region_mask(batch, operation.regions)
    if not bool((mask > 1e-3).any()):
        return image
    edited = _edited(batch, image, operation, mask)
    return torch.lerp(image, blend(image, edited, strength), mask).clamp(0, 1)


def _edited(batch: EditBatch, image: Tensor, operation: Operation, mask: Tensor) -> Tensor:
    """The whole picture after one operation, before masking."""
    kind, name = operation.kind, operation.name
    if kind == "colour":
        return recolour.recolour(batch, image, operation.regions, operation.parameters)
    if kind == "adjustment":
        return recolour.adjust(batch, image, operation.regions, name)
    if kind == "material":
        return materials.material(batch, mask, name)
    if kind == "effect":
        return effects.effect(batch, image, name)
    if kind == "mood":
        return light.mood(batch, image, name)
    if kind == "style":
        return painting.paint(image, int(name))
    if name in GRIDS:
        return GRIDS[name](batch, image)
    if name in light.TONES:
        return light.TONES[name](batch, image)
    return looks.look(batch, image, name)


def capabilities() -> list[dict[str, str]]:
    """Everything that the editor can do: ``name``, ``group`` and ``example`` (an instruction that does it)."""
    return [dict(row) for row in catalogue.capabilities()]
