"""Memory of a process that serves many jobs."""

from __future__ import annotations

import ctypes
import gc


def trim() -> None:
    """Give the system back what a finished job has freed.

    Torch, OpenCV and MediaPipe free many large blocks between small ones that stay, which glibc keeps for later in an arena for each
    thread: after one reconstruction 340 of 1460 MiB, and more with every thread that a job happens to run in. Other C libraries have no
    such call, and there only Python's own garbage is collected.
    """
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))
