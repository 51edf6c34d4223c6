"""What the page's buttons and endpoints do: jobs driven for a visitor, and small answers. Layout and wiring are in `app`."""

from __future__ import annotations

import contextlib
import html
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from page_calls import run, shares_gpu
from portraitgen import weights
from portraitgen.cores import usable_cores
from portraitgen.editors import ENGINES
from portraitgen.errors import InputError, Overrun
from portraitgen.estimates import (
    clip_seconds,
    expected_seconds,
    finished_stages,
    seconds_left,
    share_done,
)
from portraitgen.lending import LONGEST, kept_shares, longest_call, share_that_fits
from portraitgen.limits import MAX_START
from portraitgen.results import conclude
from portraitgen.sessions import (
    Job,
    Session,
    check_uploads,
    count_overruns,
    history,
    learned_before,
    learned_with,
    make_export,
    make_job,
    open_session,
    overruns,
    resume_session,
    show,
    shown,
    source_of,
    touch,
)
from portraitgen.storage import explain_os_error
from portraitgen.wording import (
    BROKEN,
    CHOSEN,
    CLIP_HINT,
    HUB_ON_CPU,
    LOOKING,
    NOT_DONE,
    RESTORED,
    RESTORED_CLIP,
    STARTING,
    STOPPED,
    describe_clip,
    describe_cost,
    describe_done,
    describe_face,
    describe_rest,
    describe_stage,
    describe_step,
    explain_too_long,
    name_engine,
    not_offered,
    note,
)

SHOWN = ("reconstruct", "edit", "render")  # what these jobs make is shown; of the others come files beside it


def stopped() -> tuple[Any, ...]:
    """Values of ``status, preview`` after a stop, once the queue has let go of the job; a run started sooner would be lost."""
    time.sleep(1)
    return note(STOPPED), None


def drive(session: Session, prepare: Callable[[Session], Job]) -> Iterator[tuple[Any, ...]]:
    """Run one job for one visitor, yielding values of ``result, status, preview``; a stop takes effect at the next yield.

    They may look at something else meanwhile; what came of the job is shown when it is done. Agents all come in one session of gradio's,
    whoever they work for, so each of their jobs is a visitor of its own.

    Raises:
        gr.Error: with one clear sentence, after showing the same sentence in the message area.
    """
    begin = time.monotonic()
    cause: Exception | None
    kept = gr.skip()  # a result that is shown stays until there is another
    try:
        session = Session() if of_agent() else session
        session.become(open_session(session))
        job = replace(prepare(session), overruns=overruns(session))
        job = replace(job, notice=" ".join(filter(None, [job.notice, too_long(job)])))
        before = kept_shares(job)
        expected = expected_seconds([s for s in job.stages if before[s] < 1], job.frame_count, job.preset)
        expected = {stage: seconds * (1 - before[stage]) for stage, seconds in expected.items()}
        yield kept, note(STARTING, job.notice, value=0.0), None
        latest: Any = kept
        remarks: tuple[str, ...] = ()
        done: dict[str, float] = {}
        place, told = 0, -1.0
        for step in run(job):
            latest = step.preview if step.preview is not None else latest
            remarks = tuple(dict.fromkeys(remarks + step.notes))
            if step.stage in expected:
                start = before[step.stage]
                done[step.stage] = max(done.get(step.stage, 0.0), (step.fraction - start) / (1 - start))
            now = time.monotonic()
            if now - told < 0.4 and step.fraction < 1:
                continue
            told = now
            touch(session, job)
            # A second pass goes through the same stages again.
            place = max(place, job.stages.index(step.stage) if step.stage in job.stages else 0)
            share = share_done(expected, done)
            left = None if share == 1 else seconds_left(None if has_gpu() else expected, share, now - begin)
            where = describe_step(place + 1, len(job.stages), now - begin, left)
            status = note(describe_stage(step.stage, step.fraction), f"{where} {step.message}", job.notice, value=share)
            yield kept, status, latest
            latest = kept  # sent twice, gradio would write its file anew while it is being read
        if job.overruns:
            count_overruns(session, 0)
        end = note(describe_done(time.monotonic() - begin), job.notice, *remarks)
        if job.verb in SHOWN:
            session.become(conclude(session, job))
        yield str(job.output) if job.verb != "reconstruct" else kept, end, None
        return
    except InputError as error:
        message, cause = str(error), None
        if isinstance(error, Overrun):
            count_overruns(session, job.overruns + 1)
    except Exception as error:
        message, cause = explain_os_error(error) if isinstance(error, OSError) else BROKEN, error
    yield kept, note(message, bad=True), None
    # The message area says it already; other people's programs get it as the error.
    raise gr.Error(html.escape(message), print_exception=cause is not None, title=NOT_DONE, visible=False) from cause


