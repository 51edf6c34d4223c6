"""What the tracker knows before it starts: the landmarks with their weights, and what people do and do not do.

Expected errors are standard deviations; everything the least squares sees is divided by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .body import BodyParameters, SkinnedBody, SkinnedVertices
from .correspondences import correspondences
from .errors import InputError
from .landmarks import FACE_POINTS, Landmarks, check_coverage

EYE_CORNERS = (33, 263)  # FaceMesh's outer eye corners; their distance in 3D is the inter-ocular distance of all errors
FACE_COUNT = 468  # landmarks without the irises: those that count in the error
POSE_INDICES = (11, 12, 13, 14)  # MediaPipe Pose: shoulders and elbows, the person's left one first
POSE_BONES = ("upper_arm_left", "upper_arm_right", "elbow_left", "elbow_right")
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
)
EYELIDS = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150),
    *(136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# Upper and lower points whose gap is how far an eye or the mouth is open: it shows more than where either point is.
GAPS = (
    *((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)),
    *((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318)),
)
GAP_SIGMA = 0.015  # fraction of the inter-ocular distance
TURN_SIGMA = 0.125  # of the difference in depth of the shoulders, fraction of their distance; Pose guesses it roughly

# Standard deviations a priori, radians; (x, y, z) = (nod, turn, tilt).
POSE_SIGMA: dict[str, tuple[float, float, float]] = {
    "global": (0.12, 0.5, 0.12),
    "spine": (0.01, 0.01, 0.01),
    "neck": (0.25, 0.3, 0.2),
    "head": (0.25, 0.3, 0.2),
    "clavicle_left": (0.05, 0.1, 0.12),
    "clavicle_right": (0.05, 0.1, 0.12),
    "upper_arm_left": (0.1, 0.1, 0.25),
    "upper_arm_right": (0.1, 0.1, 0.25),
    "eye_left": (0.35, 0.45, 0.001),
    "eye_right": (0.35, 0.45, 0.001),
    "jaw": (0.15, 0.03, 0.02),
}
POSE_LOW = {"jaw": (-0.02, -0.1, -0.06)}  # bounds, radians
POSE_HIGH = {"jaw": (0.6, 0.1, 0.06)}
# Standard deviations of accelerations at 30 frames a second: radians or metres per frame².
JOINT_ACCELERATION = {"global": 0.0015, "spine": 0.001, "neck": 0.01, "head": 0.015, "clavicle": 0.002, "upper": 0.004}
JOINT_ACCELERATION |= {"eye": 0.12, "jaw": 0.04}
TRANSLATION_ACCELERATION = 0.003
LANDMARK_SIGMA = 0.012  # fraction of the inter-ocular distance
BODY_SIGMA = (0.1, 0.1, 0.15, 0.15)  # the same for shoulders and elbows

ROTATION_START = 6  # unknowns of one frame: global rotation, translation, rotations, expression


class CropLike(Protocol):
    """The part of Crop that is needed here."""

    @property
    def left(self) -> float: ...

    @property
    def top(self) -> float: ...

    @property
    def side(self) -> float: ...

    @property
    def size(self) -> int: ...


def landmark_points(body: SkinnedBody) -> SkinnedVertices:
    """478 face landmarks, then shoulders and elbows, as skinned points."""
    triangles, barycentrics = correspondences(body)
    corners = body.skin.subset(body.faces[triangles].flatten())

    def blend(values: Tensor) -> Tensor:  # [..., 3 * 478, C] -> [..., 478, C]
        return (values.unflatten(-2, (-1, 3)) * barycentrics[..., None]).sum(-2)

    skin, names = body.skin, body.skin.skeleton.bone_names
    bones = torch.tensor([names.index(name) for name in POSE_BONES])

    def still(basis: Tensor) -> Tensor:
        return basis.new_zeros(len(basis), len(bones), 3)

    return replace(
        skin,
        template=torch.cat((blend(corners.template), skin.bone_heads[bones])),
        shape_basis=torch.cat((blend(corners.shape_basis), skin.bone_heads_basis[:, bones]), dim=1),
        expression_basis=torch.cat((blend(corners.expression_basis), still(skin.expression_basis)), dim=1),
        pose_basis=torch.cat((blend(corners.pose_basis), still(skin.pose_basis)), dim=1),
        weights=torch.cat((blend(corners.weights), torch.eye(len(names), dtype=skin.weights.dtype)[bones])),
    )


def interocular_distances(face: Tensor) -> Tensor:
    """Distance between the outer eye corners [T] for FaceMesh points [T, 478, 3], in 3D so that a profile does not shrink it."""
    return (face[:, EYE_CORNERS[0]] - face[:, EYE_CORNERS[1]]).norm(dim=-1)


def unpack(betas: Tensor, unknowns: Tensor, joint_count: int) -> BodyParameters:
    """The body for per-frame unknowns [T, N]."""
    end = ROTATION_START + 3 * joint_count
    rotations = unknowns[:, ROTATION_START:end].unflatten(1, (-1, 3))
    return BodyParameters(betas, rotations, unknowns[:, end:], unknowns[:, :3], unknowns[:, 3:6])


@dataclass(frozen=True)
class Evidence:
    """A clip's landmarks in pixels of the working crop, with the roots of their weights."""

    face: Tensor  # [T, 478, 3] with relative depth, NaN where unseen
    seen: Tensor  # [T] bool: a face was found
    unit: Tensor  # [T] inter-ocular distance in pixels, NaN where unseen
    observed: Tensor  # [T, 482, 2] face, then shoulders and elbows; 0 where unseen
    weights: Tensor  # [T, 482] per pixel; 0 where unseen
    turn: Tensor  # [T] pixels by which the left shoulder is deeper than the right one
    turn_weight: Tensor  # [T]
    step: float  # seconds from frame to frame

    def without(self, frames: Tensor) -> Evidence:
        """As if no face had been found in these frames (mask [T])."""
        weights = self.weights.clone()
        weights[frames, :FACE_POINTS] = 0.0
        return replace(self, seen=self.seen & ~frames, weights=weights)


