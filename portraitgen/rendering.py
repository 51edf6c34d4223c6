"""From avatar to pictures of the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .fitting import Fitted
from .portrait import Portrait

_BATCH = 4


@dataclass(frozen=True)
class RenderedCrop:
    """One rendered frame in the working crop, as numpy arrays.

    Attributes:
        color: premultiplied colour ``[S, S, 3]`` in [0, 1].
        alpha: ``[S, S]`` in [0, 1].
    """

    color: np.ndarray
    alpha: np.ndarray

    def straight(self) -> np.ndarray:
        """Straight colour ``[S, S, 3]`` in [0, 1]."""
        return np.clip(self.color / np.maximum(self.alpha, 1e-3)[..., None], 0, 1)


@torch.no_grad()
def render_crops(
    portrait: Portrait, fitted: Fitted, K: Tensor, viewmats: Tensor | None = None, only: np.ndarray | None = None
) -> Iterator[RenderedCrop]:
    """Render every frame of the clip in the working crop, streamed.

    Args:
        viewmats: cameras ``[T, 4, 4]`` world to camera; the clip's own camera if None.
        only: mask ``[T]`` of the frames that are wanted; all if None.
    """
    size, total = portrait.crop.size, portrait.clip.frame_count
    device = fitted.avatar.features.device
    K = K.to(device)
    wanted = torch.arange(total) if only is None else torch.from_numpy(np.flatnonzero(only))
    for frames in wanted.to(device).split(_BATCH):
        cameras = None if viewmats is None else viewmats[frames.cpu()].to(device)
        rendering = fitted.render(frames, K.expand(len(frames), 3, 3), size, size, cameras)
        alphas = rendering.alpha[:, 0].clamp(0, 1).cpu().numpy()
        colors = rendering.color.permute(0, 2, 3, 1).cpu().numpy()
        for color, alpha in zip(colors, alphas, strict=True):
            yield RenderedCrop(np.clip(color, 0, 1), alpha)
