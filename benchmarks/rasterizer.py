"""Forward and backward times of `rasterize` on Gaussians like a portrait avatar's.

    python benchmarks/rasterizer.py [--repeats N]

The scene is a UV grid over a head-sized ellipsoid whose splats have a sigma of 1 to 1.5 pixels. The plain-torch twin of
the tests is timed at a small size; gsplat, where its compiled kernels are present, and Warp on CUDA on every size.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _report import ROOT, report
from torch import Tensor

sys.path[:0] = [str(ROOT), str(Path(ROOT, "tests"))]
import rasterization_reference  # noqa: E402

from portraitgen.rasterization import backend_name, rasterize  # noqa: E402

COLUMNS = ("frames", "pixels", "gaussians", "channels")
SIZES = [
    (1, 32, 400, 16),
    (1, 256, 30_000, 16),
    (1, 512, 60_000, 32),
    (4, 256, 30_000, 16),
]


def head(frames: int, size: int, number: int, channels: int, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """(differentiable inputs, cameras) of a head that fills most of a size x size image, seen from 1 m away."""
    generator = torch.Generator().manual_seed(0)
    rows = math.isqrt(number)
    polar = (torch.arange(rows) + 0.5) / rows * math.pi
    around = (torch.arange(number // rows) + 0.5) / (number // rows) * 2 * math.pi
    polar, around = (grid.flatten() for grid in torch.meshgrid(polar, around, indexing="ij"))
    number = len(polar)
    direction = torch.stack([polar.sin() * around.sin(), -polar.cos(), polar.sin() * around.cos()], -1)
    means = (direction * torch.tensor([0.085, 0.125, 0.1])).expand(frames, number, 3).contiguous()
    focal = size * 0.9 / 0.25
    pixels = 1.0 + 0.5 * torch.rand(frames, number, 3, generator=generator)
    quats = torch.randn(frames, number, 4, generator=generator)
    opacities = 0.5 + 0.4 * torch.rand(frames, number, generator=generator)
    features = torch.randn(frames, number, channels, generator=generator)
    viewmats = torch.eye(4).repeat(frames, 1, 1)
    viewmats[:, 2, 3] = 1.0
    intrinsics = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]]).repeat(frames, 1, 1)
    inputs = [tensor.to(device).requires_grad_() for tensor in (means, quats, pixels / focal, opacities, features)]
    return inputs, [viewmats.to(device), intrinsics.to(device)]


def seconds(run: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Shortest (wall, processor) time of several runs: other work on the machine only ever adds, to wall time mostly."""
    wall, processor = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter(), time.process_time()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    return min(wall), min(processor)


def measure(function: Callable[..., tuple[Tensor, Tensor]], frames: int, size: int, number: int, channels: int,
            device: str, repeats: int) -> dict[str, float]:  # fmt: skip
    inputs, cameras = head(frames, size, number, channels, device)
    image, alphas = function(*inputs, *cameras, size, size)
    gradients = [torch.randn_like(image), torch.randn_like(alphas)]

    def both() -> None:
        torch.autograd.grad(function(*inputs, *cameras, size, size), inputs, gradients)

    forward, _ = seconds(lambda: function(*inputs, *cameras, size, size), repeats, device)
    total, processor = seconds(both, repeats, device)
    return {"forward_s": forward, "forward_backward_s": total, "processor_s": processor}


def warp_rasterize(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Our kernels even where `rasterize` would choose gsplat."""
    from portraitgen._warp_rasterizer import Rasterize

    gaussians, cameras, size = arguments[:5], arguments[5:7], arguments[7:]
    return Rasterize.apply(*gaussians, None, *cameras, *size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="runs of which the shortest counts")
    repeats = parser.parse_args().repeats
    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for setting in SIZES:
            functions = {backend_name(device): rasterize}
            if backend_name(device) == "gsplat":
                functions["Warp (CUDA)"] = warp_rasterize
            if setting == SIZES[0]:
                functions["plain torch twin"] = rasterization_reference.rasterize
            for path, function in functions.items():
                times = measure(function, *setting, device, repeats)
                rows.append({"path": path, **dict(zip(COLUMNS, setting, strict=True)), **times})
    report("rasterizer", rows, repeats=repeats)


if __name__ == "__main__":
    main()
