"""The built-in try-on: a garment photo laid over the tracked body, lit by the clip.

The photo is registered to the person standing upright, in `EditBatch.rest`, which is the same in all frames. So every thread stays on
its place of the body, whatever the person does, and frames agree without looking at one another.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..body import LABELS
from ..plate import fill
from . import EditBatch
from .colour import from_oklab, smoothstep, to_oklab
from .draping import Registration
from .folds import shading
from .garment import read_garment
from .surface import blur, masked_blur, region, unit

HEAD = ("face", "scalp", "ears", "eye_left", "eye_right", "lips", "teeth", "tongue", "mouth_interior")
BODY = ("neck", "torso", "arms")
HAND_LINE = (0.11, 0.17)  # metres below the base of the neck, from which on skin in front of the torso is a hand


class BuiltinTryOn:
    """Dresses the person in the garment of a photo.

    Args:
        picture: the garment, lying flat or worn, from the front.

    Raises:
        InputError: as `garment.read_garment` does.
    """

    name = "Built-in try-on"
    reads_render = False
    face_aware = False
    edits_background = False

    def __init__(self, picture: Path) -> None:
        garment = read_garment(picture)
        self.understood = garment.description
        self.registration = Registration(garment)

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
        wider = blur(functional.max_pool2d(taken_off, reach, 1, reach // 2), 2.5 * scale) * smoothstep(0.02, 0.3, body)
        bared = (taken_off + wider.clamp(0, 1) * bare) / body.clamp_min(1e-3)
        base = torch.lerp(batch.source, _skin(batch, bare, light), bared.clamp(0, 1))
        # fabric is thick: a thin shadow lies on the skin along its edge
        contact = 1 - 0.25 * smoothstep(0.05, 0.7, blur(covered * body, 3 * scale))
        base = torch.lerp(base, base * contact, body * (1 - covered))
        return _layered(batch, base, _lit(garment, light), body, covered)


def known_parts(batch: EditBatch, names: tuple[str, ...]) -> Tensor:
    """Where the mesh shows one of the parts ``names``, [B, 1, H, W] float."""
    wanted = torch.tensor([LABELS.index(name) for name in names], device=batch.parts.device)
    return torch.isin(batch.parts, wanted).to(batch.source)


def spread_rest(batch: EditBatch) -> tuple[Tensor, Tensor]:
    """Rest coordinates [B, 3, H, W] of neck, torso and arms, carried on beyond the mesh, and where the mesh has them, bool.

    Beyond the mesh they continue with the slope of the body as a whole, so that a pattern goes on without smearing.
    """
    known = (known_parts(batch, BODY) > 0.5) & torch.isfinite(batch.rest).all(1, keepdim=True)
    spread = torch.nan_to_num(batch.rest).clone()
    height, width = batch.alpha.shape[-2:]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.stack([x / width - 0.5, y / height - 0.5, np.ones_like(x)], -1)
    for frame, inside in zip(spread, known[:, 0].cpu().numpy(), strict=True):
        if inside.sum() < 16:
            continue
        values = frame.permute(1, 2, 0).cpu().numpy()
        chosen = np.flatnonzero(inside)[:: max(1, int(inside.sum()) // 4000)]
        flat_terms, flat_values = terms.reshape(-1, 3)[chosen], values.reshape(-1, 3)[chosen]
        ridge = 1e-3 * len(chosen) * np.diag([1.0, 1.0, 0.0])
        slope = np.linalg.solve(flat_terms.T @ flat_terms + ridge, flat_terms.T @ flat_values)
        plane = (terms @ slope).astype(np.float32)
        # the mesh's last pixels lie at grazing angles
        rim = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        grown = plane + fill(values - plane, rim if rim.any() else inside)
        frame.copy_(torch.from_numpy(np.where(inside[..., None], values, grown)).permute(2, 0, 1).to(frame))
    return spread, known


def layers(batch: EditBatch, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Old clothes, and skin that clothes can cover (neck, shoulders, arms; no face, no hands), both [B, 1, H, W] in [0, 1]."""
    head, body = known_parts(batch, HEAD), known_parts(batch, BODY)
    scale = unit(batch)
    near = blur(torch.cat([head, body], 1), 4 * scale)
    far = blur(torch.cat([head, body], 1), 16 * scale)
    both = torch.where(head + body > 0, torch.cat([head, body], 1), near + 1e-3 * far)
    below = both[:, 1:] / both.sum(1, keepdim=True).clamp_min(1e-9)
    below = torch.where(both.sum(1, keepdim=True) > 1e-6, below, torch.zeros_like(below))
    below = blur(below, 0.7 * scale)
    hand = smoothstep(*HAND_LINE, rest[:, 1:2]) * (1 - blur(known_parts(batch, ("arms",)), 2 * scale))
    skin = region(batch, "skin")
    bare = skin * below * (1 - hand)
    clothes = _main_pieces(region(batch, "clothes"), scale)
    clothes = clothes * (1 - _strands(batch, clothes))
    picture = (batch.source.amax((1, 3), keepdim=True) > 0.03).to(skin)  # the clip's own black bars
    bare, clothes = bare * picture, clothes * picture
    foreign = bare * _foreign(
        batch, bare
    )  # clothes, or before the background gaps in the hair, that were taken for skin
    return (clothes + foreign * blur(body, scale)).clamp(0, 1), bare - foreign


