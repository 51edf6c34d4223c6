"""How much of a clip is used at most; the page shows it before anything that reads clips is imported."""

from __future__ import annotations

MAX_SECONDS = 60.0
MAX_START = 600.0  # seconds into a clip
