"""The shape that light falls on: a height field and fine normals of the whole person, hair and clothes included.

The tracked mesh knows the naked head and torso. Hair and cloth stand off it: there the height is a membrane that is inflated inside the
matte, held by the mesh where skin shows and loosely where cloth lies on it. Folds, strands and wrinkles come from the picture's own relief.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from . import EditBatch
from .colour import smoothstep
from .layers import known_parts
from .surface import blur, gradient, lightness, masked_blur, normalise, pixels, region, slope, unit

GRID = 128  # cells down the height field; hair and cloth have no finer shape than that
ITERATIONS = 90
DEEP = -2.0  # height of where nobody is
STEEP = 2.2  # slope at the silhouette, where a balloon is vertical


class Relief(NamedTuple):
    """Shape under each pixel.

    Attributes:
        normals: [B, 3, H, W] unit: x to the right of the picture, y down, z towards the camera.
        smooth: [B, 3, H, W] the same without the picture's own relief.
        height: [B, 1, GRID, about GRID] towards the camera, in heights of the picture; far below everything where nobody is.
        outline: [B, 3, H, W] how near the silhouette is, in [0, 1], times the direction in which the person ends there, and unsigned.
        corneas: [B, 3, H, W] normals of the eyes' wet fronts, which have a bulge of their own around the iris; in the eyes alone.
        strands: [B, 2, H, W] direction of hair in the picture, length in [0, 1] by how sure it is.
    """

    normals: Tensor
    smooth: Tensor
    height: Tensor
    outline: Tensor
    corneas: Tensor
    strands: Tensor


def relief(batch: EditBatch) -> Relief:
    """Shape of the person in each frame of ``batch``, each frame by itself."""
    mesh, inside, trust = _mesh(batch)
    height = _height(batch, inside)
    smooth = _smooth_normals(batch, mesh, inside, trust, height)
    light = lightness(batch.source)
    return Relief(
        _fine_normals(batch, smooth, light),
        smooth,
        _carved(batch, height),
        _outline(batch),
        _corneas(batch, light),
        _strands(batch, light),
    )


def _mesh(batch: EditBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The mesh's normals with z towards the camera, where it is seen [B, 1, H, W], and how far its shape is the picture's."""
    scale = unit(batch)
    flip = batch.source.new_tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1)
    inside = (batch.normals.square().sum(1, keepdim=True) > 0.25) & torch.isfinite(batch.uv).all(1, keepdim=True)
    inside = inside.to(batch.source) * (batch.alpha > 0.5)
    # eyelids, lips and what lies behind them are finer in the mesh than the tracking is exact
    hole = (batch.parts >= 4) & (batch.parts <= 9)
    hole = functional.max_pool2d(hole.to(batch.source), 2 * round(2 * scale) + 1, 1, round(2 * scale))
    inner = _mouth(batch)
    hole = torch.maximum(hole, inner)
    solid = inside * (1 - hole)
    filled = masked_blur(batch.normals * flip, solid + 0.15 * inside * (1 - inner), 7.0 * scale)
    wide = masked_blur(batch.normals * flip, solid + 1e-3 * inside, 22.0 * scale)
    filled = torch.lerp(filled, wide, blur(inner, 3 * scale).clamp(0, 1))
    fine = masked_blur(batch.normals * flip, solid + 1e-4 * inside, max(0.7, 1.1 * scale))
    mesh = torch.lerp(fine, filled, blur(hole, 1.5 * scale))
    # no ear has the mesh's folds: a hollow of theirs would be a black hole beside the ear's own
    mesh = normalise(torch.lerp(mesh, filled, blur(known_parts(batch, ("ears",)), 2 * scale)))
    covered = blur(region(batch, "hair"), 3 * scale) + 0.75 * blur(region(batch, "clothes"), 3 * scale)
    near_edge = blur(inside, 5 * scale)
    return mesh, inside, inside * smoothstep(0.5, 0.95, near_edge) * (1 - covered).clamp(0, 1)


def _mouth(batch: EditBatch) -> Tensor:
    """Where the picture or the mesh shows the inside of the mouth: a cave to the mesh, but teeth take the light of the face around."""
    seen = torch.maximum(region(batch, "teeth"), region(batch, "mouth"))
    return torch.maximum(seen, ((batch.parts >= 7) & (batch.parts <= 9)).to(seen))


