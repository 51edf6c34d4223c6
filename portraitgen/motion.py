"""A temporal filter that follows motion: running averages along optical flow, as far as the flow can be trusted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

LOOK_AHEAD = 2  # frames that each of the two temporal filters may see of the future
PERSISTENCE = (
    0.7  # share of the neighbouring frame's running average that a frame inherits where the motion is well explained
)


@dataclass
class Moment:
    """One frame in the temporal filters: the picture, the motion to its predecessor, the value being smoothed."""

    frame: np.ndarray  # [S, S, 3] uint8
    flow: Flow | None  # None for the first frame
    value: np.ndarray  # [H, W] float32, H = W = S or S / 2


@dataclass
class Flow:
    """Motion between a frame and the one before it, both ways, at half resolution."""

    to_previous: np.ndarray  # [S/2, S/2, 2] half-resolution pixels, on this frame's grid
    from_previous: np.ndarray  # [S/2, S/2, 2], on the previous frame's grid: where its pixels go in this frame
    trust_to: np.ndarray  # [S/2, S/2] 0..1, how well the motion explains this frame's colours
    trust_from: np.ndarray


def smooth_along_motion(items: Iterable[Moment]) -> Iterator[Moment]:
    """Running average along optical flow over the past and LOOK_AHEAD coming frames, as far as the flow is trusted."""
    window: deque[Moment] = deque()
    past: tuple[np.ndarray, np.ndarray] | None = None
    for item in items:
        window.append(item)
        if len(window) > LOOK_AHEAD:
            past, done = _smoothed_first(window, past)
            window.popleft()
            yield done
    while window:
        past, done = _smoothed_first(window, past)
        window.popleft()
        yield done


def _smoothed_first(
    window: deque[Moment], past: tuple[np.ndarray, np.ndarray] | None
) -> tuple[tuple[np.ndarray, np.ndarray], Moment]:
    first = window[0]
    total, weight = first.value.copy(), np.ones_like(first.value)
    if past is not None and first.flow is not None:
        share = PERSISTENCE * fitted(first.flow.trust_to, total.shape)
        total += share * _warp(past[0], first.flow.to_previous)
        weight += share * _warp(past[1], first.flow.to_previous)
    state = (total, weight)
    ahead, ahead_weight = np.zeros_like(total), np.zeros_like(weight)
    for item in reversed(list(window)[1:]):
        assert item.flow is not None
        share = PERSISTENCE * fitted(item.flow.trust_from, total.shape)
        ahead = share * _warp(ahead + item.value, item.flow.from_previous)
        ahead_weight = share * _warp(ahead_weight + 1, item.flow.from_previous)
    return state, Moment(first.frame, first.flow, (total + ahead) / (weight + ahead_weight))


def flow_between(estimator: cv2.DISOpticalFlow, previous: np.ndarray, current: np.ndarray) -> Flow:
    """Flow between two pictures ``[S/2, S/2, 3]`` uint8, both ways, with the trust that it deserves."""
    gray_previous, gray = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (previous, current))
    to_previous = estimator.calc(gray, gray_previous, None)
    from_previous = estimator.calc(gray_previous, gray, None)
    return Flow(
        to_previous,
        from_previous,
        _trust(current, previous, to_previous),
        _trust(previous, current, from_previous),
    )


def _trust(target: np.ndarray, source: np.ndarray, flow: np.ndarray) -> np.ndarray:
    residual = np.abs(_warp(source.astype(np.float32), flow) - target).max(axis=2) * np.float32(1 / 255)
    return np.exp(-np.square(cv2.blur(residual, (3, 3)) / 0.06))


def _warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample `image` where the half-resolution `flow` points; the image may be at full or at half resolution."""
    height, width = image.shape[:2]
    scale = width / flow.shape[1]
    field = (
        flow if scale == 1 else cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(scale)
    )
    grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image, grid_x + field[..., 0], grid_y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def fitted(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``image`` resampled to the height and width of ``shape``."""
    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
