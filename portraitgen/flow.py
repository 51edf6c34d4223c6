"""Optical flow from one picture of a person to another, and how far it is to be trusted."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

SHRINK = 2  # flow is measured at half size: large motions become small, and it stays exact to a tenth of a pixel
_LUMA = (0.3, 0.6, 0.1)
_LIFT = 0.35  # grey of the person's black, so that dark hair stands out from the black around the person
_GRADIENT = 30.0  # squared grey levels per pixel at which a place is half trusted
_DIFFERENCE = 12.0  # grey levels that the moved render may differ by before it is half trusted


def shrunk(image: Tensor) -> Tensor:
    """``[C, S, S]`` to ``[C, S / 2, S / 2]``."""
    return torch.nn.functional.avg_pool2d(image[None], SHRINK)[0]


def masked_gray(image: Tensor, alpha: Tensor) -> np.ndarray:
    """`gray` at half size of a picture ``[3, S, S]`` and its alpha ``[1, S, S]``, uint8."""
    cover = alpha.float() / 255
    return gray(shrunk(image.float() / 255 * cover), shrunk(cover)[0])


def gray(color: Tensor, alpha: Tensor) -> np.ndarray:
    """Premultiplied colour ``[3, h, w]`` and alpha ``[h, w]`` as one grey picture uint8 in which the person stands out from black."""
    luma = (color * torch.tensor(_LUMA, device=color.device)[:, None, None]).sum(0)
    return ((_LIFT * alpha + (1 - _LIFT) * luma) * 255).clamp(0, 255).byte().cpu().numpy()


def optical_flow(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Motion ``[h, w, 2]`` in pixels from one grey picture to another, and trust in it ``[h, w]`` in [0, 1].

    Trusted are places with structure whose moved picture looks like the target.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
    rows, columns = np.mgrid[: before.shape[0], : before.shape[1]].astype(np.float32)
    moved = cv2.remap(
        after, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    difference = cv2.blur(np.abs(moved.astype(np.float32) - before), (5, 5))
    across, down = cv2.Sobel(after, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(after, cv2.CV_32F, 0, 1) / 8
    structure = cv2.blur(across**2 + down**2, (7, 7))
    trust = structure / (structure + _GRADIENT) / (1 + (difference / _DIFFERENCE) ** 2)
    return flow, trust.astype(np.float32)
