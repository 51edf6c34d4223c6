"""How much GPU memory each engine from the Hub takes: full-size models with random weights, at the sizes and batches that the engines use.

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
from collections.abc import Callable, Iterator
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

from portraitgen.editors import fashn_model, flux, gatys
from portraitgen.editors.latent_diffusion import ALPHAS, Parts, denoise, timesteps_from

OVERHEAD = 1.0e9  # bytes: CUDA context and kernels 0.5, convolution workspaces 0.5
ROOM = 12e9  # bytes of the smallest card
SIDE = 512


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
        frames: at a time.
        build: makes the models on the device; their weights are counted.
        call: uses them, given the device.
    """

    engine: str
    what: str
    frames: int
    build: Callable[[], list[Any]]
    call: Callable[[list[Any], torch.device], Any]


def made(name: str, dtype: torch.dtype) -> Any:
    """A full-size model with random weights on the current device."""
    return MODELS[name].build().to(dtype).eval().requires_grad_(False)


def stable_diffusion(unet: str) -> Callable[[], list[Any]]:
    def build() -> list[Any]:
        vae = made("stable-diffusion-vae", torch.float16)
        vae.enable_slicing()
        return [made(unet, torch.float16), vae]

    return build


def latent_edit(branches: int, steps: int) -> Callable[[list[Any], torch.device], Any]:
    def call(models: list[Any], device: torch.device) -> Any:
        parts = Parts(*models)
        frames = torch.empty(4, 3, SIDE, SIDE, device=device, dtype=torch.float16).fill_(0.1)
        kept = parts.encode(frames)
        contexts = torch.empty(branches, 77, 768, device=device, dtype=torch.float16).fill_(0.1)
        guidance = (2.0, *(-1 / (branches - 1),) * (branches - 1))
        walk = timesteps_from(0.8, steps if device.type == "cuda" else 1)
        conditions = torch.stack([kept] * branches)
        return parts.decode(denoise(parts.predict, ALPHAS, walk, kept, kept, conditions, contexts, guidance))

    return call


def flux_parts() -> list[Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    schedule = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    return [made("flux2-klein-transformer", torch.bfloat16), made("flux2-klein-vae", torch.float32), schedule]


def flux_edit(models: list[Any], device: torch.device) -> Any:
    parts = flux.Parts(*models)
    frames = torch.empty(4, 3, SIDE, SIDE, device=device).fill_(0.1)
    kept = parts.encode(frames)
    context = torch.empty(1, 512, 7680, device=device, dtype=torch.bfloat16).fill_(0.1)
    return parts.decode(flux.walk(parts, kept, kept, kept, context, 0.8, 4 if device.type == "cuda" else 1))


def flux_prompt(models: list[Any], device: torch.device) -> Any:
    tokens = torch.ones(1, 512, device=device, dtype=torch.long)
    mask = torch.zeros(1, 1, 512, 512, device=device, dtype=torch.bfloat16)
    return models[0](input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)


def try_on(models: list[Any], device: torch.device) -> Any:
    size = models[0].size

    def picture(channels: int) -> Tensor:
        return torch.empty(2, channels, size.height, size.width, device=device, dtype=torch.bfloat16).fill_(0.1)

    conditions = [picture(3), picture(1), picture(3), picture(1)]
    return fashn_model.sample(models[0], conditions, picture(3), 20 if device.type == "cuda" else 2, 1.5)


def style_network() -> list[Any]:
    tensors = {}
    for index, before, after in gatys.convolutions():
        tensors[f"features.{index}.weight"] = torch.full((after, before, 3, 3), 1e-3)
        tensors[f"features.{index}.bias"] = torch.zeros(after)
    return [gatys.VGG19(tensors, tensors["features.0.bias"].device)]


@torch.enable_grad()
def paint(models: list[Any], device: torch.device) -> Any:
    """The engine's step: features and Gram matrices of the frames, and the way back to their pixels."""
    network = models[0]
    painted = torch.full((4, 3, SIDE, SIDE), 0.1, device=device).requires_grad_()
    with torch.no_grad():
        content = network(painted)[gatys.CONTENT_LAYER]
    for _ in range(120 if device.type == "cuda" else 2):
        features = network(painted)
        apart = torch.stack([gatys.gram(features[layer]).square().mean() for layer in gatys.STYLE_LAYERS]).sum()
        loss = apart + (features[gatys.CONTENT_LAYER] - content).square().mean()
        (gradient,) = torch.autograd.grad(loss, [painted])
        painted = (painted - gradient).detach().requires_grad_()
    return painted


STAGES = (
    Stage("instruct-pix2pix", "edit", 4, stable_diffusion("instruct-pix2pix-unet"), latent_edit(3, 10)),
    Stage("ic-light", "edit", 4, stable_diffusion("instruct-pix2pix-unet"), latent_edit(2, 25)),
    Stage("flux2-klein", "prompt", 0, lambda: [made("flux2-klein-text-encoder", torch.bfloat16)], flux_prompt),
    Stage("flux2-klein", "edit", 4, flux_parts, flux_edit),
    Stage("gatys", "edit", 4, style_network, paint),
    Stage("fashn-vton", "edit", 2, lambda: [made("fashn-vton", torch.bfloat16)], try_on),
)


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
    weights = bytes_of(models)
    held = sum(tensor.untyped_storage().nbytes() for tensor in weights.values())
    if device.type == "cuda":
        stage.call(models, device)  # kernels are chosen and compiled in the first call
    with counting(device, list(weights.values())) as found:
        stage.call(models, device)
    total = held + found["peak"]
    row = {
        "engine": stage.engine,
        "stage": stage.what,
        "frames": stage.frames,
        "weights_gb": held / 1e9,
        "rest_gb": found["peak"] / 1e9,
        "total_gb": total / 1e9,
        "fits_12_gb": total < ROOM,
        "seconds": round(found["seconds"], 3) if "seconds" in found else None,
    }
    del models
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    rows = [measure(stage, device) for stage in STAGES]
    report(
        "vram", rows, side=SIDE, how="measured on the GPU" if device.type == "cuda" else "computed on the meta device"
    )


if __name__ == "__main__":
    main()