def of_agent() -> bool:
    """Whether this is done for a program that speaks the Model Context Protocol."""
    request = LocalContext.request.get(None)
    return request is not None and request.headers.get("x-gradio-user") == "mcp"


def export(what: str, mark: bool, session: Session) -> Iterator[tuple[Any, ...]]:
    """Make a file from the result that is shown: one of "webm", "orbit", "ply", "zip", "views"."""
    yield from drive(session, lambda own: make_export(what, own, mark=mark))


def look_anew(clip: str | None, max_seconds: float, preset: str, session: Session) -> Iterator[tuple[Any, ...]]:
    """`look_at` another clip: from its beginning, or as this visitor had it learned before, which then is not done again.

    Besides what `look_at` yields, the values of ``start``, which reaches to the clip's end, ``max_seconds`` and ``preset``.
    """
    from portraitgen.clip import stated_seconds

    end = 0.0
    with contextlib.suppress(InputError):  # which `look_at` is about to say
        end = stated_seconds(clip) if clip else 0.0
    last = min(end - 0.1, MAX_START) if end else MAX_START
    before = learned_before(session or Session(), Path(clip)) if end and clip else None
    preset, start, max_seconds = before or (preset, 0.0, max_seconds)
    reach = max(0.1, math.floor(last * 10) / 10)
    slider = gr.Slider(value=round(start, 1), maximum=reach, interactive=bool(end))
    choice: tuple[Any, ...] = (slider, max_seconds, preset) if before else (slider, gr.skip(), gr.skip())
    for facts, picture in look_at(clip, start, max_seconds, preset, session):
        yield facts, picture, *choice
        choice = (gr.skip(),) * 3  # the visitor may have moved them since


def look_at(
    clip: str | None, start: float, max_seconds: float, preset: str, session: Session
) -> Iterator[tuple[str, Any]]:
    """Say at once what an uploaded clip is, then where the face is and what an edit will take; or what is wrong with it."""
    if not clip:
        yield note(CLIP_HINT), None
        return
    from portraitgen.clip import probe, stated_seconds

    try:
        check_uploads("clip", clip)
        info = probe(Path(clip), start=start, max_seconds=max_seconds)
        facts = describe_clip(info.width, info.height, info.duration, float(info.rate), info.has_audio, info.start)
        rest = describe_rest(stated_seconds(clip) - info.start - info.duration)
        yield note(facts, rest, LOOKING), None
        from portraitgen.inspection import inspect

        found = inspect(Path(clip), info)
        job = make_job(clip, preset, start, max_seconds, session or Session(), info)
    except (InputError, OSError) as error:
        yield note(explain_os_error(error) if isinstance(error, OSError) else str(error), bad=True), None
        return
    learn, edit = clip_seconds(info.frame_count, preset, found.crop.size, finished_stages(job.portrait))
    # Of a shared GPU the price stands beside each engine: `page_notices.prices`.
    cost = "" if shares_gpu() else describe_cost(learn, edit, cores=usable_cores(), gpu=has_gpu())
    slower = HUB_ON_CPU if not has_gpu() and any(len(engines(kind)) > 1 for kind in ENGINES) else ""
    yield note(facts, rest, describe_face(found.seen, found.moments), cost, slower), found.picture


