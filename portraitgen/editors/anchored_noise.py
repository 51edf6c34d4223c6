"""Noise for latent editors that moves with the person: the same place of the body gets the same noise in every frame.

Each cell of the latent grid averages the white noise of the texture below it and is scaled back to unit variance, which keeps noise
white and normal however the texture is stretched; after Chang et al., "How I Warped Your Noise", ICLR 2024, sampled here per pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

TEXELS = 1024  # along each side of the texture; in a portrait of 512 pixels a latent cell covers about 50 of them
CELL = 8  # samples along each side of a latent cell


def anchored_noise(uv: Tensor, size: tuple[int, int], seed: int, channels: int = 4, texels: int = TEXELS) -> Tensor:
    """Standard normal noise ``[B, channels, *size]``, independent between cells except for the few texels that lie across a border.

    A frame's noise depends on its own ``uv`` alone. Where the picture shows no mesh, noise stays on the screen.

    Args:
        uv: ``[B, 2, H, W]`` texture coordinates in [0, 1], NaN outside the mesh.
        size: rows and columns of the latents.
        seed: of the texture and of the screen.
        channels: of the latents.
        texels: along each side of the texture; more than a latent cell is wide.
    """
    rows, columns = size
    generator = torch.Generator().manual_seed(seed)
    texture = torch.randn((channels, texels * texels), generator=generator)
    screen = torch.randn((channels, rows * columns * CELL * CELL), generator=generator)
    values = torch.cat([texture, screen], dim=1)
    places = functional.interpolate(uv.detach().cpu().float(), (rows * CELL, columns * CELL), mode="nearest-exact")
    column, row = (places.nan_to_num() * texels).long().clamp(0, texels - 1).unbind(1)
    own = texels * texels + torch.arange(screen.shape[1]).view(rows * CELL, columns * CELL)
    drawn = torch.where(places.isnan().any(1), own, row * texels + column)  # [B, rows * CELL, columns * CELL]
    cells = drawn.view(-1, rows, CELL, columns, CELL).transpose(2, 3).flatten(3).flatten(1, 2)  # [B, cells, CELL ** 2]
    noise = torch.stack([values[:, cell].sum(2) for cell in cells])  # [B, channels, cells]
    # A texel that several samples hit weighs as often, so the variance of the sum is the sum of the squared counts.
    noise /= _squared_counts(cells).sqrt()[:, None]
    return noise.view(-1, channels, rows, columns).to(uv)


def _squared_counts(numbers: Tensor) -> Tensor:
    """Sum over the distinct numbers in each row [..., N] of how often they occur there, squared: [...]."""
    ordered = numbers.sort(-1).values
    position = torch.arange(numbers.shape[-1])
    starts = functional.pad(ordered[..., 1:] != ordered[..., :-1], (1, 0)) * position
    return (2 * (position - starts.cummax(-1).values) + 1).sum(-1)  # 1 + 3 + … + (2 n - 1) = n squared
