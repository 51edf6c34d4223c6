"""Writing of H.264 files, and of VP9 files with alpha, with PyAV: exact times, sound, and nothing half-written."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from .decoding import EXACT, MATRICES, audio_stream, opened, origin, seek_before
from .provenance import SOURCE_TYPE, xmp_box
from .storage import replacing

if TYPE_CHECKING:
    from .clip import ClipInfo

_AUDIO_SLACK = 0.05  # seconds: the last audio packets of an untrimmed clip usually end just after its last frame
_AUDIO_AHEAD = 0.5  # seconds by which the sound is muxed ahead of the pictures
_COPIED_AUDIO = {"aac", "mp3"}  # what MP4 carries and every browser plays
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
_OPUS_RATE = 48000
_VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1", "auto-alt-ref": "0"}
_AAC_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    info: ClipInfo,
    *,
    audio_from: str | Path | None = None,
    crf: float = 16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a clip with the times of ``info``, counted from its start, and the first sound track of ``audio_from``.

    Args:
        path: the file, replaced only when the new one is whole. ``.webm`` is written as VP9 with an alpha channel, anything else as MP4
            (H.264, yuv420p, index at the front).
        frames: ``info.frame_count`` arrays of one size, any size, uint8 RGB ``[H, W, 3]``, or with straight alpha ``[H, W, 4]`` for
            WebM; ValueError if there are more or fewer. 4:2:0 cannot hold odd sizes: an odd width or height gets one more column or
            row, a copy of the last.
        audio_from: clip on whose times ``info`` is based; its sound is cut to the frames. AAC and MP3 are copied to MP4, but for a clip
            that is used from somewhere in its middle, where a packet is too coarse a cut; anything else becomes AAC. In WebM all sound
            becomes Opus.
        crf: quality of libx264, 0 lossless to 51; WebM has its own.
        metadata: tags of the container, such as those of `provenance.provenance`; MP4 keeps only names that it knows (``comment``,
            ``description``, ``date``, …) and says the digital source type as XMP. Tags of ``audio_from`` are never taken over.

    Raises InputError if the folder cannot be written or the disk is full. On any error, Ctrl-C included, nothing is left behind.
    """
    with replacing(Path(path)) as temporary:
        _write(temporary, frames, info, audio_from, crf, metadata or {})
        if metadata and SOURCE_TYPE in metadata and temporary.suffix.lower() != ".webm":
            with temporary.open("ab") as file:
                file.write(xmp_box(metadata))


def _write(
    path: Path,
    frames: Iterable[np.ndarray],
    info: ClipInfo,
    audio_from: str | Path | None,
    crf: float,
    metadata: Mapping[str, str],
) -> None:
    with contextlib.ExitStack() as stack:
        transparent = path.suffix.lower() == ".webm"
        container = stack.enter_context(_muxer(path, "webm" if transparent else "mp4"))
        container.metadata.update(metadata)
        options = {"crf": str(crf), "preset": "fast"}
        if not _is_even(info.from_start()):
            options["bf"] = (
                "0"  # MP4 stores how long pictures last in decoding order: only without reordering is that right for the last
            )
        if transparent:
            stream = container.add_stream("libvpx-vp9", rate=info.rate, options=_VP9)
            stream.metadata["alpha_mode"] = "1"
        else:
            stream = container.add_stream("libx264", rate=info.rate, options=options)
        stream.pix_fmt = "yuva420p" if transparent else "yuv420p"
        codec = stream.codec_context
        codec.color_range = ColorRange.MPEG
        codec.color_primaries, codec.color_trc, codec.colorspace = info.colour
        codec.sample_aspect_ratio = info.pixel_aspect
        sound: Iterator[float] = iter(())
        if audio_from is not None and info.has_audio:
            sound = _sound(container, *stack.enter_context(opened(Path(audio_from))), info, opus=transparent)
        _encode(container, stream, (_to_yuv(frame, info.colour[2]) for frame in frames), info.from_start(), sound)


def write_gray(path: str | Path, frames: Iterable[np.ndarray], info: ClipInfo) -> None:
    """Write ``[H, W]`` uint8 images without loss as gray H.264 with the times of ``info``; errors as for `write_video`."""
    with replacing(Path(path)) as temporary, _muxer(temporary) as container:
        stream = container.add_stream("libx264", rate=info.rate, options={"qp": "0", "preset": "veryfast"})
        stream.pix_fmt = "gray"
        pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray") for frame in frames)
        _encode(container, stream, pictures, info.from_start(), iter(()))


@contextlib.contextmanager
def _muxer(path: Path, kind: str = "mp4") -> Iterator[Any]:
    """A file to fill. An error inside the block comes out as it is; closing the spoilt file is then not allowed to hide it."""
    container = av.open(f"file:{path}", "w", format=kind, options={"movflags": "+faststart"} if kind == "mp4" else {})
    try:
        yield container
    except BaseException:
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            container.close()
        raise
    container.close()


