"""Image filters behind the painterly looks: all decide by the picture's content, so they move with it and do not boil.

Pictures here are numpy float32, [H, W, 3] or [H, W], in [0, 1]; ``scale`` is the size of a pixel of a 512-pixel picture in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, edges reflected."""
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))


def smooth(image: np.ndarray, scale: float, *, passes: int = 2, tone: float = 0.12, radius: float = 5.0) -> np.ndarray:
    """Flat areas with crisp edges: repeated bilateral filtering; fine texture goes first."""
    size = max(5, int(2 * radius * scale) | 1)
    for _ in range(passes):
        image = cv2.bilateralFilter(image, min(size, 9), tone, radius * scale)
    return image


def kuwahara(image: np.ndarray, radius: float, sharpness: float = 8.0) -> np.ndarray:
    """Soft Kuwahara filter (after Papari et al. 2007): each pixel takes the colours of the calmest of eight overlapping neighbourhoods."""
    size = max(3, round(radius) | 1)
    squares = cv2.boxFilter(image * image, -1, (size, size))
    means = cv2.boxFilter(image, -1, (size, size))
    variance = np.maximum(squares - means * means, 0).sum(2)
    total = np.zeros_like(image)
    weights = np.full(image.shape[:2], 1e-12, np.float32)
    reach = 0.5 * size
    height, width = image.shape[:2]
    for angle in np.arange(8) * np.pi / 4:
        shift = np.array([[1, 0, reach * np.cos(angle)], [0, 1, reach * np.sin(angle)]], np.float32)
        mean = cv2.warpAffine(means, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        calm = cv2.warpAffine(variance, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        weight = 1 / (1e-3 + np.sqrt(calm)) ** sharpness
        total += weight[..., None] * mean
        weights += weight
    return total / weights[..., None]


def edges(light: np.ndarray, scale: float, width: float = 1.0) -> np.ndarray:
    """Dark contours only [H, W], 1 on paper: where a pixel is darker than its surroundings, whatever its own tone."""
    fine, coarse = gaussian(light, width * scale), gaussian(light, 1.6 * width * scale)
    darker = np.maximum(coarse - fine, 0) / (0.35 + coarse)
    slope = darker / 0.018
    return np.exp(-(np.maximum(slope - 0.25, 0) ** 1.2)).astype(np.float32)


def flow(light: np.ndarray, scale: float) -> np.ndarray:
    """Unit tangents [H, W, 2] along the picture's contours, from its smoothed structure tensor."""
    x = cv2.Sobel(gaussian(light, 1.5 * scale), cv2.CV_32F, 1, 0)
    y = cv2.Sobel(gaussian(light, 1.5 * scale), cv2.CV_32F, 0, 1)
    # a fixed slant decides where the picture has no direction of its own
    tensor = gaussian(np.stack([x * x + 1e-3, x * y + 1e-3, y * y + 1e-3], -1), 9 * scale)
    angle = 0.5 * np.arctan2(2 * tensor[..., 1], tensor[..., 0] - tensor[..., 2]) + np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def strokes(texture: np.ndarray, tangents: np.ndarray, length: float) -> np.ndarray:
    """Texture [H, W] smeared along the tangents (line integral convolution), deviation kept."""
    height, width = texture.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = texture.copy()
    steps = max(2, round(length / 3))
    for sign in (-1.0, 1.0):
        across, down = x.copy(), y.copy()
        previous = tangents * sign
        for _ in range(steps):
            across, down = across + 1.5 * previous[..., 0], down + 1.5 * previous[..., 1]
            total += cv2.remap(texture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            here = cv2.remap(tangents, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
            turn = np.sign((here * previous).sum(-1, keepdims=True))
            previous = here * np.where(turn == 0, 1, turn)
    return total / np.sqrt(2 * steps + 1)


def step(low: float | np.ndarray, high: float | np.ndarray, values: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def levels(values: np.ndarray, count: int, firmness: float = 6.0) -> np.ndarray:
    """Values in [0, 1] pulled to ``count`` fixed levels, with soft steps so that a level's border does not flicker."""
    scaled = values * count
    whole = np.floor(scaled)
    return (whole + 0.5 + 0.5 * np.tanh(firmness * (scaled - whole - 0.5)) / np.tanh(0.5 * firmness)) / count
