"""Letterbox bars on drawn pictures, and that they are nobody in a matte."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from portraitgen.backgrounds import stands_still
from portraitgen.bars import Bars, find_bars
from portraitgen.clip import ClipInfo, write_gray, write_video
from portraitgen.crop import Crop
from portraitgen.mattes import clean_plate, clip_bars, inside_picture
from portraitgen.matting import person_alpha
from portraitgen.portrait import Portrait, Settings
from portraitgen.screening import Screening


def pictures(count: int = 4, side: int = 96) -> list[np.ndarray]:
    """A noisy scene in which a disc moves."""
    random = np.random.default_rng(0)
    frames = []
    for t in range(count):
        frame = np.full((side, side, 3), (90, 140, 110), np.float32)
        cv2.circle(frame, (30 + 5 * t, 60), 25, (190, 150, 130), -1)
        frames.append(np.clip(frame + random.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
    return frames


@pytest.mark.parametrize("colour", [0, 16, 255])
@pytest.mark.parametrize("bars", [Bars(), Bars(bottom=27), Bars(left=12, right=12), Bars(9, 14, 20, 3)])
def test_bars_of_any_side_and_colour(bars: Bars, colour: int) -> None:
    random = np.random.default_rng(1)
    frames = []
    for frame in pictures():
        boxed = np.clip(colour + random.normal(0, 1.5, frame.shape), 0, 255).astype(np.uint8)
        bars.picture(boxed)[:] = bars.picture(frame)
        frames.append(boxed)
    assert find_bars(frames) == bars
    filled = bars.fill(frames[0])
    assert (bars.picture(filled) == bars.picture(frames[0])).all()
    assert filled.mean(axis=(0, 1)) == pytest.approx(frames[0][bars.top : 96 - bars.bottom or 96].mean(), abs=60)
    outside = bars.clear(np.ones((96, 96), np.uint8))
    assert outside.sum() == bars.picture(outside).size


def test_the_line_that_scaling_mixes_belongs_to_the_bar() -> None:
    frames = pictures()
    for frame in frames:
        frame[80:] = 0
        frame[79] = frame[79] // 2
    assert find_bars(frames) == Bars(bottom=17)


def test_plain_walls_and_dark_clothes_are_no_bars() -> None:
    frames = pictures()
    for frame in frames:
        frame[:20] = (90, 140, 110)  # a wall without any noise, as codecs leave it
        cv2.ellipse(frame, (48, 96), (90, 18), 0, 0, 360, (0, 0, 0), -1)  # a black coat over the whole width
        assert not frame[-4:].any()
    assert find_bars(frames) == Bars()
    assert find_bars([np.zeros((64, 64, 3), np.uint8)] * 3) == Bars()


def test_a_bar_that_not_every_frame_has_is_none() -> None:
    frames = pictures()
    for frame in frames[:-1]:
        frame[70:] = 0
    assert find_bars(frames) == Bars()


def test_bars_are_nobody() -> None:
    from skimage.data import astronaut

    picture = astronaut()
    boxed = picture.copy()
    boxed[460:], boxed[:, :20] = 0, 0
    seen, covered = (
        next(iter(person_alpha(lambda frame=frame: iter([frame] * 2), np.full((2, 478, 2), np.nan))))
        for frame in (picture, boxed)
    )
    assert seen[470:, 80:250].min() > 250  # her suit fills the border
    assert not covered[460:].any()
    assert not covered[:, :20].any()
    assert (covered[440:459, 80:250] > 240).mean() > 0.98  # up to the bar she is all there
    assert np.abs(covered[:450, 40:].astype(int) - seen[:450, 40:]).mean() < 4


@pytest.fixture
def boxed(tmp_path: Path) -> Portrait:
    """A portrait of a clip with a bar of 24 columns on the left, in whose frames of 96 a crop of 64 reaches 12 beyond them."""
    frames = [pictures(1)[0] for _ in range(6)]
    for frame in frames:
        frame[:, :24] = 0
    info = ClipInfo(96, 96, 6, Fraction(25), 6 / 25, False, 0, tuple(i / 25 for i in range(6)))
    write_video(tmp_path / "source.mp4", iter(frames), info, audio_from=None)
    settings = Settings("0" * 64, "preview", "anny", 0.0, None, 0)
    return Portrait(tmp_path, settings, "source.mp4", info, Crop(-12, 0, 96, 64), {})


def test_a_portrait_knows_its_clips_bars(boxed: Portrait) -> None:
    assert clip_bars(boxed) == Bars(left=24), "of a portrait from before bars were stored"
    assert np.array_equal(inside_picture(boxed), np.broadcast_to(np.arange(64) >= 24, (64, 64)))
    boxed.save_tensors("screening.safetensors", {"bars": torch.tensor([0, 32, 0, 0])})
    assert clip_bars(boxed) == Bars(bottom=32)
    assert np.array_equal(inside_picture(boxed), np.outer(np.arange(64) < 43, np.arange(64) >= 8))


def test_the_scene_behind_a_person_beside_a_bar_is_not_dark(boxed: Portrait) -> None:
    found = Screening(*(np.zeros(6, bool) for _ in range(6))).to_tensors()
    boxed.save_tensors("screening.safetensors", found | {"bars": torch.tensor([0, 0, 24, 0])})
    person = np.zeros((64, 64), np.uint8)
    person[12:52, 24:40] = 255  # from the bar on, and never anywhere else
    write_gray(boxed.path("alpha.mp4"), iter([person] * 6), boxed.clip)
    plate = clean_plate(boxed)
    assert plate.shape == (96, 96, 3)
    assert plate.min() > 60
    assert stands_still(boxed, plate), "bars, over which the plate goes on, are no motion"