def _encode(container: Any, stream: Any, pictures: Iterable[Any], info: ClipInfo, sound: Iterator[float]) -> None:
    """Encode and mux the pictures, pulling ``sound`` along: it muxes a little at each step and yields how far it is, in seconds."""
    base, ticks = _ticks(info)
    ticks_of = dict(itertools.pairwise(ticks))
    sounding = 0.0

    def mux(packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.duration = ticks_of[packet.pts] - packet.pts
            container.mux(packet)

    stream.codec_context.time_base = base
    count = 0
    for picture in pictures:
        if count == info.frame_count:
            raise ValueError(f"more than the clip's {info.frame_count} frames")
        if count == 0:
            stream.width, stream.height = picture.width, picture.height
            container.start_encoding()  # opens every encoder: the sound's frame size is known from here on
        picture.pts, picture.time_base = ticks[count], base
        picture.duration = ticks[count + 1] - ticks[count]
        mux(stream.encode(picture))
        while sounding < info.timestamps[count] + _AUDIO_AHEAD:
            sounding = next(sound, float("inf"))
        count += 1
    if count < info.frame_count:
        raise ValueError(f"{count} frames instead of the clip's {info.frame_count}")
    mux(stream.encode())
    for _ in sound:
        pass


def _is_even(info: ClipInfo) -> bool:
    """Whether the times are those of a constant rate, to the millisecond that Matroska and WebM round to."""
    even = info.timestamps[0] + np.arange(info.frame_count + 1) / float(info.rate)
    return bool(np.abs([*info.timestamps, info.timestamps[0] + info.duration] - even).max() < 1.1e-3)


def _ticks(info: ClipInfo) -> tuple[Fraction, list[int]]:
    """A time base and in it the time of each frame and of the clip's end: exact for a constant rate, else 90 kHz."""
    if _is_even(info):
        start = round(info.timestamps[0] * info.rate.numerator)
        return 1 / Fraction(info.rate.numerator), [
            start + number * info.rate.denominator for number in range(info.frame_count + 1)
        ]
    ticks = np.round(np.array([*info.timestamps, info.timestamps[0] + info.duration]) * 90000).astype(np.int64)
    steps = np.arange(len(ticks))
    return Fraction(1, 90000), (np.maximum.accumulate(ticks - steps) + steps).tolist()  # strictly increasing


def _to_yuv(frame: np.ndarray, matrix_code: int) -> Any:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    alpha = frame.shape[2] == 4
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgba" if alpha else "rgb24").reformat(
        format="yuva420p" if alpha else "yuv420p",
        dst_colorspace=MATRICES.get(matrix_code, Colorspace.ITU601),
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
    )


def _sound(container: Any, source: Any, video: Any, info: ClipInfo, *, opus: bool) -> Iterator[float]:
    """Add the sound track of ``source`` to ``container``; the iterator muxes it step by step and yields the time it has reached.

    The track exists when this returns, as it must before the first packet is muxed.
    """
    track = audio_stream(source)
    begin = origin(source, video) + info.start
    end = info.timestamps[0] + info.duration - info.start
    if not opus and not info.start and track.codec_context.codec.canonical_name in _COPIED_AUDIO:
        return _copied_sound(container, source, track, container.add_stream_from_template(track), begin, end)
    rate = track.codec_context.sample_rate
    layout = track.codec_context.layout.name
    if opus:
        made = container.add_stream("libopus", rate=_OPUS_RATE)
        made.layout = layout if layout in ("mono", "stereo") else "stereo"
    else:
        made = container.add_stream("aac", rate=rate if rate in _AAC_RATES else 48000)
        made.layout = layout if layout in _AAC_LAYOUTS else "stereo"
    made.bit_rate = 96000 * made.codec_context.channels
    if info.start:
        seek_before(source, track, begin)
    return _made_sound(container, source, track, made, begin, end)


def _copied_sound(container: Any, source: Any, track: Any, copy: Any, start: float, end: float) -> Iterator[float]:
    shift = round(start / track.time_base)
    for packet in _packets(source, track):
        if packet.size == 0 or packet.dts is None or packet.pts is None:
            continue
        time = float(packet.pts * track.time_base) - start
        if time + float((packet.duration or 0) * track.time_base) > end + _AUDIO_SLACK:
            return
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = copy
        container.mux(packet)
        yield time


def _made_sound(container: Any, source: Any, track: Any, made: Any, start: float, end: float) -> Iterator[float]:
    codec = made.codec_context
    resampler = av.AudioResampler(format=codec.format, layout=codec.layout, rate=codec.sample_rate)
    waiting = av.AudioFifo()
    heard: int | None = None  # samples after ``start`` at which the next sound from the source belongs
    clock = 0  # samples written
    for frame in itertools.chain(_decoded_sound(source, track), [None]):
        if heard is None:
            heard = (
                round((float((frame.pts or 0) * track.time_base) - start) * codec.sample_rate)
                if frame is not None
                else 0
            )
            clock = max(heard, 0)
        for piece in resampler.resample(frame):
            if heard + piece.samples > 0:
                waiting.write(_without_first(piece, max(-heard, 0)))
            heard += piece.samples
        for piece in waiting.read_many(codec.frame_size, partial=frame is None):
            piece.pts, piece.time_base = clock, Fraction(1, codec.sample_rate)
            container.mux(made.encode(piece))
            clock += piece.samples
            if clock / codec.sample_rate > end:
                break
        yield clock / codec.sample_rate
        if clock / codec.sample_rate > end:
            break
    container.mux(made.encode(None))


def _without_first(piece: Any, count: int) -> Any:
    """A piece of sound less its first ``count`` samples."""
    values = piece.to_ndarray()  # [channels, samples], or [1, samples × channels]
    each = 1 if piece.format.is_planar else piece.layout.nb_channels
    rest = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(values[:, count * each :]), format=piece.format.name, layout=piece.layout.name
    )
    rest.sample_rate = piece.sample_rate
    return rest


def _packets(source: Any, track: Any) -> Iterator[Any]:
    """Packets up to where the file breaks."""
    with contextlib.suppress(av.FFmpegError):
        yield from source.demux(track)


def _decoded_sound(source: Any, track: Any) -> Iterator[Any]:
    """Audio frames, past broken packets."""
    for packet in _packets(source, track):
        frames: list[Any] = []
        with contextlib.suppress(av.FFmpegError):
            frames = packet.decode()
        yield from frames
