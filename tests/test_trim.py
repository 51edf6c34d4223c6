"""A clip used from somewhere in its middle: its frames, their times, and the sound in step with them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import number_of, packets, rewritten, write_clip

from portraitgen import clip
from portraitgen.clip import ClipInfo, probe, read_frames, write_video
from portraitgen.errors import InputError
from portraitgen.inspection import sample_frames

RATE = 48000
KINDS = {
    "h264.mp4": {"options": {"bf": "3", "g": "40"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20"}},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": ["libopus"], "options": {"cpu-used": "8"}},
    "h264.mkv": {"audio": ["flac"], "start": 0.3},
    "h264.ts": {"audio": ["aac"]},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "plain.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_the_clips_own_from_there_on(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, count=60, **KINDS[name])  # type: ignore[arg-type]
    whole = probe(path)
    for first, seconds in ((9, None), (37, 0.5)):
        begin = whole.timestamps[first]
        info = probe(path, start=begin - 0.01, max_seconds=seconds)
        last = 60 if seconds is None else first + 13
        assert info.timestamps == whole.timestamps[first:last]
        assert info.start == begin
        assert [number_of(frame) for frame in read_frames(path, info)] == list(range(first, last))
        looked = [number_of(frame) for _, frame in sample_frames(path, info, 3)]
        assert first <= looked[0] < looked[-1] < last
        output = rewritten(path, start=begin, max_seconds=seconds)
        again = probe(output)
        assert [number_of(frame) for frame in read_frames(output, again)] == list(range(first, last))
        assert again.timestamps[0] == 0
        assert again.duration == pytest.approx(info.duration, abs=2e-3)


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_variable_rate(tmp_path: Path, name: str) -> None:
    times = [0, 0.02, 0.1, 0.14, 0.3, 0.36, 0.37, 0.6]
    path = write_clip(tmp_path / name, times=times)
    info = probe(path, start=0.2)
    assert np.allclose(info.timestamps, times[4:], atol=1e-6)
    output = rewritten(path, start=0.2)
    again = probe(output)
    assert np.allclose(again.timestamps, np.subtract(times[4:], 0.3), atol=1e-4)
    assert again.duration == pytest.approx(info.duration, abs=1e-3)
    assert [number_of(frame) for frame in read_frames(output, again)] == [4, 5, 6, 7]


def test_a_far_start_is_not_read_up_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "long.mp4", count=60, rate=5, options={"g": "10"})
    info = probe(path, start=10)
    shown = []
    monkeypatch.setattr(clip, "decoded", lambda *args: (shown.append(f) or f for f in DECODED(*args)))
    assert [number_of(frame) for frame in read_frames(path, info)] == list(range(50, 60))
    assert len(shown) <= 25


DECODED = clip.decoded


def test_how_much_is_allowed_counts_from_there(tmp_path: Path) -> None:
    long = write_clip(tmp_path / "long.mp4", times=np.arange(0, 100, 2.0).tolist())
    with pytest.raises(InputError, match="is 98 seconds long, at most 60"):
        probe(long)
    with pytest.raises(InputError, match="is 88 seconds long from 10 s on, at most 60"):
        probe(long, start=10)
    assert probe(long, start=50).frame_count == 25
    assert probe(long, start=10, max_seconds=8).timestamps == (10, 12, 14, 16)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_refusals(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, count=25)
    for start in (0.96, 1.0, 30.0):
        with pytest.raises(InputError, match=rf"{name} ends at 1.0 s, it cannot be used from {start:g} s on. Start"):
            probe(path, start=start)
    for start in (-0.1, float("nan"), 601):
        with pytest.raises(InputError, match="can start from 0 to 600"):
            probe(path, start=start)


def test_info_survives_json_and_old_folders_have_none(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"), start=0.2)
    assert info.start == 0.2
    assert ClipInfo.from_json(info.to_json()) == info
    facts = info.to_json()
    del facts["start"]
    assert ClipInfo.from_json(facts).start == 0


def flash(number: int, width: int, height: int) -> np.ndarray:
    """White every tenth frame, else black."""
    return np.full((height, width, 3), 235 if number % 10 == 0 else 16, np.uint8)


def clicking(path: Path, silent: Path, codec: str, layout: str) -> Path:
    """``silent`` with a click 37 ms after every tenth frame of 25 a second."""
    wave = np.zeros((2 if layout == "stereo" else 1, 4 * RATE), np.float32)
    for second in np.arange(0, 4, 0.4):
        at = round((second + 0.037) * RATE)
        wave[:, at : at + 24] = 0.9
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
    frame.sample_rate = RATE
    with av.open(str(silent)) as source, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream(codec, rate=RATE, layout=layout)
        output.start_encoding()
        resampler = av.AudioResampler(
            format=sound.codec_context.format,
            layout=layout,
            rate=RATE,
            frame_size=sound.codec_context.frame_size or None,
        )
        clock = 0
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts, piece.time_base = clock, Fraction(1, RATE)
            clock += piece.samples
            output.mux(sound.encode(piece))
        output.mux(sound.encode(None))
    return path


def clicks(path: Path) -> np.ndarray:
    """Seconds at which clicks begin, by what a player hears."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        loud = []
        for frame in container.decode(stream):
            wave = frame.to_ndarray()
            wave = wave[0] if frame.format.is_planar else wave.reshape(-1, frame.layout.nb_channels)[:, 0]
            scale = np.iinfo(wave.dtype).max if wave.dtype.kind == "i" else 1
            begin = float(frame.pts * frame.time_base)
            loud.append(begin + np.flatnonzero(np.abs(wave / scale) > 0.3) / frame.sample_rate)
    times = np.sort(np.concatenate(loud))
    return times[np.diff(times, prepend=-1) > 0.1]


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("clip.mp4", "aac", "mono"),
        ("clip.mp4", "libmp3lame", "stereo"),
        ("clip.mkv", "flac", "stereo"),
        ("clip.mkv", "pcm_s16le", "mono"),
        ("clip.mkv", "libopus", "stereo"),
        ("clip.ts", "aac", "stereo"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_stays_in_step(tmp_path: Path, name: str, codec: str, layout: str, suffix: str) -> None:
    silent = write_clip(tmp_path / "silent.mp4", count=100, draw=flash, options={"g": "30"})
    path = clicking(tmp_path / name, silent, codec, layout)
    late = clicks(path)[0] - min(time for time, _ in packets(path, "video"))  # where this container puts the clicks
    for start, seconds in ((0.5, 1.2), (2.3, None)):
        info = probe(path, start=start, max_seconds=seconds)
        output = tmp_path / f"out{suffix}"
        pictures = list(read_frames(path, info))
        alpha = np.full((*pictures[0].shape[:2], 1), 255, np.uint8)
        frames = pictures if suffix == ".mp4" else (np.concatenate([picture, alpha], -1) for picture in pictures)
        write_video(output, frames, info, audio_from=path)
        white = [
            time - info.start for time, picture in zip(info.timestamps, pictures, strict=True) if picture[0, 0, 0] > 99
        ]
        heard = clicks(output)
        expected = np.array(white) + late
        assert len(heard) == len(expected)
        assert np.abs(heard - expected).max() < 0.004
        assert packets(output, "audio")[-1][0] < info.duration + 0.05


def test_sound_that_ends_before_the_start_leaves_silence(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "short.mkv", audio=["flac"], count=50, audio_seconds=0.5)
    output = rewritten(path, start=1)
    assert probe(output).frame_count == 25
