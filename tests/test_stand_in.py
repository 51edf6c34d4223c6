"""Where the weights of an engine from the Hub cannot be had, the built-in engine takes over and says so by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hub_server import Hub, Repository, serve
from test_weights import IP2P, run_code, sentence, small, surroundings

import page_calls
import page_handlers
from portraitgen import pipeline, terminal, weights
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.portrait import Portrait
from portraitgen.progress import Progress
from portraitgen.sessions import Job, Session
from portraitgen.weights import Fetching

ASK = """
import shutil, sys, types
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.engines import settle_engine
if {full}: shutil.disk_usage = lambda path: types.SimpleNamespace(total=9, used=9, free=1000)
def settle(stand_in):
    steps = settle_engine(EditRequest("text", {text!r}, engine="instruct-pix2pix"), "cpu", stand_in=stand_in)
    while True:
        try: step = next(steps)
        except StopIteration as end: return end.value.engine
        except InputError as error: return f"refused: {{error}}"
        for note in step.notes: print(note)
print(settle(True)); print(settle(False))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({IP2P.repo: small(IP2P)}) as hub:
        yield hub


def ask(hub: Hub | None, folder: Path, text: str = "red hair", *, full: bool = False, **changes: str) -> list[str]:
    done = run_code(hub, folder, ASK.format(text=text, full=full), **changes)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("offline", "Downloads are switched off by HF_HUB_OFFLINE."),
        ("unreachable", "http://127.0.0.1:9 cannot be reached."),
        ("gated", "timbrooks/instruct-pix2pix is gated. Accept its licence"),
        ("missing", "timbrooks/instruct-pix2pix is not at http://127.0.0.1"),
        ("moved", "no longer has its commit 31519b5cb02a."),
        ("wrong hash", "arrived broken (wrong checksum)"),
        ("no disk", "There is no room for instruct-pix2pix"),
    ],
)
def test_each_cause_is_told_and_the_built_in_engine_takes_over(
    hub: Hub, tmp_path: Path, cause: str, words: str
) -> None:
    repository = hub.repositories[IP2P.repo]
    changes = {"HF_HUB_OFFLINE": "1"} if cause == "offline" else {}
    if cause == "gated":
        repository.gated = True
    elif cause == "missing":
        del hub.repositories[IP2P.repo]
    elif cause == "moved":
        hub.repositories[IP2P.repo] = Repository("0" * 40, repository.files)
    elif cause == "wrong hash":
        repository.spoiled.add("unet/diffusion_pytorch_model.fp16.safetensors")
    note, engine, refusal = ask(None if cause == "unreachable" else hub, tmp_path, full=cause == "no disk", **changes)
    assert note.startswith("InstructPix2Pix cannot be used: ")
    assert note.endswith(". Built-in looks took over.")
    assert words in note
    assert engine == "builtin"
    assert refusal.startswith("refused: "), "who names an engine on the command line gets that one or the reason"
    assert words in refusal


def test_what_neither_engine_can_do_names_both_reasons(tmp_path: Path) -> None:
    said, _ = ask(None, tmp_path, "make her twenty years older")
    assert said.startswith("refused: InstructPix2Pix cannot be used: http://127.0.0.1:9 cannot be reached.")
    assert "The nearest things it can do" in said


def test_a_named_engine_is_fetched_and_kept(hub: Hub, tmp_path: Path) -> None:
    assert ask(hub, tmp_path) == ["instruct-pix2pix", "instruct-pix2pix"]


def test_the_command_line_insists_on_an_engine_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "portrait").mkdir()
    wish = ["--text", "red hair", "--engine", "instruct-pix2pix"]
    command = [sys.executable, "-m", "portraitgen", "edit", str(tmp_path / "portrait"), "-o", str(tmp_path / "o.mp4")]
    own = surroundings(None, tmp_path / "weights")
    done = subprocess.run([*command, *wish], capture_output=True, text=True, env=own, check=False)
    assert "cannot be reached. Check the network and fetch again" in sentence(done)
    assert not (tmp_path / "o.mp4").exists()


class Edited:
    """Stands in for the edit itself and remembers who was to do it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[EditRequest] = []
        monkeypatch.setattr(pipeline, "_edit_portrait", self)
        monkeypatch.setattr(weights, "path", lambda name: None)

    def __call__(self, source: Path, output: Path, request: EditRequest, *_: Any) -> Iterator[Progress]:
        self.requests.append(request)
        output.touch()
        yield Progress("render", 1.0, "done", notes=("A frame is blurred.",))


def refuse(names: list[str]) -> Iterator[Fetching]:
    """A Hub that nobody reaches."""
    if names:
        raise InputError("The Hub cannot be reached.")
    yield from ()


def test_auto_on_a_gpu_says_what_it_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = Edited(monkeypatch)
    monkeypatch.setattr(pipeline, "resolve_device", lambda name: torch.device(name.replace("auto", "cuda")))
    for device, said in (("cuda", 1), ("cpu", 0)):
        steps = pipeline.edit(tmp_path, tmp_path / "out.mp4", request=EditRequest("relight", "sunset"), device=device)
        notes = [note for step in steps for note in step.notes if "cannot be used" in note]
        assert edited.requests[-1].engine == "builtin"
        assert bool(notes) == bool(said)
    steps = pipeline.edit(tmp_path, tmp_path / "out.mp4", request=EditRequest("relight", "sunset"), device="cuda")
    told = {step.message for step in steps if "took over" in step.message}
    assert told == {
        "IC-Light cannot be used: its weights are not here; fetch them with python -m portraitgen weights --fetch ic-light and "
        "python -m portraitgen weights --fetch realistic-vision. Built-in relighting took over."
    }


@pytest.mark.parametrize("lent", [False, True])
def test_on_the_page_a_choice_that_cannot_be_had_is_stood_in_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lent: bool
) -> None:
    edited = Edited(monkeypatch)
    monkeypatch.setattr(weights, "fetching", refuse)
    monkeypatch.setattr(Portrait, "load", lambda folder: SimpleNamespace(require=lambda stage: None))
    monkeypatch.setattr(page_calls, "gpu_calls", lambda job: (job,))
    for name in ("load_for_learning", "load_for_editing"):
        monkeypatch.setattr(pipeline, name, lambda: None)
    request = EditRequest("text", "red hair", engine="flux2-klein")
    options = {"request": request, "background": "auto", "save": tmp_path / "saved", "mark": False}
    job = Job(Path(), tmp_path, "preview", 3.0, "edit", tmp_path, tmp_path / "out.mp4", options, learned=True)
    steps = list(page_calls.share(job) if lent else page_calls.work(job))
    assert edited.requests[0].engine == "builtin"
    notes = {note for step in steps for note in step.notes}
    said = "FLUX.2 klein cannot be used: The Hub cannot be reached. Built-in looks took over."
    assert notes == {said, "A frame is blurred."}


def test_a_note_is_not_lost_to_a_later_one(
    own: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Progress("edit", 0.0, "", notes=("It took over.",)),
        Progress("render", 1.0, "", notes=("One is blurred.",)),
    ]
    terminal.follow(iter(steps), ("edit", "render"))
    assert capsys.readouterr().err.endswith("note: It took over.\nnote: One is blurred.\n")
    monkeypatch.setattr(page_handlers, "run", lambda job: iter(steps))
    *_, last = page_handlers.drive(own, lambda own: Job(Path(), tmp_path, "preview", 3.0))
    assert "It took over." in last[1]
    assert "One is blurred." in last[1]