def _shrunk(image: Tensor) -> Tensor:
    """On the grid: square cells, ``GRID`` of them down the picture."""
    height, width = image.shape[-2:]
    return functional.interpolate(image, size=(GRID, round(GRID * width / height)), mode="area")


def _height(batch: EditBatch, inside: Tensor) -> Tensor:
    """Membrane on the grid over mesh and matte, in heights of the picture, 0 about where the person ends."""
    known = inside * torch.isfinite(batch.positions).all(1, keepdim=True) * (_mouth(batch) < 0.5)
    positions = torch.where(known > 0, batch.positions, 0.0)
    pitch = _pitch(positions, known)
    depth = -positions[:, 2:] / (pitch * batch.alpha.shape[-2]).view(-1, 1, 1, 1)
    share = _shrunk(known)
    mesh = _shrunk(depth * known) / share.clamp_min(1e-4)
    edge = share * smoothstep(0.55, 0.25, _shrunk(batch.normals[:, 2:].neg() * known) / share.clamp_min(1e-4))
    level = (mesh * edge).sum((1, 2, 3), keepdim=True) / edge.sum((1, 2, 3), keepdim=True).clamp_min(1e-4)
    mesh = torch.where(share > 0.05, mesh - level, 0.0)
    # a person ends in depth about where the mesh ends nearby
    around = torch.cat([mesh * (edge + 0.05 * share), edge + 0.05 * share], 1)
    both = blur(around, 2.5) + 1e-2 * blur(around, GRID / 10) + 1e-7
    rim = both[:, :1] / both[:, 1:]
    alpha, hair, clothes = (_shrunk(part) for part in (batch.alpha, region(batch, "hair"), region(batch, "clothes")))
    person = smoothstep(0.35, 0.65, alpha)
    width = (inside.sum((1, 2, 3), keepdim=True).sqrt() / inside.shape[-2]).clamp(0.1, 0.8)
    # curvature of a head as wide as this one; held by the mesh where skin shows, from outside by the silhouette
    bend = 3.2 / width / GRID**2 * person * (1 + 0.8 * hair)
    hold = 0.6 * share * person * (1 - hair - 0.97 * clothes).clamp(0, 1) + 0.004 * share * hair
    outside = 1 - person
    return _membrane(hold * mesh + bend + 3.0 * outside * rim, hold + 3.0 * outside)


def _pitch(positions: Tensor, known: Tensor) -> Tensor:
    """Metres per pixel [B] across the mesh; 1 where there is none, which leaves heights of a flat nothing."""
    step = positions[:, :1, :, 1:] - positions[:, :1, :, :-1]
    both = known[..., 1:] * known[..., :-1]
    near = both * (step > 0) * (step < 0.02)
    count = near.sum((1, 2, 3))
    return torch.where(count > 50, (step * near).sum((1, 2, 3)) / count.clamp_min(1), torch.ones_like(count))


