"""The light of a screen at the edge of a person who wears something of its colour."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from portraitgen import mattes
from portraitgen.crop import Crop
from portraitgen.despill import screen_channel, without_spill
from portraitgen.regions import CLOTHES, HAIR

SIZE = 100
SCREENS = {1: (70, 155, 105), 2: (60, 90, 170)}


def person(key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, alpha and labels of grey hair over clothes of the screen's colour, both lit by the screen."""
    frame = np.full((SIZE, SIZE, 3), SCREENS[key], np.uint8)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[10:, 20:80] = 255
    labels = np.where(alpha > 0, np.where(np.arange(SIZE)[:, None] < 60, HAIR, CLOTHES), 0).astype(np.uint8)
    hair = np.full(3, 40, np.uint8)
    hair[key] = 60
    frame[labels == HAIR] = hair
    return frame, alpha, labels


@pytest.mark.parametrize("key", SCREENS)
def test_a_screens_light_goes_from_the_hairs_edge_and_stays_in_the_clothes(key: int) -> None:
    frame, alpha, labels = person(key)
    clean = without_spill(frame, alpha, labels, key)
    assert (clean[12:50, 21] == 40).all(), "as grey as hair is"
    assert (clean[35:50, 50] == frame[35:50, 50]).all(), "far from the edge a colour is the person's own"
    assert (clean[labels == CLOTHES] == frame[labels == CLOTHES]).all()
    alpha[70:, 20] = 128
    assert np.ptp(without_spill(frame, alpha, labels, key)[70:, 20].astype(int), axis=1).max() < 60, (
        "mixed with the screen"
    )
    assert np.ptp(clean[:9].astype(int), axis=2).max() < np.ptp(frame[:9].astype(int), axis=2).max()
    others = [channel for channel in range(3) if channel != key]
    assert (clean[..., others] == frame[..., others]).all()


@pytest.mark.parametrize("key", SCREENS)
def test_a_screen_is_told_from_other_scenes(key: int) -> None:
    scene = np.full((SIZE, SIZE, 3), SCREENS[key], np.uint8)
    assert screen_channel(scene) == key
    scene[: SIZE // 2] = 200  # a wall with a coloured half
    assert screen_channel(scene) is None


def test_only_a_clip_before_a_screen_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, alpha, labels = person(1)
    portrait: Any = SimpleNamespace(crop=Crop(0, 0, SIZE, SIZE), path=Path)
    monkeypatch.setattr(mattes, "crops_with_alpha", lambda _: iter([(frame, alpha)]))
    monkeypatch.setattr(mattes, "read_gray", lambda _: iter([labels]))
    for scene, changed in ((SCREENS[1], True), ((120, 120, 110), False)):
        plate = np.full((SIZE, SIZE, 3), scene, np.uint8)
        monkeypatch.setattr(mattes, "clean_plate", lambda _, plate=plate: plate)
        [(crop, matte)] = mattes.clean_crops(portrait)
        assert (crop != frame).any() == changed
        assert (matte == alpha).all()
