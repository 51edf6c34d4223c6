"""Smoothing over time as part of a least-squares problem: the bending energy of every unknown's path, without lag."""

from __future__ import annotations

import torch
from torch import Tensor


def bending(values: Tensor) -> Tensor:
    """The gradient of half the summed squared second differences over time: [T, N] -> [T, N]."""
    out = torch.zeros_like(values)
    if len(values) > 2:
        second = values[:-2] - 2 * values[1:-1] + values[2:]
        out[:-2] += second
        out[1:-1] -= 2 * second
        out[2:] += second
    return out


def solve_smooth(blocks: Tensor, smoothness: Tensor, right: Tensor) -> Tensor:
    """Solve (block-diagonal + bending energy) x = right over time by block Cholesky of the banded matrix.

    blocks: [T, N, N] symmetric positive definite; smoothness: [N] weight of each unknown's bending; right: [T, N].
    """
    count, size = right.shape
    if count < 3:
        return torch.linalg.solve(blocks, right[..., None])[..., 0]
    band = bending(torch.eye(count, dtype=right.dtype))  # [T, T], pentadiagonal
    # Pairs of frames make the matrix block-tridiagonal; an odd last frame is padded with an idle one.
    pairs = (count + 1) // 2
    padded = torch.eye(size, dtype=right.dtype).expand(2 * pairs, -1, -1).clone()
    padded[:count] = blocks
    coupling = torch.zeros(2 * pairs, 2 * pairs, dtype=right.dtype)
    coupling[:count, :count] = band
    wanted = torch.zeros(2 * pairs, size, dtype=right.dtype)
    wanted[:count] = right
    wanted = wanted.reshape(pairs, 2 * size)
    factors: list[Tensor] = []
    lowers: list[Tensor] = []
    for pair in range(pairs):
        here = slice(2 * pair, 2 * pair + 2)
        matrix = torch.block_diag(*padded[here])
        matrix.view(2, size, 2, size).diagonal(dim1=1, dim2=3).add_(coupling[here, here, None] * smoothness)
        if pair:
            before = slice(2 * pair - 2, 2 * pair)
            link = torch.zeros_like(matrix)
            link.view(2, size, 2, size).diagonal(dim1=1, dim2=3).copy_(coupling[here, before, None] * smoothness)
            lower = torch.linalg.solve_triangular(factors[-1], link.T, upper=False).T
            lowers.append(lower)
            matrix = matrix - lower @ lower.T
            wanted[pair] -= lower @ wanted[pair - 1]
        factors.append(torch.linalg.cholesky(matrix))
        wanted[pair] = torch.linalg.solve_triangular(factors[-1], wanted[pair][:, None], upper=False)[:, 0]
    for pair in reversed(range(pairs)):
        if pair + 1 < pairs:
            wanted[pair] -= lowers[pair].T @ wanted[pair + 1]
        wanted[pair] = torch.linalg.solve_triangular(factors[pair].T, wanted[pair][:, None], upper=True)[:, 0]
    return wanted.reshape(-1, size)[:count]
