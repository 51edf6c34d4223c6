"""Compositing of projected Gaussians with any number of channels in Warp kernels, for CUDA (without nvcc) and CPU.

The image is cut into square tiles and one Warp thread owns one tile: it walks the tile's depth-sorted Gaussians and,
for each, only the pixels inside the ellipse on which the alpha reaches 1/255. A large tile keeps a CPU core busy out of
its L1 cache; small tiles give a GPU its parallelism. Each (tile, Gaussian) pair owns a slot for its gradient, summed
per Gaussian afterwards, so nothing is atomic and results do not depend on how the threads were scheduled.

The backward pass walks front to back too: what lies behind a Gaussian is the pixel's total minus the running prefix.
On the CPU the two compositing kernels are those of `_cpu_kernels`, which are the same in vector instructions.
"""

# mypy: ignore-errors
from __future__ import annotations

from functools import cache
from typing import Any

import warp as wp

from ._warp_projection import CPU_FLAGS, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, Layout, Splat


@wp.func
def tile_bounds(layout: Layout, index: int):
    """Frame, and first column, first row, end column, end row in pixels of one tile."""
    frame = index / layout.tiles_per_frame
    within = index - frame * layout.tiles_per_frame
    row = within / layout.columns
    x0 = (within - row * layout.columns) * layout.tile
    y0 = row * layout.tile
    return frame, x0, y0, wp.min(x0 + layout.tile, layout.width), wp.min(y0 + layout.tile, layout.height)


@wp.func
def row_span(splat: Splat, dy: float, first: int, end: int):
    """Pixels first..end of the row `dy` px below the centre on which the alpha can reach 1/255."""
    discriminant = 2.0 * splat[2] * splat[6] - splat[7] * dy * dy
    if discriminant <= 0.0:
        return first, first
    half = wp.sqrt(discriminant) / splat[2]
    middle = splat[0] - splat[3] / splat[2] * dy - 0.5
    low = wp.clamp(wp.ceil(middle - half), float(first), float(end))
    high = wp.clamp(wp.floor(middle + half) + 1.0, float(first), float(end))
    return int(low), int(high)


@wp.func
def column_span(splat: Splat, first: int, end: int):
    """Rows first..end that the ellipse reaches."""
    half = wp.sqrt(2.0 * splat[6] * splat[2] / splat[7])
    low = wp.clamp(wp.ceil(splat[1] - half - 0.5), float(first), float(end))
    high = wp.clamp(wp.floor(splat[1] + half - 0.5) + 1.0, float(first), float(end))
    return int(low), int(high)


