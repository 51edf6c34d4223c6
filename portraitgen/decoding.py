"""Reading of video files with PyAV: opening with plain-English refusals, decoding past damage, and frames as upright RGB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from .errors import InputError
from .streaming import breathe

MAX_SIDE = 4096
MIN_SIDE = 64
MAX_RATE = 240.0  # frames a second
MAX_PIXELS = 3.1e10  # of all frames together: a minute of 3840×2160 at 60 frames a second
MAX_TRACKS = 64
BT709 = (1, 1, 1)
MATRICES: dict[int, int] = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    7: Colorspace.SMPTE240M,
    9: 9,  # BT.2020; PyAV 17, the last for Python 3.10, has no name for it
}  # by H.273 code; the others are BT.601
# libswscale's flags for exact rounding and full chroma in and out, which PyAV 17 has no names for either.
EXACT = int(Interpolation.BICUBIC) | 0x40000 | 0x2000 | 0x4000

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg"  # no playlists: these open other files
)
# A picture that turns huge in the middle of a file is not even allocated. 64 is the largest block of HEVC.
_RUN_IN = 1.0  # seconds: pictures are stored out of order, and sound needs some to settle
INDEXED = {
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
}  # containers whose packets tell the frames and their times, and that lead to a time
_DECODER = {"max_pixels": str((MAX_SIDE + 64) ** 2)}
_STILLS = {"avif", "heic", "heix", "mif1"}
_HDR_TRANSFERS = {16, 18}  # PQ and HLG, ITU-T H.273


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; InputError if there is none."""
    if not path.exists():
        raise InputError(f"There is no file at {path}. Check the path.")
    if not path.is_file():
        raise InputError(f"{path} is a folder, not a video. Give the path of one video file.")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty. Upload it again.")
        container = av.open(
            f"file:{path}",
            options={
                "format_whitelist": _FORMATS,
                "protocol_whitelist": "file",
                "max_streams": str(MAX_TRACKS + 1),
            },
            metadata_errors="ignore",
        )
    except PermissionError:
        raise InputError(f"{path} may not be read. Change its permissions.") from None
    except MemoryError:  # what some demuxers make of max_streams
        raise _too_many_tracks(path) from None
    except av.FFmpegError:
        raise InputError(_why_unreadable(path)) from None
    with container:
        if len(container.streams) > MAX_TRACKS:
            raise _too_many_tracks(path)
        covers = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers and s.codec_context is not None]
        if not streams:
            raise InputError(f"{path.name} has no picture track. Upload a video file such as MP4, MOV or WebM.")
        if container.metadata.get("major_brand", "").strip() in _STILLS:
            raise InputError(f"{path.name} is a picture, not a clip. Upload a video.")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        check_size(stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "AUTO"
        stream.codec_context.options = _DECODER
        yield container, stream


def _why_unreadable(path: Path) -> str:
    if cv2.haveImageReader(str(path)):
        return f"{path.name} is a picture, not a clip. Upload a video."
    with path.open("rb") as file:
        start = file.read(4096)
    if b"ftyp" in start[:16] or start[:4] in (b"\x1aE\xdf\xa3", b"RIFF", b"GIF8"):
        return f"{path.name} is broken or its end is missing. Export or upload it again."
    return f"{path.name} is not a video that can be read. Upload an MP4, MOV, WebM, MKV, AVI or GIF file."


def _too_many_tracks(path: Path) -> InputError:
    return InputError(f"{path.name} has more than {MAX_TRACKS} tracks. Export it with one picture and one sound track.")


def most_frames(width: int, height: int) -> int:
    """How many frames of a size are worked on at most, whatever a file claims about their times."""
    return int(min(MAX_PIXELS / (width * height), MAX_RATE * 61))


def check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"The video is {width}×{height} pixels, at most {MAX_SIDE} a side are allowed. Scale it down, say to 1080p."
        )
    if 0 < min(width, height) < MIN_SIDE:
        raise InputError(
            f"The video is {width}×{height} pixels, at least {MIN_SIDE} a side are needed. Use a larger one."
        )


def origin(container: Any, stream: Any) -> float:
    """Seconds in the container's time at which the clip starts.

    Sound that starts before zero is the encoder's run-in, not the start of the clip.
    """
    starts = [float((s.start_time or 0) * s.time_base) for s in (stream, audio_stream(container)) if s is not None]
    return min(starts[0], max(0.0, starts[-1]))


