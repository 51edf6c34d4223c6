"""Jobs cut into calls of a lent GPU: nothing is done twice, what is cut off is gone on with, and the page says how it went."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from test_lending import CLIP, finish, keep

import page_calls
import page_handlers
from page_notices import prices
from portraitgen import pipeline, reconstruction, results, sessions, wording
from portraitgen.apart import apart
from portraitgen.clip import probe
from portraitgen.crop import Crop
from portraitgen.editors import ENGINES, EditRequest
from portraitgen.errors import InputError, Overrun
from portraitgen.estimates import finished_stages, kept_share
from portraitgen.lending import LONGEST, PRICE, gpu_calls, gpu_seconds, longest_call, reserved_seconds
from portraitgen.portrait import Portrait
from portraitgen.progress import Progress
from portraitgen.sessions import Job, Session, make_edit, make_job

LEARN, EDIT = 8, 5  # steps of the stand-ins for the two long stages


def test_the_price_is_that_of_the_engine_and_of_the_key_frames(space: Space, own: Session) -> None:
    chosen = {"text": "builtin", "style": "gatys", "tryon": "fashn-vton", "relight": "auto"}

    def told(preset: str = "preview", key_frames: int = 0, **change: str) -> dict[str, str]:
        return prices(str(CLIP), 0.0, 2.0, preset, key_frames, own, chosen=chosen | change)

    def seconds(line: str) -> int:
        return int(re.search(r"(\d+) s for each edit", line)[1])  # type: ignore[index]

    usual = told()
    assert list(usual) == list(chosen)
    assert "to learn the clip, once" in usual["text"]
    costs = {engine: seconds(told(text=engine)["text"]) for engine in ENGINES["text"]}
    assert costs["builtin"] == seconds(usual["text"]) < costs["instruct-pix2pix"] < costs["flux2-klein"]
    assert seconds(told(key_frames=40, text="flux2-klein")["text"]) > costs["flux2-klein"]
    assert seconds(usual["relight"]) == seconds(usual["text"]), (
        "auto takes the built-in one while the other is not here"
    )
    high = told("high")
    assert all(LONGEST < seconds(line) / PRICE < 2 * LONGEST for line in high.values()), "in more calls than one"
    assert not any('class="bad"' in line for line in high.values())
    assert prices(None, 0.0, 2.0, "preview", 0, own, chosen=chosen) == {}


def test_a_job_that_hardly_fits_says_so_when_it_starts(space: Space) -> None:
    def prepare(own: Session) -> Job:
        job = replace(make_job(str(CLIP), "preview", 0.0, 0.5, own), frame_count=3000)
        return make_edit(job, own, EditRequest("text", "red hair"), "auto")

    steps = page_handlers.drive(Session(), prepare)
    assert "Use a part of the clip at most" in next(steps)[1]
    steps.close()  # type: ignore[attr-defined]


class LentGpu:
    """Does the work of each call in a forked process, kills it when its time is up, and brings back what is pickled, as ZeroGPU does.

    A new piece of news counts as a second.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.last: Any = None

    def __call__(self, task: Callable[[Job], Iterator[Any]]) -> Callable[[Job], Iterator[Any]]:
        context = multiprocessing.get_context("fork")

        def child(order: Any, news: Any) -> None:
            try:
                for step in task(pickle.loads(order)):
                    news.send(("step", step))
                    news.recv()
                news.send(("end", None))
            except Exception as error:
                news.send(("failed", type(error).__name__))

        def call(job: Job) -> Iterator[Any]:
            seconds = gpu_seconds(job)
            self.calls.append((job.verb, seconds))
            here, there = context.Pipe()
            self.last = context.Process(target=child, args=(pickle.dumps(job), there), daemon=True)
            self.last.start()
            try:
                latest = None
                while seconds:
                    kind, content = here.recv()
                    if kind == "end":
                        return
                    if kind == "failed":
                        raise gr.Error(content, title="ZeroGPU worker error", print_exception=False)
                    seconds -= content != latest
                    latest = content
                    yield content
                    if seconds:  # else it is killed where it is, not a little further on
                        here.send(None)
                raise gr.Error("GPU task aborted", title="ZeroGPU worker error", print_exception=False)
            finally:
                self.last.kill()
                self.last.join()

        return call


