"""The command line's contract, with a stand-in for the pipeline; the real one is tested in test_pipeline.py."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from media import write_clip, write_portrait

import portraitgen
from portraitgen import __main__ as command_line
from portraitgen import export, terminal
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.progress import Progress

ROOT = Path(__file__).parent.parent


class FakePipeline(types.ModuleType):
    """Records its calls, yields two steps per stage, and fails where a test asks it to."""

    def __init__(self) -> None:
        super().__init__("portraitgen.pipeline")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.failure: BaseException | None = None

    def steps(self, stages: tuple[str, ...]) -> Iterator[Progress]:
        for stage in stages:
            yield Progress(stage, 0.0, "starts")
            if self.failure is not None:
                raise self.failure
            print("a library that talks on stdout")
            yield Progress(stage, 1.0, "done")

    def reconstruct(self, *args: Any, **options: Any) -> Iterator[Progress]:
        self.calls.append(("reconstruct", args, options))
        return self.steps(command_line.RECONSTRUCT_STAGES)

    def edit(self, *args: Any, **options: Any) -> Iterator[Progress]:
        self.calls.append(("edit", args, options))
        return self.steps(command_line.EDIT_STAGES)

    def render(self, *args: Any, **options: Any) -> Iterator[Progress]:
        self.calls.append(("render", args, options))
        return self.steps(("render",))

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        self.calls.append(("evaluate", args, options))
        return {"psnr": 31.5}

    def timings(self, directory: Path) -> dict[str, float]:
        return dict.fromkeys(command_line.RECONSTRUCT_STAGES, 1.5)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "portraitgen.pipeline", fake)
    monkeypatch.setattr(portraitgen, "pipeline", fake, raising=False)
    return fake


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not read by the fake")
    return path


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "portrait"
    path.mkdir()
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line, expect exit code 2 and one line on stderr that starts with "error: "; return that line."""

    def run(*arguments: object, code: int = 2) -> str:
        with pytest.raises(SystemExit) as stop:
            command_line.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert stop.value.code == code
        assert captured.out == ""
        last = captured.err.rstrip("\n").replace("\r", "\n").splitlines()[-1]
        assert last.startswith("error: ")
        assert captured.err == last + "\n", "stderr holds this line alone"
        assert "Traceback" not in captured.err
        return last

    return run


def test_reconstruct_passes_every_option_and_prints_timings(
    pipeline: FakePipeline, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--preset",
        "high",
        "--body",
        "smplx",
        "--holdout",
        "0.25",
        "--max-seconds",
        "3",
        "--start",
        "1.5",
        "--device",
        "cpu",
        "--seed",
        "7",
        "--json",
    ]
    assert command_line.main(["reconstruct", str(clip), "-o", str(tmp_path / "out"), *options]) == 0
    name, args, kwargs = pipeline.calls[0]
    assert (name, args) == ("reconstruct", (clip, tmp_path / "out"))
    assert kwargs == {
        "preset": "high",
        "body": "smplx",
        "holdout": 0.25,
        "start": 1.5,
        "max_seconds": 3.0,
        "device": "cpu",
        "seed": 7,
    }
    captured = capsys.readouterr()
    assert json.loads(captured.out) == dict.fromkeys(command_line.RECONSTRUCT_STAGES, 1.5)
    assert "reconstruction" in captured.err


