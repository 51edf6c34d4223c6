"""Recolouring and tonal adjustments of regions, in OKLab: the lightness relief stays, chroma and level move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, oklab_of, smoothstep, to_oklab
from .filters import smooth
from .surface import blur, carried, masked_blur, region, region_mask, unit

# Per region: how far lightness goes to the target, how much relief stays, how much of the target's chroma it takes.
BEHAVIOUR: Mapping[str, tuple[float, float, float]] = {
    "background": (0.92, 0.22, 0.9),
    "skin": (0.55, 1.15, 0.62),
    "hair": (0.92, 1.3, 0.8),
    "lips": (0.6, 1.1, 0.82),
    "eyes": (0.4, 1.0, 0.75),
    "brows": (0.8, 1.1, 0.8),
    "teeth": (0.6, 1.0, 0.9),
    "mouth": (0.0, 1.0, 0.4),
    "clothes": (0.9, 1.0, 0.9),
}


def recolour(batch: EditBatch, image: Tensor, regions: tuple[str, ...], parameters: Mapping[str, Any]) -> Tensor:
    """Give ``regions`` of ``image`` [B, 3, H, W] the colour ``parameters["rgb"]``; returns the whole recoloured image, to be masked."""
    lab = to_oklab(image)
    target = _targets(batch, lab, parameters)
    amount = float(parameters.get("amount", 1.0))
    if len(regions) > 4:  # a picture in one colour: a tint, not paint over everything
        tone = 0.12 * (target[:, :1] - 0.6) + lab[:, :1]
        chroma = target[:, 1:] * (0.35 + 0.75 * tone).clamp(0, 1)
        return from_oklab(
            torch.cat(
                [tone.expand_as(lab[:, :1]), torch.lerp(lab[:, 1:], chroma.expand_as(lab[:, 1:]), 0.85 * amount)], 1
            )
        )
    result = image
    for name in regions:
        mask = region(batch, name)
        if name == "eyes" and not parameters.get("whole"):
            mask = mask * _iris(batch, lab, mask)
        box = _box(mask)
        if box is None:
            continue
        rows, columns = box
        shade = target[..., rows, columns] if target.shape[-1] > 1 else target
        around = masked_blur(lab, mask, 90 * unit(batch))[..., rows, columns]
        painted = from_oklab(_dyed(lab[..., rows, columns], around, shade, name))
        result = result.clone()
        result[..., rows, columns] = torch.lerp(result[..., rows, columns], painted, mask[..., rows, columns] * amount)
    # the caller masks by the regions' union, which is the sum of these masks: undo it here so that edges are not faded twice
    union = region_mask(batch, regions).clamp_min(1e-3)
    return (image + (result - image) / union).clamp(0, 1)


def _box(mask: Tensor) -> tuple[slice, slice] | None:
    """Rows and columns that a mask [B, 1, H, W] covers; None if it is empty."""
    covered = (mask > 1e-3).any(0)[0]
    if not bool(covered.any()):
        return None
    rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()

    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _targets(batch: EditBatch, lab: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    """The target colour in OKLab, [1, 3, 1, 1], or [B, 3, H, W] where it changes over the picture."""
    first = oklab_of(parameters["rgb"], lab)
    if parameters.get("rainbow"):
        where = carried(batch)
        turn = 2 * torch.pi * (0.38 * where[:, :1] + 0.55 * where[:, 1:])
        return torch.cat([0.68 + 0.07 * torch.sin(2 * turn), 0.19 * torch.cos(turn), 0.17 * torch.sin(turn)], 1)
    if "rgb2" in parameters:
        down = smoothstep(-0.35, 0.75, carried(batch)[:, 1:])
        return torch.lerp(first, oklab_of(parameters["rgb2"], lab), down)
    return first


def _dyed(lab: Tensor, around: Tensor, target: Tensor, name: str) -> Tensor:
    """OKLab of the region in the target colour, as dye rather than paint: relief, highlights and some of the old variation stay."""
    level, relief, saturation = BEHAVIOUR[name]
    light = lab[:, :1]
    base = around[:, :1]
    wanted = torch.lerp(base, target[:, :1].expand_as(base), level)
    # dark things have little contrast: raise it with the level, as bleaching does, and lower it on the way down less
    gain = ((wanted + 0.12) / (base + 0.12)).clamp(0.6, 2.0) ** 0.75 * relief
    ripple = (light - base) * gain
    ripple = torch.where(
        ripple > 0, 0.24 * torch.tanh(ripple / 0.24), ripple
    )  # a bright seam of skin in the hair's mask is no highlight
    room = torch.where(ripple > 0, 1.0 - wanted, wanted).clamp_min(0.04)
    value = wanted + room * torch.tanh(ripple / room)
    glare = smoothstep(
        0.10, 0.38, light - base
    )  # light reflected off the surface keeps the lamp's colour, not the dye's
    strength = (value / target[:, :1].clamp_min(0.15)).clamp(0.35, 1.12) * (1 - 0.45 * glare)
    chroma = saturation * target[:, 1:] * strength + 0.25 * (lab[:, 1:] - around[:, 1:])
    return torch.cat([value, chroma], 1)


def _iris(batch: EditBatch, lab: Tensor, mask: Tensor) -> Tensor:
    """Weight of the iris within the eyes: darker or more coloured than the white around it; the pupil's black hides what it gets."""
    white = masked_blur(lab[:, :1].clamp_min(0.3), mask**2, 7 * unit(batch))
    darker = smoothstep(-0.03, 0.10, white - lab[:, :1])
    pupil = 1 - smoothstep(0.16, 0.26, lab[:, :1])
    return (darker * (1 - 0.7 * pupil)).clamp(0, 1)


