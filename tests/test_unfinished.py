"""An edit that is cut off: what was done is not done again, and the end is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import killed_at, quicken
from torch import Tensor

from portraitgen import editing, editors, keeping, pipeline, reconstruction
from portraitgen.editors import EditBatch, EditRequest
from portraitgen.editors.style import BuiltinStyle
from portraitgen.errors import InputError
from portraitgen.estimates import is_pending, kept_share
from portraitgen.portrait import Portrait
from portraitgen.progress import Progress

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "portrait.mp4"
REQUEST = EditRequest("text", "bronze", engine="instruct-pix2pix")
KEYS, STEPS = 3, 4


class Tint:
    """An engine whose passes differ, as those from the Hub: each goes on from the render."""

    name, understood = "Tint", "a tint"
    reads_render, face_aware, edits_background = True, False, False
    asked = 0  # pictures, by all of them

    def edit(self, batch: EditBatch) -> Tensor:
        Tint.asked += len(batch.rendered)
        return batch.rendered.flip(1) * (0.4 + 0.2 * batch.strength)


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """The real code at a fraction of the preview's steps, with a key frame per call of the editor."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch, reconstruction.PRESETS, {"steps": 2, "window": 128}, views=2, frames=3, texel_pixels=5.0)
        few = {"steps": STEPS, "coarse_steps": 2, "window": 128, "perceptual": 0.05}
        quicken(patch, editing.PRESETS, few, key_frames=KEYS, batch=1)
        real = editors.load_editor
        patch.setattr(
            editors, "load_editor", lambda wish, device: Tint() if wish.engine == REQUEST.engine else real(wish, device)
        )
        patch.setattr("portraitgen.weights.missing", lambda engine: [])
        yield


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "portrait"
    list(pipeline.reconstruct(CLIP, folder, max_seconds=0.3))
    return folder


def edit(learned: Path, save: Path, request: EditRequest = REQUEST, **options: Any) -> Iterator[Progress]:
    return pipeline.edit(learned, save.with_suffix(".mp4"), request=request, save=save, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, learned: Path) -> Path:
    """The same edit in one go."""
    folder = tmp_path_factory.mktemp("whole") / "edited"
    list(edit(learned, folder))
    return folder


def cut_off(learned: Path, save: Path, *where: str, request: EditRequest = REQUEST) -> None:
    """Stop the edit after its news that ends so, each of them once, in this order."""
    ends = list(where)
    job = edit(learned, save, request)
    latest = ""
    for step in job:
        if step.message != latest and step.message.endswith(ends[0]):
            ends.pop(0)
            if not ends:
                break
        latest = step.message
    assert not ends
    job.close()  # type: ignore[attr-defined]


def same(cut: Path, whole: Path) -> None:
    """Assert that both folders hold the same edit, and nothing half done."""
    assert (cut / "avatar.safetensors").read_bytes() == (whole / "avatar.safetensors").read_bytes()
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert Portrait.load(cut).edit_requests() == Portrait.load(whole).edit_requests()
    assert not is_pending(cut)
    assert cut.with_suffix(".mp4").is_file()


FIRST, AGREE, SECOND = "key frame 2 of 3", "made to agree", "step 3"


@pytest.mark.parametrize(
    ("where", "asked", "edited", "fitted"),
    [
        ((FIRST,), 2, 2 / KEYS / 2, 0.0),
        ((AGREE,), KEYS, 1 / 2, 0.0),
        ((SECOND,), KEYS, 1 / 2, 3 / STEPS / 2),
        ((SECOND, FIRST), KEYS + 2, (1 + 2 / KEYS) / 2, 1 / 2),
        ((SECOND, SECOND), 2 * KEYS, 1.0, (1 + 3 / STEPS) / 2),
    ],
    ids=["key frames", "agreed", "fit", "second key frames", "second fit"],
)
def test_an_edit_that_is_stopped_is_gone_on_with(
    tmp_path: Path, learned: Path, whole: Path, where: tuple[str, ...], asked: int, edited: float, fitted: float
) -> None:
    before = {path.name: path.read_bytes() for path in learned.iterdir() if path.name != "portrait.json"}
    save = tmp_path / "edited"
    Tint.asked = 0
    cut_off(learned, save, *where)
    assert Tint.asked == asked
    assert kept_share(save, "edit") == pytest.approx(edited, abs=1e-3)
    assert kept_share(save, "fitting") == pytest.approx(fitted, abs=1e-3)
    with pytest.raises(InputError, match="holds an edit that is not finished"):
        list(pipeline.render(save, tmp_path / "out.mp4"))
    list(edit(learned, save))
    assert Tint.asked == 2 * KEYS, "no key frame is edited twice"
    same(save, whole)
    assert {path.name: path.read_bytes() for path in learned.iterdir() if path.name != "portrait.json"} == before


