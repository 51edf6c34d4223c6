"""Full-size models on the meta device, and what is publicly known about the files that hold their weights.

``python tests/key_layouts.py`` writes the lists of keys and shapes to ``tests/layouts`` anew, after a look at the difference.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portraitgen.editors.fashn_model import Size, TryOnTransformer
from portraitgen.editors.ic_light import merge_offsets

FOLDER = Path(__file__).parent / "layouts"
Layout = dict[str, list[int]]
BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}

# Values of the repositories' config.json; those left out are the classes' defaults.
UNET: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8, "layers_per_block": 2}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
CLIP: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
FLUX: dict[str, Any] = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 7680,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "rope_theta": 2000,
    "guidance_embeds": False,
}
QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}


def _unet(in_channels: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(in_channels=in_channels, **UNET)


def _relighter() -> Any:
    """IC-Light's UNet as the engine makes it: a four-channel one, widened, plus offsets of every key."""
    unet = _unet(4)
    merge_offsets(unet, _unet(8).state_dict())
    return unet


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)


def _clip() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**CLIP))


def _flux() -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(**FLUX)


def _flux_vae() -> Any:
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2()


def _qwen() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**QWEN))


def _fashn() -> Any:
    return TryOnTransformer(Size())


def _vgg(name: str) -> Any:
    import timm

    return timm.create_model(name)


@dataclass(frozen=True)
class Model:
    """A model and its file on the Hub.

    Attributes:
        build: makes it; called on the meta device.
        dtype: of the floating-point tensors in the file.
        tensors: in the file.
        parameters: scalars in the file, integers included.
        bytes: size of the file, of its shards where there are several; None where it is only known rounded.
        about: the same, in GB, as the Hub shows it.
        marked: whether the file says that PyTorch wrote it.
        prefix: what stands before the keys in the file.
        tied: keys that the file leaves out, because they share another's memory.
        shard: most bytes of weights in one shard.
    """

    build: Callable[[], Any]
    dtype: str
    tensors: int
    parameters: int
    bytes: tuple[int, ...] | None
    about: float
    marked: bool = True
    prefix: str = ""
    tied: tuple[str, ...] = ()
    shard: int | None = None


MODELS = {
    "instruct-pix2pix-unet": Model(lambda: _unet(8), "F16", 686, 859_532_484, None, 1.72),
    "stable-diffusion-unet": Model(lambda: _unet(4), "F16", 686, 859_520_964, (1_719_125_304,), 1.72),
    "stable-diffusion-vae": Model(_vae, "F16", 248, 83_653_863, (167_335_342,), 0.167),
    "stable-diffusion-text-encoder": Model(_clip, "F16", 196, 123_060_480, (246_144_152,), 0.246, prefix="text_model."),
    "ic-light": Model(_relighter, "F16", 686, 859_532_484, (1_719_148_312,), 1.72, marked=False),
    "flux2-klein-transformer": Model(_flux, "BF16", 169, 3_875_544_576, (7_751_109_744,), 7.75),
    "flux2-klein-vae": Model(_flux_vae, "BF16", 251, 84_046_372, (168_120_878,), 0.168),
    "flux2-klein-text-encoder": Model(
        _qwen,
        "BF16",
        398,
        4_022_468_096,
        (4_967_215_360, 3_077_766_632),
        8.04,
        tied=("lm_head.weight",),
        shard=5_000_000_000,
    ),
    "fashn-vton": Model(_fashn, "BF16", 366, 971_814_240, (1_943_668_048,), 1.94, marked=False),
    "vgg16": Model(lambda: _vgg("vgg16"), "F32", 32, 138_357_544, None, 0.553),
    "vgg19": Model(lambda: _vgg("vgg19"), "F32", 38, 143_667_240, None, 0.575),
}


def layout_of(model: Model) -> tuple[Layout, set[str]]:
    """Keys and shapes as the file has them, in the model's order, and the keys of whole numbers."""
    with torch.device("meta"):
        state = model.build().state_dict()
    kept = {model.prefix + name: value for name, value in state.items() if name not in model.tied}
    whole = {name for name, value in kept.items() if not value.is_floating_point()}
    return {name: list(value.shape) for name, value in kept.items()}, whole


def stored(name: str) -> Layout:
    """The list in ``tests/layouts``."""
    layout: Layout = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return layout


def file_sizes(layout: Layout, whole: set[str], model: Model) -> list[int]:
    """Bytes of the safetensors files that hold exactly these tensors: their header names every key, shape and offset."""
    shards: list[dict[str, tuple[str, list[int], int]]] = [{}]
    filled = 0
    for name, shape in layout.items():
        dtype = "I64" if name in whole else model.dtype
        size = BYTES[dtype] * math.prod(shape)
        if model.shard is not None and filled + size > model.shard:
            shards.append({})
            filled = 0
        shards[-1][name] = dtype, shape, size
        filled += size
    sizes = []
    for shard in shards:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if model.marked else {}
        end = 0
        for name in sorted(shard, key=lambda name: (-BYTES[shard[name][0]], name)):
            dtype, shape, size = shard[name]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = len(json.dumps(header, separators=(",", ":")))
        sizes.append(8 + math.ceil(text / 8) * 8 + end)
    return sizes


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for title, described in MODELS.items():
        text = json.dumps(layout_of(described)[0], separators=(",", ":"))
        (FOLDER / f"{title}.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
