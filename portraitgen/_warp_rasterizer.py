"""Runs the Warp kernels of the rasteriser on torch tensors: threads on the CPU, one launch on CUDA; autograd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._cpu_kernels import CPU_TILE, cpu_compositing_kernels
from ._warp_kernels import compositing_kernels, reduction_kernel
from ._warp_projection import Layout, emit, project, project_backward
from ._warp_start import start, stream

MAX_CHANNELS = 32  # of one compositing pass; more are rendered in several passes
CUDA_TILE = 4  # pixels

_build_lock = threading.Lock()


def _method(device: torch.device) -> tuple[int, Callable[[int], tuple[Any, Any]]]:
    """(pixels along a tile, maker of the compositing kernels) for a device."""
    return (CPU_TILE, cpu_compositing_kernels) if device.type == "cpu" else (CUDA_TILE, compositing_kernels)


def make_cuda_kernels(channels: int) -> tuple[Any, Any, Any]:
    """(forward, backward, reduce) as they run on CUDA, for a multiple of 8 channels."""
    return (*compositing_kernels(channels), reduction_kernel(channels))


def load_kernels(channels: int, device: str) -> tuple[Any, Any, Any]:
    """Builds (seconds, then cached on disk by Warp) and loads all kernels that `channels` channels need on a device."""
    return _load(_method(torch.device(device))[1], channels, device)


@cache
def _load(make: Callable[[int], tuple[Any, Any]], channels: int, device: str) -> tuple[Any, Any, Any]:
    with _build_lock:
        start(torch.device(device))
        kernels = (*make(channels), reduction_kernel(channels))
        for module in {kernel.module for kernel in (project, emit, *kernels)}:
            wp.load_module(module, device)
    return kernels


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="rasterize")


def _launch(kernel: Any, count: int, device: torch.device, arguments: Sequence[Any]) -> None:
    """Runs kernel(start, *arguments) for `count` items.

    One launch on CUDA. On the CPU, where a launch is single-threaded but releases the GIL, a few launches per thread:
    every item owns what it writes, so their order does not matter.
    """

    def array(value: Any, parameter: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        dtype = parameter.type.dtype
        rows = value.detach().view(-1, *getattr(dtype, "_shape_", ()))
        return wp.from_torch(rows, dtype=dtype, requires_grad=False)

    inputs = [array(*pair) for pair in zip(arguments, kernel.adj.args[1:], strict=True)]

    def run(first: int, end: int) -> None:
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
        tile, _ = _method(device)
        columns, rows = -(-width // tile), -(-height // tile)
        tiles = frames * columns * rows
        # Compositing passes as (first channel, padded width): few widths, so few kernels to build.
        passes = [
            (first, min(MAX_CHANNELS, -(-(channels - first) // 8) * 8)) for first in range(0, channels, MAX_CHANNELS)
        ]
        kernels = {size: load_kernels(size, str(device)) for _, size in passes}

        def integers(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.int32, device=device)

        def floats(*shape: int) -> Tensor:
            return torch.empty(shape, device=device)

        geometry = [tensor.detach().contiguous() for tensor in (means, quats, scales, opacities, viewmats, intrinsics)]
        tile_counts, rectangles = integers(total), integers(total, 4)
        splats, depths = floats(total, 8), floats(total)
        layout = Layout()
        layout.frames, layout.per_frame, layout.shared = frames, per_frame, int(features.ndim == 2)
        layout.width, layout.height, layout.tile = width, height, tile
        layout.columns, layout.tiles_per_frame = columns, columns * rows
        with stream(device):
            _launch(project, total, device, [layout, *geometry, tile_counts, splats, depths, rectangles])
            # How much memory the rest needs is up to the scene. This is the only place that waits for the device.
            visible, pairs = torch.stack([tile_counts.count_nonzero(), tile_counts.sum()]).tolist()
            shown = torch.nonzero_static(tile_counts, size=visible).view(-1)
            keys, order = floats(2 * visible), integers(2 * visible)
            keys[:visible], order[:visible] = depths.index_select(0, shown), shown
            _sort_pairs(keys, order, 32)
            if frames > 1:  # one frame after the other, so that what a tile reads lies close together
                _sort_pairs(order // per_frame, order, (frames - 1).bit_length())
            order = order[:visible]  # index of the Gaussian of each rank
            splats = splats.index_select(0, order)
            ends = tile_counts.index_select(0, order).cumsum(0, dtype=torch.int32)
            tile_ids, slots, owners = integers(2 * pairs), integers(2 * pairs), integers(pairs)
            _launch(emit, visible, device, [layout, order, ends, rectangles, tile_ids, slots, owners])
            _sort_pairs(tile_ids, slots, max(1, (tiles - 1).bit_length()))
            slots = slots[:pairs]
            members = owners.index_select(0, slots)
            boundaries = torch.arange(tiles + 1, dtype=torch.int32, device=device)
            tile_starts = torch.searchsorted(tile_ids[:pairs], boundaries, out_int32=True)

            transmittances = floats(frames, height, width, 1)
            source = order if features.ndim == 3 else order % per_frame
            seen = features.detach().reshape(-1, channels).index_select(0, source)
            images, padded = [], [_pad(seen, *span) for span in passes]
            for (first, size), feature in zip(passes, padded, strict=True):
                image = floats(frames, height, width, size)
                background = None if backgrounds is None else _pad(backgrounds, first, size)
                inputs = [layout, splats, feature, background, tile_starts, members]
                _launch(kernels[size][0], tiles, device, [*inputs, image, transmittances])
                images.append(image)
        result = images[0] if len(images) == 1 else torch.cat(images, dim=-1)
        result = result[..., :channels].contiguous()
        ctx.save_for_backward(
            *geometry, order, ends, splats, tile_starts, members, slots, transmittances, *padded, *images
        )
        ctx.layout, ctx.passes, ctx.kernels, ctx.tiles = layout, passes, kernels, tiles
        ctx.feature_rows = features.numel() // max(1, channels)
        ctx.feature_shape = features.shape
        return result, 1.0 - transmittances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_result: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, opacities, viewmats, intrinsics = ctx.saved_tensors[:6]
        order, ends, splats, tile_starts, members, slots, transmittances = ctx.saved_tensors[6:13]
        padded, images = ctx.saved_tensors[13 : 13 + len(ctx.passes)], ctx.saved_tensors[13 + len(ctx.passes) :]
        device, channels, pairs, layout = grad_result.device, grad_result.shape[-1], len(members), ctx.layout
        wanted = ctx.needs_input_grad
        scratch = torch.empty(2, *transmittances.shape, device=device)
        slot_splats = torch.empty(len(ctx.passes), pairs, 8, device=device)
        grad_features = []
        with stream(device):
            ranks = torch.full((opacities.numel(),), -1, dtype=torch.int32, device=device)
            ranks.index_copy_(0, order.long(), torch.arange(len(order), dtype=torch.int32, device=device))
            for number, ((first, size), feature, image) in enumerate(zip(ctx.passes, padded, images, strict=True)):
                _, backward, reduce = ctx.kernels[size]
                slot_features = torch.empty(pairs, size, device=device) if wanted[4] else None
                alphas = grad_alphas.contiguous() if number == 0 else None
                inputs = [layout, splats, feature, image, transmittances, _pad(grad_result, first, size), alphas]
                inputs += [tile_starts, members, slots, *scratch]
                _launch(backward, ctx.tiles, device, [*inputs, slot_splats[number], slot_features])
                if wanted[4]:
                    gradient = torch.empty(ctx.feature_rows, size, device=device)
                    _launch(reduce, ctx.feature_rows, device, [layout, ranks, ends, slot_features, gradient])
                    grad_features.append(gradient)
            gaussians = means, quats, scales, opacities
            grads = [torch.empty_like(tensor) if wanted[i] else None for i, tensor in enumerate(gaussians)]
            if any(wanted[:4]):
                sums = slot_splats[0] if len(ctx.passes) == 1 else slot_splats.sum(0)
                inputs = [layout, means, quats, scales, viewmats, intrinsics, ranks, ends, splats, sums]
                _launch(project_backward, opacities.numel(), device, [*inputs, *grads])
        grad_feature = None
        if wanted[4]:
            grad_feature = torch.cat(grad_features, dim=-1)[..., :channels].view(ctx.feature_shape)
        grad_backgrounds = None
        if wanted[5]:
            flat = grad_result.reshape(len(transmittances), -1, channels)
            grad_backgrounds = (transmittances.view(len(flat), 1, -1) @ flat)[:, 0]
        return (*grads, grad_feature, grad_backgrounds, None, None, None, None)
