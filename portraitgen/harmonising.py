"""Edits of single pictures made to agree with one another, through the body that all of them show.

A 2D editor invents detail (brush strokes, folds, grain) anew in every picture. Fitted to several such pictures, the avatar would
learn their average, which is blur. Here a few anchor pictures that together show all of the person lend their detail to the others:
carried along the tracked surface, it is the same detail in the same place. Light and shade, which do change with the pose, stay each
picture's own; so do eyes and mouth, whose expression is the person's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .editors.surface import blur
from .surfaces import Surfaces, sample

_BAND = 14.0 / 512  # of the side: detail finer than this is shared, what is coarser stays the picture's own
_DISAGREEMENT = 1.2  # times that of the clip's own pictures from which on detail counts as invented
_ANCHORS = 4
_GAIN = 0.02  # share of the person that a further anchor must add
_SHRINK = 4  # anchors are chosen on small pictures
_SOFT = 6.0 / 512


def harmonise(
    edited: Tensor,  # [M, 3, S, S] in [0, 1]
    sources: Tensor,  # [M, 3, S, S] the same pictures before the edit
    alphas: Tensor,  # [M, 1, S, S]
    own: Tensor,  # [M, 1, S, S] in [0, 1], where a picture keeps its own detail
    surfaces: Surfaces,  # of the M pictures
) -> Tensor:
    """Pictures ``[M, 3, S, S]`` that show the same detail at the same place of the body.

    Editors that draw the same in every picture by themselves are told by how well their pictures agree; theirs are returned as they are.
    """
    if len(edited) < 2:
        return edited
    anchors = choose_anchors(alphas, surfaces)
    if disagreement(edited, alphas, surfaces, anchors[0]) < _DISAGREEMENT * disagreement(
        sources, alphas, surfaces, anchors[0]
    ):
        return edited
    sigma, soft = _BAND * edited.shape[-1], _SOFT * edited.shape[-1]
    detail = edited - blur(edited, sigma)
    result = []
    for shown in range(len(edited)):
        mixed = detail[shown]
        if shown != anchors[0]:
            for anchor in reversed(anchors):  # the first one has the last word
                if anchor == shown:
                    mixed = detail[shown]
                    continue
                xy, seen = surfaces.places(shown, anchor)
                there = sample(alphas[anchor], xy).clamp(0, 1) * sample(1 - own[anchor], xy).clamp(0, 1)
                weight = _eroded(seen[None].float() * there, soft) * (1 - own[shown])
                mixed = torch.lerp(mixed, sample(detail[anchor], xy), weight)
        result.append(edited[shown] + (mixed - detail[shown]) * alphas[shown])
    return torch.stack(result).clamp(0, 1)


def choose_anchors(alphas: Tensor, surfaces: Surfaces) -> list[int]:
    """A few pictures that together see what all M see, the one that sees most first."""
    size = alphas.shape[-1] // _SHRINK
    K = surfaces.K.clone()
    K[:2] /= _SHRINK
    small = Surfaces.of(surfaces.vertices, surfaces.faces, K, size)
    person = small.inside & (torch.nn.functional.avg_pool2d(alphas, _SHRINK)[:, 0] > 0.5)
    count = len(alphas)
    seen = torch.stack(
        [
            torch.stack([small.places(shown, within)[1] & person[shown] for shown in range(count)])
            for within in range(count)
        ]
    )  # [within, shown, s, s]
    total = person.sum().clamp_min(1)
    covered = torch.zeros_like(person)
    chosen: list[int] = []
    while len(chosen) < min(_ANCHORS, count):
        gains = (seen & ~covered).sum((1, 2, 3)) / total
        best = int(gains.argmax())
        if chosen and gains[best] < _GAIN:
            break
        chosen.append(best)
        covered = covered | seen[best]
    return chosen


def disagreement(pictures: Tensor, alphas: Tensor, surfaces: Surfaces, anchor: int) -> float:
    """How much the fine detail of other pictures differs from the anchor's at the same places, relative to how much detail there is."""
    detail = pictures - blur(pictures, _BAND * pictures.shape[-1])
    others = [number for number in range(len(pictures)) if number != anchor]
    others = others[:: max(1, len(others) // 4)]
    differences, loudness = 0.0, 1e-6
    for shown in others:
        xy, seen = surfaces.places(shown, anchor)
        mask = (seen & surfaces.inside[shown])[None] * (alphas[shown] > 0.9)
        carried = sample(detail[anchor], xy)
        differences += float(((carried - detail[shown]).abs() * mask).sum())
        loudness += float(((carried.abs() + detail[shown].abs()) * mask).sum())
    return differences / loudness


def _eroded(mask: Tensor, soft: float) -> Tensor:
    """``mask`` ``[1, S, S]`` in [0, 1], drawn in and softened at its edges."""
    return ((blur(mask[None], soft)[0] - 0.5) * 2).clamp(0, 1)
