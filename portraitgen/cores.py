"""How many CPU cores there are to use, which in a container is not how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores that this process is bound to, or fewer if its container has a quota of processor time.

    Numerical libraries count the machine's, and dozens of threads on the two of a container get in each other's way for minutes.

    Args:
        cgroups: where the quota is read: ``cpu.max`` of version 2, ``cpu/cpu.cfs_*_us`` of version 1.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _quota(cgroups))))


def _quota(cgroups: Path) -> float:
    """Processor seconds a second; infinite where nobody limits them."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


@contextmanager
def threads_shared_by(workers: int) -> Iterator[None]:
    """Torch's operations use an equal share of its threads meanwhile, here and in threads that start meanwhile.

    For work that is shared out to ``workers`` threads as a whole: threads within threads wait for each other on cores that are all taken.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
