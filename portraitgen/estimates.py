"""How long a job will take: what this page says before one, and how it tells the time left while one runs.

The seconds are those of `benchmarks/whole_job.py` on two CPU cores, as a fixed part and a part for each frame; a running job corrects them
by what its own first stages took.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .cores import usable_cores
from .progress import EDIT_STAGES, RECONSTRUCT_STAGES

_CORES, _SIZE = 2, 512  # that the numbers below were measured on, and the side of the working image in pixels
_USEFUL_CORES = 8  # more make nothing faster
# stage: (seconds, seconds per frame, seconds more per frame that is learned from, whether the frames' part grows with the working image)
_COSTS = {
    "clip": (1.0, 0.05, 0.0, False),
    "tracking": (2.0, 0.04, 0.0, False),
    "matting": (3.0, 0.3, 0.0, True),
    "reconstruction": (49.0, 0.22, 0.26, True),
    "edit": (15.0, 0.0, 0.0, False),
    "fitting": (33.0, 0.0, 0.0, False),
    "render": (2.0, 0.18, 0.0, True),
    "export": (3.0, 0.0, 0.0, False),
}
# How much longer the fixed part of a stage takes than in `preview`: steps of fitting, and what one costs.
_PRESETS = {
    "reconstruction": {"preview": 1.0, "standard": 4.5, "high": 28.0},
    "fitting": {"preview": 1.0, "standard": 10.0, "high": 40.0},
}
_LEARNED = {
    "preview": 150,
    "standard": 240,
    "high": 360,
}  # `reconstruction.PRESETS`: frames of a long clip that are learned from
_CERTAIN = 0.04  # share of a job after which its own pace counts


def expected_seconds(
    stages: Sequence[str], frame_count: int, preset: str, cores: int | None = None, size: int = _SIZE
) -> dict[str, float]:
    """Seconds that each of ``stages`` is expected to take on a CPU.

    Args:
        cores: of the machine; this one's if None.
        size: side of the working image in pixels; the usual one where it is not known yet.
    """
    speed = min(cores or usable_cores(), _USEFUL_CORES) / _CORES
    seconds = {}
    for stage in stages:
        fixed, each, more, by_size = _COSTS[stage]
        frames = each * frame_count + more * min(frame_count, _LEARNED[preset])
        pixels = (size / _SIZE) ** 2 if by_size else 1.0
        seconds[stage] = (fixed * _PRESETS.get(stage, {}).get(preset, 1.0) + frames * pixels) / speed
    return seconds


def clip_seconds(frame_count: int, preset: str, size: int, done: Collection[str] = ()) -> tuple[float, float]:
    """Seconds on this machine's CPU to learn a clip worked on at ``size``, less the stages that are ``done``, and for each edit of it."""
    stages = [stage for stage in RECONSTRUCT_STAGES if stage not in done]
    learn, edit = (expected_seconds(part, frame_count, preset, size=size) for part in (stages, EDIT_STAGES))
    return sum(learn.values()), sum(edit.values())


def finished_stages(portrait: Path) -> frozenset[str]:
    """Stages that a portrait folder, finished or not, already holds."""
    return frozenset(_fact(portrait, "stages", {}))


def kept_share(portrait: Path, stage: str) -> float:
    """Share of the time of a stage that need not be spent again, in [0, 1], as a portrait folder says."""
    if stage in finished_stages(portrait):
        return 1.0
    return float(_fact(portrait, "kept", {}).get(stage, 0.0))


def is_pending(portrait: Path) -> bool:
    """Whether a folder holds an edit that was cut off."""
    return bool(_fact(portrait, "pending", ""))


def _fact(portrait: Path, name: str, default: Any) -> Any:
    """What a portrait folder says of itself under ``name``, if it is one."""
    try:
        fact = json.loads((portrait / "portrait.json").read_text("utf-8")).get(name, default)
    except (OSError, ValueError, AttributeError):
        return default
    return fact if isinstance(fact, type(default)) else default


def share_done(expected: Mapping[str, float], done: Mapping[str, float]) -> float:
    """Share of the whole job, in [0, 1], that is done when of each stage begun the fraction ``done`` is.

    A stage passed over is done. One that comes in several passes counts by its own fraction, so the share never sinks.
    """
    total = sum(expected.values())
    if not total:
        return 0.0
    names = list(expected)
    latest = max((names.index(name) for name in done), default=0)
    return sum(expected[name] * done.get(name, float(place < latest)) for place, name in enumerate(names)) / total


def seconds_left(expected: Mapping[str, float] | None, share: float, elapsed: float) -> float | None:
    """Seconds that a job will still take: as expected, if that is known, at first, then at its own pace; None while nobody knows."""
    if share > _CERTAIN:
        return elapsed / share * (1 - share)
    return None if expected is None else sum(expected.values()) * (1 - share)
