"""Warp's settings, made before any kernel is defined, and its start."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import warp as wp

wp.config.log_level = wp.LOG_WARNING  # Warp greets on stdout, which belongs to our command line's JSON
wp.config.cuda_output = "cubin"  # ready machine code, which `kernels.compile_kernels` can make ahead of time; not PTX


def start(device: torch.device) -> None:
    """Start Warp, which finds its devices then, once per process.

    Raises:
        RuntimeError: if `device` is a GPU that was not there yet when Warp started.
    """
    wp.init()
    if device.type == "cuda" and not wp.is_cuda_available():
        raise RuntimeError(
            "Warp started in this process before the GPU was there, or does not support its driver. "
            "Use the rasterisers first in the process that has the GPU."
        )


def stream(device: torch.device) -> AbstractContextManager[Any]:
    """Puts Warp's work on torch's current CUDA stream."""
    if device.type == "cpu":
        return nullcontext()
    return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)))
