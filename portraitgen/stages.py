"""The stages that turn a clip into a portrait folder, up to the avatar; each enters itself in the folder once it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .heap import trim
from .progress import Progress
from .storage import explain_os_error

if TYPE_CHECKING:
    from .portrait import Portrait, Settings
    from .tracking import Tracking


def clip_stage(clip: Path, directory: Path, settings: Settings) -> Generator[Progress, None, Portrait]:
    """Look at the whole clip once, choose the working crop and create the folder."""
    from .clip import probe, read_frames
    from .crop import choose_crop
    from .landmarks import Landmarks, detect_landmarks
    from .portrait import Portrait
    from .streaming import watched

    started = time.perf_counter()
    yield Progress("clip", 0.0, "Opening the clip")
    info = probe(clip, start=settings.start, max_seconds=settings.max_seconds)

    def look(report: Callable[[float], None]) -> Landmarks:
        return detect_landmarks(read_frames(clip, info), info, lambda seen: report(seen / info.frame_count))

    message = f"Looking for a face in {info.frame_count} frames"
    landmarks = yield from watched(look, lambda fraction: Progress("clip", fraction, message))
    crop = choose_crop(info, landmarks.head_boxes, landmarks.shoulder_boxes)
    name = f"source{clip.suffix.lower()}"
    portrait = Portrait(directory, settings, name, info, crop)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, portrait.source)
    except OSError as error:
        raise InputError(explain_os_error(error, portrait.source)) from error
    portrait.save_tensors("landmarks.safetensors", landmarks.to_tensors())
    portrait.finish("clip", time.perf_counter() - started)
    yield Progress("clip", 1.0, "Found the face")
    return portrait


def tracking_stage(portrait: Portrait) -> Iterator[Progress]:
    """Follow the head and shoulders through the clip."""
    import torch

    from .body import load_body
    from .streaming import watched
    from .tracking import TrackingConfig, track

    landmarks = portrait.landmarks()
    body = load_body(portrait.settings.body, torch.device("cpu"))
    message = "Fitting the body to the landmarks"
    yield Progress("tracking", 0.1, message)

    def follow(report: Callable[[float], None]) -> Tracking:
        return track(landmarks, portrait.crop, body, TrackingConfig(), report)

    tracking = yield from watched(follow, lambda fraction: Progress("tracking", fraction, message))
    portrait.save_tensors("tracking.safetensors", tracking.to_tensors())
    yield Progress("tracking", 1.0, "Body tracked")


def matting_stage(portrait: Portrait) -> Iterator[Progress]:
    """Cut the person out of every frame."""
    from .mattes import write_mattes

    yield from write_mattes(portrait, portrait.tracking())


def timed(portrait: Portrait, stage: str, work: Iterator[Progress]) -> Iterator[Progress]:
    """Run a stage and enter it, with the seconds it took, in the portrait; what it has freed is not kept for the next one."""
    started = time.perf_counter()
    yield from work
    portrait.finish(stage, time.perf_counter() - started)
    trim()
