"""Clips in and out, streamed: what a video is, its frames as upright RGB, and H.264 files that every browser plays.

Times are seconds from the clip's start, which is where the earlier of video and sound begins. A frame is identified by its time, so a
broken frame in the middle is bridged by its predecessor and never shifts the rest against the sound.

Colour: Y'CbCr is converted with the source's own matrix and range, and written back with the same matrix in limited range and the same
tags, so that pixels nobody touched look the same in every player. Sources without tags keep none (matrix BT.601 both ways, as FFmpeg
reads them), RGB sources become BT.709, HDR (PQ, HLG) is tone-mapped to BT.709 SDR.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .decoding import (
    BT709,
    INDEXED,
    MAX_RATE,
    Converter,
    audio_stream,
    check_size,
    colour,
    decoded,
    displayed_size,
    most_frames,
    opened,
    origin,
    seek_before,
    turned,
)
from .encoding import write_gray, write_video
from .errors import InputError
from .limits import MAX_SECONDS, MAX_START

__all__ = ["MAX_SECONDS", "ClipInfo", "probe", "read_frames", "read_gray", "write_gray", "write_video"]

MIN_FRAMES = 2

_SLACK = 0.5  # seconds a clip may run over MAX_SECONDS: "a minute" is rarely cut to the frame
_ROUNDING = 1e-4  # seconds
_UNTIMED = {"avi"}  # containers whose frames carry no presentation times: frame k is shown at k / rate


@dataclass(frozen=True)
class ClipInfo:
    """What is known about a clip before its frames are read.

    Attributes:
        width, height: size in pixels as displayed, rotation applied.
        frame_count: number of frames that `read_frames` yields, at least 2.
        rate: average frames per second.
        duration: seconds from the first frame's time to the end of the last frame.
        has_audio: whether there is a sound track that can be decoded.
        rotation: degrees counter-clockwise by which the stored pictures are turned for display.
        timestamps: time of each frame in seconds from the clip's start, strictly increasing.
        start: time before which nothing of the clip is used, pictures or sound: that of the first frame, or 0 for the clip's own start.
        pixel_aspect: width over height of one pixel; 1 but for anamorphic sources. The output carries it on.
        colour: (primaries, transfer, matrix) codes of ITU-T H.273 that the output is tagged with; 2 is "unspecified".
    """

    width: int
    height: int
    frame_count: int
    rate: Fraction
    duration: float
    has_audio: bool
    rotation: int
    timestamps: tuple[float, ...]
    pixel_aspect: Fraction = Fraction(1)
    colour: tuple[int, int, int] = BT709
    start: float = 0.0

    def from_start(self) -> ClipInfo:
        """The same with times that count from ``start``, which are those of a file that is written."""
        return replace(self, timestamps=tuple(time - self.start for time in self.timestamps), start=0.0)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return asdict(self) | {"rate": str(self.rate), "pixel_aspect": str(self.pixel_aspect)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ClipInfo:
        """The inverse of `to_json`."""
        primaries, transfer, matrix = values["colour"]
        restored = {
            "rate": Fraction(values["rate"]),
            "timestamps": tuple(values["timestamps"]),
            "pixel_aspect": Fraction(values["pixel_aspect"]),
            "colour": (primaries, transfer, matrix),
        }
        return cls(**(values | restored))


def probe(path: str | Path, *, start: float = 0.0, max_seconds: float | None = None) -> ClipInfo:
    """Find out what a clip is, decoding a few frames at most where the container tells the rest.

    A file whose end is missing counts up to its last good frame. Only frames that begin at ``start`` seconds or later count and, with
    ``max_seconds``, before that many seconds after the first of them.

    Raises InputError, with one sentence for the person, if the file is no clip that can be used: missing, empty, broken, not a video, a
    picture, a single frame, larger than MAX_SIDE, smaller than MIN_SIDE, longer than MAX_SECONDS, faster than MAX_RATE, of more tracks or
    pixels in all than anybody's clip, or over before ``start``.
    """
    path = Path(path)
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"The length to use is {max_seconds:g} seconds, it must be more than 0.")
    if not 0 <= start <= MAX_START:
        raise InputError(f"The clip is to start at {start:g} seconds, it can start from 0 to {MAX_START:.0f}.")
    limit = MAX_SECONDS + _SLACK if max_seconds is None else min(max_seconds - _ROUNDING, MAX_SECONDS + _SLACK)
    with opened(path) as (container, stream):
        first = next(decoded(container, stream), None)
        if first is None:
            raise InputError(f"No frame of {path.name} can be decoded, it is damaged. Export it again as MP4.")
        width, height = displayed_size(first)
        check_size(width, height)
        most = most_frames(width, height)
        times, longer = _packet_times(path, start, limit, most)
        if longer and limit > MAX_SECONDS:
            raise InputError(_too_long(path, start, float(container.duration or 0) / av.time_base - start))
        times = times or _decoded_times(path, start, limit, most)
        if len(times) <= MIN_FRAMES and start:
            raise _beyond(path, start, times[-1])
        if len(times) <= MIN_FRAMES:
            raise InputError(
                f"{path.name} has a single frame, a clip needs more. Upload a video in which the person moves."
            )
        *times, end = times
        if len(times) > MAX_RATE * (end - times[0]):
            raise InputError(
                f"{path.name} has {len(times) / (end - times[0]):.0f} frames a second, at most {MAX_RATE:.0f} are allowed. "
                "Export it again with 30."
            )
        stated = stream.average_rate
        agrees = stated and abs((end - times[0]) * float(stated) - len(times)) < 0.5  # to half a frame
        aspect = stream.sample_aspect_ratio or Fraction(1)
        return ClipInfo(
            width=width,
            height=height,
            frame_count=len(times),
            rate=Fraction(stated) if agrees else Fraction(len(times) / (end - times[0])).limit_denominator(1001),
            duration=end - times[0],
            has_audio=audio_stream(container) is not None,
            rotation=round(first.rotation) % 360,
            timestamps=tuple(times),
            pixel_aspect=1 / aspect if turned(first) else aspect,
            colour=colour(first),
            start=times[0] if start else 0.0,
        )


def stated_seconds(path: str | Path) -> float:
    """How long a file says it is, in seconds, true or not; 0 if it says nothing."""
    with opened(Path(path)) as (container, _):
        return float(container.duration or 0) / av.time_base


def read_frames(path: str | Path, info: ClipInfo) -> Iterator[np.ndarray]:
    """Yield exactly ``info.frame_count`` frames ``[H, W, 3]`` uint8 RGB, upright, alpha over white, decoded one by one.

    A frame that cannot be decoded is replaced by the one before it.
    """
    with opened(Path(path)) as (container, stream):
        convert = Converter(info.width, info.height)
        timed = container.format.name not in _UNTIMED
        shift = origin(container, stream)
        seek_before(container, stream, shift + info.start)
        done = 0
        shown: np.ndarray | None = None
        for index, frame in enumerate(decoded(container, stream)):
            known = timed and frame.pts is not None
            time = float(frame.pts * stream.time_base) - shift if known else index * _period(stream)
            if info.start and time < info.start - _ROUNDING:
                continue
            number = _nearest(info.timestamps, time) if known else done
            if number < done:
                continue  # the timeline has no such frame
            picture = convert(frame)
            for _ in range(number - done):
                yield picture if shown is None else shown
            yield picture
            shown, done = picture, number + 1
            if done == info.frame_count:
                return
        if shown is None:
            raise InputError(f"No frame of {Path(path).name} can be decoded, it is damaged. Export it again as MP4.")
        for _ in range(info.frame_count - done):
            yield shown


def read_gray(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the images ``[H, W]`` uint8 of a `write_gray` file, bit for bit."""
    with opened(Path(path)) as (container, stream):
        for frame in container.decode(stream):
            yield frame.to_ndarray()[: frame.height]  # the decoder may add empty colour planes


