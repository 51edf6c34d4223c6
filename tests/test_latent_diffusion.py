"""The latent loop and InstructPix2Pix, with tiny randomly initialised models of the real classes in the real layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from portraitgen import weights
from portraitgen.editors import EditBatch
from portraitgen.editors.latent_diffusion import InstructPix2Pix, denoise, load_parts, timesteps_from
from portraitgen.editors.surface import one_frame
from portraitgen.errors import InputError

ALPHAS = torch.linspace(0.999, 0.005, 1000).tolist()


def write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of single letters."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "unk_token": "<|endoftext|>"}))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_models(folder: Path) -> None:
    """The layout of timbrooks/instruct-pix2pix, its fp16 variant, and the key names that its 2023 files use."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    write_tokenizer(folder / "tokenizer")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    UNet2DConditionModel(
        in_channels=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet", variant="fp16")
    AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    ).save_pretrained(folder / "vae", variant="fp16")
    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=190,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder", variant="fp16")

    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors", old_names, "mid_block.attentions")
    text = folder / "text_encoder" / "model.fp16.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    state = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()}
    save_file(state | positions, text, {"format": "pt"})


def rename(file: Path, names: dict[str, str], where: str) -> None:
    state = {}
    for name, value in load_file(file).items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.") if where in name else name
        state[name] = value
    save_file(state, file, {"format": "pt"})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose by threads, a lot where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "instruct-pix2pix"
    write_models(folder)
    return folder


@pytest.fixture
def editor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstructPix2Pix]:
    monkeypatch.setattr(weights, "path", lambda name: folder)
    yield InstructPix2Pix("make hair red", "cpu", size=64, steps=3, chunk=2)
    load_parts.cache_clear()


def batch(count: int = 3, side: int = 64, **changes: object) -> EditBatch:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand((2, count, 3, side, side), generator=generator)
    made = replace(EditBatch.of_background(pictures[0], seed=5), rendered=pictures[1])
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_loop_finds_what_the_model_believes_in() -> None:
    """A model that knows the clean latents must be led to them exactly, wherever the walk starts."""
    truth = torch.randn(2, 4, 8, 8)

    def predict(inputs: Tensor, timestep: int, contexts: Tensor) -> Tensor:
        alpha = ALPHAS[timestep]
        return (inputs[:, :4] - alpha**0.5 * truth.repeat(3, 1, 1, 1)) / (1 - alpha) ** 0.5

    alphas = [1.0, *ALPHAS[1:]]
    conditions, contexts = torch.zeros(3, 2, 4, 8, 8), torch.zeros(3, 77, 32)
    noise = torch.randn(1, 4, 8, 8)
    for begin in (0.5, 0.8):
        steps = timesteps_from(begin, 6)
        found = denoise(predict, alphas, steps, torch.zeros_like(truth), noise, conditions, contexts, (9.0, -7.0, -1.0))
        assert (found - truth).abs().max() < 1e-3


def test_the_loop_is_ddim_with_dual_guidance() -> None:
    """One step, by the paper's formula: e_uncond + s_T (e_text - e_image) + s_I (e_image - e_uncond)."""
    generator = torch.Generator().manual_seed(2)
    answers = torch.randn((3, 1, 4, 8, 8), generator=generator)
    conditions = torch.randn((3, 1, 4, 8, 8), generator=generator)
    start, noise = torch.randn((2, 1, 4, 8, 8), generator=generator)
    seen: list[Tensor] = []

    def predict(inputs: Tensor, timestep: int, contexts: Tensor) -> Tensor:
        seen.append(inputs)
        assert timestep == 600
        assert contexts.shape == (3, 77, 32)
        return answers.flatten(0, 1)

    text, image = 7.5, 1.5
    weights_by_branch = (text, image - text, 1 - image)
    found = denoise(predict, ALPHAS, [600], start, noise, conditions, torch.zeros(3, 77, 32), weights_by_branch)
    noisy = ALPHAS[600] ** 0.5 * start + (1 - ALPHAS[600]) ** 0.5 * noise
    with_text, with_image, plain = answers
    epsilon = plain + text * (with_text - with_image) + image * (with_image - plain)
    clean = (noisy - (1 - ALPHAS[600]) ** 0.5 * epsilon) / ALPHAS[600] ** 0.5
    assert torch.allclose(found, ALPHAS[0] ** 0.5 * clean + (1 - ALPHAS[0]) ** 0.5 * epsilon, atol=1e-4)
    assert torch.equal(seen[0][:, :4], noisy.repeat(3, 1, 1, 1))
    assert torch.equal(seen[0][:, 4:], conditions.flatten(0, 1))