def gather_evidence(landmarks: Landmarks, crop: CropLike) -> Evidence:
    """The landmarks as the tracker wants them."""
    scale = crop.size / crop.side
    corner = torch.tensor((crop.left, crop.top))
    face = torch.from_numpy(landmarks.face).float().clone()
    pose = torch.from_numpy(landmarks.pose[:, POSE_INDICES]).float()
    for points in (face, pose):
        points[..., :2] -= corner
        points[..., :3] *= scale
    seen, unit = torch.from_numpy(landmarks.found.copy()), interocular_distances(face)
    turn, turn_weight = _shoulder_turn(pose, crop.size)
    times = landmarks.timestamps
    return Evidence(
        face,
        seen,
        unit,
        torch.cat((face[..., :2], pose[..., :2]), dim=1).nan_to_num(0.0),
        torch.cat((_face_weights(seen, unit), _body_weights(pose, unit, crop.size)), dim=1),
        turn,
        turn_weight,
        float(np.median(np.diff(times))) if len(times) > 1 else 1 / 30,
    )


def _face_weights(seen: Tensor, unit: Tensor) -> Tensor:
    """[T, 478]; people look at eyes and mouths, and the oval's points slide along the outline."""
    importance = torch.full((FACE_POINTS,), 0.5)
    importance[list(OVAL)] = 0.15
    importance[list(LIPS)] = 1.4
    importance[list(EYELIDS)] = 1.8
    importance[FACE_COUNT:] = 1.5
    return importance / (LANDMARK_SIGMA * unit.nan_to_num(1.0)[:, None]) * seen[:, None]


