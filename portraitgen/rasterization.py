"""Differentiable Gaussian splatting: gsplat's CUDA kernels where they are built, otherwise our Warp kernels."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor


@cache
def _gsplat_runs(device: torch.device) -> bool:
    """Whether gsplat was installed with compiled kernels and they run on this GPU.

    gsplat without them would build them at its first use, for minutes, or print that it cannot: it is not even imported
    then, and a build that an earlier use left in torch's cache does not count, since gsplat would check whether to renew
    it. A wheel may lack the newest architectures, which only shows when a kernel is launched."""
    spec = find_spec("gsplat")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not any(Path(folder, "csrc" + suffix).exists() for folder in folders for suffix in EXTENSION_SUFFIXES):
        return False
    try:
        importlib.import_module("gsplat.csrc")
        one = torch.ones(1, 1, 3, device=device)
        eye = torch.eye(4, device=device)[None]
        _gsplat(one, eye[:, :1], one, one[..., 0], one, eye, eye[:, :3, :3], 16, 16, None)
        return True
    except (ImportError, OSError, RuntimeError):
        return False


def _gsplat(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, backgrounds: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from gsplat import rasterization

    images, alphas, _ = rasterization(
        means,
        quats,
        scales,
        opacities,
        features.expand(len(means), *features.shape[-2:]),
        viewmats[:, None],
        Ks[:, None],
        width,
        height,
        backgrounds=None if backgrounds is None else backgrounds[:, None],
        packed=False,
    )
    return images[:, 0], alphas[:, 0]


def backend_name(device: torch.device | str) -> str:
    """The path that `rasterize` takes for tensors on `device`: "gsplat", "Warp (CUDA)" or "Warp (CPU)".

    For a GPU this may start CUDA, so it is a question for the process that has the GPU."""
    device = torch.device(device)
    if device.type == "cpu":
        return "Warp (CPU)"
    return "gsplat" if _gsplat_runs(device) else "Warp (CUDA)"


def rasterize(
    means: Tensor,  # [B, N, 3] metres, world space
    quats: Tensor,  # [B, N, 4] wxyz, normalised here
    scales: Tensor,  # [B, N, 3] metres, standard deviations
    opacities: Tensor,  # [B, N] in [0, 1]
    features: Tensor,  # [B, N, D], or [N, D] shared by the batch
    viewmats: Tensor,  # [B, 4, 4] world to camera
    Ks: Tensor,  # [B, 3, 3] pixels
    width: int,
    height: int,
    backgrounds: Tensor | None = None,  # [B, D]
) -> tuple[Tensor, Tensor]:  # [B, H, W, D], [B, H, W, 1]
    """Renders one set of posed Gaussians per frame of a batch, with any number of channels D.

    OpenCV camera, pixel centres at +0.5. EWA splatting as in gsplat 1.5.3's "classic" mode: 0.3 px² of screen-space
    blur, alphas from 1/255 to 0.999, near plane at 1 cm, a pixel finished once its transmittance would reach 1e-4. A
    window of a larger image is a shifted principal point in `Ks`. Float32 throughout.

    Returns the composited features (premultiplied, over `backgrounds` if given) and the alpha. Differentiable in all
    Gaussian inputs and `backgrounds`, not in the cameras; on the CPU the result does not vary from run to run.

    Raises ValueError for inputs whose shapes do not fit together.
    """
    frames, number = opacities.shape if opacities.ndim == 2 else (-1, -1)
    channels = features.shape[-1] if features.ndim else -1
    expected: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "means": (means, [(frames, number, 3)]),
        "quats": (quats, [(frames, number, 4)]),
        "scales": (scales, [(frames, number, 3)]),
        "opacities": (opacities, [(frames, number)]),
        "features": (features, [(frames, number, channels), (number, channels)]),
        "viewmats": (viewmats, [(frames, 4, 4)]),
        "Ks": (Ks, [(frames, 3, 3)]),
        "backgrounds": (backgrounds, [(frames, channels)]),
    }
    for name, (tensor, shapes) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) not in shapes:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {' or '.join(map(str, shapes))}")
        if tensor.dtype != torch.float32 or tensor.device != means.device:
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}, expected float32 on {means.device}")
    if width < 1 or height < 1:
        raise ValueError(f"cannot render an image of {width} x {height} pixels")

    if backend_name(means.device) == "gsplat":
        return _gsplat(means, quats, scales, opacities, features, viewmats, Ks, width, height, backgrounds)
    from ._warp_rasterizer import Rasterize

    return Rasterize.apply(means, quats, scales, opacities, features, backgrounds, viewmats, Ks, width, height)
