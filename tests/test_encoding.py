"""Clips written: sound, sizes, and nothing left of what fails."""

from __future__ import annotations

import errno
import os
import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import loudest_hertz, packets, picture, rewritten, write_clip

from portraitgen import encoding
from portraitgen.clip import ClipInfo, probe, read_gray, write_gray, write_video
from portraitgen.errors import InputError


def test_odd_sizes_get_one_row_and_column_more(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.mkv", size=(193, 127), codec="ffv1", pixel_format="yuv444p")
    info = probe(path)
    assert (info.width, info.height) == (193, 127)
    again = probe(rewritten(path))
    assert (again.width, again.height) == (194, 128)


def test_sound_is_copied_where_browsers_play_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "sound.mp4", audio=["aac", "aac"], count=50)
    output = rewritten(path)
    before, after = packets(path, "audio"), packets(output, "audio")
    assert [content for _, content in after] == [content for _, content in before][: len(after)]
    assert len(before) - len(after) <= 1
    assert np.allclose([time for time, _ in after], [time for time, _ in before][: len(after)], atol=1e-3)
    assert loudest_hertz(output) == pytest.approx(440, abs=3)
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1


@pytest.mark.parametrize("codec", ["libopus", "flac", "pcm_s16le", "ac3"])
def test_other_sound_becomes_aac(tmp_path: Path, codec: str) -> None:
    path = write_clip(tmp_path / "sound.mkv", audio=[codec], count=50)
    output = rewritten(path)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert loudest_hertz(output) == pytest.approx(440, abs=3)
    times = [time for time, _ in packets(output, "audio")]
    assert min(times) == pytest.approx(0, abs=0.03)
    assert max(times) == pytest.approx(2, abs=0.05)


def test_sound_that_is_longer_than_the_pictures_is_cut(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "sound.mp4", audio=["aac"], count=25, audio_seconds=4)
    assert 0.9 < packets(rewritten(path), "audio")[-1][0] < 1.05


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_max_seconds_cuts_pictures_and_sound(tmp_path: Path, codec: str) -> None:
    path = write_clip(tmp_path / "sound.mkv", audio=[codec], count=50)
    info = probe(path, max_seconds=0.8)
    assert info.frame_count == 20
    assert info.duration == pytest.approx(0.8, abs=0.002)
    output = rewritten(path, max_seconds=0.8)
    assert probe(output).frame_count == 20
    assert 0.7 < packets(output, "audio")[-1][0] < 0.85


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_late_pictures_stay_in_step_with_the_sound(tmp_path: Path, codec: str) -> None:
    path = write_clip(tmp_path / "late.mkv", audio=[codec], start=0.4, audio_seconds=1)
    info = probe(path)
    assert info.timestamps[0] == pytest.approx(0.4, abs=2e-3)
    output = rewritten(path)
    assert probe(output).timestamps[0] == pytest.approx(0.4, abs=2e-3)
    assert packets(output, "audio")[0][0] == pytest.approx(0, abs=0.03)


def test_gray_is_lossless(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"))
    images = np.random.default_rng(0).integers(0, 256, (12, 80, 96), np.uint8)
    write_gray(tmp_path / "gray.mp4", iter(images), info)
    back = list(read_gray(tmp_path / "gray.mp4"))
    assert np.array_equal(np.stack(back), images)


def test_pixel_aspect_is_carried_on(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"))
    wide = ClipInfo.from_json(info.to_json() | {"pixel_aspect": "16/11"})
    write_video(tmp_path / "out.mp4", (picture(number) for number in range(12)), wide)
    assert probe(tmp_path / "out.mp4").pixel_aspect == Fraction(16, 11)


def pictures(count: int = 12) -> list[np.ndarray]:
    return [picture(number) for number in range(count)]


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"))
    with pytest.raises(InputError, match="no folder"):
        write_video(tmp_path / "missing" / "out.mp4", pictures(), info)
    with pytest.raises(InputError, match="is a folder"):
        write_video(tmp_path, pictures(), info)

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(encoding.av, "open", locked)
    with pytest.raises(InputError, match="not allowed"):
        write_video(tmp_path / "out.mp4", pictures(), info)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("allowed", [2_000, 60_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, allowed: int) -> None:
    path = write_clip(tmp_path / "clip.mp4", count=30)
    info = probe(path)
    old = tmp_path / "out.mp4"
    old.write_bytes(b"the older result")
    noise = np.random.default_rng(0).integers(0, 256, (30, 128, 192, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (allowed, limits[1])
    )  # the kernel refuses what goes beyond, as a full disk does
    try:
        with pytest.raises(InputError, match="disk is full"):
            write_video(old, iter(noise), info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert old.read_bytes() == b"the older result"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_a_disk_that_is_full_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="disk is full"):
        write_gray(tmp_path / "gray.mp4", (frame[..., 0] for frame in pictures()), info)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_clip(tmp_path / "clip.mp4", audio=["aac"])
    info = probe(path)

    def stopped() -> object:
        yield from pictures(7)
        raise error

    with pytest.raises(error):
        write_video(tmp_path / "out.mp4", stopped(), info, audio_from=path)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("count", [11, 13])
def test_a_wrong_number_of_frames_is_an_error(tmp_path: Path, count: int) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4"))
    with pytest.raises(ValueError, match="frames"):
        write_video(tmp_path / "out.mp4", pictures(count), info)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_webm_carries_transparency_and_sound(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "sound.mp4", audio=["aac"], count=20)
    info = probe(clip)
    alpha = np.zeros((info.height, info.width), np.uint8)
    alpha[20:100, 40:150] = 255
    alpha[50:60] = 128
    output = tmp_path / "cut out.webm"
    frames = (np.dstack([picture(number, info.width, info.height), alpha]) for number in range(20))
    write_video(output, frames, info, audio_from=clip)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "opus"
        stream = container.streams.video[0]
        assert stream.metadata["ALPHA_MODE"] == "1", "players show the transparency"
        # FFmpeg's own decoder drops the alpha plane, libvpx reads it.
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        seen = [
            frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)
        ]
    assert len(seen) == 20
    assert seen[0].format.name == "yuva420p"
    planes = seen[7].to_ndarray(format="rgba")
    assert np.abs(planes[..., 3].astype(int) - alpha).mean() < 3
    inside = alpha == 255
    assert np.abs(planes[..., :3].astype(int) - picture(7, info.width, info.height))[inside].mean() < 12
    assert loudest_hertz(output) == pytest.approx(440, abs=3)
