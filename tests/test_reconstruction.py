"""Reconstruction that is cut off: what was learned is not learned again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import killed_at, quicken

from portraitgen import keeping, pipeline, reconstruction
from portraitgen.errors import InputError
from portraitgen.estimates import expected_seconds, kept_share
from portraitgen.hands import Hands
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


@pytest.fixture(scope="module")
def matted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait whose clip is cut out, and not learned yet."""
    folder = tmp_path_factory.mktemp("matted") / "portrait"
    list(pipeline.reconstruct(CLIP, folder, max_seconds=0.3, until="matting"))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, matted: Path) -> Path:
    """The same, learned in one go."""
    folder = tmp_path_factory.mktemp("whole") / "portrait"
    shutil.copytree(matted, folder)
    list(pipeline.reconstruct(CLIP, folder, max_seconds=0.3))
    return folder


@pytest.mark.parametrize("last", [3, 2])
def test_a_fit_that_is_stopped_is_gone_on_with(tmp_path: Path, matted: Path, whole: Path, last: int) -> None:
    """After the third of four steps, or after the second, which the frames' new alignment belongs to."""
    cut = tmp_path / "cut"
    shutil.copytree(matted, cut)
    job = pipeline.reconstruct(CLIP, cut, max_seconds=0.3)
    assert any(step.message.endswith(f"step {last} of 4") for step in job)
    job.close()  # type: ignore[attr-defined]
    done = {3: 3, 2: 0}[last]
    assert kept_share(cut, "reconstruction") == pytest.approx(learned_share(cut, done), abs=1e-3)
    steps = list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    assert next(step.message for step in steps if ", step " in step.message).endswith(f"step {done + 1} of 4")
    assert not any("Placing" in step.message for step in steps), "nothing is begun anew"
    same(cut, whole)


def test_what_hands_turned_out_to_leave_is_kept(
    tmp_path: Path, matted: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gesture across the chest that the clip does not show: half-way it turns out to hide nothing."""
    waved, cut, blind = (tmp_path / name for name in ("waved", "cut", "blind"))
    shutil.copytree(matted, waved)
    portrait = Portrait.load(waved)
    count, size = portrait.clip.frame_count, portrait.crop.size
    points = np.array([(0.5 + 0.01 * joint, 0.9 - 0.02 * joint) for joint in range(21)]) * size
    points[17] = points[5] + 0.12 * size
    hands = Hands(
        np.arange(count),
        np.repeat(points[None], count, 0).astype(np.float32),
        np.zeros((count, 21, 3), np.float32),
        np.ones(count, bool),
        np.zeros(count, int),
        np.ones(count, bool),
        size,
    )
    portrait.save_tensors("hands.safetensors", hands.to_tensors())
    for copy in (cut, blind):
        shutil.copytree(waved, copy)
    list(pipeline.reconstruct(CLIP, waved, max_seconds=0.3))

    job = pipeline.reconstruct(CLIP, cut, max_seconds=0.3)
    assert any(step.message.endswith("step 3 of 4") for step in job)
    job.close()  # type: ignore[attr-defined]
    steps = list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    assert next(step.message for step in steps if ", step " in step.message).endswith("step 4 of 4")
    same(cut, waved)
    monkeypatch.setattr(reconstruction, "body_beside_hands", lambda *given: iter(()))
    list(pipeline.reconstruct(CLIP, blind, max_seconds=0.3))
    learned = [(folder / "avatar.safetensors").read_bytes() for folder in (waved, blind, whole)]
    assert len(set(learned)) == 3


def test_a_fit_whose_process_is_killed_is_gone_on_with(
    tmp_path: Path, matted: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, real = tmp_path / "cut", reconstruction.fit
    shutil.copytree(matted, cut)
    monkeypatch.setattr(reconstruction, "fit", killed_at(real, 3))
    monkeypatch.setattr(keeping, "_EVERY", 0.0)
    with pytest.raises(RuntimeError, match="killed"):
        list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    monkeypatch.setattr(reconstruction, "fit", real)
    steps = list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    assert {step.message[-11:] for step in steps if ", step " in step.message} == {"step 4 of 4"}
    same(cut, whole)


@pytest.mark.parametrize("work", ["Aligning the body with the pictures, frame", "Aligning the frames in between,"])
def test_an_alignment_that_is_stopped_is_gone_on_with(tmp_path: Path, matted: Path, whole: Path, work: str) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(matted, cut)
    job = pipeline.reconstruct(CLIP, cut, max_seconds=0.3)
    assert any(step.message.startswith(f"{work} 2 of") for step in job)
    before = kept_share(cut, "reconstruction")
    job.close()  # type: ignore[attr-defined]
    assert kept_share(cut, "reconstruction") > before
    steps = list(pipeline.reconstruct(CLIP, cut, max_seconds=0.3))
    assert next(step.message for step in steps if step.message.startswith(work)).startswith(f"{work} 3 of")
    same(cut, whole)


def learned_share(folder: Path, steps: int) -> float:
    """Share of the stage that lies before step ``steps`` + 1 of 4."""
    portrait = Portrait.load(folder)
    part, all_of_it = (
        expected_seconds(("reconstruction",), count, "preview", size=portrait.crop.size)["reconstruction"]
        for count in (3, portrait.clip.frame_count)
    )
    return 0.97 * part / all_of_it * (0.24 + 0.76 * steps / 4)


def same(cut: Path, whole: Path) -> None:
    """Assert that both folders hold the same, and nothing half done."""
    assert (cut / "avatar.safetensors").read_bytes() == (whole / "avatar.safetensors").read_bytes()
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert kept_share(cut, "reconstruction") == 1
