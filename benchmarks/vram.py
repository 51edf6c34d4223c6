"""How much GPU memory each engine from the Hub takes: full-size models with random weights, at the sizes and batches that the engines use,
for frames of 512 and of 768 pixels, the largest that a clip is worked on at; and what lies on the card beside it during an edit.

    python benchmarks/vram.py

With a CUDA device the models run on it, and the peak is what the allocator counted; the times are real too, as weights do not change
them. Without one the same calls run on the meta device, and the peak is what all tensors that are alive at once would take. Kernels'
workspaces and the CUDA context, which only a device can tell, are then put at `OVERHEAD`. Fused attention counts as its output.
"""

from __future__ import annotations

import contextlib
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from _report import ROOT, report
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

from key_layouts import MODELS

from portraitgen.crop import LARGEST_SIZE
from portraitgen.editing import PRESETS
from portraitgen.editors import EditBatch, fashn_model, flux, gatys
from portraitgen.editors.latent_diffusion import ALPHAS, Parts, denoise, inside_size, resize, timesteps_from
from portraitgen.regions import REGIONS

OVERHEAD = 1.0e9  # bytes: CUDA context and kernels 0.5, convolution workspaces 0.5
ROOM = 12e9  # bytes of the smallest card
SIDES = (512, LARGEST_SIZE)
GAUSSIANS = 200_000  # of an avatar, several times what examples have


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at once."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.known = {weight.untyped_storage()._cdata for weight in weights}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def _attended(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


@dataclass(frozen=True)
class Stage:
    """One thing that an engine does while nothing else of it lies on the card.

    Attributes:
        engine: its name.
        what: what it does.
        side: of the frames in pixels.
        frames: at a time.
        build: makes the models on the device; their weights are counted.
        call: uses them on a batch of frames.
        small: whether this is what it does on cards of 12 GB; if not, the others alone do it.
    """

    engine: str
    what: str
    side: int
    frames: int
    build: Callable[[], list[Any]]
    call: Callable[[list[Any], Tensor], Any]
    small: bool = True


def made(name: str, dtype: torch.dtype) -> Any:
    """A full-size model with random weights on the current device."""
    return MODELS[name].build().to(dtype).eval().requires_grad_(False)


def stable_diffusion(unet: str) -> Callable[[], list[Any]]:
    def build() -> list[Any]:
        vae = made("stable-diffusion-vae", torch.float16)
        vae.enable_slicing()
        return [made(unet, torch.float16), vae]

    return build


def latent_edit(branches: int, steps: int) -> Callable[[list[Any], Tensor], Any]:
    def call(models: list[Any], frames: Tensor) -> Any:
        parts = Parts(*models)
        kept = parts.encode(resize(frames, inside_size(frames, 512)))
        contexts = torch.empty(branches, 77, 768, device=frames.device, dtype=torch.float16).fill_(0.1)
        guidance = (2.0, *(-1 / (branches - 1),) * (branches - 1))
        walk = timesteps_from(0.8, steps if frames.is_cuda else 1)
        conditions = torch.stack([kept] * branches)
        edited = parts.decode(denoise(parts.predict, ALPHAS, walk, kept, kept, conditions, contexts, guidance))
        return resize(edited, list(frames.shape[-2:]))

    return call


