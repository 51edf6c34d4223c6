"""Where the body is in every frame of a clip and how brightly it was taken: found by tracking, corrected by looking at the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .body import BodyModel, BodyParameters

NODES = 128
_WIDTH = 0.65  # of a node's influence, in distances between nodes
_STEADY = 0.01  # logarithm of a gain that is taken for noise: steady clips measure up to half of it


@dataclass(frozen=True)
class PosedMesh:
    """The body's mesh in B frames, camera space, metres.

    Attributes:
        skinned: vertices as joints and facial actions place them ``[B, V, 3]``.
        displacement: what the nodes add ``[B, V, 3]``.
    """

    skinned: Tensor
    displacement: Tensor

    @property
    def vertices(self) -> Tensor:
        """Where the vertices are ``[B, V, 3]``."""
        return self.skinned + self.displacement

    def __len__(self) -> int:
        return len(self.skinned)

    def __getitem__(self, frames: slice) -> PosedMesh:
        return PosedMesh(self.skinned[frames], self.displacement[frames])


@dataclass
class Poses:
    """The body in each of T frames of a clip.

    Skinning leaves over what no joint and no facial action can say: hair that swings, a collar that shifts, a shape that is not quite the
    person's. A displacement per node, blended smoothly over the mesh, carries the rest (Eq. 6, made free per frame). It is parallel to the
    picture, because depth does not show in it.

    Attributes:
        tracked: what landmarks say of each frame.
        refined: the same after alignment with the pictures.
        nodes: displacement of each node ``[T, K, 2]``, metres along the camera's x and y.
        basis: influence of each node on each vertex ``[V, K]``; rows sum to one.
        exposure: logarithm of the camera's gain in each frame ``[T, 3]``, RGB, as measured: cameras adjust themselves during a clip.
    """

    tracked: BodyParameters
    refined: BodyParameters
    nodes: Tensor
    basis: Tensor
    exposure: Tensor

    @classmethod
    def start(cls, body: BodyModel, tracked: BodyParameters) -> Poses:
        """The tracking as it is, without displacements."""
        basis = node_basis(rest_vertices(body, tracked))
        nodes = torch.zeros(len(tracked), basis.shape[1], 2, device=basis.device)
        return cls(tracked, tracked.detach(), nodes, basis, torch.zeros(len(tracked), 3, device=basis.device))

    @torch.no_grad()
    def mesh(self, body: BodyModel, frames: Tensor) -> PosedMesh:
        """The body in ``frames`` ``[B]``."""
        displacement = torch.nn.functional.pad(self.basis @ self.nodes[frames], (0, 1))
        return PosedMesh(body.vertices(self.refined, frames), displacement)

    def gain(self, frames: Tensor) -> Tensor:
        """What the avatar's colours are multiplied with in ``frames`` ``[B]``: ``[B, 3]``, 1 where nothing but noise was measured."""
        return F.softshrink(self.exposure[frames], _STEADY).exp()

    def rows(self, frames: list[int]) -> dict[str, Tensor]:
        """What alignment has found for each of ``frames``, as tensors ``[M, ...]``."""
        return {name: value[frames] for name, value in self._found().items()}

    def put(self, frames: list[int], rows: dict[str, Tensor]) -> None:
        """Take over what `rows` gave for ``frames``."""
        for name, value in self._found().items():
            value[frames] = rows[name].to(value.device)

    def _found(self) -> dict[str, Tensor]:
        """What alignment finds, a row for each frame."""
        values = {**self.refined.tensors(), "nodes": self.nodes, "exposure": self.exposure}
        return {name: value for name, value in values.items() if name != "betas"}

    def interpolate(self, known: Tensor, frames: Tensor) -> None:
        """Give ``frames`` ``[M]`` the corrections of their neighbours among the ``known`` ones (sorted ``[L]``), linear in time."""
        times, at = known.cpu().numpy(), frames.cpu().numpy()

        def between(values: Tensor) -> Tensor:
            columns = values[known].flatten(1).cpu().numpy().T
            found = np.stack([np.interp(at, times, column) for column in columns], 1)
            return torch.as_tensor(found, dtype=values.dtype, device=values.device).view(len(at), *values.shape[1:])

        self.nodes[frames] = between(self.nodes)
        self.exposure[frames] = between(self.exposure)
        tracked = self.tracked.tensors()
        for name, refined in self.refined.tensors().items():
            if name != "betas":
                refined[frames] = tracked[name][frames] + between(refined - tracked[name])


def rest_vertices(body: BodyModel, parameters: BodyParameters) -> Tensor:
    """Vertices ``[V, 3]`` of the person, upright and neutral, in metres."""
    rest = BodyParameters.zeros(body, 1, parameters.betas.device)
    rest.betas = parameters.betas
    return body.vertices(rest)[0]


def node_basis(vertices: Tensor, count: int = NODES) -> Tensor:
    """Smooth influences ``[V, count]`` of nodes spread evenly over ``vertices`` ``[V, 3]``; rows sum to one."""
    chosen = [int((vertices - vertices.mean(0)).norm(dim=1).argmin())]
    distance = (vertices - vertices[chosen[0]]).norm(dim=1)
    while len(chosen) < min(count, len(vertices)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (vertices - vertices[chosen[-1]]).norm(dim=1))
    width = _WIDTH * max(float(distance.max()), 1e-3)
    return torch.softmax(-((torch.cdist(vertices, vertices[chosen]) / width) ** 2), dim=1)
