"""Style pictures, embedded engine: the arbitrary style network, told to paint every frame alike and to leave faces their shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..errors import InputError
from . import EditBatch
from .colour import blend, from_oklab, smoothstep, to_oklab
from .pictures import read_picture
from .style_network import STRIDE, Normal, describe, load_network
from .surface import blur, pixels, region

WORK = (384, 768)  # pixels along the longer side at which frames are painted: strokes keep their size beside a face
MARGIN = 32  # pixels of reflection around a frame, so that the network's own padding is cut off
SMALLEST = 8  # pixels; a smaller style picture has no brushwork
DARKEST = 0.04  # of a palette, so that its logits stay finite
TILE = 512  # pixels at which the style picture's shapes are kept
TRACE = 0.06  # deviation of these shapes where they are added to a background, before it is painted
GUIDE, GUIDE_FACE = 0.4, 0.8  # how far coarse light and shade follow the source
SIGMA = 4.0  # what is coarse, pixels of 512
TONES = 32  # steps of a tonal range
REGRADE, LIFT = 0.7, 0.35  # how far the tonal range becomes the style's, how far skin keeps its brightness


@dataclass
class _Clip:
    """What is measured on the first frames that are seen and holds for all that follow.

    Attributes:
        own: style vector of the frames themselves ``[100]``.
        tone: mean and deviation of the frames' lightness.
        moments: what the network's layers are normalised with.
        palette: mean ``[3]`` and covariance ``[3, 3]`` of the network's logits.
        painted: tones of the network's pictures, as `tones` gives them.
    """

    own: Tensor
    tone: tuple[Tensor, Tensor]
    moments: dict[str, Normal] = field(default_factory=dict)
    palette: tuple[Tensor, Tensor] | None = None
    painted: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The same as tensors, for `of`."""
        pairs = {**self.moments, "tone": self.tone} | ({"palette": self.palette} if self.palette else {})
        tensors = {f"{name} {number}": pair[number] for name, pair in pairs.items() for number in (0, 1)}
        return tensors | {"own": self.own} | ({} if self.painted is None else {"painted": self.painted})

    @classmethod
    def of(cls, tensors: dict[str, Tensor], device: torch.device) -> _Clip:
        """What `tensors` gave."""
        there = {name: value.to(device) for name, value in tensors.items()}
        pairs = {name[:-2]: (value, there[f"{name[:-2]} 1"]) for name, value in there.items() if name.endswith(" 0")}
        tone, palette = pairs.pop("tone"), pairs.pop("palette", None)
        return cls(tensors["own"], tone, pairs, palette, there.get("painted"))  # its own vector stays on the CPU


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C]`` and covariance ``[C, C]`` of pictures ``[B, C, H, W]``."""
    points = values.transpose(0, 1).flatten(1)
    mean = points.mean(1)
    centred = points - mean[:, None]
    return mean, centred @ centred.T / points.shape[1]


def root(matrix: Tensor, power: float = 0.5) -> Tensor:
    """A power of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(1e-4) ** power) @ vectors.T


def transport(source: Tensor, target: Tensor) -> Tensor:
    """The linear map ``[C, C]`` that gives the covariance ``source`` that of ``target`` and moves colours the least.

    Monge-Kantorovich solution for Gaussians: Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour mapping", CVMP 2007.
    """
    half, inverse = root(source), root(source, -0.5)
    return inverse @ root(half @ target @ half) @ inverse


def motif(style: Tensor) -> Tensor:
    """The shapes of a style picture ``[3, h, w]``: its lightness without grain and large areas, ``[1, 1, TILE, TILE]``, deviation 1."""
    lightness = to_oklab(functional.interpolate(style[None], (TILE, TILE), mode="bilinear", antialias=True))[:, :1]
    detail = blur(lightness, 1.5) - blur(lightness, 16.0)
    return (detail / detail.std().clamp_min(1e-3)).clamp(-2.5, 2.5)


