"""Registration of a garment photo to the body at rest: which point of the photo lies on which point of the body.

The mapping depends on nothing but the photo: a person's own body differs from `figure` by up to a centimetre at the neck and shoulders,
and cloth hangs no closer to where it should.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from .colour import smoothstep
from .figure import ARMPIT, CHEST, ELBOW, NECK, SHOULDER, SHOULDER_LINE
from .garment import Garment, signed_distance

HUGGING = 0.45  # share of the shoulders' width up to which an opening is made to lie at the neck
SIDE = 0.2  # from the middle of the chest to its side, along the cloth
SLACK = 0.25  # of the shoulders' width: how far cloth is taken to go on beyond the photo's silhouette, where it does not end
LEVELS = 3  # of the photo's pyramid


class ThinPlate:
    """Smooth map of the plane through given points [N, 2] -> [N, 2], affine far from them."""

    def __init__(self, points: np.ndarray, values: np.ndarray) -> None:
        count = len(points)
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        matrix = np.zeros((count + 3, count + 3))
        matrix[:count, :count] = _bend(distance) + 1e-6 * np.eye(count)
        matrix[:count, count:] = np.concatenate([np.ones((count, 1)), points], 1)
        matrix[count:, :count] = matrix[:count, count:].T
        solution = np.linalg.solve(matrix, np.concatenate([values, np.zeros((3, 2))]))
        self.points = points
        self.bends, self.affine = solution[:count], solution[count:]

    def __call__(self, where: Tensor) -> Tensor:
        """[B, 2, H, W] -> [B, 2, H, W]."""
        x, y = where[:, 0], where[:, 1]
        (first, second), (ax, ay), (bx, by) = self.affine
        result = torch.stack([first + ax * x + bx * y, second + ay * x + by * y], 1)
        for (px, py), (wx, wy) in zip(self.points, self.bends, strict=True):
            square = (x - px).square() + (y - py).square()
            bend = 0.5 * square * square.clamp_min(1e-12).log()
            result[:, 0] += wx * bend
            result[:, 1] += wy * bend
        return result


def _bend(distance: np.ndarray) -> np.ndarray:
    return distance**2 * np.log(np.maximum(distance, 1e-6))


def unrolled(rest: Tensor) -> Tensor:
    """Body at rest [B, 3, H, W] to the plane in which cloth lies flat, [B, 2, H, W]: around the chest x becomes the way along it."""
    half, depth, middle = CHEST
    x, y, z = rest[:, :1], rest[:, 1:2], rest[:, 2:]
    around = torch.atan2(x / half, ((middle - z) / depth).clamp_min(0.0) + 1e-4) * (SIDE / (torch.pi / 2))
    outside = (x.abs() - half).clamp_min(0) * x.sign()  # loose cloth, beyond the chest
    return torch.cat([torch.lerp(x, around + outside, smoothstep(0.03, 0.15, y)), y], 1)


def beyond_armhole(rest: Tensor) -> Tensor:
    """How far points of the body at rest [B, 3, H, W] are on the arm's side of the armhole, metres [B, 1, H, W], negative on the torso."""
    top = np.array([SHOULDER, 0.045])
    way = np.array(ARMPIT) - top
    way = way / np.linalg.norm(way)
    return (rest[:, :1].abs() - top[0]) * way[1] - (rest[:, 1:2] - top[1]) * way[0]


