"""Work that is kept while it is under way, so that a run which is cut off is gone on with and not begun anew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from .errors import InputError
from .streaming import Abandoned

_EVERY = 20.0  # seconds: what a process that is killed loses at most


class Keeper:
    """Says when to ``keep``, which writes how far some work is."""

    def __init__(self, keep: Callable[[], None]) -> None:
        self._keep, self._last = keep, time.monotonic()

    def when_due(self) -> None:
        """Keep, if the last time is some while ago."""
        if time.monotonic() - self._last > _EVERY:
            self._keep()
            self._last = time.monotonic()

    @contextlib.contextmanager
    def on_leaving(self) -> Iterator[None]:
        """Keep if the work of this block is left before its end; it must be whole wherever it can be left."""
        try:
            yield
        except (GeneratorExit, Abandoned):
            with contextlib.suppress(InputError):  # a disk that is full is no reason not to stop
                self._keep()
            raise
