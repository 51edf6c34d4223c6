"""The avatar: a Neural Gaussian Texture on the surface of a parametric body (PortraitGen, Eq. 6-7).

Every texel is a point of the body's UV chart, kept as a triangle and barycentric coordinates, so that it follows whatever moves the
mesh. It carries a displacement in the triangle's own frame, a rotation, a scale, an opacity and a feature vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .poses import PosedMesh

_OFF_SURFACE = 0.005  # metres


@dataclass(frozen=True)
class Texels:
    """Points on a mesh.

    Attributes:
        faces: triangle under each texel ``[N]``.
        barycentrics: ``[N, 3]``, summing to one.
        uvs: position in the UV chart ``[N, 2]`` in [0, 1].
        spacing: distance to the neighbouring texel ``[N]``, metres.
    """

    faces: Tensor
    barycentrics: Tensor
    uvs: Tensor
    spacing: Tensor

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Gaussians:
    """Posed Gaussians: what the rasteriser takes.

    Attributes:
        means: ``[B, N, 3]`` metres.
        quats: ``[B, N, 4]`` wxyz, not normalised.
        scales: ``[B, N, 3]`` standard deviations in metres.
        opacities: ``[B, N]`` in [0, 1].
        features: ``[N, D]``, the same for all poses.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor


def triangle_frames(vertices: Tensor, faces: Tensor) -> Tensor:
    """Right-handed frames ``[B, F, 3, 3]`` of triangles: columns are the first edge, its in-plane normal and the face normal.

    Args:
        vertices: ``[B, V, 3]``.
        faces: ``[F, 3]``.
    """
    a, b, c = vertices[:, faces].unbind(2)
    tangent = F.normalize(b - a, dim=-1, eps=1e-12)
    normal = F.normalize(torch.linalg.cross(tangent, c - a), dim=-1, eps=1e-12)
    return torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], -1)


def on_surface(vertices: Tensor, corners: Tensor, barycentrics: Tensor) -> Tensor:
    """Points ``[B, N, 3]`` of meshes ``[B, V, 3]``, given the vertices ``[N, 3]`` of their triangles and weights ``[N, 3]``."""
    return (vertices[:, corners] * barycentrics[..., None]).sum(2)


