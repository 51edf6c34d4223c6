"""Tiny, randomly initialised models of the real classes, in the layout and with the key names of the real repositories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from pose_network import write_pose_network
from safetensors.torch import load_file, save_file

from portraitgen import smirk
from portraitgen.editors.fashn_model import Size, TryOnTransformer
from portraitgen.editors.gatys import convolutions
from portraitgen.editors.ic_light import OFFSETS

CHAT = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
TINY = Size(height=96, width=72, features=64, heads=2, mixers=1, doubles=2, singles=2, axes=(8, 12, 12))


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


def write_qwen_tokenizer(folder: Path) -> None:
    """A Qwen tokenizer of single bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir(parents=True)
    tokens = [*bytes_to_unicode().values(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": None}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 512}
    (folder / "chat_template.jinja").write_text(CHAT)
    (folder / "added_tokens.json").write_text(json.dumps({token: 256 + n for n, token in enumerate(tokens[256:])}))
    (folder / "special_tokens_map.json").write_text(json.dumps({key: value for key, value in special.items() if value}))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **special}))


def write_flux(folder: Path) -> None:
    """The layout of black-forest-labs/FLUX.2-klein-4B."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    write_qwen_tokenizer(folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, time_shift_type="exponential"
    ).save_pretrained(folder / "scheduler")
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=32,
        guidance_embeds=False,
    )
    for parameter in transformer.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)  # so that inputs come through
    transformer.save_pretrained(folder / "transformer")
    vae = AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    vae.save_pretrained(folder / "vae")
    config = Qwen3Config(
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_hidden_layers=28,
        vocab_size=259,
        tie_word_embeddings=True,
    )
    encoder = Qwen3ForCausalLM(config)
    size = sum(parameter.nbytes for parameter in encoder.parameters())
    encoder.save_pretrained(folder / "text_encoder", max_shard_size=round(0.6 * size))  # two files, as there


def vgg19_tensors() -> dict[str, torch.Tensor]:
    """Every tensor of timm's vgg19.tv_in1k that is read, and a little of what is not."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"head.fc.weight": torch.zeros(10, 8), "pre_logits.fc1.bias": torch.zeros(8)}
    for index, before, after in convolutions():
        deviation = (2 / (9 * before)) ** 0.5
        tensors[f"features.{index}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * deviation
        tensors[f"features.{index}.bias"] = 0.05 * torch.randn(after, generator=generator)
    return tensors


def write_vgg19(folder: Path) -> None:
    """timm/vgg19.tv_in1k."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(vgg19_tensors(), folder / "model.safetensors")


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that any implementation can be given: waves that depend on a key's place in the alphabet alone."""
    out = {}
    for number, name in enumerate(sorted(state)):
        shape = state[name].shape
        wave = torch.sin(0.37 * torch.arange(state[name].numel(), dtype=torch.float64) + number).float().view(shape)
        spread = 0.2 if len(shape) == 1 else shape[1:].numel() ** -0.5
        out[name] = 1 + 0.2 * wave if name.endswith("scale") else spread * wave
    return out


def write_try_on(folder: Path) -> None:
    """fashn-ai/fashn-vton-1.5 of the size `TINY`, and fashn-ai/DWPose, whose network misses the right wrist and a point of the face."""
    (folder / "fashn-vton").mkdir(parents=True)
    (folder / "dwpose").mkdir()
    save_file(filled(TryOnTransformer(TINY).state_dict()), folder / "fashn-vton" / "model.safetensors")
    gains = np.ones(133)
    gains[[10, 30]] = 0
    write_pose_network(folder / "dwpose" / "dw-ll_ucoco_384.onnx", gains)


def write_smirk(path: Path, change: str = "") -> dict[str, torch.Tensor]:
    """A file of the published layout with random weights: three encoders, of which one is wanted, and the generator."""
    import timm

    torch.manual_seed(0)
    trunk = timm.create_model(smirk.BACKBONE, pretrained=False, features_only=True).state_dict()
    prefix = "smirk_encoder.expression_encoder."
    stored = {f"{prefix}encoder.{name}": value for name, value in trunk.items()}
    stored[f"{prefix}expression_layers.0.weight"] = 0.05 * torch.randn(55, 960)
    stored[f"{prefix}expression_layers.0.bias"] = 0.1 * torch.ones(55)
    stored["smirk_encoder.shape_encoder.shape_layers.0.bias"] = torch.zeros(300)
    stored["smirk_generator.input.weight"] = torch.zeros(1)
    if change == "shape":
        stored[f"{prefix}expression_layers.0.weight"] = torch.zeros(105, 960)
    if change == "missing":
        del stored[f"{prefix}encoder.conv_stem.weight"]
    torch.save(stored, path)
    return stored


def write_all(folder: Path) -> None:
    """The weights of every engine, tiny, each in the folder of its name."""
    write_stable_diffusion(folder / "instruct-pix2pix")
    write_stable_diffusion(folder / "realistic-vision", in_channels=4, variant=None)
    write_offsets(folder / "realistic-vision", folder / "ic-light" / OFFSETS)
    write_flux(folder / "flux2-klein")
    write_vgg19(folder / "vgg19")
    write_try_on(folder)