def seek_before(container: Any, stream: Any, time: float) -> None:
    """Go on to the last picture, or sound, that can be decoded by itself, a little before ``time``, in seconds of the container's time.

    Where a container does not lead there it stays at its start: what comes out is to be looked at from then on in any case.
    """
    target = time - _RUN_IN
    if target > float((stream.start_time or 0) * stream.time_base) and container.format.name in INDEXED:
        with contextlib.suppress(av.FFmpegError):
            container.seek(round(target / stream.time_base), stream=stream)


def audio_stream(container: Any) -> Any:
    return next(
        (s for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate), None
    )


def decoded(container: Any, stream: Any, strict: bool = False) -> Iterator[Any]:
    """Decode from where the container stands, past broken packets unless ``strict``."""
    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ("vp8", "vp9"):
        decoder = av.CodecContext.create(
            "libvpx-vp9" if decoder.name == "vp9" else "libvpx", "r"
        )  # the native ones drop the alpha
        decoder.options = _DECODER
    packets = container.demux(stream)
    ended = False
    while not ended:
        breathe()
        packet = None
        with contextlib.suppress(
            av.FFmpegError
        ):  # a file that stops short: what was read still has to come out of the decoder
            packet = next(packets, None)
        ended = packet is None or packet.size == 0
        try:
            yield from decoder.decode(None if ended else packet)
        except EOFError:
            return
        except av.FFmpegError:
            if strict:
                return


def _matrix_entries(frame: Any) -> tuple[int, int, int, int]:
    """Signs of the display matrix (a, b, c, d): x' = a·x + c·y, y' = b·x + d·y."""
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (round(float(values[k]) / 65536) for k in (0, 1, 3, 4))
    return (a, b, c, d) if abs(a * d - b * c) == 1 else (1, 0, 0, 1)


def turned(frame: Any) -> bool:
    return _matrix_entries(frame)[0] == 0


def displayed_size(frame: Any) -> tuple[int, int]:
    return (frame.height, frame.width) if turned(frame) else (frame.width, frame.height)


def colour(frame: Any) -> tuple[int, int, int]:
    """The tags that the output gets."""
    matrix = int(frame.colorspace)
    if frame.format.is_rgb or int(frame.color_trc) in _HDR_TRANSFERS or matrix not in (1, 2, 4, 5, 6, 7, 9):
        return BT709
    return int(frame.color_primaries), int(frame.color_trc), matrix


class Converter:
    """Decoded frames to upright RGB arrays of one size."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.graph: Graph | None = None

    def __call__(self, frame: Any) -> np.ndarray:  # [H, W, 3] uint8
        a, b, c, d = _matrix_entries(frame)
        width, height = (self.height, self.width) if a == 0 else (self.width, self.height)
        if int(frame.color_trc) in _HDR_TRANSFERS:
            frame = self._tone_mapped(frame)
        alpha = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
        matrix = None if frame.format.is_rgb else MATRICES.get(int(frame.colorspace), Colorspace.ITU601)
        full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj") or frame.format.is_rgb
        frame = frame.reformat(
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
        )
        picture = frame.to_ndarray()
        if alpha:
            picture = _over_white(picture)
        if a == 0:
            picture = picture.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
        else:
            picture = picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        return np.ascontiguousarray(picture)

    def _tone_mapped(self, frame: Any) -> Any:
        if self.graph is None:
            self.graph = Graph()
            source = self.graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base or Fraction(1, 1000),
            )
            scale = self.graph.add("scale", "out_range=pc:out_primaries=bt709:out_transfer=bt709")
            chosen = self.graph.add("format", "pix_fmts=rgb24")
            self.graph.link_nodes(source, scale, chosen, self.graph.add("buffersink")).configure()
        self.graph.push(frame)
        return self.graph.pull()


def _over_white(picture: np.ndarray) -> np.ndarray:
    """``[H, W, 4]`` uint8 straight alpha over white, ``[H, W, 3]`` uint8."""
    alpha = picture[..., 3:]
    if alpha.min() == 255:
        return picture[..., :3]
    mixed = picture[..., :3].astype(np.uint16) * alpha + (255 - alpha.astype(np.uint16)) * 255
    return ((mixed + 127) // 255).astype(np.uint8)
