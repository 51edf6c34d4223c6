"""The rendered person put back over a background, and the whole clip written with its sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from .backgrounds import Background, SceneEdit, blurred, covering, stands_still
from .bars import Bars
from .clip import read_frames, read_gray, write_video
from .crop import Crop, as_float
from .fitting import Fitted
from .hand_colours import Recolouring
from .hand_layer import has_hands, with_hands
from .hand_relief import Relief
from .mattes import clean_plate, clip_bars, load_screening
from .plate import composite, fill
from .portrait import Portrait
from .progress import Progress
from .provenance import marked
from .rendering import RenderedCrop, render_crops
from .streaming import feed

_FADE = 0.06  # share of the crop's side over which the person fades out where the crop ends inside the frame, or the frame inside the crop
_PREVIEW_EVERY = 10

Persons = Iterator[tuple[RenderedCrop, np.ndarray]]


def write_result(
    portrait: Portrait,
    fitted: Fitted,
    K: Tensor,
    output: Path,
    *,
    view: str,
    background: Background,
    viewmats: Tensor | None = None,
    edit_scene: SceneEdit | None = None,
    metadata: Mapping[str, str] | None = None,
    mark: str = "",
) -> Iterator[Progress]:
    """Render the whole clip over its background and write ``output`` with the clip's times and sound.

    Args:
        output: ends in ``background.suffix``.
        view: "frame" for the full frame, "crop" for the working crop.
        background: what stands behind the person.
        viewmats: cameras ``[T, 4, 4]``; the clip's own if None.
        edit_scene: what the edit does to the clip's scene, ``[H, W, 3]`` uint8 to the same; None leaves it as it is.
        metadata: tags of the file, see `provenance`.
        mark: words to draw small in the lower right corner.
    """
    total = portrait.clip.frame_count
    yield Progress("render", 0.0, "Looking for what is behind the person")
    rendered = render_crops(portrait, fitted, K, viewmats)
    if has_hands(portrait):
        relief = None if viewmats is None else Relief(portrait, K, viewmats)
        rendered = with_hands(portrait, rendered, Recolouring.of(portrait, fitted, K), relief)
    bars = clip_bars(portrait)
    persons = _persons(portrait, rendered, view, turned=viewmats is not None)
    if background.scene == "transparent":
        pictures = _cut_out(portrait, persons, view)
    elif background.picture is not None:
        pictures = _over_picture(portrait, persons, view, background.picture)
    else:
        change = blurred if background.scene == "blur" else edit_scene
        pictures = _over_scene(portrait, persons, view, change, bars)
    if bars:
        first = next(read_frames(portrait.source, portrait.clip))
        pictures = _between_bars(pictures, bars, first, portrait.crop if view == "crop" else None)
    if mark:
        pictures = (marked(picture, mark) for picture in pictures)
    info = portrait.clip
    writer = feed(
        lambda items: write_video(output, items, info, audio_from=portrait.source, metadata=metadata), pictures
    )
    for number, picture in enumerate(writer, 1):
        shown = picture[..., :3] if number % _PREVIEW_EVERY == 1 else None
        yield Progress("render", number / total, f"Rendering frame {number} of {total}", shown)


def _over_scene(
    portrait: Portrait, persons: Persons, view: str, change: SceneEdit | None, bars: Bars
) -> Iterator[np.ndarray]:
    """The person in the clip's own scene, or in what ``change`` makes of it; the scene goes on over ``bars``."""
    clip, crop = portrait.clip, portrait.crop
    plate = clean_plate(portrait)
    cleaned = _cleaned(crop, clip.width, clip.height)
    # A scene that stands still is changed once: faster, and nothing can shimmer.
    changed = None
    if change is not None and stands_still(portrait, plate):
        changed = change(_mixed(bars.fill(next(read_frames(portrait.source, clip))), plate, cleaned))
    # Where the new person fades out the clip's own shows through, and not the plate, which would be a dark or a bright line across an arm.
    taken_out = _fade(crop, clip.width, clip.height, 1) if view == "frame" else np.float32(1)
    frames = (bars.fill(frame) for frame in read_frames(portrait.source, clip))
    alphas = read_gray(portrait.path("alpha.mp4"))
    for frame, whole, (person, alpha) in zip(frames, alphas, persons, strict=True):
        source_alpha = as_float(whole) * taken_out
        if change is None and view == "frame":
            yield composite(frame, plate, person.straight(), alpha, source_alpha, crop)
            continue
        scene = changed
        if scene is None:
            scene = composite(frame, plate, person.straight(), np.zeros_like(alpha), source_alpha, crop)
            scene = scene if change is None else change(_mixed(frame, scene, cleaned))
        if view == "frame":
            yield crop.paste(scene, person.straight(), alpha)
        else:
            yield _whole(crop).paste(_mirrored(scene, crop), person.straight(), alpha)


def _over_picture(portrait: Portrait, persons: Persons, view: str, background: np.ndarray) -> Iterator[np.ndarray]:
    """The person over a colour or a picture."""
    clip, crop = portrait.clip, portrait.crop
    place, size = (crop, (clip.width, clip.height)) if view == "frame" else (_whole(crop), (crop.size, crop.size))
    behind = covering(background, *size)
    return (place.paste(behind, person.straight(), alpha) for person, alpha in persons)


