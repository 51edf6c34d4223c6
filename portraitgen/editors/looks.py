"""Drawn and painted looks: pencil, charcoal, ink, watercolour, oil, pastel, cartoon, anime, 3D cartoon.

Each takes a frame, and grain and stroke noise that is anchored to the person, and returns the whole picture in that look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from . import EditBatch
from .colour import from_oklab, to_oklab
from .filters import edges, flow, gaussian, kuwahara, levels, smooth, step, strokes
from .surface import coordinates, noise, normals, unit


@dataclass(frozen=True)
class Canvas:
    """One frame for a look: numpy float32."""

    image: np.ndarray  # [H, W, 3] sRGB
    lab: np.ndarray  # [H, W, 3] OKLab
    grain: np.ndarray  # [H, W] fine anchored noise, mean 0, deviation 1
    cloud: np.ndarray  # [H, W] soft anchored noise
    hatch: np.ndarray  # [H, W] anchored noise drawn out along one diagonal
    where: np.ndarray  # [H, W, 2] anchored coordinates in face widths
    normal: np.ndarray  # [H, W, 3] z towards the camera
    alpha: np.ndarray  # [H, W]
    scale: float

    @property
    def light(self) -> np.ndarray:
        return np.ascontiguousarray(self.lab[..., 0])


def look(batch: EditBatch, image: Tensor, name: str) -> Tensor:
    """The whole picture [B, 3, H, W] in a drawn or painted look."""
    where = coordinates(batch)
    turned = torch.stack([where[:, 0] + where[:, 1], where[:, 0] - where[:, 1]], 1) * 0.7071
    layers = {
        "image": image,
        "lab": to_oklab(image),
        "grain": noise(where, 1.6, rough=True),
        "cloud": noise(where, 0.35),
        "hatch": noise(turned, (2.4, 0.14), rough=True),
        "where": where,
        "normal": normals(batch) if name in NEEDS_NORMALS else torch.zeros_like(image),
        "alpha": batch.alpha,
    }
    arrays = {key: layer.permute(0, 2, 3, 1).contiguous().cpu().float().numpy() for key, layer in layers.items()}
    for key in ("grain", "cloud", "hatch", "alpha"):
        arrays[key] = np.ascontiguousarray(arrays[key][..., 0])
    results = []
    for index in range(len(image)):
        canvas = Canvas(**{key: array[index] for key, array in arrays.items()}, scale=unit(batch))
        results.append(np.clip(LOOKS[name](canvas), 0, 1).astype(np.float32))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).to(image)


def to_rgb(lab: np.ndarray) -> np.ndarray:
    """OKLab [H, W, 3] to sRGB."""
    return (
        from_oklab(torch.from_numpy(np.ascontiguousarray(lab, dtype=np.float32)).permute(2, 0, 1)[None])[0]
        .permute(1, 2, 0)
        .numpy()
    )


def join(light: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """sRGB of a lightness [H, W] and chroma [H, W, 2]."""
    return to_rgb(np.concatenate([np.clip(light, 0, 1)[..., None], chroma], -1))


def paper(canvas: Canvas, amount: float = 0.02) -> np.ndarray:
    """Lightness factor of a sheet with tooth."""
    return 1 + amount * canvas.grain


def graphite(canvas: Canvas) -> np.ndarray:
    """Lightness [H, W] of a graphite drawing: contours, soft modelling, and hatching that gets denser in the dark."""
    light, scale = canvas.light, canvas.scale
    soft = smooth(light, scale, passes=1, tone=0.08)
    local = np.clip(soft / (gaussian(soft, 9 * scale) + 0.02), 0, 1.25)
    modelling = step(0.55, 1.06, local)
    dark = 1 - step(0.05, 0.78, soft)
    tooth = np.clip(0.5 + 0.42 * canvas.hatch + 0.14 * canvas.grain, 0, 1)
    shade = 1 - dark * (0.30 + 0.58 * step(0.78 - 0.75 * dark, 1.12 - 0.75 * dark, tooth))
    contour = edges(light, scale, 0.9) * (0.35 + 0.65 * edges(soft, scale, 2.0))
    return np.clip(0.10 + 0.87 * shade * (0.45 + 0.55 * modelling) * (0.22 + 0.78 * contour), 0, 1)


def pencil(canvas: Canvas) -> np.ndarray:
    tone = graphite(canvas) * paper(canvas, 0.012)
    return join(tone, np.stack([np.full_like(tone, 0.001), 0.008 * tone], -1))


def coloured_pencil(canvas: Canvas) -> np.ndarray:
    tone = graphite(canvas)
    colour = smooth(canvas.lab, canvas.scale, tone=0.06)
    cover = np.clip(0.62 + 0.30 * canvas.hatch + 0.10 * canvas.grain, 0.25, 1.0)[..., None]
    light = 0.45 * tone + 0.55 * np.clip(0.30 + 0.78 * colour[..., 0], 0, 0.98) * (0.6 + 0.4 * tone)
    return join(light * paper(canvas), colour[..., 1:] * 1.55 * cover)


def charcoal(canvas: Canvas) -> np.ndarray:
    light, scale = canvas.light, canvas.scale
    soft = smooth(light, scale)
    smudge = step(0.12, 0.86, soft)
    tooth = 0.5 + 0.20 * canvas.grain + 0.12 * canvas.hatch
    cover = step(-0.32, 0.32, smudge - 0.75 * tooth + 0.05)
    contour = edges(light, scale, 1.6) * edges(soft, scale, 2.6)
    tone = (0.62 * cover + 0.38 * smudge) * (0.15 + 0.85 * contour)
    tone = 0.13 + 0.78 * tone
    return join(tone, np.stack([0.002 + 0 * tone, 0.012 * tone], -1))


def ink(canvas: Canvas) -> np.ndarray:
    """Pen lines, blacks, and two layers of hatching."""
    light, scale = canvas.light, canvas.scale
    soft = smooth(light, scale)
    drawn = edges(light, scale, 1.1) * edges(soft, scale, 2.2)
    drawn = step(0.30, 0.62, drawn)
    local = soft / (gaussian(soft, 9 * scale) + 0.02)
    black = step(0.17, 0.25, soft + 0.03 * canvas.cloud)
    soft = soft * step(0.45, 1.0, local) ** 0.5
    x, y = canvas.where[..., 0], canvas.where[..., 1]
    sheet = np.ones_like(light)
    for level, along, angle in ((0.62, 44.0, 0.9), (0.46, 44.0, -0.55), (0.33, 50.0, 0.2)):
        phase = along * (np.cos(angle) * x + np.sin(angle) * y) + 0.16 * canvas.cloud
        wave = 0.5 + 0.5 * np.cos(2 * np.pi * phase)
        depth = np.clip((level - soft) / 0.22, 0, 1)
        sheet = np.minimum(sheet, 1 - step(0.86 - 0.40 * depth, 1.06 - 0.36 * depth, wave) * step(0.0, 0.15, depth))
    tone = sheet * black * drawn
    tone = 0.10 + 0.86 * tone
    return join(tone, np.stack([0 * tone, 0.014 * tone], -1))


def watercolour(canvas: Canvas) -> np.ndarray:
    """Washes with dark rims on white paper, pigment in its grain, a loose pencil line underneath."""
    scale = canvas.scale
    height, width = canvas.light.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wobble = 2.2 * scale * gaussian(canvas.cloud, 2 * scale)
    bent = cv2.remap(canvas.lab, x + wobble, y - wobble, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    wash = kuwahara(bent, 7 * scale)
    wash = 0.75 * wash + 0.25 * smooth(bent, scale)
    light = wash[..., 0]
    stepped = 0.55 * light + 0.45 * levels(light, 6, 4.0)
    slope = np.abs(light - gaussian(light, 3 * scale))
    rim = np.clip(slope / 0.05, 0, 1.5)
    pigment = 1 - stepped
    pigment = pigment * (1 + 0.07 * canvas.cloud + 0.05 * canvas.grain) + 0.08 * rim
    bloom = 0.6 * step(1.2, 2.6, canvas.cloud)
    tone = 0.995 - 0.72 * np.clip(pigment, 0, 1) ** 1.1 * (1 - 0.25 * bloom)
    line = edges(canvas.light, scale, 1.0)
    tone = tone * (0.72 + 0.28 * line)
    chroma = (
        wash[..., 1:] * (1.75 + 0.25 * rim - 0.3 * bloom)[..., None] * (0.6 + 0.4 * step(0.0, 0.25, pigment))[..., None]
    )
    return join(tone * paper(canvas, 0.010), chroma)


def oil(canvas: Canvas) -> np.ndarray:
    """Flat dabs that follow the forms, thick paint that catches the light, canvas underneath."""
    scale = canvas.scale
    dabs = kuwahara(canvas.lab, 9 * scale)
    fine = kuwahara(canvas.lab, 5 * scale)
    # small dabs where the picture is busy (eyes, lips), large ones elsewhere
    busy = step(0.015, 0.06, gaussian(np.abs(canvas.light - gaussian(canvas.light, 3 * scale)), 4 * scale))
    dabs += busy[..., None] * (fine - dabs)
    tangents = flow(dabs[..., 0], scale)
    bristle = strokes(canvas.grain, tangents, 20 * scale)
    body = gaussian(bristle, 2.0 * scale)
    shift = np.array([[1, 0, 1.5 * scale], [0, 1, 1.5 * scale]], np.float32)
    thick = gaussian(bristle, 0.8 * scale)
    relief = thick - cv2.warpAffine(thick, shift, thick.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    light = dabs[..., 0]
    # a dab carries one mixture: colour steps along with the bristles
    mixture = levels(np.clip(light + 0.030 * np.clip(body, -2, 2), 0, 1), 11, 3.5)
    light = 0.5 * light + 0.5 * mixture
    light = light + 0.14 * (light - 0.55) + (0.012 + 0.008 * light) * np.clip(relief, -2.5, 2.5)
    chroma = dabs[..., 1:] * (1.5 + 0.12 * np.clip(body, -2, 2)[..., None])
    return join(light, chroma + np.array([0.002, 0.010], np.float32))


def pastel(canvas: Canvas) -> np.ndarray:
    scale = canvas.scale
    soft = kuwahara(canvas.lab, 7 * scale)
    tangents = flow(soft[..., 0], scale)
    chalk = gaussian(strokes(canvas.grain, tangents, 12 * scale), 0.7 * scale)
    light = 0.16 + 0.80 * soft[..., 0] + 0.022 * np.clip(chalk, -2, 2)
    gaps = 0.6 * step(0.7, 2.2, canvas.grain)
    light = light + 0.07 * gaps
    contour = edges(canvas.light, scale, 1.5)
    return join(light * (0.70 + 0.30 * contour), soft[..., 1:] * (1.45 - 0.5 * gaps)[..., None])


def flat(canvas: Canvas, count: int, passes: int = 3) -> np.ndarray:
    """OKLab in flat areas with ``count`` levels of lightness."""
    base = smooth(canvas.lab, canvas.scale, passes=passes, tone=0.07)
    base = kuwahara(base, 4 * canvas.scale)
    base[..., 0] = 0.35 * base[..., 0] + 0.65 * levels(base[..., 0], count, 5.0)
    return base


def cartoon(canvas: Canvas) -> np.ndarray:
    base = flat(canvas, 6)
    contour = edges(smooth(canvas.light, canvas.scale, passes=1, tone=0.06), canvas.scale, 1.3) * edges(
        base[..., 0], canvas.scale, 1.8
    )
    contour = step(0.18, 0.7, contour)
    light = np.clip(0.06 + 1.02 * base[..., 0], 0, 1)
    return join(light * (0.14 + 0.86 * contour), base[..., 1:] * (1.7 * (0.25 + 0.75 * contour))[..., None])


def anime(canvas: Canvas) -> np.ndarray:
    """Two-tone cel shading, clean thin lines, bright colours and a soft bloom."""
    base = kuwahara(smooth(canvas.lab, canvas.scale, passes=4, tone=0.06), 5 * canvas.scale)
    light = base[..., 0]
    around = gaussian(light, 40 * canvas.scale)
    shadow = step(-0.03, 0.03, light - around + 0.015)
    cel = 0.65 * light + 0.35 * levels(light, 5, 6.0) + 0.09 * (shadow - 0.5)
    cel = 1 - (1 - np.clip(cel, 0, 1)) ** 1.22
    contour = step(
        0.12,
        0.6,
        edges(smooth(canvas.light, canvas.scale, passes=1, tone=0.06), canvas.scale, 1.0)
        * (0.3 + 0.7 * edges(light, canvas.scale, 1.5)),
    )
    bloom = np.clip(gaussian(cel, 10 * canvas.scale) - 0.78, 0, 1)
    chroma = base[..., 1:] * 1.65
    return join(cel * (0.25 + 0.75 * contour) + 0.35 * bloom, chroma * (0.4 + 0.6 * contour)[..., None])


def animated_3d(canvas: Canvas) -> np.ndarray:
    """Smooth rounded surfaces, warm scattered light in the shadows, shiny highlights."""
    scale = canvas.scale
    base = smooth(canvas.lab, scale, passes=4, tone=0.06)
    fine = canvas.lab - gaussian(canvas.lab, 2.0 * scale)
    dark_detail = np.minimum(fine[..., 0], 0)
    normal = canvas.normal
    key = np.clip(normal @ np.array([-0.45, -0.55, 0.70], np.float32), 0, 1)
    rim = np.clip(1 - normal[..., 2], 0, 1) ** 2 * np.clip(normal[..., 0] * 0.8 + 0.3, 0, 1)
    shine = np.exp(np.clip(40 * (normal @ np.array([-0.30, -0.42, 0.857], np.float32) - 1), -20, 0))
    light = base[..., 0] * (0.84 + 0.30 * key * canvas.alpha + 0.16 * (1 - canvas.alpha)) + 0.8 * dark_detail
    light = light + canvas.alpha * (0.10 * shine + 0.18 * rim)
    warm = np.array([0.020, 0.018], np.float32) * (canvas.alpha * (1 - key) * step(0.3, 0.6, light))[..., None]
    return join(1 - (1 - np.clip(light, 0, 1)) ** 1.15, base[..., 1:] * 1.5 + warm)


def poster(canvas: Canvas) -> np.ndarray:
    """Cut paper: four tones, flat colours, no lines."""
    base = kuwahara(smooth(canvas.lab, canvas.scale, passes=4, tone=0.09), 7 * canvas.scale)
    light = 0.12 + 0.84 * levels(step(0.08, 0.92, base[..., 0]), 4, 9.0)
    chroma = base[..., 1:]
    size = np.linalg.norm(chroma, axis=-1, keepdims=True) + 1e-6
    return join(light, chroma / size * (0.04 + 0.16 * np.tanh(size / 0.07)))


LOOKS: Mapping[str, Callable[[Canvas], np.ndarray]] = {
    "pencil": pencil,
    "coloured pencil": coloured_pencil,
    "charcoal": charcoal,
    "ink": ink,
    "watercolour": watercolour,
    "oil": oil,
    "pastel": pastel,
    "cartoon": cartoon,
    "anime": anime,
    "3d cartoon": animated_3d,
    "poster": poster,
}
NEEDS_NORMALS = ("3d cartoon",)