def test_an_edit_whose_process_is_killed_is_gone_on_with(
    tmp_path: Path, learned: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, real = tmp_path / "edited", editing.fit
    monkeypatch.setattr(editing, "fit", killed_at(real, 2))
    monkeypatch.setattr(keeping, "_EVERY", 0.0)
    with pytest.raises(RuntimeError, match="killed"):
        list(edit(learned, save))
    monkeypatch.setattr(editing, "fit", real)
    Tint.asked = 0
    steps = list(edit(learned, save))
    assert next(step.message for step in steps if step.stage == "fitting").endswith("step 3")
    assert Tint.asked == KEYS, "those of the second pass"
    same(save, whole)


def test_an_edit_that_is_done_is_only_rendered(
    tmp_path: Path, learned: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "edited"
    cut_off(learned, save, "what is behind the person")
    assert not save.with_suffix(".mp4").exists()
    with pytest.raises(InputError, match="not empty"):
        list(edit(learned, save, replace(REQUEST, seed=4)))

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("edited again")

    monkeypatch.setattr(editing, "edit_avatar", again)
    steps = list(edit(learned, save))
    assert {step.stage for step in steps} == {"edit", "render"}
    same(save, whole)
    with pytest.raises(InputError, match="not empty"):
        list(edit(learned, save))


@pytest.mark.parametrize("change", [{"text": "gold"}, {"seed": 1}, {"strength": 0.5}, {"key_frames": 4}])
def test_what_is_kept_of_another_edit_is_not_used(tmp_path: Path, learned: Path, change: dict[str, Any]) -> None:
    save = tmp_path / "edited"
    cut_off(learned, save, AGREE)
    before, request = Portrait.load(save).pending, replace(REQUEST, **change)
    steps = edit(learned, save, request)
    assert "key frame 1 of" in next(step.message for step in steps if step.preview is not None)
    steps.close()  # type: ignore[attr-defined]
    assert Portrait.load(save).pending not in ("", before)


def test_an_edit_that_cannot_be_done_leaves_nothing(
    tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Tensor:
        raise InputError("Not this one.")

    monkeypatch.setattr(Tint, "edit", refused)
    with pytest.raises(InputError, match="Not this"):
        list(edit(learned, tmp_path / "edited"))
    assert not list(tmp_path.iterdir())


def test_a_style_goes_on_from_what_it_measured_on_the_first_frames(tmp_path: Path, learned: Path) -> None:
    request = EditRequest("style", picture=ROOT / "examples/styles/starry_night.jpg", engine="builtin")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    list(edit(learned, whole, request))
    cut_off(learned, cut, FIRST, request=request)
    list(edit(learned, cut, request))
    assert (cut / "avatar.safetensors").read_bytes() == (whole / "avatar.safetensors").read_bytes()


def test_a_style_recalls_what_it_remembers() -> None:
    picture = ROOT / "examples/styles/starry_night.jpg"
    one, other = BuiltinStyle(picture), BuiltinStyle(picture)
    first, later = (EditBatch.of_background(torch.rand(2, 3, 128, 128) * share, 0.7) for share in (1.0, 0.4))
    one.edit(first)
    other.recall(one.memory())
    assert torch.equal(other.edit(later), one.edit(later))
    assert not torch.equal(BuiltinStyle(picture).edit(later), one.edit(later))
