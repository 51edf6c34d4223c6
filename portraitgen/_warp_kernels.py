"""Gaussian splatting of any number of channels in Warp kernels: one source for CPU threads and for CUDA, no nvcc.

The image is cut into square tiles and one Warp thread owns one tile: it walks the tile's depth-sorted Gaussians and,
for each, only the pixels inside the ellipse on which the alpha reaches 1/255. A large tile keeps a CPU core busy out of
its L1 cache; small tiles give a GPU its parallelism. Each (tile, Gaussian) pair owns a slot for its gradient, summed
per Gaussian afterwards, so nothing is atomic and results do not depend on how the threads were scheduled.

The backward pass walks front to back too: what lies behind a Gaussian is the pixel's total minus the running prefix.
"""

# mypy: ignore-errors
# The bodies are Warp's language: typed and checked by its compiler, they only look like Python.
from __future__ import annotations

from functools import cache
from typing import Any

import warp as wp

# Lets LLVM vectorise the dot products over channels, which strict float semantics forbid; the rest is Warp's default.
CPU_FLAGS = (
    "-march=native -mreassociate -fno-signed-zeros"
    " -mllvm=-inline-threshold=9000 -mllvm=-inline-cold-callsite-threshold=3000"
)

wp.config.log_level = wp.LOG_WARNING  # Warp greets on stdout, which belongs to our command line's JSON

EPS2D = wp.constant(0.3)  # px², screen-space blur
NEAR_PLANE = wp.constant(0.01)  # metres
MIN_ALPHA = wp.constant(1.0 / 255.0)
MAX_ALPHA = wp.constant(0.999)
MIN_TRANSMITTANCE = wp.constant(1e-4)

# A projected Gaussian: centre x, y (px), conic a, b, c (1/px²), opacity, the exponent at which its alpha falls to
# 1/255, determinant of the conic.
Splat = wp.types.vector(length=8, dtype=wp.float32)
Rectangle = wp.vec4i  # tiles covered: first column, first row, end column, end row


@wp.struct
class Layout:
    """Sizes that all kernels share."""

    frames: wp.int32
    per_frame: wp.int32  # Gaussians in a frame
    shared: wp.int32  # 1 when all frames share one set of features
    width: wp.int32
    height: wp.int32
    tile: wp.int32  # pixels along a side
    columns: wp.int32  # tiles in a row
    tiles_per_frame: wp.int32


@wp.kernel(module="portraitgen_projection", enable_backward=True)
def project(
    start: int,
    layout: Layout,
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    viewmats: wp.array[wp.mat44],
    intrinsics: wp.array[wp.mat33],
    tile_counts: wp.array[wp.int32],
    splats: wp.array[Splat],
    depths: wp.array[wp.float32],
    rectangles: wp.array[Rectangle],
):
    """EWA projection. `tile_counts` holds 1 on entry; the adjoint launch skips whatever ended up on no tile."""
    i = start + wp.tid()
    if tile_counts[i] == 0:
        return
    tile_counts[i] = 0
    frame = i / layout.per_frame
    view = viewmats[frame]
    mean = means[i]
    camera = wp.transform_point(view, mean)
    z = camera[2]
    opacity = opacities[i]
    if not (z >= NEAR_PLANE and opacity >= MIN_ALPHA):
        return
    k = intrinsics[frame]
    fx = k[0, 0]
    fy = k[1, 1]
    cx = k[0, 2]
    cy = k[1, 2]
    w = float(layout.width)
    h = float(layout.height)

    quat = quats[i]
    norm = wp.length(quat)
    if not norm > 1e-12:
        return
    qw = quat[0] / norm
    qx = quat[1] / norm
    qy = quat[2] / norm
    qz = quat[3] / norm
    rotation = wp.mat33(
        1.0 - 2.0 * (qy * qy + qz * qz), 2.0 * (qx * qy - qw * qz), 2.0 * (qx * qz + qw * qy),
        2.0 * (qx * qy + qw * qz), 1.0 - 2.0 * (qx * qx + qz * qz), 2.0 * (qy * qz - qw * qx),
        2.0 * (qx * qz - qw * qy), 2.0 * (qy * qz + qw * qx), 1.0 - 2.0 * (qx * qx + qy * qy),
    )  # fmt: skip
    view_rotation = wp.mat33(
        view[0, 0], view[0, 1], view[0, 2], view[1, 0], view[1, 1], view[1, 2], view[2, 0], view[2, 1], view[2, 2]
    )
    axes = view_rotation * rotation * wp.diag(scales[i])  # columns: the Gaussian's axes in camera space

    # The jacobian is taken at a point held within 1.3 times the field of view, where the linearisation is still sane.
    margin_x = 0.15 * w / fx
    margin_y = 0.15 * h / fy
    slope_x = wp.clamp(camera[0] / z, -cx / fx - margin_x, (w - cx) / fx + margin_x)
    slope_y = wp.clamp(camera[1] / z, -cy / fy - margin_y, (h - cy) / fy + margin_y)
    row_x = wp.vec3(fx / z, 0.0, -fx * slope_x / z) * axes
    row_y = wp.vec3(0.0, fy / z, -fy * slope_y / z) * axes
    xx = wp.dot(row_x, row_x) + EPS2D
    xy = wp.dot(row_x, row_y)
    yy = wp.dot(row_y, row_y) + EPS2D
    determinant = xx * yy - xy * xy
    u = fx * camera[0] / z + cx
    v = fy * camera[1] / z + cy
    level = wp.log(opacity / MIN_ALPHA) + 1e-3  # a little slack: the exact alpha test follows per pixel
    radius_x = wp.sqrt(2.0 * level * xx)
    radius_y = wp.sqrt(2.0 * level * yy)
    finite = wp.isfinite(u) and wp.isfinite(v) and wp.isfinite(radius_x) and wp.isfinite(radius_y)
    if not (finite and determinant > 0.0 and wp.isfinite(determinant)):
        return

    # Pixel centres within the radius, then the tiles that hold them.
    x0 = int(wp.clamp(wp.ceil(u - radius_x - 0.5), 0.0, w))
    x1 = int(wp.clamp(wp.floor(u + radius_x + 0.5), 0.0, w))
    y0 = int(wp.clamp(wp.ceil(v - radius_y - 0.5), 0.0, h))
    y1 = int(wp.clamp(wp.floor(v + radius_y + 0.5), 0.0, h))
    if x0 >= x1 or y0 >= y1:
        return
    column0 = x0 / layout.tile
    row0 = y0 / layout.tile
    column1 = (x1 + layout.tile - 1) / layout.tile
    row1 = (y1 + layout.tile - 1) / layout.tile
    depths[i] = z
    rectangles[i] = Rectangle(column0, row0, column1, row1)
    tile_counts[i] = (column1 - column0) * (row1 - row0)
    inverse = 1.0 / determinant
    splats[i] = Splat(u, v, yy * inverse, -xy * inverse, xx * inverse, opacity, level, inverse)


