"""Triangle meshes as pictures: which triangle each pixel sees, where in it, and how far away; and vertex normals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rasterize_mesh(
    vertices: Tensor,  # [V, 3] or [B, V, 3] metres, camera space
    faces: Tensor,  # [F, 3] long
    K: Tensor,  # [3, 3] pixels
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest triangle under each pixel centre, seen from either side. Not differentiable.

    Returns triangle ids [B, H, W] int32 (-1 where there is none), perspective-correct barycentrics [B, H, W, 3] and depth
    [B, H, W] in metres (both zero where there is none). B is 1 for vertices [V, 3].
    """
    import warp as wp

    from ._warp_mesh import barycentrics, nearest_depth, nearest_triangle
    from ._warp_start import start, stream

    start(vertices.device)
    vertices = vertices.detach().float().reshape(-1, *vertices.shape[-2:])
    K = K.detach().to(vertices)
    batch, triangle_count = len(vertices), len(faces)
    # No matrix product: on some processors its last digit depends on how many frames there are.
    xy = vertices[..., :2] / vertices[..., 2:].clamp_min(1e-6) * K.diagonal()[:2] + K[:2, 2]
    screen = torch.cat((xy, vertices[..., 2:]), dim=-1).contiguous()
    depth = torch.full((batch, height, width), torch.inf, device=vertices.device)
    ids = torch.full((batch, height, width), -1, dtype=torch.int32, device=vertices.device)
    inputs = [wp.from_torch(screen, dtype=wp.vec3), wp.from_torch(faces.to(vertices.device, torch.int32).contiguous())]
    weights = torch.zeros(batch, height, width, 3, device=vertices.device)
    buffers = [wp.from_torch(depth), wp.from_torch(ids)]
    device, size = wp.device_from_torch(vertices.device), (batch, triangle_count)
    where = [*inputs, *buffers, wp.from_torch(weights, dtype=wp.vec3)]
    with stream(vertices.device):
        wp.launch(nearest_depth, size, [*inputs, buffers[0]], device=device)
        wp.launch(nearest_triangle, size, [*inputs, *buffers], device=device)
        wp.launch(barycentrics, (batch, height, width), where, device=device)
    return ids, weights, depth


def interpolate(
    attributes: Tensor,  # [F, 3, C] or [B, F, 3, C] per face corner
    ids: Tensor,  # [B, H, W]
    barycentrics: Tensor,  # [B, H, W, 3]
) -> Tensor:
    """Corner attributes at each pixel, [B, H, W, C]; zero where there is no triangle."""
    if not attributes.shape[-3]:
        return attributes.new_zeros(*ids.shape, attributes.shape[-1])
    index = ids.clamp_min(0).long()
    frame = torch.arange(len(ids), device=ids.device)[:, None, None]
    corners = attributes[index] if attributes.dim() == 3 else attributes[frame, index]
    return (corners * barycentrics[..., None]).sum(-2) * (ids >= 0)[..., None]


def vertex_normals(
    vertices: Tensor,  # [..., V, 3]
    faces: Tensor,  # [F, 3]
) -> Tensor:
    """Unit normals [..., V, 3], area-weighted and outward for the bodies of this package. Differentiable."""
    corners = vertices[..., faces, :]
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    face_normals = torch.linalg.cross(first, second)
    spread = face_normals.repeat_interleave(3, dim=-2)
    return F.normalize(torch.zeros_like(vertices).index_add(-2, faces.flatten(), spread), dim=-1)
