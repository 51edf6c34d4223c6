"""The light that a green or a blue screen throws on the person, taken off: before any other scene, hair would have a green rim."""

from __future__ import annotations

import cv2
import numpy as np

from .regions import CLOTHES

_KEYS = (1, 2)  # channels of RGB that screens have
_LOUDER = 30  # grey levels by which a screen's own channel is above the others
_SHARE = 0.7  # of the scene that is the screen
_REACH = (
    0.05,
    0.1,
)  # of the crop's side: how far from the person's edge all of the light is taken off, and from where on none


def screen_channel(scene: np.ndarray) -> int | None:
    """Which channel of RGB a scene without the person ``[H, W, 3]`` uint8 consists of, if it is a green or a blue screen.

    >>> screen_channel(np.full((4, 4, 3), (70, 155, 105), np.uint8))
    1
    >>> screen_channel(np.full((4, 4, 3), (90, 100, 95), np.uint8)) is None
    True
    """
    for key in _KEYS:
        if (_excess(scene, key) > _LOUDER).mean() > _SHARE:
            return key
    return None


def without_spill(frame: np.ndarray, alpha: np.ndarray, labels: np.ndarray, key: int) -> np.ndarray:
    """A working crop whose screen, and its light at the edge of hair and skin, have no more of the channel than of the others.

    Clothes stay as they are where they cover the screen: what is green there may be their own.

    Args:
        frame: ``[S, S, 3]`` uint8.
        alpha: ``[S, S]`` uint8.
        labels: the regions of the frame ``[S, S]``, indices into `regions.REGIONS`.
        key: see `screen_channel`.
    """
    near, far = (share * len(alpha) for share in _REACH)
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    weight = np.clip((far - depth) / (far - near), 0, 1) * ((labels != CLOTHES) | (alpha < 255))
    clean = frame.copy()
    clean[..., key] = np.rint(frame[..., key] - weight * _excess(frame, key).clip(0))
    return clean


def _excess(picture: np.ndarray, key: int) -> np.ndarray:
    """Grey levels of a channel above the larger of the others ``[H, W]``."""
    return picture[..., key].astype(np.int16) - np.delete(picture, key, axis=2).max(2)
