"""The real stages at a fraction of their presets' work; what a whole one reaches is tested elsewhere, or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest


def killed_at(fit: Callable[..., Iterator[Any]], last: int) -> Callable[..., Iterator[Any]]:
    """The same ``fit`` in a process that dies when ``last`` steps have been taken over."""

    def killed(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, step in enumerate(fit(*arguments, **options)):
            if number == last:
                raise RuntimeError("killed")
            yield step

    return killed


def quicken(patch: pytest.MonkeyPatch, presets: dict[str, Any], fit: dict[str, Any], **changes: Any) -> None:
    """Change the preset ``preview`` of a stage, and its optimisation as ``fit`` says."""
    config = presets["preview"]
    patch.setitem(presets, "preview", replace(config, fit=replace(config.fit, **fit), **changes))