def _too_long(path: Path, start: float, seconds: float) -> str:
    spoken = f"is {seconds:.0f} seconds" if seconds < 180 else f"is {seconds / 60:.0f} minutes"
    length = f"{spoken} long" if seconds > MAX_SECONDS else "is too long"
    where = f" from {start:g} s on" if start else ""
    return (
        f"{path.name} {length}{where}, at most {MAX_SECONDS:.0f} seconds are allowed. "
        f"Cut it, or use only a part of it with --max-seconds {MAX_SECONDS:.0f}."
    )


def _beyond(path: Path, start: float, end: float) -> InputError:
    return InputError(f"{path.name} ends at {end:.1f} s, it cannot be used from {start:g} s on. Start earlier.")


def _check_count(path: Path, count: int, most: int) -> None:
    if count > most:
        raise InputError(
            f"{path.name} has more than {most} frames of this size, too many to work on. Cut it, or export it with 30 a second."
        )


def _nearest(times: tuple[float, ...], time: float) -> int:
    after = min(bisect.bisect_left(times, time), len(times) - 1)
    return after - 1 if after > 0 and time - times[after - 1] < times[after] - time else after


def _period(stream: Any) -> float:
    """Seconds from frame to frame where a container does not say their times."""
    return 1 / float(stream.average_rate or stream.guessed_rate or 25)


