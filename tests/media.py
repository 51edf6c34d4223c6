"""Test clips made by code with PyAV. Each frame carries its number as black and white blocks, so that order and identity can be checked."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from portraitgen.clip import probe, read_frames, write_video
from portraitgen.crop import Crop
from portraitgen.portrait import Portrait, Settings

BLOCK = 16
BITS = 6
PATCHES = np.array(
    [[200, 40, 40], [40, 180, 60], [50, 60, 210], [230, 200, 40], [128, 128, 128], [20, 20, 20]], np.uint8
)


def picture(number: int, width: int = 192, height: int = 128) -> np.ndarray:
    """``[H, W, 3]`` uint8: flat patches, and ``number`` in the top row of blocks."""
    columns = np.arange(width) * len(PATCHES) // width
    frame = np.broadcast_to(PATCHES[columns], (height, width, 3)).copy()
    for bit in range(BITS):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
    return frame


def frames_of(path: Path) -> np.ndarray:
    """All frames of a clip ``[T, H, W, 3]`` uint8."""
    return np.stack(list(read_frames(path, probe(path))))


def number_of(frame: np.ndarray) -> int:
    """The inverse of `picture`."""
    centres = frame[BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK].mean(-1)
    return sum(1 << bit for bit, value in enumerate(centres) if value > 128)


@contextmanager
def _own_priority() -> Iterator[None]:
    """Afterwards this thread has the priority that it had before: for root SVT-AV1 makes whoever encodes a real-time thread for good.

    Those that it starts later are so too, and such threads that wait for one another in a loop leave no core to those they wait for.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (192, 128),
    count: int = 12,
    rate: int | Fraction = 25,
    times: Sequence[float] | None = None,
    start: float = 0.0,
    audio: Sequence[str] = (),
    audio_seconds: float | None = None,
    options: dict[str, str] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = picture,
    colour: tuple[Colorspace | None, ColorRange, int] = (None, ColorRange.MPEG, 2),
    rotation: int = 0,
    index_first: bool = False,
) -> Path:
    """Write a clip of ``draw(number, width, height)`` pictures (RGB, or RGBA for formats with alpha) with tones of 440, 880 … Hz.

    Args:
        times: seconds of each frame, for a variable rate; at ``rate`` if None. ``start`` is added to them.
        audio: codec of each sound track.
        colour: conversion matrix, range, and the matrix tag; the tag 2 with the default is what FFmpeg writes unasked.
        rotation: degrees counter-clockwise for display, MP4 and MOV only.
        index_first: whether an MP4's index comes before its pictures.
    """
    matrix, levels, tag = colour
    if times is None:
        times = [number / float(rate) for number in range(count)]
    faststart = {"movflags": "+faststart"} if index_first else {}
    with _own_priority(), av.open(str(path), "w", options=faststart) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        context = stream.codec_context
        context.time_base = Fraction(1, 1000)
        if codec in ("gif", "prores_ks", "mpeg4") or path.suffix == ".avi":
            context.time_base = 1 / Fraction(rate)
        if tag != 2:
            context.colorspace = tag
        context.color_range = levels
        sounds = [output.add_stream(name, rate=48000, layout="mono") for name in audio]
        output.start_encoding()
        for number, time in enumerate(times):
            image = draw(number, *size)
            frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
            if pixel_format not in ("rgb8", "argb", "rgb24"):
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace=matrix, src_color_range=ColorRange.JPEG, dst_color_range=levels
                )
            else:
                frame = frame.reformat(format=pixel_format)
            frame.time_base = context.time_base
            frame.pts = round((start + time) / context.time_base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        seconds = times[-1] + 1 / float(rate) if audio_seconds is None else audio_seconds
        for track, sound in enumerate(sounds):
            _write_tone(output, sound, 440 * (track + 1), seconds)
    if rotation:
        _rotate(path, rotation)
    return path


def rewritten(path: Path, **changes: object) -> Path:
    """The clip after one pass through read_frames and write_video."""
    info = probe(path, **changes)  # type: ignore[arg-type]
    output = path.with_name("out.mp4")
    write_video(output, read_frames(path, info), info, audio_from=path)
    return output


def write_portrait(folder: Path, clip: Path) -> None:
    """A portrait folder without an avatar."""
    folder.mkdir()
    shutil.copyfile(clip, folder / "source.mp4")
    settings = Settings("0" * 64, "preview", "anny", 0.0, 10.0, 0)
    Portrait(
        folder, settings, "source.mp4", probe(clip, max_seconds=10.0), Crop(0, 0, 120, 256), {"reconstruction": 1.0}
    ).save()


def _write_tone(output: Any, stream: Any, hertz: int, seconds: float) -> None:
    codec = stream.codec_context
    resampler = av.AudioResampler(
        format=codec.format, layout=codec.layout, rate=codec.sample_rate, frame_size=codec.frame_size or None
    )
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 48000)) / 48000)
    frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate = 48000
    clock = 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        piece.pts, piece.time_base = clock, Fraction(1, codec.sample_rate)
        clock += piece.samples
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def _rotate(path: Path, degrees: int) -> None:
    """Set the display matrix in the track header of an MP4 or MOV with one track."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cosine, -sine, 0, sine, cosine, 0, 0, 0]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *(65536 * value for value in matrix), 1 << 30)
    path.write_bytes(data)


def claim_duration(path: Path, seconds: int) -> None:
    """Make the movie header of an MP4 lie about its length."""
    data = bytearray(path.read_bytes())
    at = data.index(b"mvhd") + 4
    (scale,) = struct.unpack_from(">I", data, at + 12)
    struct.pack_into(">I", data, at + 16, scale * seconds)
    path.write_bytes(data)


def packets(path: Path, kind: str, index: int = 0) -> list[tuple[float, bytes]]:
    """Time in seconds and content of each packet of one track, kind "video" or "audio"."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[index]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def loudest_hertz(path: Path) -> float:
    """The strongest tone of the first sound track."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        wave = np.concatenate([frame.to_ndarray().astype(np.float64)[0].ravel() for frame in container.decode(stream)])
    return float(np.abs(np.fft.rfft(wave)).argmax() * stream.codec_context.sample_rate / len(wave))
