"""The background behind the person: a clean plate from the whole clip, and the new person over the source frames.

The plate is the temporal median of what each pixel shows while the person does not cover it; what is never uncovered is grown inwards from
its surroundings by a push-pull pyramid. The camera may move: frames are aligned with the first one by a similarity that follows corners of
the background, and the composite aligns the plate with each frame and then bends its colours to the frame's own beside the person.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from .crop import Crop, as_float

_SAMPLES = 8  # background samples kept per pixel
_FRAMES = 64  # frames looked at, spread over the clip
_UNCOVERED = 0.04  # share of its time in view that a pixel must be uncovered; less counts as errors of the matte
_OPAQUE = 0.1  # source alpha from which on the frame's own pixel is no longer trusted as background
_MATCH_SIZE = 96  # pixels a side at which the plate's colours are matched to a frame
_MOTION_SIZE = 320  # pixels a side at which the camera's motion is estimated
_CORNERS = 200
_MIN_CORNERS = 12  # corners below which nothing can be followed
_AGREEING = 0.25  # share of the followed corners that must agree on a motion: things at other depths move otherwise
_SAME = 1.5  # grey levels of mean difference up to which plain views count as the same
_LOCAL = (25, 25)  # pixels of the neighbourhood that detail is measured against
_STILL = 0.3  # source pixels that corners of the crop move, below which it counts as still


def background_plate(
    moments: Iterable[tuple[np.ndarray, np.ndarray]], crop: Crop, frame_count: int, *, seed: int = 0
) -> np.ndarray:
    """The scene without the person, ``[H, W, 3]`` uint8, at the size of the frames.

    Only the crop is cleaned; outside it the first frame stays. Memory holds 8 samples of the crop however long the clip is.

    Args:
        moments: the clip's frames ``[H, W, 3]`` uint8 with the person's alpha in the working crop ``[S, S]``, uint8 or float in [0, 1],
            streamed.
        frame_count: how many there are; ValueError if there are none.
        seed: of the choice of samples.
    """
    random = np.random.default_rng(seed)
    stride = max(1, -(-frame_count // _FRAMES))
    margin = max(3, round(0.02 * crop.side))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    plate: np.ndarray | None = None
    guess: np.ndarray | None = None
    for number, (frame, alpha) in enumerate(moments):
        if number % stride:
            continue
        outer, inner = crop.window(frame)
        view = frame[outer]
        if plate is None:
            plate = frame.copy()
            samples = np.zeros((_SAMPLES, *view.shape), np.uint8)
            counts, in_view = np.zeros((2, *view.shape[:2]), np.int32)
            reference, reference_free = view.copy(), None
        person = (crop.enlarged(as_float(alpha)) > 1 / 255).astype(np.uint8)
        free = cv2.dilate(person, kernel)[inner] == 0
        seen = np.ones_like(free)
        reference_free = free if reference_free is None else reference_free
        motion = camera_motion(reference, view, reference_free, free, guess)
        if motion is None:
            continue  # the camera shows another place
        guess = motion
        if not np.array_equal(motion, np.eye(2, 3)):
            size, backward = free.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            view = cv2.warpAffine(view, motion, size, flags=backward, borderMode=cv2.BORDER_REPLICATE)
            seen, free = (
                cv2.warpAffine(mask.astype(np.float32), motion, size, flags=backward) > 0.999 for mask in (seen, free)
            )
        counts += free
        in_view += seen
        # reservoir sampling with one draw per frame: pixels that were free equally often replace the same sample
        slots = np.where(counts <= _SAMPLES, counts - 1, (random.random() * counts).astype(np.int32))
        for slot in np.unique(slots[free]):
            if slot < _SAMPLES:
                samples[slot][(slots == slot) & free] = view[(slots == slot) & free]
    if plate is None:
        raise ValueError("no frames")
    known = (counts > 0) & (counts >= _UNCOVERED * in_view)
    plate[outer] = fill(_median(samples, np.minimum(counts, _SAMPLES)), known)
    return plate


def composite(
    frame: np.ndarray,
    plate: np.ndarray,
    new_rgb: np.ndarray,
    new_alpha: np.ndarray,
    source_alpha: np.ndarray,
    crop: Crop,
) -> np.ndarray:
    """The new person in the source frame at full resolution, ``[H, W, 3]`` uint8.

    Pixels where neither the source's nor the new person's alpha is above 0 keep the frame's bits. Where the source person was and the new
    one is not, or only partly, the plate shows, matched to the frame's colours beside the person.

    Args:
        frame, plate: ``[H, W, 3]`` uint8.
        new_rgb: straight colour in the working crop ``[S, S, 3]``, uint8 or float in [0, 1].
        new_alpha, source_alpha: ``[S, S]``, uint8 or float in [0, 1].
    """
    result = frame.copy()
    outer, inner = crop.window(frame)
    above = crop.enlarged(as_float(new_alpha).clip(0, 1))[inner]
    before = crop.enlarged(as_float(source_alpha).clip(0, 1))[inner]
    touched = (above > 0) | (before > 0)
    x, y, width, height = cv2.boundingRect(touched.astype(np.uint8))
    if not width:
        return result
    clean = _matched(plate[outer], frame[outer], before)
    colour = new_rgb if new_rgb.dtype == np.uint8 else np.rint(np.clip(new_rgb, 0, 1) * 255).astype(np.uint8)
    box = slice(y, y + height), slice(x, x + width)
    own = np.minimum(before[box] / _OPAQUE, 1)
    view = result[outer][box]
    below = cv2.blendLinear(clean[box], view, own, 1 - own)
    mixed = cv2.blendLinear(np.ascontiguousarray(crop.enlarged(colour)[inner][box]), below, above[box], 1 - above[box])
    np.copyto(view, mixed, where=touched[box][..., None])
    return result


def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``image`` ``[H, W, C]`` with its unknown pixels grown smoothly from the known ones ``[H, W]`` bool; known pixels stay.

    Push-pull: weighted averages down a pyramid, then each level's gaps from the coarser level. Mid-grey if nothing is known.
    """
    if known.all():
        return image
    if not known.any():
        return np.full_like(image, 128)
    weight = known.astype(np.float32)
    levels = [(image.astype(np.float32), weight)]
    while min(levels[-1][1].shape) > 2 and levels[-1][1].min() < 1:
        colour, weight = levels[-1]
        total = cv2.pyrDown(weight)
        average = cv2.pyrDown(colour * weight[..., None]) / np.maximum(total, 1e-6)[..., None]
        levels.append((average, np.minimum(total * 4, 1) * (total > 1e-4)))
    colour, weight = levels[-1]
    mean = (colour * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6)
    filled = colour * weight[..., None] + mean * (1 - weight[..., None])
    for colour, weight in reversed(levels[:-1]):
        coarse = cv2.pyrUp(filled, dstsize=weight.shape[::-1])
        filled = coarse + (colour - coarse) * weight[..., None]
    if image.dtype == np.uint8:
        filled = np.clip(np.rint(filled), 0, 255).astype(np.uint8)
    return np.where(known[..., None], image, filled)