def _main_pieces(mask: Tensor, scale: float) -> Tensor:
    """``mask`` [B, 1, H, W] without what hangs on to it by a thread, such as the end of a strand of hair."""
    radius = max(1, round(5 * scale))
    kernel, wide = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)) for r in (radius, 2 * radius))
    kept = []
    for frame in mask[:, 0].cpu().numpy():
        core = cv2.erode((frame > 0.5).astype(np.uint8), kernel, borderValue=1)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4)
        areas = stats[:, cv2.CC_STAT_AREA]
        large = (areas > 0.05 * max(1, int(areas[1:].sum()))) & (np.arange(len(areas)) > 0)
        near = cv2.dilate(large[labels].astype(np.uint8), wide)
        kept.append(frame * cv2.blur(near.astype(np.float32), (3, 3)))
    return torch.from_numpy(np.stack(kept))[:, None].to(mask)


def _strands(batch: EditBatch, clothes: Tensor) -> Tensor:
    """How sure it is that what was taken for clothes beside the hair is hair, by its colour, [B, 1, H, W]."""
    scale, hair = unit(batch), region(batch, "hair")
    lab = to_oklab(batch.source)
    apart = []
    for mask in (hair, clothes):
        colour = masked_blur(lab, (mask > 0.95).to(lab) + 1e-6, 14 * scale)
        apart.append((lab - colour).square().sum(1, keepdim=True).sqrt())
    beside = smoothstep(0.02, 0.15, blur(hair, 5 * scale)) * smoothstep(0.02, 0.1, blur(clothes, 14 * scale))
    return beside * smoothstep(0.0, 0.08, apart[1] - apart[0])


def _foreign(batch: EditBatch, bare: Tensor) -> Tensor:
    """How sure it is that a colour is no skin colour, [B, 1, H, W]: shadows make skin darker, but neither grey nor blue."""
    lab = blur(to_oklab(batch.source), 1.0 * unit(batch))
    face = region(batch, "skin") * known_parts(batch, ("face",))
    weight = face if bool((face.sum((1, 2, 3)) > 64).all()) else region(batch, "skin")
    mean = (lab * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1.0)
    tint = lab[:, 1:] / lab[:, :1].clamp_min(0.08)
    own = mean[:, 1:] / mean[:, :1].clamp_min(0.08)
    length = own.square().sum(1, keepdim=True).sqrt().clamp_min(0.02)
    along = (tint * own).sum(1, keepdim=True) / length / length  # 1: as saturated as the face
    across = (tint[:, :1] * own[:, 1:] - tint[:, 1:] * own[:, :1]).abs() / length / length
    return (
        smoothstep(0.55, 0.3, along)
        + smoothstep(0.7, 1.1, across)
        - smoothstep(0.55, 0.3, along) * smoothstep(0.7, 1.1, across)
    )


def _lit(image: Tensor, light: Tensor) -> Tensor:
    """``image`` [B, 3, H, W] under ``light`` [B, 1, H, W], a factor of its OKLab lightness that saturates softly near white."""
    lab = to_oklab(image)
    bright = lab[:, :1] * light
    bright = torch.where(bright > 0.85, 0.85 + 0.14 * torch.tanh((bright - 0.85) / 0.14), bright)
    ratio = bright / lab[:, :1].clamp_min(1e-3)
    return from_oklab(torch.cat([bright, lab[:, 1:] * ratio], 1))


def _skin(batch: EditBatch, bare: Tensor, light: Tensor) -> Tensor:
    """Skin where clothes have hidden it, [B, 3, H, W]: the colours around it carried on, with the soft shading of the surface."""
    scale = unit(batch)
    lab = to_oklab(batch.source)
    face = region(batch, "skin") * known_parts(batch, ("face",))
    sure = (-functional.max_pool2d(-bare, 5, 1, 2) > 0.9).to(lab)
    result = []
    for picture, neck, cheek in zip(lab, sure[:, 0] > 0, face[:, 0] > 0.9, strict=True):
        seen = neck if int(neck.sum()) > 60 else cheek
        if int(seen.sum()) < 20:
            result.append(picture)
            continue
        usual = picture[:, seen].T
        middle = usual[usual[:, 0] >= usual[:, 0].median()].median(0).values  # not the shadows below chin and collar
        bright = seen & (picture[0] > middle[0] - 0.12) & (picture[0] < middle[0] + 0.1)
        small = functional.interpolate(
            torch.cat([picture * bright, bright[None].to(picture)])[None], scale_factor=0.25, mode="area"
        )[0]
        weight = small[3:].permute(1, 2, 0).cpu().numpy()
        near = fill((small[:3].permute(1, 2, 0).cpu().numpy() / np.maximum(weight, 1e-3)), weight[..., 0] > 0.3)
        grown = functional.interpolate(
            torch.from_numpy(near).permute(2, 0, 1)[None].to(picture), size=picture.shape[-2:], mode="bilinear"
        )
        result.append(torch.lerp(blur(grown, 6 * scale)[0], middle[:, None, None].expand_as(picture), 0.35))
    tone = torch.stack(result)
    smooth = blur(light, 6 * scale)
    smooth = smooth / masked_blur(smooth, sure.clamp_min(1e-3), 60 * scale).clamp_min(0.3)
    return from_oklab(torch.cat([tone[:, :1] * smooth.clamp(0.8, 1.08) ** 0.7, tone[:, 1:]], 1))


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
