"""Warp's settings, made before any kernel is defined, and its start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import warp as wp

wp.config.log_level = wp.LOG_WARNING  # Warp greets on stdout, which belongs to our command line's JSON
wp.config.cuda_output = "cubin"  # ready machine code, which `kernels.compile_kernels` can make ahead of time; not PTX
_launching = threading.Lock()


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


@contextmanager
def stream(device: torch.device) -> Iterator[None]:
    """Puts Warp's work on torch's current CUDA stream, one thread's at a time.

    Warp keeps one current stream for a device, not one for each thread: of two threads inside at once, the one that leaves first would send
    the other's kernels to Warp's own stream, where nothing orders them with torch's.
    """
    if device.type == "cpu":
        yield
        return
    with _launching, wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device))):
        yield
