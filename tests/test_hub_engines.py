"""Every engine from the Hub through the whole editing loop: tiny models of the real classes, on a portrait learned in few steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from quick import quicken
from tiny_models import TINY, write_all, write_smirk
from torch import Tensor

from portraitgen import editing, pipeline, reconstruction, smirk, weights
from portraitgen.clip import probe, read_frames
from portraitgen.editing import scene_edit
from portraitgen.editors import ENGINES, EditBatch, EditRequest, gatys, load_editor, memory
from portraitgen.editors.fashn import FashnTryOn
from portraitgen.editors.flux import FluxKlein
from portraitgen.editors.gatys import Gatys
from portraitgen.editors.ic_light import IcLight
from portraitgen.editors.latent_diffusion import InstructPix2Pix
from portraitgen.errors import InputError
from portraitgen.portrait import Portrait
from portraitgen.progress import Progress

pytestmark = pytest.mark.usefixtures("one_thread", "tiny")

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "portrait.mp4"
SECONDS = 0.2
STRENGTH = 0.9
REQUESTS = {
    "instruct-pix2pix": EditRequest("text", "give her red hair"),
    "flux2-klein": EditRequest("text", "give her red hair"),
    "ic-light": EditRequest("relight", "sunset from the left"),
    "gatys": EditRequest("style"),
    "fashn-vton": EditRequest("tryon", picture=ROOT / "examples/garments/striped_jumper.png"),
}


def request(engine: str, **changes: Any) -> EditRequest:
    return dataclasses.replace(REQUESTS[engine], engine=engine, strength=STRENGTH, **changes)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All weights that the engines need, tiny; and the engines small and quick, the loop as it is."""
    folder = tmp_path_factory.mktemp("weights")
    write_all(folder)
    patch.setattr(weights, "path", lambda name: folder / name if (folder / name).is_dir() else None)
    patch.setattr(weights, "ROOT", folder)
    quick: tuple[tuple[Any, dict[str, Any]], ...] = (
        (InstructPix2Pix, {"size": 64, "steps": 2}),
        (FluxKlein, {"steps": 2}),
        (IcLight, {"size": 64, "steps": 2}),
        (Gatys, {"steps": 4}),
        (FashnTryOn, {"steps": 2, "size": TINY}),
    )
    for engine, options in quick:
        for name, value in options.items():
            patch.setitem(engine.__init__.__kwdefaults__, name, value)
    patch.setattr(gatys, "LARGEST", 64)
    with Image.open(ROOT / "examples/styles/starry_night.jpg") as picture:
        picture.resize((64, 64)).save(folder / "style.png")
    patch.setitem(REQUESTS, "gatys", EditRequest("style", picture=folder / "style.png"))
    yield folder
    memory.release()


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    few = {"steps": 12, "coarse_steps": 8}
    quicken(patch, reconstruction.PRESETS, few, views=3, frames=4, texel_pixels=4.0)
    quicken(patch, editing.PRESETS, {"steps": 4, "coarse_steps": 2}, key_frames=2)
    folder = tmp_path_factory.mktemp("portrait") / "portrait"
    list(pipeline.reconstruct(CLIP, folder, max_seconds=SECONDS))
    return folder


