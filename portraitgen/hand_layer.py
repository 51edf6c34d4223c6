"""Hands before the person, laid over the rendered one as the clip has them, in the colours of an edit.

The avatar is learned without them, so that what it shows of a frame is what is behind them: a hand is what differs from that, near where
one is seen. Where nothing differs it does not matter which of both is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .clip import read_gray, write_gray
from .crop import as_float
from .fitting import Fitted
from .hands import Hands
from .keyframes import evenly_spaced
from .mattes import BodyShown, clean_crops, clean_plate, find_hands, usable_frames
from .matting import decontaminate
from .portrait import Portrait
from .regions import CLOTHES, SKIN
from .rendering import RenderedCrop, render_crops
from .streaming import feed

LAYER = "hands.mp4"
# Difference of colours from which on something is before the body, and before the scene where the avatar shows none but the matte somebody.
_BODY, _SCENE = 0.06, 0.03
_AREA = (5, 5)  # pixels that it is averaged over
_EDGE = 0.7  # share of it that a single pixel must have: the average goes beyond the edge
_BORNE_OUT = 0.75  # share of what was found as a hand that differs at least half as much: a moving one may be found where it was before
_SPECK = np.ones((3, 3), bool)  # what is thinner is noise
_SOFT = 0.8  # pixels, of an edge
_SAMPLES, _PIXELS = 8, 3000  # frames that colours are compared in, pixels of each and region
_BLUR = 2.5  # pixels, before colours are compared: the avatar is not in place to the pixel
_FEW = 300  # pixels that say too little of a region
_RIDGE = 1.0  # squares of colour, summed over pixels, that a tint must rise above
_LEVELS = 24
_UNCHANGED = 0.025  # mean change of colour that is the avatar's own error


def write_hands(portrait: Portrait, fitted: Fitted, K: Tensor) -> Iterator[int]:
    """Write the layer's alpha ``[T, S, S]`` to `LAYER` where there are hands; yields how many frames are done after each.

    Args:
        fitted: the avatar as it was learned, unedited.
        K: intrinsics of the working crop ``[3, 3]``.
    """
    hands = find_hands(portrait)
    portrait.path(LAYER).unlink(missing_ok=True)
    if hands is None:
        return
    wanted = np.isin(np.arange(portrait.clip.frame_count), hands.frames)
    renders = render_crops(portrait, fitted, K, only=wanted)
    plate = as_float(portrait.crop.extract(clean_plate(portrait)))

    def alphas() -> Iterator[np.ndarray]:
        for number, (frame, matte) in enumerate(clean_crops(portrait)):
            if wanted[number]:
                alpha = hand_alpha(hands, number, as_float(frame), as_float(matte), next(renders), plate)
                yield np.rint(alpha * 255).astype(np.uint8)
            else:
                yield np.zeros_like(matte)

    writer = feed(lambda items: write_gray(portrait.path(LAYER), items, portrait.clip), alphas())
    for number, _ in enumerate(writer, 1):
        yield number


def hand_alpha(
    hands: Hands, number: int, frame: np.ndarray, matte: np.ndarray, body: RenderedCrop, plate: np.ndarray
) -> np.ndarray:
    """How much of each pixel of a frame is a hand or an arm before the body: ``[S, S]`` in [0, 1].

    Args:
        frame: ``[S, S, 3]`` in [0, 1].
        matte: of the whole person, hands included ``[S, S]`` in [0, 1].
        body: without hands.
        plate: the scene without the person ``[S, S, 3]`` in [0, 1].
    """
    behind = body.color + (1 - body.alpha[..., None]) * plate
    # Averaged with its sign: an avatar that is not in place to the pixel errs to both sides, a hand does not.
    difference = frame - behind
    limit = _SCENE + (_BODY - _SCENE) * body.alpha
    about = np.abs(cv2.blur(difference, _AREA)).max(2) / limit
    core = hands.core(number)
    if core.any() and (about[core] > 0.5).mean() < _BORNE_OUT:
        core[:] = False
    other = (about > 1) & (np.abs(difference).max(2) > _EDGE * limit) & (matte > 0.5) & hands.around(number)
    other = ndimage.binary_opening(ndimage.binary_closing(other, _SPECK), _SPECK) | core
    # What the avatar gets wrong elsewhere in the neighbourhood is not a hand.
    groups, _ = ndimage.label(other)
    shown = np.unique(groups[hands.outline(number) & other])
    alpha = np.isin(groups, shown[shown > 0])
    soft = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), _SOFT)
    return np.minimum(soft, np.maximum(matte, core))


def with_hands(
    portrait: Portrait, rendered: Iterator[RenderedCrop], recolour: Recolouring | None
) -> Iterator[RenderedCrop]:
    """``rendered`` frames of the clip from its own camera with the layer of hands laid over, as the clip or ``recolour`` has them."""
    if not portrait.path(LAYER).exists():
        yield from rendered
        return
    hands = find_hands(portrait)
    assert hands is not None
    layer, regions = read_gray(portrait.path(LAYER)), read_gray(portrait.path("regions.mp4"))
    streams = zip(rendered, layer, clean_crops(portrait), regions, strict=True)
    for number, (person, alpha, (frame, matte), labels) in enumerate(streams):
        if not alpha.any():
            yield person
            continue
        color = as_float(decontaminate(frame, matte))
        if recolour is not None:
            color = recolour(color, _sleeves(hands, number, labels))
        share = as_float(alpha)
        mixed = color * share[..., None] + person.color * (1 - share[..., None])
        yield replace(person, color=mixed, alpha=share + person.alpha * (1 - share))


def _sleeves(hands: Hands, number: int, labels: np.ndarray) -> np.ndarray:
    """Which pixels of the layer are cloth ``[S, S]``, bool; the shadows of a hand are often taken for hair or for cloth."""
    return (labels == CLOTHES) & ~hands.outline(number)


@dataclass(frozen=True)
class Change:
    """What an edit makes of the colours of a part of the person, RGB in [0, 1].

    The darkest of the one becomes the darkest of the other, and so on: the edit's own shading, as bronze's, says nothing of the clip's,
    but a hand is to have about as much of it as a face.

    Attributes:
        brightness: levels, rising ``[L]``.
        before, after: mean colours of the part at these levels, in the clip and in the edit ``[L, 3]``.
        tint: what becomes of how a colour differs from the mean one of its brightness ``[3, 3]``.
    """

    brightness: np.ndarray
    before: np.ndarray
    after: np.ndarray
    tint: np.ndarray

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray, also: np.ndarray | None = None) -> Change | None:
        """That of colours ``[N, 3]`` to others; None where they are the same.

        Args:
            also: colours ``[M, 3]`` that will be changed like these. What they add to the span of brightness is not to be exaggerated.
        """
        if len(before) < _FEW or np.abs(after.mean(0) - before.mean(0)).mean() < _UNCHANGED:
            return None
        spread = before
        if also is not None and len(also):  # both count alike
            spread = np.concatenate([before, also[np.linspace(0, len(also) - 1, len(before)).astype(int)]])
        ranked = [colours[np.argsort(colours.mean(1), kind="stable")] for colours in (spread, after)]
        levels = [np.stack([part.mean(0) for part in np.array_split(colours, _LEVELS)]) for colours in ranked]
        brightness = np.maximum.accumulate(levels[0].mean(1))
        own = before - _along(before.mean(1), brightness, levels[0])
        tint = np.linalg.solve(own.T @ own + _RIDGE * np.eye(3), own.T @ (after - after.mean(0)))
        return cls(brightness, levels[0], levels[1], tint)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Colours ``[..., 3]`` as the edit has them."""
        own, new = (_along(image.mean(-1), self.brightness, colours) for colours in (self.before, self.after))
        return np.clip(new + (image - own) @ self.tint, 0, 1).astype(np.float32)


