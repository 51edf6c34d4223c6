"""The built-in try-on: a garment photo laid over the tracked body, lit by the clip.

The photo is registered to the person standing upright, in `EditBatch.rest`, which is the same in all frames. So every thread stays on
its place of the body, whatever the person does, and frames agree without looking at one another.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, smoothstep, to_oklab
from .draping import Drape, Registration
from .folds import shading
from .garment import READ_SIDE, read_garment
from .layers import BODY, known_parts, layers, spread_rest
from .pictures import read_cutout
from .skin import bared_skin
from .surface import blur, masked_blur, region, unit
from .worn import WornClothes, look_at_wearer


class BuiltinTryOn:
    """Dresses the person in the garment of a photo.

    Args:
        picture: the garment, lying flat or worn, from the front.

    Raises:
        InputError: as `garment.read_garment` and `worn.look_at_wearer` do; too little of the wearer's clothes is seen.
    """

    name = "Built-in try-on"
    reads_render = False
    face_aware = False
    edits_background = False

    def __init__(self, picture: Path) -> None:
        self.registration, self.understood = _read_clothes(picture)

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the frames with the garment on, [B, 3, H, W] in [0, 1]."""
        if batch.strength == 0 or not bool(
            (region(batch, "clothes") > 0.5).any() | (region(batch, "skin") > 0.5).any()
        ):
            return batch.source
        rest, known = spread_rest(batch)
        if not bool(known.any()):
            return batch.source
        dressed = self._dress(batch, rest)
        return torch.lerp(batch.source, dressed, float(batch.strength)).clamp(0, 1)

    def _dress(self, batch: EditBatch, rest: Tensor) -> Tensor:
        scale = unit(batch)
        clothes, bare = layers(batch, rest)
        body = (clothes + bare).clamp(0, 1)
        garment, coverage = self.registration.sample(rest)
        # loose clothes reach beyond the body: what they hide is unknown, so they are covered, not undressed
        frontal = smoothstep(0.1, 0.4, -batch.normals[:, 2:]) * known_parts(batch, BODY)
        loose = 1 - blur(frontal, 2.5 * scale)
        over_clothes = torch.maximum(coverage, smoothstep(0.35, 0.75, loose))
        covered = ((clothes * over_clothes + bare * coverage) / body.clamp_min(1e-3)).clamp(0, 1)

        light = shading(batch, clothes, bare)
        # skin that is laid bare reaches a little over the old neckline, whose shadow would stay otherwise
        taken_off = clothes * (1 - over_clothes)
        reach = 2 * max(1, round(6 * scale)) + 1
        wider = blur(functional.max_pool2d(taken_off, reach, 1, reach // 2), 2.5 * scale)
        bared = ((taken_off + wider.clamp(0, 1) * bare) / body.clamp_min(1e-3)).clamp(0, 1)
        bared = bared * smoothstep(0.02, 0.3, body)  # a trace of body under hair is no skin to be shown
        base = torch.lerp(batch.source, bared_skin(batch, rest, bare, light), bared)
        # fabric is thick: a thin shadow lies on the skin along its edge
        contact = 1 - 0.25 * smoothstep(0.05, 0.7, blur(covered * body, 3 * scale))
        base = torch.lerp(base, base * contact, body * (1 - covered))
        return _layered(batch, base, _lit(garment, light), body, covered)


def _read_clothes(picture: Path) -> tuple[Drape, str]:
    """The clothes in a photo and what they are, in a few words."""
    cutout = read_cutout(picture, READ_SIDE).permute(1, 2, 0).numpy()
    wearer = look_at_wearer(cutout)
    if wearer is not None:
        worn = WornClothes(wearer)
        return worn, worn.description
    garment = read_garment(picture)
    return Registration(garment), garment.description


def _lit(image: Tensor, light: Tensor) -> Tensor:
    """``image`` [B, 3, H, W] under ``light`` [B, 1, H, W], a factor of its OKLab lightness that saturates softly near white."""
    lab = to_oklab(image)
    bright = lab[:, :1] * light
    bright = torch.where(bright > 0.85, 0.85 + 0.14 * torch.tanh((bright - 0.85) / 0.14), bright)
    ratio = bright / lab[:, :1].clamp_min(1e-3)
    return from_oklab(torch.cat([bright, lab[:, 1:] * ratio], 1))


def _layered(batch: EditBatch, base: Tensor, cloth: Tensor, body: Tensor, covered: Tensor) -> Tensor:
    """The garment [B, 3, H, W] over ``base`` where ``covered``, within ``body`` [B, 1, H, W], under hair and face.

    At the body's edge pixels mix two colours. How much of the old clothes is in them is read off the pixel itself, as its place between
    the colours on both sides, and just that much is exchanged: nothing of the old colour is left as a rim.
    """
    scale = unit(batch)
    inside = torch.where(body > 0.97, body, torch.zeros_like(body))
    outside = torch.where(body < 0.03, 1 - body, torch.zeros_like(body))
    within, beyond = (masked_blur(batch.source, mask.clamp_min(1e-6), 3.5 * scale) for mask in (inside, outside))
    apart = within - beyond
    distance = apart.square().sum(1, keepdim=True)
    measured = ((batch.source - beyond) * apart).sum(1, keepdim=True) / distance.clamp_min(1e-4)
    sure = smoothstep(0.06, 0.25, distance.sqrt()) * (body > 0.01) * (body < 0.99)
    there = blur(torch.cat([inside, outside], 1), 3.5 * scale)
    sure = sure * smoothstep(0.01, 0.08, there[:, :1]) * smoothstep(0.01, 0.08, there[:, 1:])
    share = torch.lerp(body, measured.clamp(0, 1), 0.85 * sure)
    mixed = (base + share * (cloth - within)).clamp(0, 1)
    rest = torch.lerp(beyond, cloth, share)
    mixed = torch.lerp(mixed, rest, sure * 0.5)
    solid = smoothstep(0.9, 1.0, share)
    return torch.lerp(base, torch.lerp(mixed, cloth, solid), covered * (body > 0.01))
