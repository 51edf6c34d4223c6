"""The network of FASHN VTON 1.5 and its sampler: a rectified flow in pixel space from noise to the person in the new garment.

Two streams of patches, the person's and the garment's, meet in joint attention; then one stream of both. The modules are written
for this package and bear the names of the published checkpoint (fashn-ai/fashn-vton-1.5, Apache-2.0), which they load as it is.
Blocks after FLUX.1 (Black Forest Labs), patch mixer after Sehwag et al., "Stretching Each Dollar", CVPR 2025.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..streaming import breathe

NOTHING, TOPS = 0, 1  # garment categories; 2 and 3 are bottoms and one-pieces
FREQUENCIES = 128  # pairs in the time's embedding
TIME_SHIFT = 4.4816890703  # e to the 1.5: small steps where the picture is still noise


@dataclass(frozen=True)
class Size:
    """What the checkpoint fixes; the defaults are the published one's."""

    height: int = 864
    width: int = 576
    patch: int = 12
    features: int = 1280
    heads: int = 10
    mixers: int = 4
    doubles: int = 8
    singles: int = 16
    axes: tuple[int, int, int] = (16, 56, 56)  # rotary features of a head: unused, row, column


class _Norm(nn.Module):
    """Root mean square norm over the last dimension."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), x.shape[-1:], eps=1e-6).to(x.dtype) * self.scale


class _PairNorm(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm = _Norm(features), _Norm(features)


class _Modulation(nn.Module):
    """Triples (shift, scale, gate), each ``[B, 1, F]``, from the condition."""

    def __init__(self, features: int, triples: int) -> None:
        super().__init__()
        self.lin = nn.Linear(features, 3 * triples * features)
        self.parts = 3 * triples

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.lin(functional.silu(condition))[:, None].chunk(self.parts, dim=-1)


class _Attention(nn.Module):
    """Projections into and out of attention; the attention itself is `_attend`."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(features, 3 * features)
        self.norm = _PairNorm(features // heads)
        self.proj = nn.Linear(features, features)


class _Embedder(nn.Module):
    def __init__(self, given: int, features: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(given, features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_layer(functional.silu(self.in_layer(x)))
        return out


class _Time(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.mlp = _Embedder(2 * FREQUENCIES, features)

    def forward(self, time: Tensor) -> Tensor:
        """Embed times ``[B]`` in 0..1. In full precision: rounded to bfloat16, 1000 t would be off by two."""
        rates = torch.exp(-torch.arange(FREQUENCIES, device=time.device) * (9.210340371976184 / FREQUENCIES))
        angles = 1000 * time.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: Tensor = self.mlp(waves.to(self.mlp.in_layer.weight.dtype))
        return embedded


class _Patches(nn.Module):
    def __init__(self, channels: int, features: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, features, patch, stride=patch)

    def forward(self, picture: Tensor) -> Tensor:
        tokens: Tensor = self.proj(picture)
        return tokens.flatten(2).transpose(1, 2)


def _split(qkv: Tensor, norm: _PairNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``[B, heads, L, D]`` from ``[B, L, 3 F]``."""
    size = norm.query_norm.scale.numel()
    query, key, value = qkv.unflatten(-1, (3, -1, size)).permute(2, 0, 3, 1, 4)
    return norm.query_norm(query), norm.key_norm(key), value


def _attend(query: Tensor, key: Tensor, value: Tensor, turns: Tensor) -> Tensor:
    """Attention ``[B, L, F]`` with queries and keys turned by their places, ``turns [L, D / 2]`` complex."""

    def turned(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns).flatten(-2).to(value.dtype)

    return functional.scaled_dot_product_attention(turned(query), turned(key), value).transpose(1, 2).flatten(2)


def _normal(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _mlp(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 4 * features), nn.GELU("tanh"), nn.Linear(4 * features, features))


class _Single(nn.Module):
    """Attention and perceptron side by side over one stream."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(features, 7 * features)
        self.linear2 = nn.Linear(5 * features, features)
        self.norm = _PairNorm(features // heads)
        self.modulation = _Modulation(features, 1)

    def forward(self, x: Tensor, condition: Tensor, turns: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition)
        features = x.shape[-1]
        qkv, hidden = self.linear1(_normal(x) * (1 + scale) + shift).split([3 * features, 4 * features], dim=-1)
        attended = _attend(*_split(qkv, self.norm), turns)
        return x + gate * self.linear2(torch.cat([attended, functional.gelu(hidden, approximate="tanh")], dim=-1))


class _Double(nn.Module):
    """Two streams with weights of their own and one attention; "img" is the person's, "txt" the garment's."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = _Modulation(features, 2), _Modulation(features, 2)
        self.img_attn, self.txt_attn = _Attention(features, heads), _Attention(features, heads)
        self.img_mlp, self.txt_mlp = _mlp(features), _mlp(features)

    def forward(self, person: Tensor, garment: Tensor, condition: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        streams = (
            (garment, self.txt_mod(condition), self.txt_attn, self.txt_mlp),
            (person, self.img_mod(condition), self.img_attn, self.img_mlp),
        )
        entering = [_split(a.qkv(_normal(x) * (1 + m[1]) + m[0]), a.norm) for x, m, a, _ in streams]
        query, key, value = (torch.cat(parts, dim=2) for parts in zip(*entering, strict=True))
        attended = _attend(query, key, value, turns).split([garment.shape[1], person.shape[1]], dim=1)
        leaving = []
        for (x, m, attention, mlp), found in zip(streams, attended, strict=True):
            x = x + m[2] * attention.proj(found)
            leaving.append(x + m[5] * mlp(_normal(x) * (1 + m[4]) + m[3]))
        return leaving[1], leaving[0]


class _Last(nn.Module):
    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(features, 2 * features))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(_normal(x) * (1 + scale) + shift)
        return out


class TryOnTransformer(nn.Module):
    """Predicts the velocity, picture minus noise, of the dressed person at a time of the flow."""

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        features, heads = size.features, size.heads
        self.register_buffer("patch_mixer_token", torch.zeros(1, 1, 3 * size.patch**2))  # stored, read in training only
        self.t_embedder = _Time(features)
        self.y_embedder = nn.Embedding(4, features)
        self.x_embedder = _Patches(7, features, size.patch)
        self.garment_embedder = _Patches(4, features, size.patch)
        self.x_patch_mixer = nn.ModuleList(_Single(features, heads) for _ in range(size.mixers))
        self.double_blocks = nn.ModuleList(_Double(features, heads) for _ in range(size.doubles))
        self.single_blocks = nn.ModuleList(_Single(features, heads) for _ in range(size.singles))
        self.final_layer = _Last(features, 3 * size.patch**2)

    def forward(
        self,
        noisy: Tensor,  # [B, 3, height, width]
        time: Tensor,  # [B] in 0..1, 0 is noise
        person: Tensor,  # [B, 3, height, width] in -1..1
        person_pose: Tensor,  # [B, 1, height, width] in -1..1
        garment: Tensor,  # [B, 3, height, width] in -1..1
        garment_pose: Tensor,  # [B, 1, height, width] in -1..1
        category: Tensor,  # [B] long
    ) -> Tensor:
        """Velocity ``[B, 3, height, width]``."""
        dtype = self.x_embedder.proj.weight.dtype
        people = self.x_embedder(torch.cat([noisy, person, person_pose], dim=1).to(dtype))
        garments = self.garment_embedder(torch.cat([garment, garment_pose], dim=1).to(dtype))
        condition = self.t_embedder(time) + self.y_embedder(category)
        turns = self._turns(noisy.device)
        for block in self.x_patch_mixer:
            people = block(people, condition, turns)
        turns = torch.cat([turns, turns])
        for block in self.double_blocks:
            people, garments = block(people, garments, condition, turns)
        both = torch.cat([garments, people], dim=1)
        for block in self.single_blocks:
            both = block(both, condition, turns)
        out = self.final_layer(both[:, garments.shape[1] :], condition).transpose(1, 2)
        rows = self.size.height // self.size.patch
        return functional.pixel_shuffle(out.unflatten(2, (rows, -1)), self.size.patch).to(noisy.dtype)

    def _turns(self, device: torch.device) -> Tensor:
        """Unit complex numbers ``[patches, D / 2]`` by which queries and keys of a patch are turned."""
        rows, columns = self.size.height // self.size.patch, self.size.width // self.size.patch
        places = torch.cartesian_prod(torch.arange(1.0), torch.arange(float(rows)), torch.arange(float(columns)))
        angles = [
            place[:, None].double() * 10000.0 ** (-torch.arange(0, count, 2).double() / count)
            for place, count in zip(places.unbind(1), self.size.axes, strict=True)
        ]
        turn = torch.cat(angles, dim=1)
        return torch.complex(turn.cos().float(), turn.sin().float()).to(device)


def load_transformer(file: Path, device: str, size: Size | None = None) -> TryOnTransformer:
    """Load the checkpoint: bfloat16 on CUDA, full precision elsewhere. Every key and shape must match."""
    from safetensors.torch import load_file

    where = torch.device(device)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    with torch.device("meta"):
        model = TryOnTransformer(size)
    model.load_state_dict({name: value.to(where, dtype) for name, value in load_file(file).items()}, assign=True)
    return model.eval().requires_grad_(False)


def flow_times(steps: int) -> list[float]:
    """Times 0 to 1 of a walk of so many steps."""
    even = [step / steps for step in range(steps + 1)]
    return [time / (time + TIME_SHIFT * (1 - time)) for time in even]


def sample(
    model: TryOnTransformer,
    conditions: Sequence[Tensor],  # person, person_pose, garment, garment_pose as the model takes them
    noise: Tensor,  # [B, 3, height, width] standard normal
    steps: int,
    guidance: float,
    category: int = TOPS,
) -> Tensor:
    """Follow the flow from noise to the dressed person, ``[B, 3, height, width]`` in -1..1.

    Guidance is between all conditions and none (grey pictures, no category). The last step goes without: it would saturate colours.
    """
    unconditional = [torch.zeros_like(one) for one in conditions]
    times = flow_times(steps)
    state = noise
    for step, (now, then) in enumerate(itertools.pairwise(times)):
        breathe()
        time = noise.new_full((len(noise),), now)
        label = torch.full((len(noise),), category, device=noise.device)
        velocity = model(state, time, *conditions, label)
        if step < steps - 1:
            free = model(state, time, *unconditional, label.fill_(NOTHING))
            velocity = free + guidance * (velocity - free)
        state = state + (then - now) * velocity
    return state.clamp(-1, 1)
