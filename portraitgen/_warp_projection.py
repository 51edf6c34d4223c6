"""Warp kernels that project Gaussians to the screen and bin them into tiles, forward and backward, for CPU and CUDA.

Gaussians that show are numbered by depth, their rank. All that follows the projection works on ranks only: in training
most of a person lies outside the window.
"""

# mypy: ignore-errors
# The bodies are Warp's language: typed and checked by its compiler, they only look like Python.
from __future__ import annotations

import warp as wp

from . import _warp_start  # noqa: F401

# Lets LLVM vectorise sums over channels and fuse multiplications with additions; the rest is Warp's default.
CPU_FLAGS = (
    "-march=native -mreassociate -fno-signed-zeros -ffp-contract=fast"
    " -mllvm=-inline-threshold=9000 -mllvm=-inline-cold-callsite-threshold=3000"
)

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


@wp.func
def rotation_matrix(quat: wp.vec4):
    """Of a unit quaternion wxyz."""
    w, x, y, z = quat[0], quat[1], quat[2], quat[3]
    return wp.mat33(
        1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
    )  # fmt: skip


@wp.func
def upper_left(m: wp.mat44):
    return wp.mat33(m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2], m[2, 0], m[2, 1], m[2, 2])


@wp.func
def held_slope(slope: float, inverse_focal: float, centre: float, size: float):
    """x / z or y / z, held within 1.3 times the field of view, where the linearised projection is still sane."""
    margin = 0.15 * size
    return wp.clamp(slope, -(centre + margin) * inverse_focal, (size - centre + margin) * inverse_focal)


@wp.func
def finite(x: float):
    return wp.abs(x) < 3e38  # false for NaN


@wp.kernel(module="portraitgen_projection", enable_backward=False)
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
    """EWA projection. Writes the number of tiles of every Gaussian, and the rest only where that is not zero."""
    i = start + wp.tid()
    tile_counts[i] = 0
    frame = i / layout.per_frame
    view = viewmats[frame]
    camera = wp.transform_point(view, means[i])
    z = camera[2]
    opacity = opacities[i]
    if not (z >= NEAR_PLANE and opacity >= MIN_ALPHA):
        return
    k = intrinsics[frame]
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    w, h = float(layout.width), float(layout.height)
    inverse_z = 1.0 / z
    slope_x = camera[0] * inverse_z
    slope_y = camera[1] * inverse_z
    u = fx * slope_x + cx
    v = fy * slope_y + cy
    slope_x = held_slope(slope_x, 1.0 / fx, cx, w)
    slope_y = held_slope(slope_y, 1.0 / fy, cy, h)

    # Most Gaussians of a window end here: outside even if they were balls of their largest scale, and with slack.
    scale = scales[i]
    largest = wp.max(wp.abs(scale[0]), wp.max(wp.abs(scale[1]), wp.abs(scale[2]))) * inverse_z
    bound = 2.0 * (5.6 + wp.max(opacity - 1.0, 0.0))  # of twice the level below
    reach_x = 1.0 + 1.01 * wp.sqrt(bound * (fx * fx * (1.0 + slope_x * slope_x) * largest * largest + EPS2D))
    reach_y = 1.0 + 1.01 * wp.sqrt(bound * (fy * fy * (1.0 + slope_y * slope_y) * largest * largest + EPS2D))
    if u + reach_x < 0.0 or u - reach_x > w or v + reach_y < 0.0 or v - reach_y > h:
        return

    quat = quats[i]
    norm = wp.length(quat)
    if not norm > 1e-12:
        return
    axes = upper_left(view) * rotation_matrix(quat * (1.0 / norm)) * wp.diag(scale)  # columns: the axes in camera space
    row_x = wp.vec3(fx * inverse_z, 0.0, -fx * slope_x * inverse_z) * axes
    row_y = wp.vec3(0.0, fy * inverse_z, -fy * slope_y * inverse_z) * axes
    xx = wp.dot(row_x, row_x) + EPS2D
    xy = wp.dot(row_x, row_y)
    yy = wp.dot(row_y, row_y) + EPS2D
    determinant = xx * yy - xy * xy
    level = wp.log(opacity * 255.0) + 1e-3  # a little slack: the exact alpha test follows per pixel
    radius_x = wp.sqrt(2.0 * level * xx)
    radius_y = wp.sqrt(2.0 * level * yy)
    sane = finite(u) and finite(v) and finite(radius_x) and finite(radius_y) and finite(determinant)
    if not (sane and determinant > 0.0):
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