def tones(lab: Tensor) -> Tensor:
    """The tonal range of OKLab pictures ``[B, 3, H, W]``: mean L, a, b ``[TONES, 3]`` of equal shares of the pixels, dark to light."""
    points = lab.movedim(1, -1).flatten(0, -2)
    points = points[points[:, 0].argsort()]
    shares = points[: len(points) // TONES * TONES].view(TONES, -1, 3)
    return shares.mean(1)


def regraded(lab: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Give OKLab pictures with the tones ``source`` those of ``target``: lightness by lightness, with the colour cast each one has."""
    light = lab[:, 0]
    above = torch.searchsorted(source[:, 0].contiguous(), light.contiguous()).clamp(1, TONES - 1)
    low, high = source[above - 1, 0], source[above, 0]
    where = ((light - low) / (high - low).clamp_min(1e-4)).clamp(0, 1)[..., None]
    change = torch.lerp((target - source)[above - 1], (target - source)[above], where)
    return lab + change.movedim(-1, 1)


class BuiltinStyle:
    """Repaints frames, background and all, in the manner of a picture.

    What the network is normalised with is measured once, on the first frames that the editor sees, so that the same cheek is painted
    alike in every frame, in a picture of the head alone and beside another background.

    Args:
        picture: the style picture, any that `read_picture` reads.
        keep_colors: take its brushwork and leave the frames' colours.
        device: where the network runs.

    Raises:
        InputError: if the picture cannot be read or is too small to have a style.
    """

    name = "Built-in style transfer"
    reads_render = False
    face_aware = True
    edits_background = True

    def __init__(self, picture: Path, keep_colors: bool = False, device: str = "cpu") -> None:
        style = read_picture(picture)
        if min(style.shape[-2:]) < SMALLEST:
            height, width = style.shape[-2:]
            raise InputError(
                f"The style picture {picture.name} is {width} x {height} pixels, too small to have a style. Give a larger one."
            )
        self.understood = f"the brushwork of {picture.name}" + (" in the clip's own colours" if keep_colors else "")
        self.keep_colors = keep_colors
        self.network = load_network(device)
        self.vector = describe(style)
        small = functional.interpolate(style[None], (256, 256), mode="bilinear", antialias=True).to(device)
        self.palette = spread(torch.logit(small.clamp(DARKEST, 1 - DARKEST)))
        self.tones = tones(to_oklab(small))
        self.motif = motif(style).to(device)
        self.clips: dict[float, _Clip] = {}

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the painted frames, [B, 3, H, W] in [0, 1], on the batch's device."""
        if batch.strength == 0:
            return batch.source
        source = batch.source.clamp(0, 1)
        clip = self.clips.get(batch.strength)
        if clip is None:
            lightness = to_oklab(source)[:, 0]
            own = torch.stack([describe(image) for image in source]).mean(0)
            clip = self.clips[batch.strength] = _Clip(own, (lightness.mean(), lightness.std().clamp_min(0.02)))
        painted = self._guided(self._paint(batch, clip), source, batch, clip)
        # the network does not quite give a frame back for the frame's own vector, so a weak style fades out
        return blend(source, painted, smoothstep(0.0, 0.6, torch.tensor(batch.strength)).item()).clamp(0, 1)

    def memory(self) -> dict[str, Tensor]:
        """What was measured on the first frames, by the strength of their edit."""
        return {
            f"{strength!r} {name}": value
            for strength, clip in self.clips.items()
            for name, value in clip.tensors().items()
        }

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Paint as the editor did whose `memory` this is."""
        clips: dict[str, dict[str, Tensor]] = {}
        for key, value in memory.items():
            strength, name = key.split(" ", 1)
            clips.setdefault(strength, {})[name] = value
        self.clips = {float(strength): _Clip.of(clip, self.motif.device) for strength, clip in clips.items()}

    def _primed(self, batch: EditBatch) -> Tensor:
        """What the network gets to see: the frames less their noise, and a trace of the style picture's shapes behind the person.

        Where a frame is smooth, strokes hang on its noise and on the network's grid. On walls they are given something better.
        """
        height, width = batch.source.shape[-2:]
        where = (pixels(batch) / max(height, width) * 2 - 1).permute(0, 2, 3, 1).to(self.motif)
        shapes = functional.grid_sample(self.motif, where, align_corners=False, padding_mode="reflection").to(
            batch.source
        )
        trace = TRACE * batch.strength * (1 - batch.alpha) * shapes
        return (blur(batch.source, 0.8 * max(height, width) / 512) + trace).clamp(0, 1)

    def _paint(self, batch: EditBatch, clip: _Clip) -> Tensor:
        """The network's picture in the style's palette."""
        strength, size = batch.strength, list(batch.source.shape[-2:])
        scale = min(max(max(size), WORK[0]), WORK[1]) / max(size)
        work = [max(MARGIN + STRIDE, round(side * scale / STRIDE) * STRIDE) for side in size]
        padded = functional.pad(_resize(self._primed(batch), work), [MARGIN] * 4, mode="reflect").to(self.palette[0])
        style = self.network.normals(torch.lerp(clip.own, self.vector, strength))
        logits = self.network(padded, style, clip.moments)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        if clip.palette is None:
            clip.palette = spread(logits)
        mean, covariance = clip.palette
        towards = transport(covariance, self.palette[1])
        recoloured = (
            torch.einsum("ij,bjhw->bihw", towards, logits - mean[:, None, None]) + self.palette[0][:, None, None]
        )
        return _resize(torch.sigmoid(torch.lerp(logits, recoloured, strength)).to(batch.source), size)

    def _guided(self, painted: Tensor, source: Tensor, batch: EditBatch, clip: _Clip) -> Tensor:
        """Light and shade follow the source where it is coarse, so that a face stays this face; brushwork is what is fine."""
        scale = max(source.shape[-2:]) / 512
        lab, original = to_oklab(painted), to_oklab(source)
        if clip.painted is None:
            clip.painted = tones(lab)
        target = torch.lerp(clip.painted, self.tones.to(lab), REGRADE * batch.strength)
        lab = regraded(lab, clip.painted, target)
        mean, deviation = clip.tone
        aim, spreads = target[:, 0].mean(), target[:, 0].std().clamp_min(0.02)
        light = lab[:, :1]
        if self.keep_colors:
            light = (light - aim) * (deviation / spreads) + mean
            aim, spreads = mean, deviation
        skin = _skin(batch)
        wanted = (original[:, :1] - mean) * (spreads / deviation).clamp(0.6, 1.6) + torch.lerp(aim, mean, LIFT * skin)
        weight = GUIDE + (GUIDE_FACE - GUIDE) * skin
        light = light + weight * (blur(wanted, SIGMA * scale) - blur(light, SIGMA * scale))
        colour = original[:, 1:] if self.keep_colors else lab[:, 1:]
        return from_oklab(torch.cat([light.clamp(0, 1), colour], 1))


def _skin(batch: EditBatch) -> Tensor:
    """The face's skin ``[B, 1, H, W]``, with soft edges."""
    return blur(region(batch, "skin"), 6 * max(batch.source.shape[-2:]) / 512)


def _resize(images: Tensor, size: list[int]) -> Tensor:
    if list(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
