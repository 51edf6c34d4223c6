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
    combs = torch.nn.functional.one_hot(torch.arange(count) % 5, 5).to(right.dtype)
    stencils = bending(combs)  # the matrix is pentadiagonal: five columns hold all of it

    def coupling(rows: int, columns: int) -> Tensor:
        """The 2 x 2 block of the bending energy's matrix between the pairs of frames that start there."""
        row, column = torch.meshgrid(torch.arange(rows, rows + 2), torch.arange(columns, columns + 2), indexing="ij")
        linked = ((row - column).abs() <= 2) & (row < count) & (column < count)
        return torch.where(linked, stencils[row.clamp_max(count - 1), column % 5], 0.0)

    def joined(rows: int, columns: int) -> Tensor:
        """`coupling` for every unknown, [2 N, 2 N]."""
        return torch.einsum("ab,n,nm->anbm", coupling(rows, columns), smoothness, identity).reshape(2 * size, 2 * size)

    identity = torch.eye(size, dtype=right.dtype)
    # Pairs of frames make the matrix block-tridiagonal; an odd last frame is paired with an idle one.
    starts = range(0, count, 2)
    wanted = torch.zeros(2 * len(starts), size, dtype=right.dtype)
    wanted[:count] = right
    wanted = wanted.reshape(-1, 2 * size)
    factors: list[Tensor] = []
    for pair, start in enumerate(starts):
        last = blocks[start + 1] if start + 1 < count else identity
        matrix = torch.block_diag(blocks[start], last) + joined(start, start)
        if pair:
            link = joined(start, start - 2)
            lower = torch.linalg.solve_triangular(factors[-1], link.T, upper=False).T
            matrix = matrix - lower @ lower.T
            wanted[pair] -= lower @ wanted[pair - 1]
        factors.append(torch.linalg.cholesky(matrix))
        wanted[pair] = torch.linalg.solve_triangular(factors[-1], wanted[pair][:, None], upper=False)[:, 0]
    for pair, start in reversed(list(enumerate(starts))):
        if pair + 1 < len(starts):
            pull = joined(start, start + 2) @ wanted[pair + 1]  # cheaper than keeping what links the pairs
            wanted[pair] -= torch.linalg.solve_triangular(factors[pair], pull[:, None], upper=False)[:, 0]
        wanted[pair] = torch.linalg.solve_triangular(factors[pair].T, wanted[pair][:, None], upper=True)[:, 0]
    return wanted.reshape(-1, size)[:count]
