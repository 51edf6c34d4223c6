"""Masks, and ways to fill in what a picture does not show."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

Ellipse = tuple[tuple[float, float], tuple[float, float], float]  # centre, diameters in pixels, degrees, as in OpenCV
RING = (0.5, 1.05)  # radii of the ring that continued_around unrolls, as parts of the ellipse's
RING_SIZE = (1024, 160)  # px: around, across


def soft(mask: np.ndarray, sigma: float) -> np.ndarray:
    """The mask blurred, float32."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)


def grown(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask dilated by a disc `side` pixels across."""
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0


def shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask eroded by a disc `side` pixels across."""
    return ~grown(~mask, side)


def continued_around(picture: np.ndarray, known: np.ndarray, wanted: np.ndarray, ellipse: Ellipse) -> np.ndarray:
    """The picture [S, S, 3] with the `wanted` part of a ring filled in along it, from both ends of what is `known`."""
    centre, axes, degrees = ellipse
    turn = cv2.getRotationMatrix2D((0, 0), -degrees, 1)[:, :2] * (np.array(axes) / 2)  # unit circle to pixels
    (around, across), (inner, outer) = RING_SIZE, RING
    angles, radii = np.meshgrid(np.linspace(-np.pi, np.pi, around, endpoint=False), np.linspace(inner, outer, across))
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=-1) * radii[..., None]
    source = (circle @ turn.T + centre).astype(np.float32)
    ring = cv2.remap(picture, source, None, cv2.INTER_LINEAR).astype(np.float32)
    seen = cv2.remap(known.astype(np.float32), source, None, cv2.INTER_LINEAR) > 0.99
    for row, there in zip(ring, seen, strict=True):
        if there.any():
            for channel in row.T:
                ends = np.flatnonzero(there), channel[there]
                channel[~there] = np.interp(np.flatnonzero(~there), *ends, period=around)
    rows, columns = np.mgrid[: len(picture), : len(picture)]
    unit = (np.stack((columns, rows), axis=-1) - centre) @ np.linalg.inv(turn).T
    radius, angle = np.linalg.norm(unit, axis=-1), np.arctan2(unit[..., 1], unit[..., 0])
    back = ((angle + np.pi) / (2 * np.pi) * around, (radius - inner) / (outer - inner) * (across - 1))
    closed = np.pad(ring, ((0, 0), (0, 1), (0, 0)), mode="wrap")
    filled = cv2.remap(closed, np.stack(back, axis=-1).astype(np.float32), None, cv2.INTER_LINEAR)
    on_ring = wanted & (radius > inner + 0.02) & (radius < outer - 0.01)
    return np.where(on_ring[..., None], np.rint(filled), picture).astype(np.uint8)


def smooth_mask(outline: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Antialiased inside of a closed outline [N, 2] in pixels, softened by `sigma` pixels; [size, size] float32."""
    canvas = cv2.fillPoly(np.zeros((size * 8, size * 8), np.uint8), [np.rint(outline * 8).astype(np.int32)], 1)
    return soft(cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA), sigma)


class Harmonic:
    """Smooth interpolation of values given at some pixels of a picture to all its pixels (Laplace's equation)."""

    def __init__(self, known: np.ndarray) -> None:
        """known: [H, W] bool."""
        self.known = known
        count = int((~known).sum())
        index = np.full(known.shape, -1)
        index[~known] = np.arange(count)
        index = index.ravel()
        ids = np.arange(known.size).reshape(known.shape)
        pairs = np.concatenate(
            [np.stack((a.ravel(), b.ravel())) for a, b in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:]))], axis=1
        )
        pixel, neighbour = np.concatenate((pairs, pairs[::-1]), axis=1)
        row, neighbour = index[pixel[index[pixel] >= 0]], neighbour[index[pixel] >= 0]
        border = index[neighbour] < 0  # the neighbour is known
        within = row[~border], index[neighbour[~border]]
        inner = coo_matrix((np.ones(len(within[0])), within), (count, count))
        self.solver = splu((diags(np.bincount(row, minlength=count).astype(float)) - inner).tocsc())
        self.border = coo_matrix((np.ones(border.sum()), (row[border], neighbour[border])), (count, known.size)).tocsr()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """values: [H, W, C], read where known. Returns [H, W, C]."""
        out = values.astype(np.float64)
        out[~self.known] = 0
        out[~self.known] = self.solver.solve(self.border @ out.reshape(-1, out.shape[-1]))
        return out
