"""The clip's frames as the optimisation takes them, read from a portrait's folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from .clip import read_gray
from .frames import Picture, TrainingFrames
from .mattes import BodyShown, clean_crops, crop_landmarks
from .matting import decontaminate
from .portrait import Portrait
from .tracking import Tracking


def load_training_frames(
    portrait: Portrait, tracking: Tracking, frames: Tensor, device: torch.device
) -> TrainingFrames:
    """Read ``frames`` (sorted indices ``[M]``) of the clip as foreground colour and alpha at working size."""
    place = {frame: row for row, frame in enumerate(frames.tolist())}
    size = portrait.crop.size
    images = torch.empty(len(frames), 3, size, size, dtype=torch.uint8)
    alphas = torch.empty(len(frames), 1, size, size, dtype=torch.uint8)
    for number, (frame, alpha) in enumerate(islice(clean_crops(portrait), int(frames[-1]) + 1)):
        if number in place:
            images[place[number]] = torch.from_numpy(decontaminate(frame, alpha)).permute(2, 0, 1)
            alphas[place[number], 0] = torch.from_numpy(alpha)
    heads = torch.from_numpy(head_centres(portrait)[frames.numpy()]).float()
    return TrainingFrames(
        frames.to(device),
        images.to(device),
        alphas.to(device),
        tracking.K.to(device),
        heads,
        BodyShown(portrait)(frames, alphas).to(device),
    )


def read_pictures(portrait: Portrait, frames: Collection[int], *, foreground: bool) -> Iterator[Picture]:
    """``frames`` of the clip one by one, in order and on the CPU.

    Args:
        foreground: with the person's own colours up to the edge, and not the frame's.
    """
    wanted, shown = set(frames), BodyShown(portrait)
    for number, (frame, alpha) in enumerate(clean_crops(portrait)):
        if number in wanted:
            image = torch.from_numpy(decontaminate(frame, alpha) if foreground else frame).permute(2, 0, 1)
            matte = torch.from_numpy(alpha.copy())[None]
            yield Picture(number, image, matte, shown(torch.tensor([number]), matte[None])[0])


def load_regions(portrait: Portrait, frames: Tensor, *regions: int) -> list[Tensor]:
    """Where each of ``regions`` is in ``frames`` (sorted indices ``[M]``) of the clip: ``[M, S, S]``, bool, on the frames' device."""
    labels = islice(read_gray(portrait.path("regions.mp4")), int(frames[-1]) + 1)
    wanted = set(frames.tolist())
    stored = torch.stack([torch.from_numpy(label.copy()) for number, label in enumerate(labels) if number in wanted])
    return [(stored == region).to(frames.device) for region in regions]


def head_centres(portrait: Portrait) -> np.ndarray:
    """Centre of the face in the working image ``[T, 2]``, pixels; frames without a face take their neighbours'."""
    centres = np.median(crop_landmarks(portrait), axis=1)
    known = ~np.isnan(centres).any(1)
    times = np.arange(len(centres))
    return np.stack([np.interp(times, times[known], centres[known, i]) for i in range(2)], 1)
