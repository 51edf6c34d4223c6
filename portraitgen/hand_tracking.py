"""Poses of the hands before the person, from the joints that MediaPipe sees: wrist, fingers and forearm of the body's own hand model.

What the picture says is where joints are in it; how the hand is turned, and which of two ways a finger points, MediaPipe's guess in metres
says roughly; the rest is said by what hands can do. All frames of a gesture are fitted together, so that nothing trembles. How far away
a hand is follows from its size, and from that it is before the body.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .body import axis_angle_to_matrix
from .hand_correspondences import landmark_offsets
from .hand_model import FIRST, JOINT_NAMES, HandModel, HandPoses, resting
from .hands import PALM, palm_length

_STEPS, _RATE = 500, 0.04
_SEEN, _CARRIED = 0.06, 0.25  # palms, that a joint may be beside its place; where a hand is carried on
_DIRECTION = 0.35  # of MediaPipe's guess at a bone's direction, a unit vector
_ACCELERATION = 0.06  # palms per frame², at 30 frames a second
_APPROACH = 0.01  # share of its distance by which a hand comes nearer in a frame, at 30 frames a second
# How far joints turn about the bone, sideways and towards the palm, radians: mean and standard deviation at a finger's root and beyond.
_MEAN = ((0.0, 0.0, 0.15), (0.0, 0.0, 0.3), (0.0, 0.0, 0.3))
_SIGMA = ((0.08, 0.2, 0.6), (0.03, 0.03, 0.6), (0.03, 0.03, 0.5))
_THUMB = 0.35  # standard deviation of a thumb's
_STRETCHED, _HARD = -0.25, 0.05  # radians, that a finger hardly bends back beyond, and how hardly
_WRIST = 1.3  # radians, that a wrist bends at most


def fit_hand(
    hand: HandModel,
    betas: Tensor,
    K: Tensor,
    points: Tensor,
    world: Tensor,
    seen: Tensor,
    step: float,
) -> HandPoses:
    """The poses of one hand in the N frames that follow one another.

    Args:
        betas: the person's shape ``[P]``.
        K: intrinsics ``[3, 3]`` of the pictures.
        points: MediaPipe's joints ``[N, 21, 2]`` (x, y), pixels.
        world: the same as it guesses them in space ``[N, 21, 3]``, metres about the hand's middle, in the camera's axes.
        seen: False where the hand was not found but carried over ``[N]``.
        step: seconds from frame to frame.
    """
    offsets = landmark_offsets(hand, betas)
    axes = hand.axes(betas)
    start = _start(hand, betas, offsets, K, points, world, seen)
    palm = points.new_tensor([palm_length(row) for row in points.numpy()])[:, None]
    turn, place = torch.zeros(len(points), 3), torch.zeros(len(points), 3)
    mean = torch.tensor(_MEAN).expand(5, 3, 3)
    bends = mean.expand(len(points), 5, 3, 3).clone()
    sigma = torch.tensor(_SIGMA).repeat(5, 1, 1)
    sigma[0] = _THUMB
    unknowns = [value.requires_grad_() for value in (turn, place, bends)]
    optimizer = torch.optim.Adam(unknowns, lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.1)
    trust = torch.where(seen, _SEEN, _CARRIED)[:, None]
    length = (hand.landmarks(betas, resting(1, betas))[0, [0, 9]]).diff(dim=0).norm()
    smooth = _ACCELERATION * length * (step * 30) ** 2
    ways = F.normalize(_bones(world), dim=2)

    def posed() -> HandPoses:
        rotations = torch.einsum("nfja,fjac->nfjc", bends, axes).flatten(1, 2)
        rotations = torch.cat([torch.zeros(len(points), FIRST[0], 3), rotations], 1)
        depth = start.translation[:, 2:] * place[:, 2:].exp()
        beside = (start.translation[:, :2] / start.translation[:, 2:] + place[:, :2]) * depth
        orientation = axis_angle_to_matrix(turn) @ start.orientation
        return HandPoses(orientation, torch.cat([beside, depth], 1), rotations, start.scale)

    for _ in range(_STEPS):
        poses = posed()
        shown = hand.landmarks(betas, poses, offsets)
        xy = shown[..., :2] / shown[..., 2:].clamp_min(0.05) * K.diagonal()[:2] + K[:2, 2]
        beside = ((xy - points) / palm[..., None]).norm(dim=2) / trust
        terms = [
            F.huber_loss(beside, torch.zeros_like(beside), reduction="sum", delta=2.0),
            0.5 * ((F.normalize(_bones(shown), dim=2) - ways) / _DIRECTION).square().sum(),
            0.5 * ((bends - mean) / sigma).square().sum(),
            0.5 * ((_STRETCHED - bends[:, 1:, :, 2]).clamp_min(0) / _HARD).square().sum(),
        ]
        if len(points) > 2:
            approach = poses.translation[:, 2].log().diff()
            terms.append(0.5 * (approach / (_APPROACH * step * 30)).square().sum())
            terms.append(0.5 * (shown.diff(dim=0).diff(dim=0) / smooth).square().sum())
        optimizer.zero_grad()
        torch.stack(terms).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return posed()


def _bones(joints: Tensor) -> Tensor:
    """From the wrist to every finger's root and on from joint to joint: ``[N, 20, 3]`` of ``[N, 21, 3]``."""
    fingers = joints[:, 1:].unflatten(1, (5, 4))
    roots = fingers[:, :, :1] - joints[:, None, :1]
    return torch.cat([roots, fingers.diff(dim=2)], dim=2).flatten(1, 2)


