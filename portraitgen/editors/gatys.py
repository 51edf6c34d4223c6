"""Style pictures, Hub engine: Gatys' optimisation on VGG19, on a batch of frames that starts from the current render.

Gatys, Ecker, Bethge, "Image style transfer using convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

from .. import weights
from ..errors import InputError
from ..streaming import breathe
from . import EditBatch
from .colour import blend, from_oklab, smoothstep, to_oklab
from .memory import resident
from .pictures import read_picture

# VGG19's convolutions by index in `features`, with their widths; 0 is a halving
LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
STYLE_LAYERS = (0, 5, 10, 19, 28)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
CONTENT_LAYER = 21  # relu4_2
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
SMALLEST, LARGEST = (
    16,
    768,
)  # pixels of a side: VGG19 halves four times; larger pictures are painted smaller, for memory's sake


def convolutions() -> list[tuple[int, int, int]]:
    """Index in ``features``, channels in and channels out of every convolution down to relu5_1."""
    found, index, channels = [], 0, 3
    for width in LAYERS:
        if width:
            found.append((index, channels, width))
            channels = width
        index += 2 if width else 1  # a convolution is followed by its ReLU
    return found


class VGG19:
    """VGG19 down to relu5_1.

    Args:
        tensors: ``features.{i}.weight`` and ``features.{i}.bias``, as timm and torchvision name them.
        device: where it runs.

    Raises:
        InputError: a tensor is missing or has another shape.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        for index, before, after in convolutions():
            shapes = {f"features.{index}.weight": (after, before, 3, 3), f"features.{index}.bias": (after,)}
            for name, shape in shapes.items():
                if name not in tensors or tensors[name].shape != shape:
                    raise InputError(f"The file of VGG19 has no {name} of shape {shape}. Fetch it again.")
            weight, bias = (tensors[name].to(device, torch.float32).requires_grad_(False) for name in shapes)
            self.layers[index] = weight, bias
        self.mean = torch.tensor(MEAN, device=device)[:, None, None]
        self.deviation = torch.tensor(DEVIATION, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        """Features after the ReLU of `STYLE_LAYERS` and `CONTENT_LAYER` of RGB pictures ``[B, 3, H, W]`` in [0, 1]."""
        hidden, found = (images - self.mean) / self.deviation, {}
        before = 0
        for index, (weight, bias) in self.layers.items():
            if index - before == 3:  # a pooling layer lies between
                hidden = functional.max_pool2d(hidden, 2)
            hidden, before = functional.relu(functional.conv2d(hidden, weight, bias, padding=1)), index
            if index in (*STYLE_LAYERS, CONTENT_LAYER):
                found[index] = hidden
        return found


def load_vgg19(file: Path, device: str) -> VGG19:
    """Read ``model.safetensors`` of timm's vgg19.tv_in1k; the classifier, four fifths of it, stays on the disk."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            wanted = [name for name in stored.keys() if name.startswith("features.")]  # noqa: SIM118 it is no dictionary
            tensors = {name: stored.get_tensor(name) for name in wanted}
    except SafetensorError:
        raise InputError(f"{file} is broken. Delete it and fetch vgg19 again.") from None
    return VGG19(tensors, torch.device(device))


def gram(features: Tensor) -> Tensor:
    """Mean products of channels ``[B, C, C]`` of features ``[B, C, H, W]``."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


class Gatys:
    """Repaints frames so that VGG19 sees the style picture's texture and the frames' content in them.

    Each frame is optimised on its own, beside others for speed, from the current render: what earlier passes and other frames have agreed
    on is where the next pass begins, so passes bring frames together.

    Args:
        picture: the style picture.
        keep_colors: take its brushwork and leave the frames' colours.
        device: "cpu" or "cuda".
        steps: steps of Adam per edit.
        chunk: frames optimised at a time.

    Raises:
        InputError: if the weights are not here, or the picture cannot be read or is too small.
    """

    name = "Gatys (VGG19)"
    reads_render = True
    face_aware = True
    edits_background = True
    style_weight = 8.0
    rate = 0.03

    def __init__(self, picture: Path, keep_colors: bool, device: str, *, steps: int = 120, chunk: int = 4) -> None:
        folder = weights.path("vgg19")
        if folder is None:
            raise InputError(
                "The weights of VGG19 are not here. Fetch them with: python -m portraitgen weights --fetch vgg19, "
                "or use the engine builtin."
            )
        style = read_picture(picture, max_side=512)
        if min(style.shape[-2:]) < SMALLEST:
            height, width = style.shape[-2:]
            raise InputError(
                f"The style picture {picture.name} is {width} x {height} pixels, too small to have a style. Give a larger one."
            )
        self.understood = f"the brushwork of {picture.name}" + (" in the clip's own colours" if keep_colors else "")
        self.keep_colors, self.steps, self.chunk = keep_colors, steps, chunk
        self.device = torch.device(device)
        self.file = folder / "model.safetensors"
        with self._network():
            pass  # a broken file is found now, not after a clip has been learned
        self.style = style[None].to(self.device)

    def edit(self, batch: EditBatch) -> Tensor:
        """Return the painted frames, [B, 3, H, W] in [0, 1], on the batch's device; sides of at least `SMALLEST` pixels."""
        if batch.strength == 0:
            return batch.source
        size = batch.source.shape[-2:]
        scale = min(1.0, LARGEST / max(size))
        work = (round(size[0] * scale), round(size[1] * scale))
        frames, renders = _resize(batch.source, work), _resize(batch.rendered, work)
        pairs = zip(frames.split(self.chunk), renders.split(self.chunk), strict=True)
        with self._network() as network:
            with torch.no_grad():
                grams = self._grams(network, batch.source)
            painted = torch.cat([self._optimise(network, *pair, grams, batch.strength) for pair in pairs])
        with torch.no_grad():
            painted = _resize(painted, (size[0], size[1]))
            if self.keep_colors:
                lab = to_oklab(painted)
                painted = from_oklab(torch.cat([lab[:, :1], to_oklab(batch.source)[:, 1:]], 1))
            return blend(batch.source, painted, smoothstep(0.0, 0.3, torch.tensor(batch.strength)).item()).clamp(0, 1)

    def _network(self) -> AbstractContextManager[VGG19]:
        key = (self.name, self.file, str(self.device))
        return resident(key, lambda: load_vgg19(self.file, str(self.device)))

    def _grams(self, network: VGG19, source: Tensor) -> dict[int, Tensor]:
        """The style's Gram matrices ``[1, C, C]``; of its lightness, brought to the frames' range, where colours are kept."""
        style = self.style
        if self.keep_colors:
            light, own = to_oklab(style)[:, :1], to_oklab(source.to(style))[:, :1]
            light = (light - light.mean()) * (own.std() / light.std().clamp_min(1e-3)) + own.mean()
            style = from_oklab(torch.cat([light.clamp(0, 1), torch.zeros_like(style[:, 1:])], 1))
        features = network(style)
        return {layer: gram(features[layer]) for layer in STYLE_LAYERS}

    def losses(self, features: dict[int, Tensor], grams: dict[int, Tensor], content: Tensor) -> tuple[Tensor, Tensor]:
        """Style and content loss per frame ``[B]``, each relative to the size of what it is compared with."""
        apart = [
            (gram(features[layer]) - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp_min(1e-12)
            for layer, wanted in grams.items()
        ]
        kept = (features[CONTENT_LAYER] - content).square().mean((1, 2, 3))
        return torch.stack(apart).mean(0), kept / content.square().mean((1, 2, 3)).clamp_min(1e-12)

    def _optimise(
        self, network: VGG19, source: Tensor, render: Tensor, grams: dict[int, Tensor], strength: float
    ) -> Tensor:
        source, start = source.to(self.device), render.to(self.device)
        if self.keep_colors:
            source, start = _grey(source), _grey(start)
        with torch.no_grad():
            content = network(source)[CONTENT_LAYER]
        with torch.enable_grad():
            painted = start.clamp(0, 1).clone().requires_grad_()
            optimiser = torch.optim.Adam([painted], lr=self.rate)
            for step in range(self.steps):
                breathe()
                for group in optimiser.param_groups:
                    group["lr"] = self.rate * (1 - step / self.steps)
                style, kept = self.losses(network(painted), grams, content)
                rough = painted.diff(dim=2).square().mean((1, 2, 3)) + painted.diff(dim=3).square().mean((1, 2, 3))
                loss = (self.style_weight * strength * style + kept + rough).sum()  # frames do not touch each other
                (painted.grad,) = torch.autograd.grad(loss, [painted])
                optimiser.step()
                with torch.no_grad():
                    painted.clamp_(0, 1)
        return painted.detach().to(render)


def _grey(images: Tensor) -> Tensor:
    lab = to_oklab(images)
    return from_oklab(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1))


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
