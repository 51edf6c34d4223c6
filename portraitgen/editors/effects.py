"""Make-up and disguise: what the characters need beyond recolouring, placed by the masks of eyes, brows and lips."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, oklab_of, smoothstep, to_oklab
from .surface import (
    blur,
    bumped,
    coordinates,
    face_frame,
    lightness,
    noise,
    normalise,
    normals,
    one_frame,
    pixels,
    region,
    unit,
)

Colour = tuple[float, float, float]


def _centre(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Centre [B, 2] in pixels of a mask [B, 1, H, W], and whether there is one [B]."""
    height, width = mask.shape[-2:]
    area = mask.sum((1, 2, 3))
    x = (mask.sum(2)[:, 0] * (torch.arange(width, dtype=mask.dtype, device=mask.device) + 0.5)).sum(1)
    y = (mask.sum(3)[:, 0] * (torch.arange(height, dtype=mask.dtype, device=mask.device) + 0.5)).sum(1)
    return torch.stack([x, y], 1) / area.clamp_min(1e-3)[:, None], area > 12 * (height / 512) ** 2


def _landmarks(batch: EditBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Middle of the brows and eyes, middle of the mouth [B, 2], their distance [B], and whether both are there [B]."""
    upper, has_upper = _centre((region(batch, "eyes") + region(batch, "brows")).clamp(0, 1))
    lower, has_lower = _centre((region(batch, "lips") + region(batch, "teeth") + region(batch, "mouth")).clamp(0, 1))
    return upper, lower, (lower - upper).square().sum(1).sqrt().clamp_min(4.0), has_upper & has_lower


def _disc(batch: EditBatch, centre: Tensor, radius: Tensor, softness: float) -> Tensor:
    """Soft discs [B, 1, H, W] at ``centre`` [B, 2] with ``radius`` [B], in pixels."""
    distance = (pixels(batch) - centre[:, :, None, None]).square().sum(1, keepdim=True).sqrt() / radius[
        :, None, None, None
    ]
    return smoothstep(1 + softness, 1 - softness, distance)


def _paint(image: Tensor, rgb: Colour, mask: Tensor, level: float = 0.7) -> Tensor:
    """Colour over an area, relief kept; ``level`` is how far lightness goes to the colour's."""
    lab, target = to_oklab(image), oklab_of(rgb, image)
    light = torch.lerp(
        lab[:, :1], target[:, :1] + 0.8 * (lab[:, :1] - blur(lab[:, :1], 12.0 * image.shape[-2] / 512)), level
    )
    return torch.lerp(image, from_oklab(torch.cat([light, target[:, 1:].expand_as(lab[:, 1:])], 1)), mask.clamp(0, 1))


def _around_eyes(batch: EditBatch, reach: float) -> Tensor:
    """A soft area around the eyes, the eyes themselves left out; ``reach`` in face widths."""
    _, width = face_frame(batch)
    sigma = float(reach * width.mean())
    eyes = region(batch, "eyes")
    return (blur(eyes, sigma) / 0.28).clamp(0, 1) * (1 - eyes) * (1 - 0.6 * region(batch, "brows"))


def eye_sockets(batch: EditBatch, image: Tensor) -> Tensor:
    return _paint(image, (0.16, 0.09, 0.12), 0.75 * _around_eyes(batch, 0.085), 0.62)


def eye_shadow(batch: EditBatch, image: Tensor) -> Tensor:
    return _paint(image, (0.08, 0.06, 0.08), 0.9 * _around_eyes(batch, 0.05), 0.75)


def clown_eyes(batch: EditBatch, image: Tensor) -> Tensor:
    return _paint(image, (0.10, 0.35, 0.85), 0.9 * smoothstep(0.25, 0.5, _around_eyes(batch, 0.065)), 0.7)


def clown_mouth(batch: EditBatch, image: Tensor) -> Tensor:
    _, width = face_frame(batch)
    mouth = (region(batch, "lips") + region(batch, "teeth") + region(batch, "mouth")).clamp(0, 1)
    wide = smoothstep(0.10, 0.20, blur(mouth, float(0.055 * width.mean())))
    return _paint(
        image, (0.78, 0.04, 0.06), 0.95 * wide * (1 - region(batch, "teeth")) * (1 - region(batch, "mouth")), 0.75
    )


def red_nose(batch: EditBatch, image: Tensor) -> Tensor:
    """A foam ball on the tip of the nose, shaded as a ball."""
    upper, lower, distance, found = _landmarks(batch)
    _, width = face_frame(batch)
    mesh = torch.isfinite(batch.uv).all(1)
    turn = torch.where(mesh[:, None], batch.normals, torch.zeros_like(batch.normals))
    near = _disc(batch, upper + 0.58 * (lower - upper), 0.35 * distance, 0.3)
    lean = (turn * near).sum((2, 3)) / near.sum((2, 3)).clamp_min(1.0)  # the nose points where its surroundings face
    centre = upper + 0.60 * (lower - upper) + 0.22 * width[:, None] * lean[:, :2]
    radius = 0.20 * distance
    disc = _disc(batch, centre, radius, 0.06) * found[:, None, None, None]
    offset = (pixels(batch) - centre[:, :, None, None]) / radius[:, None, None, None]
    ball = normalise(torch.cat([offset, (1 - offset.square().sum(1, keepdim=True)).clamp_min(0.02).sqrt()], 1))
    light = torch.tensor([-0.45, -0.6, 0.66], dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    shade = (ball * light).sum(1, keepdim=True)
    lab = oklab_of((0.85, 0.05, 0.06), image) * torch.tensor([1.0, 1.0, 1.0], device=image.device).view(1, 3, 1, 1)
    value = lab[:, :1] * (0.52 + 0.55 * shade.clamp(-0.2, 1)) + 0.35 * torch.exp((40 * (shade - 1)).clamp_min(-20))
    return torch.lerp(
        image, from_oklab(torch.cat([value, lab[:, 1:].expand(len(image), 2, *value.shape[-2:])], 1)), disc
    )


def rosy_cheeks(batch: EditBatch, image: Tensor) -> Tensor:
    upper, lower, distance, found = _landmarks(batch)
    along = lower - upper
    across = torch.stack([along[:, 1], -along[:, 0]], 1)
    middle = upper + 0.62 * along
    cheeks = sum(_disc(batch, middle + side * 0.78 * across, 0.45 * distance, 0.9) for side in (-1, 1))
    cheeks = torch.as_tensor(cheeks) * region(batch, "skin") * found[:, None, None, None]
    return _paint(image, (0.88, 0.36, 0.40), 0.32 * cheeks, 0.12)


def decay(batch: EditBatch, image: Tensor) -> Tensor:
    """Dead skin: blotches, veins, hollow cheeks."""
    where = coordinates(batch)
    normal = bumped(batch, normals(batch), lightness(image), 3.0)
    blotch = smoothstep(0.2, 1.8, noise(where, 0.55))
    dirt = smoothstep(0.7, 2.2, noise(where + 2.3, 1.1))
    bend = torch.cat([noise(where, 0.5), noise(where + 5.3, 0.5)], 1)
    vein = (1 - noise(where + 0.08 * bend, 0.35).abs() / 0.05).clamp(0, 1)
    lab = to_oklab(image)
    side = 0.55 + 0.45 * normal[:, 2:].clamp(0, 1)
    light = lab[:, :1] * (0.94 * side + 0.06) - 0.10 * blotch - 0.10 * dirt - 0.06 * vein
    chroma = lab[:, 1:] + torch.cat(
        [0.030 * blotch + 0.035 * dirt + 0.012 * vein, 0.004 * blotch + 0.012 * dirt - 0.02 * vein], 1
    )
    return from_oklab(torch.cat([light + 0.10 * (light - 0.5), chroma], 1))


def pale_glow(batch: EditBatch, image: Tensor) -> Tensor:
    lab = to_oklab(image)
    edge = (1 - normals(batch)[:, 2:]).clamp(0, 1) ** 1.3
    light = 1 - (1 - lab[:, :1]) * (1 - 0.45 * edge) * (1 - 0.3 * blur(lab[:, :1], 8 * unit(batch)).clamp(0, 1))
    return from_oklab(torch.cat([light, 0.85 * lab[:, 1:]], 1))


def gloss(batch: EditBatch, image: Tensor) -> Tensor:
    """Wet shine where the light already falls."""
    lab = to_oklab(image)
    peak = smoothstep(0.02, 0.09, lab[:, :1] - blur(lab[:, :1], 5 * unit(batch)))
    light = lab[:, :1] * 0.94 + 0.34 * peak
    return from_oklab(torch.cat([light, lab[:, 1:] * (1.2 - 0.6 * peak)], 1))


EFFECTS: Mapping[str, Callable[[EditBatch, Tensor], Tensor]] = {
    "dark eye sockets": eye_sockets,
    "eye shadow": eye_shadow,
    "clown eyes": clown_eyes,
    "clown mouth": clown_mouth,
    "red nose": red_nose,
    "rosy cheeks": rosy_cheeks,
    "decay": decay,
    "pale glow": pale_glow,
    "gloss": gloss,
}
WIDE = frozenset(
    ("red nose", "clown mouth")
)  # painted over the lips' and nose's borders, so the whole person is their mask


def effect(batch: EditBatch, image: Tensor, name: str) -> Tensor:
    """The whole picture [B, 3, H, W] with one effect, to be masked; frame by frame, as sizes follow each frame's face."""
    return torch.cat([EFFECTS[name](one_frame(batch, index), image[index : index + 1]) for index in range(len(image))])