def too_long(job: Job) -> str:
    """What to say before a job that a shared GPU can hardly do in the time it is lent for; empty for any other."""
    if not shares_gpu() or (seconds := longest_call(job)) <= LONGEST:
        return ""
    return explain_too_long(seconds, LONGEST, share_that_fits(job))


def has_gpu() -> bool:
    """Whether jobs run on a GPU; asks nothing that would start CUDA."""
    return shares_gpu() or shutil.which("nvidia-smi") is not None


def engines(kind: str) -> list[tuple[str, str]]:
    """Engines for one kind of edit that this machine can run, as (name shown, name), the one to use first.

    On a GPU also those whose weights are still to be fetched, after all that are here; without one they would take hours.
    """
    here = [name for name in ENGINES[kind] if weights.ready(name)]
    if not has_gpu():
        return [(name_engine(kind, name, 0), name) for name in here]
    others = [name for name in ENGINES[kind] if name not in here and weights.can_fetch(name)]
    return [(name_engine(kind, name, weights.bytes_missing(name)), name) for name in (*here[1:], here[0], *others)]


def offered(kind: str, engine: str) -> str:
    """The engine that a visitor or a program named; InputError for one that this machine does not offer."""
    names = [name for _, name in engines(kind)]
    if engine in ENGINES[kind] and engine not in names:
        raise InputError(not_offered(engine, names))
    return engine


def after(session: Session) -> tuple[Any, ...]:
    """Values of ``visit, earlier, pair`` and of `mine`, once a job is over: what the visitor has now, and is shown."""
    kept = history(session)
    return (
        Path(session.folder).name if session.folder else gr.skip(),
        gr.Gallery([(row.picture, row.title) for row in kept], visible=bool(kept)),
        pair(session) or gr.skip(),
        *mine(session),
    )


def pair(session: Session) -> list[str]:
    """The result that is shown and, before it, the clip that it belongs to; one value, so that they are never shown apart."""
    return (
        [path for path in (session.source, session.result) if path and Path(path).is_file()] if session.result else []
    )


def mine(session: Session) -> tuple[Any, ...]:
    """The boxes that need a result of the visitor's own, which the session knows: values of ``again, more, onward``."""
    edited = bool(session.edited)
    return gr.Checkbox(visible=edited), gr.Column(visible=bool(edited or session.learned)), gr.Button(visible=edited)


def forget(session: Session) -> None:
    """The visitor sees another clip, or a stored result: neither is to be gone on from or packed. Their own stay in the history."""
    session.become(Session(session.folder))


def pick(session: Session, event: gr.SelectData) -> tuple[Any, ...]:
    """Show an earlier result beside its clip, to go on from it.

    Values of ``clip, start, max_seconds, preset, pair, status`` and of `mine`.
    """
    row = history(session)[event.index]
    session.become(show(session, row))
    preset, start, max_seconds = learned_with(Path(row.learned))
    with contextlib.suppress(OSError):
        os.utime(row.learned)  # what this clip was learned with last, says the look at it
    part = (session.source or None, round(start, 1), max_seconds, preset)
    return *part, pair(session), note(row.title, CHOSEN), *mine(session)


def resume(visit: str, session: Session) -> tuple[Any, ...]:
    """Give someone who closed the page their latest result back, or the clip they had learned since.

    Values of ``clip, status`` and of `after`.
    """
    before = resume_session(visit)
    if before is None:
        return (gr.skip(),) * 8
    session.become(before)
    row = shown(session)
    said = note(row.title, RESTORED) if row else note(RESTORED_CLIP)
    return session.source or source_of(session.learned) or None, said, *after(session)
