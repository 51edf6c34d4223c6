"""More of a cloth than a photo shows, made of patches of what it shows (expectation and maximisation over patches: Wexler et al. 2007).

At ever finer sizes every patch of the unknown part looks for the most similar one of the known part, and every unknown pixel becomes the
mean of what the patches over it say, those next to the known part weighing most. At last whole patches are copied at full size.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..plate import fill

LEVELS = ((12, 8), (8, 5), (5, 3))  # how much smaller, and how often patches are looked for
PATCH = 5  # px at each size
CHOICE = 1500  # of the known patches, drawn at random, that are looked through
NEARBY = 0.004  # cost of taking a patch from one side of the picture to the other, against colours in [0, 1]
FADE = 0.75  # per pixel, of the trust in what is made, away from what is known


def complete(colour: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """``colour`` [h, w, 3] float32 in [0, 1] with texture where it is ``wanted`` and not ``known``, smoothly filled elsewhere.

    Args:
        known, wanted: [h, w] bool.
    """
    result = fill(colour.astype(np.float32), known)
    if not known.any() or not (wanted & ~known).any():
        return result
    source = None
    guess = result
    for shrink, rounds in LEVELS:
        size = known.shape[1] // shrink, known.shape[0] // shrink
        small = cv2.resize(guess, size, interpolation=cv2.INTER_AREA)
        here = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.999
        asked = cv2.resize(wanted.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        found = _settled(small, here, asked & ~here, rounds)
        if found is None:
            continue
        small, source = found
        new = cv2.resize(small, known.shape[::-1], interpolation=cv2.INTER_CUBIC)
        guess = np.where(known[..., None], colour, np.clip(new, 0, 1)).astype(np.float32)
        scale = shrink
    if source is None:  # less is known than a patch
        return result
    copied = _copied(result, source, scale)
    inside = np.clip(cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 5) / (2 * scale), 0, 1)[..., None]
    made = cv2.dilate((wanted & ~known).astype(np.uint8), np.ones((4 * scale + 1,) * 2, np.uint8)) > 0
    return np.where(made[..., None], copied + inside * (result - copied), result).astype(np.float32)


def _settled(
    picture: np.ndarray, known: np.ndarray, unknown: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The small ``picture`` [h, w, 3] completed, and the place (x, y) each pixel's patch is taken from [h, w, 2]."""
    height, width = known.shape
    reach = PATCH // 2
    whole = cv2.erode(known.astype(np.uint8), np.ones((PATCH, PATCH), np.uint8), borderValue=0) > 0
    sources = np.flatnonzero(whole)
    targets = np.flatnonzero(cv2.dilate(unknown.astype(np.uint8), np.ones((PATCH, PATCH), np.uint8)))
    if not len(sources) or not len(targets):
        return None
    sources = np.sort(np.random.default_rng(0).permutation(sources)[:CHOICE])
    away = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 5)
    trust = torch.from_numpy((FADE**away).reshape(-1)).float()
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    fixed = torch.from_numpy(~unknown)[None, None]
    original = image.clone()
    across = torch.arange(width).repeat(height) * (NEARBY**0.5 * PATCH / width)
    for _ in range(rounds):
        patches = _patches(image, reach)
        library = torch.cat([patches[sources], across[sources, None]], 1)
        queries = torch.cat([patches[targets], across[targets, None]], 1)
        best = torch.cat([_nearest(part, library) for part in queries.split(4096)])
        chosen = torch.from_numpy(sources)[best]
        weight = trust[targets][:, None]
        total = torch.zeros(height * width, patches.shape[1] + PATCH * PATCH)
        total[targets] = torch.cat([patches[chosen] * weight, weight.expand(-1, PATCH * PATCH)], 1)
        votes = functional.fold(total.T[None], (height, width), PATCH, padding=reach)
        image = torch.where(fixed | (votes[:, 3:] < 1e-9), original, votes[:, :3] / votes[:, 3:].clamp_min(1e-9))
    source = np.arange(height * width)
    source[targets] = chosen.numpy()
    return image[0].permute(1, 2, 0).numpy(), np.stack([source % width, source // width], -1).reshape(height, width, 2)


def _patches(image: Tensor, reach: int) -> Tensor:
    """Every pixel's patch [h * w, 3 * PATCH * PATCH]."""
    padded = functional.pad(image, (reach,) * 4, mode="replicate")
    return functional.unfold(padded, PATCH)[0].T


def _nearest(queries: Tensor, library: Tensor) -> Tensor:
    """Index [N] of the most similar row of ``library`` to each of ``queries`` [N, C]."""
    return (library.square().sum(1) - 2 * queries @ library.T).argmin(1)


def _copied(picture: np.ndarray, source: np.ndarray, scale: int) -> np.ndarray:
    """``picture`` [h, w, 3] put together of itself, moved as ``source`` says at ``scale`` times smaller size, neighbours blended."""
    height, width = picture.shape[:2]
    rows, columns = source.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    at = [(line + 0.5) * count / length - 0.5 for line, count, length in ((x, columns, width), (y, rows, height))]
    first = [np.floor(line).astype(np.int32) for line in at]
    move = source - np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
    result = np.zeros_like(picture)
    for right in (0, 1):
        for down in (0, 1):
            column, row = (
                np.clip(line + more, 0, count - 1)
                for line, more, count in zip(first, (right, down), (columns, rows), strict=True)
            )
            share = np.abs(1 - right - (at[0] - first[0])) * np.abs(1 - down - (at[1] - first[1]))
            moved = move[row, column].astype(np.float32) * np.float32(scale)
            place = x + moved[..., 0], y + moved[..., 1]
            part = cv2.remap(picture, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            result += part * share[..., None]
    return result
