"""Training pictures: the chosen frames of a clip in memory, and random windows of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ON_HEAD = 0.3  # share of the windows
_CELLS = 16  # along each side of a frame


def sent(values: np.ndarray | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``values`` of the CPU on ``device``, without waiting for it: a copy from memory that may be paged out would, every time."""
    tensor = torch.as_tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True)
class Batch:
    """Windows cut from training frames.

    Attributes:
        frames: index of the clip's frame per picture ``[B]``.
        image: straight foreground colour ``[B, 3, h, w]`` in [0, 1].
        alpha: ``[B, 1, h, w]`` in [0, 1].
        Ks: intrinsics of the windows ``[B, 3, 3]``.
        inside: pixels of which something is known ``[B, 1, h, w]``, bool.
    """

    frames: Tensor
    image: Tensor
    alpha: Tensor
    Ks: Tensor
    inside: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.frames[part], self.image[part], self.alpha[part], self.Ks[part], self.inside[part])


class Picture(NamedTuple):
    """One frame of a clip.

    Attributes:
        frame: its index in the clip.
        image: straight foreground colour ``[3, S, S]`` uint8.
        alpha: ``[1, S, S]`` uint8.
        inside: pixels of which something is known ``[S, S]``, bool.
    """

    frame: int
    image: Tensor
    alpha: Tensor
    inside: Tensor


@dataclass
class TrainingFrames:
    """Some frames of a clip, on the device that trains.

    Attributes:
        frames: index in the clip ``[M]``.
        images: straight foreground colour ``[M, 3, S, S]`` uint8.
        alphas: ``[M, 1, S, S]`` uint8.
        K: intrinsics of the working image ``[3, 3]``.
        heads: centre of the head ``[M, 2]`` in pixels, on the CPU, which windows are drawn towards.
        inside: pixels of each frame that show the body or what is behind it ``[M, S, S]``, bool; not bars, nor what is beyond the clip's
            frames, nor hands.
    """

    frames: Tensor
    images: Tensor
    alphas: Tensor
    K: Tensor
    heads: Tensor
    inside: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        return int(self.images.shape[-1])

    @cached_property
    def cells(self) -> np.ndarray:
        """Share of the person in each cell of a grid over each frame ``[M, cells]``, row by row; a frame's shares sum to one."""
        shares = torch.stack(
            [
                F.adaptive_avg_pool2d(a * i.float(), _CELLS).flatten()
                for a, i in zip(self.alphas, self.inside, strict=True)
            ]
        )
        shares = shares.double() + 1e-9  # nobody may be in a frame
        return (shares / shares.sum(1, keepdim=True)).cpu().numpy()

    def replaced(self, images: Tensor) -> TrainingFrames:
        """The same frames with other pictures ``[M, 3, S, S]`` uint8."""
        return dataclasses.replace(self, images=images)

    def select(self, index: Tensor) -> TrainingFrames:
        """The frames at positions ``index``."""
        images, alphas = self.images[index], self.alphas[index]
        return TrainingFrames(self.frames[index], images, alphas, self.K, self.heads[index], self.inside[index])

    def pictures(self, index: Iterable[int]) -> Iterator[Picture]:
        """The frames at positions ``index``, as they are stored."""
        return (Picture(int(self.frames[i]), self.images[i], self.alphas[i], self.inside[i]) for i in index)

    def whole(self, index: Tensor, factor: int) -> Batch:
        """Whole frames at positions ``index`` ``[B]`` (on the CPU), shrunk by ``factor``."""
        index = sent(index, self.images.device)
        image, alpha = self.images[index].float() / 255, self.alphas[index].float() / 255
        if factor > 1:
            # Average premultiplied, so that the colour behind the edge does not bleed in.
            small = F.avg_pool2d(alpha, factor)
            image = F.avg_pool2d(image * alpha, factor) / small.clamp_min(1e-3)
            alpha = small
        inside = self.inside[index, None, ::factor, ::factor]
        K = self.K.clone()
        K[:2] /= factor
        return Batch(self.frames[index], image.clamp(0, 1), alpha, K.expand(len(index), 3, 3), inside)

    def windows(self, index: Tensor, side: int, generator: np.random.Generator) -> Batch:
        """One random window of ``side`` pixels of each frame at ``index`` (on the CPU): on the head, or anywhere on the person.

        Drawn from the frame instead, its corners would be seen a few times only, after which Adam leaves noise there.
        """
        side = min(side, self.size)
        span = self.size - side
        corners = []
        for frame, head in zip(index.tolist(), self.heads[index].numpy(), strict=True):
            if generator.random() < _ON_HEAD:
                centre = head + generator.uniform(-0.2, 0.2, 2) * side
            else:
                row, column = divmod(generator.choice(_CELLS**2, p=self.cells[frame]), _CELLS)
                centre = (np.array([column, row]) + generator.random(2)) * self.size / _CELLS
            corners.append(np.clip(np.round(centre - side / 2), 0, span).astype(int))
        cut = [(slice(y, y + side), slice(x, x + side)) for x, y in corners]
        image = torch.stack([self.images[i][:, ys, xs] for i, (ys, xs) in zip(index.tolist(), cut, strict=True)])
        alpha = torch.stack([self.alphas[i][:, ys, xs] for i, (ys, xs) in zip(index.tolist(), cut, strict=True)])
        inside = torch.stack([self.inside[i, None, ys, xs] for i, (ys, xs) in zip(index.tolist(), cut, strict=True)])
        Ks = self.K.repeat(len(index), 1, 1)
        Ks[:, :2, 2] -= sent(np.stack(corners), Ks.device, Ks.dtype)
        return Batch(self.frames[sent(index, Ks.device)], image.float() / 255, alpha.float() / 255, Ks, inside)
