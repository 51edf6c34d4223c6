"""Looks made of cells: pixel art, building blocks, mosaic, comic and pop art.

The cells of the person hang on the face's frame and move with it, those of the background stand still with the camera. A cell takes the
mean colour of its own layer only, so that no background leaks into the person.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, oklab_of, smoothstep, to_oklab
from .looks import look
from .surface import blur, carried, lightness, pixels, region, unit

BACKGROUND_FACE = 0.36  # face widths of the background's grid, as a share of the picture's height


def grid(batch: EditBatch, cells: float) -> tuple[Tensor, Tensor]:
    """Grid coordinates [B, 2, H, W] of the person's and of the background's layer, one unit a cell; ``cells`` a face width."""
    height = batch.alpha.shape[-2]
    return carried(batch) * cells, (pixels(batch) / (BACKGROUND_FACE * height) * cells).expand(
        len(batch.alpha), -1, -1, -1
    )


def cell_means(image: Tensor, cell: Tensor, weight: Tensor) -> Tensor:
    """Each pixel's cell mean of ``image`` [B, C, H, W]; ``cell`` [B, 2, H, W] whole numbers, ``weight`` [B, 1, H, W] of the layer."""
    results = []
    for picture, place, share in zip(image, cell.long(), weight, strict=True):
        place = place - place.amin((1, 2), keepdim=True)
        index = (place[1] * (place[0].max() + 1) + place[0]).flatten()
        values = torch.cat([picture * share, share]).flatten(1)
        total = torch.zeros(len(values), int(index.max()) + 1, dtype=values.dtype, device=values.device).index_add_(
            1, index, values
        )
        means = total[:-1] / total[-1:].clamp_min(1e-4)
        results.append(means[:, index].view_as(picture))
    return torch.stack(results)


def layered(batch: EditBatch, person: Tensor, background: Tensor) -> Tensor:
    return torch.lerp(background, person, batch.alpha)


def _shares(batch: EditBatch) -> tuple[Tensor, Tensor]:
    return batch.alpha.clamp(1e-4, 1) ** 2, (1 - batch.alpha).clamp(1e-4, 1) ** 2


def _palette(lab: Tensor, steps: int, vivid: float) -> Tensor:
    """Lightness in soft fixed steps, chroma raised."""
    scaled = lab[:, :1] * steps
    whole = scaled.floor()
    light = (whole + 0.5 + 0.5 * torch.tanh(5 * (scaled - whole - 0.5))) / steps
    return torch.cat([light, lab[:, 1:] * vivid], 1)


def pixel_art(batch: EditBatch, image: Tensor) -> Tensor:
    lab = to_oklab(image)
    layers = []
    for where, share in zip(grid(batch, 26.0), _shares(batch), strict=True):
        means = cell_means(lab, where.floor(), share)
        means[:, :1] = 0.5 + 1.12 * (means[:, :1] - 0.5)
        layers.append(_palette(means, 9, 1.4))
    return from_oklab(layered(batch, *layers))


def blocks(batch: EditBatch, image: Tensor) -> Tensor:
    """Plastic bricks seen from the studs' side."""
    lab = to_oklab(image)
    layers = []
    for where, share in zip(grid(batch, 21.0), _shares(batch), strict=True):
        colour = cell_means(lab, where.floor(), share)
        colour[:, :1] = 0.5 + 1.15 * (colour[:, :1] - 0.48)
        colour = _palette(colour, 8, 1.5)
        inside = where - where.floor() - 0.5
        x, y = inside[:, :1], inside[:, 1:]
        radius = (x.square() + y.square()).sqrt()
        slant = (-x - y) / radius.clamp_min(1e-3) * 0.7071
        soft = 0.045
        stud = smoothstep(0.34 + soft, 0.34 - soft, radius)
        ring = stud * smoothstep(0.34 - 0.16, 0.34 - 0.02, radius)
        shadow = smoothstep(0.30, 0.20, ((x - 0.09).square() + (y - 0.09).square()).sqrt() - 0.17) * (1 - stud)
        border = torch.maximum(x.abs(), y.abs())
        bevel = smoothstep(0.40, 0.5, border)
        lit = torch.where(x.abs() > y.abs(), -x.sign(), -y.sign()) * bevel
        gap = smoothstep(0.465, 0.5, border)
        light = colour[:, :1]
        relief = 0.16 * ring * slant + 0.05 * stud - 0.13 * shadow + 0.05 * lit - 0.12 * gap
        layers.append(torch.cat([light + relief * (0.35 + 0.8 * light), colour[:, 1:] * (1 - 0.25 * gap)], 1))
    return from_oklab(layered(batch, *layers))


def _voronoi(where: Tensor, jitter: float) -> tuple[Tensor, Tensor, Tensor]:
    """The stone [B, 2, H, W] that each place belongs to, its distance to the joint, and a number of the stone's own in [0, 1]."""
    base = where.floor()
    first = torch.full_like(where[:, :1], 9.0)
    second = first.clone()
    owner = base.clone()
    for shift_x in (-1, 0, 1):
        for shift_y in (-1, 0, 1):
            cell = base + torch.tensor([shift_x, shift_y], dtype=where.dtype, device=where.device).view(1, 2, 1, 1)
            centre = cell + 0.5 + jitter * (_hash(cell) - 0.5)
            distance = (where - centre).square().sum(1, keepdim=True).sqrt()
            nearer = distance < first
            second = torch.where(nearer, first, torch.minimum(second, distance))
            first = torch.where(nearer, distance, first)
            owner = torch.where(nearer, cell, owner)
    return owner, second - first, _hash(owner)[:, :1]


