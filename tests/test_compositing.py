from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from portraitgen import compositing
from portraitgen.backgrounds import Background
from portraitgen.bars import Bars
from portraitgen.clip import ClipInfo
from portraitgen.compositing import _between_bars, _cleaned, _ending, _fade, _mirrored, _mixed, write_result
from portraitgen.crop import Crop
from portraitgen.rendering import RenderedCrop

WHITE = Background(None, np.full((8, 8, 3), 255, np.uint8))


def test_the_person_fades_only_at_borders_inside_the_frame() -> None:
    whole = _fade(Crop(0, 0, 512, 512), 512, 512)
    assert np.array_equal(whole, np.ones_like(whole))
    inside = _fade(Crop(100, 0, 400, 256), 1280, 720)
    assert inside[128, 0] < 0.1
    assert inside[128, -1] < 0.1
    assert inside[-1, 128] < 0.1
    assert inside[0, 128] == 1
    assert inside[128, 128] == 1


def test_the_person_fades_where_the_frame_ends_within_the_crop() -> None:
    inside = _ending(Crop(100, 0, 400, 256), 1280, 720)
    assert np.array_equal(inside, np.ones_like(inside))
    beyond = _ending(Crop(-50, -50, 200, 256), 120, 120)
    assert not beyond[:, :64].any(), "left of the frame"
    assert not beyond[:, 218:].any(), "right of it"
    assert not beyond[218:].any(), "below it"
    assert (beyond[:190, 90:190] == 1).all(), "the head goes on above it"


def test_the_scene_goes_on_beyond_the_frame_as_in_a_mirror() -> None:
    scene = np.random.default_rng(0).integers(0, 255, (80, 128, 3), np.uint8)
    made = _mirrored(scene, Crop(-10, -8, 96, 96))
    assert np.array_equal(made[8:88, 10:], scene[:, :86])
    assert np.array_equal(made[:8, 10:], scene[7::-1, :86])
    assert np.array_equal(made[88:, 10:], scene[:71:-1, :86])
    assert np.array_equal(made[8:88, :10], scene[:, 9::-1])
    assert np.array_equal(_mirrored(scene, Crop(40, 10, 64, 64)), scene[10:74, 40:104])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("background", [Background("original"), Background("blur"), Background("transparent"), WHITE])
