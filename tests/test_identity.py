"""The benchmarks' measure of identity: a person through a clip is one person, also in another jumper, and two are two."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portraitgen.clip import probe, read_frames
from portraitgen.landmarks import detect_landmarks

ROOT = Path(__file__).parent.parent
SECONDS, EVERY = 0.5, 4


@pytest.fixture(scope="module")
def identity() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import _identity
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return _identity


def opening(name: str) -> list[np.ndarray]:
    """The first frames of an example."""
    path = ROOT / "examples" / name
    info = probe(path, max_seconds=SECONDS)
    return list(islice(read_frames(path, info), info.frame_count))


def face_points(name: str, frames: list[np.ndarray]) -> np.ndarray:
    return detect_landmarks(iter(frames), probe(ROOT / "examples" / name, max_seconds=SECONDS)).face[..., :2]


def test_one_person_is_told_from_another(identity: Any) -> None:
    faces = identity.Faces()
    clips = {name: opening(name) for name in ("portrait.mp4", "upright.mp4")}
    points = {name: face_points(name, frames) for name, frames in clips.items()}
    one, other = (faces.describe_all(clips[name], points[name], EVERY) for name in clips)
    assert one.shape == (len(clips["portrait.mp4"][::EVERY]), 128)
    assert identity.spread(one) < identity.SAME_PERSON / 2
    assert np.linalg.norm(one[:, None] - other, axis=-1).min() > identity.SAME_PERSON

    points["portrait.mp4"][EVERY] = np.nan  # no face was found there
    dressed = faces.describe_all(opening("portrait_striped_jumper.mp4"), points["portrait.mp4"], EVERY)
    assert np.isnan(dressed[1]).all()
    assert identity.apart(one, dressed) < identity.SAME_PERSON / 2
    bronze = faces.describe_all(opening("portrait_bronze.mp4"), points["portrait.mp4"], EVERY)
    assert identity.apart(one, bronze) > 1.5 * identity.apart(one, dressed), "a look is seen by it too"
