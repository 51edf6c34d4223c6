"""A body small enough for tests: a textured ellipsoid in front of the camera, with one joint and one expression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from portraitgen.body import LABELS, BodyParameters, ExpressionPrior, axis_angle_to_matrix


class ToyBody:
    """Ellipsoid of about 20 cm; its expression bulges the half that faces the camera."""

    name = "toy"
    joint_names = ("head",)
    expression_names = ("bulge",)
    shape_count = 1
    expression_prior = ExpressionPrior(torch.tensor([0.35]), acceleration=0.1, low=0.0, high=1.0)

    def __init__(self, rings: int = 16, segments: int = 24) -> None:
        v, u = torch.meshgrid(torch.linspace(0.03, 0.97, rings), torch.linspace(0, 1, segments), indexing="ij")
        polar, azimuth = v * math.pi, u * 2 * math.pi
        direction = torch.stack([polar.sin() * azimuth.sin(), -polar.cos(), polar.sin() * azimuth.cos()], -1).view(
            -1, 3
        )
        self.template = direction * torch.tensor([0.08, 0.1, 0.08])
        self.bulge = direction * (direction[:, 2:] < -0.5) * 0.01
        index = torch.arange(rings * segments).view(rings, segments)
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
        # Wound so that face normals point outwards.
        self.faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([b, d, c], -1).view(-1, 3)])
        self.uvs = torch.stack([u, v], -1).view(-1, 2)
        self.face_uvs = self.faces
        x, _, z = self.template[self.faces].mean(1).T
        ears = (x.abs() > 0.06) & (z < 0)
        self.face_labels = torch.where(ears, LABELS.index("ears"), LABELS.index("face"))

    def to(self, device: str) -> ToyBody:
        """The same on another device."""
        moved = ToyBody()
        vars(moved).update({k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()})
        return moved

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        params = params if frames is None else params[frames]
        rest = self.template + params.expression[:, :1, None] * self.bulge
        rotation = axis_angle_to_matrix(params.global_rotation) @ axis_angle_to_matrix(params.rotations[:, 0])
        return rest @ rotation.transpose(1, 2) + params.translation[:, None]

    def subset(self, vertex_ids: Tensor) -> ToyBody:
        """The same vertices only; its faces are those of the whole toy and mean nothing here."""
        part = ToyBody()
        part.template, part.bulge = self.template[vertex_ids], self.bulge[vertex_ids]
        return part


def toy_parameters(frame_count: int) -> BodyParameters:
    """The toy turning left and right half a metre in front of the camera."""
    time = torch.linspace(0, 2 * math.pi, frame_count + 1)[:-1]
    zero = torch.zeros(frame_count)
    return BodyParameters(
        betas=torch.zeros(1),
        rotations=torch.stack([zero, 0.3 * time.sin(), zero], 1)[:, None],
        expression=(0.5 + 0.5 * time.cos())[:, None],
        global_rotation=torch.zeros(frame_count, 3),
        translation=torch.tensor([0.0, 0.0, 0.5]).repeat(frame_count, 1),
    )


def toy_intrinsics(size: int) -> Tensor:
    """Intrinsics ``[3, 3]`` under which the toy fills most of a square picture."""
    return torch.tensor([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]])