@wp.kernel(module="portraitgen_binning", enable_backward=False)
def emit(
    start: int,
    layout: Layout,
    order: wp.array[wp.int32],
    ends: wp.array[wp.int32],
    tile_counts: wp.array[wp.int32],
    rectangles: wp.array[Rectangle],
    first_slots: wp.array[wp.int32],
    tile_ids: wp.array[wp.int32],
    slots: wp.array[wp.int32],
    owners: wp.array[wp.int32],
):
    """Writes one (tile, slot) pair for every tile that a Gaussian touches, Gaussians in order of depth."""
    rank = start + wp.tid()
    gaussian = order[rank]
    slot = ends[rank] - tile_counts[gaussian]
    first_slots[gaussian] = slot
    if tile_counts[gaussian] > 0:
        r = rectangles[gaussian]
        base = (gaussian / layout.per_frame) * layout.tiles_per_frame
        for row in range(r[1], r[3]):
            for column in range(r[0], r[2]):
                tile_ids[slot] = base + row * layout.columns + column
                slots[slot] = slot
                owners[slot] = gaussian
                slot += 1


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
def compositing_kernels(channels: int) -> tuple[Any, Any, Any]:
    """(forward, backward, reduce) kernels for a fixed number of channels."""
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
            gaussian = members[k]
            splat = splats[gaussian]
            feature = features[gaussian - layout.shared * frame * layout.per_frame]
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
                gaussian = members[k]
                splat = splats[gaussian]
                feature = features[gaussian - layout.shared * frame * layout.per_frame]
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
            slot_features[slot] = grad_feature
            slot_splats[slot] = Splat(grad_x, grad_y, grad_a, grad_b, grad_c, grad_opacity, 0.0, 0.0)

    @wp.kernel(module=module, enable_backward=False)
    def reduce(
        start: int,
        layout: Layout,
        tile_counts: wp.array[wp.int32],
        first_slots: wp.array[wp.int32],
        slot_splats: wp.array[Splat],
        slot_features: wp.array[vec],
        grad_splats: wp.array[Splat],
        grad_features: wp.array[vec],
    ):
        """Sums a Gaussian's slots: one thread per row of the features, over all frames where they share it."""
        i = start + wp.tid()
        frames = wp.int32(1)
        if layout.shared == 1:
            frames = layout.frames
        grad_feature = vec(0.0)
        for frame in range(frames):
            gaussian = frame * layout.per_frame + i
            grad_splat = grad_splats[gaussian]
            first = first_slots[gaussian]
            for slot in range(first, first + tile_counts[gaussian]):
                grad_splat += slot_splats[slot]
                grad_feature += slot_features[slot]
            grad_splats[gaussian] = grad_splat
        grad_features[i] = grad_feature

    forward.module.options["cpu_compiler_flags"] = CPU_FLAGS
    return forward, backward, reduce
