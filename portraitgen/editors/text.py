"""The embedded text editor: an instruction becomes a plan (`instructions.py`), the plan becomes pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from portraitgen.editors import EditBatch, catalogue, effects, grids, light, looks, materials, painting, recolour
from portraitgen.editors.catalogue import Operation
from portraitgen.editors.colour import blend
from portraitgen.editors.instructions import CannotEdit, Plan, parse
from portraitgen.editors.lexicon import PERSON
from portraitgen.editors.surface import region_mask

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

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1].

        Raises InputError for an instruction that says nothing, CannotEdit for one that cannot be carried out, on these frames too.
        """
        plan = parse(batch.instruction)
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
    names = operation.regions
    if operation.kind == "effect" and operation.name in effects.WIDE:
        mask = batch.alpha.clamp(0, 1)
    else:
        mask = region_mask(batch, names)
    if not bool((mask > 1e-3).any()):
        return image
    if operation.kind == "colour":
        edited = recolour.recolour(batch, image, names, operation.parameters)
    elif operation.kind == "adjustment":
        edited = recolour.adjust(batch, image, names, operation.name)
    elif operation.kind == "material":
        edited = materials.material(batch, mask, operation.name)
    elif operation.kind == "effect":
        edited = effects.EFFECTS[operation.name](batch, image)
    elif operation.kind == "mood":
        edited = light.mood(batch, image, operation.name)
    elif operation.kind == "style":
        edited = painting.paint(image, int(operation.name))
    elif operation.name in GRIDS:
        edited = GRIDS[operation.name](batch, image)
    elif operation.name in light.TONES:
        edited = light.TONES[operation.name](batch, image)
    else:
        edited = looks.look(batch, image, operation.name)
    return torch.lerp(image, blend(image, edited, strength), mask).clamp(0, 1)


def capabilities() -> list[dict[str, str]]:
    """Everything that the editor can do: ``name``, ``group`` and ``example`` (an instruction that does it)."""
    return [dict(row) for row in catalogue.capabilities()]
