"""Latent diffusion editors: one small loop over parts of diffusers, and InstructPix2Pix on top of it.

The loop starts from a partially noised latent and is told what to keep by latents concatenated to the UNet's input, so that
InstructPix2Pix (source frame as condition) and IC-Light (foreground as condition) differ only in what they put in.
Method: Brooks et al., InstructPix2Pix, CVPR 2023; starting from the current render: Haque et al., Instruct-NeRF2NeRF, ICCV 2023.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from .. import weights
from ..errors import InputError
from . import EditBatch

Predict = Callable[
    [Tensor, int, Tensor], Tensor
]  # noisy input [N, C, h, w], timestep, context [N, L, D] -> noise [N, 4, h, w]


def denoise(
    predict: Predict,
    alphas: Sequence[float],
    timesteps: Sequence[int],
    start: Tensor,  # [B, 4, h, w] clean latents
    noise: Tensor,  # [B, 4, h, w] or [1, 4, h, w] standard normal
    conditions: Tensor,  # [K, B, C, h, w] concatenated to the UNet's input, one row per branch of the guidance
    contexts: Tensor,  # [K, L, D] embedded prompts
    guidance: Sequence[float],
) -> Tensor:
    """Noise clean latents to the first timestep and walk them back with DDIM.

    Args:
        predict: the UNet.
        alphas: cumulative product of alphas by timestep; ``alphas[0]`` is where the walk ends.
        timesteps: descending, each in 1 .. len(alphas) - 1.
        start: what to start from.
        noise: broadcast over the batch; sharing it keeps neighbouring frames alike.
        conditions: what the edit must respect, by branch.
        contexts: what the edit is told, by branch.
        guidance: K weights that sum to 1; the noise is their combination of the branches' predictions.

    Returns:
        Edited latents, [B, 4, h, w].
    """
    branches, batch = conditions.shape[:2]
    conditions = conditions.flatten(0, 1)
    contexts = contexts.repeat_interleave(batch, dim=0)
    latents = alphas[timesteps[0]] ** 0.5 * start + (1 - alphas[timesteps[0]]) ** 0.5 * noise
    for now, then in zip(timesteps, (*timesteps[1:], 0), strict=True):
        inputs = torch.cat([latents.repeat(branches, 1, 1, 1), conditions], dim=1)
        predictions = predict(inputs, now, contexts).unflatten(0, (branches, batch))
        epsilon = sum(weight * prediction for weight, prediction in zip(guidance, predictions, strict=True))
        clean = (latents - (1 - alphas[now]) ** 0.5 * epsilon) / alphas[now] ** 0.5
        latents = alphas[then] ** 0.5 * clean + (1 - alphas[then]) ** 0.5 * epsilon
    return latents


def timesteps_from(begin: float, steps: int, train_steps: int = 1000) -> list[int]:
    """``steps`` timesteps, evenly from ``begin`` (a fraction of the training schedule, in (0, 1]) down to just above 0."""
    return [max(1, round(begin * train_steps * (1 - step / steps)) - 1) for step in range(steps)]


@dataclass(frozen=True)
class Parts:
    """Loaded, frozen parts of a Stable Diffusion model."""

    tokenizer: Any
    text_encoder: torch.nn.Module
    unet: torch.nn.Module
    vae: Any
    alphas: tuple[float, ...]
    device: torch.device
    dtype: torch.dtype

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to [K, L, D]."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        embedded: Tensor = self.text_encoder(tokens.input_ids.to(self.device))[0]
        return embedded

    def encode(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], [B, 3, H, W], to the mode of the latents, [B, 4, H / 8, W / 8], not scaled."""
        latents: Tensor = self.vae.encode(images.to(self.device, self.dtype) * 2 - 1).latent_dist.mode()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents to RGB in [0, 1], float32."""
        images: Tensor = self.vae.decode(latents).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def predict(self, inputs: Tensor, timestep: int, contexts: Tensor) -> Tensor:
        """The UNet as `denoise` wants it."""
        noise: Tensor = self.unet(inputs, timestep, encoder_hidden_states=contexts).sample
        return noise


@functools.lru_cache(maxsize=1)
def load_parts(folder: Path, device: str) -> Parts:
    """Load a folder in diffusers' layout, safetensors only: half precision on CUDA, full precision elsewhere."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the bar belongs to the command line
    where = torch.device(device)
    dtype = torch.float16 if where.type == "cuda" else torch.float32

    def load(kind: Any, part: str, dtype_name: str) -> Any:
        variant = "fp16" if any((folder / part).glob("*.fp16.safetensors")) else None
        options = {dtype_name: dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}
        return kind.from_pretrained(folder / part, **options).to(where).eval().requires_grad_(False)

    schedule = DDIMScheduler.from_pretrained(folder / "scheduler")
    return Parts(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        text_encoder=load(CLIPTextModel, "text_encoder", "dtype"),
        unet=load(UNet2DConditionModel, "unet", "torch_dtype"),
        vae=load(AutoencoderKL, "vae", "torch_dtype"),
        alphas=tuple(schedule.alphas_cumprod.tolist()),
        device=where,
        dtype=dtype,
    )


