"""IC-Light, with tiny randomly initialised models of the real classes in the real layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import write_offsets, write_stable_diffusion
from torch import Tensor

from portraitgen import weights
from portraitgen.editing import scene_edit
from portraitgen.editors import EditBatch, EditRequest, ic_light
from portraitgen.editors.ic_light import OFFSETS, IcLight, cover, light_map, load_relighter, read_lamps
from portraitgen.editors.latent_diffusion import ALPHAS, Parts, load_unet, resize
from portraitgen.editors.memory import release
from portraitgen.editors.surface import one_frame
from portraitgen.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_stable_diffusion(folder / "realistic-vision", in_channels=4, variant=None)
    write_offsets(folder / "realistic-vision", folder / "ic-light" / OFFSETS)
    return folder


@pytest.fixture
def here(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(weights, "path", lambda name: folders / name)
    yield folders
    release()


def editor(text: str = "sunset from the left", picture: Path | None = None) -> IcLight:
    return IcLight(text, picture, "cpu", size=64, steps=3, chunk=2)


def batch(count: int = 3, side: int = 64, **changes: object) -> EditBatch:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand((2, count, 3, side, side), generator=generator)
    alpha = torch.zeros(count, 1, side, side)
    alpha[:, :, side // 4 :, side // 4 : -side // 4] = 1
    alpha[:, :, side // 4] = 0.5
    made = replace(EditBatch.of_background(pictures[0], seed=5), rendered=pictures[1], alpha=alpha)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_offsets_are_added_in_full_precision_to_a_widened_unet(here: Path) -> None:
    base = load_file(here / "realistic-vision" / "unet" / "diffusion_pytorch_model.safetensors")
    offsets = load_file(here / "ic-light" / OFFSETS)
    unet = load_relighter(here / "realistic-vision", here / "ic-light" / OFFSETS, "cpu").unet
    assert unet.config.in_channels == 8
    merged = unet.state_dict()
    assert set(merged) == set(base)
    for name, weight in merged.items():
        expected = offsets[name].float()
        if name == "conv_in.weight":
            expected[:, :4] += base[name].float()
        else:
            expected = expected + base[name].float()
        assert torch.equal(weight, expected), name
    narrow = load_unet(here / "realistic-vision")
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    ic_light.merge_offsets(narrow, {name: torch.zeros_like(value) for name, value in offsets.items()})
    plain = load_unet(here / "realistic-vision")
    for kept in (torch.zeros(1, 4, 8, 8), torch.randn(1, 4, 8, 8)):
        widened = narrow(torch.cat([latents, kept], 1), 500, encoder_hidden_states=context).sample
        assert torch.allclose(widened, plain(latents, 500, encoder_hidden_states=context).sample, atol=1e-5)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_offsets_that_do_not_fit_are_refused(here: Path, tmp_path: Path, fault: str) -> None:
    offsets = load_file(here / "ic-light" / OFFSETS)
    if fault == "missing":
        del offsets["conv_out.bias"]
    elif fault == "unknown":
        offsets["conv_out.scale"] = torch.zeros(4)
    else:
        offsets["conv_in.weight"] = offsets["conv_in.weight"][:, :4].contiguous()
    save_file(offsets, tmp_path / OFFSETS)
    with pytest.raises(InputError, match=r"do not fit their Stable Diffusion model, as at conv_(in|out)\."):
        load_relighter(here / "realistic-vision", tmp_path / OFFSETS, "cpu")


def test_what_the_loop_is_given(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreground on grey that is exactly nothing, two branches with the same condition, a start at 0.9 of the schedule."""
    seen: dict[str, object] = {}
    encoded: list[Tensor] = []
    encode = Parts.encode

    def remember(self: Parts, images: Tensor) -> Tensor:
        encoded.append(images)
        return encode(self, images)

    def walk(
        predict: object, alphas: object, timesteps: list[int], start: Tensor, noise: Tensor, *rest: object
    ) -> Tensor:
        seen.update(alphas=alphas, timesteps=timesteps, start=start, noise=noise)
        seen.update(zip(("conditions", "contexts", "guidance"), rest, strict=True))
        return start

    monkeypatch.setattr(Parts, "encode", remember)
    monkeypatch.setattr(ic_light, "denoise", walk)
    relighter, frames = editor("light from the left"), batch(1)
    relighter.edit(frames)
    foreground, begin = encoded
    outside = frames.alpha.expand_as(foreground) == 0
    assert foreground[outside].abs().max() == 0
    inside = frames.alpha.expand_as(foreground) == 1
    assert torch.allclose(foreground[inside], frames.source[inside] * 255 / 127 - 1, atol=1e-5)
    ramp = begin.mean((0, 1, 2))
    assert ramp[:8].mean() > ramp[28:36].mean() + 0.2 > ramp[-8:].mean() + 0.4, "bright where the light comes from"
    assert seen["alphas"] is ALPHAS
    assert seen["timesteps"][0] == 899  # type: ignore[index]
    conditions = seen["conditions"]
    assert isinstance(conditions, Tensor)
    assert conditions.shape == (2, 1, 4, 8, 8)
    assert torch.equal(conditions[0], conditions[1])
    assert seen["guidance"] == (2.0, -1.0)
    IcLight("light from the left", None, "cpu", size=64, steps=3, guidance=5.0).edit(frames)
    assert seen["guidance"] == (5.0, -4.0)
    factor = 0.18215
    parts = load_relighter(here / "realistic-vision", here / "ic-light" / OFFSETS, "cpu")
    with torch.no_grad():
        assert torch.allclose(conditions[0], encode(parts, foreground) * factor, atol=1e-5)


