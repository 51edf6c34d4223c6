"""Shots of a clip and the person in them: where the picture cuts, and which shots show the same person.

A cut is a jump in the colours of the picture's quarters. A person's look is a short vector: the ratios of distances
between points of the face that expressions hardly move, and the colours of skin, hair and clothes. Neither alone tells
two people apart; measured on clips of six people, together they do, within the light and the clothes of one clip.
"""

from __future__ import annotations

import cv2
import numpy as np

CUT = 0.25  # difference between neighbouring frames that makes a cut; moving people stay below 0.02, other scenes are above 0.4
SUSPICION = 0.05  # difference from which on a new look makes a cut
ANOTHER = 1.6  # distance between looks of different people; one person's stay below 1.4, others' were above 1.75

_BINS = 6  # of a colour histogram, for each channel
_RIGID = (33, 133, 263, 362, 168, 1, 2, 10, 127, 356)  # corners of the eyes, nose, top of the forehead, temples
_RATIOS = len(_RIGID) * (len(_RIGID) - 1) // 2
_SKIN = (151, 9, 195, 5, 4, 200)  # down the middle of the face: seen from the side too
_TOP, _CHIN = 10, 152
_RATIO_SPREAD = 0.03  # root mean square difference of logarithms
_EXPOSURE = 0.6  # of the skin (mean of R, G and B, 0 to 1), to which all colours are scaled
_COLOUR_SPREAD = 3.0  # root mean square difference in CIELAB
_MOST = 1.1  # that one colour adds to a distance
_LAB_WEIGHTS = np.array((0.3, 1.0, 1.0))  # light changes sooner than skin, hair and clothes


def palette(frame: np.ndarray) -> np.ndarray:
    """Square roots of the colour histograms of the quarters of ``frame`` ``[H, W, 3]`` uint8, a unit vector."""
    small = cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA)
    quarters = [small[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
    counts = [cv2.calcHist([quarter], [0, 1, 2], None, [_BINS] * 3, [0, 256] * 3).ravel() for quarter in quarters]
    return np.sqrt(np.concatenate(counts) / small[..., 0].size)


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """How much two palettes differ, 0 to 1."""
    return float(1 - before @ after)


def look(frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The look of the person with the FaceMesh points ``face`` ``[478, 3]`` in ``frame``; NaN for what is out of the picture."""
    up = face[_TOP, :2] - face[_CHIN, :2]
    side = float(np.linalg.norm(up))
    places = [(face[point, :2], (0.04, 0.04)) for point in _SKIN]
    skin = np.median([_colour(frame, place, np.multiply(side, reach)) for place, reach in places], axis=0)
    hair = _colour(frame, face[_TOP, :2] + 0.22 * up, side * np.array((0.25, 0.06)))
    clothes = _colour(frame, face[_CHIN, :2] - 0.85 * up, side * np.array((0.7, 0.25)))
    colours = np.stack((skin, hair, clothes))
    colours *= _EXPOSURE / np.maximum(colours[0].mean(), 1.0)  # a flash or a lamp is no other person
    unseen = np.isnan(colours).any(1)
    colours = cv2.cvtColor(colours[None], cv2.COLOR_RGB2LAB)[0]
    colours[unseen] = np.nan
    points = face[list(_RIGID)]
    first, second = np.triu_indices(len(points), 1)
    ratios = np.log(np.maximum(np.linalg.norm(points[first] - points[second], axis=1), 1e-3))
    ratios -= ratios.mean()
    tint = (colours * _LAB_WEIGHTS).ravel()
    return np.concatenate(
        (ratios / _RATIO_SPREAD / np.sqrt(len(ratios)), tint / _COLOUR_SPREAD / np.sqrt(len(tint)))
    ).astype(np.float32)


def _colour(frame: np.ndarray, middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Median colour ``[3]`` (0 to 255) of a box, ``reach`` to each side of its ``middle`` (pixels); NaN if half of it is outside."""
    (left, top), (right, bottom) = (np.round(middle + sign * np.maximum(reach, 1)).astype(int) for sign in (-1, 1))
    seen = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if 2 * seen.shape[0] * seen.shape[1] < (right - left) * (bottom - top):
        return np.full(3, np.nan, np.float32)
    step = max(1, min(seen.shape[:2]) // 16)
    return np.median(seen[::step, ::step].reshape(-1, 3), axis=0).astype(np.float32)


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances ``[...]`` between looks ``[..., D]``; what one of them does not know counts as equal.

    No single colour can tell people apart: a jacket opens, hair falls over the forehead.
    """
    parts = np.nan_to_num(np.square(first - second))
    colours = parts[..., _RATIOS:].reshape(*parts.shape[:-1], 3, 3).sum(-1)
    return np.sqrt(parts[..., :_RATIOS].sum(-1) + np.minimum(colours, _MOST**2).sum(-1))


def elsewhere(shots: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Mask ``[T]`` of the frames in shots that do not show the person whom most frames show.

    Args:
        shots: number of each frame's shot ``[T]``.
        looks: look of the face in each frame ``[T, D]``, rows of NaN without a face.
    """
    faces = ~np.isnan(looks).all(1)
    numbers = np.unique(shots[faces])
    if not len(numbers):
        return np.zeros(len(shots), bool)
    typical = np.stack([_median(looks[faces & (shots == number)]) for number in numbers])
    sizes = np.array([(faces & (shots == number)).sum() for number in numbers])
    alike = np.stack([distance(typical, one) < ANOTHER for one in typical])
    return ~np.isin(shots, numbers[alike[(alike * sizes).sum(1).argmax()]])


def _median(looks: np.ndarray) -> np.ndarray:
    """Median ``[D]`` of ``[N, D]`` over what is known; NaN where nothing is."""
    known = ~np.isnan(looks).all(0)
    median = np.full(looks.shape[1], np.nan, np.float32)
    median[known] = np.nanmedian(looks[:, known], axis=0)
    return median
