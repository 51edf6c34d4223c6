"""What the page's handlers answer, without the page between."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from huggingface_hub import constants
from serving import Page, write_clip

import page_handlers
from portraitgen import limits, sessions, wording
from portraitgen.errors import InputError
from portraitgen.progress import Progress


def test_an_earlier_result_is_shown_again_and_gone_on_from(page: Page) -> None:
    client = page.client()
    page.edit(client).result()
    page.edit(client, "a bronze statue").result()
    name = page.pipeline.folders("edit")[-1].parent.name
    session = sessions.Session()
    clip, status, _, _, shown, *_ = page_handlers.resume(name, session)
    assert session == sessions.resume_session(name)
    assert Path(clip).name == "source.mp4"
    rows = sessions.history(session)
    assert shown == [clip, rows[-1].clip]
    assert wording.RESTORED in status
    picked = page_handlers.pick(session, SimpleNamespace(index=0))  # type: ignore[arg-type]
    source = str(Path(rows[0].portrait) / "source.mp4")
    assert session == sessions.Session(
        session.folder, learned=rows[0].learned, edited=rows[0].portrait, result=rows[0].clip, source=source
    )
    assert Path(picked[0]).parent == Path(rows[0].portrait), "beside its own clip"
    assert picked[1:5] == (0.0, 10.0, "preview", [source, rows[0].clip])


def test_a_clip_that_was_learned_before_is_looked_at_as_it_was_learned(own: sessions.Session, tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "clip.mp4"))
    _, _, start, *others = next(page_handlers.look_anew(clip, 10, "preview", own))
    assert (start.value, start.interactive) == (0, True)
    assert all("value" not in choice for choice in others), "what the visitor has set stays"
    reach = start.maximum
    assert 0.1 <= reach < limits.MAX_START
    job = sessions.make_job(clip, "standard", round(reach / 2, 1), 4, own)
    job.portrait.mkdir()
    _, _, start, seconds, preset = next(page_handlers.look_anew(clip, 10, "preview", own))
    assert (start.value, start.maximum, seconds, preset) == (round(reach / 2, 1), reach, 4, "standard")
    assert sessions.make_job(clip, preset, start.value, seconds, own).portrait == job.portrait, (
        "it is not learned again"
    )
    _, _, start, *_ = next(page_handlers.look_anew(None, 10, "preview", own))
    assert (start.value, start.interactive) == (0, False), "without a clip there is nothing to begin in"


def test_engines_follow_the_weights_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_handlers.shutil, "which", lambda name: None)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setattr(page_handlers.weights, "path", lambda name: None)
    monkeypatch.setattr(page_handlers.weights, "ROOT", tmp_path / "weights")
    assert [name for _, name in page_handlers.engines("text")] == ["builtin"], "others need a GPU"
    with pytest.raises(InputError, match=r"klein is not to be had on this machine\. Choose one of: auto, builtin\."):
        page_handlers.offered("text", "flux2-klein")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1e10))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert page_handlers.engines("text") == [
        ("Built-in looks", "builtin"),
        ("InstructPix2Pix (2.1 GB, fetched at first use)", "instruct-pix2pix"),
    ], "no room for the other"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [name for _, name in page_handlers.engines("text")] == ["builtin"]
    monkeypatch.delenv("SPACES_ZERO_GPU")
    monkeypatch.setattr(page_handlers.weights, "path", lambda name: tmp_path)
    assert [name for _, name in page_handlers.engines("text")] == ["builtin", "instruct-pix2pix", "flux2-klein"]
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert page_handlers.engines("text")[0] == ("InstructPix2Pix", "instruct-pix2pix")
    assert page_handlers.engines("relight") == [("IC-Light", "ic-light"), ("Built-in relighting", "builtin")]


def test_the_bar_never_goes_back(own: sessions.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(stage, half) for half in (0.5, 1.0) for stage in ("edit", "fitting")]
    monkeypatch.setattr(page_handlers, "run", lambda job: (Progress(*step, "Working on it.") for step in steps))
    monkeypatch.setattr(page_handlers, "conclude", lambda session, job: session)
    monkeypatch.setattr(page_handlers.time, "monotonic", iter(range(100)).__next__)
    job = sessions.make_job(str(write_clip(tmp_path / "clip.mp4")), "preview", 0, 10, own)
    os.utime(job.clip, (0, 0))
    views = page_handlers.drive(own, lambda own: replace(job, verb="edit", learned=True))
    shares = [float(share) for view in views for share in re.findall(r'value="([\d.]+)"', str(view[1]))]
    assert len(shares) == 5
    assert shares == sorted(shares)
    assert job.clip.stat().st_mtime > 0, "what a job works with is not swept while it runs"


def test_what_was_learned_before_is_not_waited_for(
    own: sessions.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sessions.make_job(str(write_clip(tmp_path / "clip.mp4")), "preview", 0, 10, own)
    job.portrait.mkdir()
    facts = {"stages": dict.fromkeys(("clip", "tracking", "matting"), 1.0), "kept": {"reconstruction": 0.6}}
    (job.portrait / "portrait.json").write_text(json.dumps(facts))
    steps = [Progress("reconstruction", fraction, "At work.") for fraction in (0.6, 0.8, 1.0)]
    monkeypatch.setattr(page_handlers, "run", lambda job: iter(steps))
    monkeypatch.setattr(page_handlers.time, "monotonic", itertools.count(0, 10).__next__)
    shown = [str(view[1]) for view in page_handlers.drive(own, lambda own: job)]
    assert re.findall(r'value="([\d.]+)"', "".join(shown)) == ["0.000", "0.000", "0.500", "1.000"]


def test_a_picture_of_the_work_is_sent_once(
    own: sessions.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again, its file would be written anew while a browser reads it."""
    picture = np.zeros((8, 8, 3), np.uint8)
    steps = [Progress("matting", 1.0, "a"), Progress("matting", 1.0, "b", picture), Progress("matting", 1.0, "c")]
    monkeypatch.setattr(page_handlers, "run", lambda job: iter(steps))
    job = sessions.make_job(str(write_clip(tmp_path / "clip.mp4")), "preview", 0, 10, own)
    output = write_clip(tmp_path / "made.mp4")
    made = replace(job, verb="webm", output=output)
    start, *shown, end = (preview for _, _, preview in page_handlers.drive(own, lambda _: made))
    assert start is None
    assert end is None
    assert [preview is picture for preview in shown] == [False, True, False]
    assert shown[2] == shown[0] == gr.skip()
