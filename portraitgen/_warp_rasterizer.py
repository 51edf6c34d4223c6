"""Runs the kernels of `_warp_kernels` on torch tensors: threads on the CPU, one launch on CUDA; autograd."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._warp_kernels import Layout, compositing_kernels, emit, project

MAX_CHANNELS = 32  # of one compositing pass; more are rendered in several passes
CPU_TILE, CUDA_TILE = 16, 4  # pixels

_build_lock = threading.Lock()


@cache
def _load(channels: int, device: str) -> tuple[Any, Any, Any]:
    """Builds (seconds, then cached on disk by Warp) and loads all kernels that `channels` channels need on a device."""
    with _build_lock:
        kernels = compositing_kernels(channels)
        for module in {kernel.module for kernel in (project, emit, *kernels)}:
            wp.load_module(module, device)
    return kernels


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="rasterize")


def _stream(device: torch.device) -> AbstractContextManager[Any]:
    """Puts Warp's work on torch's current CUDA stream."""
    if device.type == "cpu":
        return nullcontext()
    return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)))


def _launch(
    kernel: Any, count: int, device: torch.device, arguments: Sequence[Any], adjoints: Sequence[Tensor | None] = ()
) -> None:
    """Runs kernel(start, *arguments) for `count` items, or its adjoint where gradient buffers are given.

    One launch on CUDA. On the CPU, where a launch is single-threaded but releases the GIL, a few launches per thread:
    every item owns what it writes, so their order does not matter.
    """
    parameters = kernel.adj.args[1:]  # without `start`

    def array(tensor: Tensor, parameter: Any) -> Any:
        dtype = parameter.type.dtype
        return wp.from_torch(tensor.view(-1, *getattr(dtype, "_shape_", ())), dtype=dtype, requires_grad=False)

    def arrays(values: Sequence[Any]) -> list[Any]:
        return [
            array(value.detach(), parameter) if isinstance(value, Tensor) else value
            for value, parameter in zip(values, parameters, strict=True)
        ]

    inputs, gradients = arrays(arguments), arrays(adjoints) if adjoints else []

    def run(first: int, end: int) -> None:
        if gradients:
            wp.launch(
                kernel, end - first, [first, *inputs], adj_inputs=[0, *gradients], adjoint=True, device=str(device)
            )
        else:
            wp.launch(kernel, end - first, [first, *inputs], device=str(device))

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1 or count < 64:
        run(0, count)
        return
    edges = [count * piece // (4 * threads) for piece in range(4 * threads + 1)]
    list(_pool(threads).map(run, edges[:-1], edges[1:]))


def _sort_pairs(keys: Tensor, values: Tensor, bits: int) -> None:
    """Stable in-place radix sort of the first half of both tensors; the second half is scratch."""
    dtype = wp.float32 if keys.is_floating_point() else wp.int32
    arrays = wp.from_torch(keys, dtype=dtype), wp.from_torch(values, dtype=wp.int32)
    wp.utils.radix_sort_pairs(*arrays, len(keys) // 2, end_bit=bits)


def _pad(tensor: Tensor, first: int, width: int) -> Tensor:
    """Channels first..first+width of `tensor` [..., D] as contiguous rows, zeros where D ends."""
    piece = tensor.detach()[..., first : first + width]
    return torch.nn.functional.pad(piece, (0, width - piece.shape[-1])).contiguous()


class Rasterize(torch.autograd.Function):
    """The whole rasterisation as one differentiable step; no gradient reaches the cameras."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,  # [B, N, 3]
        quats: Tensor,  # [B, N, 4]
        scales: Tensor,  # [B, N, 3]
        opacities: Tensor,  # [B, N]
        features: Tensor,  # [B, N, D] or [N, D]
        backgrounds: Tensor | None,  # [B, D]
        viewmats: Tensor,  # [B, 4, 4]
        intrinsics: Tensor,  # [B, 3, 3]
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor]:  # [B, H, W, D], [B, H, W, 1]
        frames, per_frame = opacities.shape
        total, channels, device = frames * per_frame, features.shape[-1], means.device
        tile = CPU_TILE if device.type == "cpu" else CUDA_TILE
        columns, rows = -(-width // tile), -(-height // tile)
        tiles = frames * columns * rows
        # Compositing passes as (first channel, padded width): few widths, so few kernels to build.
        passes = [
            (first, 4 if channels - first <= 4 else min(MAX_CHANNELS, -(-(channels - first) // 8) * 8))
            for first in range(0, channels, MAX_CHANNELS)
        ]
        kernels = {size: _load(size, str(device)) for _, size in passes}

        def integers(count: int) -> Tensor:
            return torch.empty(count, dtype=torch.int32, device=device)

        geometry = [tensor.detach().contiguous() for tensor in (means, quats, scales, opacities, viewmats, intrinsics)]
        tile_counts, rectangles = integers(total).fill_(1), integers(4 * total)
        splats = torch.empty(total, 8, device=device)
        depths = torch.full((2 * total,), torch.inf, device=device)
        order = torch.arange(2 * total, dtype=torch.int32, device=device)
        layout = Layout()
        layout.frames, layout.per_frame, layout.shared = frames, per_frame, int(features.ndim == 2)
        layout.width, layout.height, layout.tile = width, height, tile
        layout.columns, layout.tiles_per_frame = columns, columns * rows
        with _stream(device):
            _launch(project, total, device, [layout, *geometry, tile_counts, splats, depths, rectangles])
            _sort_pairs(depths, order, 32)
            ends = tile_counts[order[:total]].cumsum(0, dtype=torch.int32)
            pairs = int(ends[-1]) if total else 0
            first_slots, tile_ids, slots, owners = (
                integers(total),
                integers(2 * pairs),
                integers(2 * pairs),
                integers(pairs),
            )
            binning = [layout, order, ends, tile_counts, rectangles, first_slots, tile_ids, slots, owners]
            _launch(emit, total, device, binning)
            _sort_pairs(tile_ids, slots, max(1, (tiles - 1).bit_length()))
            slots = slots[:pairs]
            members = owners[slots]
            boundaries = torch.arange(tiles + 1, dtype=torch.int32, device=device)
            tile_starts = torch.searchsorted(tile_ids[:pairs], boundaries, out_int32=True)

            transmittances = torch.empty(frames, height, width, 1, device=device)
            images, padded = [], [_pad(features, *span) for span in passes]
            for (first, size), feature in zip(passes, padded, strict=True):
                image = torch.empty(frames, height, width, size, device=device)
                background = None if backgrounds is None else _pad(backgrounds, first, size)
                inputs = [layout, splats, feature, background, tile_starts, members]
                _launch(kernels[size][0], tiles, device, [*inputs, image, transmittances])
                images.append(image)
        result = images[0] if len(images) == 1 else torch.cat(images, dim=-1)
        result = result[..., :channels].contiguous()
        ctx.save_for_backward(
            *geometry, tile_counts, rectangles, splats, depths, first_slots, tile_starts, members, slots,
            transmittances, *padded, *images,
        )  # fmt: skip
        ctx.layout, ctx.passes, ctx.kernels, ctx.tiles = layout, passes, kernels, tiles
        return result, 1.0 - transmittances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_result: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        geometry, rest = saved[:6], saved[6:]
        tile_counts, rectangles, splats, depths, first_slots, tile_starts, members, slots, transmittances = rest[:9]
        padded, images = rest[9 : 9 + len(ctx.passes)], rest[9 + len(ctx.passes) :]
        device, channels = grad_result.device, grad_result.shape[-1]
        total, pairs, layout = len(splats), len(members), ctx.layout
        grad_splats = torch.zeros_like(splats)
        scratch = torch.empty(2, *transmittances.shape, device=device)
        grad_features = []
        with _stream(device):
            for number, ((first, size), feature, image) in enumerate(zip(ctx.passes, padded, images, strict=True)):
                _, backward, reduce = ctx.kernels[size]
                slot_splats = torch.empty(pairs, 8, device=device)
                slot_features = torch.empty(pairs, size, device=device)
                alphas = grad_alphas.contiguous() if number == 0 else None
                inputs = [layout, splats, feature, image, transmittances, _pad(grad_result, first, size), alphas]
                inputs += [tile_starts, members, slots, scratch[0], scratch[1]]
                _launch(backward, ctx.tiles, device, [*inputs, slot_splats, slot_features])
                gradient = torch.empty_like(feature)
                sums = [layout, tile_counts, first_slots, slot_splats, slot_features, grad_splats, gradient]
                _launch(reduce, feature.numel() // size, device, sums)
                grad_features.append(gradient)
            grads = [torch.zeros_like(tensor) for tensor in geometry[:4]]
            projection = [layout, *geometry, tile_counts, splats, depths, rectangles]
            _launch(project, total, device, projection, [layout, *grads, None, None, None, grad_splats, None, None])
        grad_feature = torch.cat(grad_features, dim=-1)[..., :channels]
        grad_backgrounds = None
        if ctx.needs_input_grad[5]:
            flat = grad_result.reshape(len(transmittances), -1, channels)
            grad_backgrounds = (transmittances.view(len(flat), 1, -1) @ flat)[:, 0]
        return (*grads, grad_feature, grad_backgrounds, None, None, None, None)
