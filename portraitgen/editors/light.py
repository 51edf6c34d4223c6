"""Moods of light, and looks that are a matter of tone and colour: film, sepia, noir, neon, hologram, thermal, …

Light falls on the person by the normals, in linear light; tone curves are fixed, so that nothing flickers from frame to frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, oklab_of, smoothstep, to_linear, to_oklab, to_srgb
from .relief import relief
from .surface import (
    blur,
    bumped,
    carried,
    coordinates,
    lightness,
    masked_blur,
    noise,
    normals,
    pixels,
    region,
    unit,
)

Colour = tuple[float, float, float]


class Mood(NamedTuple):
    """A light: ambient colour, key colour and where it comes from, rim colour and side, what the background gets, colourfulness, haze."""

    ambient: Colour
    key: Colour
    direction: Colour
    background: Colour
    rim: Colour = (0.0, 0.0, 0.0)
    rim_direction: Colour = (0.9, -0.3, 0.1)
    saturation: float = 1.0
    haze: float = 0.0
    haze_colour: Colour = (0.8, 0.8, 0.8)
    contrast: float = 1.0


MOODS: Mapping[str, Mood] = {
    "night": Mood((0.10, 0.14, 0.28), (0.30, 0.40, 0.72), (-0.6, -0.6, 0.5), (0.07, 0.10, 0.22), (0.20, 0.28, 0.5),
        saturation=0.6),
    "moonlight": Mood((0.12, 0.17, 0.30), (0.55, 0.70, 1.05), (0.5, -0.8, 0.4), (0.10, 0.15, 0.30), (0.35, 0.45,
        0.75), (-0.9, -0.4, 0.1), 0.45),
    "sunset": Mood((0.42, 0.26, 0.34), (1.35, 0.62, 0.22), (-0.9, -0.15, 0.45), (0.95, 0.48, 0.34), (0.8, 0.3, 0.08),
        (0.9, -0.2, 0.1), 1.15),
    "golden hour": Mood((0.50, 0.40, 0.30), (1.15, 0.82, 0.42), (-0.75, -0.4, 0.55), (0.98, 0.78, 0.50), (0.75, 0.5,
        0.18), saturation=1.1,
                        haze=0.05, haze_colour=(1.0, 0.8, 0.5)),
    "candlelight": Mood((0.07, 0.035, 0.02), (1.35, 0.66, 0.20), (-0.25, 0.75, 0.6), (0.14, 0.06, 0.025),
        saturation=1.05),
    "sunny": Mood((0.55, 0.58, 0.64), (0.85, 0.80, 0.68), (-0.4, -0.8, 0.45), (1.12, 1.10, 1.02), (0.3, 0.28, 0.22),
        saturation=1.2),
    "overcast": Mood((0.62, 0.66, 0.70), (0.20, 0.21, 0.22), (0.0, -1.0, 0.3), (0.66, 0.70, 0.74), saturation=0.5,
        haze=0.16,
                     haze_colour=(0.62, 0.65, 0.68)),
    "winter": Mood((0.66, 0.76, 0.92), (0.42, 0.46, 0.52), (-0.2, -0.9, 0.4), (0.86, 0.98, 1.15), (0.3, 0.36, 0.45),
        saturation=0.55, haze=0.12,
                   haze_colour=(0.82, 0.88, 0.95)),
    "underwater": Mood((0.05, 0.30, 0.36), (0.18, 0.75, 0.80), (0.1, -1.0, 0.25), (0.04, 0.30, 0.40), (0.05, 0.3,
        0.3), saturation=0.6, haze=0.10,
                       haze_colour=(0.02, 0.35, 0.42)),
    "blue hour": Mood((0.22, 0.30, 0.58), (0.35, 0.45, 0.80), (0.4, -0.6, 0.6), (0.20, 0.30, 0.65), (0.25, 0.3, 0.5),
        saturation=0.8),
    "red light": Mood((0.22, 0.01, 0.01), (1.15, 0.06, 0.04), (-0.5, -0.4, 0.7), (0.34, 0.02, 0.02), (0.5, 0.02,
        0.02), saturation=0.25),
    "green light": Mood((0.03, 0.16, 0.06), (0.12, 0.95, 0.30), (-0.4, -0.6, 0.6), (0.04, 0.30, 0.10), (0.05, 0.5,
        0.15), saturation=0.35),
    "purple light": Mood((0.20, 0.07, 0.32), (0.95, 0.18, 0.85), (-0.8, -0.3, 0.5), (0.26, 0.10, 0.42), (0.15, 0.25,
        1.1), saturation=0.7),
    "dramatic": Mood((0.07, 0.07, 0.08), (1.45, 1.36, 1.24), (-0.85, -0.5, 0.35), (0.16, 0.16, 0.18), (0.15, 0.15,
        0.17), saturation=0.95, contrast=1.1),
    "horror": Mood((0.05, 0.08, 0.06), (0.75, 0.95, 0.62), (0.1, 0.95, 0.35), (0.07, 0.11, 0.09), saturation=0.45,
        contrast=1.15),
    "studio": Mood((0.72, 0.72, 0.73), (0.42, 0.41, 0.40), (-0.35, -0.55, 0.75), (0.95, 0.95, 0.96), (0.14, 0.14,
        0.14), saturation=1.05),
    "warm light": Mood((0.62, 0.48, 0.34), (0.62, 0.46, 0.26), (-0.5, -0.5, 0.6), (0.92, 0.68, 0.42), saturation=1.05),
    "cool light": Mood((0.55, 0.68, 0.86), (0.40, 0.50, 0.62), (0.5, -0.5, 0.6), (0.62, 0.80, 1.05), saturation=0.85),
}  # fmt: skip


def _vector(values: Colour, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)


def facing(normal: Tensor, direction: Colour, wrap: float = 0.25) -> Tensor:
    """Light [B, 1, H, W] that a surface gets from a direction, softened by ``wrap``."""
    vector = _vector(direction, normal)
    cosine = (normal * vector / vector.norm()).sum(1, keepdim=True)
    return ((cosine + wrap) / (1 + wrap)).clamp_min(0)


def rim_light(normal: Tensor, direction: Colour) -> Tensor:
    """Light [B, 1, H, W] that grazes the outline from behind on one side."""
    return (1 - normal[:, 2:]).clamp(0, 1) ** 1.8 * facing(normal, (direction[0], direction[1], 0.0), 0.0) * 1.6


def mood(batch: EditBatch, image: Tensor, name: str) -> Tensor:
    """The whole picture [B, 3, H, W] in another light."""
    kind = MOODS[name]
    normal = bumped(batch, relief(batch).smooth, lightness(image), 1.5)
    lab = to_oklab(image)
    lab = torch.cat([lab[:, :1], lab[:, 1:] * kind.saturation], 1)
    linear = to_linear(from_oklab(lab))
    key = facing(normal, kind.direction) ** 1.25
    person = (
        _vector(kind.ambient, image)
        + _vector(kind.key, image) * key
        + _vector(kind.rim, image) * rim_light(normal, kind.rim_direction) * 1.5
    )
    linear = linear * torch.lerp(_vector(kind.background, image).expand_as(person), person, batch.alpha)
    if name == "underwater":
        bend = noise(coordinates(batch), 0.35)
        linear = linear * (
            1 + 0.8 * (1 - bend.abs() / 0.35).clamp(0, 1) ** 2 * facing(normal, (0.0, -1.0, 0.4)) * batch.alpha
        )
    linear = torch.lerp(linear, _vector(kind.haze_colour, image).expand_as(linear), kind.haze * (1 - 0.5 * batch.alpha))
    out = to_srgb(1 - torch.exp(-1.15 * linear * (1 + 0.35 * linear)))
    return ((out - 0.45) * kind.contrast + 0.45).clamp(0, 1) if kind.contrast != 1 else out


def _split(image: Tensor, shadows: Colour, lights: Colour, amount: float) -> Tensor:
    """Split toning: the chroma of two colours added to shadows and lights."""
    lab = to_oklab(image)
    tone = smoothstep(0.15, 0.85, lab[:, :1])
    chroma = torch.lerp(
        oklab_of(shadows, lab)[:, 1:].expand_as(lab[:, 1:]), oklab_of(lights, lab)[:, 1:].expand_as(lab[:, 1:]), tone
    )
    return from_oklab(torch.cat([lab[:, :1], lab[:, 1:] + amount * chroma], 1))


def film(batch: EditBatch, image: Tensor) -> Tensor:
    lab = to_oklab(image)
    light = lab[:, :1]
    light = 0.09 + 0.86 * (light + 0.18 * (light - 0.5) * (1 - (2 * light - 1).square()))
    glow = (blur(light, 9 * unit(batch)) - 0.68).clamp_min(0)
    grain = 0.013 * noise(coordinates(batch), 1.8, rough=True) * (1 - (2 * light - 1).abs() ** 2)
    toned = from_oklab(torch.cat([light + grain + 0.25 * glow, lab[:, 1:] * 0.82], 1))
    return _split(toned, (0.05, 0.22, 0.30), (0.95, 0.72, 0.42), 0.28)


def sepia(batch: EditBatch, image: Tensor) -> Tensor:
    light = lightness(image)
    light = 0.16 + 0.82 * (light + 0.22 * (light - 0.5) * (1 - (2 * light - 1).square()))
    light = light + 0.010 * noise(coordinates(batch), 1.5, rough=True) + 0.012 * noise(coordinates(batch), 0.25)
    warm = 0.45 + 0.75 * (1 - (2 * light - 0.95).square()).clamp_min(0)
    return from_oklab(torch.cat([light, 0.017 * warm, 0.052 * warm], 1))


def black_and_white(batch: EditBatch, image: Tensor) -> Tensor:
    light = lightness(image)
    light = light + 0.30 * (light - 0.5) * (1 - (2 * light - 1).square())
    return from_oklab(torch.cat([light, 0 * light, 0 * light], 1))


def noir(batch: EditBatch, image: Tensor) -> Tensor:
    """Hard light from one side, deep blacks, a little silver glow."""
    light = lightness(image)
    normal = bumped(batch, normals(batch), light, 2.0)
    key = facing(normal, (-0.8, -0.45, 0.5), 0.05)
    fall = 0.42 + 0.95 * key + 0.35 * rim_light(normal, (0.9, -0.2, 0.1))
    light = light * torch.lerp(torch.full_like(light, 0.62), fall.clamp(0.25, 1.3), batch.alpha)
    light = smoothstep(0.10, 0.92, light) * 0.97 + 0.02
    light = (
        light
        + 0.22 * (blur(light, 8 * unit(batch)) - 0.6).clamp_min(0)
        + 0.012 * noise(coordinates(batch), 1.8, rough=True) * (1 - light)
    )
    return from_oklab(torch.cat([light.clamp(0, 1), 0 * light, -0.004 * (1 - light)], 1))


def neon(batch: EditBatch, image: Tensor) -> Tensor:
    """Night city: violet shadows, magenta light from the left, cyan from the right, glowing outlines."""
    light = lightness(image)
    normal = bumped(batch, normals(batch), light, 2.0)
    linear = to_linear(image)
    grey = linear.mean(1, keepdim=True)
    base = torch.lerp(grey.expand_as(linear), linear, 0.55)
    left, right = facing(normal, (-0.9, -0.2, 0.35), 0.1) ** 1.3, facing(normal, (0.9, -0.1, 0.35), 0.1) ** 1.3
    magenta, cyan = _vector((1.75, 0.12, 1.05), image), _vector((0.05, 1.05, 1.60), image)
    person = _vector((0.13, 0.09, 0.30), image) + 1.05 * magenta * left + 1.0 * cyan * right
    person = (
        person + 0.8 * magenta * rim_light(normal, (-0.9, -0.2, 0.1)) + 0.9 * cyan * rim_light(normal, (0.9, -0.2, 0.1))
    )
    behind = base * _vector((0.26, 0.10, 0.62), image) + (grey**1.5) * _vector((0.55, 0.03, 0.50), image)
    out = torch.lerp(behind, base * person + 0.02 * person, batch.alpha)
    bright = (out - 0.35).clamp_min(0)
    out = out + 0.55 * blur(bright, 6 * unit(batch)) + 0.45 * blur(bright, 22 * unit(batch))
    return to_srgb(1 - torch.exp(-1.7 * out))


def hologram(batch: EditBatch, image: Tensor) -> Tensor:
    light = lightness(image)
    normal = bumped(batch, normals(batch), light, 3.0)
    down = torch.where(batch.alpha > 0.5, carried(batch)[:, 1:] * 40, pixels(batch)[:, 1:] / unit(batch) / 4.5)
    line = 0.78 + 0.22 * torch.cos(2 * torch.pi * down)
    rim = (1 - normal[:, 2:]).clamp(0, 1) ** 1.5
    glow = (0.14 + 1.15 * light**1.3 + 0.8 * rim) * line
    person = glow * _vector((0.22, 0.80, 1.0), image) + 0.35 * (glow - 0.6).clamp_min(0)
    behind = image * _vector((0.10, 0.16, 0.26), image)
    out = torch.lerp(behind, person + 0.4 * behind, batch.alpha)
    return (out + 0.35 * blur((out - 0.4).clamp_min(0), 8 * unit(batch))).clamp(0, 1)


THERMAL = ((0.0, (0.02, 0.0, 0.18)), (0.25, (0.35, 0.02, 0.55)), (0.45, (0.85, 0.10, 0.35)), (0.65, (1.0, 0.48,
    0.05)), (0.85, (1.0, 0.88, 0.2)),
           (1.0, (1.0, 1.0, 0.92)))  # fmt: skip


def thermal(batch: EditBatch, image: Tensor) -> Tensor:
    """False colours by warmth: skin hot, hair and clothes cooler, the room cold."""
    light = blur(lightness(image), 3 * unit(batch))
    normal = normals(batch)
    warm = (
        0.55 * region(batch, "skin")
        + 0.62 * (region(batch, "lips") + region(batch, "mouth"))
        + 0.66 * region(batch, "eyes")
    )
    warm = (
        warm
        + 0.5 * region(batch, "brows")
        + 0.5 * region(batch, "teeth")
        + 0.22 * region(batch, "hair")
        + 0.30 * region(batch, "clothes")
    )
    heat = blur(warm, 3 * unit(batch)) + 0.30 * light + 0.14 * (normal[:, 2:] - 0.5) * batch.alpha - 0.02
    result = _vector(THERMAL[0][1], image).expand_as(image)
    for (low, _), (high, colour) in pairwise(THERMAL):
        result = torch.lerp(result, _vector(colour, image).expand_as(image), ((heat - low) / (high - low)).clamp(0, 1))
    return result


def night_vision(batch: EditBatch, image: Tensor) -> Tensor:
    light = lightness(image)
    light = 1 - (1 - light).clamp(0, 1) ** 1.5 + 0.03 * noise(coordinates(batch), 1.6, rough=True)
    light = light + 0.4 * (blur(light, 8 * unit(batch)) - 0.7).clamp_min(0)
    return (light.clamp(0, 1) ** 1.3 * _vector((0.28, 1.0, 0.34), image)).clamp(0, 1)


def negative(batch: EditBatch, image: Tensor) -> Tensor:
    return 1 - image


def blurred(batch: EditBatch, image: Tensor) -> Tensor:
    """A wide aperture: the background out of focus without the person's colours in it; the person, if asked for, softly."""
    behind = masked_blur(to_linear(image), (1 - batch.alpha).clamp_min(1e-3) ** 2, 13 * unit(batch))
    person = blur(to_linear(image), 5 * unit(batch))
    return to_srgb(torch.lerp(behind, person, smoothstep(0.3, 0.8, batch.alpha)))


def dream(batch: EditBatch, image: Tensor) -> Tensor:
    lab = to_oklab(image)
    soft = blur(lab, 9 * unit(batch))
    light = 1 - (1 - lab[:, :1]) * (1 - 0.6 * soft[:, :1].clamp(0, 1) ** 1.5)
    return _split(
        from_oklab(torch.cat([light, 0.9 * torch.lerp(lab[:, 1:], soft[:, 1:], 0.4)], 1)),
        (0.50, 0.35, 0.62),
        (1.0, 0.84, 0.74),
        0.45,
    )


TONES: Mapping[str, Callable[[EditBatch, Tensor], Tensor]] = {
    "film": film,
    "sepia": sepia,
    "noir": noir,
    "black and white": black_and_white,
    "neon": neon,
    "hologram": hologram,
    "thermal": thermal,
    "negative": negative,
    "night vision": night_vision,
    "blur": blurred,
    "dream": dream,
}