def _packet_times(path: Path, start: float, limit: float, most: int) -> tuple[list[float], bool]:
    """Frame times from ``start`` on, below ``limit`` seconds after the first, and, last, where they end, from the packets alone; and
    whether the clip goes on from there.

    Raises InputError for more than ``most`` of them, and where there are none. No times where packets do not tell: other containers,
    missing times, or pictures at the end that do not decode.
    """
    with opened(path) as (container, stream):
        told = container.format.name in INDEXED
        base = stream.time_base
        shift = origin(container, stream)
        passed, last = 0, 0.0
        spans: dict[int, int] = {}
        first = None
        longer = False
        with contextlib.suppress(av.FFmpegError):  # a file that stops short
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                time = packet.dts if packet.pts is None else packet.pts
                if start and time is not None and (seconds := float(time * base) - shift) < start - _ROUNDING:
                    passed, last = passed + 1, max(last, seconds + float((packet.duration or 0) * base))
                    _check_count(path, passed, round(MAX_RATE * MAX_START))
                    continue
                told = told and packet.pts is not None and not packet.is_corrupt and time not in spans
                if time is not None:
                    spans[time] = packet.duration or 0
                    first = time if first is None else min(first, time)
                    _check_count(path, len(spans) - 1, most)
                    longer = (time - first) * base >= limit
                if longer and (packet.dts is None or (packet.dts - first) * base > limit):
                    break  # later packets hold later frames
        order = sorted(spans)
        if told and not order and passed:
            raise _beyond(path, start, last)
        within = [time for time in order if (time - order[0]) * base < limit]
        if (
            not told
            or not within
            or (not longer and stream.frames > passed + len(order))
            or not _ends_decode(container, stream, within)
        ):
            return [], longer
        times = [float(time * base) - shift for time in within]
        span = spans[within[-1]] or (within[-1] - within[-2] if len(within) > 1 else 1)
        end = order[len(within)] if longer else within[-1] + span
        return [*times, float(end * base) - shift], longer


def _ends_decode(container: Any, stream: Any, order: list[int]) -> bool:
    """Whether the first two frames and the last group of pictures decode to frames of these times."""
    for target, wanted in ((order[0], order[:2]), (order[-1], order[-1:])):
        with contextlib.suppress(av.FFmpegError):
            container.seek(target, stream=stream)
        seen = set()
        for frame in decoded(container, stream, strict=True):
            seen.add(None if frame.is_corrupt else frame.pts)
            if frame.pts is None or frame.pts >= wanted[-1]:
                break
        if not seen.issuperset(wanted):
            return False
    return True


def _decoded_times(path: Path, start: float, limit: float, most: int) -> list[float]:
    """The times of `_packet_times` by decoding, up to the last good frame of a damaged clip."""
    with opened(path) as (container, stream):
        timed = container.format.name not in _UNTIMED
        shift = origin(container, stream)
        period = _period(stream)
        times: list[float] = []
        good, end = 0, 0.0
        for index, frame in enumerate(decoded(container, stream)):
            known = timed and frame.pts is not None
            time = float(frame.pts * stream.time_base) - shift if known else index * period
            if start and time < start - _ROUNDING:
                end = time + period
                _check_count(path, index, most)
                continue
            if times and time <= times[-1]:
                time = times[-1] + period / 8
            if times and time - times[0] >= limit:
                return [*times, time]
            times.append(time)
            _check_count(path, len(times), most)
            if not frame.is_corrupt:
                good = len(times)
                end = time + (float((frame.duration or 0) * stream.time_base) if known else 0.0)
        return [*times[:good], max(end, times[good - 1] + period) if good else end]