@wp.kernel(module="portraitgen_projection", enable_backward=False)
def project_backward(
    start: int,
    layout: Layout,
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    viewmats: wp.array[wp.mat44],
    intrinsics: wp.array[wp.mat33],
    ranks: wp.array[wp.int32],
    ends: wp.array[wp.int32],
    splats: wp.array[Splat],
    slot_splats: wp.array[Splat],
    grad_means: wp.array[wp.vec3],
    grad_quats: wp.array[wp.vec4],
    grad_scales: wp.array[wp.vec3],
    grad_opacities: wp.array[wp.float32],
):
    """Adjoint of `project`, from the gradients in a Gaussian's slots. Gradients that nobody wants are null arrays."""
    i = start + wp.tid()
    rank = ranks[i]
    if rank < 0:
        if grad_means:
            grad_means[i] = wp.vec3(0.0)
        if grad_quats:
            grad_quats[i] = wp.vec4(0.0)
        if grad_scales:
            grad_scales[i] = wp.vec3(0.0)
        if grad_opacities:
            grad_opacities[i] = 0.0
        return
    first = wp.int32(0)
    if rank > 0:
        first = ends[rank - 1]
    grad = Splat(0.0)
    for slot in range(first, ends[rank]):
        grad += slot_splats[slot]
    if grad_opacities:
        grad_opacities[i] = grad[5]

    frame = i / layout.per_frame
    view = upper_left(viewmats[frame])
    camera = wp.transform_point(viewmats[frame], means[i])
    k = intrinsics[frame]
    fx, fy = k[0, 0], k[1, 1]
    inverse_z = 1.0 / camera[2]
    ratio_x = camera[0] * inverse_z
    ratio_y = camera[1] * inverse_z
    slope_x = held_slope(ratio_x, 1.0 / fx, k[0, 2], float(layout.width))
    slope_y = held_slope(ratio_y, 1.0 / fy, k[1, 2], float(layout.height))
    quat = quats[i]
    inverse_norm = 1.0 / wp.length(quat)
    unit = quat * inverse_norm
    scale = scales[i]
    rotation = rotation_matrix(unit)
    axes = view * rotation * wp.diag(scale)
    jacobian_x = wp.vec3(fx * inverse_z, 0.0, -fx * slope_x * inverse_z)
    jacobian_y = wp.vec3(0.0, fy * inverse_z, -fy * slope_y * inverse_z)
    row_x = jacobian_x * axes
    row_y = jacobian_y * axes

    # The conic [a b; b c] is the inverse of the covariance: its adjoint is -conic gradient conic.
    a, b, c = splats[rank][2], splats[rank][3], splats[rank][4]
    grad_xx = -(a * a * grad[2] + a * b * grad[3] + b * b * grad[4])
    grad_xy = -(2.0 * a * b * grad[2] + (a * c + b * b) * grad[3] + 2.0 * b * c * grad[4])
    grad_yy = -(b * b * grad[2] + b * c * grad[3] + c * c * grad[4])
    grad_row_x = 2.0 * grad_xx * row_x + grad_xy * row_y
    grad_row_y = 2.0 * grad_yy * row_y + grad_xy * row_x
    if grad_means:
        grad_jacobian_x = axes * grad_row_x
        grad_jacobian_y = axes * grad_row_y
        grad_ratio_x = fx * grad[0]
        grad_ratio_y = fy * grad[1]
        if slope_x == ratio_x:
            grad_ratio_x -= fx * inverse_z * grad_jacobian_x[2]
        if slope_y == ratio_y:
            grad_ratio_y -= fy * inverse_z * grad_jacobian_y[2]
        grad_z = -ratio_x * grad_ratio_x - ratio_y * grad_ratio_y
        grad_z -= wp.dot(jacobian_x, grad_jacobian_x) + wp.dot(jacobian_y, grad_jacobian_y)
        grad_means[i] = wp.vec3(grad_ratio_x, grad_ratio_y, grad_z) * inverse_z * view
    if grad_quats or grad_scales:
        grad_axes = wp.transpose(view) * (wp.outer(jacobian_x, grad_row_x) + wp.outer(jacobian_y, grad_row_y))
        if grad_scales:
            grad_scales[i] = wp.vec3(1.0) * wp.cw_mul(rotation, grad_axes)  # sums of the columns
        if grad_quats:
            g = grad_axes * wp.diag(scale)  # of the rotation matrix
            qw, qx, qy, qz = unit[0], unit[1], unit[2], unit[3]
            grad_unit = 2.0 * wp.vec4(
                qx * (g[2, 1] - g[1, 2]) + qy * (g[0, 2] - g[2, 0]) + qz * (g[1, 0] - g[0, 1]),
                qy * (g[0, 1] + g[1, 0]) + qz * (g[0, 2] + g[2, 0]) + qw * (g[2, 1] - g[1, 2])
                - 2.0 * qx * (g[1, 1] + g[2, 2]),
                qx * (g[0, 1] + g[1, 0]) + qz * (g[1, 2] + g[2, 1]) + qw * (g[0, 2] - g[2, 0])
                - 2.0 * qy * (g[0, 0] + g[2, 2]),
                qx * (g[0, 2] + g[2, 0]) + qy * (g[1, 2] + g[2, 1]) + qw * (g[1, 0] - g[0, 1])
                - 2.0 * qz * (g[0, 0] + g[1, 1]),
            )  # fmt: skip
            grad_quats[i] = (grad_unit - wp.dot(unit, grad_unit) * unit) * inverse_norm


@wp.kernel(module="portraitgen_binning", enable_backward=False)
def emit(
    start: int,
    layout: Layout,
    order: wp.array[wp.int32],
    ends: wp.array[wp.int32],
    rectangles: wp.array[Rectangle],
    tile_ids: wp.array[wp.int32],
    slots: wp.array[wp.int32],
    owners: wp.array[wp.int32],
):
    """Writes one (tile, slot) pair for every tile that a Gaussian touches, Gaussians in order of depth."""
    rank = start + wp.tid()
    slot = wp.int32(0)
    if rank > 0:
        slot = ends[rank - 1]
    r = rectangles[order[rank]]
    base = (order[rank] / layout.per_frame) * layout.tiles_per_frame
    for row in range(r[1], r[3]):
        for column in range(r[0], r[2]):
            tile_ids[slot] = base + row * layout.columns + column
            slots[slot] = slot
            owners[slot] = rank
            slot += 1


project.module.options["cpu_compiler_flags"] = CPU_FLAGS
