"""Light as numbers: second-order spherical harmonics, their estimate from skin, and what lamps do to a surface.

Directions and normals have x to the right of the picture, y down and z towards the camera; all light is linear.
The irradiance formula is that of Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", 2001.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from .surface import blur, normalise

Colour = tuple[float, float, float]
LUMINANCE = (0.2126, 0.7152, 0.0722)
# what a cosine lobe leaves of each coefficient, over pi
LOBE = (1.0, *(2 / 3,) * 3, *(1 / 4,) * 5)
# how loath the estimate is to leave even light, by order, as a share of all evidence
RELUCTANCE = (0.0, *(0.0018,) * 3, *(0.008,) * 5)
ROUNDS = 5
DEVIATION = 0.18  # of skin from a single albedo, relative; what lies further off counts less
TINT = 0.3  # of an estimate's colours, the part that is not believed
BALANCE = 0.72  # what a camera's white balance leaves of a lamp's colour
EXPOSURE = (
    1.5  # what a lamp of intensity 1 gives where the clip's own light gives 1: key lights are brighter than averages
)
STEPS = 28  # of a shadow ray


class Light(NamedTuple):
    """A lamp far away.

    Attributes:
        direction: unit vector to the lamp.
        colour: linear RGB, about 1.
        intensity: 1 is a key light, `EXPOSURE` times as bright as the clip's own light on average.
        softness: 0 for a bare bulb, 1 for a whole bright wall.
        grazing: how much of it only edges catch, as from a lamp behind the person.
    """

    direction: Colour
    colour: Colour
    intensity: float
    softness: float
    grazing: float = 0.0


def luminance(linear: Tensor) -> Tensor:
    """[B, 1, ...] of linear RGB [B, 3, ...]."""
    red, green, blue = LUMINANCE
    return red * linear[:, :1] + green * linear[:, 1:2] + blue * linear[:, 2:3]


def harmonics(normals: Tensor) -> Tensor:
    """The nine real spherical harmonics [B, 9, ...] up to order two at unit vectors [B, 3, ...]."""
    x, y, z = normals[:, 0], normals[:, 1], normals[:, 2]
    return torch.stack(
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        1,
    )


def shade(coefficients: Tensor, normals: Tensor) -> Tensor:
    """Irradiance over pi [B, C, ...] of light ``coefficients`` [B or 1, 9, C] on unit ``normals`` [B, 3, ...]."""
    lobe = coefficients.new_tensor(LOBE).view(1, 9, 1)
    return torch.einsum("bk...,bkc->bc...", harmonics(normals), (coefficients * lobe).expand(len(normals), -1, -1))


def project(colours: Tensor, directions: Tensor, weights: Tensor) -> Tensor:
    """Coefficients [1, 9, 3] of light that comes as ``colours`` [N, 3] from unit ``directions`` [N, 3], ``weights`` [N] steradians each."""
    basis = harmonics(directions.T[None])[0]
    return ((basis * weights) @ colours)[None]


@functools.cache
def front_directions() -> Tensor:
    """Unit vectors [1, 3, N] spread evenly over the half of the sphere that faces the camera."""
    count = 256
    index = torch.arange(count, dtype=torch.float32) + 0.5
    z, turn = index / count, index * math.pi * (3 - math.sqrt(5))
    around = (1 - z * z).sqrt()
    return torch.stack([around * torch.cos(turn), around * torch.sin(turn), z])[None]


def estimate_light(linear: Tensor, normals: Tensor, weights: Tensor) -> Tensor:
    """The light [B, 9, 3] that skin of one albedo shows, each frame by itself.

    Least squares per frame and channel, reweighted so that spots of another albedo, shadows and glints count little, and drawn towards even
    light where the evidence is thin. Its irradiance averages 1 per channel over all directions that face the camera: what is left
    out, brightness and colour, belongs to the albedo.

    Args:
        linear: [B, 3, H, W] linear RGB.
        normals: [B, 3, H, W] unit.
        weights: [B, 1, H, W] how surely a pixel is plain skin, in [0, 1]; even light is returned where there is next to none.
    """
    batch = len(linear)
    basis = (harmonics(normals) * linear.new_tensor(LOBE).view(1, 9, 1, 1)).flatten(2)  # [B, 9, P]
    values, trust = linear.flatten(2), weights.flatten(2)
    area = trust.sum(2, keepdim=True)
    mean = (values * trust).sum(2, keepdim=True) / area.clamp_min(1e-6)
    values = values / mean.clamp_min(1e-4)
    even = linear.new_zeros(9)
    even[0] = 1 / 0.282095
    ridge = torch.diag(linear.new_tensor(RELUCTANCE))
    count = area.clamp_min(1.0)
    robust = trust
    solution = even.view(1, 9, 1).expand(batch, 9, 3)
    for _ in range(ROUNDS):
        weighted = basis * robust
        left = weighted @ basis.transpose(1, 2) / count + ridge + 1e-6 * torch.eye(9).to(ridge)
        right = weighted @ values.transpose(1, 2) / count + 1e-6 * even.view(1, 9, 1)
        solution = torch.linalg.solve(left, right)
        fitted = torch.einsum("bkp,bkc->bcp", basis, solution)
        error = ((values - fitted) / fitted.clamp_min(0.1)).square().mean(1, keepdim=True)
        robust = trust / (1 + error / DEVIATION**2)
    # a little more red here and there is more likely skin than light
    grey = solution.mean(2, keepdim=True)
    tint = solution - grey
    strength = tint[:, 1:].square().sum((1, 2), keepdim=True).sqrt()
    solution = grey + tint * (1 - TINT / strength.clamp_min(1e-6)).clamp_min(0)
    level = shade(solution, front_directions().to(linear).expand(batch, -1, -1)).mean(2)
    known = (area[:, 0] > 64) & (level > 0.05).all(1, keepdim=True)
    return torch.where(known[..., None], solution / level[:, None].clamp_min(0.05), even.view(1, 9, 1))


def diffuse(normals: Tensor, light: Light, scatter: Tensor | None = None) -> Tensor:
    """What a lamp gives a matt surface, [B, 1, H, W], or [B, 3, H, W] with ``scatter`` [B, 3, H, W].

    A wide lamp reaches round the edge (the cosine wraps); in skin and hair light walks a little, red furthest, which ``scatter`` says.
    """
    toward = normals.new_tensor(light.direction).view(1, 3, 1, 1)
    cosine = (normals * toward).sum(1, keepdim=True)
    wrap = 0.65 * light.softness + (0 if scatter is None else scatter)
    lit = ((cosine + wrap) / (1 + wrap)).clamp_min(0)
    return lit ** (1 + wrap) if isinstance(wrap, Tensor) else lit ** (1.0 + wrap)


def glint(normals: Tensor, light: Light, roughness: float) -> Tensor:
    """Mirror light [B, 1, H, W] of a lamp seen from the camera: a Blinn lobe with Schlick's Fresnel term, about 1 at its peak."""
    x, y, z = light.direction
    half = functional.normalize(torch.tensor([x, y, z + 1.0]), dim=0)
    wide = roughness + 0.35 * light.softness * roughness**0.5
    power = 2 / wide**4
    cosine = (normals * half.to(normals).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    fresnel = 1 + 12 * (1 - max(float(half[2]), 0.0)) ** 5
    facing = (normals * normals.new_tensor(light.direction).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return fresnel * cosine**power * (facing / 0.15).clamp(0, 1)


def strand_glint(strands: Tensor, normals: Tensor, light: Light) -> Tensor:
    """Mirror light [B, 1, H, W] along hair (Kajiya and Kay, 1989), about 1 at its peak; ``strands`` as in `relief.Relief`."""
    sure = strands.square().sum(1, keepdim=True).clamp_min(1e-9).sqrt()
    flat = torch.cat([strands / sure, torch.zeros_like(sure)], 1)
    along = normalise(flat - normals * (flat * normals).sum(1, keepdim=True))
    x, y, z = light.direction
    half = functional.normalize(torch.tensor([x, y, z + 1.0]), dim=0).to(normals).view(1, 3, 1, 1)
    across = 1 - (along * half).sum(1, keepdim=True).square()
    facing = (normals * normals.new_tensor(light.direction).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return sure * across.clamp(0, 1) ** (24 - 14 * light.softness) * ((facing + 0.2) / 0.6).clamp(0, 1)


def edge_light(normals: Tensor, outline: Tensor, light: Light) -> Tensor:
    """What grazes edges [B, 1, H, W] on the side of a lamp behind the person, all round for one right behind.

    ``outline`` is as in `relief.Relief`.
    """
    x, y, _ = light.direction
    around = 0.6 * (1 - math.hypot(x, y))
    side = (x * normals[:, :1] + y * normals[:, 1:2] + around * (1 - normals[:, 2:])).clamp_min(0)
    inner = side * (1 - normals[:, 2:]).clamp(0, 1) ** 1.5
    rim = x * outline[:, :1] + y * outline[:, 1:2] + around * outline[:, 2:]
    return torch.maximum(1.2 * rim.clamp_min(0), inner)


def cast_shadow(height: Tensor, light: Light, size: tuple[int, int]) -> Tensor:
    """How much of a lamp each place sees past the rest of the person, [B, 1, *size] in [0, 1].

    Rays are marched over the ``height`` field [B, 1, N, M] (in heights of the picture); the nearer they pass to what stands in their way,
    for its distance and the lamp's size, the less light gets by. A lamp behind the person reaches what nothing hides on its side.
    """
    x, y, z = light.direction
    across = math.hypot(x, y)
    grid = height.shape[-2]
    if across < 0.05:
        return height.new_ones(len(height), 1, *size)
    rise = max(z, 0.03) / across
    spread = 0.10 + 0.75 * light.softness + 0.6 * light.grazing  # tangent of the lamp's half angle, softened
    reach = 0.55 * grid
    seen = torch.ones_like(height)
    for step in range(STEPS):
        distance = 1.2 * (reach / 1.2) ** (step / (STEPS - 1))  # cells
        there = _shifted(height, x / across * distance, y / across * distance)
        far = distance / grid
        clearance = height + rise * far + 0.004 - there
        seen = torch.minimum(seen, 0.5 + clearance / (2 * spread * far + 0.012))
    seen = seen.clamp(0, 1)
    seen = blur(seen * seen * (3 - 2 * seen), 0.7)
    return functional.interpolate(seen, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def _shifted(image: Tensor, x: float, y: float) -> Tensor:
    """``image`` looked at (x, y) pixels further, linear between pixels, deep outside."""
    left, top = math.floor(x), math.floor(y)
    right, down = x - left, y - top
    height, width = image.shape[-2:]
    margin = max(abs(left), abs(top)) + 1
    padded = functional.pad(image, (margin,) * 4, value=-2.0)

    def at(dx: int, dy: int) -> Tensor:
        return padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]

    across_top = (1 - right) * at(left, top) + right * at(left + 1, top)
    across_bottom = (1 - right) * at(left, top + 1) + right * at(left + 1, top + 1)
    return (1 - down) * across_top + down * across_bottom


def blackbody(kelvin: float) -> Colour:
    """Linear RGB of a glowing body of 1000 to 15000 K as a camera sees it that is balanced for 5500 K and meets the lamp part of the way.

    The brightest channel is 1. Planck's locus by the fits of Kim et al. (US patent 7024034, 2002).
    """
    white, colour = _planck(5500.0), _planck(min(max(kelvin, 1000.0), 15000.0))
    ratio = [(max(a, 0.0) / b) ** BALANCE for a, b in zip(colour, white, strict=True)]
    red, green, blue = (value / max(ratio) for value in ratio)
    return red, green, blue


def _planck(kelvin: float) -> Colour:
    kelvin = max(kelvin, 1667.0) if kelvin >= 1667 else 1667.0 - 0.35 * (1667.0 - kelvin)
    t = 1e3 / kelvin
    if kelvin <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    big, small = x / y, (1 - x - y) / y
    red = 3.2404542 * big - 1.5371385 - 0.4985314 * small
    green = -0.9692660 * big + 1.8760108 + 0.0415560 * small
    return red, green, 0.0556434 * big - 0.2040259 + 1.0572252 * small
