"""Latent diffusion editors: one small loop over parts of diffusers, and InstructPix2Pix on top of it.

The loop starts from a partially noised latent and is told what to keep by latents concatenated to the UNet's input, so that
InstructPix2Pix (source frame as condition) and IC-Light (foreground as condition) differ only in what they put in.
Method: Brooks et al., InstructPix2Pix, CVPR 2023; starting from the current render: Haque et al., Instruct-NeRF2NeRF, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from .. import weights
from ..errors import InputError
from ..streaming import breathe
from . import EditBatch
from .anchored_noise import anchored_noise
from .memory import resident
from .prompts import clean_prompt, say_understood

Predict = Callable[
    [Tensor, int, Tensor], Tensor
]  # noisy input [N, C, h, w], timestep, context [N, L, D] -> noise [N, 4, h, w]

# The noise schedule of Stable Diffusion 1, which all models here share: cumulative product of alphas by timestep.
ALPHAS: tuple[float, ...] = tuple(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).tolist())


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
        noise: broadcast over the batch.
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
        breathe()
        inputs = torch.cat([latents.repeat(branches, 1, 1, 1), conditions], dim=1)
        predictions = predict(inputs, now, contexts).unflatten(0, (branches, batch))
        epsilon = sum(weight * prediction for weight, prediction in zip(guidance, predictions, strict=True))
        clean = (latents - (1 - alphas[now]) ** 0.5 * epsilon) / alphas[now] ** 0.5
        latents = alphas[then] ** 0.5 * clean + (1 - alphas[then]) ** 0.5 * epsilon
    return latents


def timesteps_from(begin: float, steps: int, train_steps: int = len(ALPHAS)) -> list[int]:
    """``steps`` timesteps, evenly from ``begin`` (a fraction of the training schedule, in (0, 1]) down to just above 0."""
    return [max(1, round(begin * train_steps * (1 - step / steps)) - 1) for step in range(steps)]


@dataclass(frozen=True)
class Parts:
    """Loaded, frozen parts of a Stable Diffusion model, without its text encoder."""

    unet: Any
    vae: Any

    @property
    def scale(self) -> float:
        """What latents are multiplied by before they are noised."""
        return float(self.vae.config.scaling_factor)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1], [B, 3, H, W], to the mode of the latents, [B, 4, H / 8, W / 8], not scaled."""
        latents: Tensor = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents to RGB in [0, 1], float32."""
        images: Tensor = self.vae.decode(latents).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def predict(self, inputs: Tensor, timestep: int, contexts: Tensor) -> Tensor:
        """The UNet as `denoise` wants it."""
        noise: Tensor = self.unet(inputs, timestep, encoder_hidden_states=contexts.to(inputs)).sample
        return noise


def read_prompts(folder: Path, prompts: Sequence[str]) -> tuple[Tensor, list[str | None]]:
    """Embed prompts with the text encoder of a folder in diffusers' layout, on the CPU: the GPU's memory is for what runs often.

    Returns:
        [K, L, D] contexts on the CPU, and of each prompt what was read, or None where that is all of it.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = _load(CLIPTextModel, folder / "text_encoder", "dtype", torch.float32)
    length = tokenizer.model_max_length
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        contexts: Tensor = encoder(tokens.input_ids)[0]
    whole = tokenizer(list(prompts), truncation=False, verbose=False).input_ids
    read = [
        tokenizer.decode(part, skip_special_tokens=True).strip() if len(all_of_it) > length else None
        for part, all_of_it in zip(tokens.input_ids, whole, strict=True)
    ]
    return contexts, read


def load_unet(folder: Path) -> Any:
    """The UNet of a folder in diffusers' layout, on the CPU in full precision."""
    from diffusers import UNet2DConditionModel

    return _load(UNet2DConditionModel, folder / "unet", "torch_dtype", torch.float32)


