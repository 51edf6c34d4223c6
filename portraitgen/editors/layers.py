"""What a person wears, read off a frame: old clothes, skin that clothes can cover, and where on the body at rest all of it lies."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..body import LABELS
from ..plate import fill
from . import EditBatch
from .colour import smoothstep, to_oklab
from .surface import blur, masked_blur, region, unit

HEAD = ("face", "scalp", "ears", "eye_left", "eye_right", "lips", "teeth", "tongue", "mouth_interior")
BODY = ("neck", "torso", "arms")
HAND_LINE = (0.11, 0.17)  # metres below the base of the neck, from which on skin in front of the torso is a hand


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
    foreign = _foreign(batch)
    clothes = _main_pieces(region(batch, "clothes"), scale)
    # a small piece of the colour of skin is skin, whatever it was taken for
    pieces = (region(batch, "clothes") - clothes) * (1 - foreign)
    skin = region(batch, "skin") + pieces + region(batch, "hair") * _shaded_neck(batch)
    near = functional.max_pool2d(body, 2 * round(4 * scale) + 1, 1, round(4 * scale))
    bare = skin * below * (1 - hand) * blur(near, 1.5 * scale)  # elsewhere it is the background between strands of hair
    clothes = clothes * (1 - _strands(batch, clothes))
    both = torch.maximum(_stray(batch, bare) * (bare > clothes), _stray(batch, clothes) * (clothes > bare))
    bare, clothes = bare * (1 - both), clothes * (1 - both)
    picture = (batch.source.amax((1, 3), keepdim=True) > 0.03).to(skin)  # the clip's own black bars
    bare, clothes = bare * picture, clothes * picture
    foreign = bare * foreign  # clothes, or before the background gaps in the hair, that were taken for skin
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


def _shaded_neck(batch: EditBatch) -> Tensor:
    """How sure it is that what was taken for hair before the neck is the neck in its own shadow, by its colour, [B, 1, H, W]."""
    scale, neck = unit(batch), known_parts(batch, ("neck",))
    lab = blur(to_oklab(batch.source), 1.2 * scale)
    apart = []
    for name in ("hair", "skin"):
        sure = (region(batch, name) > 0.95).to(lab) * (1 - neck if name == "hair" else neck)
        colour = masked_blur(lab, sure + 1e-6, 24 * scale)
        apart.append((lab - colour).square().sum(1, keepdim=True).sqrt())
    return blur(neck, scale) * smoothstep(0.0, 0.05, apart[0] - apart[1])


def _stray(batch: EditBatch, layer: Tensor) -> Tensor:
    """How sure it is that what was taken for ``layer`` between hair and background is neither, by its colour, [B, 1, H, W]."""
    scale = unit(batch)
    lab = blur(to_oklab(batch.source), 0.6 * scale)
    reach = round(3 * scale)
    sure = -functional.max_pool2d(-(layer > 0.95).to(lab), 2 * reach + 1, 1, reach) + 1e-6
    usual = masked_blur(lab, sure, 12 * scale)
    spread = masked_blur((lab - usual).square().sum(1, keepdim=True), sure, 12 * scale).clamp_min(0).sqrt()
    apart = (lab - usual).square().sum(1, keepdim=True).sqrt() / (2 * spread).clamp_min(0.05)
    hair, behind = blur(region(batch, "hair"), 7 * scale), blur(1 - batch.alpha, 14 * scale)
    doubt = smoothstep(0.02, 0.12, hair) * smoothstep(0.01, 0.05, behind) * smoothstep(1.0, 1.8, apart)
    thin, wide = (
        max(1, round(1.2 * scale)),
        max(1, round(4 * scale)),
    )  # patches, and not single strands; with their mixed rims
    doubt = -functional.max_pool2d(-doubt, 2 * thin + 1, 1, thin)
    return blur(functional.max_pool2d(doubt, 2 * wide + 1, 1, wide), 0.8 * scale)


def _foreign(batch: EditBatch) -> Tensor:
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
