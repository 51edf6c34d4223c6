"""Builds the Warp kernels before they are needed, for the CPU and for CUDA cards that are not there.

    python -m portraitgen.kernels              # the CPU and every architecture of ARCHITECTURES
    python -m portraitgen.kernels cpu 120      # the CPU and sm_120

Warp would build them at their first use: 5 to 20 seconds for each number of channels, of a GPU call's minute on rented
hardware. What is built lands in Warp's kernel cache (``WARP_CACHE_PATH``, or a folder in the user's cache), where Warp
looks for it. Neither a GPU nor the CUDA toolkit is needed: NVRTC comes with Warp.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError

# Compute capabilities: T4, A100, A10 and RTX 30, L4 and RTX 40, H100 and H200, RTX 50 and RTX Pro 6000.
ARCHITECTURES = (75, 80, 86, 89, 90, 120)
CHANNELS = (8, 16, 24, 32)  # numbers of feature channels, rounded up to 8: colour alone, and what the presets render


def compile_kernels(targets: Iterable[str | int], channels: Iterable[int] = CHANNELS) -> list[Path]:
    """Compile all kernels of this package, skipping what the cache holds already.

    Starts Warp, which looks for a GPU: not for the process that forks GPU workers; see `compile_in_background`.

    Args:
        targets: "cpu" and compute capabilities such as 120.
        channels: widths of the compositing kernels, multiples of 8 up to 32.

    Returns:
        The binaries for CUDA.

    Raises:
        InputError: for an architecture that this version of Warp cannot build for.
    """
    import warp as wp

    from ._warp_mesh import barycentrics
    from ._warp_projection import emit, project
    from ._warp_rasterizer import load_kernels, make_cuda_kernels

    targets, channels = list(targets), list(channels)
    architectures = [int(target) for target in targets if target != "cpu"]
    wp.init()
    known = sorted(wp.get_cuda_supported_archs())
    unknown = [arch for arch in architectures if arch not in known]
    if unknown:
        raise InputError(f"Kernels cannot be built for sm_{unknown[0]}. Choose from {', '.join(map(str, known))}.")
    if "cpu" in targets:
        wp.load_module(barycentrics.module, "cpu")
        for width in channels:
            load_kernels(width, "cpu")
    modules = [kernel.module for kernel in (project, emit, barycentrics)]
    modules += [kernel.module for width in channels for kernel in make_cuda_kernels(width)]
    unique = {module.name: module for module in modules}.values()
    if not architectures:
        return []
    return [Path(path) for module in unique for path in wp.compile_aot_module(module, arch=architectures)]


def compile_in_background(targets: Iterable[str | int] = ("cpu", 120)) -> subprocess.Popen[bytes]:
    """Compile in a process of its own, at low priority, while an app starts; this process does not load Warp.

    A kernel that is wanted before it is done is built twice, which does no harm.
    """
    command = [sys.executable, "-m", "portraitgen.kernels", "--background", *map(str, targets)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m portraitgen.kernels", description="Build the kernels ahead of time."
    )
    parser.add_argument("targets", nargs="*", help='"cpu" or compute capabilities such as 120; all if left out')
    parser.add_argument("--background", action="store_true", help="at low priority")
    arguments = parser.parse_args()
    targets = arguments.targets or ["cpu", *ARCHITECTURES]
    if arguments.background and hasattr(os, "nice"):
        os.nice(10)
    wrong = [target for target in targets if target != "cpu" and not str(target).isdigit()]
    try:
        if wrong:
            raise InputError(f'"{wrong[0]}" is not a target. Give "cpu" or a compute capability such as 120.')
        paths = compile_kernels(targets)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(paths)} CUDA binaries{' and the kernels for the CPU' if 'cpu' in targets else ''} are ready.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
