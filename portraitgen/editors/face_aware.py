"""Face-aware editing (PortraitGen, section 3.3.2): the head is edited once more in a picture of its own, where it is large."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..body import LABELS
from ..streaming import breathe
from . import EditBatch, Editor
from .surface import blur, region

HEAD = ("face", "scalp", "ears", "eye_left", "eye_right", "lips", "teeth", "tongue", "mouth_interior")
_MARGIN = 1.7  # side of the crop over the longer side of the head (paper)
_LARGE = 0.8  # share of the picture's side from which on a crop gains nothing
_FEATHER = 8.0 / 512


def edit_face_aware(editor: Editor, batch: EditBatch) -> Tensor:
    """Edited frames [B, 3, H, W]: whole, with heads that were edited as crops at full resolution, if the editor profits from that."""
    breathe()
    whole = editor.edit(batch)
    if not editor.face_aware or batch.strength == 0:
        return whole
    boxes = {index: box for index, box in enumerate(head_boxes(batch)) if box is not None}
    if not boxes:
        return whole
    breathe()
    crops = editor.edit(crop_batch(batch, boxes))
    mask = head_mask(batch)
    result = whole.clone()
    for (index, (left, top, side)), crop in zip(boxes.items(), crops, strict=True):
        place = (index, slice(None), slice(top, top + side), slice(left, left + side))
        small = functional.interpolate(crop[None], (side, side), mode="bilinear", antialias=True, align_corners=False)
        result[place] = torch.lerp(whole[place], small[0], mask[place] * _inner(side, mask))
    return result


def head_boxes(batch: EditBatch) -> list[tuple[int, int, int] | None]:
    """Left, top and side in pixels of a square around the head of each frame; None without a head or where it fills the frame anyway."""
    height, width = batch.alpha.shape[-2:]
    boxes: list[tuple[int, int, int] | None] = []
    for head in _head(batch)[:, 0]:
        rows, columns = head.any(1).nonzero()[:, 0], head.any(0).nonzero()[:, 0]
        if len(rows) < 32 or len(columns) < 32:
            boxes.append(None)
            continue
        top, bottom, left, right = (int(x) for x in (rows[0], rows[-1], columns[0], columns[-1]))
        side = round(_MARGIN * max(bottom - top, right - left) / 2) * 2
        if side > _LARGE * min(height, width):
            boxes.append(None)
            continue
        x, y = (left + right - side) // 2, (top + bottom - side) // 2
        boxes.append((min(max(x, 0), width - side), min(max(y, 0), height - side), side))
    return boxes


def crop_batch(batch: EditBatch, boxes: dict[int, tuple[int, int, int]]) -> EditBatch:
    """The frames at the keys of ``boxes``, cropped to them and enlarged to the size of the frames."""
    size = batch.alpha.shape[-2:]

    def crop(values: Tensor) -> Tensor:
        parts = [values[i : i + 1, :, top : top + side, left : left + side] for i, (left, top, side) in boxes.items()]
        if values.dtype == torch.long:
            return torch.cat([functional.interpolate(part.float(), size).long() for part in parts])
        if bool(torch.isfinite(values).all()):
            return torch.cat(
                [functional.interpolate(part, size, mode="bicubic", align_corners=False).clamp(-1, 1) for part in parts]
            )
        return torch.cat([functional.interpolate(part, size) for part in parts])  # NaN would spread

    layers: dict[str, Any] = {name: crop(value) for name, value in vars(batch).items() if isinstance(value, Tensor)}
    regions = {name: crop(mask).clamp(0, 1) for name, mask in batch.regions.items()}
    for name in ("source", "rendered", "alpha"):
        layers[name] = layers[name].clamp(0, 1)
    return dataclasses.replace(batch, regions=regions, **layers)


def head_mask(batch: EditBatch) -> Tensor:
    """Soft mask [B, 1, H, W] of head and hair."""
    sigma = _FEATHER * batch.alpha.shape[-1]
    head = torch.maximum(_head(batch).float(), region(batch, "hair"))
    return (2 * blur(head, sigma)).clamp(0, 1) * batch.alpha


def _head(batch: EditBatch) -> Tensor:
    numbers = [index for index, label in enumerate(LABELS) if label in HEAD]
    return torch.isin(batch.parts, torch.tensor(numbers, device=batch.parts.device))


def _inner(side: int, like: Tensor) -> Tensor:
    """Weight [side, side] that falls to 0 at the crop's border, so that none of it shows."""
    line = ((torch.arange(side, device=like.device) + 0.5) / (0.08 * side)).clamp(0, 1)
    ramp = torch.minimum(line, line.flip(0))
    return ramp[:, None] * ramp[None]
