"""Materials: the person as a statue of bronze, marble, ice, …, shaded from the tracked normals under a painted studio.

A tone is made from the normals (diffuse light, or the reflection of a procedural studio for metals) and multiplied by the picture's relief,
so that lids, lips, wrinkles and strands stay readable; a colour ramp turns tone into colour; textures live in the person's coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, oklab_of, smoothstep
from .surface import bumped, coordinates, detail, lightness, masked_blur, noise, normals, region, unit

Ramp = tuple[tuple[float, str], ...]  # tone and colour, ascending


@dataclass(frozen=True)
class Material:
    """How a material answers light.

    Attributes:
        ramp: colour by tone.
        metal: share of reflection in the tone, the rest is diffuse.
        relief: exponent of the picture's relief.
        bump: how much the picture's relief bends the normals.
        gloss: strength of the highlights, with their sharpness.
        rim: light gained towards grazing angles.
        texture: name of the surface texture, or "".
        depth: how much of the source's own light and shade shows through: it draws the features, and mirrors need it most.
        contrast: of that light and shade.
    """

    ramp: Ramp
    metal: float = 0.0
    relief: float = 1.0
    bump: float = 2.0
    gloss: float = 0.2
    sharpness: float = 30.0
    rim: float = 0.0
    texture: str = ""
    depth: float = 0.25
    contrast: float = 1.0


METAL: Mapping[str, Any] = {
    "metal": 0.8,
    "relief": 0.85,
    "bump": 4.0,
    "gloss": 0.45,
    "sharpness": 24.0,
    "depth": 0.55,
    "contrast": 1.15,
}
MATERIALS: Mapping[str, Material] = {
    "bronze": Material(((0.0, "#120a06"), (0.25, "#3b2212"), (0.5, "#7d4e24"), (0.75, "#c08a45"), (1.0, "#ffe3ad")),
        texture="patina", **METAL),
    "copper": Material(((0.0, "#190806"), (0.25, "#541d10"), (0.5, "#a64a28"), (0.75, "#e08a5c"), (1.0, "#ffe0c8")),
        **METAL),
    "verdigris": Material(((0.0, "#0d2420"), (0.3, "#2f5f54"), (0.6, "#6fab98"), (1.0, "#d6efe2")),
        texture="verdigris", gloss=0.08, bump=3.0),
    "gold": Material(((0.0, "#2a1402"), (0.22, "#7a4a06"), (0.48, "#c98f14"), (0.75, "#f7cf52"), (1.0, "#fffbe0")),
        **METAL),
    "silver": Material(((0.0, "#0f1114"), (0.3, "#4b4f56"), (0.55, "#90959c"), (0.8, "#cfd3d8"), (1.0, "#ffffff")),
        **METAL),
    "chrome": Material(((0.0, "#04060a"), (0.28, "#2a3442"), (0.52, "#7f8fa3"), (0.78, "#d6e2ee"), (1.0, "#ffffff")),
                       metal=1.0, relief=0.9, bump=5.0, gloss=0.55, sharpness=60.0,
                       depth=0.68, contrast=1.7),
    "iron": Material(((0.0, "#08090a"), (0.3, "#25272a"), (0.6, "#54575b"), (0.85, "#8d9094"), (1.0, "#d0d2d4")),
        texture="pitted",
                     **{**METAL, "gloss": 0.25}),
    "marble": Material(((0.0, "#4b4a4e"), (0.3, "#8d8a8b"), (0.6, "#cdc9c5"), (0.85, "#f1eeea"), (1.0, "#ffffff")),
        texture="veins", gloss=0.14,
                       relief=0.8, bump=2.2),
    "stone": Material(((0.0, "#26241f"), (0.3, "#5a564d"), (0.6, "#928c80"), (0.85, "#beb8ab"), (1.0, "#e6e1d6")),
        texture="grit", gloss=0.0, bump=3.0),
    "obsidian": Material(((0.0, "#020203"), (0.45, "#101116"), (0.7, "#2c2f3a"), (0.88, "#858da0"), (1.0,
        "#ffffff")), metal=0.9, relief=0.75,
                         bump=4.0, gloss=0.9, sharpness=50.0),
    "jade": Material(((0.0, "#062a1c"), (0.3, "#17603f"), (0.6, "#43a374"), (0.85, "#93d9b0"), (1.0, "#eafff2")),
        texture="clouds", gloss=0.4,
                     sharpness=45.0, rim=0.22, relief=0.75),
    "wood": Material(((0.0, "#1e0f06"), (0.3, "#54300f"), (0.6, "#9a6530"), (0.85, "#cf9d5e"), (1.0, "#f0d3a0")),
        texture="rings", gloss=0.12, bump=2.5),
    "clay": Material(((0.0, "#3a150a"), (0.3, "#7c3a22"), (0.6, "#bd6c48"), (0.85, "#dd9a75"), (1.0, "#f5cbb0")),
        texture="thumbs", gloss=0.06),
    "plaster": Material(((0.0, "#5b5a58"), (0.3, "#9d9b97"), (0.6, "#d5d2cc"), (0.85, "#f0eee9"), (1.0, "#fdfcfa")),
        texture="pitted", gloss=0.0),
    "porcelain": Material(((0.0, "#4d5360"), (0.3, "#9aa0ab"), (0.6, "#dcdfe4"), (0.85, "#f6f7f9"), (1.0,
        "#ffffff")), gloss=0.7, sharpness=70.0,
                          rim=0.1, relief=0.75, bump=1.6),
    "ice": Material(((0.0, "#0b3a63"), (0.25, "#1f6aa3"), (0.52, "#66b2dc"), (0.78, "#c6e9f7"), (1.0, "#ffffff")),
        metal=0.45, texture="cracks",
                    gloss=0.9, sharpness=60.0, rim=0.45, bump=7.0, relief=1.15),
    "glass": Material(((0.0, "#0f2a2c"), (0.3, "#4e7f82"), (0.55, "#a4cfcf"), (0.8, "#def3f0"), (1.0, "#ffffff")),
        metal=0.75, gloss=1.0,
                      sharpness=90.0, rim=0.55, bump=7.0, relief=0.6),
    "wax": Material(((0.0, "#5c3416"), (0.3, "#a8743a"), (0.6, "#e2bd83"), (0.85, "#f7e3ba"), (1.0, "#fffaf0")),
        gloss=0.3, sharpness=20.0, rim=0.2,
                    relief=0.7, bump=1.2),
    "chocolate": Material(((0.0, "#120703"), (0.3, "#34180c"), (0.6, "#63341b"), (0.85, "#8f5a37"), (1.0,
        "#d9b08c")), gloss=0.5, sharpness=22.0, bump=2.5),
    "plastic": Material(((0.0, "#5a2b20"), (0.3, "#a9634f"), (0.6, "#e3a58c"), (0.85, "#f8d0bd"), (1.0, "#ffffff")),
        gloss=0.75, sharpness=55.0,
                        relief=0.6, bump=1.2),
}  # fmt: skip


def material(batch: EditBatch, mask: Tensor, name: str) -> Tensor:
    """The whole picture [B, 3, H, W] in a material, to be masked; ``mask`` [B, 1, H, W] is where it will show."""
    kind = MATERIALS[name]
    light = lightness(batch.source)
    smooth = normals(batch)
    normal = bumped(batch, smooth, light, kind.bump)
    tone = torch.lerp(_diffuse(smooth), _studio(normal), kind.metal)
    own = 0.35 + kind.contrast * (light - _level(batch, light, mask))
    hollow = region(batch, "mouth")  # an open mouth is dark in any material, and neither bulges nor shines
    tone = torch.lerp(tone, own, torch.maximum(torch.full_like(hollow, kind.depth), hollow))
    tone = tone * detail(batch, mask, light=light) ** kind.relief
    tone, tint = _texture(kind.texture, coordinates(batch), tone, normal)
    solid = 1 - hollow
    tone = tone + solid * kind.rim * (1 - normal[:, 2:]).clamp(0, 1) ** 2.5
    key = _lobe(_dot(normal, (-0.32, -0.42, 0.85)) - 1, kind.sharpness)
    tone = tone + solid * kind.gloss * (key + 0.4 * _lobe(_dot(normal, (0.55, -0.1, 0.83)) - 1, 1.5 * kind.sharpness))
    # a shoulder instead of a clip, so that highlights keep their shape
    tone = torch.where(tone > 0.75, 0.75 + 0.25 * torch.tanh((tone - 0.75) / 0.25), tone.clamp_min(0))
    # what lies within the mouth takes no weather
    return from_oklab(_ramp(kind.ramp, tone) + tint * (solid - region(batch, "teeth")).clamp_min(0))


def _level(batch: EditBatch, light: Tensor, mask: Tensor) -> Tensor:
    return masked_blur(light, mask.clamp_min(1e-3), 60 * unit(batch))


def _dot(normal: Tensor, direction: tuple[float, float, float]) -> Tensor:
    vector = torch.tensor(direction, dtype=normal.dtype, device=normal.device)
    return (normal * (vector / vector.norm()).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _lobe(distance: Tensor, sharpness: float) -> Tensor:
    """exp(sharpness * distance), cut before it reaches the denormal numbers, which are slow."""
    return torch.exp((sharpness * distance).clamp_min(-20))


def _diffuse(normal: Tensor) -> Tensor:
    """Soft key light from the upper left, sky from above."""
    key = (_dot(normal, (-0.55, -0.6, 0.6)) * 0.75 + 0.25).clamp_min(0)
    sky = 0.5 - 0.5 * normal[:, 1:2]
    return 0.12 + 0.55 * key + 0.22 * sky


def _studio(normal: Tensor) -> Tensor:
    """Brightness of a studio seen in the surface: bright ceiling, dark horizon, warm floor, a window left and a strip light right."""
    reflected = 2 * normal[:, 2:] * normal
    across, up = reflected[:, :1], -reflected[:, 1:2]
    room = (
        0.38
        + 0.28 * smoothstep(-0.3, 0.9, up)
        - 0.14 * _lobe(-(((up + 0.25) / 0.22) ** 2), 1.0)
        + 0.06 * smoothstep(0.35, 0.95, -up)
    )
    window = 0.45 * _lobe(-(((across + 0.5) / 0.3) ** 2) - ((up - 0.35) / 0.4) ** 2, 1.0)
    strip = 0.30 * _lobe(-(((across - 0.75) / 0.14) ** 2), 1.0)
    return room + window + strip - 0.14 * smoothstep(0.2, 0.6, across) * (1 - strip)


def _ramp(ramp: Ramp, tone: Tensor) -> Tensor:
    """OKLab [B, 3, H, W] of a tone [B, 1, H, W]."""
    stops = [(place, oklab_of(tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)), tone)) for place, code in ramp]  # type: ignore[arg-type]
    result = stops[0][1].expand(len(tone), 3, *tone.shape[-2:])
    for (low, _), (high, colour) in pairwise(stops):
        result = torch.lerp(result, colour.expand_as(result), ((tone - low) / (high - low)).clamp(0, 1))
    return result


def _texture(name: str, where: Tensor, tone: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Tone with the texture in it, and a tint to add in OKLab, [B, 3, H, W]."""
    none = torch.zeros((1, 3, 1, 1), dtype=tone.dtype, device=tone.device)

    def tint(light: float, a: float, b: float, amount: Tensor) -> Tensor:
        return torch.tensor([light, a, b], dtype=tone.dtype, device=tone.device).view(1, 3, 1, 1) * amount

    if name == "patina":  # green in the hollows, where no hand polishes
        hollow = 0.8 * smoothstep(0.5, 0.2, tone) * smoothstep(0.1, 1.8, noise(where, 0.4))
        return tone * (1 + 0.05 * noise(where, 1.3)), tint(0.10, -0.065, -0.03, hollow)
    if name == "verdigris":
        brown = smoothstep(0.6, 1.8, noise(where, 0.45) + 0.5 * noise(where + 3.1, 1.1)) * (0.4 + tone)
        return tone * (1 + 0.07 * noise(where, 1.0)), tint(-0.16, 0.07, 0.05, brown)
    if name == "veins":
        bend = torch.cat([noise(where, 0.25), noise(where + 5.3, 0.25)], 1)
        x, y = (where + 0.10 * bend).unbind(1)
        thick = 1 - torch.sin(torch.pi * (0.9 * x + 0.6 * y + 0.5 * noise(where, 0.06)[:, 0])).abs()[:, None] / 0.16
        thin = (
            1 - torch.sin(torch.pi * (1.3 * x - 1.9 * y + 0.7 * noise(where + 2.7, 0.07)[:, 0])).abs()[:, None] / 0.07
        )
        fade = smoothstep(-0.9, 1.0, noise(where + 1.1, 0.12))
        grey = (
            thick.clamp(0, 1) ** 1.6 * fade
            + 0.5 * thin.clamp(0, 1) ** 1.5 * (1 - fade)
            + 0.12 * smoothstep(-0.5, 2.0, noise(where, 0.15))
        )
        return (tone - 0.5) * 1.25 + 0.55 - 0.16 * grey, tint(-0.07, -0.002, -0.008, grey)
    if name == "grit":
        return tone * (1 + 0.10 * noise(where, 1.2, rough=True) + 0.06 * noise(where, 0.4)), none
    if name == "pitted":
        return tone * (1 + 0.045 * noise(where, 1.2, rough=True)), none
    if name == "clouds":
        cloud = noise(where, 0.22)
        return tone * (1 + 0.06 * cloud), tint(0.03, 0.012, 0.022, cloud)
    if name == "rings":  # a trunk along the vertical of the surface coordinates, bent by noise
        along = where * torch.tensor([1.0, 0.35], dtype=where.dtype, device=where.device).view(1, 2, 1, 1)
        radius = along.square().sum(1, keepdim=True).sqrt() + 0.05 * noise(where, (0.25, 0.08))
        phase = radius * 26
        ring = 0.5 + 0.5 * torch.sin(2 * torch.pi * phase / 2.2)
        fibre = noise(where, (2.2, 0.12), rough=True)
        return tone * (1 - 0.20 * ring**3 + 0.05 * fibre), tint(-0.02, 0.01, 0.008, ring**3)
    if name == "thumbs":
        return tone * (1 + 0.05 * noise(where, 0.5) + 0.02 * noise(where, 1.3, rough=True)), none
    if name == "cracks":
        bend = torch.cat([noise(where, 0.4), noise(where + 5.3, 0.4)], 1)
        crack = (1 - noise(where + 0.1 * bend, 0.25).abs() / 0.045).clamp(0, 1)
        frost = smoothstep(0.4, 1.8, noise(where + 1.7, 0.4))
        return tone + 0.16 * crack**2 + 0.06 * noise(where, 0.35), tint(0.05, 0.004, 0.012, frost)
    return tone, none
