"""The embedded relighting editor: the clip's own light is taken off the person and another is put on, without downloaded weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from . import EditBatch
from .colour import blend, smoothstep, to_linear, to_srgb
from .illumination import (
    EXPOSURE,
    Colour,
    Light,
    cast_shadow,
    diffuse,
    edge_light,
    estimate_light,
    glint,
    luminance,
    shade,
    strand_glint,
)
from .light_picture import picture_light
from .light_plan import Lighting
from .light_words import parse_light
from .relief import Relief, relief
from .surface import blur, coordinates, noise, region, unit

OWN_LIMITS = (0.5, 1.7)  # how dark and bright the clip's own light may be said to be
SCATTER: Colour = (0.13, 0.06, 0.045)  # how far red, green and blue walk in skin, as a wrap of the cosine
MIXING = 0.5  # how far a pure colour lights what is of another colour, as film and eyes adapt to it
KNEE = 0.62  # linear value from which lights roll off
FILM = 0.7  # how far each channel rolls off by itself; the rest of the way they keep their ratios
BLEACH = 0.3  # how far the brightest light goes to white


class BuiltinRelight:
    """Light by words or from a picture: estimated own light off, lamps with shadows, glints and rims on."""

    name = "Built-in relighting"
    reads_render = False
    face_aware = False

    def __init__(self, text: str, picture: Path | None = None) -> None:
        """Read the description and the picture. Raises InputError if there is no light in them."""
        if picture is None:
            self.lighting = parse_light(text)
        else:
            self.lighting = picture_light(text, picture)
        self.understood = self.lighting.understood
        self.edits_background = self.lighting.backdrop is not None

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the frames [B, 3, H, W] in [0, 1] in the new light."""
        source = batch.source.clamp(0, 1)
        strength = min(max(float(batch.strength), 0.0), 1.0)
        if strength == 0 or not len(source):
            return source.clone()
        anybody = bool((batch.alpha > 1e-3).any())
        if not anybody and self.lighting.backdrop is None:
            return source.clone()
        lit = self.person(batch) if anybody else source
        behind = source if self.lighting.backdrop is None else surroundings(self.lighting, source)
        edited = to_srgb(torch.lerp(to_linear(behind), to_linear(lit), batch.alpha.clamp(0, 1)))
        return blend(source, edited, strength).clamp(0, 1) if strength < 1 else edited.clamp(0, 1)

    def person(self, batch: EditBatch) -> Tensor:
        """The whole frames [B, 3, H, W] lit as the person is."""
        lighting = self.lighting
        linear = to_linear(batch.source.clamp(0, 1))
        shape = relief(batch)
        coefficients = own_light(batch, linear, shape)
        # the mesh is not exact to the pixel: sharp steps of its shading would stay behind as stains
        own = blur(shade(coefficients, shape.smooth), 5 * unit(batch)).clamp(*OWN_LIMITS)
        bare = linear / own
        kept = 1 + lighting.contrast * (own - 1)
        result = bare * lighting.own * kept.clamp(0.15, 2.2)
        grey = luminance(bare)
        result = result + bare * bare.new_tensor(lighting.ambient).view(1, 3, 1, 1) * occlusion(batch, shape)
        for light in lighting.lights:
            result = result + lamp_light(batch, shape, light, bare, grey)
        if lighting.caustics:
            result = result * (1 + ripples(batch) * (0.5 - shape.smooth[:, 1:2]).clamp(0, 1))
        result = result * result.new_tensor(lighting.gain).view(1, 3, 1, 1)
        result = torch.lerp(luminance(result).expand_as(result), result, lighting.saturation)
        return to_srgb(roll_off(result))


def own_light(batch: EditBatch, linear: Tensor, shape: Relief) -> Tensor:
    """The clip's own light [B, 9, 3], from the skin that the mesh knows."""
    scale = unit(batch)
    inside = torch.isfinite(batch.uv).all(1, keepdim=True).to(linear)
    skin = region(batch, "skin") * inside * (blur(inside, 4 * scale) > 0.9) * (batch.alpha > 0.9)
    tone = luminance(linear)
    skin = skin * smoothstep(0.15, 0.45, shape.smooth[:, 2:]) * (tone < 0.92) * (tone > 0.004)
    return estimate_light(linear, shape.smooth, skin)


def occlusion(batch: EditBatch, shape: Relief) -> Tensor:
    """How much of the light from everywhere arrives [B, 1, H, W]: less where the neighbourhood stands higher."""
    height = torch.where(shape.height > -1, shape.height, shape.height.amin((1, 2, 3), keepdim=True).clamp_min(-0.3))
    dip = sum((blur(height, sigma) - height).clamp_min(0) / (sigma / 128) for sigma in (3.0, 8.0))
    open_sky = torch.exp(-0.9 * dip)  # type: ignore[arg-type]
    return torch.nn.functional.interpolate(open_sky, size=batch.alpha.shape[-2:], mode="bicubic").clamp(0.3, 1)