def sample_texels(
    vertices: Tensor,  # [V, 3] metres
    faces: Tensor,  # [F, 3]
    face_uvs: Tensor,  # [F, 3, 2] in [0, 1]
    spacing: Tensor,  # [F] wanted distance between texels in metres; 0 leaves a face out
) -> Texels:
    """Lay a UV grid over the mesh, as fine on each face as its size in the UV chart and ``spacing`` ask for.

    Faces too small to catch a grid point get one texel at their centre, so that eyelids, teeth and lips are never left bare.
    """
    corners = vertices[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 2
    edges = face_uvs[:, 1:] - face_uvs[:, :1]
    uv_area = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).abs() / 2
    wanted = (spacing > 0).nonzero().squeeze(1)
    # Grid cells per UV unit; rounding to powers of sqrt(2) lets neighbouring faces share one grid.
    resolution = (area / uv_area.clamp_min(1e-12)).sqrt() / spacing.clamp_min(1e-6)
    resolution = torch.exp2((2 * torch.log2(resolution.clamp(1, 16384))).round() / 2)

    grid = face_uvs[wanted] * resolution[wanted, None, None]
    low = grid.amin(1).floor().long()
    extent = (grid.amax(1).ceil().long() - low).clamp(1, 256)
    count = extent.prod(1)
    owner = torch.repeat_interleave(torch.arange(len(wanted)), count)
    index = torch.arange(int(count.sum())) - torch.repeat_interleave(count.cumsum(0) - count, count)
    cell = torch.stack([index % extent[owner, 0], index // extent[owner, 0]], 1) + low[owner]
    weights = _barycentrics(cell + 0.5, grid[owner])
    inside = (weights >= 0).all(1)
    owner, weights = owner[inside], weights[inside]

    empty = torch.ones(len(wanted), dtype=torch.bool)
    empty[owner] = False
    owner = torch.cat([owner, empty.nonzero().squeeze(1)])
    weights = torch.cat([weights, torch.full((int(empty.sum()), 3), 1 / 3)])
    texel_faces = wanted[owner]
    per_face = torch.bincount(owner, minlength=len(wanted)).clamp_min(1)
    distance = (area[wanted] / per_face).sqrt()[owner]
    uvs = (face_uvs[texel_faces] * weights[..., None]).sum(1)
    return Texels(texel_faces, weights, uvs, distance)


def _barycentrics(points: Tensor, triangles: Tensor) -> Tensor:
    """Barycentric coordinates ``[N, 3]`` of 2D points ``[N, 2]`` in triangles ``[N, 3, 2]``; -1 in degenerate ones."""
    a, b, c = triangles.unbind(1)
    ab, ac, ap = b - a, c - a, points - a
    determinant = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    safe = torch.where(determinant.abs() < 1e-12, torch.ones_like(determinant), determinant)
    v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / safe
    w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / safe
    weights = torch.stack([1 - v - w, v, w], 1)
    return torch.where((determinant.abs() < 1e-12)[:, None], -torch.ones_like(weights), weights)


class Avatar(nn.Module):
    """Neural Gaussian Texture: learned attributes of N texels on a mesh.

    Args:
        mesh_faces: ``[F, 3]`` triangles of the body.
        texels: where the Gaussians sit.
        channels: length D of the feature vectors; the first three are a colour.
        offsets: displacement of each texel in its triangle's frame ``[N, 3]`` metres, zero if None (Eq. 6).
        opacity: initial opacity.
    """

    mesh_faces: Tensor
    texel_faces: Tensor
    barycentrics: Tensor
    uvs: Tensor
    spacing: Tensor
    rest_offsets: Tensor

    def __init__(
        self, mesh_faces: Tensor, texels: Texels, channels: int, offsets: Tensor | None = None, opacity: float = 0.8
    ) -> None:
        super().__init__()
        count = len(texels)
        offsets = torch.zeros(count, 3) if offsets is None else offsets
        self.register_buffer("mesh_faces", mesh_faces)
        self.register_buffer("texel_faces", texels.faces)
        self.register_buffer("barycentrics", texels.barycentrics)
        self.register_buffer("uvs", texels.uvs)
        self.register_buffer("spacing", texels.spacing)
        self.register_buffer("rest_offsets", offsets)
        self.offsets = nn.Parameter(offsets.clone())
        self.quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1))
        # Flat discs along the surface, where a thick shell would blur the silhouette; balls off it, where the surface tells no direction.
        thickness = 0.7 - torch.tensor([0.0, 0.0, 0.4], device=offsets.device) * ~self.lifted[:, None]
        self.log_scales = nn.Parameter(torch.log(texels.spacing[:, None] * thickness))
        self.opacity_logits = nn.Parameter(torch.full((count,), opacity).logit())
        self.features = nn.Parameter(torch.zeros(count, channels))

    def __len__(self) -> int:
        return len(self.texel_faces)

    @property
    def lifted(self) -> Tensor:
        """Which Gaussians began off the surface, as those of hair and loose clothes do ``[N]``."""
        return self.rest_offsets.norm(dim=1) > _OFF_SURFACE

    def forward(self, mesh: PosedMesh) -> Gaussians:
        """Pose the Gaussians on a mesh.

        The displacement moves Gaussians without turning them: a Gaussian of the hair stands centimetres off the triangle that carries it
        and would swing with every bend of that triangle. No gradient reaches the mesh.
        """
        with torch.no_grad():
            frames = triangle_frames(mesh.skinned, self.mesh_faces)
            frame_quats = roma.rotmat_to_unitquat(frames)[:, self.texel_faces].roll(1, -1)  # wxyz
            frames = frames[:, self.texel_faces]
            surface = on_surface(mesh.vertices, self.mesh_faces[self.texel_faces], self.barycentrics)
        means = surface + (frames @ self.offsets[..., None]).squeeze(-1)
        quats = _multiply_quats(frame_quats, self.quats)
        batch = len(mesh)
        return Gaussians(
            means,
            quats,
            self.scales.expand(batch, -1, -1),
            torch.sigmoid(self.opacity_logits).expand(batch, -1),
            self.features,
        )

    @torch.no_grad()
    def facing(self, mesh: PosedMesh) -> Tensor:
        """Cosine of the angle between the surface under each Gaussian and the way to the camera ``[B, N]``: 1 where it faces the camera."""
        normals = triangle_frames(mesh.skinned, self.mesh_faces)[:, self.texel_faces, :, 2]
        surface = on_surface(mesh.vertices, self.mesh_faces[self.texel_faces], self.barycentrics)
        return -(normals * torch.nn.functional.normalize(surface, dim=-1)).sum(-1)

    @property
    def scales(self) -> Tensor:
        """Standard deviations ``[N, 3]`` in metres."""
        return torch.exp(self.log_scales)


def _multiply_quats(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of wxyz quaternions ``[..., 4]``."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )
