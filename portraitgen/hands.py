"""Hands before the person: where MediaPipe sees them in the working crop, and what they and their arms may hide there.

The bodies that are learned end at the elbows: hands that pass before the person are not learned as a part of it (see `mattes.BodyShown`)
but laid over the result as the clip has them, see `hand_layer`; `hand_tracking` poses them for views from the side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

import cv2
import numpy as np
import torch
from torch import Tensor

LAYER = "hands.mp4"  # their alpha in a portrait's folder, see `hand_layer`
WRIST, MIDDLE = 0, 9
PALM = (0, 1, 5, 9, 13, 17)
_KNUCKLES = (5, 17)
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_BROAD = 1.3  # length of a palm, in widths: the larger of both tells the size of one that is seen at a slant
_CONFIDENCE = 0.4
_JUMP = 1.5  # palms that a hand may move by from one frame that shows it to the next
_SAME = 0.5  # palms that one hand's joints are beside another's, where both are the same hand
_SHORTEST = 0.15  # seconds that a hand is seen for, or it is a mistake
_GAP = 0.4  # seconds without it that are bridged
_BEYOND = 0.6  # seconds for which one that was lost is carried on: it leaves the picture fingers last
_STRIDE = 0.25  # palms between the places on the way of one that is carried on
_SPEED = 0.15  # seconds at either end that tell how fast
_FINGER, _CORE = 0.17, 0.14  # in palms: the width of a finger, and of what surely is one
_AROUND = 0.25  # in palms: what may be beside it
_SPREAD = 0.12  # in palms: how far what is seen of a hand is widened, for its own shade and for what is blurred
_WHOLE = 0.9  # share of the joints within the picture
_ARM, _OPENING = 3.5, 0.55  # in palms: how far an arm is looked for from the wrist; how much wider at every palm

_Row = tuple[int, np.ndarray, bool]  # frame, joints [21, 5], and whether they were seen


@dataclass(frozen=True)
class Hands:
    """Hands in a clip of S² pictures, a row for every hand in every frame.

    Attributes:
        frames: index of the frame ``[N]``.
        points: MediaPipe's joints ``[N, 21, 2]`` (x, y) in pixels.
        world: the same as it guesses them in space ``[N, 21, 3]``, metres about the hand's middle, in the camera's axes.
        seen: False where a hand was not found but is carried over from other frames, and at either end ``[N]``.
        runs: number of the gesture, one hand from where it is first seen to where it is lost ``[N]``.
        right: True for what looks like a person's right hand ``[N]``.
        size: S.
    """

    frames: np.ndarray
    points: np.ndarray
    world: np.ndarray
    seen: np.ndarray
    runs: np.ndarray
    right: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.frames)

    def to_tensors(self) -> dict[str, Tensor]:
        return {name: torch.as_tensor(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Hands:
        """What `to_tensors` gave. Raises KeyError for what an earlier version wrote."""
        arrays = {name: tensors[name].numpy() for name in cls.__dataclass_fields__ if name != "size"}
        return cls(**arrays, size=int(tensors["size"]))

    def around(self, frame: int, beside: float = _AROUND, *, anywhere: bool = False) -> np.ndarray:
        """Where hands and their arms may be in a frame ``[S, S]``, bool; generous, for it is what is not learned from at first.

        Args:
            beside: palms by which fingers may be beside where they were found.
            anywhere: also between the place to which a hand is carried on and that where it was seen.
        """
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self._places(frame, anywhere):
            palm = palm_length(points)
            _draw(mask, points, (_FINGER + 2 * beside) * palm)
            cv2.fillConvexPoly(mask, _arm(points, palm), 1)
        return mask.astype(bool)

    def outline(self, frame: int, *, anywhere: bool = False) -> np.ndarray:
        """Fingers and palms in a frame ``[S, S]``, bool, about as broad as they are.

        Args:
            anywhere: as in `around`.
        """
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self._places(frame, anywhere):
            _draw(mask, points, _FINGER * palm_length(points))
        return mask.astype(bool)

    def _places(self, frame: int, anywhere: bool) -> Iterator[np.ndarray]:
        """Joints ``[21, 2]`` of the hands in a frame; of one that is carried on, if ``anywhere``, also all the way from where it was seen.

        A hand that sinks out of the picture may stop before, with its fingertips still in it.
        """
        for row in np.flatnonzero(self.frames == frame):
            points = self.points[row]
            yield points
            known = np.flatnonzero(self.seen & (self.runs == self.runs[row]))
            if not anywhere or self.seen[row] or not len(known):
                continue
            start = self.points[known[np.abs(self.frames[known] - frame).argmin()]]
            far = float(np.linalg.norm(points - start, axis=1).max())
            steps = int(np.ceil(min(far, self.size) / (_STRIDE * palm_length(start))))
            for share in np.arange(steps) / max(steps, 1):
                yield start + share * (points - start)

    def core(self, frame: int) -> np.ndarray:
        """What surely is a hand in a frame ``[S, S]``, bool; nothing of one that the picture's edge cuts, for it is guessed at."""
        mask = np.zeros((self.size, self.size), np.uint8)
        for points in self.points[(self.frames == frame) & self.seen]:
            if ((points > 0) & (points < self.size)).all(1).mean() >= _WHOLE:
                _draw(mask, points, _CORE * palm_length(points))
        return mask.astype(bool)

    def spread(self, frame: int, mask: np.ndarray) -> np.ndarray:
        """What is seen of a frame's hands ``[S, S]``, bool, and a little around it."""
        palms = [palm_length(points) for points in self.points[self.frames == frame]]
        side = 2 * round(_SPREAD * max(palms)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def palm_length(points: np.ndarray) -> float:
    """From wrist to knuckles, in the unit of ``points`` ``[21, 2]``, as if the palm faced the camera."""
    length, width = (float(np.linalg.norm(points[a] - points[b])) for a, b in ((WRIST, MIDDLE), _KNUCKLES))
    return max(length, _BROAD * width)


def _draw(mask: np.ndarray, points: np.ndarray, width: float) -> None:
    """Palm and fingers, the latter of a width in pixels."""
    whole = np.rint(points).astype(np.int32)
    thickness = max(1, round(width))
    cv2.fillConvexPoly(mask, cv2.convexHull(whole[list(PALM)]), 1)
    cv2.polylines(mask, [whole[list(PALM)]], True, 1, thickness)
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


def arm_direction(points: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Where the arm of the hand at ``points`` ``[21, 2]`` goes from the wrist, a unit vector ``[2]``; NaN where it does not show.

    Args:
        layer: alpha of hands and arms ``[S, S]`` uint8.
    """
    mask = np.zeros_like(layer)
    palm = palm_length(points)
    cv2.fillConvexPoly(mask, _arm(points, palm), 1)
    rows, columns = np.nonzero((mask > 0) & (layer > 128))
    away = np.stack([columns, rows], 1) + 0.5 - points[WRIST]
    away = away[np.linalg.norm(away, axis=1) > 0.5 * palm]
    middle = away.mean(0) if len(away) > palm else np.full(2, np.nan)
    return (middle / np.linalg.norm(middle)).astype(np.float32)


def _same(points: np.ndarray, other: np.ndarray) -> bool:
    """Whether joints ``[21, 2]`` and others are of one hand."""
    return bool(np.linalg.norm(points - other, axis=1).mean() < _SAME * palm_length(other))


def _gone_on_by(row: _Row, others: list[_Row]) -> bool:
    """Whether a hand that is carried on is what another run shows."""
    frame, points, _ = row
    return any(seen and there == frame and _same(points[:, :2], where[:, :2]) for there, where, seen in others)


@dataclass
class _Run:
    """One hand from where it is first seen to where it is lost."""

    frames: list[int] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)  # [21, 2] and [21, 3] side by side
    right: list[bool] = field(default_factory=list)


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
        found = self.graph.process(frame)
        if not found.multi_hand_landmarks:
            return
        here: list[np.ndarray] = []
        streams = (found.multi_hand_landmarks, found.multi_hand_world_landmarks, found.multi_handedness)
        for hand, world, name in zip(*streams, strict=True):
            points = np.array([(p.x * self.size, p.y * self.size) for p in hand.landmark], np.float32)
            if any(_same(points, other) for other in here):  # one hand may be followed as two
                continue
            here.append(points)
            metres = np.array([(p.x, p.y, p.z) for p in world.landmark], np.float32)
            run = self._run_of(number, points)
            run.frames.append(number)
            run.points.append(np.concatenate([points, metres], 1))
            run.right.append(name.classification[0].label == "Left")  # it takes every picture for a mirror's

    def _run_of(self, number: int, points: np.ndarray) -> _Run:
        """The run that a hand at ``points`` ``[21, 2]`` goes on with, or a new one."""
        palm, centre = palm_length(points), points.mean(0)
        going = [
            (float(np.linalg.norm(run.points[-1][:, :2].mean(0) - centre)), index)
            for index, run in enumerate(self.runs)
            if run.frames[-1] < number and self.times[number] - self.times[run.frames[-1]] <= _GAP
        ]
        distance, index = min(going, default=(np.inf, 0))
        if distance < _JUMP * palm:
            return self.runs[index]
        self.runs.append(_Run())
        return self.runs[-1]

    def found(self) -> Hands | None:
        """The hands of all frames seen so far, gaps bridged and both ends carried on, run by run; None if there are none."""
        runs = [run for run in self.runs if self._is_hand(run)]
        rows = [
            (*row, number) for number, run in enumerate(runs) for row in sorted(self._filled(run), key=itemgetter(0))
        ]
        if not rows:
            return None
        frames, points, seen, numbers = (np.array(column) for column in zip(*rows, strict=True))
        right = np.array([np.mean(run.right) > 0.5 for run in runs])[numbers]
        points, world = points[..., :2].astype(np.float32), points[..., 2:].astype(np.float32)
        return Hands(frames, points, world, seen, numbers, right, self.size)

    def _is_hand(self, run: _Run) -> bool:
        return len(run.frames) > 2 and bool(self.times[run.frames[-1]] - self.times[run.frames[0]] >= _SHORTEST)

    def _filled(self, run: _Run) -> Iterator[_Row]:
        """Frame, joints ``[21, 5]`` and whether they were seen, for all frames from before the first to behind the last."""
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
            speed[2:] = 0  # what is in metres has its origin in the hand
            frame = int(known[index]) + step
            while 0 <= frame < len(times) and abs(times[frame] - edge) <= _BEYOND:
                yield frame, points[index] + (times[frame] - edge) * speed, False
                frame += step