class Space:
    """A machine that is lent a GPU, with quick stand-ins for the stages; each tells when it began and ended, and in which process."""

    def __init__(self, folder: Path) -> None:
        self.log, self.gpu = folder / "log", LentGpu()
        self.failure: BaseException | None = None
        self.log.touch()

    def tell(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def told(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()]

    def process_of(self, what: str) -> int:
        return int(next(line.split()[1] for line in self.log.read_text().splitlines() if line.startswith(what)))

    def stage(self, name: str, steps: int = 1) -> Iterator[Progress]:
        self.tell(f"{name}-began")
        for step in range(steps):
            if self.failure is not None and steps > 1:
                raise self.failure
            yield Progress(name, step / steps, "At work.")
        self.tell(f"{name}-ended")

    def clip(self, clip: Path, directory: Path, settings: Any) -> Iterator[Progress]:
        directory.mkdir()
        portrait = Portrait(directory, settings, "source.mp4", probe(clip, max_seconds=0.5), Crop(0, 0, 64, 64))
        yield from self.stage("clip")
        portrait.finish("clip", 0.1)
        return portrait

    def edit(self, source: Path, output: Path, *_: Any) -> Iterator[Progress]:
        Portrait.load(source).require("reconstruction")
        yield from self.stage("edit", EDIT)
        output.write_bytes(b"result")


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Space:
    made = Space(tmp_path)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(sessions, "ROOT", tmp_path / "sessions")
    monkeypatch.setattr(page_calls, "compute", made.gpu(page_calls.compute))
    # The real one starts a Python that knows nothing of the stand-ins.
    monkeypatch.setattr(page_calls, "apart", lambda work, *a, **k: work(*a, **k))
    monkeypatch.setattr(results, "finish_edit", lambda session, job: session)
    monkeypatch.setattr(pipeline, "clip_stage", made.clip)
    monkeypatch.setattr(pipeline, "tracking_stage", lambda _: made.stage("tracking"))
    monkeypatch.setattr(pipeline, "matting_stage", lambda _: made.stage("matting"))
    monkeypatch.setattr(Portrait, "tracking", lambda _: SimpleNamespace(K=torch.eye(3)))
    monkeypatch.setattr(reconstruction, "reconstruct", lambda *_: made.stage("reconstruction", LEARN))
    monkeypatch.setattr(pipeline, "_edit_portrait", made.edit)
    return made


def press(session: Session) -> tuple[Session, list[str], str]:
    """The visitor presses the button: their session then, what the message area showed, and the error if there was one."""

    def prepare(own: Session) -> Job:
        job = make_job(str(CLIP), "preview", 0.0, 0.5, own)
        return make_edit(job, own, EditRequest("text", "red hair", engine="builtin"), "auto")

    shown, error = [], ""
    try:
        for view in page_handlers.drive(session, prepare):
            shown.append(view[1])
    except gr.Error as caught:
        error = caught.message
    return session, shown, error


STAGES = ("clip", "tracking", "matting", "reconstruction", "edit")


def test_two_calls_make_one_job_and_nothing_is_done_twice(space: Space) -> None:
    session, shown, error = press(Session())
    assert error == ""
    assert space.told() == [f"{stage}-{when}" for stage in STAGES for when in ("began", "ended")]
    assert [verb for verb, _ in space.gpu.calls] == ["reconstruct", "edit"]
    assert {space.process_of(stage) for stage in STAGES[:3]} == {os.getpid()}, "outside of the calls"
    assert len({os.getpid(), space.process_of("reconstruction"), space.process_of("edit")}) == 3
    assert "Done in" in shown[-1]
    again, _, _ = press(session)
    assert space.told().count("reconstruction-began") == 1
    assert [verb for verb, _ in space.gpu.calls] == ["reconstruct", "edit", "edit"]
    assert sessions.overruns(again) == 0


def test_after_a_call_that_was_too_short_the_next_goes_on_with_more_time(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LEARN", 18)  # a call has about 16 seconds
    session, shown, error = press(Session())
    assert "The cut-out clip is kept: press the button again to go on from there, with more time." in error
    assert error.replace("'", "&#x27;") in shown[-1]
    assert space.told()[-1] == "reconstruction-began"
    assert not space.gpu.last.is_alive()
    session, shown, error = press(session)
    assert error == ""
    (_, first), (_, second), _ = space.gpu.calls
    assert first < 18 < second
    told = space.told()
    assert [told.count(f"{stage}-began") for stage in STAGES] == [1, 1, 1, 2, 1]
    assert all(told.count(f"{stage}-ended") == 1 for stage in STAGES)
    assert sessions.overruns(session) == 0


def test_learning_longer_than_one_call_goes_on_in_the_next(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 170

    def learn(portrait: Portrait, *_: Any) -> Iterator[Progress]:
        space.tell("reconstruction-began")
        for step in range(round(steps * portrait.kept.get("reconstruction", 0.0)), steps):
            space.tell(f"step-{step}")
            portrait.keep("reconstruction", (step + 1) / steps)
            yield Progress("reconstruction", step / steps, f"Step {step}.")

    monkeypatch.setattr(reconstruction, "reconstruct", learn)
    monkeypatch.setattr(page_calls.time, "monotonic", itertools.count().__next__)  # a second for each step
    own = sessions.open_session(Session())
    job = make_job(str(CLIP), "high", 0.0, 0.5, own)
    (call,) = gpu_calls(job)
    expected = reserved_seconds(call)
    for _ in page_calls.run(job):
        pass
    assert "reconstruction" in finished_stages(job.portrait)
    assert [line for line in space.told() if line.startswith("step-")] == [f"step-{step}" for step in range(steps)]
    (_, first), (_, second) = space.gpu.calls
    assert second < first == LONGEST
    assert first + second == pytest.approx(expected, abs=10)


class SlowEdit:
    """A stand-in for an edit that takes ``steps`` seconds, and ``render`` more for its clip; what it keeps of the first is gone on with."""

    def __init__(self, space: Space, steps: int, render: int) -> None:
        self.space, self.steps, self.render = space, steps, render

    def __call__(self, source: Path, output: Path, *more: Any) -> Iterator[Progress]:
        save: Path = more[5]
        for step in range(round(self.steps * kept_share(save, "fitting")), self.steps):
            self.space.tell(f"step-{step}")
            keep(save, 0.99, (step + 1) / self.steps)
            yield Progress("fitting", step / self.steps, f"Step {step}.")
        finish(save, "edit", "fitting")
        yield Progress("render", 0.0, "Looking.")
        for frame in range(self.render):
            self.space.tell(f"frame-{frame}")
            yield Progress("render", frame / self.render, f"Frame {frame}.")
        output.write_bytes(b"result")


def long_edit(space: Space, monkeypatch: pytest.MonkeyPatch, steps: int, frames: int) -> Job:
    """An edit of a clip of so many frames that is learned, with a stand-in that renders them in the time that is expected."""
    own = sessions.open_session(Session())
    job = replace(make_job(str(CLIP), "high", 0.0, 0.5, own), frame_count=frames, learned=True)
    finish(job.portrait, "clip", "tracking", "matting", "reconstruction")
    job = make_edit(job, own, EditRequest("text", "red hair", engine="builtin"), "auto")
    monkeypatch.setattr(pipeline, "_edit_portrait", SlowEdit(space, steps, int(longest_call(job)) - 5))
    monkeypatch.setattr(pipeline, "is_pending", lambda folder: True)
    monkeypatch.setattr(page_calls.time, "monotonic", itertools.count().__next__)  # a second for each step
    return job


@pytest.mark.parametrize(("steps", "frames", "calls"), [(40, 700, 1), (110, 700, 2), (118, 12, 2), (118, 1400, 2)])
def test_an_edit_longer_than_one_call_goes_on_in_the_next(
    space: Space, monkeypatch: pytest.MonkeyPatch, steps: int, frames: int, calls: int
) -> None:
    job = long_edit(space, monkeypatch, steps, frames)
    expected = reserved_seconds(gpu_calls(job)[0])
    for _ in page_calls.run(job):
        pass
    assert job.output.is_file()
    told = space.told()
    assert [line for line in told if line.startswith("step-")] == [f"step-{step}" for step in range(steps)]
    assert told.count("frame-0") == 1, "what cannot be rendered in the rest of a call is not begun there"
    assert len(space.gpu.calls) == calls
    if steps == 118:  # as expected
        assert sum(seconds for _, seconds in space.gpu.calls) == pytest.approx(expected, abs=25)


def test_an_edit_whose_call_is_ended_too_early_goes_on_from_what_it_kept(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = long_edit(space, monkeypatch, 150, 12)
    monkeypatch.setattr(page_calls, "leaves", lambda *_: False)
    for _ in page_calls.run(job):
        pass
    assert job.output.is_file()
    assert len(space.gpu.calls) == 2
    assert len(set(space.told())) == len(space.told()), "nothing is done twice"


def test_learning_that_gets_nowhere_ends(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LEARN", 500)
    monkeypatch.setattr(page_calls.time, "monotonic", itertools.count().__next__)
    own = sessions.open_session(Session())
    with pytest.raises(Overrun, match="The cut-out clip is kept: press the button again"):
        list(page_calls.run(make_job(str(CLIP), "preview", 0.0, 0.5, own)))
    assert len(space.gpu.calls) == 1


def test_an_edit_that_was_too_long_keeps_what_was_learned(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "EDIT", 500)
    session, _, error = press(Session())
    assert "What was learned of the person is kept: press" in error
    for _ in range(9):
        session, _, error = press(session)
    assert "What was learned of the person is kept. Use fewer seconds" in error, "no call can be longer than that"
    assert max(seconds for _, seconds in space.gpu.calls) == LONGEST
    monkeypatch.setitem(globals(), "EDIT", 5)
    assert press(session)[2] == ""
    told = space.told()
    assert told.count("reconstruction-began") == told.count("edit-ended") == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (InputError("The scene moves. Choose another background."), "The scene moves. Choose another background."),
        (OSError(28, "No space left on device"), "The disk is full"),
        (RuntimeError("secret"), wording.BROKEN),
    ],
)
def test_errors_come_back_from_the_gpu_in_words(space: Space, failure: BaseException, words: str) -> None:
    space.failure = failure
    _, _, error = press(Session())
    assert words in error
    assert "secret" not in error
    assert space.told()[-1] == "reconstruction-began"


def test_a_stop_ends_the_call(space: Space) -> None:
    own = sessions.open_session(Session())
    steps = page_calls.run(make_job(str(CLIP), "preview", 0.0, 0.5, own))
    assert next(step for step in steps if step.stage == "reconstruction")
    assert space.gpu.last.is_alive()
    steps.close()  # type: ignore[attr-defined]
    assert not space.gpu.last.is_alive()
    press(own)
    assert space.told().count("matting-began") == 1


def test_without_a_lent_gpu_everything_is_done_in_one_process(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU")
    monkeypatch.delattr(page_calls, "apart")
    press(Session())
    assert {space.process_of(stage) for stage in STAGES} == {os.getpid()}
    assert space.gpu.calls == []


def test_what_needs_no_gpu_can_be_done_apart(tmp_path: Path) -> None:
    portrait = tmp_path / "portrait"
    stages = [step.stage for step in apart(pipeline.reconstruct, CLIP, portrait, max_seconds=0.3, until="matting")]
    assert list(dict.fromkeys(stages)) == ["clip", "tracking", "matting"]
    assert set(pipeline.timings(portrait)) == {"clip", "tracking", "matting"}
