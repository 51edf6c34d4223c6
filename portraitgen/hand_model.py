"""Forearms with their hands, posed apart from the body that they belong to: its own shape, from the same file.

`load_hand` gives the left or the right one of a body. The root is the wrist; the forearm turns about it as the fingers do about their
joints, so that where a hand is does not hang on an elbow that the picture rarely shows. Rotations are as in `body`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .body import AnnyBody, BodyParameters, Bones, Skeleton, SkinnedBody, SkinnedVertices, anny_arrays

SIDES = ("left", "right")
FINGERS = ("thumb", "index", "middle", "ring", "little")
BONES: Bones = {
    "wrist": (None, None, 0.0),
    "forearm": ("wrist", "forearm", 1.0),
    "elbow": ("forearm", None, 0.0),
} | {
    f"{finger}_{number}": ("wrist" if number == 1 else f"{finger}_{number - 1}", f"{finger}_{number}", 1.0)
    for finger in FINGERS
    for number in (1, 2, 3)
}
SKELETON = Skeleton(BONES, "wrist")
JOINT_NAMES = SKELETON.joint_names
FIRST = tuple(JOINT_NAMES.index(f"{finger}_1") for finger in FINGERS)  # the joint at each finger's root
_ROOTS = tuple(SKELETON.bone_names.index(f"{finger}_1") for finger in FINGERS)
# The bone that each landmark moves with: a joint with the one before it, as knuckles do.
_CARRIERS = [0] + [bone for root in _ROOTS for bone in (0, root, root + 1, root + 2)]
_ELBOW = SKELETON.bone_names.index("elbow")


@dataclass
class HandPoses:
    """One hand in N frames, in the space of a fixed camera at the origin.

    Attributes:
        orientation: of the wrist, rest to camera ``[N, 3, 3]``.
        translation: of the wrist ``[N, 3]``, metres.
        rotations: axis-angle of the joints ``[N, 16, 3]``, radians; in the order of `JOINT_NAMES`.
        scale: size of the hand, of that which belongs to the body's ``[N]``.
    """

    orientation: Tensor
    translation: Tensor
    rotations: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.translation)

    def __getitem__(self, rows: Tensor | slice) -> HandPoses:
        return HandPoses(*(getattr(self, field.name)[rows] for field in fields(self)))

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def nearer(self, share: float) -> HandPoses:
        """The same at a ``share`` of the distance and of the size: from the camera it looks the same."""
        return replace(self, translation=self.translation * share, scale=self.scale * share)

    def placed(self, points: Tensor) -> Tensor:
        """Points ``[N, V, 3]`` of hands whose wrists are upright at the origin, where the wrists are."""
        return self.scale[:, None, None] * points @ self.orientation.transpose(1, 2) + self.translation[:, None]


class HandModel:
    """A forearm with its hand. Immutable.

    Attributes:
        skin: vertices and joints; its betas are the body's.
        faces: ``[F, 3]`` long.
        side: "left" or "right".
        tips: the vertex at the end of each finger ``[5]``.
    """

    def __init__(self, arrays: Mapping[str, Tensor], side: str) -> None:
        """arrays: the tensors of `SkinnedVertices` and ``faces``, by name."""
        names = [field.name for field in fields(SkinnedVertices) if field.name != "skeleton"]
        self.skin = SkinnedVertices(**{name: arrays[name] for name in names}, skeleton=SKELETON)
        self.faces, self.side = arrays["faces"].long(), side
        ends = [SKELETON.bone_names.index(f"{finger}_3") for finger in FINGERS]
        reach = (self.skin.template[:, None] - self.skin.bone_heads[ends]).norm(dim=2)
        self.tips = (reach * (self.skin.weights[:, ends] > 0.5)).argmax(0)

    def vertices(self, betas: Tensor, poses: HandPoses) -> Tensor:
        """Vertices ``[N, V, 3]`` in camera space, metres, of a person of the shape ``betas`` ``[P]``."""
        return poses.placed(self.skin.vertices(_at_origin(betas, poses)))

    def landmarks(self, betas: Tensor, poses: HandPoses, offsets: Tensor | None = None) -> Tensor:
        """The 21 points that MediaPipe finds on a hand, in its order, ``[N, 21, 3]`` in camera space: wrist, fingers from root to tip.

        Args:
            offsets: what lies between a joint and the point, at rest ``[21, 3]``, metres; none if None.
        """
        tips = self.skin.template[self.tips] + torch.einsum("p,pvc->vc", betas, self.skin.shape_basis[:, self.tips])
        parameters = _at_origin(betas, poses)
        pivots = self.skin.pivots(parameters)
        fingers = torch.cat([pivots[_ROOTS[0] :].unflatten(0, (5, 3)), tips[:, None]], dim=1)
        rest = torch.cat([pivots[:1], fingers.flatten(0, 1)])
        rest = rest if offsets is None else rest + offsets
        bones = self.skin.bone_transforms(parameters)[:, _CARRIERS]
        return poses.placed((bones[..., :3] @ rest[..., None])[..., 0] + bones[..., 3])

    def turns(self, betas: Tensor, poses: HandPoses) -> Tensor:
        """How what moves with each landmark is turned, rest to camera ``[N, 21, 3, 3]``."""
        return poses.orientation[:, None] @ self.skin.bone_transforms(_at_origin(betas, poses))[:, _CARRIERS, :, :3]

    def elbow(self, betas: Tensor, poses: HandPoses) -> Tensor:
        """Where the elbow is, ``[N, 3]`` in camera space."""
        return poses.placed(self.skin.joints(_at_origin(betas, poses))[:, _ELBOW : _ELBOW + 1])[:, 0]

    def axes(self, betas: Tensor) -> Tensor:
        """At rest, for every finger's joints: along the bone, out of the palm's plane towards the palm, and the axis about which the
        finger bends towards it, unit vectors ``[5, 3, 3 axes, 3]``."""
        points = self.landmarks(betas, resting(1, betas))[0]
        fingers = points[1:].view(5, 4, 3)
        along = F.normalize(fingers[:, 1:] - fingers[:, :-1], dim=2)
        palm = torch.linalg.cross(fingers[1, 0] - points[0], fingers[4, 0] - points[0])
        palm = F.normalize(palm if self.side == "right" else -palm, dim=0).expand_as(along)
        bend = F.normalize(torch.linalg.cross(along, palm), dim=2)
        return torch.stack([along, torch.linalg.cross(bend, along), bend], dim=2)


def resting(count: int, like: Tensor) -> HandPoses:
    """``count`` hands at rest at the camera's own position, on the device of ``like``."""
    zeros = like.new_zeros(count, len(JOINT_NAMES), 3)
    return HandPoses(torch.eye(3).to(like).expand(count, 3, 3), zeros[:, 0], zeros, like.new_ones(count))


def _at_origin(betas: Tensor, poses: HandPoses) -> BodyParameters:
    zeros = poses.rotations.new_zeros(len(poses), 3)
    return BodyParameters(betas, poses.rotations, zeros[:, :0], zeros, zeros)


def load_hand(body: SkinnedBody, side: str) -> HandModel:
    """The "left" or the "right" hand of ``body``, on its device. Takes some seconds; raises as `load_body` does."""
    from .hand_data import build_anny_hand, build_smplx_hand

    if isinstance(body, AnnyBody):
        arrays = build_anny_hand(side, anny_arrays()[0]["anny_coefficients"])
    else:
        from .smplx_body import SmplxBody
        from .smplx_data import read_file
        from .smplx_file import find_smplx

        assert isinstance(body, SmplxBody)
        arrays = build_smplx_hand(side, read_file(find_smplx()), body.smplx_betas.cpu())
    return HandModel({name: value.to(body.skin.template.device) for name, value in arrays.items()}, side)
