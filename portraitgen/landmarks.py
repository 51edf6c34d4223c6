"""Face and body landmarks of one person through a clip, with MediaPipe (its models come in the wheel).

FaceMesh and Pose look at a window around the person instead of the whole frame, so that small faces in large frames are
seen as well as close-ups, other people are left out, and 4K frames cost no more than small ones. Neither of MediaPipe's
causal smoothing filters is used: they lag. Smoothing is the tracker's business.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from . import shots
from .errors import InputError

FACE_POINTS, POSE_POINTS = 478, 33
LONGEST_GAP = 0.5  # seconds without a face that are bridged
POSE_EVERY = 3  # frames; shoulders move slowly and Pose costs five times what FaceMesh does
SEARCH_SIDE = 960  # px, longest side of what the whole-frame search looks at
WINDOW_SIDE = 640  # px, longest side of what the trackers look at


class FrameTimes(Protocol):
    """The part of ClipInfo that is needed here."""

    @property
    def frame_count(self) -> int: ...

    @property
    def timestamps(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Landmarks:
    """One person's landmarks in T frames, in pixels of the source frame; NaN where not found."""

    face: np.ndarray  # [T, 478, 3] FaceMesh points with irises: x, y, and relative depth on the scale of x
    pose: np.ndarray  # [T, 33, 4] Pose points: x, y, relative depth, visibility 0..1
    head_boxes: np.ndarray  # [T, 4] x0, y0, x1, y1 around the head with its hair
    shoulder_boxes: np.ndarray  # [T, 4] around shoulders and upper arms
    timestamps: np.ndarray  # [T] seconds
    elsewhere: np.ndarray  # [T] bool: the clip shows another person, or another scene without a face

    @property
    def found(self) -> np.ndarray:
        """Mask [T] of the frames with a face."""
        return np.isfinite(self.face[:, 0, 0])

    def to_tensors(self) -> dict[str, Tensor]:
        return {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Landmarks:
        known = {
            "elsewhere": torch.zeros(len(tensors["timestamps"]), dtype=torch.bool)
        } | tensors  # absent in older portraits
        return cls(**{field.name: known[field.name].numpy() for field in fields(cls)})


def detect_landmarks(
    frames: Iterator[np.ndarray], info: FrameTimes, on_frame: Callable[[int], None] | None = None
) -> Landmarks:
    """Landmarks of one person, from one pass over RGB uint8 frames.

    In each shot the largest face near the middle is followed; the person is whoever most frames show. Shots of other people count as frames
    without a face. on_frame is called with the number of frames seen so far. Raises InputError, as soon as it is known, where the person's
    face is missing from more than half of the frames.
    """
    times = np.asarray(info.timestamps, dtype=np.float64)
    faces = np.full((info.frame_count, FACE_POINTS, 3), np.nan, np.float32)
    poses = np.full((info.frame_count, POSE_POINTS, 4), np.nan, np.float32)
    looks: list[np.ndarray | None] = [None] * info.frame_count
    shot = np.zeros(info.frame_count, np.int64)
    before, last, misses = None, -1, 0
    person = _Person()
    try:
        for index, frame in enumerate(frames):
            colours = shots.palette(frame)
            change = 0.0 if before is None else shots.difference(before, colours)
            before = colours
            cut = change > shots.CUT
            if cut or (last >= 0 and times[index] - times[last] > LONGEST_GAP):
                person.forget()
            shot[index] = shot[max(index - 1, 0)] + cut
            face = person.find_face(frame)
            misses += face is None
            if face is not None:
                faces[index] = face
                looks[index] = own = shots.look(frame, face)
                known = looks[last] if last >= 0 else None
                if not cut and known is not None and shot[last] == shot[index]:
                    new = change > shots.SUSPICION and shots.distance(own, known) > shots.ANOTHER
                    shot[index] += new or times[index] - times[last] > LONGEST_GAP
                last = index
                if index % POSE_EVERY == 0 or index == info.frame_count - 1:
                    pose = person.find_pose(frame, face)
                    if pose is not None:
                        poses[index] = pose
            if misses * 2 > info.frame_count:
                check_coverage(np.isfinite(faces[: index + 1, 0, 0]), times[: index + 1])
            if on_frame is not None:
                on_frame(index + 1)
    finally:
        person.close()
    unknown = np.full(len(next((own for own in looks if own is not None), ())), np.nan, np.float32)
    elsewhere = shots.elsewhere(shot, np.stack([unknown if own is None else own for own in looks]))
    faces[elsewhere], poses[elsewhere] = np.nan, np.nan
    check_coverage(np.isfinite(faces[:, 0, 0]), times)
    poses = _fill_between(poses, times)
    height, width = frame.shape[:2]
    return Landmarks(faces, poses, head_boxes(faces), shoulder_boxes(poses, width, height), times, elsewhere)


def check_coverage(found: np.ndarray, timestamps: np.ndarray) -> None:
    """Raise InputError where a person's face is missing from more than half of the frames.

    found: mask [T]; timestamps: [T] seconds.
    """
    missing = np.flatnonzero(~found)
    if len(missing) * 2 <= len(found):
        return
    first = missing[0]
    start = float(timestamps[first] - timestamps[0])
    remedy = "Use a clip, or trim this one to a part, in which one face stays in view and is well lit."
    if start >= 1:
        remedy += f" The part before is used alone with --max-seconds {start:.2f}."
    if not found.any():
        raise InputError(f"No face was found, from frame 1 ({timestamps[0]:.2f} s) on. {remedy}")
    raise InputError(
        f"One person's face is missing from more than half of the frames; the first without it is frame {first + 1} "
        f"({timestamps[first]:.2f} s). {remedy}"
    )


def head_boxes(faces: np.ndarray) -> np.ndarray:
    """Boxes [T, 4] around whole heads, hair included, from FaceMesh points [T, 478, 2 or more]."""
    low, high = faces[..., :2].min(1), faces[..., :2].max(1)
    size = high - low
    return np.concatenate((low - size * (0.3, 0.5), high + size * (0.3, 0.1)), axis=1).astype(np.float32)


def shoulder_boxes(poses: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes [T, 4] around shoulders and what is seen of the upper arms, within the frame; from Pose points [T, 33, 4]."""
    shoulders, elbows = poses[:, 11:13], poses[:, 13:15]
    span = np.abs(shoulders[:, 0, 0] - shoulders[:, 1, 0])
    margin = np.stack((0.25 * span, 0.2 * span), axis=1)
    seen = elbows[..., 3] > 0.5
    elbow_points = np.where(seen[..., None], elbows[..., :2], shoulders[..., :2])
    points = np.concatenate((shoulders[..., :2], elbow_points), axis=1)
    boxes = np.concatenate((points.min(1) - margin, points.max(1) + margin), axis=1)
    return boxes.clip(0, (width, height, width, height)).astype(np.float32)


@dataclass(frozen=True)
class _Window:
    """A rectangle of the frame, in whole pixels, that a tracker looks at while the person stays in its middle.

    It may reach beyond the frame. For FaceMesh it is square, because it misplaces tilted faces in pictures that are not.
    """

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def around(cls, centre: np.ndarray, reach: float) -> _Window:
        left, top = (centre - reach).astype(int).tolist()
        return cls(left, top, max(round(2 * reach), 8), max(round(2 * reach), 8))

    @classmethod
    def whole(cls, frame: np.ndarray) -> _Window:
        height, width = frame.shape[:2]
        side = max(width, height)
        return cls((width - side) // 2, (height - side) // 2, side, side)

    def inside(self, frame: np.ndarray) -> _Window:
        """The part that lies in the frame."""
        left, top = max(self.left, 0), max(self.top, 0)
        right, bottom = min(self.left + self.width, frame.shape[1]), min(self.top + self.height, frame.shape[0])
        return _Window(left, top, max(right - left, 1), max(bottom - top, 1))

    def picture(self, frame: np.ndarray, largest: int, smallest: int = 0) -> np.ndarray:
        """The pixels, black beyond the frame, scaled so that the longer side is between smallest and largest."""
        seen = self.inside(frame)
        part = frame[seen.top : seen.top + seen.height, seen.left : seen.left + seen.width]
        if seen != self:
            above, before = seen.top - self.top, seen.left - self.left
            below, after = self.height - above - part.shape[0], self.width - before - part.shape[1]
            part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        side = max(self.width, self.height)
        scale = min(max(side, smallest), largest) / side
        if scale == 1:
            return np.ascontiguousarray(part)
        size = (max(round(self.width * scale), 1), max(round(self.height * scale), 1))
        return cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)

    def to_frame(self, landmarks: Any, count: int) -> np.ndarray:
        """MediaPipe's normalised landmarks as [count, 3] pixels of the frame."""
        points = np.array([(p.x, p.y, p.z) for p in landmarks.landmark[:count]])
        return points * (self.width, self.height, self.width) + (self.left, self.top, 0)

    def holds(self, centre: np.ndarray, margin: float) -> bool:
        """Whether the centre is at least the margin away from all sides."""
        low = np.array((self.left, self.top)) + margin
        high = np.array((self.left + self.width, self.top + self.height)) - margin
        return bool((centre >= low).all() and (centre <= high).all())


class _Person:
    """Follows one person: the state between frames and the MediaPipe graphs, which belong to one thread."""

    def __init__(self) -> None:
        os.environ.setdefault("GLOG_minloglevel", "2")
        from mediapipe.python.solutions.face_detection import FaceDetection
        from mediapipe.python.solutions.face_mesh import FaceMesh
        from mediapipe.python.solutions.pose import Pose

        options: dict[str, Any] = {"refine_landmarks": True, "min_tracking_confidence": 0.5}
        self.searcher = FaceMesh(static_image_mode=True, max_num_faces=4, min_detection_confidence=0.4, **options)
        self.tracker = FaceMesh(static_image_mode=False, max_num_faces=1, min_detection_confidence=0.4, **options)
        self.distant = FaceDetection(model_selection=1, min_detection_confidence=0.4)
        self.pose = Pose(smooth_landmarks=False, model_complexity=1)
        self.last: np.ndarray | None = None  # [478, 3] where the face was last seen
        self.lost = 0  # frames since then
        self.face_window: _Window | None = None
        self.pose_window: _Window | None = None

    def close(self) -> None:
        for graph in (self.searcher, self.tracker, self.distant, self.pose):
            graph.close()

    def forget(self) -> None:
        """Look for anybody from the next frame on."""
        self.last, self.face_window, self.pose_window, self.lost = None, None, None, 0

    def find_face(self, frame: np.ndarray) -> np.ndarray | None:
        """[478, 3] in frame pixels, or None."""
        face = self._follow(frame)
        if face is None:
            face = self._search(frame)
            self.face_window = None
        self.lost = 0 if face is not None else self.lost + 1
        if face is None:
            return None
        self.last = face
        self._keep_window(face)
        return face

    def find_pose(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray | None:
        """[33, 4] in frame pixels with visibility, or None."""
        centre, size = _place(face)
        window = self.pose_window
        if window is None or not window.holds(centre, 1.5 * size) or window.width > 13 * size:
            self.pose_window = window = _Window.around(centre + np.array((0, 1.7 * size)), 3.4 * size)
            self.pose.reset()
        # Black beyond the frame would pass for the end of the body.
        seen = window.inside(frame)
        result = self.pose.process(seen.picture(frame, WINDOW_SIDE))
        if result.pose_landmarks is None:
            return None
        points = seen.to_frame(result.pose_landmarks, POSE_POINTS)
        mouth = np.linalg.norm(points[9:11, :2].mean(0) - face[13:15, :2].mean(0))
        if mouth > 0.35 * size or points[11:13, 1].mean() < centre[1]:  # somebody else, or nobody's shoulders
            self.pose.reset()
            return None
        visibility = np.array([[p.visibility] for p in result.pose_landmarks.landmark])
        return np.concatenate((points, visibility), axis=1)

    def _follow(self, frame: np.ndarray) -> np.ndarray | None:
        if self.face_window is None or self.last is None:
            return None
        result = self.tracker.process(self.face_window.picture(frame, WINDOW_SIDE, 384))
        if not result.multi_face_landmarks:
            return None
        face = self.face_window.to_frame(result.multi_face_landmarks[0], FACE_POINTS)
        return face if self._is_same(face, 0.6) else None

    def _is_same(self, face: np.ndarray, reach: float) -> bool:
        """Whether this face is where the person can have got to: within `reach` face sizes, at a similar size."""
        assert self.last is not None
        (centre, size), (before, size_before) = _place(face), _place(self.last)
        return bool(np.linalg.norm(centre - before) < reach * max(size, size_before) and 0.5 < size / size_before < 2)

    def _search(self, frame: np.ndarray) -> np.ndarray | None:
        """The largest face near the middle, or after a loss the one that continues the lost one best."""
        candidates: list[np.ndarray] = []
        for window in self._search_windows(frame):
            result = self.searcher.process(window.picture(frame, SEARCH_SIDE, 256))
            candidates += [window.to_frame(face, FACE_POINTS) for face in result.multi_face_landmarks or ()]
            if self.last is not None:
                candidates = [face for face in candidates if self._is_same(face, min(1.0 + 0.1 * self.lost, 2.5))]
            if candidates and window.width == max(frame.shape[:2]):
                break  # what was found at a glance is larger than what the distant search can add
            if candidates and self.last is not None:
                break
        if not candidates:
            return None
        if self.last is not None:
            before = _place(self.last)[0]
            return min(candidates, key=lambda face: float(np.linalg.norm(_place(face)[0] - before)))
        middle = np.array((frame.shape[1], frame.shape[0])) / 2

        def prominence(face: np.ndarray) -> float:
            centre, size = _place(face)
            return float(size * (1 - 0.7 * np.linalg.norm(centre - middle) / np.linalg.norm(middle)))

        return max(candidates, key=prominence)

    def _search_windows(self, frame: np.ndarray) -> Iterator[_Window]:
        """Where to look: about the last place, everywhere, and (FaceMesh is short-sighted) at what may be distant faces."""
        if self.last is not None:
            centre, size = _place(self.last)
            yield _Window.around(centre, 2.0 * size)
        whole = _Window.whole(frame)
        yield whole
        for detection in self.distant.process(whole.picture(frame, SEARCH_SIDE)).detections or ():
            box = detection.location_data.relative_bounding_box
            middle = np.array((box.xmin + box.width / 2, box.ymin + box.height / 2)) * whole.width
            yield _Window.around(
                middle + np.array((whole.left, whole.top)), 1.6 * max(box.width, box.height) * whole.width
            )

    def _keep_window(self, face: np.ndarray) -> None:
        """Hold the tracker's window still, for moving it makes the tracker start anew, unless the face nears its edge."""
        centre, size = _place(face)
        window = self.face_window
        if window is None or not window.holds(centre, 0.8 * size) or window.width > 6 * size:
            self.face_window = _Window.around(centre, 1.6 * size)
            self.tracker.reset()


def _place(face: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [2] and size of a face in pixels."""
    low, high = face[:, :2].min(0), face[:, :2].max(0)
    return (low + high) / 2, float((high - low).max())


def _fill_between(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Interpolate [T, N, C] over time between known rows that are close together; the rest stays NaN."""
    known = np.flatnonzero(np.isfinite(values[:, 0, 0]))
    out = values.copy()
    for before, after in itertools.pairwise(known):
        if after - before > 1 and times[after] - times[before] <= 2 * LONGEST_GAP:
            share = ((times[before + 1 : after] - times[before]) / (times[after] - times[before]))[:, None, None]
            out[before + 1 : after] = values[before] * (1 - share) + values[after] * share
    return out
