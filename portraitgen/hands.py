"""Hands before the person: where MediaPipe sees them in the working crop, and what they and their arms may hide there.

Neither body model of this package carries hands: what of them passes before the person is not learned as a part of it (see
`mattes.body_shown`) but laid over the result as the clip has it, see `hand_layer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

JOINTS = 21
WRIST, MIDDLE = 0, 9
_PALM = (0, 1, 5, 9, 13, 17)
_KNUCKLES = (5, 17)
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_BROAD = 1.3  # length of a palm, in widths: the larger of both tells the size of one that is seen at a slant
_CONFIDENCE = 0.4
_JUMP = 1.5  # palms that a hand may move by from one frame that shows it to the next
_SHORTEST = 0.15  # seconds that a hand is seen for, or it is a mistake
_GAP = 0.4  # seconds without it that are bridged
_BEYOND = 0.6  # seconds for which one that was lost is carried on: it leaves the picture fingers last
_SPEED = 0.15  # seconds at either end that tell how fast
_FINGER, _CORE = 0.17, 0.14  # in palms: the width of a finger, and of what surely is one
_AROUND = 0.25  # in palms: what may be beside it
_WHOLE = 0.9  # share of the joints within the picture
_ARM, _OPENING = 3.5, 0.55  # in palms: how far an arm is looked for from the wrist; how much wider at every palm


@dataclass(frozen=True)
class Hands:
    """Hands in a clip of S² pictures, a row for every hand in every frame.

    Attributes:
        frames: index of the frame ``[N]``.
        points: MediaPipe's joints ``[N, 21, 2]`` (x, y) in pixels.
        seen: False where a hand was not found but is carried over from other frames, and at either end ``[N]``.
        size: S.
    """

    frames: np.ndarray
    points: np.ndarray
    seen: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.frames)

    def to_tensors(self) -> dict[str, Tensor]:
        arrays = {"frames": self.frames, "points": self.points, "seen": self.seen}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"size": torch.tensor(self.size)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Hands:
        frames, points, seen = (tensors[name].numpy() for name in ("frames", "points", "seen"))
        return cls(frames, points, seen, int(tensors["size"]))

    def around(self, frame: int) -> np.ndarray:
        """Where hands and their arms may be in a frame ``[S, S]``, bool; generous, for it is what is not learned from."""
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self.points[self.frames == frame]:
            palm = palm_length(points)
            _draw(mask, points, (_FINGER + 2 * _AROUND) * palm)
            cv2.fillConvexPoly(mask, _arm(points, palm), 1)
        return mask.astype(bool)

    def outline(self, frame: int) -> np.ndarray:
        """Fingers and palms in a frame ``[S, S]``, bool, about as broad as they are."""
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self.points[self.frames == frame]:
            _draw(mask, points, _FINGER * palm_length(points))
        return mask.astype(bool)

    def core(self, frame: int) -> np.ndarray:
        """What surely is a hand in a frame ``[S, S]``, bool; nothing of one that the picture's edge cuts, for it is guessed at."""
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self.points[(self.frames == frame) & self.seen]:
            if ((points > 0) & (points < self.size)).all(1).mean() >= _WHOLE:
                _draw(mask, points, _CORE * palm_length(points))
        return mask.astype(bool)


def palm_length(points: np.ndarray) -> float:
    """From wrist to knuckles, in the unit of ``points`` ``[21, 2]``, as if the palm faced the camera."""
    length, width = (float(np.linalg.norm(points[a] - points[b])) for a, b in ((WRIST, MIDDLE), _KNUCKLES))
    return max(length, _BROAD * width)


def _draw(mask: np.ndarray, points: np.ndarray, width: float) -> None:
    """Palm and fingers, the latter of a width in pixels."""
    whole = np.rint(points).astype(np.int32)
    thickness = max(1, round(width))
    cv2.fillConvexPoly(mask, cv2.convexHull(whole[list(_PALM)]), 1)
    if width > 2:
        cv2.polylines(mask, [whole[list(_PALM)]], True, 1, thickness)
    for finger in _FINGERS:
        cv2.polylines(mask, [whole[list(finger)]], False, 1, thickness)