def _membrane(pull: Tensor, hold: Tensor) -> Tensor:
    """Solve (hold - laplacian) h = pull on the grid by conjugate gradients, all frames side by side but apart."""

    def apply(values: Tensor) -> Tensor:
        padded = functional.pad(values, (1, 1, 1, 1), mode="replicate")
        around = padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]
        return (hold + 4 + 1e-5) * values - around

    def dot(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum((1, 2, 3), keepdim=True)

    inverse = 1 / (hold + 4)
    values = torch.zeros_like(pull)
    residual = pull.clone()
    step = direction = inverse * residual
    power = dot(residual, step)
    for _ in range(ITERATIONS):
        applied = apply(direction)
        length = power / dot(direction, applied).clamp_min(1e-20)
        values = values + length * direction
        residual = residual - length * applied
        step = inverse * residual
        before, power = power, dot(residual, step)
        direction = step + power / before.clamp_min(1e-20) * direction
    return values


def _carved(batch: EditBatch, height: Tensor) -> Tensor:
    """The height with what is not the person sunk out of the light's way."""
    # hair stands a little off the skin
    height = height + 0.010 * blur(_shrunk(region(batch, "hair")), 1.0)
    return torch.where(_shrunk(batch.alpha) > 0.4, height, DEEP)


def _smooth_normals(batch: EditBatch, mesh: Tensor, inside: Tensor, trust: Tensor, height: Tensor) -> Tensor:
    """Normals of mesh and membrane in one, with a bulge for each eyeball and a roll-off at the silhouette."""
    scale, size = unit(batch), batch.alpha.shape[-2:]
    falls = torch.cat(gradient(blur(height, 1.0)), 1) * GRID
    falls = functional.interpolate(falls, size=size, mode="bicubic", align_corners=False)
    # the grid cannot hold the last steep pixels before the outline
    falls = falls + 6.0 * scale * slope(batch.alpha, 3 * scale)
    length = falls.square().sum(1, keepdim=True).clamp_min(1e-9).sqrt()
    falls = falls * (STEEP * torch.tanh(length / STEEP) / length)
    balloon = normalise(torch.cat([-falls, torch.ones_like(batch.alpha)], 1))
    normal = torch.lerp(balloon, mesh, trust)
    eyes = blur(region(batch, "eyes"), 1.5 * scale)
    around = masked_blur(mesh, inside.clamp_min(1e-4), 9 * scale)
    ball = around + torch.cat([-7.0 * scale * slope(region(batch, "eyes"), 4 * scale), 0 * eyes], 1)
    return normalise(torch.lerp(normal, normalise(ball), eyes.clamp(0, 1) * (blur(inside, 6 * scale) > 0.5)))


def _fine_normals(batch: EditBatch, smooth: Tensor, light: Tensor) -> Tensor:
    """Normals bent by the picture's relief, bright being high: cloth and hair most, paint (brows, lips, eyes) least."""
    scale = unit(batch)
    depth = (
        0.9 * region(batch, "skin")
        + 1.6 * region(batch, "hair")
        + 2.6 * region(batch, "clothes")
        + 0.5 * (region(batch, "lips") + region(batch, "brows"))
    )
    depth = blur(depth, 2 * scale)
    fine, broad = slope(light, max(0.7, 1.0 * scale)), slope(light - blur(light, 14 * scale), 3.0 * scale)
    bend = depth / scale * (0.55 * fine + 2.2 * broad)
    length = bend.square().sum(1, keepdim=True).clamp_min(1e-9).sqrt()
    bend = bend * (0.6 * torch.tanh(length / 0.6) / length)  # an edge of paint is not a cliff
    return normalise(smooth - torch.cat([bend, torch.zeros_like(light)], 1))


def _outline(batch: EditBatch) -> Tensor:
    """The edge that a lamp behind the person catches: thin, and inside."""
    scale = unit(batch)
    wide = blur(batch.alpha, 7 * scale)
    near = smoothstep(1.02, 0.5, wide) ** 1.5 * smoothstep(0.05, 0.6, batch.alpha)
    way = -slope(batch.alpha, 6 * scale)
    way = way / way.square().sum(1, keepdim=True).sqrt().clamp_min(1e-3)
    return torch.cat([near * way, near], 1)


def _corneas(batch: EditBatch, light: Tensor) -> Tensor:
    """Balls around the darkest part of each eye."""
    scale, eyes = unit(batch), region(batch, "eyes")
    where = pixels(batch).expand(len(eyes), -1, -1, -1)
    radius = 0.4 * (eyes.sum((1, 2, 3), keepdim=True) / 2).sqrt().clamp_min(1.0)
    dark = eyes * (1.05 - light).clamp_min(0) ** 3
    away = (where - masked_blur(where, dark + 1e-5, 9 * scale)) / radius
    return normalise(torch.cat([away, torch.ones_like(eyes)], 1))


def _strands(batch: EditBatch, light: Tensor) -> Tensor:
    """Along which way the picture changes least, from the structure tensor."""
    scale = unit(batch)
    x, y = gradient(blur(light, max(0.7, 1.0 * scale)))
    tensor = blur(torch.cat([x * x, y * y, x * y], 1), 3.5 * scale)
    xx, yy, xy = tensor[:, :1], tensor[:, 1:2], tensor[:, 2:]
    angle = 0.5 * torch.atan2(2 * xy, xx - yy) + torch.pi / 2
    sure = ((xx - yy).square() + 4 * xy.square()).sqrt() / (xx + yy + 1e-5)
    return sure * torch.cat([torch.cos(angle), torch.sin(angle)], 1)
