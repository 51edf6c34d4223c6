"""Relighting with IC-Light: Stable Diffusion 1.5 with an eight-channel UNet that sees the person cut out on grey.

Model: lllyasviel/ic-light, ``iclight_sd15_fc``, CreativeML OpenRAIL-M; it is stored as offsets from any Stable Diffusion 1.5 UNet.
Starting from a gradient mixed with the render: Gao et al., PortraitGen, SIGGRAPH Asia 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..errors import InputError
from . import EditBatch
from .anchored_noise import anchored_noise
from .colour import to_linear, to_srgb
from .illumination import Light
from .latent_diffusion import (
    ALPHAS,
    Parts,
    denoise,
    inside_size,
    load_parts,
    load_unet,
    read_prompts,
    required,
    resize,
    timesteps_from,
)
from .light_plan import place_words
from .light_words import names_surroundings, parse_light
from .memory import resident
from .pictures import read_picture
from .prompts import clean_prompt, say_understood
from .surface import blur

OFFSETS = "iclight_sd15_fc.safetensors"
PERSON, SCENE, QUALITY = "portrait of a person, detailed face", "scenery, background", "best quality"
NEGATIVE = "lowres, bad anatomy, bad hands, cropped, worst quality"
NOBODY = "person, face, lowres, worst quality"
GREY = 127  # of 255: what the model was taught to see as nothing
GRADIENT = 0.95  # share of the gradient in what the walk starts from


def read_lamps(text: str) -> tuple[Light, ...]:
    """The lamps that a description of light names; none where it names none, for the model reads more than we do."""
    try:
        return parse_light(text).lights
    except InputError:
        return ()


def say_lamps(lamps: Sequence[Light]) -> str:
    """Where the lamps are that the walk starts from, as in "starting from light from the left and from behind"."""
    return "starting from light " + " and ".join(dict.fromkeys(place_words(lamp) for lamp in lamps))


def light_map(lamps: Sequence[Light], height: int, width: int) -> Tensor:
    """A picture ``[1, 3, height, width]`` of the lamps' colours, each bright where its light comes from and black at the other end."""
    down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    total = torch.zeros(3, height, width)
    for lamp in lamps:
        x, y, _ = lamp.direction
        ramp = 0.5 + 0.5 * (across * x + down * y) / max(abs(x) + abs(y), 0.5)
        total += lamp.intensity * torch.tensor(lamp.colour)[:, None, None] * to_linear(ramp)
    return to_srgb(total / total.max())[None]


def merge_offsets(unet: Any, offsets: Mapping[str, Tensor]) -> None:
    """Widen a UNet's first convolution to eight channels, the new ones zero, and add ``offsets`` to every weight, in place.

    Raises:
        InputError: the offsets have other names or shapes than the widened UNet's weights.
    """
    narrow = unet.conv_in
    wide = torch.nn.Conv2d(8, narrow.out_channels, narrow.kernel_size, narrow.stride, narrow.padding)
    widened = functional.pad(narrow.weight, (0, 0, 0, 0, 0, 8 - narrow.in_channels))
    wide.load_state_dict({"weight": widened, "bias": narrow.bias})
    unet.conv_in = wide.to(narrow.weight).requires_grad_(False)
    unet.register_to_config(in_channels=8)
    state = unet.state_dict()
    wrong = [name for name in {*state, *offsets} if name not in state or name not in offsets]
    wrong += [name for name in state if name in offsets and state[name].shape != offsets[name].shape]
    if wrong:
        raise InputError(
            f"The weights of IC-Light do not fit their Stable Diffusion model, as at {min(wrong)}. Fetch both again."
        )
    with torch.no_grad():
        for name, weight in state.items():  # state_dict shares the memory of the parameters
            weight += offsets[name].to(weight)


def load_relighter(base: Path, offsets: Path, device: str) -> Parts:
    """A Stable Diffusion 1.5 model in diffusers' layout with IC-Light's offsets merged in; the sums are taken in full precision."""
    from safetensors.torch import load_file

    unet = load_unet(base)
    merge_offsets(unet, load_file(offsets))
    return load_parts(base, device, unet)


