"""Person alpha for the working crop, streamed and steady in time.

Coarse: MediaPipe selfie segmentation (its two networks, whole crop and head close-up) averaged as logits and smoothed
along optical flow. Fine: in an unknown band around that mask the alpha of each pixel is read from its colour, on the
line between the local foreground and background colours (two local Gaussians; the background's is the clip's clean
plate where the camera stands still), then made consistent by a confidence-weighted guided filter (He et al. 2010) and
smoothed along optical flow again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from .errors import InputError
from .motion import Moment, fitted, flow_between, smooth_along_motion

FrameSource = Callable[[], Iterator[np.ndarray]]

PLATE_FRAMES = 16  # frames sampled for the clean plate: enough for a median, 13 MB at 512²
COLOUR_NOISE = 0.02  # standard deviation that sensor and codec give a flat colour (0..1)
PRIOR_EVIDENCE = 3.0  # weight of the coarse mask, in the units of the discriminant (squared distance over variance)


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
    plate = _clean_plate(_checked(frames(), len(boxes)), boxes)
    coarse = smooth_along_motion(_coarse_stream(_checked(frames(), len(boxes)), boxes))
    fine = (Moment(item.frame, item.flow, refine_alpha(item.frame, _sigmoid(item.value), plate)) for item in coarse)
    for item in smooth_along_motion(fine):
        yield np.clip(item.value * 255 + 0.5, 0, 255).astype(np.uint8)


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


@dataclass
class Plate:
    """What the clip shows where the person is not: RGB [S, S, 3] in 0..1 and where it is known [S, S] 0/1."""

    colour: np.ndarray
    known: np.ndarray


def _clean_plate(frames: Iterable[np.ndarray], boxes: np.ndarray) -> Plate:
    """Temporal median of the confidently uncovered pixels in PLATE_FRAMES frames; each frame checks if it holds."""
    chosen = set(np.linspace(0, len(boxes) - 1, min(PLATE_FRAMES, len(boxes))).round().astype(int).tolist())
    pictures: list[np.ndarray] = []
    free: list[np.ndarray] = []
    most = 0.0
    with _Segmenter() as segmenter:
        for index, frame in enumerate(frames):
            if index not in chosen:
                continue
            size = frame.shape[0]
            logits = segmenter(frame, boxes[index])
            most = max(most, float((logits > 0).mean()))
            margin = int(size * 0.03) * 2 + 1
            covered = cv2.dilate(
                (fitted(logits, (size, size)) > -2).astype(np.uint8), np.ones((margin, margin), np.uint8)
            )
            pictures.append(frame)
            free.append(covered == 0)
    if most < 0.01:
        raise InputError("No person was found in the clip. Use a clip that shows one person's head and shoulders.")
    stack, valid = np.stack(pictures), np.stack(free)
    counts = valid.sum(axis=0)
    # Median of the uncovered samples: covered ones sort to the end as 256.
    ordered = np.sort(np.where(valid[..., None], stack, np.uint16(256)), axis=0)
    middle = np.take_along_axis(ordered, (np.maximum(counts - 1, 0) // 2)[None, ..., None], axis=0)[0]
    known = counts >= min(max(3, len(pictures) // 4), len(pictures))
    return Plate(np.where(known[..., None], middle, 0).astype(np.float32) / 255, known.astype(np.float32))


def refine_alpha(frame: np.ndarray, coarse: np.ndarray, plate: Plate | None = None) -> np.ndarray:
    """Alpha at full resolution from a coarse mask.

    frame: [S, S, 3] uint8 RGB; coarse: [h, w] float person probability at any resolution; plate: the clip's
    background, if known.
    Returns [S, S] float32 in 0..1.
    """
    size = frame.shape[0]
    unit = size / 512
    image = frame.astype(np.float32) * np.float32(1 / 255)
    prior, sure_person, sure_background, depth = _trimap(fitted(coarse.astype(np.float32), (size, size)), unit)
    value = sure_person.astype(np.float32)
    unknown = ~(sure_person | sure_background)
    if not unknown.any():
        return value
    inner, outer = _local_colours(image, sure_person, unknown), _local_colours(image, sure_background, unknown)
    if plate is not None:
        outer = _with_plate(outer, image, plate, sure_background, unknown)
    estimate, evidence = _discriminate(image[unknown], inner, outer)
    # Far from the coarse edge the mask is rarely wrong: only strong colour evidence moves it there.
    belief = PRIOR_EVIDENCE * np.exp(np.minimum(depth[unknown] / (5 * unit), 4))
    value[unknown] = (evidence * estimate + belief * prior[unknown]) / (evidence + belief)
    clear = evidence / (evidence + 30)
    confidence = np.ones_like(value)
    confidence[unknown] = 0.02 + 0.3 * clear
    smooth = guided_filter(image, value, confidence, unknown, radius=max(2, round(3 * unit)), epsilon=2e-4)[unknown]
    value[unknown] = smooth + 0.5 * clear * (value[unknown] - smooth)
    return np.clip((value - 0.05) / 0.9, 0, 1)  # codec noise leaves a faint veil: values next to the ends are the ends


def _trimap(prior: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Prior with enclosed holes filled, sure person, sure background, pixels to the coarse edge; all [S, S].

    A hole in the coarse mask is more often an earring or a dark cloth than a gap: unknown, with a person's prior.
    """
    size = len(prior)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((prior <= 0.8).astype(np.uint8), connectivity=4)
    left, top, width, height = stats[:, :4].T
    enclosed = (left > 0) & (top > 0) & (left + width < size) & (top + height < size)
    enclosed[0] = False
    holes = enclosed[labels]
    prior = np.where(holes, np.float32(1), np.clip(2 * prior - 0.5, 0, 1))
    person = (prior > 0.5).astype(np.uint8)
    inside = cv2.distanceTransform(cv2.copyMakeBorder(person, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 3)[
        1:-1, 1:-1
    ]
    outside = cv2.distanceTransform(1 - person, cv2.DIST_L2, 3)
    sure_person = (inside > 10 * unit) & (prior > 0.9) & ~holes
    sure_background = (outside > 18 * unit) & (prior < 0.1)
    return prior, sure_person, sure_background, np.where(holes, 15 * unit, inside + outside)


@dataclass
class Colours:
    """A Gaussian of RGB for each of N pixels: mean [N, 3] and covariance [N, 6] (xx, xy, xz, yy, yz, zz)."""

    mean: np.ndarray
    covariance: np.ndarray


def _local_colours(image: np.ndarray, source: np.ndarray, where: np.ndarray) -> Colours:
    """Gaussians of the `source` colours near each `where` pixel; far ones fill in where there are no near ones."""
    size = image.shape[0]
    quarter = max(32, size // 4)
    weight = cv2.resize(source.astype(np.float32), (quarter, quarter), interpolation=cv2.INTER_AREA)[..., None]
    colour = cv2.resize(image, (quarter, quarter), interpolation=cv2.INTER_AREA)
    moments = np.concatenate([weight, weight * colour, weight * _products(colour, colour)], axis=2)
    gathered = 1e-5 * moments.mean(axis=(0, 1), keepdims=True)
    for radius, share in ((8, 1.0), (24, 0.02), (80, 0.0005)):
        window = 2 * max(1, round(radius * quarter / 512)) + 1
        gathered = gathered + share * cv2.blur(cv2.blur(moments, (window, window)), (window, window))
    gathered = fitted(gathered[..., 1:] / np.maximum(gathered[..., :1], 1e-12), (size, size))[where]
    mean = gathered[:, :3]
    return Colours(mean, gathered[:, 3:] - _products(mean, mean))


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Upper triangle of the outer product of two [..., 3] arrays, [..., 6]."""
    return left[..., [0, 0, 0, 1, 1, 2]] * right[..., [0, 1, 2, 1, 2, 2]]


def _with_plate(outer: Colours, image: np.ndarray, plate: Plate, background: np.ndarray, where: np.ndarray) -> Colours:
    """Replace the local background colours by the clean plate where it explains the frame's background nearby."""
    quarter = max(32, len(image) // 4)
    weight = background * plate.known
    difference = (image - plate.colour) * weight[..., None]
    error = cv2.transform(difference * difference, np.full((1, 3), 1 / 3, dtype=np.float32))
    window = (2 * round(quarter * 0.05) + 1,) * 2
    error, near = (
        cv2.blur(cv2.resize(values, (quarter, quarter), interpolation=cv2.INTER_AREA), window)
        for values in (error, weight)
    )
    trust = np.exp(-error / np.maximum(near, 1e-6) / (2 * COLOUR_NOISE) ** 2) * (near > 0.02)
    share = (fitted(trust, where.shape)[where] * plate.known[where])[:, None]
    return Colours(outer.mean + share * (plate.colour[where] - outer.mean), outer.covariance * (1 - share))


def _discriminate(pixels: np.ndarray, inner: Colours, outer: Colours) -> tuple[np.ndarray, np.ndarray]:
    """Alpha [N] of pixels [N, 3] between two colour clouds, and its evidence [N] (squared separation over variance).

    A pixel of alpha a has the mean a F + (1 - a) B and the covariance a² Cov F + (1 - a)² Cov B + noise. The most likely
    a comes from alternating weighting and projection: near the background's end only the background's spread counts.
    """
    behind, difference = outer.mean, inner.mean - outer.mean
    estimate = np.full(len(pixels), 0.7, dtype=np.float32)
    for _ in range(3):
        spread = np.square(estimate)[:, None] * inner.covariance + np.square(1 - estimate)[:, None] * outer.covariance
        direction = _solve(spread, difference, COLOUR_NOISE**2)
        evidence = np.maximum(np.einsum("nc,nc->n", direction, difference), 1e-6)
        estimate = np.clip(np.einsum("nc,nc->n", direction, pixels - behind) / evidence, 0, 1)
    misfit = pixels - behind - estimate[:, None] * difference
    surprise = np.einsum("nc,nc->n", _solve(spread, misfit, COLOUR_NOISE**2), misfit)
    return estimate, evidence / (1 + surprise / 4)  # a colour on neither side tells nothing


def _solve(matrix: np.ndarray, vector: np.ndarray, ridge: float) -> np.ndarray:
    """Solve symmetric 3×3 systems, [..., 6] and [..., 3], by the adjugate."""
    xx, xy, xz, yy, yz, zz = (matrix[..., index] for index in range(6))
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    axx, axy, axz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    ayy, ayz, azz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = 1 / np.maximum(xx * axx + xy * axy + xz * axz, ridge**3)
    x, y, z = (vector[..., index] for index in range(3))
    return np.stack(
        [
            (axx * x + axy * y + axz * z) * scale,
            (axy * x + ayy * y + ayz * z) * scale,
            (axz * x + ayz * y + azz * z) * scale,
        ],
        axis=-1,
    )


def guided_filter(
    image: np.ndarray, value: np.ndarray, confidence: np.ndarray, where: np.ndarray, radius: int, epsilon: float
) -> np.ndarray:
    """Filter `value` so that it is locally linear in the colours of `image` (He et al. 2010), weighted by pixel.

    image: [H, W, 3] in 0..1; value: [H, W]; confidence: [H, W] > 0; where: [H, W] bool, the pixels that matter;
    radius in pixels of half resolution; epsilon: ridge. The linear models are fitted at half resolution and applied
    at full resolution. Returns [H, W] float32 in 0..1, meaningful at the `where` pixels.
    """
    height, width = value.shape
    small = (max(1, width // 2), max(1, height // 2))
    window = (2 * radius + 1,) * 2
    guide = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(confidence, small, interpolation=cv2.INTER_AREA)[..., None]
    weighted = cv2.resize(value * confidence, small, interpolation=cv2.INTER_AREA)[..., None]
    moments = np.concatenate(
        [weight, weighted, weight * guide, weighted * guide, weight * _products(guide, guide)], axis=2
    )
    touched = (
        cv2.dilate(cv2.resize(where.astype(np.uint8), small, interpolation=cv2.INTER_LINEAR), np.ones(window, np.uint8))
        > 0
    )
    moments = cv2.blur(moments, window)[touched]
    moments = moments[:, 1:] / moments[:, :1]
    mean, target = moments[:, 1:4], moments[:, :1]
    slope = _solve(moments[:, 7:] - _products(mean, mean), moments[:, 4:7] - mean * target, epsilon)
    model = np.zeros((small[1], small[0], 4), dtype=np.float32)
    model[touched] = np.concatenate([slope, target - np.einsum("nc,nc->n", slope, mean)[:, None]], axis=1)
    model = cv2.resize(cv2.blur(model, window), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.einsum("hwc,hwc->hw", model[..., :3], image) + model[..., 3], 0, 1)


def decontaminate(frame: np.ndarray, alpha: np.ndarray, background: np.ndarray | None = None) -> np.ndarray:
    """Straight foreground colour: the person without the background shining through at the edge.

    frame: [S, S, 3] uint8 RGB; alpha: [S, S] uint8; background: [S, S, 3] uint8, or None to estimate it nearby.
    Returns [S, S, 3] uint8; where alpha is 0 the nearby foreground continues. Two passes of blur fusion (Forte 2021).
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or alpha.shape != frame.shape[:2]:
        raise InputError(
            f"The frame {frame.shape} and the alpha {alpha.shape} do not match. Pass [S, S, 3] and [S, S]."
        )
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
