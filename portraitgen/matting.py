"""Person alpha for the working crop, streamed and steady in time.

Coarse: MediaPipe selfie segmentation (its two networks, whole crop and head close-up) averaged as logits and smoothed
along optical flow. Fine: `portraitgen.alpha`, with the clip's clean plate where the camera stands still, smoothed along
optical flow again. Letterbox bars are background: the picture is continued over them before anything looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from .alpha import Plate, refine_alpha
from .bars import find_bars
from .errors import InputError
from .motion import Moment, fitted, flow_between, smooth_along_motion
from .streaming import breathe

FrameSource = Callable[[], Iterator[np.ndarray]]

PLATE_FRAMES = 16  # frames sampled for the clean plate: enough for a median, 13 MB at 512²


def person_alpha(frames: FrameSource, face_landmarks: np.ndarray) -> Iterator[np.ndarray]:
    """Alpha of the person in each frame of the working crop.

    frames: a factory; each call streams the clip's crop again, [S, S, 3] uint8 RGB (it is called twice).
    face_landmarks: [T, K, 2 or 3] FaceMesh points in crop pixels, NaN rows where no face was found.
    Yields T arrays [S, S] uint8, 255 = person. Memory does not grow with the clip's length.
    Raises InputError when the frames are not square uint8 RGB, their number is not T, or nobody is seen.
    """
    landmarks = np.asarray(face_landmarks, dtype=np.float32)
    if landmarks.ndim != 3 or landmarks.shape[0] == 0 or landmarks.shape[2] < 2:
        raise InputError(f"The face landmarks have shape {landmarks.shape}. Pass [frames, points, 2].")
    boxes = head_boxes(landmarks)
    samples = _samples(_checked(frames(), len(boxes)), len(boxes))
    bars = find_bars(list(samples.values()))
    plate = _clean_plate({index: bars.fill(frame) for index, frame in samples.items()}, boxes)
    samples.clear()
    pictures = (bars.fill(frame) for frame in _checked(frames(), len(boxes)))
    coarse = smooth_along_motion(_coarse_stream(pictures, boxes))
    fine = (Moment(item.frame, item.flow, refine_alpha(item.frame, _sigmoid(item.value), plate)) for item in coarse)
    for item in smooth_along_motion(fine):
        yield bars.clear(np.clip(item.value * 255 + 0.5, 0, 255).astype(np.uint8))


def _samples(frames: Iterable[np.ndarray], count: int) -> dict[int, np.ndarray]:
    """PLATE_FRAMES of the `count` frames, evenly spaced, by their numbers."""
    chosen = set(np.linspace(0, count - 1, min(PLATE_FRAMES, count)).round().astype(int).tolist())
    return {index: frame for index, frame in enumerate(frames) if index in chosen}


def head_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Square around the head, [T, 4] xyxy pixels, from landmarks [T, K, 2+]; gaps interpolated, NaN if never seen."""
    seen = np.isfinite(landmarks[..., :2]).all(axis=(1, 2))
    boxes = np.full((len(landmarks), 4), np.nan, dtype=np.float32)
    if not seen.any():
        return boxes
    low, high = landmarks[seen, :, :2].min(axis=1), landmarks[seen, :, :2].max(axis=1)
    side = (high - low).max(axis=1)
    centre = (low + high) / 2 - side[:, None] * np.array(
        [0.0, 0.1], dtype=np.float32
    )  # hair reaches further up than the chin down
    exact = np.concatenate([centre - 1.05 * side[:, None], centre + 1.05 * side[:, None]], axis=1)
    times = np.flatnonzero(seen)
    for column in range(4):
        boxes[:, column] = np.interp(np.arange(len(landmarks)), times, exact[:, column])
    return boxes