def _along(value: np.ndarray, levels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The ``colours`` ``[L, 3]`` of ``levels`` ``[L]`` at each ``value`` ``[...]``: ``[..., 3]``."""
    return np.stack([np.interp(value, levels, channel) for channel in colours.T], -1)


@dataclass(frozen=True)
class Recolouring:
    """What an edit makes of the colours of skin and of clothes; None where it leaves them."""

    skin: Change | None
    clothes: Change | None

    @classmethod
    def of(cls, portrait: Portrait, fitted: Fitted, K: Tensor) -> Recolouring:
        """That of the avatar ``fitted``, by what it shows where the clip shows the person."""
        chosen = evenly_spaced(usable_frames(portrait), _SAMPLES)
        wanted = np.isin(np.arange(portrait.clip.frame_count), chosen.numpy())
        renders, shown = render_crops(portrait, fitted, K, only=wanted), BodyShown(portrait)
        regions = read_gray(portrait.path("regions.mp4"))
        pairs: dict[int, list[np.ndarray]] = {SKIN: [], CLOTHES: []}
        generator = np.random.default_rng(0)
        for number, ((frame, matte), labels) in enumerate(zip(clean_crops(portrait), regions, strict=True)):
            if not wanted[number]:
                continue
            person = next(renders)
            inside = shown(torch.tensor([number]), torch.from_numpy(matte.copy())[None, None])[0].numpy()
            known = inside & (matte > 240) & (person.alpha > 0.95)
            for region, found in pairs.items():
                mask = cv2.erode(((labels == region) & known).astype(np.uint8), np.ones((5, 5))).astype(bool)
                places = generator.permutation(np.flatnonzero(mask))[:_PIXELS]
                before, after = (_blurred(x, mask).reshape(-1, 3) for x in (as_float(frame), person.straight()))
                found.append(np.stack([before[places], after[places]]))
        skin, clothes = (np.concatenate(pairs[region], 1) for region in (SKIN, CLOTHES))
        return cls(Change.between(skin[0], skin[1], _own_colours(portrait)), Change.between(clothes[0], clothes[1]))

    def __call__(self, image: np.ndarray, sleeves: np.ndarray) -> np.ndarray:
        """Hands ``[S, S, 3]`` in [0, 1] in the edit's colours, but for ``sleeves`` ``[S, S]``, bool, which have those of clothes."""
        skin, clothes = (image if change is None else change(image) for change in (self.skin, self.clothes))
        share = cv2.GaussianBlur(sleeves.astype(np.float32), (0, 0), 2 * _SOFT)[..., None]
        return skin + share * (clothes - skin)


def _own_colours(portrait: Portrait) -> np.ndarray:
    """Some colours of the hands' skin in the clip ``[N, 3]``."""
    hands = find_hands(portrait)
    if hands is None or not portrait.path(LAYER).exists():
        return np.empty((0, 3))
    shown = np.unique(hands.frames[hands.seen])
    wanted = shown[np.linspace(0, len(shown) - 1, min(_SAMPLES, len(shown))).astype(int)]
    found = [np.empty((0, 3))]
    for number, ((frame, _), alpha) in enumerate(
        zip(clean_crops(portrait), read_gray(portrait.path(LAYER)), strict=True)
    ):
        if number in wanted:
            found.append(as_float(frame)[(alpha > 250) & hands.outline(number)])
    return np.concatenate(found)


def _blurred(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the pixels of ``mask`` ``[S, S]`` about each pixel of ``image`` ``[S, S, 3]``."""
    weight = mask.astype(np.float32)
    total = cv2.GaussianBlur(image * weight[..., None], (0, 0), _BLUR)
    return total / np.maximum(cv2.GaussianBlur(weight, (0, 0), _BLUR), 1e-6)[..., None]
