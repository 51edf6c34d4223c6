"""The latent loop and InstructPix2Pix, with tiny randomly initialised models of the real classes in the real layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import write_stable_diffusion
from torch import Tensor

from portraitgen import weights
from portraitgen.editors import EditBatch, EditRequest, load_editor
from portraitgen.editors.anchored_noise import anchored_noise
from portraitgen.editors.latent_diffusion import (
    ALPHAS,
    InstructPix2Pix,
    denoise,
    load_parts,
    read_prompts,
    timesteps_from,
)
from portraitgen.editors.memory import make_room, release, resident
from portraitgen.editors.surface import one_frame
from portraitgen.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "instruct-pix2pix"
    write_stable_diffusion(folder)
    return folder


@pytest.fixture
def editor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstructPix2Pix]:
    monkeypatch.setattr(weights, "path", lambda name: folder)
    yield InstructPix2Pix("make hair red", "cpu", size=64, steps=3, chunk=2)
    release()


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
    request = EditRequest("text", "make hair red", engine="instruct-pix2pix", guidance=6.0)
    assert load_editor(request, "cpu").guidance == 6  # type: ignore[attr-defined]
    loud, usual = (InstructPix2Pix("make hair red", "cpu", size=64, steps=3, chunk=2, guidance=x) for x in (6.0, 12.0))
    assert (loud.edit(plain) - before).abs().max() > 1e-4
    assert torch.equal(usual.edit(plain), before)


def test_the_schedule_is_stable_diffusions() -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    assert torch.allclose(torch.tensor(ALPHAS), theirs, atol=1e-5)


def surface(shift: float = 0.0, angle: float = 0.0, side: int = 512) -> Tensor:
    """Texture coordinates [1, 2, side, side] of a person's size, moved across by ``shift`` pixels and turned, with nothing at the edges."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    x, y = x - side / 2 - shift, y - side / 2
    cosine, sine = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    uv = torch.stack([cosine * x + sine * y, cosine * y - sine * x]) / (2.2 * side) + 0.5
    outside = (uv - 0.5).abs().amax(0) > 0.16
    return torch.where(outside, torch.nan, uv)[None]


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_noise_is_standard_normal_on_and_off_the_body(angle: float) -> None:
    uv = surface(angle=angle)
    noise = torch.cat([anchored_noise(uv, (64, 64), seed) for seed in range(4)])
    on_body = ~uv[:, 0, 4::8, 4::8].isnan().expand(4, -1, -1)
    for mask in (on_body, ~on_body):
        values = noise.transpose(0, 1)[:, mask]
        assert values.mean(1).abs().max() < 0.05
        assert (values.var(1) - 1).abs().max() < 0.06
        assert ((values**4).mean(1) - 3).abs().max() < 0.35, "no heavier tails than a Gaussian's"
        assert values.corrcoef().fill_diagonal_(0).abs().max() < 0.04, "the channels are independent"
    for down, across in ((0, 1), (1, 0), (1, 1), (0, 2)):
        one, other = noise[:, :, : 64 - down, : 64 - across], noise[:, :, down:, across:]
        assert (one * other).mean().abs() < 0.06, "neighbours share no more than the texels on their border"


def test_noise_moves_with_the_body() -> None:
    first = anchored_noise(surface(), (64, 64), 0)
    moved = anchored_noise(surface(shift=16), (64, 64), 0)
    inside = ~surface()[0, 0].isnan()
    cells = inside.unfold(0, 8, 8).unfold(1, 8, 8).all(-1).all(-1)  # wholly on the body
    cells[:, -2:] = False
    assert torch.equal(moved.roll(-2, 3)[0, :, cells], first[0, :, cells]), "two cells to the right"
    assert (moved * first)[0, :, cells].mean().abs() < 0.1, "not where it was on the screen"
    outside = ~inside.unfold(0, 8, 8).unfold(1, 8, 8).any(-1).any(-1)
    outside[:, :-2] &= outside[:, 2:].clone()
    outside[:, 2:] &= outside[:, :-2].clone()
    assert torch.equal(moved[0, :, outside], first[0, :, outside]), "the screen's own noise stays"

    halfway = anchored_noise(surface(shift=4), (64, 64), 0)
    assert 0.4 < (halfway * first)[0, :, cells].mean() < 0.6, "half a cell on, half of the noise is the same"
    assert not torch.equal(first, anchored_noise(surface(), (64, 64), 1))
    assert torch.isfinite(anchored_noise(torch.full((1, 2, 48, 80), torch.nan), (8, 8), 0)).all()


def test_noise_of_a_frame_is_its_own() -> None:
    both = torch.cat([surface(), surface(shift=9, angle=0.2)])
    assert torch.equal(anchored_noise(both, (32, 32), 3)[1:], anchored_noise(both[1:], (32, 32), 3))


def test_long_instructions_are_cut_and_it_is_said(editor: InstructPix2Pix) -> None:
    assert editor.understood == "the instruction as it is"
    long = InstructPix2Pix("red hair and " * 5000, "cpu", size=64, steps=3, chunk=2)
    assert long.understood.startswith("the instruction as far as")
    assert long.edit(batch(1)).isfinite().all()


