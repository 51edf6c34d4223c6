"""Skin that clothes have hidden: guessed from the skin that is seen."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..plate import fill
from . import EditBatch
from .colour import from_oklab, smoothstep, to_oklab
from .layers import known_parts
from .surface import blur, masked_blur, noise, region, unit

# Inner end (x, y) and outer end of the collar bone, metres from the base of the neck.
COLLAR_BONE = (0.018, 0.052, 0.16, 0.030)
FACE_WIDTH = 0.14  # metres, the unit of textures


def bared_skin(batch: EditBatch, rest: Tensor, bare: Tensor, light: Tensor) -> Tensor:
    """Skin where clothes have hidden it, [B, 3, H, W] in [0, 1].

    The colours around it are carried on, with the shading of the surface, of the collar bones under it, and as uneven as the skin that
    is seen.

    Args:
        rest: [B, 3, H, W] places on the body at rest, metres, also where the mesh is not.
        bare: [B, 1, H, W] skin of neck, shoulders and arms, in [0, 1].
        light: [B, 1, H, W] factor by which fabric appears lighter or darker than in even light.
    """
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
    shade = smooth.clamp(0.72, 1.1) ** 0.85 * (1 + bones(rest))
    return from_oklab(torch.cat([tone[:, :1] * shade, tone[:, 1:]], 1) + _unevenness(batch, rest, lab, sure))


def bones(rest: Tensor) -> Tensor:
    """What collar bones and the hollow between them do to skin's lightness under light from above, [B, 1, H, W] about 0."""
    x, y, z = rest[:, :1].abs(), rest[:, 1:2], rest[:, 2:]
    middle = COLLAR_BONE[1] + (COLLAR_BONE[3] - COLLAR_BONE[1]) * (x - COLLAR_BONE[0]) / (
        COLLAR_BONE[2] - COLLAR_BONE[0]
    )
    along = smoothstep(COLLAR_BONE[0] - 0.012, COLLAR_BONE[0] + 0.012, x) * smoothstep(
        COLLAR_BONE[2], COLLAR_BONE[2] - 0.06, x
    )
    upper, lower, above = (
        _bump((y - middle - shift) / width) for shift, width in ((-0.003, 0.006), (0.010, 0.009), (-0.020, 0.014))
    )
    hollow = _bump(x / 0.016) * _bump((y - COLLAR_BONE[1]) / 0.014)
    front = smoothstep(0.01, -0.03, z)
    return front * (along * (0.045 * upper - 0.05 * lower - 0.035 * above) - 0.09 * hollow)


def _bump(distance: Tensor) -> Tensor:
    return torch.exp(-distance.square().clamp_max(20))


def _unevenness(batch: EditBatch, rest: Tensor, lab: Tensor, sure: Tensor) -> Tensor:
    """Pores and mottling [B, 3, H, W], OKLab about 0, as strong as in the skin that is surely seen; they stay on the body."""
    scale = unit(batch)
    fine, soft = blur(lab, 1.5 * scale), blur(lab, 8 * scale)
    skin = torch.maximum(sure, (region(batch, "skin") * known_parts(batch, ("face",)) > 0.9).to(lab))
    near = -functional.max_pool2d(-skin, 2 * round(4 * scale) + 1, 1, round(4 * scale))
    where = rest[:, :2] / FACE_WIDTH
    result = torch.zeros_like(lab)
    for band, pattern, most in (
        (lab - fine, noise(where, 1.6, rough=True), 0.010),
        (fine - soft, noise(where + 3.7, 1.2), 0.005),
    ):
        # half of what is seen there lies below this, whatever moles and stubble do
        size = torch.stack([_median(part, here) for part, here in zip(band.abs(), near, strict=True)]) * 1.48
        result = result + size.clamp_max(most) * pattern
    return result


def _median(values: Tensor, mask: Tensor) -> Tensor:
    """Median per channel [C, 1, 1] of ``values`` [C, H, W] where ``mask`` [1, H, W] is 1; zeros where that is hardly anywhere."""
    chosen = values[:, mask[0] > 0.5]
    return chosen.median(1).values.view(-1, 1, 1) if chosen.shape[1] > 50 else values.new_zeros(len(values), 1, 1)