def _body_weights(pose: Tensor, unit: Tensor, size: int) -> Tensor:
    """[T, 4] for shoulders and elbows; what lies outside the picture is guesswork."""
    inside = ((pose[..., :2] > 0) & (pose[..., :2] < size)).all(-1)
    trust = pose[..., 3].clamp(0, 1) * torch.where(inside, 1.0, 0.4)
    typical = float(unit[unit.isfinite()].median())
    return (trust / (torch.tensor(BODY_SIGMA) * unit.nan_to_num(typical)[:, None])).nan_to_num(0.0)


def _shoulder_turn(pose: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How much deeper the left shoulder is than the right one [T], in pixels, and the root of its weight [T]."""
    left, right = pose[:, 0], pose[:, 1]
    inside = ((pose[:, :2, :2] > 0) & (pose[:, :2, :2] < size)).all(-1).all(-1)
    span = (left[:, :2] - right[:, :2]).norm(dim=-1).clamp_min(1.0)
    weight = inside * pose[:, :2, 3].amin(1) / (TURN_SIGMA * span)
    return (left[:, 2] - right[:, 2]).nan_to_num(0.0), weight.nan_to_num(0.0)


Triples = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Priors:
    """What is likely of a frame's unknowns, [N] each."""

    mean: Tensor
    weight: Tensor  # inverse variances
    smoothness: Tensor  # inverse variances of the accelerations
    low: Tensor
    high: Tensor


def make_priors(body: SkinnedBody, step: float) -> Priors:
    """For this body and frames that are `step` seconds apart."""
    joints, expression = body.joint_names, body.expression_prior
    free = (torch.inf,) * 3
    bottom = (-torch.inf,) * 3

    def every(start: Triples, by_joint: Triples, rest: Tensor | float) -> Tensor:  # [N]
        return torch.cat(
            (torch.tensor([*start, *by_joint]).flatten(), torch.as_tensor(rest).expand(len(expression.sigma)))
        )

    still = [(0.0,) * 3] * 2
    mean = every(still, [body.pose_mean.get(name, (0.0,) * 3) for name in joints], 0.0)
    sigma = every([POSE_SIGMA["global"], (1e3,) * 3], [POSE_SIGMA[name] for name in joints], expression.sigma)
    steady = [(JOINT_ACCELERATION[name.split("_")[0]],) * 3 for name in ("global", *joints)]
    smooth = every([steady[0], (TRANSLATION_ACCELERATION,) * 3], steady[1:], expression.acceleration)
    low = every([bottom] * 2, [POSE_LOW.get(name, bottom) for name in joints], expression.low)
    high = every([free] * 2, [POSE_HIGH.get(name, free) for name in joints], expression.high)
    return Priors(mean, 1 / sigma.square(), 1 / (smooth * (30 * step) ** 2).square(), low, high)


def register(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rotations [T, 3, 3] and scales [T] that best turn points [N, 3] into targets [T, N, 3], up to a shift."""
    centred, aimed = points - points.mean(0), targets - targets.mean(1, keepdim=True)
    u, singular, v = torch.linalg.svd(aimed.transpose(1, 2) @ centred)
    mirror = torch.ones_like(singular)
    mirror[:, 2] = torch.det(u @ v).sign()
    return u @ torch.diag_embed(mirror) @ v, (singular * mirror).sum(1) / centred.square().sum()


def check_plausible(believed: np.ndarray, landmarks: Landmarks) -> None:
    """Raise InputError where the frames whose landmarks look like a face, mask [T], leave too large a gap."""
    try:
        check_coverage(believed, landmarks.timestamps)
    except InputError as error:
        first = int(np.flatnonzero(~believed)[0])
        raise InputError(
            f"What was found in frame {first + 1} ({landmarks.timestamps[first]:.2f} s) does not look like a real face. "
            "Use a clip of a person whose face is seen clearly, not a drawing, a mask or an animal."
        ) from error
