"""A first look at a clip, in a second or two: is there a face, which part of the picture will be worked on, how much of it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from .clip import ClipInfo
from .crop import Crop, choose_crop
from .decoding import Converter, decoded, opened, origin, seek_before
from .errors import InputError
from .storage import replacing

MOMENTS = 5
PICTURE_SIDE = 640  # px, longest side of the picture that is shown
_SIDE = 960  # px, longest side of what is searched
_SHADE = 0.45  # brightness of what lies outside the working crop
_CROP_COLOUR, _FACE_COLOUR = (94, 234, 212), (255, 255, 255)


@dataclass(frozen=True)
class Inspection:
    """What a first look found.

    Attributes:
        info: the part of the clip that will be used.
        crop: the square that will be worked on, as far as the moments looked at tell.
        seen, moments: in how many of how many moments the face was found.
        picture: one frame ``[H, W, 3]`` uint8, small, with the square bright and the face marked.
    """

    info: ClipInfo
    crop: Crop
    seen: int
    moments: int
    picture: np.ndarray


def write_picture(path: Path, found: Inspection) -> None:
    """Write the picture of a first look as JPEG."""
    _, data = cv2.imencode(".jpg", found.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


@dataclass(frozen=True)
class _Moments:
    frame_count: int
    timestamps: tuple[float, ...]


def inspect(path: Path, info: ClipInfo) -> Inspection:
    """Look at a few moments of the part of a clip that ``info`` is about.

    Raises InputError where most moments show no face.
    """
    from .landmarks import detect_landmarks

    looked = list(sample_frames(path, info, MOMENTS))
    scale = min(1.0, _SIDE / max(info.width, info.height))
    small = [_scaled(frame, scale) for _, frame in looked]
    times = tuple(time for time, _ in looked)
    try:
        found = detect_landmarks(iter(small), _Moments(len(small), times))
    except InputError as error:
        raise InputError(
            f"Most of the {len(small)} moments looked at show no face. Use a clip, or a part of one, in which one face stays in "
            "view and is well lit."
        ) from error
    crop = choose_crop(info, found.head_boxes / scale, found.shoulder_boxes / scale)
    shown = int(np.flatnonzero(found.found)[found.found.sum() // 2])
    low, high = found.face[shown, :, :2].min(0) / scale, found.face[shown, :, :2].max(0) / scale
    picture = _marked(looked[shown][1], crop, np.concatenate([low, high]))
    return Inspection(info, crop, int(found.found.sum()), len(small), picture)


def sample_frames(path: Path, info: ClipInfo, count: int) -> Iterator[tuple[float, np.ndarray]]:
    """At most ``count`` frames spread over the clip, with their times in seconds; the rest is decoded as cheaply as the codec allows.

    Raises InputError if no frame can be decoded.
    """
    begin = info.timestamps[0]
    wanted = [begin + info.duration * (number + 0.5) / count for number in range(count)]
    convert = Converter(info.width, info.height)
    latest: tuple[float, av.VideoFrame] | None = None
    taken = 0
    with opened(path) as (container, stream):
        stream.codec_context.skip_frame = "NONREF"
        start, base = origin(container, stream), stream.time_base
        seek_before(container, stream, start + info.start)
        step = info.duration / info.frame_count
        for number, frame in enumerate(decoded(container, stream)):
            time = float(frame.pts * base) - start if frame.pts is not None else begin - info.start + number * step
            if info.start and time < begin - step / 2:
                continue
            if time >= begin + info.duration:
                break
            latest = (time, frame)
            if time >= wanted[taken]:
                yield time, convert(frame)
                latest = None
                while taken < count and time >= wanted[taken]:
                    taken += 1
                if taken == count:
                    return
        if taken == 0 and latest is not None:
            taken = 1
            yield latest[0], convert(latest[1])
    if taken == 0:
        raise InputError(f"No frame of {path.name} can be decoded, it is damaged. Export it again as MP4.")


def _scaled(frame: np.ndarray, scale: float) -> np.ndarray:
    return frame if scale == 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _marked(frame: np.ndarray, crop: Crop, face: np.ndarray) -> np.ndarray:
    """The frame, small, dark outside the crop, with the crop and the face (a box ``[4]`` in source pixels) outlined."""
    scale = min(1.0, PICTURE_SIDE / max(frame.shape[:2]))
    shade = np.full(frame.shape[:2], _SHADE, np.float32)
    shade[crop.window(frame)[0]] = 1
    picture = _scaled((frame * shade[..., None]).astype(np.uint8), scale)
    height, width = picture.shape[:2]
    corners = np.array([crop.left, crop.top, crop.left + crop.side, crop.top + crop.side])
    for box, colour, thickness in ((corners, _CROP_COLOUR, 3), (face, _FACE_COLOUR, 2)):
        left, top, right, bottom = np.clip(np.rint(box * scale).astype(int), 1, [width - 2, height - 2] * 2).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
    return picture