def camera_motion(
    reference: np.ndarray,
    frame: np.ndarray,
    reference_free: np.ndarray,
    free: np.ndarray,
    guess: np.ndarray | None = None,
) -> np.ndarray | None:
    """The similarity ``[2, 3]`` that takes pixels of ``reference`` to those of ``frame`` ``[H, W, 3]``, identity if the camera is still.

    Follows corners of the reference that are background there and in the frame (``[H, W]`` bool), from where ``guess`` puts them. Without
    enough of them the camera counts as still if both show the same, as a plain wall does; None if not.
    """
    height, width = free.shape
    scale = min(1.0, _MOTION_SIZE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    masks = [
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in (reference_free, free)
    ]
    views = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (reference, frame)]
    details = [_detail(view, mask) for view, mask in zip(views, masks, strict=True)]
    ratio = np.array([size[0] / width, size[1] / height], np.float32)
    levels = [(detail + 128).clip(0, 255).astype(np.uint8) for detail in details]
    ends = np.array([[[0, 0], [width, 0], [0, height], [width, height]]], np.float64)
    near = np.eye(2, 3) if guess is None else np.concatenate([guess[:, :2], guess[:, 2:] * ratio[:, None]], 1)
    for start in (lambda: near, lambda: _shift(details, masks)):
        before, after = _followed(levels, masks, start())
        if len(before) < _MIN_CORNERS:
            continue
        matrix, agree = cv2.estimateAffinePartial2D(before / ratio, after / ratio, ransacReprojThreshold=1.5 / scale)
        if (
            matrix is not None
            and agree.sum() >= max(_MIN_CORNERS, _AGREEING * len(before))
            and 0.8 < np.hypot(*matrix[:, 0]) < 1.25
        ):
            return matrix if np.abs(cv2.transform(ends, matrix) - ends).max() > _STILL else np.eye(2, 3)
    both = (masks[0] & masks[1]) == 1
    if not both.any():
        return None
    difference, texture = np.abs(details[0] - details[1])[both].mean(), np.abs(details[0])[both].mean()
    return np.eye(2, 3) if difference < max(_SAME, 0.5 * texture) else None


