"""Which frames of a clip show the person well enough to learn from, and what to say about the others.

A frame without the person's face is *away* when its neighbours cannot bridge it: it stays as it is in the clip. What is
*covered* (a hand, an object), *blurred* or badly tracked is rendered like all others but not learned from. Each is judged
against the clip itself, so that a soft or a noisy clip is not thrown out as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from .landmarks import LONGEST_GAP

_OVAL_TO_BOX = 1.1  # reach of the face's box, in half sides
_FACE_SIDE = 128  # px, at most, at which sharpness is compared
_BLURRED = 0.6  # share of the clip's median sharpness below which a face is blurred
_STRANGE = 35.0  # difference in colour (root mean square, 0 to 255) at which a point of the face looks covered
_COVERED = 0.12  # share of strange points, above the clip's own spread, from which a face counts as covered
_SPREAD = 5.0  # median absolute deviations that are ordinary
_DOUBTFUL = 0.04  # landmark error (fraction of the inter-ocular distance) below which no frame is doubted
_CROSSING = 0.03  # of the crop's side, on which a person that goes on beyond it covers it
_OFTEN = 0.05  # share of the frames in which that is worth a word
_LEAST = 0.25  # share of the frames with a face that are always learned from, the best ones


@dataclass(frozen=True)
class Screening:
    """What was found about each of T frames."""

    away: np.ndarray  # [T] bool: the person is not shown
    bridged: np.ndarray  # [T] bool: shown, but without a believable face
    blurred: np.ndarray  # [T] bool
    covered: np.ndarray  # [T] bool
    doubtful: np.ndarray  # [T] bool: the landmarks do not fit the face
    elsewhere: np.ndarray  # [T] bool: another person or scene; part of away

    @property
    def usable(self) -> np.ndarray:
        """Mask [T] of the frames to learn from."""
        return ~(self.away | self.bridged | self.blurred | self.covered | self.doubtful)

    def to_tensors(self) -> dict[str, Tensor]:
        return {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Screening:
        return cls(**{field.name: tensors[field.name].numpy() for field in fields(cls)})


def find_away(bridged: np.ndarray, elsewhere: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Mask [T] of the frames that do not show the person: other scenes, and stretches without a face that are too long to bridge."""
    away = elsewhere.copy()
    for run in runs(bridged):
        after = min(run[-1] + 1, len(timestamps) - 1)
        if timestamps[after] - timestamps[run[0]] > LONGEST_GAP:
            away[run] = True
    return away