def adjust(batch: EditBatch, image: Tensor, regions: tuple[str, ...], name: str) -> Tensor:
    """The whole ``image`` [B, 3, H, W] darker, lighter, vivid, muted, warmer, cooler, tanned, pale or smooth, to be masked."""
    lab = to_oklab(image)
    light, chroma = lab[:, :1], lab[:, 1:]
    if name == "darker":
        light, chroma = light * (0.62 + 0.1 * light), chroma * 0.85
    elif name == "lighter":
        if "teeth" in regions and len(regions) < 4:
            light, chroma = 1 - (1 - light) * 0.65, chroma * 0.35
        else:
            light, chroma = 1 - (1 - light) ** 1.55, chroma * 1.02
    elif name == "vivid":
        chroma = chroma * 1.65
        light = light + 0.10 * (light - 0.5) * (1 - (2 * light - 1) ** 2)
    elif name == "muted":
        chroma = chroma * 0.3
    elif name in ("warmer", "cooler"):
        warm = torch.tensor([0.018, 0.045], dtype=lab.dtype, device=lab.device).view(1, 2, 1, 1)
        chroma = chroma + (warm if name == "warmer" else -1.1 * warm) * (0.3 + 0.7 * light)
    elif name == "tanned":
        tan = oklab_of((0.66, 0.42, 0.26), lab)
        light, chroma = light * 0.84, torch.lerp(chroma, tan[:, 1:].expand_as(chroma), 0.55)
    elif name == "smooth":
        calm = [smooth(frame.permute(1, 2, 0).cpu().numpy(), unit(batch), passes=3, tone=0.05) for frame in lab]
        base = torch.from_numpy(np.stack(calm)).permute(0, 3, 1, 2).to(lab)
        grain = light - blur(light, 1.0 * unit(batch))  # pores stay, or skin turns into wax
        light, chroma = base[:, :1] + 0.5 * grain, base[:, 1:]
    else:  # pale
        light, chroma = 1 - (1 - light) ** 1.35, chroma * 0.5
    return from_oklab(torch.cat([light, chroma], 1))