class Drape:
    """A picture of cloth and the way from the body at rest into it.

    Args:
        colour: [h, w, 3] float32 sRGB in [0, 1], also beyond the cloth.
        cover: [h, w] float32 pixels inside (positive) or outside of the cloth.
    """

    def __init__(self, colour: np.ndarray, cover: np.ndarray) -> None:
        self.size = colour.shape[1], colour.shape[0]
        levels = [torch.from_numpy(np.ascontiguousarray(colour)).permute(2, 0, 1)[None].float()]
        for _ in range(LEVELS - 1):
            levels.append(functional.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
        self.levels = levels
        self.cover = torch.from_numpy(cover)[None, None].float()

    def places(self, rest: Tensor) -> Tensor:
        """Where in the picture points of the body at rest [B, 3, H, W] are, [B, 2, H, W] (x, y) in its pixels."""
        raise NotImplementedError

    def sample(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        """The cloth's colours [B, 3, H, W] and its coverage [B, 1, H, W] in [0, 1] at points of the body at rest [B, 3, H, W]."""
        places = self.places(rest)
        across = functional.pad(
            (places[..., 1:] - places[..., :-1]).norm(dim=1, keepdim=True), (0, 1, 0, 0), mode="replicate"
        )
        along = functional.pad(
            (places[..., 1:, :] - places[..., :-1, :]).norm(dim=1, keepdim=True), (0, 0, 0, 1), mode="replicate"
        )
        step = torch.maximum(across, along).clamp(0.05, 2.0**LEVELS)  # the picture's pixels per pixel
        detail = step.log2().clamp(0, LEVELS - 1)
        colour = torch.zeros_like(rest)
        for number, level in enumerate(self.levels):
            weight = (1 - (detail - number).abs()).clamp_min(0)
            if bool((weight > 0).any()):
                colour = colour + weight * self._look_up(level, places, "bilinear" if number else "bicubic")
        coverage = (0.5 + self._look_up(self.cover, places, "bilinear") / step).clamp(0, 1)
        behind = smoothstep(0.0, 0.03, rest[:, 2:]) * smoothstep(-0.04, -0.02, rest[:, 1:2])  # the back of the collar
        return colour.clamp(0, 1), torch.maximum(coverage, behind)

    def _look_up(self, image: Tensor, places: Tensor, mode: str) -> Tensor:
        size = torch.tensor(self.size, dtype=places.dtype, device=places.device).view(1, 2, 1, 1)
        grid = (places / size * 2 - 1).permute(0, 2, 3, 1)
        layers = image.to(places).expand(len(places), -1, -1, -1)
        return functional.grid_sample(layers, grid, mode=mode, padding_mode="border", align_corners=False)


class Registration(Drape):
    """A garment photo laid over the body by the garment's landmarks."""

    def __init__(self, garment: Garment) -> None:
        super().__init__(garment.colour, _cover(garment))
        half = np.abs(garment.shoulders[:, 0] - garment.shoulders[:, 0].mean()).mean()
        chest = np.ptp(garment.armpits[:, 0]) / 2
        self.scale = half / SHOULDER if garment.sleeves is not None else chest / SIDE  # pixels per metre
        self.bare_arms = garment.sleeves is None
        self.torso = ThinPlate(*torso_landmarks(garment, self.scale))
        self.arms = [] if garment.sleeves is None else [ThinPlate(*self._arm(garment, side)) for side in (0, 1)]

    def _arm(self, garment: Garment, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Points of the upper arm at rest and of the sleeve in the photo, of equal lengths."""
        assert garment.sleeves is not None
        sign = (-1, 1)[side]
        ends = np.stack([garment.shoulders[side], garment.armpits[side]])
        way = garment.sleeves[side].mean(0) - ends.mean(0)
        length = np.linalg.norm(way) / self.scale
        body = np.array([(SHOULDER, 0.055), ARMPIT, *ELBOW])
        reach = np.linalg.norm(body[2:].mean(0) - body[:2].mean(0))
        share = reach / max(length, 0.05)
        elbow = ends + min(share, 1.0) * (garment.sleeves[side] - ends) + max(share - 1.0, 0.0) * way
        body = np.concatenate([body, (body[:2] + body[2:]) / 2]) * (sign, 1)
        photo = np.concatenate([ends, elbow, (ends + elbow) / 2])
        return body, photo

    def places(self, rest: Tensor) -> Tensor:
        """Where in the photo points of the body at rest [B, 3, H, W] are, [B, 2, H, W] (x, y) in its pixels."""
        result = self.torso(unrolled(rest))
        if not self.arms:
            return result
        weight = smoothstep(-0.02, 0.03, beyond_armhole(rest))
        if bool((weight > 0).any()):
            left, right = (arm(rest[:, :2]) for arm in self.arms)
            result = torch.lerp(result, torch.where(rest[:, :1] < 0, left, right), weight)
        return result

    def sample(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        colour, coverage = super().sample(rest)
        if self.bare_arms:
            coverage = coverage * (1 - smoothstep(-0.004, 0.004, beyond_armhole(rest)))
        return colour, coverage


def torso_landmarks(garment: Garment, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of the torso, unrolled, metres [8, 2], and of the photo, pixels [8, 2], that belong together.

    Sideways the garment is fitted to the body; down it keeps its own proportions.
    """
    tip = np.ptp(garment.shoulders[:, 0]) / 2 / scale
    tip = SHOULDER if garment.sleeves is not None else float(np.clip(tip, 0.11, SHOULDER))
    opening = np.ptp(garment.neck[:, 0]) / np.ptp(garment.shoulders[:, 0])
    wider = 0.0 if garment.hugs_neck else max(0.0, opening - HUGGING) * tip  # boat necks and straps
    neck = min(NECK + 1.4 * wider, 0.85 * tip)
    (shoulder_y,) = np.interp([tip], *SHOULDER_LINE)
    level = garment.shoulders[:, 1].mean()
    pit = shoulder_y + np.clip((garment.armpits[:, 1].mean() - level) / scale, 0.07, 0.17)
    hem = pit + max(0.1, (garment.hem[:, 1].mean() - garment.armpits[:, 1].mean()) / scale)
    wide = np.ptp(garment.hem[:, 0]) / 2 / scale * SIDE / max(1e-6, np.ptp(garment.armpits[:, 0]) / 2 / scale)
    body, photo = [], []
    for side, sign in enumerate((-1, 1)):
        body += [
            (sign * neck, np.interp(neck, *SHOULDER_LINE)),
            (sign * tip, shoulder_y),
            (sign * SIDE, pit),
            (sign * wide, hem),
        ]
        photo += [garment.neck[side], garment.shoulders[side], garment.armpits[side], garment.hem[side]]
    return np.array(body, np.float64), np.array(photo, np.float64)


def _cover(garment: Garment) -> np.ndarray:
    """Signed distance in pixels [h, w] to where cloth ends: at neckline, sleeve ends and hem, not at shoulders and sides."""
    height, width = garment.front.shape
    slack = SLACK * np.ptp(garment.shoulders[:, 0])
    cover = garment.front > -slack
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if not garment.high_collar:
        left, right = garment.neck[:, 0]
        collar = (x > left) & (x < right) & (y < garment.neckline[:, 1].max())  # it ends where the photo shows it
        cover &= ~collar | (garment.front > 0)
    cover &= (y < garment.hem[:, 1].mean()) | (garment.front > 0)
    if garment.sleeves is not None:
        for side in (0, 1):
            start = (garment.shoulders[side] + garment.armpits[side]) / 2
            end = garment.sleeves[side].mean(0)
            way = end - start
            past = (x - end[0]) * way[0] + (y - end[1]) * way[1] > 0
            near = (x - end[0]) ** 2 + (y - end[1]) ** 2 < (2 * slack) ** 2
            cover &= ~(past & near) | (garment.front > 0)
    return signed_distance(cover)
