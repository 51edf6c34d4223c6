"""Clips read: every container and codec, times, colour, damage, and refusals."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from media import BLOCK, claim_duration, number_of, packets, picture, rewritten, write_clip

from portraitgen import clip
from portraitgen.clip import ClipInfo, probe, read_frames, write_video
from portraitgen.errors import InputError

KINDS = {
    "h264.mp4": {},
    "h264.mov": {"audio": ["aac"]},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": ["libopus"], "options": {"cpu-used": "8"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "h264.mkv": {"audio": ["flac"]},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le", "audio": ["pcm_s16le"]},
    "h264.avi": {"audio": ["libmp3lame"]},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "plain.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "h264.ts": {"audio": ["aac"]},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_keeps_its_frames_rate_and_size(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, **KINDS[name])  # type: ignore[arg-type]
    info = probe(path)
    assert (info.width, info.height, info.frame_count, info.rotation) == (192, 128, 12, 0)
    assert float(info.rate) == pytest.approx(25, abs=0.01)
    assert info.duration == pytest.approx(0.48, abs=0.002)
    frames = list(read_frames(path, info))
    assert [number_of(frame) for frame in frames] == list(range(12))
    output = rewritten(path)
    again = probe(output)
    assert (again.width, again.height, again.frame_count, again.rate) == (192, 128, 12, 25)
    assert [number_of(frame) for frame in read_frames(output, again)] == list(range(12))
    assert again.has_audio == info.has_audio == ("audio" in KINDS[name])
    with av.open(str(output)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert [stream.codec_context.name.removesuffix("float") for stream in container.streams.audio] in (
            [],
            ["aac"],
            ["mp3"],
        )
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    path = write_clip(tmp_path / "turned.mp4", rotation=rotation)
    info = probe(path)
    assert (info.width, info.height) == ((192, 128) if rotation == 180 else (128, 192))
    assert info.rotation == rotation
    expected = np.rot90(picture(5), rotation // 90).astype(int)
    frame = list(read_frames(path, info))[5]
    assert np.abs(frame - expected).mean() < 3
    again = probe(rewritten(path))
    assert (again.width, again.height, again.rotation) == (info.width, info.height, 0)


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_variable_rate_keeps_its_times(tmp_path: Path, name: str) -> None:
    times = [0, 0.02, 0.1, 0.14, 0.3, 0.36, 0.37, 0.6]
    path = write_clip(tmp_path / name, times=times)
    info = probe(path)
    assert np.allclose(info.timestamps, times, atol=1e-6)
    again = probe(rewritten(path))
    assert np.allclose(again.timestamps, times, atol=1e-4)
    assert again.duration == pytest.approx(info.duration, abs=1e-3)


def test_ntsc_rate_is_exact(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = write_clip(tmp_path / "ntsc.mkv", rate=rate, count=40)
    assert probe(path).rate == rate
    assert probe(rewritten(path)).rate == rate


@pytest.mark.parametrize("size", [(1920, 1080), (3840, 2160)])
def test_large_clips(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "large.mp4", size=size, count=3, options={"preset": "ultrafast"})
    info = probe(path)
    frames = read_frames(path, info)
    assert next(frames).shape == (size[1], size[0], 3)
    assert [number_of(frame) for frame in frames] == [1, 2]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("alpha.mov", {"codec": "qtrle", "pixel_format": "argb"}),
        (
            "alpha.webm",
            {"codec": "libvpx-vp9", "pixel_format": "yuva420p", "options": {"cpu-used": "8", "auto-alt-ref": "0"}},
        ),
    ],
)
def test_alpha_is_laid_over_white(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    def draw(number: int, width: int, height: int) -> np.ndarray:
        alpha = np.full((height, width, 1), 255, np.uint8)
        alpha[64:] = 0
        return np.concatenate([picture(number, width, height), alpha], -1)

    path = write_clip(tmp_path / name, draw=draw, **settings)  # type: ignore[arg-type]
    info = probe(path)
    frames = list(read_frames(path, info))
    assert [number_of(frame) for frame in frames] == list(range(12))
    assert frames[3][80:].min() > 245
    assert np.abs(frames[3][30:50].astype(int) - picture(3)[30:50]).mean() < 4


@pytest.mark.parametrize("tag", [1, 2, 6])
@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
def test_colours_survive_the_round_trip(tmp_path: Path, tag: int, levels: ColorRange) -> None:
    matrix = Colorspace.ITU709 if tag == 1 else Colorspace.ITU601
    path = write_clip(tmp_path / "colour.mp4", colour=(matrix, levels, tag), options={"crf": "1"})
    info = probe(path)
    output = tmp_path / "out.mp4"
    write_video(output, read_frames(path, info), info, crf=1)
    inside = (
        slice(BLOCK * 2, None),
        np.arange(192) % 32 - 16 < 8,
    )  # away from the edges of the patches, which 4:2:0 blurs
    decoded = [next(read_frames(file, probe(file))) for file in (path, output)]
    for frame in decoded:
        assert np.abs(frame.astype(int) - picture(0))[inside].mean() < 2
    assert probe(output).colour[2] == tag
    by_others = []
    for file in (path, output):  # a reader that only follows the tags
        found, frame = cv2.VideoCapture(str(file)).read()
        assert found
        by_others.append(frame[..., ::-1].astype(int))
    assert np.abs(by_others[0] - by_others[1])[inside].mean() < 2


def test_hdr_becomes_ordinary(tmp_path: Path) -> None:
    parameters = "log-level=none:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
    path = write_clip(
        tmp_path / "hdr.mp4",
        codec="libx265",
        pixel_format="yuv420p10le",
        count=3,
        options={"x265-params": parameters},
        colour=(9, ColorRange.MPEG, 9),
    )
    info = probe(path)
    assert info.colour == (1, 1, 1)
    frames = list(read_frames(path, info))
    assert [number_of(frame) for frame in frames] == [0, 1, 2]
    grey = frames[0][64, 144].astype(int)
    assert np.ptp(grey) <= 3
    assert 90 < grey.mean() < 200


def test_info_survives_json(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4", rate=Fraction(30000, 1001), audio=["aac"]))
    assert ClipInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_path_with_spaces_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "vidéos d’été, 100 % : ça"
    folder.mkdir()
    path = write_clip(tmp_path / "clip.mp4", audio=["aac"]).rename(folder / "mon père #1 %03d.mp4")
    assert probe(rewritten(path)).frame_count == 12
    assert sorted(file.name for file in folder.iterdir()) == ["mon père #1 %03d.mp4", "out.mp4"]


def refusal(path: Path, **arguments: float) -> str:
    with pytest.raises(InputError) as caught:
        probe(path, **arguments)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert "Errno" not in message
    return message


def test_refusals_of_what_is_no_video(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "missing.mp4")
    assert "folder" in refusal(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "empty" in refusal(empty)
    renamed = tmp_path / "text.mp4"
    renamed.write_text("These are my notes, not a video.\n" * 200)
    assert "not a video" in refusal(renamed)
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(50_000))
    assert "not a video" in refusal(noise)
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://localhost/secret.ts\n#EXT-X-ENDLIST\n")
    assert "not a video" in refusal(playlist)
    for suffix in (".png", ".jpg", ".webp"):
        still = tmp_path / f"still{suffix}"
        cv2.imwrite(str(still), picture(1))
        assert "picture" in refusal(still)
        assert "picture" in refusal(still.rename(tmp_path / "still.mp4"))


def test_refusals_of_sizes_and_lengths(tmp_path: Path) -> None:
    assert "4224×64" in refusal(write_clip(tmp_path / "wide.mp4", size=(4224, 64), options={"preset": "ultrafast"}))
    assert "32×32" in refusal(write_clip(tmp_path / "tiny.mp4", size=(32, 32)))
    assert "single frame" in refusal(write_clip(tmp_path / "one.mp4", count=1))
    assert "single frame" in refusal(write_clip(tmp_path / "one.gif", count=1, codec="gif", pixel_format="rgb8"))
    for name in ("hour.mp4", "hour.mkv", "hour.ts"):
        hour = write_clip(
            tmp_path / name, times=[15.0 * number for number in range(241)], options={"preset": "ultrafast"}
        )
        assert "60 minutes" in refusal(hour)
        assert "--max-seconds" in refusal(hour)
        assert probe(hour, max_seconds=31).frame_count == 3


def test_a_minute_is_allowed(tmp_path: Path) -> None:
    assert probe(write_clip(tmp_path / "minute.mp4", rate=1, count=60)).frame_count == 60


def test_a_header_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "lie.mp4")
    claim_duration(path, 36_000)
    assert probe(path).frame_count == 12
    assert probe(path).duration == pytest.approx(0.48, abs=0.01)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.webm", "cut.avi"])
def test_truncated_files_are_used_up_to_the_last_good_frame(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    grain = rng.integers(-30, 30, (30, 128, 192, 3))

    def draw(
        number: int, width: int, height: int
    ) -> np.ndarray:  # hard to compress, so that the pictures fill the file
        frame = picture(number, width, height)
        frame[40:] = np.clip(frame[40:] + grain[number, 40:], 0, 255)
        return frame

    settings = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}} if name.endswith("webm") else {"index_first": True}
    if name.endswith("avi"):
        settings = {"codec": "mpeg4", "options": {"b": "4000000"}}
    path = write_clip(tmp_path / name, count=30, draw=draw, **settings)  # type: ignore[arg-type]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    info = probe(path)
    assert 5 < info.frame_count < 28
    frames = list(read_frames(path, info))
    assert len(frames) == info.frame_count
    assert [number_of(frame) for frame in frames] == list(range(info.frame_count))
    assert probe(rewritten(path)).frame_count == info.frame_count


def test_a_truncated_file_without_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "cut.mp4", count=30)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert "broken" in refusal(path)


def test_a_damaged_middle_shifts_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "hit.mp4", count=30, options={"g": "5", "bf": "0"}, index_first=True)
    contents = [content for _, content in packets(path, "video")]
    data = path.read_bytes()
    for content in contents[11:13]:
        at = data.index(content)
        data = data[:at] + bytes(len(content)) + data[at + len(content) :]
    path.write_bytes(data)
    info = probe(path)
    numbers = [number_of(frame) for frame in read_frames(path, info)]
    assert info.frame_count == 30
    assert numbers[:11] == list(range(11))
    assert numbers[15:] == list(range(15, 30))


def test_frames_are_streamed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", count=40)
    info = probe(path)
    taken = 0

    def counted() -> object:
        nonlocal taken
        for frame in read_frames(path, info):
            taken += 1
            yield frame

    frames = counted()
    next(frames)  # type: ignore[call-overload]
    assert taken == 1
    assert clip.MAX_SECONDS == 60
