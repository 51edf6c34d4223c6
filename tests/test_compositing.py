from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from portraitgen import compositing
from portraitgen.compositing import _cleaned, _fade, _mixed
from portraitgen.crop import Crop
from portraitgen.rendering import RenderedCrop


def test_the_person_fades_only_at_borders_inside_the_frame() -> None:
    whole = _fade(Crop(0, 0, 512, 512), 512, 512)
    assert np.array_equal(whole, np.ones_like(whole))
    inside = _fade(Crop(100, 0, 400, 256), 1280, 720)
    assert inside[128, 0] < 0.1
    assert inside[128, -1] < 0.1
    assert inside[-1, 128] < 0.1
    assert inside[0, 128] == 1
    assert inside[128, 128] == 1


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
    (result,) = compositing._over_scene(portrait, iter([person]), "frame", unchanged)
    arm = result[210:290].astype(int)
    assert arm.min() >= 127
    assert np.abs(arm[:, 300] - 128).max() <= 1
    assert np.array_equal(arm[:, :100], frame[210:290, :100])
    assert np.abs(np.diff(arm[40, :, 0])).max() <= 16
