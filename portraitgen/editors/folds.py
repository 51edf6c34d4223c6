"""The shading of the person's own clothes, without what is printed on them: the light by which a new garment is seen."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from . import EditBatch
from .colour import smoothstep, to_oklab
from .surface import blur, gradient, normals, unit

STEEP = (
    0.035  # change of log lightness per pixel of a 512-pixel picture; folds stay below, the edges of prints are above
)
TINTED = 0.006  # change of colour (OKLab a and b) per pixel that shading does not make
WIDEST = 45.0  # pixels of a 512-pixel picture: broader shading is taken from the surface's normals
DARKEST, BRIGHTEST = -0.55, 0.3  # of log lightness, by folds


def shading(batch: EditBatch, clothes: Tensor, bare: Tensor) -> Tensor:
    """Factor [B, 1, H, W] about 1 by which fabric appears lighter or darker than in even light.

    Args:
        clothes, bare: old clothes and the skin that clothes can cover, [B, 1, H, W] in [0, 1].
    """
    scale = unit(batch)
    lab = blur(to_oklab(batch.source), max(0.6, 0.9 * scale))
    value = (lab[:, :1].clamp_min(0) + 0.06).log()
    relief = _folds(lab, value, clothes, bare, scale)
    return relief.clamp(DARKEST, BRIGHTEST).exp() * _broad(batch, value, clothes, bare)


def broad_shading(batch: EditBatch, clothes: Tensor, bare: Tensor) -> Tensor:
    """The part of `shading` that comes of the picture's exposure and the body's roundness, without folds and cast shadows."""
    return _broad(batch, (to_oklab(batch.source)[:, :1].clamp_min(0) + 0.06).log(), clothes, bare)


def _folds(lab: Tensor, value: Tensor, clothes: Tensor, bare: Tensor, scale: float) -> Tensor:
    """Log lightness [B, 1, H, W] of folds and cast shadows, put together again from those of its gradients that shading can make.

    A print changes colour, or lightness abruptly; a fold does neither.
    """
    tint_x, tint_y = gradient(lab[:, 1:])
    tint = (tint_x.square() + tint_y.square()).sum(1, keepdim=True).sqrt() * scale
    x, y = gradient(value)
    steep = (x.square() + y.square()).sqrt() * scale
    shade = torch.exp(-((tint / TINTED) ** 2)) / (1 + (steep / STEEP) ** 4)
    one_layer = torch.maximum((clothes > 0.9).to(value), (bare > 0.9).to(value))
    side = 2 * max(1, round(2.5 * scale)) + 1
    shade = -functional.max_pool2d(-shade * one_layer, side, 1, side // 2)  # edges have flanks
    solved = [
        _integrated((dx * w)[0].cpu().numpy(), (dy * w)[0].cpu().numpy(), 1 / (WIDEST * scale))
        for dx, dy, w in zip(x, y, shade, strict=True)
    ]
    relief = torch.from_numpy(np.stack(solved))[:, None].to(value)
    return relief * smoothstep(0.0, 0.3, clothes + bare)


def _integrated(x: np.ndarray, y: np.ndarray, stiffness: float) -> np.ndarray:
    """The picture [H, W], even in size, whose central differences are nearest to ``x`` and ``y`` (screened Poisson equation)."""
    height, width = x.shape
    divergence = np.zeros((height, width), np.float32)
    right, down = (x[:, 1:] + x[:, :-1]) / 2, (y[1:] + y[:-1]) / 2
    divergence[:, :-1] += right
    divergence[:, 1:] -= right
    divergence[:-1] += down
    divergence[1:] -= down
    waves = [2 - 2 * np.cos(np.pi * np.arange(count) / count) for count in (height, width)]
    energy = (waves[0][:, None] + waves[1][None] + stiffness**2).astype(np.float32)
    return cv2.idct(cv2.dct(-divergence) / energy).astype(np.float32)


def _broad(batch: EditBatch, value: Tensor, clothes: Tensor, bare: Tensor) -> Tensor:
    """Factor [B, 1, H, W] of lightness that the surface's direction explains, as one distant light and a bright surround make it."""
    bright = torch.quantile(batch.source.amax(1).flatten(1)[:, ::16], 0.98, dim=1).view(-1, 1, 1, 1)
    exposure = (bright / 0.92).clamp(0.75, 1.0)
    direction = normals(batch)
    layers = torch.cat([(clothes > 0.9).to(value), (bare > 0.9).to(value)], 1)
    step = max(1, batch.alpha.shape[-1] // 128)
    terms = torch.cat([direction[:, :2], layers], 1)[..., ::step, ::step].permute(0, 2, 3, 1)
    seen = (layers.sum(1) > 0)[..., ::step, ::step]
    rows, heights = terms[seen].double(), value[:, 0, ::step, ::step][seen].double()
    if len(rows) < 50:
        return exposure.expand_as(value)
    ridge = torch.diag(torch.tensor([0.08, 0.08, 1e-3, 1e-3], dtype=torch.float64, device=rows.device)) * len(rows)
    normal = rows.T @ rows + ridge
    weights = torch.linalg.solve(normal, rows.T @ heights)[:2].to(value).clamp(-0.5, 0.5)
    broad = (direction[:, :2] * weights.view(1, 2, 1, 1)).sum(1, keepdim=True)
    turned = 0.14 * (
        1 - direction[:, 2:].clamp(0, 1)
    )  # cloth that turns away from the camera is seen against darker surroundings
    return exposure * (broad - turned).clamp(-0.5, 0.25).exp()