def test_edit_passes_every_option(
    pipeline: FakePipeline, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, save = tmp_path / "new folder" / "out.mp4", tmp_path / "edited"
    options = f"--engine builtin --strength 0.5 --preset standard --seed 3 --background green --save {save} --json"
    options += " --key-frames 20 --guidance 6.5"
    assert command_line.main(["edit", str(portrait), "-o", str(out), "--text", "red hair", *options.split()]) == 0
    name, args, kwargs = pipeline.calls[0]
    assert (name, args) == ("edit", (portrait, out))
    assert kwargs == {
        "request": EditRequest("text", "red hair", engine="builtin", strength=0.5, seed=3, key_frames=20, guidance=6.5),
        "preset": "standard",
        "start": 0.0,
        "max_seconds": None,
        "background": "green",
        "device": "auto",
        "save": save,
        "mark": False,
    }
    assert list(json.loads(capsys.readouterr().out)) == ["edit", "fitting", "render"]


def test_every_kind_of_edit_can_be_asked_for(pipeline: FakePipeline, portrait: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.touch()
    for options, wanted in (
        (["--style", str(picture), "--keep-colors"], EditRequest("style", picture=picture, keep_colors=True)),
        (["--garment", str(picture)], EditRequest("tryon", picture=picture)),
        (["--light", "sunset from the left"], EditRequest("relight", "sunset from the left")),
        (["--light", str(picture)], EditRequest("relight", picture=picture)),
        (["--light", "sunset", "--light-picture", str(picture)], EditRequest("relight", "sunset", picture)),
    ):
        assert command_line.main(["edit", str(portrait), "-o", str(tmp_path / "out.mp4"), *options]) == 0
        assert pipeline.calls[-1][2]["request"] == wanted


def test_a_clip_may_be_edited_directly(pipeline: FakePipeline, clip: Path, tmp_path: Path) -> None:
    part = ["--start", "2", "--max-seconds", "4"]
    assert command_line.main(["edit", str(clip), "-o", str(tmp_path / "out.mp4"), "--text", "red hair", *part]) == 0
    assert pipeline.calls[0][1][0] == clip
    assert (pipeline.calls[0][2]["start"], pipeline.calls[0][2]["max_seconds"]) == (2, 4)


def test_render_passes_every_option(pipeline: FakePipeline, portrait: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    start = ["render", str(portrait), "-o", str(out)]
    assert (
        command_line.main([*start, *["--view", "crop", "--background", "#102030", "--yaw", "-20", "--pitch", "5"]]) == 0
    )
    assert pipeline.calls[0][2] == {
        "view": "crop",
        "background": "#102030",
        "yaw": -20.0,
        "pitch": 5.0,
        "orbit": False,
        "device": "auto",
        "mark": False,
    }
    assert command_line.main([*start, "--orbit", "--mark"]) == 0
    assert pipeline.calls[1][2]["mark"] is True
    assert pipeline.calls[1][2]["orbit"] is True


def test_evaluate_prints_one_json_object(
    pipeline: FakePipeline, portrait: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["evaluate", str(portrait), "--edited", str(clip)]) == 0
    assert json.loads(capsys.readouterr().out) == {"psnr": 31.5}
    assert pipeline.calls[0][2]["edited"] == clip


def test_stdout_stays_silent_without_json(
    pipeline: FakePipeline, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["reconstruct", str(clip), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--text", "a", "--style", "b.png"], "not allowed with"),
        ([], "one of the arguments"),
        (["--style", "b.png"], "no picture at b.png"),
        (["--garment", "b.png"], "no picture at b.png"),
        (["--light", " "], "light is not described"),
        (["--text", "a", "--keep-colors"], "belongs to --style"),
        (["--light", "sunset", "--engine", "gatys"], "no engine called 'gatys' for this edit"),
        (["--text", "  "], "instruction is empty"),
        (["--text", "a", "--strength", "1.5"], "not a number from 0 to 1"),
        (["--text", "a", "--strength", "nan"], "not a number from 0 to 1"),
        (["--text", "a", "--seed", "-1"], "whole number"),
        (["--text", "a", "--key-frames", "3"], "number of key frames is 3, it must lie between 4 and 64"),
        (["--text", "a", "--key-frames", "some"], "whole number"),
        (["--text", "a", "--guidance", "0.5"], "not a number from 1 to 15"),
        (["--text", "a", "--light-picture", "b.png"], "belongs to --light in words"),
        (["--light", __file__, "--light-picture", "b.png"], "belongs to --light in words"),
        (["--light", "sunset", "--light-picture", "b.png"], "no picture at b.png"),
        (["--text", "a", "--preset", "ultra"], "invalid choice"),
        (["--text", "a", "--engine", "magic"], "invalid choice"),
    ],
)
def test_edit_refuses(
    pipeline: FakePipeline, portrait: Path, tmp_path: Path, refused: Callable[..., str], options: list[str], words: str
) -> None:
    assert words in refused("edit", portrait, "-o", tmp_path / "out.mp4", *options)
    assert pipeline.calls == []


def test_other_refusals(pipeline: FakePipeline, portrait: Path, clip: Path, refused: Callable[..., str]) -> None:
    out = clip.parent / "out.mp4"
    assert "invalid choice" in refused("reconstruct", clip, "-o", portrait, "--body", "robot")
    assert "no clip at" in refused("reconstruct", clip.parent / "none.mp4", "-o", portrait)
    assert "number from 0 to 0.9" in refused("reconstruct", clip, "-o", portrait, "--holdout", "1")
    assert "number from 0.1 up" in refused("reconstruct", clip, "-o", portrait, "--max-seconds", "0")
    assert "number from 0 up" in refused("reconstruct", clip, "-o", portrait, "--start", "-1")
    assert "no portrait folder or clip" in refused("edit", "nowhere", "-o", out, "--text", "a")
    assert "no portrait folder" in refused("render", "nowhere", "-o", out)
    assert "either --orbit or" in refused("render", portrait, "-o", out, "--orbit", "--yaw", "0")
    assert "no portrait folder" in refused("evaluate", "nowhere")
    assert "no edited clip" in refused("evaluate", portrait, "--edited", "none.mp4")
    assert "no portrait folder" in refused("export", "nowhere", "--what", "zip", "-o", out.with_suffix(".zip"))
    assert "does not end in .ply" in refused("export", portrait, "--what", "ply", "-o", out)
    assert "is not a portrait folder" in refused("export", portrait, "--what", "ply", "-o", out.with_suffix(".ply"))
    assert "invalid choice" in refused("export", portrait, "--what", "obj", "-o", out)
    assert "is not a video" in refused("inspect", clip)
    assert "no file at" in refused("inspect", clip.parent / "none.mp4")
    assert "does not end in .jpg" in refused("inspect", clip, "-o", out)
    assert "invalid choice" in refused("dance")
    assert "required" in refused()
    assert pipeline.calls == []


@pytest.mark.parametrize(
    ("failure", "words", "code"),
    [
        (InputError("No face was found in the clip.\nShow the face."), "No face was found in the clip. Show the", 2),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "not allowed at /x", 2),
        (KeyboardInterrupt(), "Stopped", 130),
    ],
)
def test_failures_inside_the_pipeline_are_one_sentence(
    pipeline: FakePipeline,
    clip: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    failure: BaseException,
    words: str,
    code: int,
) -> None:
    pipeline.failure = failure
    assert words in refused("reconstruct", clip, "-o", tmp_path / "out", code=code)


def test_a_mistake_of_ours_is_not_hidden(pipeline: FakePipeline, clip: Path, tmp_path: Path) -> None:
    pipeline.failure = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        command_line.main(["reconstruct", str(clip), "-o", str(tmp_path / "out")])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "portraitgen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_look_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, picture = ROOT / "examples" / "portrait.mp4", tmp_path / "look.jpg"
    assert command_line.main(["inspect", str(clip), "--start", "1", "-o", str(picture)]) == 0
    facts, face, cost = capsys.readouterr().out.splitlines()
    assert facts.startswith("512 × 512, 2.0 s used from 1.0 s on")
    assert face == "One face in view."
    assert "to learn the clip, once" in cost or "GPU" in cost
    assert cv2.imread(str(picture)).shape == (512, 512, 3)
    assert command_line.main(["inspect", str(clip), "--max-seconds", "1", "--json", "--preset", "high"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frame_count"], told["start"], told["face"]) == (25, 0, {"seen": 5, "moments": 5})
    assert told["cpu_seconds"]["learn"] > told["cpu_seconds"]["edit"] > 100
    assert told["crop"]["side"] == 512


def test_a_portrait_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "portrait", tmp_path / "new" / "portrait.zip"
    write_portrait(folder, write_clip(tmp_path / "clip.mp4"))
    assert command_line.main(["export", str(folder), "--what", "zip", "-o", str(out), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["export"]
    packed = {"portrait/portrait.json", "portrait/source.mp4", "provenance.json"}
    assert set(zipfile.ZipFile(out).namelist()) == packed


@pytest.mark.parametrize(("what", "options"), [("ply", {}), ("views", {"count": 25})])
def test_what_needs_the_avatar_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, options: dict[str, int]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def written(*args: Any, **more: Any) -> Iterator[Progress]:
        asked.append((*args, more))
        yield Progress("export", 1.0, "")

    monkeypatch.setattr(export, f"write_{what}", written)
    out = tmp_path / f"portrait.{'jpg' if what == 'views' else what}"
    assert command_line.main(["export", str(tmp_path), "--what", what, "-o", str(out), "--device", "cpu"]) == 0
    assert asked == [(tmp_path, out, {**options, "device": "cpu"})]


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("inspect", "reconstruct", "edit", "render", "export", "evaluate", "weights"):
        with pytest.raises(SystemExit) as stop:
            command_line.main([verb, "--help"])
        assert stop.value.code == 0
        assert f"python -m portraitgen {verb}" in capsys.readouterr().out.partition("example")[2]


def test_as_a_process() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"portraitgen {portraitgen.__version__}\n", "")
    done = run("edit", "--help")
    assert done.returncode == 0
    assert "example:" in done.stdout
    done = run("reconstruct", "/nowhere/clip.mp4", "-o", "/nowhere/portrait")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: There is no clip at /nowhere/clip.mp4. Check the path.\n"


def test_a_stop_that_a_library_swallowed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def steps() -> Iterator[Progress]:
        for number in range(3):
            done.append(number)
            if number == 1:
                terminal.INTERRUPTED.set()  # and no exception, as if a library had caught it
            yield Progress("fitting", number / 3, "")

    monkeypatch.setattr(terminal, "INTERRUPTED", threading.Event())
    with pytest.raises(KeyboardInterrupt):
        terminal.follow(steps(), ("fitting",))
    assert done == [0, 1]
