"""A GPU that is lent call by call: what each call is for, and for how long."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import page_handlers
from portraitgen import lending
from portraitgen.editors import ENGINES, EditRequest
from portraitgen.lending import (
    LONGEST,
    PRICE,
    can_leave,
    gpu_calls,
    gpu_seconds,
    longest_call,
    reserved_seconds,
    share_that_fits,
)
from portraitgen.pipeline import PRESETS
from portraitgen.sessions import Job
from portraitgen.storage import replacing

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"


def asked(
    folder: Path, engine: str = "builtin", *, kind: str = "text", preset: str = "preview", frames: int = 150
) -> Job:
    """An edit of a clip that is not learned yet."""
    request = EditRequest(kind, "sunset", folder / "picture.png", engine=engine)
    (folder / "picture.png").touch()
    options = {"request": request, "background": "auto", "save": folder / "edited"}
    portrait = folder / "portrait"
    return Job(CLIP, portrait, preset, 5.0, "edit", portrait, folder / "out.mp4", options, frame_count=frames)


def write_facts(portrait: Path, facts: dict[str, Any]) -> None:
    """What a portrait's folder says of itself; whole, as a portrait does, for the process may be killed meanwhile."""
    portrait.mkdir(exist_ok=True)
    with replacing(portrait / "portrait.json") as temporary:
        temporary.write_text(json.dumps(facts))


def finish(portrait: Path, *stages: str) -> None:
    """A folder that holds these stages."""
    write_facts(portrait, {"stages": dict.fromkeys(stages, 1.0)})


def test_learning_is_one_call_and_the_edit_the_next(tmp_path: Path) -> None:
    job = asked(tmp_path)
    learn, edit = gpu_calls(job)
    assert (learn.verb, learn.stages[-1]) == ("reconstruct", "reconstruction")
    assert edit.stages == ("edit", "fitting", "render")
    assert gpu_calls(replace(job, verb="reconstruct")) == (learn,)
    finish(job.portrait, "clip", "tracking", "matting", "reconstruction")
    assert gpu_calls(job) == (edit,)
    assert gpu_calls(replace(job, verb="reconstruct")) == ()


def test_seconds_follow_what_is_left_to_do(tmp_path: Path) -> None:
    learn, edit = gpu_calls(asked(tmp_path))
    for call in (learn, edit):
        assert gpu_seconds(replace(call, frame_count=60)) < gpu_seconds(call)
        assert gpu_seconds(call) < gpu_seconds(replace(call, preset="standard")) < LONGEST
        assert gpu_seconds(replace(call, overruns=1)) > gpu_seconds(call)
        assert gpu_seconds(replace(call, preset="high", overruns=9)) == LONGEST
    whole = gpu_seconds(learn)
    finish(learn.portrait, "clip", "tracking", "matting")
    assert gpu_seconds(learn) == whole, "what needs no GPU is not paid for in any case"
    facts = {"stages": dict.fromkeys(("clip", "tracking", "matting"), 1.0), "kept": {"reconstruction": 0.5}}
    (learn.portrait / "portrait.json").write_text(json.dumps(facts))
    half = gpu_seconds(learn)
    assert whole / 2 <= half <= whole / 2 + 5, "what was learned before is not paid for again"
    finish(learn.portrait, "clip", "tracking", "matting", "reconstruction")
    assert gpu_seconds(learn) < half


def keep(edited: Path, edit: float, fitting: float) -> None:
    """A folder that holds so much of an edit."""
    write_facts(edited, {"stages": {}, "kept": {"edit": edit, "fitting": fitting}, "pending": "x"})


def test_of_an_edit_only_what_is_left_is_paid_for(tmp_path: Path) -> None:
    call = gpu_calls(asked(tmp_path, "flux2-klein", preset="standard"))[-1]
    seconds = [gpu_seconds(call)]
    for shares in ((0.5, 0.0), (0.5, 0.5), (1.0, 0.5), (1.0, 0.9)):
        keep(call.options["save"], *shares)
        seconds.append(gpu_seconds(call))
    finish(call.options["save"], "clip", "tracking", "matting", "reconstruction", "edit", "fitting")
    assert not can_leave(call)
    seconds.append(gpu_seconds(call))
    assert seconds == sorted(set(seconds), reverse=True)
    assert seconds[-1] == gpu_seconds(replace(call, verb="render"))


def test_learning_is_paid_for_alike_whatever_edits_the_clip_then(tmp_path: Path) -> None:
    assert len({gpu_seconds(gpu_calls(asked(tmp_path, engine))[0]) for engine in ENGINES["text"]}) == 1


def test_an_engine_that_is_loaded_in_every_call_is_paid_for_in_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = gpu_calls(asked(tmp_path, "flux2-klein", preset="high"))[-1]
    told = reserved_seconds(call)
    slower = {**lending._ENGINES, "flux2-klein": (25.0, 1.0)}
    monkeypatch.setattr(lending, "_ENGINES", slower)
    assert LONGEST < told < 2 * LONGEST, "two calls"
    assert reserved_seconds(call) - told == 2 * 5


def test_key_frames_are_paid_for(tmp_path: Path) -> None:
    for engine in ENGINES["text"]:
        call = gpu_calls(asked(tmp_path, engine))[-1]
        seconds = []
        for count in (8, None, 16, 32):
            request = replace(call.options["request"], key_frames=count)
            seconds.append(gpu_seconds(replace(call, options=call.options | {"request": request})))
        few, usual, sixteen, many = seconds
        assert few < usual == sixteen < many, engine


def test_a_job_that_one_call_cannot_hold_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    for preset in PRESETS:
        job = asked(tmp_path, "flux2-klein", preset=preset)
        assert longest_call(job) <= LONGEST
        assert page_handlers.too_long(job) == "", "learning and editing go on in a next call"
    long = asked(tmp_path, frames=3000)
    share = share_that_fits(long)
    assert longest_call(replace(long, frame_count=round(3000 * share))) <= LONGEST < longest_call(long)
    said = page_handlers.too_long(long)
    assert "the shared GPU is lent for 120 s at a time: it would hardly be done." in said
    assert said.endswith(
        f"Use a part of the clip at most {share:.0%} as long, or duplicate this Space to a GPU of your own."
    )
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert page_handlers.too_long(long) == "", "a GPU of its own has all the time"


def test_a_whole_preview_fits_a_visitors_day(tmp_path: Path) -> None:
    assert PRICE * sum(gpu_seconds(call) for call in gpu_calls(asked(tmp_path, frames=300))) <= 120


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_edit_can_be_sent_to_the_gpu_and_says_how_long_it_takes(tmp_path: Path, kind: str, preset: str) -> None:
    embedded, *others = (gpu_calls(asked(tmp_path, name, kind=kind, preset=preset)) for name in ENGINES[kind])
    for calls in (embedded, *others):
        assert pickle.loads(pickle.dumps(calls)) == calls
        seconds = [gpu_seconds(call) for call in calls]
        assert all(isinstance(value, int) and 0 < value <= LONGEST for value in seconds)
        if preset == "preview":
            assert calls is embedded or seconds[1] > gpu_seconds(embedded[1]), "an engine from the Hub takes longer"
            assert PRICE * max(seconds) <= 120, "a visitor without an account has two minutes a day"