def _start(
    hand: HandModel, betas: Tensor, offsets: Tensor, K: Tensor, points: Tensor, world: Tensor, seen: Tensor
) -> HandPoses:
    """Hands at rest, turned as MediaPipe's palms are, as far away as they have the size of those in the picture on the whole."""
    poses = resting(len(points), betas)
    palm = list(PALM)
    model, points = hand.landmarks(betas, poses, offsets)[:, palm], points[:, palm]
    own, other = (x - x.mean(1, keepdim=True) for x in (model, world[:, palm]))
    u, _, v = torch.linalg.svd(other.transpose(1, 2) @ own)
    flip = torch.ones(len(points), 3)
    flip[:, 2] = torch.linalg.det(u @ v)
    poses.orientation = u * flip[:, None] @ v
    turned = poses.placed(model)
    depths = K[0, 0] * _spread(turned[..., :2]) / _spread(points).clamp_min(1.0)
    depth = depths[seen if seen.any() else ~seen].median().expand(len(points), 1)
    place = (points.mean(1) - K[:2, 2]) / K.diagonal()[:2] * depth
    poses.translation = torch.cat([place, depth], 1) - turned.mean(1)
    return poses


def _spread(points: Tensor) -> Tensor:
    """Root of the sum of squares of how far ``points`` ``[N, V, 2]`` are from their middle: ``[N]``."""
    return (points - points.mean(1, keepdim=True)).square().sum((1, 2)).sqrt()


def place_forearm(
    hand: HandModel, betas: Tensor, poses: HandPoses, shoulder: Tensor, upper_arm: float, seen: Tensor
) -> None:
    """Turn the forearm, in place, to an elbow that hand and shoulder allow.

    Args:
        shoulder: ``[N, 3]`` in camera space.
        upper_arm: length in metres.
        seen: where the arm goes in the picture, from the wrist, unit vectors ``[N, 2]``; NaN where it does not show.
    """
    rest = hand.elbow(betas, resting(1, betas))[0]
    forearm, wrist = float(rest.norm() * poses.scale.mean()), poses.translation
    apart = (shoulder - wrist).norm(dim=1, keepdim=True).clamp(1e-3, 0.999 * (forearm + upper_arm))
    towards = F.normalize(shoulder - wrist, dim=1)
    along = ((apart.square() + forearm**2 - upper_arm**2) / (2 * apart)).clamp(-forearm, forearm)
    radius = (forearm**2 - along.square()).clamp_min(0).sqrt()
    down = torch.tensor((0.0, 1.0, 0.0)).expand_as(towards)
    first = F.normalize(torch.linalg.cross(towards, torch.tensor((0.0, 0.0, 1.0)).expand_as(towards)), dim=1)
    second = torch.linalg.cross(towards, first)
    angle = torch.linspace(0, 2 * torch.pi, 65)[:-1]
    ring = angle.cos()[:, None, None] * first + angle.sin()[:, None, None] * second
    ways = F.normalize(along * towards + radius * ring, dim=2)  # [angles, N, 3]
    flat = F.normalize(ways[..., :2], dim=2)
    fit = (flat * seen.nan_to_num(0.0)).sum(2) * 2 + (ways * down).sum(2) * 0.5
    chosen = ways[fit.argmax(0), torch.arange(len(wrist))]
    turned = torch.cat([seen * chosen[:, :2].norm(dim=1, keepdim=True), chosen[:, 2:]], 1)
    chosen = torch.where(seen.isnan().any(1, keepdim=True), chosen, turned)
    local = (poses.orientation.transpose(1, 2) @ chosen[..., None])[..., 0]
    start = F.normalize(rest, dim=0).expand_as(local)
    axis = F.normalize(torch.linalg.cross(start, local), dim=1)
    bend = torch.acos((start * local).sum(1, keepdim=True).clamp(-1, 1)).clamp_max(_WRIST)
    poses.rotations[:, JOINT_NAMES.index("forearm")] = axis * bend
