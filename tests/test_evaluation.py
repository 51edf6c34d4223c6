"""Steadiness, on a still picture of which one half flickers once it is edited; fidelity, of a picture half beyond its frame."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from portraitgen import evaluation
from portraitgen.crop import Crop
from portraitgen.losses import PerceptualLoss

SIZE = 96


def test_the_warp_error_counts_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    source = cv2.GaussianBlur(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8), (0, 0), 2)
    person = np.full((SIZE, SIZE), 255, np.uint8)
    monkeypatch.setattr(evaluation, "crops_with_alpha", lambda portrait: iter([(source, person)] * 4))
    portrait: Any = SimpleNamespace(crop=Crop(0, 0, SIZE, SIZE))
    edited = [source.copy() for _ in range(4)]
    for number, frame in enumerate(edited):
        frame[:, : SIZE // 2] = 100 + 20 * (number % 2)
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE // 2] = True
    whole, flickering, still = (
        evaluation.warp_errors(portrait, edited, within) for within in (None, [left] * 4, [~left] * 4)
    )
    assert [error for _, error in (whole, flickering, still)] == [0, 0, 0], "the clip stands still"
    assert flickering[0] == pytest.approx(20 / 255, rel=0.01)
    assert still[0] == 0
    assert whole[0] == pytest.approx(10 / 255, rel=0.01)


def test_what_lies_beyond_the_clips_frame_is_not_counted() -> None:
    truth = torch.full((1, 3, 128, 128), 0.5)
    ours = truth + 0.1
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[:, 30:100] = True
    ours[..., ~inside] = 0.0
    whole, small, *_ = evaluation._compare(ours, truth, inside, PerceptualLoss(torch.device("cpu")))
    assert whole == pytest.approx(20.0, abs=0.01)
    assert small == pytest.approx(20.0, abs=0.01)