class IcLight:
    """Puts the person, or a scene without anybody, into another light, described in words or shown by a picture.

    Of frames with a person the scene stays as it is: it is relit once for the whole clip, from a picture of it alone.

    Args:
        text: the light, such as "sunset from the left"; may be empty if there is a picture.
        picture: its light, much blurred, is what the walk starts from, in place of a gradient.
        device: "cpu" or "cuda".
        size: side in pixels at which it edits; the model was trained near 512.
        steps: UNet steps per edit.
        chunk: frames edited at a time; each takes two rows of the UNet's batch.
        guidance: how closely the light is followed; None for 2, as published.

    Raises:
        InputError: if the weights are not here, the text holds no words, or the picture cannot be read.
    """

    name = "IC-Light"
    reads_render = True
    face_aware = False

    def __init__(
        self,
        text: str,
        picture: Path | None,
        device: str,
        *,
        size: int = 512,
        steps: int = 25,
        chunk: int = 4,
        guidance: float | None = None,
    ) -> None:
        text = clean_prompt(text) if text.strip() or picture is None else ""
        self.light = None if picture is None else read_picture(picture)[None]
        self.lamps = read_lamps(text) if picture is None else ()
        self.base = required("realistic-vision", self.name)
        self.offsets = required("ic-light", self.name) / OFFSETS
        person, scene = (", ".join(part for part in (what, text, QUALITY) if part) for what in (PERSON, SCENE))
        contexts, read = read_prompts(self.base, [person, NEGATIVE, scene, NOBODY])
        self.person, self.scene = contexts.split(2)
        self.edits_background = names_surroundings(text.lower())
        said = [say_understood(text, read[0])] if text else []
        said += ["the light of the picture"] if picture else []
        said += [say_lamps(self.lamps)] if self.lamps else []
        said += ["the surroundings too"] if self.edits_background else []
        self.understood = ", ".join(said)
        self.device, self.size, self.steps, self.chunk = device, size, steps, chunk
        self.guidance = 2.0 if guidance is None else guidance

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the relit frames, [B, 3, H, W] in [0, 1], on the batch's device; outside the person's matte they are the source.

        A batch in which there is nobody is of scenes: they are relit as a whole.

        The strength sets how far back the walk starts (0.5 to 0.9 of the schedule) and how much of the gradient it starts from. The seed's
        noise lies on the body, and a frame's edit does not depend on the frames beside it.
        """
        if batch.strength == 0:
            return batch.source
        nobody = not bool((batch.alpha > 1e-3).any())
        if nobody:
            batch = replace(batch, alpha=torch.ones_like(batch.alpha))
        contexts = self.scene if nobody else self.person
        key = (self.name, self.base, self.offsets, self.device)
        with resident(key, lambda: load_relighter(self.base, self.offsets, self.device)) as parts:
            relit = torch.cat([self._edit(parts, some, contexts) for some in batch.split(self.chunk)])
        return torch.lerp(batch.source, relit, batch.alpha)

    def _edit(self, parts: Parts, batch: EditBatch, contexts: Tensor) -> Tensor:
        source, strength = batch.source, batch.strength
        size = inside_size(source, self.size)
        grey = GREY / 255
        # 127 for the middle, not 127.5: grey has to become exactly what the model was taught to see as nothing.
        foreground = resize(torch.lerp(torch.full_like(source, grey), source, batch.alpha), size) / grey - 1
        kept = parts.encode(foreground) * parts.scale
        begin = resize(self._start_picture(batch.rendered, strength), size)
        start = parts.encode(begin * 2 - 1) * parts.scale
        noise = anchored_noise(batch.uv, (start.shape[2], start.shape[3]), batch.seed)
        latents = denoise(
            parts.predict,
            ALPHAS,
            timesteps_from(0.5 + 0.4 * strength, self.steps),
            start,
            noise.to(start),
            torch.stack([kept, kept]),
            contexts.to(start),
            (self.guidance, 1 - self.guidance),
        )
        return resize(parts.decode(latents / parts.scale), list(source.shape[-2:])).to(source)

    def _start_picture(self, rendered: Tensor, strength: float) -> Tensor:
        """What the walk starts from: the render, with bright and dark put over it where the light is wanted."""
        height, width = rendered.shape[-2:]
        if self.light is not None:
            light = blur(cover(self.light, height, width), max(height, width) / 16)
        elif self.lamps:
            light = light_map(self.lamps, height, width)
        else:
            return rendered
        return torch.lerp(rendered, light.to(rendered).expand_as(rendered), GRADIENT * strength)


def cover(picture: Tensor, height: int, width: int) -> Tensor:
    """The middle of a picture [1, 3, h, w], as much as fills height and width."""
    scale = max(height / picture.shape[2], width / picture.shape[3])
    size = [max(goal, round(side * scale)) for goal, side in zip((height, width), picture.shape[2:], strict=True)]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return resize(picture, size)[:, :, top : top + height, left : left + width]