@dataclasses.dataclass
class Loop:
    """What a run of the loop did: batches that the editor saw with what it made of them, what was corrected, the model held at each fit."""

    edits: list[tuple[EditBatch, Tensor]]
    corrected: list[tuple[Tensor, Tensor]]
    held: list[int]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The real loop, watched."""
    seen = Loop([], [], [])
    face_aware, correct, fit = editing.edit_face_aware, editing.ExpressionCorrection.__call__, editing.fit

    def watched_edit(editor: Any, batch: EditBatch) -> Tensor:
        result = face_aware(editor, batch)
        seen.edits.append((batch, result))
        return result

    def watched_correction(self: Any, edited: Tensor, source: Tensor, landmarks: Tensor) -> Tensor:
        seen.corrected.append((edited, source))
        return correct(self, edited, source, landmarks)

    def watched_fit(*given: Any, **options: Any) -> Any:
        seen.held.append(len(memory._held))
        return fit(*given, **options)

    monkeypatch.setattr(editing, "edit_face_aware", watched_edit)
    monkeypatch.setattr(editing.ExpressionCorrection, "__call__", watched_correction)
    monkeypatch.setattr(editing, "fit", watched_fit)
    return seen


def apart(first: Tensor, second: Tensor, batch: EditBatch) -> float:
    """Mean difference of two pictures of the person of ``batch``."""
    return float(((first - second).abs() * batch.alpha).sum() / batch.alpha.sum())


def said(steps: list[Progress], engine: str) -> str:
    """The first message that names the engine: what was understood and what it will take."""
    name = load_editor(request(engine), "cpu").name
    return next(step.message for step in steps if step.message.startswith(name))


def test_all_of_them_are_here() -> None:
    assert {name for names in ENGINES.values() for name in names} - {"builtin"} == set(REQUESTS)


@pytest.mark.parametrize("engine", REQUESTS)
def test_the_whole_loop(portrait: Path, tmp_path: Path, loop: Loop, engine: str) -> None:
    output, saved = tmp_path / "edited.mp4", tmp_path / "saved"
    before = (portrait / "avatar.safetensors").read_bytes()
    steps = list(pipeline.edit(portrait, output, request=request(engine), save=saved))
    reads_render = engine != "fashn-vton"
    assert [batch.strength for batch, _ in loop.edits] == pytest.approx([0.9, 0.54] if reads_render else [0.9])
    assert ("2 key frames, 2 times; expression kept by FaceMesh" in said(steps, engine)) == reads_render
    assert len(loop.corrected) == (2 if reads_render else 0)
    for (edited, source), (batch, result) in zip(loop.corrected, loop.edits, strict=False):
        assert torch.equal(edited, result)
        assert torch.equal(source, batch.source)
    first, result = loop.edits[0]
    assert apart(result, first.source, first) > 0.01
    if reads_render:
        second = loop.edits[1][0]
        assert torch.equal(second.source, first.source), "what an edit is held to stays the clip"
        moved = apart(second.rendered, first.rendered, first)
        assert moved > 0.01
        assert apart(second.rendered, result, first) < apart(first.rendered, result, first), "it starts from the edit"
    assert (portrait / "avatar.safetensors").read_bytes() == before
    assert (saved / "avatar.safetensors").read_bytes() != before
    assert list(dict.fromkeys(step.stage for step in steps)) == ["edit", "fitting", "render"]
    assert [made.engine for made in Portrait.load(saved).edit_requests()] == [engine]
    assert loop.held == [1] * len(loop.edits), "there is room here for an engine to stay"
    clip, info = probe(CLIP, max_seconds=SECONDS), probe(output)
    assert (info.frame_count, info.width, info.height) == (clip.frame_count, clip.width, clip.height)
    ours, theirs = (np.stack(list(read_frames(path, of))).astype(float) for path, of in ((output, info), (CLIP, clip)))
    assert np.abs(ours - theirs)[:, 180:480, 150:360].mean() > 2


def test_on_a_small_card_nothing_of_an_engine_stays_while_the_avatar_is_fitted(
    portrait: Path, tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "is_small", lambda _: True)
    list(pipeline.edit(portrait, tmp_path / "a.mp4", request=request("ic-light"), background="edited"))
    assert loop.held == [0, 0]
    assert not memory._held, "nor after the scene, for a clip may be learned next"


def test_smirk_takes_the_correction_over_where_it_is_at_hand(
    portrait: Path, tmp_path: Path, tiny: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    write_smirk(tmp_path / smirk.CHECKPOINT)
    steps = []
    for step in pipeline.edit(portrait, tmp_path / "a.mp4", request=request("instruct-pix2pix")):
        steps.append(step)
        if loop.corrected:
            break
    assert "expression kept by SMIRK" in said(steps, "instruct-pix2pix")
    assert len(loop.corrected) == 1


def test_a_broken_smirk_is_found_before_a_clip_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    (tmp_path / smirk.CHECKPOINT).write_bytes(b"half of it")
    seen = []
    with pytest.raises(InputError, match=r"SMIRK_em1\.pt is not a checkpoint"):
        seen.extend(pipeline.edit(CLIP, tmp_path / "a.mp4", request=request("instruct-pix2pix")))
    assert {step.stage for step in seen} == {"edit"}
    assert load_editor(request("fashn-vton"), "cpu").reads_render is False


def test_a_garment_changes_no_scene() -> None:
    for engine in ("builtin", "fashn-vton"):
        wish = dataclasses.replace(request("fashn-vton"), engine=engine)
        assert scene_edit([wish], torch.device("cpu"), "edited") is None


ODD = {
    "foreign": "给他一头红头发，像日落一样",
    "right to left": "اجعل شعره أحمر",
    "control characters": "red\x00 hair\x1b[31m \u202e\u200b at sunset",
    "markup": "<|endoftext|><script>alert(1)</script> red hair <|im_end|>",
    "a path": "../../etc/passwd; rm -rf / && `id` %s {0} {{x}}",
    "endless": "red hair " * 20000,
    "one word without end": "a" * 50000,
    "pictures": "🎭" * 40 + " red",
}


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        *(("instruct-pix2pix", kind) for kind in ODD),
        *((engine, kind) for engine in ("flux2-klein", "ic-light") for kind in ("markup", "endless")),
    ],
)
def test_odd_prompts_through_the_pipeline(portrait: Path, tmp_path: Path, engine: str, kind: str) -> None:
    """Key frames are edited, and what is said of the prompt is one short line without markup."""
    steps = []
    for step in pipeline.edit(portrait, tmp_path / "a.mp4", request=request(engine, text=ODD[kind])):
        steps.append(step)
        if "key frame 2 of 2" in step.message:
            break
    else:
        raise AssertionError("no key frame was edited")
    message = next(step.message for step in steps if "key frames" in step.message)
    assert "\n" not in message
    assert len(message) < 400
    assert not any(sign in message for sign in ("\x00", "\x1b", "<", "im_end"))


@pytest.mark.parametrize("engine", ["instruct-pix2pix", "flux2-klein", "ic-light"])
@pytest.mark.parametrize("text", ["", " \n\t ", "<|endoftext|>", "\x00\x01", "?!…"])
def test_prompts_without_words_are_refused_in_one_sentence(
    portrait: Path, tmp_path: Path, engine: str, text: str
) -> None:
    with pytest.raises(InputError) as error:
        list(pipeline.edit(portrait, tmp_path / "a.mp4", request=request(engine, text=text)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
    assert not (tmp_path / "a.mp4").exists()
