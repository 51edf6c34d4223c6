"""Reconstruction that is cut off: what was learned is not learned again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quick import quicken

from portraitgen import pipeline, reconstruction
from portraitgen.errors import InputError
from portraitgen.portrait import Portrait

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"


@pytest.fixture(scope="module", autouse=True)
def few_frames() -> Iterator[None]:
    """The real code at a fraction of the preview's steps, learning from so few frames that some are left in between."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch, reconstruction.PRESETS, {"steps": 4, "window": 128}, views=2, frames=3, texel_pixels=5.0)
        yield


def test_a_run_cut_off_after_the_fit_does_not_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    through = list(pipeline.reconstruct(CLIP, whole, max_seconds=0.3))
    pictures = [step.preview for step in through if step.preview is not None]
    fractions = [step.fraction for step in through if step.stage == "reconstruction"]
    assert fractions == sorted(fractions)

    job = pipeline.reconstruct(CLIP, cut, max_seconds=0.3)
    assert any(step.message.startswith("Aligning the frames in between, 1 of") for step in job)
    job.close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="stopped before its reconstruction stage"):
        Portrait.load(cut).require("reconstruction")
    assert not (cut / "avatar.safetensors").exists()

    def again(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("learned again")

    monkeypatch.setattr(reconstruction, "fit", again)
    steps = list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    assert steps[-1].message.startswith("Portrait ready")
    shown = next(step.preview for step in steps if step.message == "Avatar ready")
    assert shown is not None
    assert (shown == pictures[-1]).all()
    assert (cut / "avatar.safetensors").read_bytes() == (whole / "avatar.safetensors").read_bytes()
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
