"""What is freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from portraitgen.heap import trim


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_blocks_between_kept_ones_go_back() -> None:
    kept = []

    def work() -> None:  # in a thread's own arena; blocks below the size at which they would be mapped one by one
        blocks = [np.ones(100_000, np.uint8) for _ in range(2000)]
        kept.extend(blocks[::50])

    trim()
    before = resident()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    held = resident()
    trim()
    assert resident() < before + 40
    assert resident() <= held
    assert all(block.all() for block in kept), "what is in use stays"


def test_it_does_no_harm_where_there_is_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portraitgen.heap.ctypes.CDLL", lambda name: object())
    trim()