def flux_parts() -> list[Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    schedule = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    return [made("flux2-klein-transformer", torch.bfloat16), made("flux2-klein-vae", torch.float32), schedule]


def flux_edit(models: list[Any], frames: Tensor) -> Any:
    parts = flux.Parts(*models)
    if len(frames) == 1:  # as on a small card
        frames = resize(frames, [512, 512])
    kept = parts.encode(frames)
    context = torch.empty(1, 512, 7680, device=frames.device, dtype=torch.bfloat16).fill_(0.1)
    return parts.decode(flux.walk(parts, kept, kept, kept, context, 0.8, 4 if frames.is_cuda else 1))


def flux_prompt(models: list[Any], frames: Tensor) -> Any:
    tokens = torch.ones(1, 512, device=frames.device, dtype=torch.long)
    mask = torch.zeros(1, 1, 512, 512, device=frames.device, dtype=torch.bfloat16)
    return models[0](input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)


def try_on(models: list[Any], frames: Tensor) -> Any:
    size, device = models[0].size, frames.device

    def picture(channels: int) -> Tensor:
        shape = (len(frames), channels, size.height, size.width)
        return torch.empty(shape, device=device, dtype=torch.bfloat16).fill_(0.1)

    conditions = [picture(3), picture(1), picture(3), picture(1)]
    return fashn_model.sample(models[0], conditions, picture(3), 20 if device.type == "cuda" else 2, 1.5)


def style_network() -> list[Any]:
    tensors = {}
    for index, before, after in gatys.convolutions():
        tensors[f"features.{index}.weight"] = torch.full((after, before, 3, 3), 1e-3)
        tensors[f"features.{index}.bias"] = torch.zeros(after)
    return [gatys.VGG19(tensors, tensors["features.0.bias"].device)]


@torch.enable_grad()
def paint(models: list[Any], frames: Tensor) -> Any:
    """The engine's step: features and Gram matrices of the frames, and the way back to their pixels."""
    network = models[0]
    painted = frames.clone().requires_grad_()
    with torch.no_grad():
        content = network(painted)[gatys.CONTENT_LAYER]
    for _ in range(120 if frames.is_cuda else 2):
        features = network(painted)
        apart = torch.stack([gatys.gram(features[layer]).square().mean() for layer in gatys.STYLE_LAYERS]).sum()
        loss = apart + (features[gatys.CONTENT_LAYER] - content).square().mean()
        (gradient,) = torch.autograd.grad(loss, [painted])
        painted = (painted - gradient).detach().requires_grad_()
    return painted


STABLE_DIFFUSION = stable_diffusion("instruct-pix2pix-unet")
STAGES = (
    Stage("flux2-klein", "prompt", 0, 0, lambda: [made("flux2-klein-text-encoder", torch.bfloat16)], flux_prompt),
    *(
        stage
        for side in SIDES
        for stage in (
            Stage("instruct-pix2pix", "edit", side, 4, STABLE_DIFFUSION, latent_edit(3, 10)),
            Stage("ic-light", "edit", side, 4, STABLE_DIFFUSION, latent_edit(2, 25)),
            Stage("flux2-klein", "edit on a small card", side, 1, flux_parts, flux_edit),
            Stage("flux2-klein", "edit", side, 4, flux_parts, flux_edit, small=False),
            Stage("gatys", "edit", side, 4, style_network, paint),
            Stage("fashn-vton", "edit", side, 2, lambda: [made("fashn-vton", torch.bfloat16)], try_on),
        )
    ),
)


def beside(preset: str, side: int) -> int:
    """Bytes of what lies on the card while an engine edits key frames of ``side`` pixels: all key frames with what the body knows of them,
    the batch and its crops of heads, the avatar, and the perceptual loss. Made on the meta device."""
    from torchvision.models import vgg16

    config = PRESETS[preset]

    def made_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def size(tensors: Iterable[Any]) -> int:
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))

    each = (config.key_frames, side, side)
    body = [made_of(*each, dtype=torch.int32), made_of(*each, 3), made_of(*each)]
    keys = [made_of(*each, 3, dtype=torch.uint8), made_of(*each, dtype=torch.uint8)]
    edited = made_of(*each, 3)
    batch = EditBatch.of_background(made_of(config.batch, 3, side, side))
    regions = len(REGIONS) * batch.alpha.nbytes
    with torch.device("meta"):
        trunk = vgg16().features
    avatar = GAUSSIANS * (32 + 11) * 4
    return size([*body, *keys, edited, *trunk.parameters()]) + 2 * (size(vars(batch).values()) + regions) + avatar


def bytes_of(models: list[Any]) -> dict[int, Tensor]:
    """The tensors of the models, by the address of their memory."""
    modules = [model for model in models if isinstance(model, torch.nn.Module)]
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    networks = [model for model in models if isinstance(model, gatys.VGG19)]
    tensors += [tensor for network in networks for layer in network.layers.values() for tensor in layer]
    return {tensor.untyped_storage()._cdata: tensor for tensor in tensors}


@contextlib.contextmanager
def counting(device: torch.device, weights: list[Tensor]) -> Iterator[dict[str, float]]:
    """Peak memory beyond the weights, in bytes, and seconds, of what the block does."""
    found: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        yield found
        torch.cuda.synchronize()
        found |= {"peak": torch.cuda.max_memory_reserved() - before, "seconds": time.perf_counter() - start}
    else:
        with mock.patch("torch.nn.functional.scaled_dot_product_attention", _attended), Living(*weights) as living:
            yield found
        found |= {"peak": living.peak + OVERHEAD}


@torch.no_grad()
def measure(stage: Stage, device: torch.device) -> dict[str, Any]:
    with device:
        models = stage.build()
    dtype = torch.float16 if stage.build is STABLE_DIFFUSION else torch.float32
    frames = torch.full(
        (max(1, stage.frames), 3, max(64, stage.side), max(64, stage.side)), 0.1, dtype=dtype, device=device
    )
    weights = bytes_of(models)
    held = sum(tensor.untyped_storage().nbytes() for tensor in weights.values())
    if device.type == "cuda":
        stage.call(models, frames)  # kernels are chosen and compiled in the first call
    with counting(device, list(weights.values())) as found:
        stage.call(models, frames)
    besides = max(beside(preset, stage.side) for preset in PRESETS) if stage.side else 0
    total = held + found["peak"] + besides
    row = {
        "engine": stage.engine,
        "stage": stage.what,
        "side": stage.side,
        "frames": stage.frames,
        "weights_gb": held / 1e9,
        "rest_gb": found["peak"] / 1e9,
        "beside_gb": besides / 1e9,
        "total_gb": total / 1e9,
        "fits_12_gb": total < ROOM,
        "on_12_gb": stage.small,
        "seconds": round(found["seconds"], 3) if "seconds" in found else None,
    }
    del models
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    rows = [measure(stage, device) for stage in STAGES]
    report("vram", rows, how="measured on the GPU" if device.type == "cuda" else "computed on the meta device")


if __name__ == "__main__":
    main()
