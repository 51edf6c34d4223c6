"""What a job asks of a GPU that is lent call by call (ZeroGPU): the calls it takes, and the seconds to reserve for each.

A visitor pays with their daily share for what is reserved, and a call that takes longer is ended. The seconds follow `estimates`; how much
faster than two CPU cores a GPU is, is set by hand, so a call that turns out too short is asked for longer the next time.

Putting the person back into the frames and encoding need no GPU, and are in the call all the same, in step with the rendering: outside of
it they would need every rendered picture stored, 1 MB each at 512 pixels, and the edited scene, which the engines make on the GPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .editors import engine_for
from .estimates import expected_seconds, finished_stages, kept_share
from .pipeline import PRESETS
from .sessions import Job

LONGEST = 120  # seconds of one call: longer ones few visitors are allowed
PRICE = 1.5  # seconds of a visitor's share for one reserved, on the cards lent now
SPARE = 3.0  # seconds before the end of a call in which a fit that is not done is kept, for the next call to go on with
_START = 5.0  # seconds until a worker is forked, has the card and has read the portrait
_MORE = 1.5  # times as long after a call that was too short
_FASTER = {
    "reconstruction": 8.0,
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

    Each starts from what the one before left on the disk. Learning is cut into more where it does not fit one: `LONGEST`.
    """
    calls = []
    if job.learns and "reconstruction" not in finished_stages(job.portrait):
        calls.append(replace(job, verb="reconstruct"))
    if job.verb != "reconstruct":
        calls.append(replace(job, learned=True))
    return tuple(calls)


def gpu_seconds(job: Job) -> int:
    """Seconds to reserve for one call, by what it is still to do there."""
    return min(LONGEST, round(_needed(job) * _MORE**job.overruns))


def reserved_seconds(call: Job) -> int:
    """Seconds that will have been reserved for one of `gpu_calls`, in as many calls as it takes."""
    seconds = gpu_seconds(call)
    if not call.learns or seconds < LONGEST:
        return seconds
    more = math.ceil(max(0.0, _needed(call) - LONGEST) / (LONGEST - _START - SPARE))
    return round(_needed(call) + more * (_START + SPARE))


def longest_call(job: Job) -> float:
    """Seconds that the longest call of ``job`` is expected to take of those that cannot be cut; more than `LONGEST` and it will hardly be
    done."""
    return max((_needed(call) for call in gpu_calls(job) if not call.learns), default=0.0)


def ways_to_fit(job: Job) -> tuple[str, float]:
    """What would make a job whose `longest_call` is too long fit: the finest preset, and the largest share of its part of the clip.

    Either alone does; "" and 0 where it cannot.
    """
    anew = replace(job, portrait=job.portrait / "none")  # another preset or part is another portrait

    def fits(**changes: Any) -> bool:
        return longest_call(replace(anew, **changes)) <= LONGEST

    coarser = reversed(PRESETS[: PRESETS.index(job.preset)])
    preset = next((name for name in coarser if fits(preset=name)), "")
    tenths = next((n for n in range(9, 0, -1) if fits(frame_count=job.frame_count * n // 10)), 0)
    return preset, tenths / 10


def _needed(job: Job) -> float:
    """Seconds that one call is expected to take."""
    finished, kept = (finished_stages(job.portrait) if job.learns else ()), kept_share(job.portrait, "reconstruction")
    stages = [stage for stage in job.stages if stage in _FASTER and stage not in finished]
    expected = expected_seconds(stages, job.frame_count, job.preset, cores=2)
    request = job.options.get("request")
    loading, each, pictures, usual = 0.0, 0.0, 0, 1
    if request is not None:
        from .editing import PRESETS as CONFIGS

        usual = CONFIGS[job.preset].key_frames
        pictures = request.key_frames or usual
        loading, each = _ENGINES.get(engine_for(request.kind, request.engine, "cuda"), (0.0, 0.0))
    # Of what a stage takes: as expected for the preset's key frames; what is not learned yet.
    more = {"edit": pictures / usual, "reconstruction": 1 - kept}
    seconds = (
        _START + SPARE * job.learns + sum(expected[stage] / _FASTER[stage] * more.get(stage, 1) for stage in stages)
    )
    return seconds + loading + each * pictures