def _hash(cell: Tensor) -> Tensor:
    """Two numbers in [0, 1] that depend on a cell's whole-number coordinates alone."""
    x, y = cell[:, :1], cell[:, 1:]
    first = torch.sin(x * 12.9898 + y * 78.233) * 43.7585
    second = torch.sin(x * 39.3467 + y * 11.135) * 57.1393
    return torch.cat([first - first.floor(), second - second.floor()], 1)


def mosaic(batch: EditBatch, image: Tensor) -> Tensor:
    """Stones of uneven shape in grey grout."""
    lab = to_oklab(image)
    grout = oklab_of((0.45, 0.42, 0.38), lab)
    layers = []
    for where, share in zip(grid(batch, 26.0), _shares(batch), strict=True):
        owner, joint, own = _voronoi(where, 0.7)
        colour = cell_means(lab, owner, share)
        light = 0.5 + 1.12 * (colour[:, :1] - 0.46) + 0.08 * (own - 0.5)
        edge = smoothstep(0.22, 0.05, joint)
        stone = torch.cat([light - 0.07 * edge, colour[:, 1:] * 1.45], 1)
        layers.append(torch.lerp(grout.expand_as(stone), stone, smoothstep(0.02, 0.12, joint)))
    return from_oklab(layered(batch, *layers))


def _dots(batch: EditBatch, tone: Tensor, cells: float) -> Tensor:
    """Halftone: 1 inside a dot; dots grow as ``tone`` [B, 1, H, W] falls from 1 to 0; rows stand at 45 degrees."""
    layers = []
    for where in grid(batch, cells):
        x, y = where[:, :1], where[:, 1:]
        across, down = (x + y) * 0.7071, (x - y) * 0.7071
        wave = 0.25 * (torch.cos(2 * torch.pi * across) + torch.cos(2 * torch.pi * down)) + 0.5
        layers.append(smoothstep(-0.13, 0.13, wave - (0.06 + 0.94 * tone)))
    return layered(batch, *layers)


def comic(batch: EditBatch, image: Tensor) -> Tensor:
    """Flat inks, halftone shadows, heavy outlines."""
    inked = look(batch, image, "cartoon")
    lab = to_oklab(inked)
    own = to_oklab(image)[:, :1]
    soft = blur(own, 2.0 * unit(batch))
    tone = smoothstep(0.10, 0.78, soft)
    dots = _dots(batch, tone, 34.0) * smoothstep(0.92, 0.6, soft)
    light = (0.10 + 1.02 * lab[:, :1]) * (1 - 0.24 * dots)
    ink = smoothstep(0.30, 0.20, soft)
    light = torch.lerp(light, torch.full_like(light, 0.12), 0.85 * ink)
    return from_oklab(torch.cat([light.clamp(0, 1), lab[:, 1:] * 1.25 * (1 - 0.7 * ink) * (1 + 0.25 * dots)], 1))


POP_INKS = {  # shadow and light of each printed area
    "background": ("#0d8f9a", "#19c9c6"),
    "skin": ("#c2185b", "#ffa6c1"),
    "hair": ("#b36b00", "#ffe14a"),
    "lips": ("#7a0016", "#ff2138"),
    "eyes": ("#0a2a6b", "#c9f0ff"),
    "brows": ("#3a1060", "#7a35b0"),
    "teeth": ("#b8a8c8", "#fffdf5"),
    "mouth": ("#3a0010", "#8a0a24"),
    "clothes": ("#2c1a8c", "#6b4dff"),
}


def pop_art(batch: EditBatch, image: Tensor) -> Tensor:
    """Screen print: two inks an area, black plate on top, halftone between."""
    light = lightness(image)
    soft = blur(light, 2.0 * unit(batch))
    result = torch.zeros_like(image)
    total = torch.full_like(light, 1e-4)
    for name, codes in POP_INKS.items():
        mask = region(batch, name)
        dark, bright = (oklab_of(tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)), light) for code in codes)  # type: ignore[arg-type]
        middle = 0.25 if name == "hair" else 0.42
        tone = smoothstep(middle - 0.12, middle + 0.22, soft)
        dots = _dots(batch, tone, 26.0)
        tone = (
            tone * (1 - 0.75 * dots)
            if name != "background"
            else 0.75 + 0.25 * (1 - _dots(batch, torch.full_like(tone, 0.7), 20.0))
        )
        result = result + torch.lerp(dark.expand_as(image), bright.expand_as(image), tone) * mask
        total = total + mask
    result = result / total
    outline = lightness(look(batch, image, "cartoon"))
    black = (smoothstep(0.26, 0.16, soft) + smoothstep(0.16, 0.08, outline)).clamp(0, 1) * batch.alpha
    return from_oklab(torch.lerp(result, oklab_of((0.06, 0.03, 0.09), light).expand_as(result), 0.92 * black))
