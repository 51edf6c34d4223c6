"""The rendered person put back over a background, and the whole clip written with its sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from .clip import read_frames, read_gray, write_video
from .crop import Crop
from .errors import InputError
from .fitting import Fitted
from .mattes import clean_plate, load_screening
from .plate import composite
from .portrait import Portrait
from .progress import Progress
from .rendering import RenderedCrop, render_crops
from .streaming import feed

_NAMED = {"white": (255, 255, 255), "green": (0, 177, 64)}
_FADE = 0.06  # share of the crop's side over which the person fades out where the crop ends inside the frame
_PREVIEW_EVERY = 10

BackgroundEdit = Callable[[np.ndarray], np.ndarray]


def write_result(
    portrait: Portrait,
    fitted: Fitted,
    K: Tensor,
    output: Path,
    *,
    view: str,
    background: str,
    viewmats: Tensor | None = None,
    edit_background: BackgroundEdit | None = None,
) -> Iterator[Progress]:
    """Render the whole clip over its background and write ``output`` with the clip's times and sound.

    Args:
        view: "frame" for the full frame, "crop" for the working crop.
        background: "original", "white", "green", "#rrggbb" or a picture's path.
        viewmats: cameras ``[T, 4, 4]``; the clip's own if None.
        edit_background: applied to the original background, ``[H, W, 3]`` uint8 to the same; None leaves it as it is.
    """
    fixed = parse_background(background)
    total = portrait.clip.frame_count
    plate = None
    if fixed is None:
        yield Progress("render", 0.0, "Looking for what is behind the person")
        plate = clean_plate(portrait)
    pictures = _pictures(portrait, render_crops(portrait, fitted, K, viewmats), view, fixed, plate, edit_background)
    info = portrait.clip
    writer = feed(lambda items: write_video(output, items, info, audio_from=portrait.source), pictures)
    for number, picture in enumerate(writer, 1):
        shown = picture if number % _PREVIEW_EVERY == 1 else None
        yield Progress("render", number / total, f"Rendering frame {number} of {total}", shown)


def parse_background(background: str) -> np.ndarray | None:
    """Colour ``[1, 1, 3]`` or picture ``[H, W, 3]`` uint8 for the background's name; None for the original one."""
    if background == "original":
        return None
    if background in _NAMED:
        return np.array(_NAMED[background], np.uint8)[None, None]
    if re.fullmatch(r"#[0-9a-fA-F]{6}", background):
        return np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)[None, None]
    if Path(background).is_file():
        picture = cv2.imdecode(np.fromfile(background, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f"{background} is not a picture that can be read. Give a PNG, JPEG or WebP file.")
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    raise InputError(
        f"There is no background {background!r}. Use original, white, green, a colour such as #204080, or a picture's path."
    )


def _pictures(
    portrait: Portrait,
    rendered: Iterator[RenderedCrop],
    view: str,
    fixed: np.ndarray | None,
    plate: np.ndarray | None,
    edit_background: BackgroundEdit | None,
) -> Iterator[np.ndarray]:
    clip, crop = portrait.clip, portrait.crop
    fade = _fade(crop, clip.width, clip.height)
    alphas, away = read_gray(portrait.path("alpha.mp4")), load_screening(portrait).away
    streams = zip(read_frames(portrait.source, clip), alphas, rendered, away, strict=True)
    for frame, source_alpha, person, gone in streams:
        alpha = person.alpha * fade if view == "frame" else person.alpha
        if gone:  # the clip does not show the person here
            alpha = np.zeros_like(alpha)
        if plate is None:
            assert fixed is not None
            frame = _covering(fixed, clip.width, clip.height)
            picture = crop.paste(frame, person.straight(), alpha)
        elif edit_background is None:
            picture = composite(frame, plate, person.straight(), alpha, source_alpha, crop)
        else:
            nobody = np.zeros_like(alpha)
            clean = composite(frame, plate, person.straight(), nobody, (source_alpha * fade).astype(np.uint8), crop)
            picture = crop.paste(edit_background(clean), person.straight(), alpha)
        yield crop.extract(picture) if view == "crop" else picture


def _covering(background: np.ndarray, width: int, height: int) -> np.ndarray:
    """The background scaled to cover the frame, its middle kept, ``[height, width, 3]`` uint8."""
    scale = max(width / background.shape[1], height / background.shape[0])
    size = max(width, round(background.shape[1] * scale)), max(height, round(background.shape[0] * scale))
    large = cv2.resize(background, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def _fade(crop: Crop, width: int, height: int) -> np.ndarray:
    """Weight ``[S, S]`` that falls to 0 at the crop's borders which lie inside the frame, where the person may go on beyond it."""
    ramp = np.clip((np.arange(crop.size) + 0.5) / (crop.size * _FADE), 0, 1).astype(np.float32)
    ramp = ramp * ramp * (3 - 2 * ramp)
    ones = np.ones_like(ramp)
    columns = (ramp if crop.left > 0 else ones) * (ramp[::-1] if crop.left + crop.side < width else ones)
    rows = (ramp if crop.top > 0 else ones) * (ramp[::-1] if crop.top + crop.side < height else ones)
    return rows[:, None] * columns[None]
