"""Differentiable Gaussian splatting: gsplat's CUDA kernels where they are built, otherwise our Warp kernels."""

from __future__ import annotations

import importlib
import os
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def _gsplat_loads() -> bool:
    """Whether gsplat has compiled kernels that load, from its wheel or from a build in torch's extension cache.

    Never starts a build, which takes minutes: gsplat's backend is imported only where such a build exists."""
    try:
        importlib.import_module("gsplat.csrc")
        return True
    except ImportError:
        from torch.utils.cpp_extension import CUDA_HOME, get_default_build_root
    python = f"py{sys.version_info.major}{sys.version_info.minor}_cu{(torch.version.cuda or '').replace('.', '')}"
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or os.path.join(get_default_build_root(), python)
    if CUDA_HOME is None or not Path(root, "gsplat_cuda", "gsplat_cuda.so").exists():
        return False
    return importlib.import_module("gsplat.cuda._backend")._C is not None


def backend_name(device: torch.device | str) -> str:
    """The path that `rasterize` takes for tensors on `device`: "gsplat", "Warp (CUDA)" or "Warp (CPU)"."""
    if torch.device(device).type == "cpu":
        return "Warp (CPU)"
    return "gsplat" if _gsplat_loads() else "Warp (CUDA)"


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
        from gsplat import rasterization

        if features.ndim == 2:
            features = features.expand(frames, number, channels)
        images, alphas, _ = rasterization(
            means,
            quats,
            scales,
            opacities,
            features,
            viewmats[:, None],
            Ks[:, None],
            width,
            height,
            backgrounds=None if backgrounds is None else backgrounds[:, None],
            packed=False,
        )
        return images[:, 0], alphas[:, 0]
    from ._warp_rasterizer import Rasterize

    return Rasterize.apply(means, quats, scales, opacities, features, backgrounds, viewmats, Ks, width, height)