def test_the_persons_matte_is_kept(here: Path) -> None:
    frames = batch()
    relit = editor().edit(frames)
    assert relit.shape == frames.source.shape
    outside = frames.alpha.expand_as(relit) == 0
    assert torch.equal(relit[outside], frames.source[outside])
    assert (relit - frames.source)[frames.alpha.expand_as(relit) == 1].abs().mean() > 0.01
    assert relit.min() >= 0
    assert relit.max() <= 1


def test_a_scene_without_anybody_is_relit_as_a_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is the foreground, and what is said of it is not that it is a portrait; as it is of the scene behind an edit."""
    wall = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))
    foregrounds, told = [], []
    encode, walk = Parts.encode, ic_light.denoise

    def remember(self: Parts, images: Tensor) -> Tensor:
        foregrounds.append(images)
        return encode(self, images)

    def listen(*given: Any) -> Tensor:
        told.append(given[6])
        return walk(*given)

    monkeypatch.setattr(Parts, "encode", remember)
    monkeypatch.setattr(ic_light, "denoise", listen)
    relighter = editor()
    relit = relighter.edit(EditBatch.of_background(wall, seed=5))
    assert (relit - wall).abs().mean() > 0.01
    whole = resize(wall, [64, 64])
    assert torch.allclose(foregrounds[0], whole * 255 / 127 - 1, atol=1e-5)
    relighter.edit(batch(1))
    assert told[0].shape == told[1].shape
    assert not torch.equal(told[0], told[1])
    monkeypatch.setitem(IcLight.__init__.__kwdefaults__, "steps", 2)
    monkeypatch.setitem(IcLight.__init__.__kwdefaults__, "size", 64)
    picture = (wall[0].permute(1, 2, 0) * 255).byte().numpy()
    for text, scene, changes in (
        ("sunset from the left", "edited", True),
        ("sunset from the left", "auto", False),
        ("sunset from the left, background too", "auto", True),
        ("sunset from the left, background too", "original", False),
    ):
        change = scene_edit([EditRequest("relight", text, engine="ic-light")], torch.device("cpu"), scene)
        assert (change is not None) == changes, (text, scene)
        if change is not None:
            assert np.abs(change(picture).astype(float) - picture).mean() > 2


def test_sizes_strengths_and_seeds(here: Path) -> None:
    relighter = editor()
    assert relighter.edit(batch(1, 48)).shape == (1, 3, 48, 48)
    frames = batch()
    whole = relighter.edit(frames)
    assert torch.equal(whole, relighter.edit(frames))
    assert torch.equal(relighter.edit(replace(frames, strength=0.0)), frames.source)
    assert torch.allclose(whole[1:2], relighter.edit(one_frame(frames, 1)), atol=1e-4)
    for change in (
        {"source": frames.source.flip(-1)},
        {"rendered": frames.rendered.flip(-1)},
        {"strength": 0.5},
        {"seed": 6},
    ):
        assert not torch.equal(whole, relighter.edit(replace(frames, **change))), change  # type: ignore[arg-type]
    assert not torch.equal(whole, editor("sunset from the right").edit(frames))
    assert not torch.equal(whole, editor("neon from the left").edit(frames))


def test_the_light_of_a_picture(here: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 200), (255, 120, 0))
    picture.paste((0, 0, 40), (150, 0, 300, 200))
    picture.save(tmp_path / "light.png")
    relighter = editor("", tmp_path / "light.png")
    assert relighter.understood == "the light of the picture"
    light = relighter._start_picture(torch.full((2, 3, 64, 96), 0.5), 1.0)
    assert light.shape == (2, 3, 64, 96)
    assert torch.allclose(light[0, :, 32, 4], torch.tensor([1.0, 0.47, 0.0]) * 0.95 + 0.025, atol=0.03)
    assert light[0, 0, :, -4:].max() < 0.1
    assert relighter.edit(batch(1)).isfinite().all()
    with pytest.raises(InputError):
        editor("", tmp_path / "gone.png")


def test_cover_keeps_the_middle() -> None:
    picture = torch.linspace(0, 1, 30).expand(1, 3, 10, 30)
    middle = cover(picture, 20, 20)
    assert middle.shape == (1, 3, 20, 20)
    assert torch.allclose(middle[0, 0, 0, [0, -1]], torch.tensor([1 / 3, 2 / 3]), atol=0.03)
    assert cover(picture, 7, 64).shape == (1, 3, 7, 64)


def test_the_map_of_the_lamps() -> None:
    left = light_map(read_lamps("white light from the left"), 32, 48)
    assert left.shape == (1, 3, 32, 48)
    assert left[..., :2].mean() > 0.85
    assert left[..., -2:].mean() < 0.2
    above = light_map(read_lamps("light from above"), 32, 48)
    assert above[..., 0, :].mean() > 0.85 > 0.2 > above[..., -1, :].mean()
    both = light_map(read_lamps("red light from the left and blue light from the right"), 32, 48)[0, :, 16]
    assert both[0, 4] > 2 * both[2, 4]
    assert both[2, -4] > 2 * both[0, -4]
    for text in ("light from behind", "candlelight", "neon", "frontal light"):
        light = light_map(read_lamps(text), 16, 16)
        assert light.isfinite().all()
        assert 0 <= light.min() <= light.max() <= 1
    assert read_lamps("in a church") == ()


def test_without_a_lamp_it_starts_from_the_render(here: Path) -> None:
    render = torch.rand(1, 3, 32, 32)
    assert torch.equal(editor("in a church")._start_picture(render, 1.0), render)


def test_words(here: Path) -> None:
    assert "from the left" in editor("sunset from the left").understood
    assert editor("in a church").understood == "the instruction as it is"
    said = "the instruction as it is, starting from light from the left"
    assert editor("light from the left").understood == said
    assert editor("sunset from the left").understood == f"{said} and from behind on the right"
    assert "surroundings" in editor("sunset from the left, background too").understood
    assert "surroundings" not in editor("golden hour").understood, "they stay, unless they are asked for"
    for typed in ("", " \n", "<i></i>"):
        with pytest.raises(InputError):
            editor(typed)
    long = editor("golden light " * 400)
    assert "as far as" in long.understood


def test_missing_weights_are_one_sentence(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("ic-light", "realistic-vision"):
        monkeypatch.setattr(weights, "path", lambda name, missing=missing: None if name == missing else folders / name)
        with pytest.raises(InputError, match=f"weights --fetch {missing}"):
            editor()
