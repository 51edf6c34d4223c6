"""Jobs done where they belong: on this machine, or in calls of a GPU that is lent for each."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import replace

import gradio as gr
import spaces

from portraitgen.apart import apart
from portraitgen.engines import settle_engine
from portraitgen.errors import InputError, Overrun
from portraitgen.estimates import finished_stages
from portraitgen.heap import trim
from portraitgen.lending import LONGEST, can_leave, gpu_calls, gpu_seconds, is_done, kept_shares, leaves
from portraitgen.progress import Progress
from portraitgen.sessions import PACKED, Job
from portraitgen.wording import explain_gpu, explain_overrun, is_overrun


def work(job: Job) -> Generator[Progress, None, None]:
    """Do one job from its clip on; what an earlier job of the session has finished is not done again."""
    from portraitgen import pipeline

    if job.learns:
        yield from pipeline.reconstruct(
            job.clip, job.portrait, preset=job.preset, start=job.start, max_seconds=job.max_seconds
        )
    if job.verb == "edit":
        yield from pipeline.edit(job.source, job.output, preset=job.preset, stand_in=True, **job.options)
    elif job.verb in ("render", "webm", "orbit"):
        yield from pipeline.render(job.source, job.output, **job.options)
    elif job.verb in PACKED:
        from portraitgen.export import write_packed

        yield from write_packed(job.verb, job.source, job.output, device="auto" if job.verb == "views" else "cpu")


@spaces.GPU(duration=gpu_seconds)
def compute(job: Job) -> Iterator[Progress | InputError | OSError]:
    """Do one call's part of a job on a shared GPU. What a person can put right is yielded: of an error only its class comes back.

    What would not be done when the call is about to end is left, and with that kept.
    """
    end = time.monotonic() + gpu_seconds(job)
    leaving, stage = can_leave(job), ""
    try:
        with contextlib.closing(work(job)) as steps:
            for step in steps:
                yield step
                # Rendering cannot be left in the middle: it is begun in this call or in the next.
                begun, stage = step.stage == stage == "render", step.stage
                if leaving and not begun and leaves(job, stage, end - time.monotonic()):
                    return
    except (InputError, OSError) as error:
        yield error


def share(job: Job) -> Iterator[Progress]:
    """Do one job on a machine whose GPU is lent call by call, for seconds that the visitor pays for: there goes only what needs it.

    The rest is done before in a process of its own, for this one must not start CUDA. A machine with its own GPU or none does everything in
    one process (`work`): a second one would load every library again and keep nothing from being paid for.
    """
    from portraitgen import pipeline
    from portraitgen.export import write_packed

    if job.verb in ("ply", "zip"):
        yield from apart(write_packed, job.verb, job.source, job.output, device="cpu")
    else:
        if job.learns and "matting" not in finished_stages(job.portrait):
            part = {"start": job.start, "max_seconds": job.max_seconds}
            options = {"preset": job.preset, **part, "until": "matting"}
            yield from apart(pipeline.reconstruct, job.clip, job.portrait, **options)
        if job.verb == "edit":
            request = yield from settle_engine(job.options["request"], "cuda", stand_in=True)
            job = replace(job, options=job.options | {"request": request})
        # Here, where it is not paid for; the GPU's worker is forked off this process.
        pipeline.load_for_learning()
        pipeline.load_for_editing()
        for call in gpu_calls(job):
            yield from lent(call)


def lent(call: Job) -> Iterator[Progress]:
    """Do one of a job's calls, in as many as it takes: each goes on from what the one before has kept."""
    while True:
        kept = kept_shares(call)
        try:
            with contextlib.closing(compute(call)) as steps:
                for step in steps:
                    if not isinstance(step, Progress):
                        raise step
                    yield step
        except gr.Error as error:
            if not is_overrun(str(error.message)) or kept_shares(call) == kept:
                raise refusal(error, call) from None
        else:
            if call.verb not in ("reconstruct", "edit") or is_done(call):
                return
            if kept_shares(call) == kept:
                raise Overrun(explain_overrun(saved(call), longer=gpu_seconds(call) < LONGEST))


def refusal(error: gr.Error, call: Job) -> InputError:
    """What the shared GPU's own errors, about quota for example, mean for a person."""
    title, message = str(getattr(error, "title", "")), str(error.message)
    if not is_overrun(message):
        return InputError(explain_gpu(title, message, saved(call)))
    return Overrun(explain_overrun(saved(call), longer=gpu_seconds(call) < LONGEST))


def saved(call: Job) -> set[str]:
    """Stages of which something need not be done again."""
    return {*finished_stages(call.portrait), *(stage for stage, share in kept_shares(call).items() if share)}


def run(job: Job) -> Iterator[Progress]:
    """Do one job in the way that suits this machine, and give its memory back."""
    try:
        yield from share(job) if shares_gpu() else work(job)
    finally:
        trim()


def shares_gpu() -> bool:
    """Whether the GPU is lent for each job (ZeroGPU)."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))
