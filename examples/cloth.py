"""Drawing cloth: outlines, reliefs, weaves and stitches, lit from the upper left.

A picture is a stack of cloth layers. A layer is an outline with a relief (a pillow shape, folds, seams, ribs), a pattern and a weave,
and it throws a soft shadow on what lies under it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np

SIZE = 512  # px, of the finished pictures
CANVAS = 2 * SIZE
LIGHT = np.array([-0.42, -0.5, 0.76])
Weave = Callable[[], np.ndarray]  # the change [H, W] of brightness that threads make
Points = Sequence[tuple[float, float]]  # x from the garment's middle and y down, in canvas widths

rows, columns = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
X, Y = (columns + 0.5) / CANVAS - 0.5, (rows + 0.5) / CANVAS


def curve(points: Points, closed: bool = False, steps: int = 16) -> np.ndarray:
    """Catmull-Rom spline through ``points``, [N, 2]; doubled points make corners."""
    p = np.array(points, np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        if np.array_equal(b, c):
            continue
        parts.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([*parts, p[-2:-1]])


def pixels(line: np.ndarray) -> np.ndarray:
    return np.rint((line + np.array([0.5, 0])) * CANVAS * 16).astype(np.int32)


def filled(line: np.ndarray) -> np.ndarray:
    """Coverage [H, W] of an outline."""
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillPoly(mask, [pixels(line)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def symmetric(half: Points) -> np.ndarray:
    """Outline from the points of its right half, top to bottom."""
    return curve([*half, *[(-x, y) for x, y in reversed(half)]], closed=True)


def stroke(line: np.ndarray, width: float, closed: bool = False) -> np.ndarray:
    """Coverage [H, W] of a line ``width`` canvas widths thick."""
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.polylines(mask, [pixels(line)], closed, 255, max(1, round(width * CANVAS)), cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def stitches(line: np.ndarray, dash: float = 0.006, width: float = 0.0022) -> np.ndarray:
    """Coverage [H, W] of a dashed seam."""
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    for start in np.arange(0, lengths[-1], dash):
        at = np.linspace(start, min(start + 0.62 * dash, lengths[-1]), 4)
        piece = np.stack([np.interp(at, lengths, line[:, axis]) for axis in (0, 1)], 1)
        mask = np.maximum(mask, stroke(piece, width))
    return mask


def soft(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma * CANVAS)


def clouds(seed: int, sigma_x: float, sigma_y: float, degrees: float = 0.0) -> np.ndarray:
    """Smooth noise [H, W], deviation 1, stretched and turned."""
    noise = np.random.default_rng(seed).standard_normal((CANVAS, CANVAS)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma_x * CANVAS, sigmaY=sigma_y * CANVAS)
    turn = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), degrees, 1.0)
    noise = cv2.warpAffine(noise, turn, (CANVAS, CANVAS), borderMode=cv2.BORDER_REFLECT)
    return noise / noise.std()


def fold(line: Points, width: float, height: float) -> np.ndarray:
    """Relief of one fold: a ridge that fades at its ends, steep on one side."""
    way = curve(line)
    core = np.zeros((CANVAS, CANVAS), np.float32)
    for number, (a, b) in enumerate(pairwise(way)):
        fade = np.sin(np.pi * (number + 0.5) / (len(way) - 1))
        core = np.maximum(core, stroke(np.stack([a, b]), width * 0.6) * fade)
    wide, narrow = soft(core, width), soft(core, 0.4 * width)
    return height * (0.7 * wide + 0.5 * narrow)


class Picture:
    """Cloth layers, painted one over the other."""

    def __init__(self) -> None:
        self.colour = np.zeros((CANVAS, CANVAS, 3), np.float32)
        self.alpha = np.zeros((CANVAS, CANVAS), np.float32)

    def cloth(
        self,
        mask: np.ndarray,
        colour: Sequence[float] | np.ndarray,
        relief: np.ndarray | float = 0.0,
        pillow: float = 0.022,
        weave: Callable[[], np.ndarray] | None = None,
        shadow: float = 0.45,
        dark: float = 1.0,
    ) -> None:
        """Lay a layer: ``mask`` [H, W], sRGB ``colour`` (three numbers or [H, W, 3]), ``relief`` in canvas widths."""
        solid = (mask > 0.5).astype(np.uint8)
        edge = cv2.distanceTransform(solid, cv2.DIST_L2, 5) / CANVAS
        round_edge = pillow * np.sqrt(1 - (1 - np.clip(edge / (2.2 * pillow), 0, 1)) ** 2)
        height = soft(round_edge.astype(np.float32), 0.0035) + relief
        slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
        normal = np.stack([-slope_x, -slope_y, np.full_like(slope_x, 8 / CANVAS)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        diffuse = np.clip(normal @ LIGHT.astype(np.float32), 0, 1)
        cavity = np.clip((height - soft(height, 0.012)) / 0.012, -1, 1)
        shade = 0.42 + 0.58 * diffuse / LIGHT[2] + 0.12 * cavity
        if weave is not None:
            shade = shade * (1 + weave())
        lit = np.clip(np.asarray(colour, np.float32) * (dark * shade)[..., None], 0, 1)
        cast = np.roll(soft(mask, 0.007), (round(0.006 * CANVAS), round(0.004 * CANVAS)), (0, 1))
        under = self.colour * (1 - shadow * cast * (1 - mask))[..., None]
        cover = mask[..., None]
        self.colour = lit * cover + under * (1 - cover)
        self.alpha = np.maximum(self.alpha, mask)

    def thread(self, mask: np.ndarray, colour: Sequence[float], strength: float = 0.85) -> None:
        """Sew: stitches or cords with a little shadow below them."""
        below = np.roll(soft(mask, 0.0015), 2, 0)
        self.colour *= (1 - 0.35 * np.clip(below, 0, 1))[..., None]
        cover = (strength * mask * (self.alpha > 0.5))[..., None]
        self.colour = self.colour * (1 - cover) + np.asarray(colour, np.float32) * cover

    def button(self, x: float, y: float, radius: float, colour: Sequence[float], holes: bool = True) -> None:
        """A round button with a rim, a highlight and a shadow."""
        away = np.hypot(X - x, Y - y) / radius
        mask = np.clip((1 - away) * radius * CANVAS + 0.5, 0, 1)
        shade = 0.86 + 0.5 * np.exp(-((away - 0.82) ** 2) / 0.01) * (-(X - x) - (Y - y)) / radius
        shade += 0.4 * np.exp(-(np.hypot(X - x + 0.35 * radius, Y - y + 0.4 * radius) ** 2) / (0.2 * radius) ** 2)
        if holes:
            for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
                hole = np.hypot(X - x - 0.22 * dx * radius, Y - y - 0.22 * dy * radius)
                shade *= 1 - 0.65 * np.exp(-((hole / (0.11 * radius)) ** 2))
        cast = np.roll(soft(mask, 0.004), (4, 3), (0, 1))
        self.colour *= (1 - 0.5 * cast * (1 - mask))[..., None]
        lit = np.clip(np.asarray(colour, np.float32) * shade[..., None], 0, 1)
        self.colour = self.colour * (1 - mask[..., None]) + lit * mask[..., None]

    def photo(self, background: Sequence[float] | None) -> np.ndarray:
        """The finished picture, [SIZE, SIZE, 3] on a studio background or [SIZE, SIZE, 4] cut out, uint8 RGB."""
        if background is None:
            layers = np.concatenate([self.colour * self.alpha[..., None], self.alpha[..., None]], -1)
            small = cv2.resize(layers, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            small[..., :3] /= np.maximum(small[..., 3:], 1 / 255)
        else:
            vignette = 1.02 - 0.10 * ((X / 0.7) ** 2 + ((Y - 0.45) / 0.7) ** 2)
            floor = 1 - 0.30 * np.roll(soft(self.alpha, 0.018), (12, 9), (0, 1))
            wall = np.asarray(background, np.float32) * (vignette * floor)[..., None]
            cover = self.alpha[..., None]
            small = cv2.resize(self.colour * cover + wall * (1 - cover), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        steps = np.rint(np.clip(small, 0, 1) * 127)  # half of the 256 levels: a fifth smaller as PNG
        return np.rint(steps * (255 / 127)).astype(np.uint8)


def ribs(pitch: float, along: np.ndarray, depth: float) -> np.ndarray:
    return depth * np.abs(np.sin(np.pi * along / pitch))


def wrinkles(seed: int, height: float) -> np.ndarray:
    """What cloth does when it lies: long soft folds down the body and small ones across."""
    down = clouds(seed, 0.022, 0.13, 8.0) + 0.6 * clouds(seed + 1, 0.015, 0.1, -14.0)
    small = np.abs(clouds(seed + 2, 0.012, 0.03, 30.0)) * clouds(seed + 3, 0.08, 0.08)
    return height * (down + 0.35 * small)


def sleeve_folds(height: float) -> np.ndarray:
    """Folds that run from the armpits into the body and across the elbows, on both sides."""
    relief = np.zeros((CANVAS, CANVAS), np.float32)
    for side in (-1, 1):
        for line, width in (
            ([(0.20, 0.33), (0.14, 0.39), (0.07, 0.42)], 0.012),
            ([(0.21, 0.36), (0.17, 0.45), (0.13, 0.55)], 0.011),
            ([(0.215, 0.30), (0.17, 0.32), (0.10, 0.30)], 0.010),
            ([(0.25, 0.31), (0.29, 0.36), (0.31, 0.42)], 0.010),
            ([(0.27, 0.50), (0.31, 0.49), (0.35, 0.51)], 0.009),
            ([(0.28, 0.55), (0.32, 0.53), (0.36, 0.56)], 0.008),
            ([(0.30, 0.60), (0.34, 0.60), (0.38, 0.63)], 0.008),
        ):
            relief += fold([(side * x, y) for x, y in line], width, height)
    return relief


def knit(strength: float, pitch: float = 0.0045) -> Callable[[], np.ndarray]:
    return lambda: strength * np.sin(2 * np.pi * X / pitch) * np.sin(2 * np.pi * (Y + 0.3 * np.abs(X)) / pitch)


def twill(strength: float, seed: int = 5) -> Callable[[], np.ndarray]:
    def weave() -> np.ndarray:
        grain = np.random.default_rng(seed).standard_normal((CANVAS, CANVAS)).astype(np.float32)
        slubs = cv2.GaussianBlur(grain, (0, 0), 0.8, sigmaY=5)
        return strength * (0.6 * np.sin(2 * np.pi * (X + 0.7 * Y) / 0.0046) + 2.2 * slubs)

    return weave


def cotton(strength: float, seed: int = 9) -> Callable[[], np.ndarray]:
    grain = np.random.default_rng(seed).standard_normal((CANVAS, CANVAS)).astype(np.float32)
    return lambda: strength * cv2.GaussianBlur(grain, (0, 0), 1.1) * 2
