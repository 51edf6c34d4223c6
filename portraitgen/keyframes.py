"""Which frames to train on and to edit: few, and as different from each other as the clip offers."""

from __future__ import annotations

import torch
from torch import Tensor

from .body import BodyParameters

# A radian of head rotation counts as much as this much of all expression weights together.
_ROTATION_WEIGHT = 2.0
_TIME_WEIGHT = 1e-3  # of the whole clip's length: decides only between frames of the same pose
_EVEN_SHARE = 2 / 3  # of the training frames; the others fill what these leave out


def diverse_frames(parameters: BodyParameters, candidates: Tensor, count: int) -> Tensor:
    """Choose ``count`` frames that cover pose and expression, by farthest-point sampling from the most typical one.

    Args:
        parameters: tracked body of all frames.
        candidates: indices to choose from ``[M]``.
        count: how many; all candidates if there are fewer.

    Returns:
        Sorted frame indices ``[min(count, M)]``.
    """
    if len(candidates) <= count:
        return candidates.sort().values
    pose = _poses(parameters, candidates)
    typical = (pose - pose.median(0).values).norm(dim=1).argmin()
    return candidates[_farthest(pose, typical[None], count).to(candidates.device)]


def training_frames(parameters: BodyParameters, candidates: Tensor, count: int) -> Tensor:
    """Choose ``count`` frames to train on: most of them evenly spaced, because the pose corrections of all others are interpolated between
    them; the others where pose and expression differ most from these, so that what a clip shows only for a moment is learned too.

    Args:
        parameters: tracked body of all frames.
        candidates: sorted indices to choose from ``[M]``.
        count: how many; all candidates if there are fewer.

    Returns:
        Sorted frame indices ``[min(count, M)]``.
    """
    if len(candidates) <= count:
        return candidates
    even = evenly_spaced(torch.arange(len(candidates)), max(1, round(_EVEN_SHARE * count)))
    return candidates[_farthest(_poses(parameters, candidates), even, count).to(candidates.device)]


def evenly_spaced(candidates: Tensor, count: int) -> Tensor:
    """At most ``count`` of the ``candidates`` ``[M]``, evenly spread in time, the ends included."""
    if len(candidates) <= count:
        return candidates
    return candidates[torch.linspace(0, len(candidates) - 1, count).round().long()]


def _poses(parameters: BodyParameters, frames: Tensor) -> Tensor:
    """Pose and expression of ``frames`` ``[M]`` as points of one space ``[M, D]``, on the CPU."""
    time = frames / max(1, len(parameters.rotations) - 1)
    return torch.cat(
        [
            _ROTATION_WEIGHT * parameters.rotations[frames].flatten(1),
            _ROTATION_WEIGHT * parameters.global_rotation[frames],
            parameters.expression[frames],
            _TIME_WEIGHT * time[:, None],
        ],
        1,
    ).cpu()


def _farthest(points: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Sorted indices ``[count]`` of ``points`` ``[M, D]``: ``chosen`` and, one by one, the point farthest from all before it."""
    distance = torch.cdist(points, points[chosen]).amin(1)
    picked = chosen.tolist()
    while len(picked) < count:
        picked.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[picked[-1]]).norm(dim=1))
        distance[picked] = -1.0
    return torch.tensor(sorted(picked))
