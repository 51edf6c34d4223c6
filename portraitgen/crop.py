"""The working crop: one square of the source frame for a whole clip, and the way back into the full frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .clip import ClipInfo

MAX_SIZE = 512  # within the shorter side of the frame; a longer crop has more, so that the face keeps its detail
LARGEST_SIZE = 768
MIN_SIZE = 256

_REACH = 2.8  # crop side in head heights, at most, unless the head's own way through the frame is longer
_REACH_UPRIGHT = 4.5  # the same in frames that are taller than wide, which are filled by the person down to the waist
_REACH_UNKNOWN = 2.2  # the same where no shoulders were found
_HAIR, _SIDES, _CHIN = 0.3, 0.2, 0.15  # margins about the head box in head heights
_BESIDE = 0.06  # margin beside the shoulders, share of the crop's side: over that much the person fades into the frame
_NEARLY_ALL = 0.9  # a crop this close to a side of the frame takes all of it
_OUTLIERS = 5  # frames of the running median that drops single wrong detections


@dataclass(frozen=True)
class Crop:
    """A square of the source frame and its working resolution. A working pixel x lies at ``left + x * side / size`` in the source.

    Attributes:
        left, top: corner in source pixels; may lie outside the frame.
        side: length in source pixels. All three are rounded to whole pixels, so that going in and out is exact.
        size: side of the working image in pixels.
    """

    left: float
    top: float
    side: float
    size: int

    def __post_init__(self) -> None:
        for name in ("left", "top", "side"):
            object.__setattr__(self, name, float(round(getattr(self, name))))
        if self.side < 1 or self.size < 1:
            raise ValueError(f"empty crop: {self}")

    def extract(self, frame: np.ndarray) -> np.ndarray:
        """The square of ``frame`` ``[H, W, ...]`` at working size ``[S, S, ...]``, same type; beyond the frame its edge is repeated.

        Shrinks with an area filter, enlarges bicubically.
        """
        height, width = frame.shape[:2]
        left, top, side = int(self.left), int(self.top), int(self.side)
        columns = np.clip(np.arange(left, left + side), 0, width - 1)
        rows = np.clip(np.arange(top, top + side), 0, height - 1)
        square = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        above, below = int((rows == rows[0]).sum()) - 1, int((rows == rows[-1]).sum()) - 1
        before, after = int((columns == columns[0]).sum()) - 1, int((columns == columns[-1]).sum()) - 1
        if above or below or before or after:
            square = cv2.copyMakeBorder(square, above, below, before, after, cv2.BORDER_REPLICATE)[:side, :side]
        return resized(square, self.size)

    def window(self, frame: np.ndarray) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the square meets ``frame``: (rows, columns) of the frame and (rows, columns) of the square, both in source pixels."""
        height, width = frame.shape[:2]
        left, top, side = int(self.left), int(self.top), int(self.side)
        rows = slice(max(top, 0), max(min(top + side, height), 0))
        columns = slice(max(left, 0), max(min(left + side, width), 0))
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        return (rows, columns), inner

    def inside(self, width: int, height: int) -> np.ndarray:
        """Which working pixels ``[S, S]`` show a frame of this size; the others repeat its edge."""
        centres = (np.arange(self.size) + 0.5) * self.side / self.size
        columns, rows = centres + self.left, centres + self.top
        return ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)

    def enlarged(self, image: np.ndarray) -> np.ndarray:
        """A working image ``[S, S, ...]`` at source scale ``[side, side, ...]``."""
        return resized(image, int(self.side))

    def paste(self, frame: np.ndarray, patch: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """``frame`` ``[H, W, 3]`` uint8 with a working image laid over it at full resolution.

        Args:
            patch: straight colour ``[S, S, 3]``, uint8 or float in [0, 1].
            alpha: ``[S, S]``, uint8 or float in [0, 1]; where it is 0 the frame keeps its bits.
        """
        outer, inner = self.window(frame)
        result = frame.copy()
        colour = self.enlarged(as_float(patch))[inner]
        weight = np.clip(self.enlarged(as_float(alpha))[inner], 0, 1)
        covered = weight > 0
        below = frame[outer][covered].astype(np.float32)
        mixed = below + (np.clip(colour[covered], 0, 1) * 255 - below) * weight[covered][:, None]
        result[outer][covered] = np.rint(mixed).astype(np.uint8)
        return result

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Crop:
        """The inverse of `to_json`."""
        return cls(**values)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """``[H, W, ...]`` at ``[side, side, ...]``: area filter when shrinking, bicubic for colour and bilinear for masks when enlarging."""
    if image.shape[:2] == (side, side):
        return image.copy()
    if image.shape[0] > side:
        return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_LINEAR)


