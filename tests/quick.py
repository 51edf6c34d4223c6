"""The real stages at a fraction of their presets' work; what a whole one reaches is tested elsewhere, or measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest


def quicken(patch: pytest.MonkeyPatch, presets: dict[str, Any], fit: dict[str, Any], **changes: Any) -> None:
    """Change the preset ``preview`` of a stage, and its optimisation as ``fit`` says."""
    config = presets["preview"]
    patch.setitem(presets, "preview", replace(config, fit=replace(config.fit, **fit), **changes))
