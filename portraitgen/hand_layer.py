"""Hands before the person, told from the body behind them, and laid over the rendered one as the clip has them.

The avatar is learned without them, so that what it shows of a frame is what is behind them: a hand is what differs from that, near where
one is seen. Where nothing differs it does not matter which of both is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .clip import read_gray, write_gray
from .crop import as_float
from .fitting import Fitted
from .frames import TrainingFrames
from .hand_colours import Recolouring
from .hands import LAYER, Hands
from .mattes import clean_crops, clean_plate, find_hands, inside_picture
from .matting import decontaminate
from .portrait import Portrait
from .regions import CLOTHES
from .rendering import RenderedCrop, render_crops
from .streaming import feed
from .training_data import read_pictures

# Difference of colours from which on something is before the body, and before the scene where the avatar shows none but the matte somebody.
_BODY, _SCENE = 0.06, 0.03
_AREA = (5, 5)  # pixels that it is averaged over
_EDGE = 0.7  # share of it that a single pixel must have: the average goes beyond the edge
_BORNE_OUT = 0.75  # share of what was found as a hand that differs at least half as much: a moving one may be found where it was before
_SPECK = np.ones((3, 3), bool)  # what is thinner is noise
_SOFT = 0.8  # pixels, of an edge
_LEAST = 0.2  # of a hand in a pixel that is not learned from


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
    near = hands.around(number, anywhere=True)
    other = (about > 1) & (np.abs(difference).max(2) > _EDGE * limit) & (matte > 0.5) & near
    other = ndimage.binary_opening(ndimage.binary_closing(other, _SPECK), _SPECK) | core
    # What the avatar gets wrong elsewhere in the neighbourhood is not a hand.
    groups, _ = ndimage.label(other)
    shown = np.unique(groups[hands.outline(number, anywhere=True) & other])
    alpha = np.isin(groups, shown[shown > 0])
    soft = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), _SOFT)
    return np.minimum(soft, np.maximum(matte, core))


def body_beside_hands(portrait: Portrait, fitted: Fitted, data: TrainingFrames) -> Iterator[tuple[int, Tensor]]:
    """What there is to learn from beside hands, once the avatar is known well enough to tell them from the body.

    Before, all that hands and arms might hide is left out: half of a shoulder, where an arm is raised before it for the whole clip.

    Args:
        fitted: half learned, without hands.
        data: the frames that are learned from.

    Yields:
        The position in ``data`` of each frame with a hand, and its pixels to learn from ``[S, S]``, bool: at least those of ``data``.
    """
    hands = find_hands(portrait)
    if hands is None:
        return
    frames = data.frames.cpu().numpy()
    rows = np.flatnonzero(np.isin(frames, hands.frames))
    wanted = np.isin(np.arange(portrait.clip.frame_count), frames[rows])
    renders = render_crops(portrait, fitted, data.K, only=wanted)
    pictures = read_pictures(portrait, set(frames[rows].tolist()), foreground=False)
    plate = as_float(portrait.crop.extract(clean_plate(portrait)))
    picture = inside_picture(portrait)
    for row, shown, body in zip(rows.tolist(), pictures, renders, strict=True):
        frame, matte = as_float(shown.image.permute(1, 2, 0).numpy()), as_float(shown.alpha[0].numpy())
        found = hand_alpha(hands, shown.frame, frame, matte, body, plate) > _LEAST
        beside = hands.spread(shown.frame, found)
        yield row, (shown.inside | (picture & ~torch.from_numpy(beside))).to(data.inside.device)


def has_hands(portrait: Portrait) -> bool:
    """Whether hands are laid over the results of a portrait."""
    return portrait.path(LAYER).exists()


def with_hands(
    portrait: Portrait,
    rendered: Iterator[RenderedCrop],
    recolour: Recolouring | None = None,
    relief: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Iterator[RenderedCrop]:
    """``rendered`` frames of a clip that `has_hands` with the layer of hands laid over, as the clip or ``recolour`` has them.

    Args:
        relief: what other cameras than the clip's see, see `hand_relief.Relief`.
    """
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
        if relief is not None:
            color, share = relief(number, color, share)
        mixed = color * share[..., None] + person.color * (1 - share[..., None])
        yield replace(person, color=mixed, alpha=share + person.alpha * (1 - share))


def _sleeves(hands: Hands, number: int, labels: np.ndarray) -> np.ndarray:
    """Which pixels of the layer are cloth ``[S, S]``, bool; the shadows of a hand are often taken for hair or for cloth."""
    return (labels == CLOTHES) & ~hands.outline(number)
