"""Text edits with FLUX.2 klein: a rectified-flow transformer that reads the source frame as a reference and starts from the render.

The parts are diffusers' own; the loop is ours, because the stock inpainting pipeline, the only one with a strength, makes the
picture that it starts from a reference as well, and a render's flaws would become what the model keeps to. At strength 1 the
loop is the stock pipeline's (`Flux2KleinPipeline`), which a test holds it to.
Model: black-forest-labs/FLUX.2-klein-4B, Apache-2.0.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..streaming import breathe
from . import EditBatch
from .anchored_noise import anchored_noise
from .latent_diffusion import required, resize
from .memory import is_small, make_room, resident
from .prompts import clean_prompt

REFERENCE_TIME = 10  # first coordinate of a reference's tokens; the edited picture's is 0
MULTIPLE = 16  # pixels under one token
MAX_TOKENS = 512  # of a prompt
TEXELS = 384  # of the noise that lies on the body; in a portrait a token covers about 28 of them


def sigmas_from(strength: float, steps: int, shift: float) -> list[float]:
    """Noise levels to walk down: ``steps`` of them from ``strength`` on, and 0.

    The distilled model's own four levels (1, 0.96, 0.88, 0.72 at 512 x 512) would leave four strengths, all of them close to 1.
    So the walk begins at the level asked for, and its levels are the shifted ones of as many even steps from there: the model
    takes any level as its time. From strength 1 they are the model's own.

    Args:
        strength: level to begin at, the share of noise in the start, in (0, 1].
        steps: of the walk.
        shift: factor s by which the model's schedule is shifted, t -> s t / (1 + (s - 1) t).
    """
    begin = strength / (strength + shift * (1 - strength))
    times = [begin * (1 - step / steps) for step in range(steps)]
    return [*(shift * time / (1 + (shift - 1) * time) for time in times), 0.0]


@dataclass(frozen=True)
class Parts:
    """Loaded, frozen parts of FLUX.2 klein, without its text encoder."""

    transformer: Any
    vae: Any  # in full precision: bfloat16 leaves bands on skin
    schedule: Any  # the scheduler's settings

    def encode(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], ``[B, 3, H, W]``, to normalised latents ``[B, C, H / 16, W / 16]``."""
        found = [self.vae.encode(image * 2 - 1).latent_dist.mode() for image in images.to(self.vae.device).split(1)]
        mean, deviation = self._statistics()
        return (functional.pixel_unshuffle(torch.cat(found), 2) - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents to RGB in [0, 1], one picture at a time: in full precision it takes a gigabyte at 512 x 512."""
        mean, deviation = self._statistics()
        spread = functional.pixel_shuffle(latents * deviation + mean, 2)
        images = torch.cat([self.vae.decode(one).sample for one in spread.split(1)])
        return (images / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, reference: Tensor, sigma: float, context: Tensor) -> Tensor:
        """What the transformer predicts: noise minus picture.

        Args:
            latents: noisy ``[B, C, h, w]``.
            reference: latents of what to keep to, of the same shape.
            sigma: noise level of ``latents``.
            context: embedded prompt ``[1, L, D]``.
        """
        batch, _, rows, columns = latents.shape
        dtype, device = self.transformer.dtype, latents.device
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in (latents, reference)], dim=1)
        words = torch.arange(context.shape[1])
        predicted: Tensor = self.transformer(
            hidden_states=tokens.to(dtype),
            timestep=torch.full((batch,), sigma, dtype=dtype, device=device),
            guidance=None,
            encoder_hidden_states=context.to(device, dtype).expand(batch, -1, -1),
            txt_ids=functional.pad(words[:, None], (3, 0)).to(device),
            img_ids=torch.cat([_places(time, rows, columns) for time in (0, REFERENCE_TIME)]).to(device),
            return_dict=False,
        )[0]
        return predicted[:, : rows * columns].transpose(1, 2).unflatten(2, (rows, columns)).to(latents.dtype)

    def shift(self, tokens: int, steps: int) -> float:
        """How far noise levels are shifted up, for pictures of so many tokens and a walk of so many steps."""
        if not self.schedule.use_dynamic_shifting:
            return float(self.schedule.shift)
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        mu = compute_empirical_mu(image_seq_len=tokens, num_steps=steps)
        return math.exp(mu) if self.schedule.time_shift_type == "exponential" else mu

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents, ``[1, C, 1, 1]`` each."""
        norm = self.vae.bn
        deviation = torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps)
        return norm.running_mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def _places(time: int, rows: int, columns: int) -> Tensor:
    """Coordinates (time, row, column, word) of a picture's tokens, ``[rows * columns, 4]``."""
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(rows), torch.arange(columns), torch.arange(1))


