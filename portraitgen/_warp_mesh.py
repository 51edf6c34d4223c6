"""Warp kernels of `mesh.rasterize_mesh`: a z-buffer in two passes, the same on CPU and CUDA."""
# mypy: ignore-errors

import warp as wp

from . import _warp_start  # noqa: F401

NEAR = wp.constant(1e-3)  # metres; triangles that reach nearer are not drawn


@wp.func
def edge(a: wp.vec3, b: wp.vec3, x: float, y: float):
    return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])


@wp.func
def depth_at(a: wp.vec3, b: wp.vec3, c: wp.vec3, x: float, y: float):
    """Depth of the triangle under the point, or -1 outside it."""
    area = edge(a, b, c[0], c[1])
    if area == 0.0:
        return -1.0
    u, v, w = edge(b, c, x, y) / area, edge(c, a, x, y) / area, edge(a, b, x, y) / area
    if u < 0.0 or v < 0.0 or w < 0.0:
        return -1.0
    return 1.0 / (u / a[2] + v / b[2] + w / c[2])


@wp.kernel(module="portraitgen_mesh", enable_backward=False)
def nearest_depth(
    screen: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=wp.int32), depth: wp.array3d(dtype=wp.float32)
):
    frame, triangle = wp.tid()
    a = screen[frame, faces[triangle, 0]]
    b = screen[frame, faces[triangle, 1]]
    c = screen[frame, faces[triangle, 2]]
    if wp.min(a[2], wp.min(b[2], c[2])) <= NEAR:
        return
    left = wp.max(int(wp.floor(wp.min(a[0], wp.min(b[0], c[0])) - 0.5)), 0)
    right = wp.min(int(wp.ceil(wp.max(a[0], wp.max(b[0], c[0])) + 0.5)), depth.shape[2])
    top = wp.max(int(wp.floor(wp.min(a[1], wp.min(b[1], c[1])) - 0.5)), 0)
    bottom = wp.min(int(wp.ceil(wp.max(a[1], wp.max(b[1], c[1])) + 0.5)), depth.shape[1])
    for row in range(top, bottom):
        for column in range(left, right):
            z = depth_at(a, b, c, float(column) + 0.5, float(row) + 0.5)
            if z > 0.0:
                wp.atomic_min(depth, frame, row, column, z)


@wp.kernel(module="portraitgen_mesh", enable_backward=False)
def nearest_triangle(
    screen: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    depth: wp.array3d(dtype=wp.float32),
    ids: wp.array3d(dtype=wp.int32),
):
    frame, triangle = wp.tid()
    a = screen[frame, faces[triangle, 0]]
    b = screen[frame, faces[triangle, 1]]
    c = screen[frame, faces[triangle, 2]]
    if wp.min(a[2], wp.min(b[2], c[2])) <= NEAR:
        return
    left = wp.max(int(wp.floor(wp.min(a[0], wp.min(b[0], c[0])) - 0.5)), 0)
    right = wp.min(int(wp.ceil(wp.max(a[0], wp.max(b[0], c[0])) + 0.5)), depth.shape[2])
    top = wp.max(int(wp.floor(wp.min(a[1], wp.min(b[1], c[1])) - 0.5)), 0)
    bottom = wp.min(int(wp.ceil(wp.max(a[1], wp.max(b[1], c[1])) + 0.5)), depth.shape[1])
    for row in range(top, bottom):
        for column in range(left, right):
            z = depth_at(a, b, c, float(column) + 0.5, float(row) + 0.5)
            if z > 0.0 and z == depth[frame, row, column]:
                wp.atomic_max(ids, frame, row, column, triangle)  # the highest id, so that ties never flicker


@wp.kernel(module="portraitgen_mesh", enable_backward=False)
def barycentrics(
    screen: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    depth: wp.array3d(dtype=wp.float32),
    ids: wp.array3d(dtype=wp.int32),
    weights: wp.array3d(dtype=wp.vec3),
):
    frame, row, column = wp.tid()
    triangle = ids[frame, row, column]
    if triangle < 0:
        depth[frame, row, column] = 0.0
        return
    a = screen[frame, faces[triangle, 0]]
    b = screen[frame, faces[triangle, 1]]
    c = screen[frame, faces[triangle, 2]]
    x, y = float(column) + 0.5, float(row) + 0.5
    flat = wp.vec3(edge(b, c, x, y) / a[2], edge(c, a, x, y) / b[2], edge(a, b, x, y) / c[2])
    weights[frame, row, column] = flat / (flat[0] + flat[1] + flat[2])
