"""What hands hide in all but a few of the frames that are learned from, made to look like what is around it.

The few glimpses of it leave specks: every one is learned by itself. What is seen for longer keeps its detail.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fitting import Fitted
from .frames import TrainingFrames
from .free_view import usual_places
from .initialization import neighbours
from .keyframes import evenly_spaced
from .streaming import breathe

_MOMENTS = 24  # frames that are looked at
_FEW, _SELDOM = 10, 0.4  # frames, and share of them, that a Gaussian shows in, up to which too little of it is known
_SHOWS = 0.05  # of a Gaussian's weight in a pixel, summed over these frames, from which on it matters
_AROUND = 64


def smooth_hidden(fitted: Fitted, data: TrainingFrames) -> None:
    """Give Gaussians, in place, that hands hide in most frames the looks of those near them, by how well these are known.

    Args:
        data: the frames that were learned from.
    """
    if bool((data.inside == data.inside[:1]).all()):
        return  # no hands: bars hide the same everywhere
    known, whole = _shown(fitted, data)
    share = known / whole.clamp_min(1e-6)
    hidden, telling = (whole > _SHOWS) & (share < min(_SELDOM, _FEW / len(data))), known > _SHOWS
    weight = known * share.square()
    places, avatar = usual_places(fitted), fitted.avatar
    labels = fitted.body.face_labels.to(places.device)[avatar.texel_faces]
    with torch.no_grad():
        looks = avatar.features.clone()
        for label in labels[hidden].unique():
            part = labels == label
            others, own = part & telling, part & hidden
            if others.sum() < _AROUND:
                continue
            nearest = neighbours(places[others], places[own], _AROUND)
            share_of_each = weight[others][nearest][..., None]
            looks[own] = (avatar.features[others][nearest] * share_of_each).sum(1) / share_of_each.sum(1)
        avatar.features.copy_(looks)


def _shown(fitted: Fitted, data: TrainingFrames) -> tuple[Tensor, Tensor]:
    """How much each Gaussian shows where frames are learned from, and in all of the clip's picture: ``[N]`` each, in pixels."""
    features, picture = fitted.avatar.features, data.inside.any(0)
    known, whole = torch.zeros(len(features)).to(features), torch.zeros(len(features)).to(features)
    for index in evenly_spaced(torch.arange(len(data)), _MOMENTS).tolist():
        breathe()
        with torch.enable_grad():
            shown = fitted.render(data.frames[index : index + 1], data.K[None], data.size, data.size).color_features
            inside = (shown * data.inside[index]).sum()
            known += torch.autograd.grad(inside, features, retain_graph=True)[0][:, :3].mean(1)
            whole += torch.autograd.grad((shown * picture).sum(), features)[0][:, :3].mean(1)
    return known, whole