def lamp_light(batch: EditBatch, shape: Relief, light: Light, bare: Tensor, grey: Tensor) -> Tensor:
    """What one lamp adds [B, 3, H, W], linear: matt light, glints on skin, lips, eyes and hair, and the lit edge."""
    skin = region(batch, "skin") + region(batch, "lips")
    hair, eyes = region(batch, "hair"), region(batch, "eyes")
    moist = region(batch, "lips") + region(batch, "mouth") + region(batch, "teeth")
    colour = bare.new_tensor(light.colour).view(1, 3, 1, 1)
    pure = 1 - min(light.colour) / max(light.colour)
    seen = cast_shadow(shape.height, light, (batch.alpha.shape[-2], batch.alpha.shape[-1]))
    walk = bare.new_tensor(SCATTER).view(1, 3, 1, 1)
    scatter = walk * (skin + 0.6 * eyes).clamp(0, 1) + 0.16 * (hair + 0.3 * region(batch, "clothes")).clamp(0, 1)
    matt = diffuse(shape.normals, light, scatter) * seen ** (1 - scatter)
    bare = torch.lerp(bare, grey.expand_as(bare), MIXING * pure * pure)
    edge = light.grazing * edge_light(shape.smooth, shape.outline, light) * seen
    total = bare * (matt + edge * (1.2 + 0.8 * hair))
    shiny = 0.055 * skin * glint(shape.normals, light, 0.42) + 0.05 * moist * glint(shape.normals, light, 0.3)
    tinted = 0.005 + 0.35 * grey + 0.35 * bare  # half of what hair mirrors has been through it
    shiny = shiny + tinted * hair * strand_glint(shape.strands, shape.smooth, light)
    # eyes are wet, and less deep-set in the picture than in the mesh
    catch = 0.45 * eyes * glint(shape.corneas, light, 0.22) * seen.sqrt()
    shiny = shiny * seen + catch + edge * (0.12 + tinted * hair)
    return EXPOSURE * light.intensity * colour * (total + shiny)


def ripples(batch: EditBatch) -> Tensor:
    """The net of light that waves throw [B, 1, H, W], about 0, fixed to the person."""
    where = coordinates(batch)
    nets = [1 - (noise(where + shift, 0.55) / 1.2).abs().clamp(0, 1) for shift in (0.0, 0.43)]
    return 0.8 * (nets[0] * nets[1]).square() - 0.1


def roll_off(linear: Tensor) -> Tensor:
    """Bright light brought under 1 without a step, as film does: orange light goes to yellow, not to pink."""
    top = linear.amax(1, keepdim=True)
    kept = linear * (_shoulder(top) / top.clamp_min(1e-6))
    filled = torch.lerp(kept, _shoulder(linear), FILM)
    over = (top - KNEE).clamp_min(0)
    bleach = (BLEACH * over / (over + 1)).clamp(0, 1)
    return torch.lerp(filled, _shoulder(top).expand_as(filled), bleach)


def _shoulder(linear: Tensor) -> Tensor:
    room = 1 - KNEE
    return torch.where(linear > KNEE, KNEE + room * (1 - torch.exp(-(linear - KNEE).clamp_min(0) / room)), linear)


def surroundings(lighting: Lighting, source: Tensor) -> Tensor:
    """The picture [B, 3, H, W] as a room in that light: its colour, brighter on the lamps' side, darker to the corners."""
    gain = lighting.backdrop or (1.0, 1.0, 1.0)
    linear = to_linear(source)
    height, width = source.shape[-2:]
    x = torch.linspace(-1, 1, width).to(source).view(1, 1, 1, -1)
    y = torch.linspace(-1, 1, height).to(source).view(1, 1, -1, 1)
    level = sum(gain) / 3
    total = sum(light.intensity for light in lighting.lights) or 1.0
    colour = source.new_tensor(gain).view(1, 3, 1, 1).expand(1, 3, height, width)
    for light in lighting.lights:
        side = light.direction[0] * x + light.direction[1] * y
        share = 0.45 * light.intensity / total * (1 - 0.5 * light.softness)
        tint = source.new_tensor(light.colour).view(1, 3, 1, 1)
        # the wall turns to the lamp's colour on its side and loses it on the other
        colour = colour * (1 + share * side) + share * level * (tint - 1) * side.clamp_min(0)
    corners = 1 - 0.22 * (1 - 0.5 * min(level, 1.0)) * (x * x + y * y) / 2
    pure = 1 - min(gain) / max(max(gain), 1e-3)
    base = torch.lerp(linear, luminance(linear).expand_as(linear), 0.5 * pure)
    lit = base * colour.clamp_min(0) * corners
    lit = torch.lerp(luminance(lit).expand_as(lit), lit, lighting.saturation)
    return to_srgb(roll_off(lit)) if level > 1 else to_srgb(lit)
