"""The rendered person put back over a background, and the whole clip written with its sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

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

_FADE = 0.06  # share of the crop's side over which the person fades out where the crop ends inside the frame
_PREVIEW_EVERY = 10


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
    if background.scene == "transparent":
        pictures = _cut_out(portrait, rendered, view)
    elif background.picture is not None:
        pictures = _over_picture(portrait, rendered, view, background.picture)
    else:
        change = blurred if background.scene == "blur" else edit_scene
        pictures = _over_scene(portrait, rendered, view, change, bars)
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
    portrait: Portrait, rendered: Iterator[RenderedCrop], view: str, change: SceneEdit | None, bars: Bars
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
    persons = _persons(portrait, rendered, view)
    for frame, whole, (person, alpha) in zip(frames, alphas, persons, strict=True):
        source_alpha = as_float(whole) * taken_out
        if change is None:
            picture = composite(frame, plate, person.straight(), alpha, source_alpha, crop)
        elif changed is not None:
            picture = crop.paste(changed, person.straight(), alpha)
        else:
            clean = composite(frame, plate, person.straight(), np.zeros_like(alpha), source_alpha, crop)
            picture = crop.paste(change(_mixed(frame, clean, cleaned)), person.straight(), alpha)
        yield crop.extract(picture) if view == "crop" else picture


def _over_picture(
    portrait: Portrait, rendered: Iterator[RenderedCrop], view: str, background: np.ndarray
) -> Iterator[np.ndarray]:
    """The person over a colour or a picture."""
    behind = covering(background, portrait.clip.width, portrait.clip.height)
    for person, alpha in _persons(portrait, rendered, view):
        picture = portrait.crop.paste(behind, person.straight(), alpha)
        yield portrait.crop.extract(picture) if view == "crop" else picture


def _cut_out(portrait: Portrait, rendered: Iterator[RenderedCrop], view: str) -> Iterator[np.ndarray]:
    """The person alone, with straight alpha ``[H, W, 4]``."""
    clip, crop = portrait.clip, portrait.crop
    empty = np.zeros((clip.height, clip.width, 3), np.uint8)
    for person, alpha in _persons(portrait, rendered, view):
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


def _persons(
    portrait: Portrait, rendered: Iterator[RenderedCrop], view: str
) -> Iterator[tuple[RenderedCrop, np.ndarray]]:
    """Each rendered frame with its alpha ``[S, S]``, empty where the clip does not show the person."""
    fade = _fade(portrait.crop, portrait.clip.width, portrait.clip.height)
    for person, gone in zip(rendered, load_screening(portrait).away, strict=True):
        alpha = person.alpha * fade if view == "frame" else person.alpha
        yield person, np.zeros_like(alpha) if gone else alpha


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
    ramp = np.clip((np.arange(crop.size) + 0.5) / (crop.size * _FADE) - margin, 0, 1).astype(np.float32)
    ramp = ramp * ramp * (3 - 2 * ramp)
    ones = np.ones_like(ramp)
    columns = (ramp if crop.left > 0 else ones) * (ramp[::-1] if crop.left + crop.side < width else ones)
    rows = (ramp if crop.top > 0 else ones) * (ramp[::-1] if crop.top + crop.side < height else ones)
    return rows[:, None] * columns[None]