def load_parts(folder: Path, device: str, unet: Any = None) -> Parts:
    """The parts of a folder in diffusers' layout, safetensors only: half precision on CUDA, full precision elsewhere.

    Attention runs as PyTorch's fused kernel, and the autoencoder takes one picture at a time: eight of 512 x 512 at once would need 5 GB.

    Args:
        folder: holds vae and unet.
        device: "cpu" or "cuda".
        unet: to use in place of the folder's.
    """
    from diffusers import AutoencoderKL

    where = torch.device(device)
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    vae = _load(AutoencoderKL, folder / "vae", "torch_dtype", dtype)
    vae.enable_slicing()
    unet = load_unet(folder) if unet is None else unet
    return Parts(unet=unet.to(where, dtype), vae=vae.to(where))


def _load(kind: Any, folder: Path, dtype_name: str, dtype: torch.dtype) -> Any:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the bar belongs to the command line
    variant = "fp16" if any(folder.glob("*.fp16.safetensors")) else None
    options = {dtype_name: dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}
    return kind.from_pretrained(folder, **options).eval().requires_grad_(False)


def required(name: str, engine: str) -> Path:
    """The folder of an entry of the weights; raises InputError if it is missing."""
    folder = weights.path(name)
    if folder is None:
        raise InputError(
            f"The weights of {engine} are not here. Fetch them with: python -m portraitgen weights "
            f"--fetch {name}, or use the engine builtin."
        )
    return folder


class InstructPix2Pix:
    """Edits frames by a free-form instruction: starts from the noised render, keeps to the source frame.

    Args:
        instruction: what to change. The model reads its first 75 words or so.
        device: "cpu" or "cuda".
        size: side in pixels at which it edits; the model was trained near 512 and gets worse away from it.
        steps: UNet steps per edit.
        chunk: frames edited at a time; each takes three rows of the UNet's batch.
        guidance: how loud the instruction is; None to let the strength say it.

    Raises:
        InputError: if the weights are not here, or the instruction holds no words.
    """

    name = "InstructPix2Pix"
    reads_render = True
    face_aware = True
    edits_background = False
    image_guidance = 2.0

    def __init__(
        self,
        instruction: str,
        device: str,
        *,
        size: int = 512,
        steps: int = 10,
        chunk: int = 4,
        guidance: float | None = None,
    ) -> None:
        instruction = clean_prompt(instruction)
        self.folder = required("instruct-pix2pix", self.name)
        self.contexts, read = read_prompts(self.folder, [instruction, "", ""])
        self.understood = say_understood(instruction, read[0])
        self.device, self.size, self.steps, self.chunk = device, size, steps, chunk
        self.guidance = guidance

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1], on the batch's device.

        The strength sets how far back the walk starts (0.5 to 0.8 of the schedule) and, where no guidance was asked for, how loud the
        instruction is (4 to 12). The seed's noise lies on the body, and a frame's edit does not depend on the frames beside it.
        """
        if batch.strength == 0:
            return batch.source
        key = (self.name, self.folder, self.device)
        with resident(key, lambda: load_parts(self.folder, self.device)) as parts:
            return torch.cat([self._edit(parts, some) for some in batch.split(self.chunk)])

    def _edit(self, parts: Parts, batch: EditBatch) -> Tensor:
        size = inside_size(batch.source, self.size)
        kept = parts.encode(resize(batch.source, size) * 2 - 1)
        start = parts.encode(resize(batch.rendered, size) * 2 - 1) * parts.scale
        noise = anchored_noise(batch.uv, (start.shape[2], start.shape[3]), batch.seed)
        text = 4 + 8 * batch.strength if self.guidance is None else self.guidance
        latents = denoise(
            parts.predict,
            ALPHAS,
            timesteps_from(0.5 + 0.3 * batch.strength, self.steps),
            start,
            noise.to(start),
            torch.stack([kept, kept, torch.zeros_like(kept)]),
            self.contexts.to(start),
            (text, self.image_guidance - text, 1 - self.image_guidance),
        )
        return resize(parts.decode(latents / parts.scale), list(batch.source.shape[-2:])).to(batch.source)


def inside_size(images: Tensor, side: int) -> list[int]:
    """Height and width, multiples of 64, at which to edit pictures [B, 3, H, W] whose longer side becomes about ``side``."""
    height, width = images.shape[-2:]
    return [max(64, round(length * side / max(height, width) / 64) * 64) for length in (height, width)]


def resize(images: Tensor, size: list[int]) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] at another height and width, without aliasing."""
    if list(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
