"""Where every pixel of a frame lies on the tracked body, and with that where it lies in any other frame.

The avatar ties all frames of a clip to one surface. What an editor painted in one frame can be carried exactly to another: through the
triangle under the pixel, posed as the other frame has it. Hair and clothes outside the mesh move with the surface next to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from .initialization import DEPTH_TOLERANCE, project
from .mesh import interpolate, rasterize_mesh, vertex_normals
from .plate import fill
from .streaming import breathe

_REACH = 8  # the motion of what lies outside the mesh is grown at this fraction of the size: it is smooth


@dataclass(frozen=True)
class Surfaces:
    """The tracked body in M frames as pictures of side S.

    Attributes:
        vertices: ``[M, V, 3]`` metres, camera space.
        faces: ``[F, 3]``.
        K: ``[3, 3]`` for pictures of side S.
        triangles: ``[M, S, S]`` int32, -1 outside the mesh.
        barycentrics: ``[M, S, S, 3]``.
        depth: ``[M, S, S]`` metres, infinite outside the mesh.
    """

    vertices: Tensor
    faces: Tensor
    K: Tensor
    triangles: Tensor
    barycentrics: Tensor
    depth: Tensor

    @classmethod
    def of(cls, vertices: Tensor, faces: Tensor, K: Tensor, size: int) -> Surfaces:
        """Rasterise the posed body ``vertices`` ``[M, V, 3]`` at ``size`` pixels a side, to which ``K`` ``[3, 3]`` belongs."""
        layers = []
        for frame in vertices.split(1):
            breathe()
            layers.append(rasterize_mesh(frame, faces, K, size, size))
        triangles, barycentrics, depth = (torch.cat(layer) for layer in zip(*layers, strict=True))
        return cls(vertices, faces, K, triangles, barycentrics, torch.where(triangles < 0, torch.inf, depth))

    def __len__(self) -> int:
        return len(self.vertices)

    def __getitem__(self, frames: slice) -> Surfaces:
        return Surfaces(
            self.vertices[frames],
            self.faces,
            self.K,
            self.triangles[frames],
            self.barycentrics[frames],
            self.depth[frames],
        )

    @property
    def inside(self) -> Tensor:
        """Whether a pixel shows the mesh ``[M, S, S]``."""
        return self.triangles >= 0

    def attribute(self, corners: Tensor) -> Tensor:
        """What belongs to the faces' corners ``[F, 3, C]`` or ``[M, F, 3, C]`` as pictures ``[M, C, S, S]``, zero outside the mesh."""
        return interpolate(corners, self.triangles, self.barycentrics).permute(0, 3, 1, 2)

    def normals(self) -> Tensor:
        """Unit normals in camera space ``[M, 3, S, S]``, zero outside the mesh."""
        return functional.normalize(self.attribute(vertex_normals(self.vertices, self.faces)[:, self.faces]), dim=1)

    def places(self, shown: int, within: int) -> tuple[Tensor, Tensor]:
        """Where frame ``within`` has what frame ``shown`` shows.

        Returns:
            pixel coordinates in ``within`` ``[S, S, 2]``; and whether the place is seen there ``[S, S]``: not hidden by the body, and
            turned no farther away from the camera than can be made out. Places outside the mesh count as seen.
        """
        breathe()
        size, inside = self.triangles.shape[-1], self.triangles[shown] >= 0
        corners = self.vertices[within][self.faces[self.triangles[shown].clamp_min(0).long()]]
        points = (corners * self.barycentrics[shown][..., None]).sum(2)
        xy, depth = project(points, self.K)
        row, column = xy[..., 1].long().clamp(0, size - 1), xy[..., 0].long().clamp(0, size - 1)
        in_picture = ((xy >= 0) & (xy < size)).all(-1)
        normal = torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
        facing = -(functional.normalize(normal, dim=-1) * functional.normalize(points, dim=-1)).sum(-1)
        seen = in_picture & (depth < self.depth[within][row, column] + DEPTH_TOLERANCE) & (facing > 0.15)
        own = pixel_centres(size, xy.device)
        motion = _grown(xy - own, inside)
        xy = torch.where(inside[..., None], xy, own + motion)
        return xy, torch.where(inside, seen, ((xy >= 0) & (xy < size)).all(-1))


def pixel_centres(size: int, device: torch.device) -> Tensor:
    """Coordinates ``[size, size, 2]`` of the pixels' centres."""
    line = torch.arange(size, device=device) + 0.5
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def sample(image: Tensor, xy: Tensor) -> Tensor:
    """``image`` ``[C, S, S]`` at pixel coordinates ``[H, W, 2]``, ``[C, H, W]``, bicubic."""
    grid = xy / image.shape[-1] * 2 - 1
    found = functional.grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return found[0]


def _grown(motion: Tensor, known: Tensor) -> Tensor:
    """``motion`` ``[S, S, 2]`` where ``known`` ``[S, S]``, continued smoothly elsewhere."""
    if not known.any():
        return torch.zeros_like(motion)
    weight = known.float()[None, None]
    small = functional.avg_pool2d(weight, _REACH)
    sums = functional.avg_pool2d((motion.permute(2, 0, 1)[None] * weight), _REACH)
    mean = (sums / small.clamp_min(1e-6))[0].permute(1, 2, 0).cpu().numpy()
    mean = fill(np.ascontiguousarray(mean), (small[0, 0] > 0.05).cpu().numpy())
    back = torch.as_tensor(mean, device=motion.device).permute(2, 0, 1)[None]
    large = functional.interpolate(back, motion.shape[:2], mode="bilinear", align_corners=False)
    return large[0].permute(1, 2, 0)
