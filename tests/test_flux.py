"""FLUX.2 klein: the loop, and the whole editor with tiny randomly initialised models of the real classes in the real layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import write_flux
from torch import Tensor

from portraitgen import weights
from portraitgen.editors import EditBatch
from portraitgen.editors.anchored_noise import anchored_noise
from portraitgen.editors.flux import TEXELS, FluxKlein, Parts, embed, load_encoder, load_parts, sigmas_from, walk
from portraitgen.editors.memory import release
from portraitgen.editors.surface import one_frame
from portraitgen.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "flux2-klein"
    write_flux(folder)
    return folder


@pytest.fixture
def editor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FluxKlein]:
    monkeypatch.setattr(weights, "path", lambda name: folder if name == "flux2-klein" else None)
    yield FluxKlein("make hair red", "cpu", size=64, chunk=2)
    release()


def batch(count: int = 3, height: int = 64, width: int = 64, **changes: object) -> EditBatch:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand((2, count, 3, height, width), generator=generator)
    pictures = (pictures * 255).round() / 255
    made = replace(EditBatch.of_background(pictures[0], strength=0.7, seed=5), rendered=pictures[1])
    return replace(made, **changes)  # type: ignore[arg-type]


def test_noise_levels() -> None:
    """At strength 1 the distilled model's own levels, below it as many from the level asked for."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert sigmas_from(1.0, 4, 3.0) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    for strength in (0.05, 0.3, 0.6, 0.95):
        levels = sigmas_from(strength, 4, 7.6)
        assert levels[0] == pytest.approx(strength)
        assert levels == sorted(levels, reverse=True)
        assert len(set(levels)) == 5
        assert levels[-1] == 0


def test_the_loop_finds_what_the_model_believes_in() -> None:
    """A model that knows the picture must be led to it exactly, wherever the walk starts; at strength s it is shown s of noise."""
    generator = torch.Generator().manual_seed(2)
    truth, start = torch.randn((2, 2, 16, 4, 4), generator=generator)
    noise = torch.randn((1, 16, 4, 4), generator=generator)
    seen: list[Tensor] = []

    def velocity(latents: Tensor, reference: Tensor, sigma: float, context: Tensor) -> Tensor:
        seen.append(latents)
        return (latents - truth) / sigma

    parts: Any = SimpleNamespace(velocity=velocity, shift=lambda tokens, steps: 7.6)
    for strength in (0.2, 0.6, 1.0):
        seen.clear()
        found = walk(parts, start, start, noise, torch.zeros(1, 8, 48), strength, 4)
        assert len(seen) == 4
        assert torch.allclose(seen[0], (1 - strength) * start + strength * noise, atol=1e-6)
        assert torch.allclose(found, truth, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (80, 64)])
def test_at_full_strength_it_is_the_stock_pipeline(editor: FluxKlein, folder: Path, size: tuple[int, int]) -> None:
    """Same noise, same reference, same prompt: the same picture as diffusers' own pipeline, loaded from the same folder."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from PIL import Image
    from transformers import Qwen2TokenizerFast, Qwen3ForCausalLM

    height, width = size
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=AutoencoderKLFlux2.from_pretrained(folder / "vae"),
        text_encoder=Qwen3ForCausalLM.from_pretrained(folder / "text_encoder"),
        tokenizer=Qwen2TokenizerFast.from_pretrained(folder / "tokenizer"),
        transformer=Flux2Transformer2DModel.from_pretrained(folder / "transformer"),
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    frames = batch(1, height, width, strength=1.0)
    picture = Image.fromarray((frames.source[0].permute(1, 2, 0) * 255).round().byte().numpy())
    noise = anchored_noise(frames.uv, (height // 16, width // 16), frames.seed, 16, TEXELS)
    stock = pipeline(
        image=picture,
        prompt="make hair red",
        height=height,
        width=width,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=noise,
        output_type="pt",
    ).images
    ours = FluxKlein("make hair red", "cpu", size=max(size)).edit(frames)
    assert stock.std() > 0.02
    assert (ours - stock).abs().max() < 1e-4


def test_an_edit_has_the_right_shape_and_range(editor: FluxKlein) -> None:
    for count, height, width in ((3, 64, 64), (1, 48, 32), (2, 96, 80)):
        edited = editor.edit(batch(count, height, width))
        assert edited.shape == (count, 3, height, width)
        assert edited.dtype == torch.float32
        assert edited.isfinite().all()
        assert edited.min() >= 0
        assert edited.max() <= 1


def test_the_seed_decides(editor: FluxKlein) -> None:
    first = editor.edit(batch())
    assert torch.equal(first, editor.edit(batch()))
    assert not torch.equal(first, editor.edit(batch(seed=6)))


def test_a_frame_does_not_depend_on_its_neighbours(editor: FluxKlein) -> None:
    whole = batch()
    edited = editor.edit(whole)
    for index in range(3):
        assert torch.allclose(edited[index : index + 1], editor.edit(one_frame(whole, index)), atol=1e-4)


def test_everything_it_is_given_matters(editor: FluxKlein) -> None:
    plain = batch()
    before = editor.edit(plain)
    changed: tuple[dict[str, object], ...] = (
        {"source": plain.source.flip(-1)},
        {"rendered": plain.rendered.flip(-1)},
        {"strength": 0.5},
    )
    for change in changed:
        assert (editor.edit(replace(plain, **change)) - before).abs().max() > 1e-3, change  # type: ignore[arg-type]
    assert torch.equal(editor.edit(replace(plain, strength=0.0)), plain.source)
    other = FluxKlein("a bronze bust", "cpu", size=64, chunk=2)
    assert (other.edit(plain) - before).abs().max() > 1e-3


def test_at_full_strength_the_render_is_gone(editor: FluxKlein) -> None:
    plain = batch(strength=1.0)
    assert torch.allclose(editor.edit(plain), editor.edit(replace(plain, rendered=plain.source)), atol=1e-6)


def test_latents_are_decoded_with_the_autoencoders_own_statistics(editor: FluxKlein) -> None:
    parts = load_parts(editor.folder, "cpu")
    latents = torch.randn((1, 16, 4, 4), generator=torch.Generator().manual_seed(0))
    mean = parts.vae.bn.running_mean[None, :, None, None]
    deviation = (parts.vae.bn.running_var + parts.vae.config.batch_norm_eps).sqrt()[None, :, None, None]
    plain = torch.nn.functional.pixel_shuffle(latents * deviation + mean, 2)
    assert torch.equal(parts.decode(latents), (parts.vae.decode(plain).sample / 2 + 0.5).clamp(0, 1))
    assert not any(parameter.requires_grad for parameter in parts.transformer.parameters())


def test_long_instructions_are_cut_and_it_says_where(editor: FluxKlein) -> None:
    long = FluxKlein("red hair and " * 100, "cpu", size=64)
    assert long.context.shape == editor.context.shape == (1, 512, 48)
    assert long.edit(batch(1)).isfinite().all()
    assert "as far as “… " in long.understood
    assert editor.understood == "the instruction as it is"
    with pytest.raises(InputError, match="no words"):
        FluxKlein(" <|im_end|> ", "cpu")


def test_the_noise_lies_on_the_body(editor: FluxKlein) -> None:
    """Two frames with the same pictures differ where the person has moved, and are alike where she has not."""
    plain = batch(2)
    plain.source[1], plain.rendered[1] = plain.source[0], plain.rendered[0]
    same = editor.edit(plain)
    assert torch.allclose(same[0], same[1], atol=1e-5)
    uv = torch.stack(torch.meshgrid(torch.linspace(0, 0.9, 64), torch.linspace(0, 0.9, 64), indexing="ij"))
    moved = editor.edit(replace(plain, uv=torch.stack([uv, uv + 0.1])))
    assert (moved[0] - moved[1]).abs().max() > 1e-3


def test_an_instruction_is_encoded_once(editor: FluxKlein, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(Qwen3ForCausalLM, "from_pretrained", refuse)
    assert FluxKlein("make hair red", "cpu").context is editor.context


def test_text_encoder_and_transformer_are_never_held_together(
    editor: FluxKlein, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    from portraitgen.editors import flux

    alive: dict[str, weakref.ref[Any]] = {}

    def encoder(folder: Path, device: str) -> Any:
        assert not ("transformer" in alive and alive["transformer"]())
        pipeline = load_encoder(folder, device)
        alive["encoder"] = weakref.ref(pipeline.text_encoder)
        return pipeline

    def parts(folder: Path, device: str) -> Parts:
        assert alive["encoder"]() is None
        loaded = load_parts(folder, device)
        alive["transformer"] = weakref.ref(loaded.transformer)
        return loaded

    release()
    monkeypatch.setattr(flux, "load_encoder", encoder)
    monkeypatch.setattr(flux, "load_parts", parts)
    for instruction in ("a first one", "a second one"):
        FluxKlein(instruction, "cpu", size=64).edit(batch(1))
    assert alive["encoder"]() is None
    assert alive["transformer"]() is not None


def test_the_text_encoder_leaves_a_small_card_at_once(editor: FluxKlein, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes next may be a clip that is learned: it needs the room."""
    import weakref

    from portraitgen.editors import flux, memory

    made: list[weakref.ref[Any]] = []

    def encoder(folder: Path, device: str) -> Any:
        pipeline = load_encoder(folder, device)
        made.append(weakref.ref(pipeline.text_encoder))
        return pipeline

    monkeypatch.setattr(flux, "load_encoder", encoder)
    for small, instruction in ((True, "on a small card"), (False, "on a large card")):
        monkeypatch.setattr(memory, "is_small", lambda _, small=small: small)
        FluxKlein(instruction, "cpu", size=64)
        assert (made[-1]() is None) == small


def test_on_a_small_card_large_frames_are_edited_one_by_one_and_smaller(
    editor: FluxKlein, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portraitgen.editors import flux

    seen: list[Tensor] = []
    encode = Parts.encode

    def remember(self: Parts, images: Tensor) -> Tensor:
        seen.append(images)
        return encode(self, images)

    monkeypatch.setattr(Parts, "encode", remember)
    for small, shape in ((False, (2, 3, 96, 80)), (True, (1, 3, 64, 48))):
        monkeypatch.setattr(flux, "is_small", lambda _, small=small: small)
        seen.clear()
        edited = FluxKlein("make hair red", "cpu", size=64, chunk=2).edit(batch(2, 96, 80))
        assert edited.shape == (2, 3, 96, 80)
        assert {tuple(images.shape) for images in seen} == {shape}


def test_only_safetensors_are_read(folder: Path, tmp_path: Path) -> None:
    """A pickled transformer is left alone, whatever is in it."""
    import shutil

    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    (copy / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"not to be opened")
    with pytest.raises(OSError, match="safetensors"):
        load_parts(copy, "cpu")


def test_half_precision_leaves_the_picture(editor: FluxKlein, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that a GPU takes, on the CPU: the transformer in bfloat16, loop and autoencoder in full precision."""
    from portraitgen.editors import flux

    latents, noise = torch.randn((2, 2, 16, 4, 4), generator=torch.Generator().manual_seed(4))
    full = walk(load_parts(editor.folder, "cpu"), latents, latents, noise, editor.context, 0.8, 4)
    monkeypatch.setattr(flux, "_precision", lambda device: torch.bfloat16)
    parts = load_parts(editor.folder, "cpu")
    assert (parts.transformer.dtype, parts.vae.dtype) == (torch.bfloat16, torch.float32)
    half = walk(parts, latents, latents, noise, editor.context.bfloat16(), 0.8, 4)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert torch.nn.functional.cosine_similarity(full.flatten(), half.flatten(), dim=0) > 0.97


def test_missing_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: None)
    with pytest.raises(InputError, match=r"weights --fetch flux2-klein.* builtin"):
        FluxKlein("red hair", "cpu")


def test_full_size_shapes_on_the_meta_device() -> None:
    """The real configuration without its bytes: the loop runs at 512 x 512, and its noise levels are the known ones."""
    from diffusers import Flux2Transformer2DModel

    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        )
    schedule: Any = SimpleNamespace(use_dynamic_shifting=True, time_shift_type="exponential", shift=3.0)
    parts = Parts(transformer=transformer, vae=None, schedule=schedule)
    start, noise = torch.empty(2, 128, 32, 32, device="meta"), torch.empty(1, 128, 32, 32, device="meta")
    context = torch.empty(1, 512, 7680, device="meta")
    with torch.no_grad():
        found = walk(parts, start, start, noise, context, 0.6, 4)
    assert found.shape == start.shape
    assert sigmas_from(1.0, 4, parts.shift(1024, 4)) == pytest.approx([1, 0.958, 0.884, 0.717, 0], abs=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: folder)
    editor = FluxKlein("make hair red", "cuda", size=64)
    assert load_parts(folder, "cuda").transformer.dtype == torch.bfloat16
    assert editor.edit(batch()).isfinite().all()
    embed.cache_clear()
    release()
