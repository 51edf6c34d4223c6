"""What a job asks of a GPU that is lent call by call (ZeroGPU): the calls it takes, and the seconds to reserve for each.

A visitor pays with their daily share for what is reserved, and a call that takes longer is ended. The seconds follow `estimates`; how much
faster than two CPU cores a GPU is, is set by hand, so a call that turns out too short is asked for longer the next time.

Putting the person back into the frames and encoding need no GPU, and are in the call all the same, in step with the rendering: outside of
it they would need every rendered picture stored, 1 MB each at 512 pixels, and the edited scene, which the engines make on the GPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from .editors import EditRequest, engine_for
from .estimates import expected_seconds, finished_stages, kept_share
from .progress import RECONSTRUCT_STAGES
from .sessions import Job

LONGEST = 120  # seconds of one call: longer ones few visitors are allowed
PRICE = 1.5  # seconds of a visitor's share for one reserved, on the cards lent now
SPARE = 3.0  # seconds before the end of a call in which what is not done is kept, for the next call to go on with
_START = 5.0  # seconds until a worker is forked, has the card and has read the portrait
_MORE = 1.5  # times as long after a call that was too short
_FASTER = {
    "reconstruction": 7.8,
    "edit": 2.5,
    "fitting": 11.0,
    "render": 2.5,
}  # stages that use the GPU, than two CPU cores
# engine from the Hub: seconds until its weights are on the card, and for one key picture in all passes
_ENGINES = {
    "instruct-pix2pix": (8.0, 0.8),
    "flux2-klein": (20.0, 1.0),
    "gatys": (3.0, 2.0),
    "ic-light": (8.0, 1.2),
    "fashn-vton": (8.0, 1.5),
}


def gpu_calls(job: Job) -> tuple[Job, ...]:
    """The calls that ``job`` takes, in order, its stages without a GPU being done: learning the clip is one, what is made of it the next.

    Each starts from what the one before left on the disk. Learning and editing are cut into more where they do not fit one: `LONGEST`.
    """
    calls = []
    if job.learns and "reconstruction" not in finished_stages(job.portrait):
        calls.append(replace(job, verb="reconstruct"))
    if job.verb != "reconstruct":
        calls.append(replace(job, learned=True))
    return tuple(calls)


def kept_shares(job: Job) -> dict[str, float]:
    """Share of each of a job's stages, in [0, 1], that an earlier run has done and kept."""
    edited: Path | None = job.options.get("save")
    folders = {stage: job.portrait if stage in RECONSTRUCT_STAGES else edited for stage in job.stages}
    return {stage: kept_share(folder, stage) if folder else 0.0 for stage, folder in folders.items()}


def is_done(call: Job) -> bool:
    """Whether nothing is left to do of one of `gpu_calls`."""
    return kept_shares(call)["reconstruction"] == 1 if call.learns else call.output.is_file()


def can_leave(call: Job) -> bool:
    """Whether a call can be left at any time for another one to go on: learning can, and an edit until it is only to be rendered."""
    kept = kept_shares(call)
    return call.learns or kept.get("edit", 1) < 1


def leaves(call: Job, stage: str, seconds: float) -> bool:
    """Whether a call that `can_leave` is left when a stage comes to its turn, or goes on, with these seconds until its end."""
    return seconds < (_needed(replace(call, verb="render")) - _START if stage == "render" else SPARE)


def gpu_seconds(job: Job) -> int:
    """Seconds to reserve for one call, by what it is still to do there."""
    return min(LONGEST, round(_needed(job) * _MORE**job.overruns))


def reserved_seconds(call: Job) -> int:
    """Seconds that will have been reserved for one of `gpu_calls`, in as many calls as it takes."""
    seconds = gpu_seconds(call)
    if not can_leave(call) or seconds < LONGEST:
        return seconds
    again = _START + SPARE + (0.0 if call.learns else _engine_seconds(call)[0])  # of each call after the first
    more = math.ceil(max(0.0, _needed(call) - LONGEST) / (LONGEST - again))
    return round(_needed(call) + more * again)


def longest_call(job: Job) -> float:
    """Seconds that the longest part of ``job`` which must be one call is expected to take; over `LONGEST`, and it will hardly be done."""
    whole = (
        replace(call, verb="render") if call.verb == "edit" else call for call in gpu_calls(job) if not call.learns
    )
    return max((_needed(call) for call in whole), default=0.0)


def share_that_fits(job: Job) -> float:
    """The largest share of its part of the clip with which a job whose `longest_call` is too long fits, in tenths; 0 if none."""

    def fits(tenths: int) -> bool:
        return longest_call(replace(job, frame_count=job.frame_count * tenths // 10)) <= LONGEST

    return next((tenths for tenths in range(9, 0, -1) if fits(tenths)), 0) / 10


def _needed(job: Job) -> float:
    """Seconds that one call is expected to take."""
    left = {stage: 1 - share for stage, share in kept_shares(job).items() if stage in _FASTER and share < 1}
    expected = expected_seconds(list(left), job.frame_count, job.preset, cores=2)
    seconds = _START + (SPARE if can_leave(job) else 0)
    if "edit" in left:
        from .editing import PRESETS as CONFIGS

        request: EditRequest = job.options["request"]
        usual = CONFIGS[job.preset].key_frames
        pictures = request.key_frames or usual
        loading, each = _engine_seconds(job)
        seconds += loading + each * pictures * left["edit"]
        expected["edit"] *= pictures / usual  # as expected for the preset's
    return seconds + sum(expected[stage] / _FASTER[stage] * share for stage, share in left.items())


def _engine_seconds(job: Job) -> tuple[float, float]:
    """Seconds that the engine of an edit takes until its weights are on the card, and for one key picture in all passes."""
    request: EditRequest = job.options["request"]
    return _ENGINES.get(engine_for(request.kind, request.engine, "cuda"), (0.0, 0.0))
