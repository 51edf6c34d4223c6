"""Tiny, randomly initialised models of the real classes, in the layout and with the key names of the real repositories."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


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


def write_stable_diffusion(folder: Path, in_channels: int = 8, variant: str | None = "fp16") -> None:
    """Tokenizer, text encoder, UNet and autoencoder of a Stable Diffusion 1.5 repository of 2023.

    Args:
        in_channels: of the UNet: 8 for timbrooks/instruct-pix2pix, 4 for a model that makes pictures from text.
        variant: "fp16" for half precision beside full, None for one file under the plain name.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(in_channels)
    write_tokenizer(folder / "tokenizer")
    UNet2DConditionModel(
        in_channels=in_channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    ).half().save_pretrained(folder / "unet", variant=variant)
    AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    ).half().save_pretrained(folder / "vae", variant=variant)
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
    CLIPTextModel(config).half().save_pretrained(folder / "text_encoder", variant=variant)

    middle = f".{variant}" if variant else ""
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    _rename(folder / "vae" / f"diffusion_pytorch_model{middle}.safetensors", old_names, "mid_block.attentions")
    text = folder / "text_encoder" / f"model{middle}.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    state = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()}
    save_file(state | positions, text, {"format": "pt"})


def _rename(file: Path, names: dict[str, str], where: str) -> None:
    state = {}
    for name, value in load_file(file).items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.") if where in name else name
        state[name] = value
    save_file(state, file, {"format": "pt"})


def write_offsets(base: Path, file: Path, scale: float = 0.01) -> dict[str, torch.Tensor]:
    """IC-Light's offsets for the UNet of a tiny four-channel model: every key of it, and eight input channels."""
    stored = load_file(next((base / "unet").glob("*.safetensors")))
    generator = torch.Generator().manual_seed(3)
    offsets = {}
    for name, value in stored.items():
        shape = (value.shape[0], 8, *value.shape[2:]) if name == "conv_in.weight" else value.shape
        offsets[name] = (torch.randn(shape, generator=generator) * scale).half()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(offsets, file)
    return offsets