def _cut_out(portrait: Portrait, persons: Persons, view: str) -> Iterator[np.ndarray]:
    """The person alone, with straight alpha ``[H, W, 4]``."""
    clip, crop = portrait.clip, portrait.crop
    empty = np.zeros((clip.height, clip.width, 3), np.uint8)
    for person, alpha in persons:
        # Colour goes on beyond the edge: the codec stores it at half resolution and must not mix black into it.
        color = fill(person.straight(), alpha > 0.5) if (alpha > 0.5).any() else person.straight()
        if view == "crop":
            yield np.dstack([np.rint(color * 255), np.rint(alpha * 255)]).astype(np.uint8)
            continue
        picture = crop.paste(empty, color, np.ones_like(alpha))
        mask = crop.paste(empty, np.repeat(alpha[..., None], 3, 2), np.ones_like(alpha))
        yield np.dstack([picture, mask[..., :1]])


def _between_bars(
    pictures: Iterator[np.ndarray], bars: Bars, frame: np.ndarray, crop: Crop | None
) -> Iterator[np.ndarray]:
    """``pictures`` ``[H, W, 3 or 4]`` with the clip's own bars around them, as in ``frame``; a picture with alpha has nothing there.

    Bars belong to no scene: with another one behind the person they would be a strip of it beyond a bust that ends at a line.
    """
    share = 255 - bars.clear(np.full(frame.shape[:2], 255, np.uint8))
    if crop is not None:
        frame, share = crop.extract(frame), crop.extract(share)
    share = as_float(share)[..., None]
    for picture in pictures:
        transparent = picture.shape[2] == 4
        below = np.dstack([picture[..., :3], np.zeros_like(share, np.uint8)]) if transparent else frame
        yield _mixed(picture, below, share)


def _persons(portrait: Portrait, rendered: Iterator[RenderedCrop], view: str, turned: bool) -> Persons:
    """Each rendered frame with its alpha ``[S, S]``, empty where the clip does not show the person.

    Args:
        turned: the view is not the clip's own, and the avatar fades by itself where the clip's picture ends.
    """
    clip, crop = portrait.clip, portrait.crop
    fade = _fade(crop, clip.width, clip.height)
    if view == "crop":
        fade = np.ones_like(fade) if turned else _ending(crop, clip.width, clip.height)
    for person, gone in zip(rendered, load_screening(portrait).away, strict=True):
        yield person, np.zeros_like(person.alpha) if gone else person.alpha * fade


def _cleaned(crop: Crop, width: int, height: int) -> np.ndarray:
    """Share ``[H, W, 1]`` of the scene without the person: 0 where they fade out, for arms stay beyond that would end at a line."""
    inner = _fade(crop, width, height, 1)
    white = np.full((height, width, 3), 255, np.uint8)
    return crop.paste(white, np.repeat(inner[..., None], 3, 2), np.ones_like(inner))[..., :1].astype(np.float32) / 255


def _mixed(below: np.ndarray, above: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Two pictures ``[H, W, 3]`` uint8 with the ``share`` ``[H, W, 1]`` of the second."""
    return np.rint(below + (above.astype(np.float32) - below) * share).astype(np.uint8)


def _fade(crop: Crop, width: int, height: int, margin: int = 0) -> np.ndarray:
    """Weight ``[S, S]`` that falls to 0 at the crop's borders which lie inside the frame, where the person may go on beyond it.

    Args:
        margin: how many times the width of the fall it is 0 before.
    """
    ramp = _ramp(np.arange(crop.size) + 0.5, crop, margin)
    ones = np.ones_like(ramp)
    columns = (ramp if crop.left > 0 else ones) * (ramp[::-1] if crop.left + crop.side < width else ones)
    rows = (ramp if crop.top > 0 else ones) * (ramp[::-1] if crop.top + crop.side < height else ones)
    return rows[:, None] * columns[None]


def _ending(crop: Crop, width: int, height: int) -> np.ndarray:
    """Weight ``[S, S]`` that falls to 0 where the frame ends within the crop, at the sides and below, for the body's rest is unknown."""
    scale = crop.size / crop.side
    left, right, below = -crop.left * scale, (width - crop.left) * scale, (height - crop.top) * scale
    centres = np.arange(crop.size) + 0.5
    ones = np.ones(crop.size, np.float32)
    columns = _ramp(centres - left, crop) if left > 0 else ones
    columns = columns * (_ramp(right - centres, crop) if right < crop.size else ones)
    rows = _ramp(below - centres, crop) if below < crop.size else ones
    return rows[:, None] * columns[None]


def _ramp(room: np.ndarray, crop: Crop, margin: int = 0) -> np.ndarray:
    """How much is left of the person, smoothly from 0 to 1, who fades out ``room`` working pixels from there."""
    share = np.clip(room / (crop.size * _FADE) - margin, 0, 1).astype(np.float32)
    return share * share * (3 - 2 * share)


def _mirrored(scene: np.ndarray, crop: Crop) -> np.ndarray:
    """The crop ``[S, S, 3]`` of a scene ``[H, W, 3]`` uint8 that goes on beyond the frame as in a mirror."""
    height, width = scene.shape[:2]
    left, above = max(0, -int(crop.left)), max(0, -int(crop.top))
    right, below = max(0, int(crop.left + crop.side) - width), max(0, int(crop.top + crop.side) - height)
    wide = cv2.copyMakeBorder(scene, above, below, left, right, cv2.BORDER_REFLECT)
    return replace(crop, left=crop.left + left, top=crop.top + above).extract(wide)


def _whole(crop: Crop) -> Crop:
    """All of a picture of the crop's own size."""
    return Crop(0, 0, crop.size, crop.size)
