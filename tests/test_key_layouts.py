"""Full-size models of the classes that the engines use, against the keys, shapes and file sizes of the real checkpoints.

What does not fit here would not load on anybody's GPU. The lists in ``tests/layouts`` were made from the classes; that they are the
checkpoints' is shown by the sizes of the published files: the header of a safetensors file names every key, shape and offset, so the
size gives away other names and shapes, up to the seven letters that its padding can swallow.

Sizes, tensor counts and configurations are those that public manifests and model pages give for black-forest-labs/FLUX.2-klein-4B,
fashn-ai/fashn-vton-1.5, lllyasviel/ic-light, timm/vgg16.tv_in1k, timm/vgg19.tv_in1k, and stable-diffusion-v1-5, with which
timbrooks/instruct-pix2pix and stablediffusionapi/realistic-vision-v51 share their classes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from key_layouts import MODELS, file_sizes, layout_of, stored

from portraitgen import weights
from portraitgen.editors.gatys import VGG19

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", MODELS)
def test_the_class_fits_the_checkpoint(name: str) -> None:
    model = MODELS[name]
    layout, whole = layout_of(model)
    expected = stored(name)
    assert not set(layout) ^ set(expected)
    assert not [key for key in layout if layout[key] != expected[key]]
    assert len(layout) == model.tensors
    assert sum(torch.Size(shape).numel() for shape in layout.values()) == model.parameters
    sizes = file_sizes(layout, whole, model)
    if model.bytes is not None:
        assert tuple(sizes) == model.bytes
    assert round(sum(sizes) / 1e9, 3 if model.about < 1 else 2) == model.about


def test_gatys_reads_vgg19_by_its_real_names() -> None:
    tensors = {name: torch.empty(shape, device="meta") for name, shape in stored("vgg19").items()}
    network = VGG19(tensors, torch.device("meta"))
    assert list(network.layers) == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    assert {f"features.{index}.weight" for index in network.layers} < set(tensors)


def test_a_wrong_key_or_shape_shows_in_the_size() -> None:
    model = MODELS["stable-diffusion-vae"]
    layout, whole = layout_of(model)
    assert model.bytes is not None
    renamed = {key.replace("to_q", "queries"): shape for key, shape in layout.items()}
    assert file_sizes(renamed, whole, model)[0] != model.bytes[0]
    reshaped = {key: [*shape, 1, 1] if ".to_q.weight" in key else shape for key, shape in layout.items()}
    assert file_sizes(reshaped, whole, model)[0] != model.bytes[0]


def test_file_sizes_are_those_that_safetensors_writes(tmp_path: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import save_file

    state = {
        "layer.weight": torch.zeros(7, 3),
        "layer.bias": torch.zeros(7),
        "steps": torch.zeros((), dtype=torch.long),
    }
    layout = {name: list(value.shape) for name, value in state.items()}
    for marked, metadata in ((True, {"format": "pt"}), (False, None)):
        save_file(state, tmp_path / "file.safetensors", metadata)
        model = replace(MODELS["vgg16"], marked=marked)
        assert file_sizes(layout, {"steps"}, model) == [(tmp_path / "file.safetensors").stat().st_size]


@pytest.mark.parametrize(
    ("entry", "models"),
    [
        ("flux2-klein", ("flux2-klein-transformer", "flux2-klein-vae", "flux2-klein-text-encoder")),
        ("instruct-pix2pix", ("instruct-pix2pix-unet", "stable-diffusion-vae", "stable-diffusion-text-encoder")),
        ("realistic-vision", ("stable-diffusion-unet", "stable-diffusion-vae", "stable-diffusion-text-encoder")),
        ("ic-light", ("ic-light",)),
        ("fashn-vton", ("fashn-vton",)),
        ("vgg16", ("vgg16",)),
        ("vgg19", ("vgg19",)),
    ],
)
def test_the_table_announces_what_will_be_downloaded(entry: str, models: tuple[str, ...]) -> None:
    total = sum(sum(file_sizes(*layout_of(MODELS[name]), MODELS[name])) for name in models)
    assert abs(weights.find(entry).size - total) < 10e6, "tokenizers and configurations are all that comes on top"