class FaceMeter:
    """Measures the face in each frame of a stream.

    Args:
        faces: FaceMesh points in pixels of the frames ``[T, 478, 2]``, rows of NaN without a face.
    """

    def __init__(self, faces: np.ndarray) -> None:
        self.faces = faces
        sides = np.ptp(faces, axis=1).max(1) * _OVAL_TO_BOX
        # Every face is shrunk to the smallest one's size: coming nearer is not a loss of sharpness.
        self.side = max(8, min(_FACE_SIDE, int(np.nanmin(sides, initial=_FACE_SIDE))))
        self.sharpness = np.full(len(faces), np.nan)
        self.colours = np.full((len(faces), faces.shape[1], 3), np.nan, np.float32)

    def see(self, number: int, frame: np.ndarray) -> None:
        """Measure frame ``number``, ``[S, S, 3]`` uint8."""
        points = self.faces[number]
        if np.isnan(points).any():
            return
        low, high = points.min(0), points.max(0)
        reach = (high - low).max() / 2 * _OVAL_TO_BOX
        (left, top), (right, bottom) = (
            np.clip((low + high) / 2 + step * reach, 0, frame.shape[0]).astype(int).tolist() for step in (-1, 1)
        )
        face = frame[top:bottom, left:right]
        if min(face.shape[:2]) < 8:
            return  # the face is at the crop's edge
        gray = cv2.cvtColor(cv2.resize(face, (self.side, self.side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        contrast = max(float(gray.std()), 1.0)  # less light is no blur
        self.sharpness[number] = float(np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean()) / contrast
        soft = cv2.blur(frame, (2 * max(1, round(0.05 * reach)) + 1,) * 2)
        columns, rows = np.clip(points, 0, frame.shape[0] - 1).astype(int).T
        self.colours[number] = soft[rows, columns]

    def blurred(self) -> np.ndarray:
        """Mask [T] of the faces that are much less sharp than most of the clip's."""
        return self.sharpness < _BLURRED * _median(self.sharpness)

    def covered(self) -> np.ndarray:
        """Mask [T] of the faces that something is in front of: many points have an unusual colour."""
        known = ~np.isnan(self.colours).any((1, 2))
        share = np.full(len(known), np.nan)
        if known.any():
            own = self.colours[known]
            own = own - np.median(own, axis=1, keepdims=True)  # exposure and tint may change
            share[known] = (np.sqrt(np.square(own - np.median(own, axis=0)).mean(2)) > _STRANGE).mean(1)
        return share > _COVERED + _median(share) + _SPREAD * _median(np.abs(share - _median(share)))


def screen(
    bridged: np.ndarray,
    landmark_error: np.ndarray,
    elsewhere: np.ndarray,
    timestamps: np.ndarray,
    meter: FaceMeter,
) -> Screening:
    """Judge all frames.

    Args:
        bridged, landmark_error: of the tracking ``[T]``.
        elsewhere: of the landmarks ``[T]``.
        timestamps: seconds ``[T]``.
        meter: has seen all frames.
    """
    away = find_away(bridged, elsewhere, timestamps)
    error = np.where(bridged, np.nan, landmark_error)
    usual = _median(error) + _SPREAD * _median(np.abs(error - _median(error)))
    marks = {"blurred": meter.blurred(), "covered": meter.covered(), "doubtful": error > max(usual, _DOUBTFUL)}
    seen = ~(away | bridged)
    bad = np.any(list(marks.values()), axis=0) & seen
    needed = int(np.ceil(_LEAST * seen.sum())) - int((seen & ~bad).sum())
    if needed > 0:  # rather learn from poor frames than from next to none
        order = np.flatnonzero(bad)[np.argsort(-np.nan_to_num(meter.sharpness[bad]), kind="stable")]
        seen[order[:needed]] = False
    return Screening(
        away, bridged & ~away, **{name: mask & seen for name, mask in marks.items()}, elsewhere=elsewhere & away
    )


def describe(screening: Screening, timestamps: Iterable[float]) -> list[str]:
    """One sentence for each kind of frame that was treated apart, with its times."""
    times = list(timestamps)
    left, unlearned = "left as in the clip", "rendered but not learned from"
    kinds = (
        (screening.elsewhere, f"another person or scene, {left}"),
        (screening.away & ~screening.elsewhere, f"no face for long, {left}"),
        (screening.bridged, "no clear face, the pose is carried over from the frames around"),
        (screening.blurred, f"blurred, {unlearned}"),
        (screening.covered & ~screening.blurred, f"face covered, {unlearned}"),
        (screening.doubtful & ~screening.covered & ~screening.blurred, f"tracked badly, {unlearned}"),
    )
    return [f"{_spell(mask, times)}: {said}." for mask, said in kinds if mask.any()]


def reaches_beyond(alphas: Iterable[np.ndarray], open_sides: tuple[bool, bool]) -> np.ndarray:
    """Mask [T] of the frames in which the person goes on to the left or the right of the working crop.

    Args:
        alphas: ``[S, S]`` uint8, a stream.
        open_sides: whether the frame goes on beyond the crop's left side, and its right.
    """

    def crosses(alpha: np.ndarray, column: int) -> bool:
        return bool((alpha[:, column] > 128).mean() > _CROSSING)

    return np.array([any(crosses(alpha, -right) for right in (0, 1) if open_sides[right]) for alpha in alphas])


def describe_beyond(beyond: np.ndarray, timestamps: Iterable[float]) -> list[str]:
    """A sentence about the frames of `reaches_beyond`, unless they are too few to be seen."""
    if beyond.mean() < _OFTEN:
        return []
    said = "the person reaches beyond the square that is worked on, left as in the clip outside of it"
    return [f"{_spell(beyond, list(timestamps))}: {said}."]


def describe_hands(shown: np.ndarray, timestamps: Iterable[float]) -> list[str]:
    """A sentence about the frames in which hands are before the person, mask ``[T]``."""
    if not shown.any():
        return []
    said = "hands, taken from the clip as they are, in the colours of an edit, also where the view is from the side"
    return [f"{_spell(shown, list(timestamps))}: {said}."]


def runs(mask: np.ndarray) -> list[np.ndarray]:
    """The stretches of a mask ``[T]``: arrays of neighbouring indices."""
    marked = np.flatnonzero(mask)
    return np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1) if len(marked) else []


def _spell(mask: np.ndarray, times: list[float]) -> str:
    """How many frames and when: ``"9 frames (1.20 to 1.52 s)"``."""
    stretches = runs(mask)
    shown = [
        f"{times[run[0]]:.2f} s" if len(run) == 1 else f"{times[run[0]]:.2f} to {times[run[-1]]:.2f} s"
        for run in sorted(sorted(stretches, key=len)[-3:], key=lambda run: int(run[0]))
    ]
    more = "" if len(stretches) <= 3 else f" and {len(stretches) - 3} times more"
    count = int(mask.sum())
    return f"{count} frame{'' if count == 1 else 's'} ({', '.join(shown)}{more})"


def _median(values: np.ndarray) -> float:
    """Median of the known values; NaN, which no comparison holds for, if there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
