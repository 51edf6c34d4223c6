"""The colours that an edit gives to hands, which are the clip's own: what it makes of skin and of clothes elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .clip import read_gray
from .crop import as_float
from .fitting import Fitted
from .hands import LAYER
from .keyframes import evenly_spaced
from .mattes import BodyShown, clean_crops, usable_frames
from .portrait import Portrait
from .regions import CLOTHES, SKIN
from .rendering import render_crops

_SAMPLES, _PIXELS = 8, 3000  # frames that colours are compared in, pixels of each and region
_BLUR = 2.5  # pixels, before colours are compared: the avatar is not in place to the pixel
_FEW = 300  # pixels that say too little of a region
_RIDGE = 1.0  # squares of colour, summed over pixels, that a tint must rise above
_LEVELS = 24
_UNCHANGED = 0.025  # mean change of colour that is the avatar's own error
_SOFT = 1.6  # pixels, of the edge of a sleeve


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
        """That of the avatar ``fitted``, by what it shows where the clip shows the person; for a clip with hands."""
        total, shown = portrait.clip.frame_count, BodyShown(portrait)
        assert shown.hands is not None
        wanted = np.isin(np.arange(total), evenly_spaced(usable_frames(portrait), _SAMPLES).numpy())
        with_hands = torch.from_numpy(np.unique(shown.hands.frames[shown.hands.seen]))
        handy = np.isin(np.arange(total), evenly_spaced(with_hands, _SAMPLES).numpy())
        renders = render_crops(portrait, fitted, K, only=wanted)
        grays = (read_gray(portrait.path(name)) for name in ("regions.mp4", LAYER))
        pairs: dict[int, list[np.ndarray]] = {SKIN: [], CLOTHES: []}
        own = [np.empty((0, 3))]
        generator = np.random.default_rng(0)
        for number, ((frame, matte), labels, layer) in enumerate(zip(clean_crops(portrait), *grays, strict=True)):
            if handy[number]:
                own.append(as_float(frame)[(layer > 250) & shown.hands.outline(number)])
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
        return cls(Change.between(skin[0], skin[1], np.concatenate(own)), Change.between(clothes[0], clothes[1]))

    def __call__(self, image: np.ndarray, sleeves: np.ndarray) -> np.ndarray:
        """Hands ``[S, S, 3]`` in [0, 1] in the edit's colours, but for ``sleeves`` ``[S, S]``, bool, which have those of clothes."""
        skin, clothes = (image if change is None else change(image) for change in (self.skin, self.clothes))
        share = cv2.GaussianBlur(sleeves.astype(np.float32), (0, 0), _SOFT)[..., None]
        return skin + share * (clothes - skin)


def _blurred(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the pixels of ``mask`` ``[S, S]`` about each pixel of ``image`` ``[S, S, 3]``."""
    weight = mask.astype(np.float32)
    total = cv2.GaussianBlur(image * weight[..., None], (0, 0), _BLUR)
    return total / np.maximum(cv2.GaussianBlur(weight, (0, 0), _BLUR), 1e-6)[..., None]
