"""Looks of Gaussians that no view shows, taken from those of neighbours."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .body import labelled
from .editors.colour import smoothstep

NEIGHBOURS = 24  # that tell a Gaussian's looks which no view shows
_SURE = 0.3  # of the median weight: Gaussians seen less say nothing of their neighbours
_THROUGH = 0.2  # how much the distance through the body counts: a back is clothed as the front before it
_DARK, _DEEP = 0.7, 0.012  # light that is lost within a mouth, and how many metres behind the skin


def color_unseen(
    colors: Tensor, seen: Tensor, weights: Tensor, points: Tensor, labels: Tensor, hair: Tensor, clear: Tensor
) -> None:
    """Give what no view shows the colours of well seen Gaussians near it that are of its kind, in place.

    The scalp takes those of hair, neck and torso those of their own without the hair that falls over them; all else, as an ear within hair,
    those of whatever is near, the mouth's inside the darker the deeper it lies.

    Args:
        colors: ``[N, 3]``.
        seen: which are known ``[N]``, bool.
        weights: how well each was seen ``[N]``.
        points: where each is ``[N, 3]``, metres.
        labels: of the faces that each is bound to ``[N]``, indices into :data:`body.LABELS`.
        hair, clear: which were seen as hair, and which well away from hair ``[N]``, bool.
    """
    sure = weights >= _SURE * weights[seen].median()
    scalp, neck, torso = labelled(labels, "scalp"), labelled(labels, "neck"), labelled(labels, "torso", "arms")
    rest = ~(scalp | neck | torso)
    for part, kin, through in (
        (scalp, hair, 1.0),
        (neck, neck & clear, 1.0),
        (torso, torso & clear, _THROUGH),
        (rest, seen, 1.0),
    ):
        unknown, known = part & ~seen, kin & sure
        if known.sum() < NEIGHBOURS:
            known = sure
        if unknown.any():
            places = points * points.new_tensor([1.0, 1.0, through])
            colors[unknown] = of_neighbours(colors, weights, places, known, unknown)
    inside = labelled(labels, "tongue", "mouth_interior") & ~seen
    if inside.any():
        colors[inside] *= _light_in_the_mouth(points[inside], points[labelled(labels, "lips", "face")])


def _light_in_the_mouth(points: Tensor, skin: Tensor) -> Tensor:
    """Share of light ``[M, 1]`` that comes to ``points`` ``[M, 3]`` within a mouth, by their distance from the skin ``[N, 3]``, metres.

    Close to it they stay as light as it is, and teeth everywhere: between its Gaussians they shimmer through.
    """
    nearest = neighbours(skin, points, 1)[:, 0]
    return 1 - _DARK * smoothstep(0.0, _DEEP, (points - skin[nearest]).norm(dim=1, keepdim=True))


def of_neighbours(values: Tensor, weights: Tensor, places: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
    """Mean ``values`` ``[N, D]``, by ``weights`` ``[N]``, of the `NEIGHBOURS` ``known`` Gaussians nearest to each ``unknown`` one."""
    nearest = neighbours(places[known], places[unknown], NEIGHBOURS)
    weight = weights[known][nearest][..., None]
    return (values[known][nearest] * weight).sum(1) / weight.sum(1)


def neighbours(known: Tensor, unknown: Tensor, count: int) -> Tensor:
    """Indices ``[M, C]`` of those of ``known`` ``[N, D]`` that are nearest to each of ``unknown`` ``[M, D]``; C is ``count``, N at most."""
    tree = cKDTree(known.cpu().numpy())
    nearest = tree.query(unknown.cpu().numpy(), k=range(1, min(count, len(known)) + 1))[1]
    return torch.as_tensor(nearest, device=known.device)
