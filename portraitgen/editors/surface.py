"""What looks and materials know about the picture's surface: masks, normals, detail, and coordinates that move with the person.

Textures must stay on the person when the person moves, so nothing here depends on the frame's corner except in the background: inside the
mesh textures live in its UV space, elsewhere on the person in a frame carried by the face (centre and size of its mask).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from . import EditBatch
from .colour import smoothstep, to_oklab
from .lexicon import EVERYTHING, FACE, PERSON

UV_DENSITY = 4.0  # face widths in the unit UV square: the atlas gives about a quarter of its side to the face
TILE = 256


def one_frame(batch: EditBatch, index: int) -> EditBatch:
    """The batch of one frame alone."""
    here = slice(index, index + 1)
    regions = {name: mask[here] for name, mask in batch.regions.items()}
    layers: dict[str, Any] = {name: value[here] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, regions=regions, **layers)


def region(batch: EditBatch, name: str) -> Tensor:
    """Mask [B, 1, H, W] of one region, zeros where the picture has none."""
    if name in batch.regions:
        return batch.regions[name].to(batch.source).clamp(0, 1)
    return 1 - batch.alpha if name == "background" else torch.zeros_like(batch.alpha)


def region_mask(batch: EditBatch, names: Iterable[str]) -> Tensor:
    """Mask [B, 1, H, W] of several regions. Large sets are taken as the whole less the others, so that no seam shows between neighbours."""
    wanted = set(names)
    if wanted >= set(EVERYTHING):
        return torch.ones_like(batch.alpha)
    person = batch.alpha.clamp(0, 1)
    if {"skin", "clothes"} <= wanted or {"skin", "hair"} <= wanted:
        inside = person - sum(region(batch, name) for name in PERSON if name not in wanted)
        return (inside + (1 - person if "background" in wanted else 0)).clamp(0, 1)
    return torch.stack([region(batch, name) for name in wanted]).sum(0).clamp(0, 1)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, C, H, W], edges replicated; wide blurs run on a shrunken copy."""
    factor = max(1, int(sigma / 1.6))
    height, width = image.shape[-2:]
    if factor > 1:
        small = functional.interpolate(image, size=(-(-height // factor), -(-width // factor)), mode="area")
        return functional.interpolate(
            blur(small, sigma / factor), size=(height, width), mode="bicubic", align_corners=False
        )
    radius = max(1, round(2.5 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = image.flatten(0, 1)[:, None]
    flat = functional.conv2d(functional.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel)
    flat = functional.conv2d(functional.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3))
    return flat[:, 0].view(image.shape)


def masked_blur(image: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Blur of ``image`` [B, C, H, W] that only takes what ``mask`` [B, 1, H, W] covers."""
    both = blur(torch.cat([image * mask, mask], 1), sigma)
    return both[:, :-1] / both[:, -1:].clamp_min(1e-3)


def normalise(vectors: Tensor) -> Tensor:
    """Unit vectors along dimension 1 (several times faster here than the library's norm over a strided dimension)."""
    return vectors * vectors.square().sum(1, keepdim=True).clamp_min(1e-12).rsqrt()


def gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences in x and y, same shape, per pixel."""
    padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def slope(image: Tensor, sigma: float) -> Tensor:
    """Gradient [B, 2, H, W] per pixel of a blurred [B, 1, H, W], taken before the blur is enlarged so that it has no facets."""
    factor = max(1, int(sigma / 3))
    height, width = image.shape[-2:]
    small = (
        functional.interpolate(image, size=(-(-height // factor), -(-width // factor)), mode="area")
        if factor > 1
        else image
    )
    falls = torch.cat(gradient(blur(small, sigma / factor)), 1) / factor
    return (
        functional.interpolate(falls, size=(height, width), mode="bicubic", align_corners=False)
        if factor > 1
        else falls
    )


def face_frame(batch: EditBatch) -> tuple[Tensor, Tensor]:
    """Centre [B, 2] (x, y) and width [B] of the face in pixels, from its soft mask; the middle of the picture where there is no face."""
    height, width = batch.alpha.shape[-2:]
    face = torch.stack([region(batch, name) for name in FACE]).sum(0).clamp(0, 1)
    inside = torch.isfinite(batch.uv).all(1, keepdim=True)
    on_mesh = face * inside
    weight = torch.where(on_mesh.sum((1, 2, 3), keepdim=True) > 64, on_mesh, face)
    weight = torch.where(weight.sum((1, 2, 3), keepdim=True) > 64, weight, torch.zeros_like(weight))[:, 0]
    x = torch.arange(width, dtype=weight.dtype, device=weight.device) + 0.5
    y = torch.arange(height, dtype=weight.dtype, device=weight.device) + 0.5
    area = weight.sum((1, 2))
    found = area > 64
    total = area.clamp_min(1.0)
    centre = torch.stack([(weight * x).sum((1, 2)), (weight * y[:, None]).sum((1, 2))], -1) / total[:, None]
    middle = torch.tensor([width / 2, height / 2], dtype=weight.dtype, device=weight.device)
    return torch.where(found[:, None], centre, middle), torch.where(
        found, total.sqrt(), torch.full_like(total, 0.3 * height)
    )


def pixels(batch: EditBatch) -> Tensor:
    """Pixel centres [1, 2, H, W]."""
    height, width = batch.alpha.shape[-2:]
    x = torch.arange(width, dtype=batch.source.dtype, device=batch.source.device) + 0.5
    y = torch.arange(height, dtype=batch.source.dtype, device=batch.source.device) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def carried(batch: EditBatch) -> Tensor:
    """Coordinates [B, 2, H, W] in face widths from the face's centre: they move with the person and know nothing of the mesh."""
    centre, width = face_frame(batch)
    return (pixels(batch) - centre[:, :, None, None]) / width[:, None, None, None]


def coordinates(batch: EditBatch) -> Tensor:
    """Texture coordinates [B, 2, H, W] in face widths: UV on the mesh, the face's frame on the rest of the person, the screen behind."""
    # the axes are swapped because the face lies on its side in the default atlas: wood grain then runs down the face
    height = batch.alpha.shape[-2]
    screen = (pixels(batch) / (0.3 * height)).expand_as(batch.uv)
    outside = torch.where(batch.alpha > 0.5, carried(batch) + 0.37, screen)
    return torch.where(torch.isfinite(batch.uv).all(1, keepdim=True), batch.uv.flip(1) * UV_DENSITY, outside)


@functools.cache
def _tile(rough: bool) -> Tensor:
    """Periodic noise [1, 1, TILE + 1, TILE + 1], mean 0, deviation 1: clouds, or fine grain when ``rough``."""
    generator = torch.Generator().manual_seed(7)
    spectrum = torch.fft.rfft2(torch.randn(TILE, TILE, generator=generator))
    frequency = (torch.fft.fftfreq(TILE)[:, None] ** 2 + torch.fft.rfftfreq(TILE) ** 2).sqrt() * TILE
    shape = (frequency / 8).clamp_min(0.5) ** (-0.3 if rough else -1.7) * torch.exp(
        -((frequency / (90 if rough else 60)) ** 2)
    )
    shape[0, 0] = 0
    values = torch.fft.irfft2(spectrum * shape, s=(TILE, TILE))
    return functional.pad((values / values.std())[None, None], (0, 1, 0, 1), mode="circular")


def noise(where: Tensor, frequency: float | tuple[float, float], rough: bool = False) -> Tensor:
    """Noise [B, 1, H, W] with mean 0 and deviation 1 at coordinates [B, 2, H, W]; ``frequency`` in tiles per unit (eight clouds a tile)."""
    pair = (frequency, frequency) if isinstance(frequency, float) else frequency
    cells = torch.remainder(where * torch.tensor(pair, dtype=where.dtype, device=where.device).view(1, 2, 1, 1), 1.0)
    grid = (cells * 2 - 1).permute(0, 2, 3, 1)
    tile = _tile(rough).to(where).expand(len(where), 1, TILE + 1, TILE + 1)
    return functional.grid_sample(tile, grid, align_corners=True, padding_mode="border")


def lightness(image: Tensor) -> Tensor:
    """OKLab lightness [B, 1, H, W] of sRGB [B, 3, H, W]."""
    return to_oklab(image)[:, :1]


def unit(batch: EditBatch) -> float:
    """A pixel of a 512-pixel picture, in pixels of this one: the scale of all radii."""
    return batch.alpha.shape[-2] / 512


def normals(batch: EditBatch) -> Tensor:
    """Smooth normals [B, 3, H, W], z towards the camera: the mesh's where it is, elsewhere the matte inflated like a balloon."""
    scale = unit(batch)
    inside = torch.isfinite(batch.uv).all(1, keepdim=True).to(batch.source) * (
        batch.normals.square().sum(1, keepdim=True) > 0.25
    )
    slopes = -9.0 * scale * slope(region(batch, "hair"), 14 * scale)
    for sigma, weight in ((6, 5.0), (16, 14.0), (40, 40.0)):
        slopes = slopes - weight * scale * slope(batch.alpha, sigma * scale)
    balloon = normalise(torch.cat([slopes, torch.ones_like(batch.alpha)], 1))
    mesh = batch.normals * torch.tensor([1.0, 1.0, -1.0], dtype=batch.normals.dtype, device=batch.normals.device).view(
        1, 3, 1, 1
    )
    # the mesh's normals are spread a little beyond its edge and over its holes before the two are mixed
    both = blur(torch.cat([mesh * inside, inside], 1), 5 * scale)
    near = blur(inside, 12 * scale)
    known = smoothstep(0.45, 0.98, near) * (1 - 0.6 * blur(region(batch, "hair"), 8 * scale))
    mixed = torch.lerp(balloon, both[:, :3] / both[:, 3:].clamp_min(1e-3), known)
    return normalise(torch.lerp(mixed, mesh, 0.5 * inside * known))


def bumped(batch: EditBatch, normal: Tensor, light: Tensor, bump: float) -> Tensor:
    """Normals bent by the picture's own relief (bright is high), so that strands, folds and wrinkles catch the light."""
    scale = unit(batch)
    x, y = gradient(blur(light, max(0.6, 0.8 * scale)))
    return normalise(normal - bump / scale * torch.cat([x, y, torch.zeros_like(x)], 1))


def detail(batch: EditBatch, mask: Tensor, sigma: float = 22.0, light: Tensor | None = None) -> Tensor:
    """The picture's relief [B, 1, H, W] without its paint: lightness over its surroundings within ``mask``, about 1, from 0.4 to 1.7."""
    value = lightness(batch.source) if light is None else light
    around = masked_blur(value, mask.clamp_min(1e-3), sigma * unit(batch))
    return ((value + 0.06) / (around + 0.06)).clamp(0.4, 1.7)