@pytest.mark.parametrize(
    ("typed", "same_as"),
    [
        ("red\x00 ha\x1bir\n\n", "red ha ir"),
        ("  red   hair <|endoftext|>", "red hair"),
        ("<script>x</script> red <b>hair</b>", "x red hair"),
        ("red hair \ud800", "red hair"),
    ],
)
def test_what_is_no_word_is_left_out(folder: Path, editor: InstructPix2Pix, typed: str, same_as: str) -> None:
    assert torch.equal(InstructPix2Pix(typed, "cpu").contexts, read_prompts(folder, [same_as, "", ""])[0])


def test_other_scripts_are_passed_on_and_it_is_said(editor: InstructPix2Pix) -> None:
    assert (
        "English"
        in InstructPix2Pix(
            "\u0441\u0434\u0435\u043b\u0430\u0439 \u0432\u043e\u043b\u043e\u0441\u044b \u0440\u044b\u0436\u0438\u043c\u0438",
            "cpu",
        ).understood
    )
    assert "English" in InstructPix2Pix("\u7ea2\u8272\u5934\u53d1", "cpu").understood
    assert "English" not in InstructPix2Pix("make Ren\u00e9's hair red, \u00e0 la mode", "cpu").understood
    assert "English" not in InstructPix2Pix("1920 < 1930", "cpu").understood


@pytest.mark.parametrize("typed", ["", "   ", "\x00\x07", "<b></b>", "?!...", "\U0001f525"])
def test_an_instruction_without_words_is_refused(editor: InstructPix2Pix, typed: str) -> None:
    with pytest.raises(InputError, match="holds no words"):
        InstructPix2Pix(typed, "cpu")


def test_old_key_names_are_read(folder: Path) -> None:
    """The real files are from 2023: other attention names in the autoencoder, a prefix in the text encoder."""
    parts = load_parts(folder, "cpu")
    stored = load_file(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    attention = parts.vae.encoder.mid_block.attentions[0]
    assert torch.equal(attention.to_q.weight, stored["encoder.mid_block.attentions.0.query.weight"].float())
    assert torch.equal(attention.to_out[0].bias, stored["encoder.mid_block.attentions.0.proj_attn.bias"].float())
    assert not any(parameter.requires_grad for parameter in parts.unet.parameters())
    from transformers import CLIPTextModel, CLIPTokenizer

    stored = load_file(folder / "text_encoder" / "model.fp16.safetensors")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", variant="fp16", dtype=torch.float32)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, stored[f"text_model.{name.removeprefix('text_model.')}"].float()), name
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(
        ["red hair"], padding="max_length", max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        expected = encoder(tokens.input_ids)[0]
    assert torch.allclose(read_prompts(folder, ["red hair"])[0], expected, atol=1e-6)


def test_one_model_at_a_time() -> None:
    """A holder that two threads use for two models never holds both, and keeps the one that is asked for again."""
    held, most, made = 0, 0, []

    class Model:
        def __init__(self, name: str) -> None:
            nonlocal held, most
            held += 1
            most = max(most, held)
            made.append(name)

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    def use(name: str) -> None:
        for _ in range(20):
            with resident(name, lambda: Model(name)) as model, resident(name, lambda: Model(name)) as again:
                assert model is again
            del model, again

    users = [Thread(target=use, args=(name,)) for name in ("one", "other")]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert most == 1
    assert {"one", "other"} == set(made)
    with resident(made[-1], lambda: Model("new")):
        assert made[-1] != "new", "what lies there is not loaded again"
        with pytest.raises(RuntimeError, match="another model is in use"), resident("third", lambda: Model("third")):
            pass
    release()
    assert held == 0


def test_a_full_gpu_is_one_sentence_and_leaves_nothing() -> None:
    def load() -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(InputError, match="not enough free memory"), resident("huge", load):
        pass
    with pytest.raises(InputError, match="not enough free memory"), resident("small", lambda: "model"):
        load()
    loads = []
    with resident("small", lambda: loads.append(1) or "model") as model:
        assert model == "model"
    assert loads == [1], "it was not kept after the failure"
    with pytest.raises(ZeroDivisionError), resident("small", lambda: "model"):
        1 / 0  # noqa: B018
    with resident("small", lambda: "other") as model:
        assert model == "model", "other errors leave it where it is"
    release()


def test_an_engine_leaves_a_small_card_and_stays_on_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=12e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    loads: list[str] = []
    for size, device, expected in ((12e9, "cuda", 2), (24e9, "cuda", 1), (12e9, "cpu", 1)):
        memory.total_memory = size
        loads.clear()
        for _ in range(2):
            with resident("engine", lambda: loads.append("loaded") or "model"):
                make_room(device)
                assert loads, "not while somebody uses it"
            make_room(device)
        assert len(loads) == expected, (size, device)
        release()


def test_missing_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: None)
    with pytest.raises(InputError, match="weights --fetch instruct-pix2pix"):
        InstructPix2Pix("red hair", "cpu")


def test_the_loop_at_full_size_on_the_meta_device() -> None:
    """The real UNet, without its two billion bytes, with pictures of 512 x 512."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=8, cross_attention_dim=768, attention_head_dim=8)
        conditions, contexts = torch.empty(3, 2, 4, 64, 64), torch.empty(3, 77, 768)
        start, noise = torch.empty(2, 4, 64, 64), torch.empty(1, 4, 64, 64)

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
    assert editor.edit(batch()).isfinite().all()
    with resident((editor.name, folder, "cuda"), lambda: None) as parts:
        assert parts.unet.dtype == torch.float16
    release()