def test_nothing_of_the_person_is_repeated_beyond_the_frame(
    background: Background, turned: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wide crop ends below the frame, whose last row is the person's chest."""
    frame = np.full((80, 128, 3), 160, np.uint8)
    frame[30:, 40:88] = (200, 30, 30)
    crop = Crop(16, -8, 96, 96)
    alpha = np.zeros((96, 96), np.float32)
    alpha[38 : 88 if turned else 96, 24:72] = 1
    plate = np.full_like(frame, 160)
    person = RenderedCrop(np.array((0.8, 0.1, 0.1), np.float32) * alpha[..., None], alpha)
    info = ClipInfo(128, 80, 1, Fraction(25), 0.04, False, 0, (0.0,))
    portrait: Any = SimpleNamespace(clip=info, crop=crop, source=Path("clip.mp4"), path=Path)
    source_alpha = crop.extract(np.where(frame[..., 1] < 100, 255, 0).astype(np.uint8))
    monkeypatch.setattr(compositing, "clip_bars", lambda portrait: Bars())
    monkeypatch.setattr(compositing, "render_crops", lambda *_: iter([person]))
    monkeypatch.setattr(compositing, "clean_plate", lambda portrait: plate)
    monkeypatch.setattr(compositing, "read_frames", lambda source, clip: iter([frame]))
    monkeypatch.setattr(compositing, "read_gray", lambda path: iter([source_alpha]))
    monkeypatch.setattr(compositing, "load_screening", lambda portrait: SimpleNamespace(away=[False]))
    monkeypatch.setattr(compositing, "stands_still", lambda portrait, plate: False)
    written: list[np.ndarray] = []
    monkeypatch.setattr(compositing, "write_video", lambda path, items, *_, **__: written.extend(items))
    nothing = cast(Any, None)
    turn = torch.eye(4)[None] if turned else None
    list(
        write_result(portrait, nothing, nothing, tmp_path / "a.mp4", view="crop", background=background, viewmats=turn)
    )
    (result,) = written
    assert result.shape[:2] == (96, 96)
    behind = {"transparent": 0}.get(str(background.scene), 255 if background is WHITE else 160)
    seen = result[..., 3] if background.scene == "transparent" else result[..., 1]
    assert np.abs(seen[88:].astype(int) - behind).max() <= 1, "beyond the frame there is nobody"
    assert np.abs(seen[45:70, 30:66].astype(int) - behind).min() > 60, "within it there is"


def test_an_arm_that_leaves_the_crop_does_not_end_at_a_line() -> None:
    crop = Crop(100, 0, 400, 256)
    frame = np.full((400, 640, 3), 40, np.uint8)
    frame[200:300] = 200  # an arm from one side to the other
    plate = frame.copy()
    plate[:, 100:500] = 40  # gone where the crop is
    mended = _mixed(frame, plate, _cleaned(crop, 640, 400))
    assert np.abs(np.diff(plate[250, :, 0].astype(int))).max() == 160
    assert np.abs(np.diff(mended[250, :, 0].astype(int))).max() <= 16
    fading = round(0.06 * 400)
    assert np.array_equal(mended[:, 100 : 100 + fading], frame[:, 100 : 100 + fading]), (
        "no plate shows through the person"
    )
    assert np.array_equal(mended[:, 300], plate[:, 300]), "the middle stays clean"
    assert np.array_equal(mended[:, :90], frame[:, :90])


@pytest.mark.parametrize("scene_moves", [False, True])
def test_no_plate_shows_through_an_edited_arm_that_leaves_the_crop(
    monkeypatch: pytest.MonkeyPatch, scene_moves: bool
) -> None:
    crop = Crop(100, 0, 400, 256)
    frame = np.full((400, 640, 3), 40, np.uint8)
    frame[200:300] = 200  # an arm from one side to the other
    plate = frame.copy()
    plate[:, 100:500] = 40
    alpha = crop.extract((frame[..., 0] > 100).astype(np.float32))
    person = RenderedCrop(np.full((256, 256, 3), 0.5, np.float32) * alpha[..., None], alpha)
    monkeypatch.setattr(compositing, "clean_plate", lambda portrait: plate)
    monkeypatch.setattr(compositing, "read_frames", lambda source, clip: iter([frame]))
    monkeypatch.setattr(compositing, "read_gray", lambda path: iter([(alpha * 255).astype(np.uint8)]))
    monkeypatch.setattr(compositing, "load_screening", lambda portrait: SimpleNamespace(away=[False]))
    monkeypatch.setattr(compositing, "stands_still", lambda portrait, plate: False)
    portrait: Any = SimpleNamespace(
        clip=SimpleNamespace(width=640, height=400), crop=crop, source=Path("clip.mp4"), path=Path
    )
    unchanged = (lambda picture: picture) if scene_moves else None
    persons = compositing._persons(portrait, iter([person]), "frame", turned=False)
    (result,) = compositing._over_scene(portrait, persons, "frame", unchanged, Bars())
    arm = result[210:290].astype(int)
    assert arm.min() >= 127
    assert np.abs(arm[:, 300] - 128).max() <= 1
    assert np.array_equal(arm[:, :100], frame[210:290, :100])
    assert np.abs(np.diff(arm[40, :, 0])).max() <= 16


@pytest.mark.parametrize("view", ["frame", "crop"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_clips_bars_stay_whatever_stands_behind_the_person(channels: int, view: str) -> None:
    frame = np.full((96, 64, 3), 120, np.uint8)
    frame[80:] = (4, 5, 6)
    made = np.full((96, 64, channels), 200, np.uint8)
    crop = Crop(0, 32, 64, 64) if view == "crop" else None
    (result,) = _between_bars(iter([made if crop is None else crop.extract(made)]), Bars(bottom=16), frame, crop)
    assert result.shape == ((64, 64, channels) if crop else made.shape)
    assert result.dtype == np.uint8
    if channels == 3:
        assert (result[-16:] == (4, 5, 6)).all()
    else:
        assert (result[-16:, :, 3] == 0).all()
    assert (result[:-16] == 200).all()


def test_a_blurred_scene_takes_nothing_from_the_bars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frame = np.full((96, 64, 3), 160, np.uint8)
    frame[70:] = 0
    nobody = RenderedCrop(np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.float32))
    info = ClipInfo(64, 96, 1, Fraction(25), 0.04, False, 0, (0.0,))
    portrait: Any = SimpleNamespace(clip=info, crop=Crop(0, 32, 64, 64), source=Path("clip.mp4"), path=Path)
    monkeypatch.setattr(compositing, "clip_bars", lambda portrait: Bars(bottom=26))
    monkeypatch.setattr(compositing, "render_crops", lambda *_: iter([nobody]))
    monkeypatch.setattr(compositing, "clean_plate", lambda portrait: Bars(bottom=26).fill(frame))
    monkeypatch.setattr(compositing, "read_frames", lambda source, clip: iter([frame]))
    monkeypatch.setattr(compositing, "read_gray", lambda path: iter([np.zeros((64, 64), np.uint8)]))
    monkeypatch.setattr(compositing, "load_screening", lambda portrait: SimpleNamespace(away=[False]))
    monkeypatch.setattr(compositing, "stands_still", lambda portrait, plate: False)
    written: list[np.ndarray] = []
    monkeypatch.setattr(compositing, "write_video", lambda path, items, *_, **__: written.extend(items))
    nothing = cast(Any, None)
    list(write_result(portrait, nothing, nothing, tmp_path / "a.mp4", view="frame", background=Background("blur")))
    assert (written[0][:70] == 160).all()
    assert (written[0][70:] == 0).all()
