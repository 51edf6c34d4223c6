"""Letterbox and pillarbox bars: rows and columns along the border that show one colour throughout a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SAME = 12  # difference in the worst channel (0..255) that codecs leave in a bar
STRAYS = 0.005  # share of a bar's pixels that may differ more: ringing where the picture begins
EDGE = 0.6  # share of the picture's rim that differs from the bar; a wall or a dark coat ends raggedly instead
WIDEST = 0.45  # share of the side that one bar may take


@dataclass(frozen=True)
class Bars:
    """Widths of a clip's bars in pixels, 0 where there is none."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))

    def picture(self, image: np.ndarray) -> np.ndarray:
        """View of `image` [H, W, ...] without the bars."""
        height, width = image.shape[:2]
        return image[self.top : height - self.bottom, self.left : width - self.right]

    def fill(self, image: np.ndarray) -> np.ndarray:
        """`image` [H, W, ...] with its rim continued over the bars."""
        return (
            cv2.copyMakeBorder(self.picture(image), self.top, self.bottom, self.left, self.right, cv2.BORDER_REPLICATE)
            if self
            else image
        )

    def clear(self, image: np.ndarray) -> np.ndarray:
        """`image` [H, W, ...] with zeros in the bars."""
        if not self:
            return image
        result = np.zeros_like(image)
        self.picture(result)[:] = self.picture(image)
        return result


def find_bars(frames: Sequence[np.ndarray]) -> Bars:
    """The bars that all `frames` [H, W, 3] uint8 have in common."""
    stack = np.stack(frames)
    sides = [stack, stack[:, ::-1], stack.swapaxes(1, 2), stack.swapaxes(1, 2)[:, ::-1]]
    reach = [_uniform_lines(side) for side in sides]
    widths = []
    for index, side in enumerate(sides):
        across = reach[2:] if index < 2 else reach[:2]  # the rim lies between the bars of the other direction
        last = side.shape[2] - across[1]
        widths.append(_up_to_the_edge(side[:, :, across[0] : last], reach[index]) if across[0] < last else 0)
    return Bars(*widths)


def _uniform_lines(side: np.ndarray) -> int:
    """How many lines from the first one on [N, lines, length, 3] show the colour of the first one."""
    for line in range(side.shape[1]):
        if (_distance(side, line) > SAME).mean() > STRAYS:
            return line
    return side.shape[1]


def _up_to_the_edge(side: np.ndarray, lines: int) -> int:
    """Width of the bar whose first `lines` lines are of one colour; 0 unless the picture begins there with a step."""
    if not 2 <= lines <= WIDEST * side.shape[1]:
        return 0
    first, second, third = (np.median(_distance(side, lines + step), axis=0) for step in range(3))
    if (third > SAME).mean() < EDGE:
        return 0
    mixed = np.median(first) < 0.7 * np.median(second)  # scaling mixes the bar into the picture's first line
    return lines + int(mixed)


def _distance(side: np.ndarray, line: int) -> np.ndarray:
    """Difference of a line's pixels from the bar's colour [N, length], worst channel."""
    colour = np.median(side[:, 0], axis=(0, 1)).astype(np.int16)
    return np.abs(side[:, line].astype(np.int16) - colour).max(axis=-1)