class InstructPix2Pix:
    """Edits frames by a free-form instruction: starts from the noised render, keeps to the source frame.

    Args:
        instruction: what to change.
        device: "cpu" or "cuda".
        size: side in pixels at which it edits; the model was trained near 512 and gets worse away from it.
        steps: UNet steps per edit.
        chunk: frames edited at a time; each takes three rows of the UNet's batch.

    Raises:
        InputError: if the weights are not here.
    """

    name = "InstructPix2Pix"
    reads_render = True
    face_aware = True
    edits_background = False
    understood = "the instruction as it is"
    image_guidance = 2.0

    def __init__(self, instruction: str, device: str, *, size: int = 512, steps: int = 10, chunk: int = 4) -> None:
        folder = weights.path("instruct-pix2pix")
        if folder is None:
            raise InputError(
                "The weights of InstructPix2Pix are not here. Fetch them with: python -m portraitgen weights "
                "--fetch instruct-pix2pix, or use the engine builtin."
            )
        self.parts = load_parts(folder, device)
        self.contexts = self.parts.embed([instruction, "", ""])
        self.size, self.steps, self.chunk = size, steps, chunk

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1], on the batch's device.

        The strength sets how far back the walk starts (0.5 to 0.8 of the schedule) and how loud the instruction is (4 to 12). All
        frames share the seed's noise, so a frame's edit does not depend on the frames beside it.
        """
        if batch.strength == 0:
            return batch.source
        pairs = zip(batch.source.split(self.chunk), batch.rendered.split(self.chunk), strict=True)
        edited = [self._edit_chunk(source, rendered, batch) for source, rendered in pairs]
        return torch.cat(edited)

    def _edit_chunk(self, source: Tensor, rendered: Tensor, batch: EditBatch) -> Tensor:
        parts = self.parts
        height, width = source.shape[-2:]
        scale = self.size / max(height, width)
        inside = [max(64, round(side * scale / 64) * 64) for side in (height, width)]
        kept = parts.encode(_resize(source, inside))
        factor = parts.vae.config.scaling_factor
        start = parts.encode(_resize(rendered, inside)) * factor
        generator = torch.Generator().manual_seed(batch.seed)
        noise = torch.randn((1, *start.shape[1:]), generator=generator).to(start)
        text = 4 + 8 * batch.strength
        latents = denoise(
            parts.predict,
            parts.alphas,
            timesteps_from(0.5 + 0.3 * batch.strength, self.steps, len(parts.alphas)),
            start,
            noise,
            torch.stack([kept, kept, torch.zeros_like(kept)]),
            self.contexts,
            (text, self.image_guidance - text, 1 - self.image_guidance),
        )
        return _resize(parts.decode(latents / factor), [height, width]).clamp(0, 1).to(source)


def _resize(images: Tensor, size: list[int]) -> Tensor:
    if list(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
