"""Progress of a job, as the pipeline's generators yield it to the command line and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RECONSTRUCT_STAGES = ("clip", "tracking", "matting", "reconstruction")
EDIT_STAGES = ("edit", "fitting", "render")


@dataclass(frozen=True)
class Progress:
    """One step of news from a running stage.

    Attributes:
        stage: name of the stage, for example ``"tracking"``.
        fraction: how much of this stage is done, in [0, 1].
        message: a short sentence for the person who waits.
        preview: a picture of the state of things, ``[H, W, 3]`` uint8 RGB, or None.
        notes: what the person should still know when the job is done.
    """

    stage: str
    fraction: float
    message: str
    preview: np.ndarray | None = None
    notes: tuple[str, ...] = ()
