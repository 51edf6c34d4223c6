"""Forward and backward times of `rasterize` on Gaussians like a portrait avatar's.

    python benchmarks/rasterizer.py [--repeats N]

The scene is a UV grid over a head-sized ellipsoid whose splats have a sigma of 1 to 1.5 pixels. Cases: a picture small
enough for the plain-torch twin of the tests; training steps, which see a window of a larger frame and share the features
between its pictures; the same as the presets have it, with as many Gaussians as a head and shoulders get; and rendering
whole frames through the neural renderer. gsplat, where its compiled kernels are present, and Warp on CUDA run them all.
All measurements take turns, so that other work on the machine hits all alike; rates are those of the median.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
import portraitgen  # noqa: E402, F401  # before torch, whose threads it tells how to wait

# isort: split
import rasterization_reference  # noqa: E402
import torch  # noqa: E402
from _report import report  # noqa: E402
from torch import Tensor  # noqa: E402

from portraitgen.rasterization import backend_name, rasterize  # noqa: E402
from portraitgen.renderer import NeuralRenderer  # noqa: E402


@dataclass(frozen=True)
class Case:
    case: str
    frames: int
    frame_pixels: int  # along a side
    window_pixels: int  # along a side of the part that is rendered
    gaussians: int
    channels: int


TWIN = Case("small picture", 1, 32, 32, 400, 16)
RENDER = Case("render to RGB", 8, 512, 512, 70_000, 24)
CASES = [
    TWIN,
    Case("training step", 1, 512, 256, 70_000, 16),
    Case("training step", 2, 512, 256, 70_000, 16),
    Case("training step", 4, 512, 256, 70_000, 16),
    Case("training step", 2, 512, 256, 70_000, 24),
    Case("whole frame", 1, 512, 512, 70_000, 16),
    Case("preview, training step", 2, 512, 256, 96_000, 16),
    Case("preview, whole frame", 1, 512, 512, 96_000, 16),
    Case("high, training step", 4, 512, 320, 227_000, 32),
    Case("high, whole frame", 1, 512, 512, 227_000, 32),
    RENDER,
]


def head(case: Case, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """(differentiable inputs, cameras) of a head that fills most of the frame, seen from 1 m away."""
    generator = torch.Generator().manual_seed(0)
    rows = math.isqrt(case.gaussians)
    polar = (torch.arange(rows) + 0.5) / rows * math.pi
    around = (torch.arange(case.gaussians // rows) + 0.5) / (case.gaussians // rows) * 2 * math.pi
    polar, around = (grid.flatten() for grid in torch.meshgrid(polar, around, indexing="ij"))
    number, frames = len(polar), case.frames
    direction = torch.stack([polar.sin() * around.sin(), -polar.cos(), polar.sin() * around.cos()], -1)
    sway = 0.003 * torch.randn(frames, 1, 3, generator=generator)
    means = direction[torch.randperm(number, generator=generator)] * torch.tensor([0.11, 0.125, 0.1]) + sway
    focal = case.frame_pixels * 0.9 / 0.25
    pixels = (1.0 + 0.5 * torch.rand(1, number, 3, generator=generator)).repeat(frames, 1, 1)
    quats = torch.randn(frames, number, 4, generator=generator)
    opacities = (0.5 + 0.4 * torch.rand(1, number, generator=generator)).repeat(frames, 1)
    features = torch.randn(number, case.channels, generator=generator)
    viewmats = torch.eye(4).repeat(frames, 1, 1)
    viewmats[:, 2, 3] = 1.0
    left = (case.frame_pixels - case.window_pixels) // 2
    top = (case.frame_pixels - case.window_pixels) // 3
    centre = case.frame_pixels / 2
    intrinsics = torch.tensor([[focal, 0.0, centre - left], [0.0, focal, centre - top], [0.0, 0.0, 1.0]])
    inputs = [tensor.to(device).requires_grad_() for tensor in (means, quats, pixels / focal, opacities, features)]
    return inputs, [viewmats.to(device), intrinsics.repeat(frames, 1, 1).to(device)]


def runs_of(case: Case, function: Callable[..., tuple[Tensor, Tensor]], device: str) -> dict[str, Callable[[], object]]:
    """What there is to measure, by name."""
    inputs, cameras = head(case, device)
    size = case.window_pixels, case.window_pixels
    if case is RENDER:
        torch.manual_seed(0)
        renderer = NeuralRenderer(case.channels, 24).to(device)

        def picture() -> Tensor:
            with torch.no_grad():
                image, alphas = function(*inputs, *cameras, *size)
                return renderer(image.permute(0, 3, 1, 2), alphas.permute(0, 3, 1, 2))

        return {"forward": picture}
    image, alphas = function(*inputs, *cameras, *size)
    gradients = [torch.randn_like(image), torch.randn_like(alphas)]

    def forward() -> object:
        return function(*inputs, *cameras, *size)

    def both() -> object:
        return torch.autograd.grad(function(*inputs, *cameras, *size), inputs, gradients)

    return {"forward": forward, "forward_backward": both}


def seconds(run: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def warp_rasterize(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Our kernels even where `rasterize` would choose gsplat."""
    from portraitgen._warp_rasterizer import Rasterize

    gaussians, cameras, size = arguments[:5], arguments[5:7], arguments[7:]
    return Rasterize.apply(*gaussians, None, *cameras, *size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="rounds of measurements")
    repeats = parser.parse_args().repeats
    rows: list[dict[str, Any]] = []
    measured: list[dict[str, tuple[Callable[[], object], list[float]]]] = []
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for case in CASES:
            functions: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {backend_name(device): rasterize}
            if backend_name(device) == "gsplat":
                functions["Warp (CUDA)"] = warp_rasterize
            if case is TWIN:
                functions["plain torch twin"] = rasterization_reference.rasterize
            for path, function in functions.items():
                rows.append({"device": device, "path": path, **asdict(case)})
                measured.append({name: (run, []) for name, run in runs_of(case, function, device).items()})
    for number in range(repeats + 1):
        for row, runs in zip(rows, measured, strict=True):
            for run, times in runs.values():
                elapsed = seconds(run, row["device"])
                if number:  # the first round builds kernels
                    times.append(elapsed)
    for row, runs in zip(rows, measured, strict=True):
        for name in ("forward", "forward_backward"):
            times = runs[name][1] if name in runs else []
            row[f"{name}_ms"] = 1e3 * min(times) if times else None
            row[f"{name}_median_ms"] = 1e3 * statistics.median(times) if times else None
        row["frames_per_second"] = row["frames"] / statistics.median(runs["forward"][1])
    report("rasterizer", rows, repeats=repeats)


if __name__ == "__main__":
    main()