@cache
def compositing_kernels(channels: int) -> tuple[Any, Any]:
    """(forward, backward) kernels for a fixed number of channels."""
    vec = wp.types.vector(length=channels, dtype=wp.float32)
    module = f"portraitgen_compositing_{channels}"

    @wp.kernel(module=module, enable_backward=False)
    def forward(
        start: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        backgrounds: wp.array[vec],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        out: wp.array[vec],
        transmittances: wp.array[wp.float32],
    ):
        """Composites one tile front to back; a finished pixel is marked by a negative transmittance."""
        index = start + wp.tid()
        frame, x0, y0, x1, y1 = tile_bounds(layout, index)
        base = frame * layout.height * layout.width
        for y in range(y0, y1):
            for x in range(x0, x1):
                out[base + y * layout.width + x] = vec(0.0)
                transmittances[base + y * layout.width + x] = 1.0
        live = int((x1 - x0) * (y1 - y0))
        for k in range(tile_starts[index], tile_starts[index + 1]):
            if live == 0:
                break
            splat = splats[members[k]]
            feature = features[members[k]]
            first_y, end_y = column_span(splat, y0, y1)
            for y in range(first_y, end_y):
                dy = float(y) + 0.5 - splat[1]
                first_x, end_x = row_span(splat, dy, x0, x1)
                for x in range(first_x, end_x):
                    pixel = base + y * layout.width + x
                    transmittance = transmittances[pixel]
                    if transmittance > 0.0:
                        dx = float(x) + 0.5 - splat[0]
                        sigma = 0.5 * (splat[2] * dx * dx + splat[4] * dy * dy) + splat[3] * dx * dy
                        alpha = wp.min(MAX_ALPHA, splat[5] * wp.exp(-sigma))
                        if sigma >= 0.0 and alpha >= MIN_ALPHA:
                            after = transmittance * (1.0 - alpha)
                            if after <= MIN_TRANSMITTANCE:
                                transmittances[pixel] = -transmittance
                                live -= 1
                            else:
                                transmittances[pixel] = after
                                out[pixel] = out[pixel] + (alpha * transmittance) * feature
        for y in range(y0, y1):
            for x in range(x0, x1):
                pixel = base + y * layout.width + x
                transmittance = wp.abs(transmittances[pixel])
                transmittances[pixel] = transmittance
                if backgrounds:
                    out[pixel] = out[pixel] + transmittance * backgrounds[frame]

    @wp.kernel(module=module, enable_backward=False)
    def backward(
        start: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        out: wp.array[vec],
        final_transmittances: wp.array[wp.float32],
        grad_out: wp.array[vec],
        grad_alphas: wp.array[wp.float32],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        slots: wp.array[wp.int32],
        transmittances: wp.array[wp.float32],
        remainders: wp.array[wp.float32],
        slot_splats: wp.array[Splat],
        slot_features: wp.array[vec],
    ):
        """Gradients of one tile, a slot per Gaussian in it. `remainders`: what lies behind, weighted by the loss."""
        index = start + wp.tid()
        frame, x0, y0, x1, y1 = tile_bounds(layout, index)
        base = frame * layout.height * layout.width
        for y in range(y0, y1):
            for x in range(x0, x1):
                pixel = base + y * layout.width + x
                transmittances[pixel] = 1.0
                remainder = wp.dot(grad_out[pixel], out[pixel])
                if grad_alphas:
                    remainder -= grad_alphas[pixel] * final_transmittances[pixel]
                remainders[pixel] = remainder
        live = int((x1 - x0) * (y1 - y0))
        for k in range(tile_starts[index], tile_starts[index + 1]):
            grad_feature = vec(0.0)
            grad_x = wp.float32(0.0)
            grad_y = wp.float32(0.0)
            grad_a = wp.float32(0.0)
            grad_b = wp.float32(0.0)
            grad_c = wp.float32(0.0)
            grad_opacity = wp.float32(0.0)
            if live > 0:
                splat = splats[members[k]]
                feature = features[members[k]]
                first_y, end_y = column_span(splat, y0, y1)
                for y in range(first_y, end_y):
                    dy = float(y) + 0.5 - splat[1]
                    first_x, end_x = row_span(splat, dy, x0, x1)
                    for x in range(first_x, end_x):
                        pixel = base + y * layout.width + x
                        transmittance = transmittances[pixel]
                        if transmittance > 0.0:
                            dx = float(x) + 0.5 - splat[0]
                            sigma = 0.5 * (splat[2] * dx * dx + splat[4] * dy * dy) + splat[3] * dx * dy
                            falloff = wp.exp(-sigma)
                            alpha = wp.min(MAX_ALPHA, splat[5] * falloff)
                            if sigma >= 0.0 and alpha >= MIN_ALPHA:
                                after = transmittance * (1.0 - alpha)
                                if after <= MIN_TRANSMITTANCE:
                                    transmittances[pixel] = -transmittance
                                    live -= 1
                                else:
                                    transmittances[pixel] = after
                                    grad = grad_out[pixel]
                                    weight = alpha * transmittance
                                    seen = wp.dot(grad, feature)
                                    grad_feature += weight * grad
                                    remainder = remainders[pixel] - weight * seen
                                    remainders[pixel] = remainder
                                    grad_alpha = transmittance * seen - remainder / (1.0 - alpha)
                                    if splat[5] * falloff <= MAX_ALPHA:
                                        grad_opacity += falloff * grad_alpha
                                        grad_sigma = -alpha * grad_alpha
                                        grad_a += 0.5 * dx * dx * grad_sigma
                                        grad_b += dx * dy * grad_sigma
                                        grad_c += 0.5 * dy * dy * grad_sigma
                                        grad_x -= (splat[2] * dx + splat[3] * dy) * grad_sigma
                                        grad_y -= (splat[3] * dx + splat[4] * dy) * grad_sigma
            slot = slots[k]
            if slot_features:
                slot_features[slot] = grad_feature
            slot_splats[slot] = Splat(grad_x, grad_y, grad_a, grad_b, grad_c, grad_opacity, 0.0, 0.0)

    forward.module.options["cpu_compiler_flags"] = CPU_FLAGS
    return forward, backward


@cache
def reduction_kernel(channels: int) -> Any:
    """Kernel that sums what `backward` left in the slots of a Gaussian's features."""
    vec = wp.types.vector(length=channels, dtype=wp.float32)

    @wp.kernel(module=f"portraitgen_reduction_{channels}", enable_backward=False)
    def reduce(
        start: int,
        layout: Layout,
        ranks: wp.array[wp.int32],
        ends: wp.array[wp.int32],
        slot_features: wp.array[vec],
        grad_features: wp.array[vec],
    ):
        """Sums the slots of one row of the features, over all frames where they share it."""
        row = start + wp.tid()
        frames = wp.int32(1)
        if layout.shared == 1:
            frames = layout.frames
        total = vec(0.0)
        for frame in range(frames):
            rank = ranks[frame * layout.per_frame + row]
            if rank >= 0:
                first = wp.int32(0)
                if rank > 0:
                    first = ends[rank - 1]
                for slot in range(first, ends[rank]):
                    total += slot_features[slot]
        grad_features[row] = total

    return reduce
