"""Gatys' optimisation with a VGG19 of random weights in the true layout: what it loads, what it lowers, what it keeps."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from tiny_models import vgg19_tensors, write_vgg19
from torch import Tensor

from portraitgen import weights
from portraitgen.editors import EditBatch
from portraitgen.editors.colour import to_oklab
from portraitgen.editors.gatys import (
    CONTENT_LAYER,
    DEVIATION,
    MEAN,
    STYLE_LAYERS,
    VGG19,
    Gatys,
    gram,
    load_vgg19,
)
from portraitgen.editors.memory import release, resident
from portraitgen.errors import InputError

SIZE = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg19")
    write_vgg19(path)
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(weights, "path", lambda name: folder if name == "vgg19" else None)
    yield folder
    release()


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    y, x = np.mgrid[:96, :96].astype(np.float32)
    wave = 0.5 + 0.5 * np.sin((x + y) / 3)[..., None]
    colours = np.array((0.05, 0.12, 0.45)) * (1 - wave) + np.array((0.95, 0.6, 0.15)) * wave
    path = tmp_path_factory.mktemp("style") / "strokes.png"
    Image.fromarray((colours * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def frames() -> EditBatch:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 6, 6, generator=generator)
    return EditBatch.of_background(functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1), seed=0)


def test_layout_and_features_are_those_of_torchvision() -> None:
    """timm keeps torchvision's numbers; the two networks agree layer by layer on the same weights."""
    from torchvision.models import vgg

    reference = vgg.make_layers(vgg.cfgs["E"])[: max(STYLE_LAYERS) + 2]
    tensors = vgg19_tensors()
    shared = {name.removeprefix("features."): value for name, value in tensors.items() if name.startswith("features.")}
    reference.load_state_dict(shared, strict=True)
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    found = VGG19(tensors, torch.device("cpu"))(images)
    assert set(found) == {*STYLE_LAYERS, CONTENT_LAYER}
    hidden = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    with torch.no_grad():
        for number, layer in enumerate(reference):
            hidden = layer(hidden.clone())  # its ReLU works in place
            if number - 1 in found:
                assert torch.allclose(found[number - 1], hidden, rtol=1e-3, atol=1e-4), number


def test_gram_matrices_know_no_places() -> None:
    features = torch.rand(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    matrix = gram(features)
    assert torch.allclose(matrix, gram(features.roll((3, 5), (2, 3))), atol=1e-5)
    assert torch.allclose(matrix[1, 2, 4], (features[1, 2] * features[1, 4]).mean())


def test_style_comes_in_and_content_stays(here: Path, painting: Path, frames: EditBatch) -> None:
    editor, network = Gatys(painting, False, "cpu", steps=16), load_vgg19(here / "model.safetensors", "cpu")
    with torch.no_grad():
        grams = editor._grams(network, frames.source)
        content = network(frames.source)[CONTENT_LAYER]
        edited = editor.edit(frames)
        before, _ = editor.losses(network(frames.source), grams, content)
        after, kept = editor.losses(network(edited), grams, content)
        _, lost = editor.losses(network(editor.style.expand(2, -1, -1, -1)[..., :SIZE, :SIZE]), grams, content)
    assert edited.shape == frames.source.shape
    assert (after < 0.5 * before).all()
    assert (kept < 0.8 * lost).all()
    assert torch.equal(editor.edit(frames), edited)


def test_frames_do_not_touch_each_other(here: Path, painting: Path, frames: EditBatch) -> None:
    together = Gatys(painting, False, "cpu", steps=5).edit(frames)
    apart = Gatys(painting, False, "cpu", steps=5, chunk=1).edit(frames)
    assert (together - apart).abs().mean() < 1e-3  # Adam makes much of rounding where a gradient is almost 0


def test_another_pass_goes_on_from_the_render(here: Path, painting: Path, frames: EditBatch) -> None:
    editor, network = Gatys(painting, False, "cpu", steps=5), load_vgg19(here / "model.safetensors", "cpu")
    with torch.no_grad():
        grams, content = editor._grams(network, frames.source), network(frames.source)[CONTENT_LAYER]
        first = editor.edit(frames)
        second = editor.edit(replace(frames, rendered=first))
        losses = [editor.losses(network(image), grams, content)[0] for image in (first, second)]
    assert (losses[1] < losses[0]).all()


def test_strength(here: Path, painting: Path, frames: EditBatch) -> None:
    editor = Gatys(painting, False, "cpu", steps=5)
    assert torch.equal(editor.edit(replace(frames, strength=0.0)), frames.source)
    apart = [(editor.edit(replace(frames, strength=value)) - frames.source).abs().mean() for value in (0.05, 1.0)]
    assert apart[0] < apart[1]
    assert apart[0] < 0.02


def test_kept_colours_are_the_sources(here: Path, painting: Path, frames: EditBatch) -> None:
    edited = to_oklab(Gatys(painting, True, "cpu", steps=6).edit(frames))
    original = to_oklab(frames.source)
    assert (edited[:, 1:] - original[:, 1:]).abs().mean() < 0.02
    assert (edited[:, 0] - original[:, 0]).abs().mean() > 0.02


def test_it_shares_the_one_place_in_memory(
    here: Path, painting: Path, frames: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine's model leaves before VGG19 is loaded, the other way round too, and a full card is the same sentence."""
    editor, alive = Gatys(painting, False, "cpu", steps=1), []
    with resident("another engine", lambda: VGG19(vgg19_tensors(), torch.device("cpu"))) as model:
        alive.append(weakref.ref(model))
    del model
    assert alive[0]() is not None
    editor.edit(frames)
    assert alive[0]() is None

    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(VGG19, "__call__", full)
    with pytest.raises(InputError, match="not enough free memory"):
        editor.edit(frames)


def test_missing_weights_and_bad_files(painting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: None)
    with pytest.raises(InputError, match="python -m portraitgen weights --fetch vgg19"):
        Gatys(painting, False, "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense" * 9)
    monkeypatch.setattr(weights, "path", lambda name: tmp_path)
    with pytest.raises(InputError, match="is broken"):
        Gatys(painting, False, "cpu")
    tensors = vgg19_tensors()
    tensors["features.10.weight"] = torch.zeros(256, 64, 3, 3)
    with pytest.raises(InputError, match=r"features\.10\.weight"):
        VGG19(tensors, torch.device("cpu"))
    del tensors["features.28.bias"]
    with pytest.raises(InputError, match="VGG19 has no"):
        VGG19(tensors, torch.device("cpu"))


def test_a_dot_is_no_style(here: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "dot.png")
    with pytest.raises(InputError, match="3 x 3 pixels"):
        Gatys(tmp_path / "dot.png", False, "cpu")