def as_float(image: np.ndarray) -> np.ndarray:
    """uint8 or float image as float32 in [0, 1]."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def choose_crop(info: ClipInfo, head_boxes: np.ndarray, shoulder_boxes: np.ndarray) -> Crop:
    """One square for the whole clip: the head wherever it goes, the shoulders and as much torso as fits.

    Args:
        head_boxes, shoulder_boxes: ``[T, 4]`` left, top, right, bottom in source pixels; rows of NaN where unknown. Single wrong
            detections are ignored. The square lies inside the frame unless the way of head and shoulders is longer than the frame's
            shorter side, or the frame is taller than wide: then it goes down to the waist, where the person would otherwise be left half
            done. It is made longer for the shoulders' sake only as far as it can have more pixels for it, so that the face stays as sharp.

    Raises InputError if no head was found in any frame.
    """
    heads = _steady(head_boxes)
    if not len(heads):
        raise InputError("No face was found in the clip. Use a clip in which one face is clearly visible.")
    frame = np.array([0, 0, info.width, info.height], np.float64)
    head = float(np.median(heads[:, 3] - heads[:, 1]))
    must = _clipped(_union(heads) + head * np.array([-_SIDES, -_HAIR, _SIDES, _CHIN]), frame)
    shoulders = _steady(shoulder_boxes)
    want = _clipped(_union(np.stack([must, _union(shoulders)])), frame) if len(shoulders) else must
    needed = max(must[2] - must[0], must[3] - must[1])
    shorter = min(info.width, info.height)
    upright = info.height > info.width and len(shoulders) > 0
    reach = _REACH_UPRIGHT if upright else _REACH if len(shoulders) else _REACH_UNKNOWN
    longest = info.height if upright else shorter
    side = max(min(head * reach, longest), needed)
    for whole in (shorter, longest):
        if _NEARLY_ALL * whole <= side <= whole / _NEARLY_ALL:
            side = max(whole, needed)
    usual = min(side, shorter)
    across = (want[2] - want[0]) / (1 - 2 * _BESIDE)
    if across * (1 - _BESIDE) > side:  # not for the sake of a margin alone
        side = max(side, min(across, info.width, usual * LARGEST_SIZE / MAX_SIZE))
    side = np.ceil(side)
    left = _placed((want[0] + want[2] - side) / 2, side, must[0], must[2], info.width)
    top = _placed(must[1], side, must[1], must[3], info.height)
    most = min(MAX_SIZE * side / usual, LARGEST_SIZE)
    size = int(max(min(side, most) // 16 * 16, MIN_SIZE))
    return Crop(left, top, float(side), size)


def _placed(start: float, side: float, low: float, high: float, length: float) -> float:
    """``start`` moved so that [start, start + side] covers [low, high] and lies inside [0, length] as far as that goes."""
    start = min(max(start, high - side), low)
    if side >= length:
        return (length - side) / 2
    return min(max(start, 0.0), length - side)


def _steady(boxes: np.ndarray) -> np.ndarray:
    """Known boxes ``[N, 4]``, each edge through a running median over time."""
    known = boxes[~np.isnan(boxes).any(1)].astype(np.float64)
    if len(known) < _OUTLIERS:
        return known
    half = _OUTLIERS // 2
    padded = np.pad(known, ((half, half), (0, 0)), mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _OUTLIERS, axis=0), axis=-1)


def _union(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _clipped(box: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(box[:2], frame[:2]), np.minimum(box[2:], frame[2:])])
