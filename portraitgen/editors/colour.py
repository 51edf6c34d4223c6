"""OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020) and the blending done in it."""

from __future__ import annotations

import torch
from torch import Tensor

TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def _mix(matrix: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix.to(image), image)


def to_linear(image: Tensor) -> Tensor:
    """sRGB in [0, 1] to linear light, any shape."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB, clamped to [0, 1], any shape."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def to_oklab(image: Tensor) -> Tensor:
    """sRGB [B, 3, H, W] in [0, 1] to OKLab: lightness in [0, 1], a and b in about [-0.35, 0.35]."""
    return _mix(torch.tensor(TO_LAB), _mix(torch.tensor(TO_LMS), to_linear(image)).clamp_min(1e-9) ** (1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """OKLab [B, 3, H, W] to sRGB in [0, 1]; what lies outside is brought in at its own lightness by giving up chroma."""
    inverse = torch.linalg.inv(torch.tensor(TO_LMS, dtype=torch.float64)).float()
    unlab = torch.linalg.inv(torch.tensor(TO_LAB, dtype=torch.float64)).float()
    linear = _mix(inverse, _mix(unlab, lab) ** 3)
    grey = lab[:, :1].clamp(0, 1) ** 3
    over = (linear - 1).clamp_min(0) / (linear - grey).clamp_min(1e-6)
    under = (-linear).clamp_min(0) / (grey - linear).clamp_min(1e-6)
    excess = torch.maximum(over, under).amax(1, keepdim=True).clamp(0, 1)
    return to_srgb(torch.lerp(linear, grey.expand_as(linear), excess))


def blend(source: Tensor, edited: Tensor, weight: Tensor | float) -> Tensor:
    """From ``source`` (weight 0) to ``edited`` (weight 1), perceptually even; images [B, 3, H, W], weight a number or [B, 1, H, W]."""
    if isinstance(weight, float) and weight in (0.0, 1.0):
        return edited if weight else source
    return from_oklab(
        torch.lerp(
            to_oklab(source), to_oklab(edited), torch.as_tensor(weight, dtype=source.dtype, device=source.device)
        )
    )


def oklab_of(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    """One sRGB colour as OKLab [1, 3, 1, 1] with the device and type of ``like``."""
    return to_oklab(torch.tensor(rgb, dtype=like.dtype, device=like.device).view(1, 3, 1, 1))


def smoothstep(low: float, high: float, values: Tensor) -> Tensor:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