def walk(
    parts: Parts,
    start: Tensor,  # [B, C, h, w] clean latents
    reference: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w] or [1, C, h, w] standard normal
    context: Tensor,  # [1, L, D]
    strength: float,
    steps: int,
) -> Tensor:
    """Mix ``start`` with noise to the level ``strength`` and follow the model's velocity back: clean latents like ``start``."""
    sigmas = sigmas_from(strength, steps, parts.shift(start[0, 0].numel(), steps))
    latents = (1 - sigmas[0]) * start + sigmas[0] * noise
    for now, then in itertools.pairwise(sigmas):
        breathe()
        latents = latents + (then - now) * parts.velocity(latents, reference, now, context)
    return latents


def _load(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype, dtype_name: str = "torch_dtype") -> Any:
    options = {dtype_name: dtype, "use_safetensors": True, "local_files_only": True}
    return kind.from_pretrained(folder, **options).to(device).eval().requires_grad_(False)


def _precision(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def load_parts(folder: Path, device: str) -> Parts:
    """Load transformer and autoencoder from a folder in diffusers' layout, safetensors only: 8.1 GB on CUDA, where it is bfloat16."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    where = torch.device(device)
    return Parts(
        transformer=_load(Flux2Transformer2DModel, folder / "transformer", where, _precision(where)),
        vae=_load(AutoencoderKLFlux2, folder / "vae", where, torch.float32),
        schedule=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True).config,
    )


def load_encoder(folder: Path, device: str) -> Any:
    """Load tokenizer and text encoder, 8.1 GB on CUDA, as a pipeline that can do nothing but encode prompts."""
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen2TokenizerFast, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the bar belongs to the command line
    where = torch.device(device)
    return Flux2KleinPipeline(
        scheduler=None,
        vae=None,
        text_encoder=_load(Qwen3ForCausalLM, folder / "text_encoder", where, _precision(where), "dtype"),
        tokenizer=Qwen2TokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True),
        transformer=None,
    )


@functools.lru_cache(maxsize=16)
@torch.no_grad()
def embed(folder: Path, device: str, instruction: str) -> tuple[Tensor, str | None]:
    """The instruction as the transformer reads it, ``[1, 512, D]`` in main memory; and its words, if only some of them were read.

    The text encoder and the transformer are never on the card together, so that 12 GB are enough; where the card is small, the encoder
    leaves it at once, for a clip may be learned next.
    """
    with resident(("flux2-klein text encoder", folder, device), lambda: load_encoder(folder, device)) as pipeline:
        context: Tensor = pipeline.encode_prompt(instruction, device=torch.device(device))[0].cpu()
        said = [{"role": "user", "content": instruction}]
        template = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        tokens = pipeline.tokenizer(pipeline.tokenizer.apply_chat_template(said, **template)).input_ids
        read = pipeline.tokenizer.decode(tokens[:MAX_TOKENS], skip_special_tokens=True)
    del pipeline
    make_room(device)
    return context, read if len(tokens) > MAX_TOKENS else None


class FluxKlein:
    """Edits frames by a free-form instruction with FLUX.2 klein.

    Args:
        instruction: what to change, in any language that Qwen3 reads; beyond 512 tokens it is cut.
        device: "cpu" or "cuda".
        size: least length in pixels of the longer side at which it edits; larger frames are edited at their own size, but on a small
            card, where it would not fit beside the key frames, at this one.
        steps: transformer steps per edit; the model is distilled to 4.
        chunk: frames edited at a time; one on a small card.

    Raises:
        InputError: if the weights are not here, or the instruction holds no words.
    """

    name = "FLUX.2 klein"
    reads_render = True
    face_aware = True
    edits_background = False

    def __init__(self, instruction: str, device: str, *, size: int = 512, steps: int = 4, chunk: int = 4) -> None:
        instruction = clean_prompt(instruction)
        self.folder, self.device = required("flux2-klein", self.name), device
        self.context, read = embed(self.folder, device, instruction)
        self.understood = "the instruction as it is" if read is None else f"the instruction as far as “… {read[-40:]}”"
        self.small = is_small(torch.device(device))
        self.size, self.steps, self.chunk = size, steps, 1 if self.small else chunk

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1], on the batch's device.

        The strength is the share of noise in the start: at 1 only the source frame counts, below it the render too. The seed's noise
        lies on the body, and a frame's edit does not depend on the frames beside it.
        """
        if batch.strength == 0:
            return batch.source
        key = (self.name, self.folder, self.device)
        with resident(key, lambda: load_parts(self.folder, self.device)) as parts:
            return torch.cat([self._edit(parts, some) for some in batch.split(self.chunk)])

    def _edit(self, parts: Parts, batch: EditBatch) -> Tensor:
        height, width = batch.source.shape[-2:]
        scale = self.size / max(height, width)
        scale = scale if self.small else max(1.0, scale)
        inside = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width)]
        reference = parts.encode(resize(batch.source, inside))
        start = parts.encode(resize(batch.rendered, inside))
        _, channels, rows, columns = start.shape
        noise = anchored_noise(batch.uv, (rows, columns), batch.seed, channels, TEXELS).to(start)
        latents = walk(parts, start, reference, noise, self.context, batch.strength, self.steps)
        return resize(parts.decode(latents), [height, width]).to(batch.source)
