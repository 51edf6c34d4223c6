"""What the page takes at most; it shows that before anything that reads clips is imported."""

from __future__ import annotations

MAX_SECONDS = 60.0
MAX_START = 600.0  # seconds into a clip
MAX_MEGABYTES = 200  # of an upload
MAX_SEED = 2**31 - 1
