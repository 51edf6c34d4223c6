"""One heavy model in memory at a time, whoever edits with it."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch

from ..errors import InputError

Loaded = TypeVar("Loaded")

_ROOMY = 16e9  # bytes of a card on which an engine may stay while an avatar is fitted
_turn = threading.RLock()
_held: dict[Hashable, Any] = {}  # at most one
_users = 0  # how deep the thread whose turn it is has entered


@contextlib.contextmanager
def resident(key: Hashable, load: Callable[[], Loaded]) -> Iterator[Loaded]:
    """Lend the model of ``key`` for the length of the block; a model of another key leaves the memory before this one is loaded.

    Blocks take turns, so two people with two engines never hold both models: do not keep the model, or parts of it, beyond the
    block. Blocks of the same key can be nested.

    Args:
        key: what makes the model what it is: the engine's name, its folder, the device.
        load: makes the model; called while nothing else is held.

    Raises:
        InputError: there is not enough memory on the GPU.
        RuntimeError: a block of another key is still open in this thread.
    """
    global _users
    with _turn:
        if _users and key not in _held:
            raise RuntimeError(f"{key} was asked for while another model is in use")
        try:
            if key not in _held:
                release()
                _held[key] = load()
            _users += 1
            try:
                yield _held[key]
            finally:
                _users -= 1
        except torch.OutOfMemoryError:
            _full = True
        else:
            _full = False
        if _full:  # outside the handler, whose traceback would keep the tensors alive
            if not _users:
                _free()
            raise InputError(
                "The GPU has not enough free memory for this engine. Close what else uses it, or choose the engine builtin."
            )


def release() -> None:
    """Free the memory of the model that is held, if any, once nobody uses it."""
    with _turn:
        if _held and not _users:
            _free()


def make_room(device: torch.device | str) -> None:
    """`release` on a card on which no engine fits beside an avatar that is being fitted; elsewhere it stays for the next edit."""
    if is_small(torch.device(device)):
        release()


def is_small(device: torch.device) -> bool:
    """Whether an engine and a fit do not fit side by side on ``device``."""
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < _ROOMY


def _free() -> None:
    _held.clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