def _arm(points: np.ndarray, palm: float) -> np.ndarray:
    """The corners ``[4, 2]`` of where the arm may be, which goes on from the wrist about as the palm does, whole pixels."""
    along = points[WRIST] - points[MIDDLE]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    across = np.array([-along[1], along[0]])
    near, far = points[WRIST] - 0.3 * palm * along, points[WRIST] + _ARM * palm * along
    start, end = 0.6 * palm, (0.6 + _OPENING * _ARM) * palm
    return np.rint([near - start * across, near + start * across, far + end * across, far - end * across]).astype(
        np.int32
    )


@dataclass
class _Run:
    """One hand from where it is first seen to where it is lost."""

    frames: list[int] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)


class HandFinder:
    """Finds hands in the frames of a stream. One thread's; `close` frees MediaPipe's graph.

    Args:
        timestamps: of the frames ``[T]``, seconds.
    """

    def __init__(self, timestamps: np.ndarray) -> None:
        from mediapipe.python.solutions.hands import Hands as Graph

        self.times = np.asarray(timestamps, np.float64)
        self.graph = Graph(
            max_num_hands=2,
            model_complexity=1,
            min_detection_confidence=_CONFIDENCE,
            min_tracking_confidence=_CONFIDENCE,
        )
        self.runs: list[_Run] = []
        self.size = 0

    def close(self) -> None:
        self.graph.close()

    def see(self, number: int, frame: np.ndarray) -> None:
        """Look at frame ``number``, ``[S, S, 3]`` uint8; in order."""
        self.size = len(frame)
        for hand in self.graph.process(frame).multi_hand_landmarks or ():
            points = np.array([(p.x, p.y) for p in hand.landmark], np.float32) * self.size
            run = self._run_of(number, points)
            run.frames.append(number)
            run.points.append(points)

    def _run_of(self, number: int, points: np.ndarray) -> _Run:
        """The run that a hand goes on with, or a new one."""
        palm, centre = palm_length(points), points.mean(0)
        going = [
            (float(np.linalg.norm(run.points[-1].mean(0) - centre)), index)
            for index, run in enumerate(self.runs)
            if run.frames[-1] < number and self.times[number] - self.times[run.frames[-1]] <= _GAP
        ]
        distance, index = min(going, default=(np.inf, 0))
        if distance < _JUMP * palm:
            return self.runs[index]
        self.runs.append(_Run())
        return self.runs[-1]

    def found(self) -> Hands | None:
        """The hands of all frames seen so far, gaps bridged and both ends carried on; None if there are none."""
        rows = [row for run in self.runs if self._is_hand(run) for row in self._filled(run)]
        if not rows:
            return None
        rows.sort(key=lambda row: row[0])
        frames, points, seen = zip(*rows, strict=True)
        return Hands(np.array(frames), np.stack(points).astype(np.float32), np.array(seen), self.size)

    def _is_hand(self, run: _Run) -> bool:
        return len(run.frames) > 2 and bool(self.times[run.frames[-1]] - self.times[run.frames[0]] >= _SHORTEST)

    def _filled(self, run: _Run) -> Iterator[tuple[int, np.ndarray, bool]]:
        """Frame, joints and whether they were seen, for all frames from before the first to behind the last."""
        known, points, times = np.array(run.frames), np.stack(run.points), self.times
        for frame in range(known[0], known[-1] + 1):
            after = int(np.searchsorted(known, frame))
            if known[after] == frame:
                # Where it is lost, a hand has often been followed for a frame too many.
                yield frame, points[after], 0 < after < len(known) - 1
                continue
            begin, end = times[known[after - 1]], times[known[after]]
            share = (times[frame] - begin) / (end - begin)
            yield frame, points[after - 1] + share * (points[after] - points[after - 1]), False
        for index, step in ((0, -1), (len(known) - 1, 1)):
            edge = times[known[index]]
            near = np.abs(times[known] - edge) <= _SPEED
            span = times[known[near]][-1] - times[known[near]][0]
            speed = (points[near][-1] - points[near][0]).mean(0) / max(float(span), 1e-3)
            frame = int(known[index]) + step
            while 0 <= frame < len(times) and abs(times[frame] - edge) <= _BEYOND:
                yield frame, points[index] + (times[frame] - edge) * speed, False
                frame += step