def test_timesteps() -> None:
    assert timesteps_from(0.8, 4) == [799, 599, 399, 199]
    assert timesteps_from(0.001, 2) == [1, 1]
    assert min(timesteps_from(1.0, 50)) >= 1


def test_an_edit_has_the_right_shape_and_range(editor: InstructPix2Pix) -> None:
    for count, side in ((3, 64), (1, 48)):
        edited = editor.edit(batch(count, side))
        assert edited.shape == (count, 3, side, side)
        assert edited.dtype == torch.float32
        assert edited.isfinite().all()
        assert edited.min() >= 0
        assert edited.max() <= 1


def test_the_seed_decides(editor: InstructPix2Pix) -> None:
    first = editor.edit(batch())
    assert torch.equal(first, editor.edit(batch()))
    assert not torch.equal(first, editor.edit(batch(seed=6)))


def test_a_frame_does_not_depend_on_its_neighbours(editor: InstructPix2Pix) -> None:
    whole = batch()
    alone = one_frame(whole, 1)
    assert torch.allclose(editor.edit(whole)[1:2], editor.edit(alone), atol=1e-4)


def test_everything_it_is_given_matters(editor: InstructPix2Pix) -> None:
    plain = batch()
    before = editor.edit(plain)
    changed = (
        {"source": plain.source.flip(-1)},
        {"rendered": plain.rendered.flip(-1)},
        {"strength": 0.5},
    )
    for change in changed:
        assert (editor.edit(replace(plain, **change)) - before).abs().max() > 1e-4, change
    assert torch.equal(editor.edit(replace(plain, strength=0.0)), plain.source)
    other = InstructPix2Pix("a bronze bust", "cpu", size=64, steps=3, chunk=2)
    assert (other.edit(plain) - before).abs().max() > 1e-4


def test_long_instructions_are_cut_not_refused(editor: InstructPix2Pix) -> None:
    long = InstructPix2Pix("red hair and " * 60, "cpu", size=64, steps=3, chunk=2)
    assert long.edit(batch(1)).isfinite().all()


def test_old_key_names_are_read(folder: Path, editor: InstructPix2Pix) -> None:
    """The real files are from 2023: other attention names in the autoencoder, a prefix in the text encoder."""
    stored = load_file(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    attention = editor.parts.vae.encoder.mid_block.attentions[0]
    assert torch.equal(attention.to_q.weight, stored["encoder.mid_block.attentions.0.query.weight"])
    assert torch.equal(attention.to_out[0].bias, stored["encoder.mid_block.attentions.0.proj_attn.bias"])
    stored = load_file(folder / "text_encoder" / "model.fp16.safetensors")
    loaded = {name.removeprefix("text_model."): value for name, value in editor.parts.text_encoder.state_dict().items()}
    for name, value in stored.items():
        if "position_ids" not in name:
            assert torch.equal(loaded[name.removeprefix("text_model.")], value), name
    assert not any(parameter.requires_grad for parameter in editor.parts.unet.parameters())


def test_missing_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: None)
    with pytest.raises(InputError, match="weights --fetch instruct-pix2pix"):
        InstructPix2Pix("red hair", "cpu")


def test_full_size_shapes_on_the_meta_device() -> None:
    """The real configuration, without its two billion bytes: 8 input channels, and the loop runs at 512 x 512."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=8, cross_attention_dim=768, attention_head_dim=8)
        conditions, contexts = torch.empty(3, 2, 4, 64, 64), torch.empty(3, 77, 768)
        start, noise = torch.empty(2, 4, 64, 64), torch.empty(1, 4, 64, 64)
    assert unet.conv_in.weight.shape == (320, 8, 3, 3)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_532_484

    def predict(inputs: Tensor, timestep: int, contexts: Tensor) -> Tensor:
        answer: Tensor = unet(inputs, timestep, encoder_hidden_states=contexts).sample
        return answer

    with torch.no_grad():
        found = denoise(predict, ALPHAS, [700, 350], start, noise, conditions, contexts, (7.5, -6.0, -0.5))
    assert found.shape == start.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: folder)
    editor = InstructPix2Pix("make hair red", "cuda", size=64, steps=3)
    assert editor.parts.dtype == torch.float16
    assert editor.edit(batch()).isfinite().all()
