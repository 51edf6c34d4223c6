"""Which frames to train on and to edit: few, and as different from each other as the clip offers."""

from __future__ import annotations

import torch
from torch import Tensor

from .body import BodyParameters

# A radian of head rotation counts as much as this much of all expression weights together.
_ROTATION_WEIGHT = 2.0


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
    pose = torch.cat(
        [
            _ROTATION_WEIGHT * parameters.rotations[candidates].flatten(1),
            _ROTATION_WEIGHT * parameters.global_rotation[candidates],
            parameters.expression[candidates],
        ],
        1,
    ).cpu()
    first = (pose - pose.median(0).values).norm(dim=1).argmin()
    chosen = [int(first)]
    distance = (pose - pose[first]).norm(dim=1)
    while len(chosen) < count:
        farthest = int(distance.argmax())
        chosen.append(farthest)
        distance = torch.minimum(distance, (pose - pose[farthest]).norm(dim=1))
    return candidates[torch.tensor(chosen, device=candidates.device)].sort().values


def evenly_spaced(candidates: Tensor, count: int) -> Tensor:
    """At most ``count`` of the ``candidates`` ``[M]``, evenly spread in time, the ends included."""
    if len(candidates) <= count:
        return candidates
    return candidates[torch.linspace(0, len(candidates) - 1, count).round().long()]