def _coarse_stream(frames: Iterable[np.ndarray], boxes: np.ndarray) -> Iterator[Moment]:
    """Logits of the coarse mask at half resolution, with the flow between neighbours."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    estimator.setFinestScale(1)
    previous: np.ndarray | None = None
    with _Segmenter() as segmenter:
        for frame, box in zip(frames, boxes, strict=True):
            half = frame.shape[0] // 2
            small = cv2.resize(frame, (half, half), interpolation=cv2.INTER_AREA)
            flow = None if previous is None else flow_between(estimator, previous, small)
            logits = _keep_subject(segmenter(frame, box), box * 0.5)
            previous = small
            yield Moment(frame, flow, logits)


class _Segmenter:
    """MediaPipe's two selfie networks on whole crop and head; one per call: MediaPipe graphs are not thread-safe."""

    def __enter__(self) -> _Segmenter:
        from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

        self.general = SelfieSegmentation(model_selection=0)
        self.landscape = SelfieSegmentation(model_selection=1)
        return self

    def __exit__(self, *_: object) -> None:
        self.general.close()
        self.landscape.close()

    def __call__(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Logits [S/2, S/2] of `frame` [S, S, 3]; `box` [4] is the head square in pixels or NaN."""
        breathe()
        half = frame.shape[0] // 2
        mirrored = np.ascontiguousarray(frame[:, ::-1])
        views = [
            self.general.process(frame).segmentation_mask,
            self.landscape.process(frame).segmentation_mask,
            self.landscape.process(mirrored).segmentation_mask[:, ::-1],
            self.general.process(mirrored).segmentation_mask[:, ::-1],
        ]
        logits = np.mean(
            [_logit(cv2.resize(view, (half, half), interpolation=cv2.INTER_AREA)) for view in views], axis=0
        )
        close_up = _head_window(box, frame.shape[0])
        if close_up is None:
            return logits
        left, top, right, bottom = close_up
        view = self.general.process(np.ascontiguousarray(frame[top:bottom, left:right])).segmentation_mask
        width, height = (right - left) // 2, (bottom - top) // 2
        detail = _logit(cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA))
        # The close-up fades in from its cut sides, where the network does not see what the shape belongs to.
        fade = np.ones((height + 2, width + 2), dtype=np.float32)
        fade[[0, -1], :] = 0
        fade[:, [0, -1]] = 0
        fade = (
            np.clip(
                cv2.distanceTransform((fade > 0).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1] / (0.15 * width), 0, 1
            )
            * 0.5
        )
        region = logits[top // 2 : top // 2 + height, left // 2 : left // 2 + width]
        region += fade * (detail - region)
        return logits


def _head_window(box: np.ndarray, size: int) -> tuple[int, int, int, int] | None:
    """The head square clipped to the crop, on even pixels; None when unknown or no closer than the whole crop."""
    if not np.isfinite(box).all():
        return None
    left, top, right, bottom = (int(value) // 2 * 2 for value in np.clip(box, 0, size))
    width, height = right - left, bottom - top
    return None if min(width, height) < 48 or max(width, height) > 0.9 * size else (left, top, right, bottom)


def _keep_subject(logits: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Push down parts that are not connected to the head (or, with no head, to the largest part)."""
    person = (logits > 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(person, connectivity=4)
    if count <= 2:
        return logits
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    if np.isfinite(box).all():
        left, top, right, bottom = np.clip(box, 0, len(logits)).astype(int)
        areas = np.bincount(labels[top:bottom, left:right].ravel(), minlength=count)
    areas[0] = 0
    strays = ((labels != int(np.argmax(areas))) & (labels > 0)).astype(np.uint8)
    soft = cv2.blur(cv2.dilate(strays, np.ones((7, 7), np.uint8)).astype(np.float32), (5, 5))
    return logits * (1 - soft) + np.minimum(logits, -3) * soft


def _clean_plate(samples: dict[int, np.ndarray], boxes: np.ndarray) -> Plate:
    """Temporal median of the confidently uncovered pixels in the sampled frames; each frame checks if it holds."""
    free: list[np.ndarray] = []
    most = 0.0
    with _Segmenter() as segmenter:
        for index, frame in samples.items():
            size = frame.shape[0]
            logits = segmenter(frame, boxes[index])
            most = max(most, float((logits > 0).mean()))
            margin = int(size * 0.03) * 2 + 1
            covered = cv2.dilate(
                (fitted(logits, (size, size)) > -2).astype(np.uint8), np.ones((margin, margin), np.uint8)
            )
            free.append(covered == 0)
    if most < 0.01:
        raise InputError("No person was found in the clip. Use a clip that shows one person's head and shoulders.")
    stack, valid = np.stack(list(samples.values())), np.stack(free)
    counts = valid.sum(axis=0)
    # Median of the uncovered samples: covered ones sort to the end as 256.
    ordered = np.sort(np.where(valid[..., None], stack, np.uint16(256)), axis=0)
    middle = np.take_along_axis(ordered, (np.maximum(counts - 1, 0) // 2)[None, ..., None], axis=0)[0]
    known = counts >= min(max(3, len(samples) // 4), len(samples))
    return Plate(np.where(known[..., None], middle, 0).astype(np.float32) / 255, known.astype(np.float32))


def decontaminate(frame: np.ndarray, alpha: np.ndarray, background: np.ndarray | None = None) -> np.ndarray:
    """Straight foreground colour: the person without the background shining through at the edge.

    frame: [S, S, 3] uint8 RGB; alpha: [S, S] uint8; background: [S, S, 3] uint8, or None to estimate it nearby.
    Returns [S, S, 3] uint8; where alpha is 0 the nearby foreground continues. Two passes of blur fusion (Forte 2021).
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or alpha.shape != frame.shape[:2]:
        raise InputError(
            f"The frame {frame.shape} and the alpha {alpha.shape} do not match. Pass [S, S, 3] and [S, S]."
        )
    breathe()
    image = frame.astype(np.float32) / 255
    cover = (alpha.astype(np.float32) / 255)[..., None]
    foreground, behind = image, image if background is None else background.astype(np.float32) / 255
    for radius in (round(90 * len(alpha) / 512), round(6 * len(alpha) / 512)):
        window = (2 * max(1, radius) + 1,) * 2
        near = cv2.blur(cover, window)[..., None]
        mean = cv2.blur(foreground * cover, window) / (near + 1e-5)
        if background is None:
            behind = cv2.blur(behind * (1 - cover), window) / (1 - near + 1e-5)
        foreground = np.clip(mean + cover * (image - cover * mean - (1 - cover) * behind), 0, 1)
    return (foreground * 255 + 0.5).astype(np.uint8)


def _checked(frames: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Pass on exactly `count` square uint8 RGB frames of one size; InputError if they are anything else."""
    seen = 0
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        square = (
            frame.ndim == 3 and frame.shape[0] == frame.shape[1] and frame.shape[2] == 3 and frame.dtype == np.uint8
        )
        if not square or frame.shape != shape or frame.shape[0] < 64:
            raise InputError(
                f"Frame {seen} is {frame.shape} {frame.dtype}. Pass square uint8 RGB frames of one size, 64 or more."
            )
        seen += 1
        if seen > count:
            break
        yield np.ascontiguousarray(frame)
    if seen != count:
        raise InputError(
            f"The landmarks are for {count} frames, the clip has {'more' if seen > count else seen}. Pass one row per frame."
        )


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 0.01, 0.99)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