def _detail(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grey levels ``[h, w]`` float32 about the local mean of what ``mask`` shows, so that a change of light is no change."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    weight = mask.astype(np.float32)
    mean = cv2.blur(gray * weight, _LOCAL) / np.maximum(cv2.blur(weight, _LOCAL), 1e-3)
    return gray - mean


def _shift(details: list[np.ndarray], masks: list[np.ndarray]) -> np.ndarray:
    """The translation ``[2, 3]`` by which the second view differs most likely from the first, by phase correlation."""
    shown = [detail * mask for detail, mask in zip(details, masks, strict=True)]
    x, y = cv2.phaseCorrelate(shown[0], shown[1], cv2.createHanningWindow(shown[0].shape[::-1], cv2.CV_32F))[0]
    return np.array([[1, 0, x], [0, 1, y]])


def _followed(details: list[np.ndarray], masks: list[np.ndarray], guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the first view ``[N, 2]`` and where they are in the second, searched from where ``guess`` ``[2, 3]`` puts them."""
    corners = cv2.goodFeaturesToTrack(details[0], _CORNERS, 0.01, 5, mask=masks[0])
    if corners is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    start = cv2.transform(corners, guess).astype(np.float32)
    window, flags = (15, 15), cv2.OPTFLOW_USE_INITIAL_FLOW
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        details[0], details[1], corners, start, winSize=window, maxLevel=3, flags=flags
    )
    x, y = np.rint(moved[:, 0]).astype(int).T
    height, width = masks[1].shape
    kept = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (found[:, 0] == 1)
    kept[kept] = masks[1][y[kept], x[kept]] == 1
    return corners[kept, 0], moved[kept, 0]


def _median(samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median ``[H, W, 3]`` uint8 over the first ``counts`` ``[H, W]`` of the samples ``[N, H, W, 3]``; undefined where there are none."""
    result = np.empty(samples.shape[1:], np.uint8)
    for row in range(0, len(result), 64):  # in bands: sorting needs a copy
        band = samples[:, row : row + 64].astype(np.int16)
        count = counts[row : row + 64]
        band[np.arange(len(samples))[:, None, None] >= count] = 1000
        band.sort(axis=0)
        low, high = ((np.maximum(count - 1, 0) // 2)[None, ..., None], (count // 2)[None, ..., None])
        middle = [np.take_along_axis(band, np.minimum(index, len(samples) - 1), 0)[0] for index in (low, high)]
        result[row : row + 64] = np.clip((middle[0] + middle[1] + 1) // 2, 0, 255).astype(np.uint8)
    return result


def _matched(plate: np.ndarray, frame: np.ndarray, person: np.ndarray) -> np.ndarray:
    """The plate as this frame would show it: moved with the camera, its colours bent smoothly to the frame's beside the person.

    Where the plate has nothing to show, because the camera left its view, the frame's own surroundings grow into the gap.
    """
    scale = min(1.0, _MATCH_SIZE / max(person.shape))
    extent = person.shape[::-1]
    size = max(1, round(extent[0] * scale)), max(1, round(extent[1] * scale))
    covered = cv2.resize((person > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    known = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    if not known.any():
        return plate
    surroundings = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    motion = camera_motion(plate, frame, np.ones(person.shape, bool), person == 0)
    if motion is None:
        grown = cv2.resize(fill(surroundings, known), extent, interpolation=cv2.INTER_LINEAR)
        return np.rint(grown).astype(np.uint8)
    if not np.array_equal(motion, np.eye(2, 3)):
        grown = np.rint(cv2.resize(fill(surroundings, known), extent, interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
        plate = cv2.warpAffine(
            plate, motion, extent, dst=grown, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
        )
    difference = fill(surroundings - cv2.resize(plate, size, interpolation=cv2.INTER_AREA), known)
    return cv2.add(plate, cv2.resize(difference, extent, interpolation=cv2.INTER_LINEAR), dtype=cv2.CV_8U)
