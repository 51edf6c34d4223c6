"""The whole job on the example clip, with few optimiser steps: every stage, resuming, and what bad input gets."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media import frames_of
from quick import quicken
from threads import torch_threads

from portraitgen import editing, pipeline, reconstruction
from portraitgen.clip import ClipInfo, probe, read_frames, read_gray, write_video
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.estimates import is_pending
from portraitgen.portrait import Portrait
from portraitgen.progress import Progress

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "portrait.mp4"
SECONDS = 0.6


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """The real code at a fraction of the preview's steps; what a fit reaches is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        few = {"steps": 12, "coarse_steps": 8}
        quicken(patch, reconstruction.PRESETS, few, views=3, frames=8, texel_pixels=4.0)
        quicken(patch, editing.PRESETS, {"steps": 8, "coarse_steps": 6}, key_frames=3)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    folder = tmp_path_factory.mktemp("with a space and ümläut") / "portrait"
    steps = list(pipeline.reconstruct(CLIP, folder, max_seconds=SECONDS, holdout=0.2))
    return folder, steps


def test_every_stage_runs_in_order_and_is_entered_with_its_seconds(finished: tuple[Path, list[Progress]]) -> None:
    folder, steps = finished
    assert list(dict.fromkeys(step.stage for step in steps)) == ["clip", "tracking", "matting", "reconstruction"]
    assert set(pipeline.timings(folder)) == {"clip", "tracking", "matting", "reconstruction"}
    assert all(0 <= step.fraction <= 1 for step in steps)
    assert any(step.preview is not None and step.preview.shape[-1] == 3 for step in steps)


def test_the_folder_holds_only_safetensors_json_and_pictures(finished: tuple[Path, list[Progress]]) -> None:
    names = sorted(path.name for path in finished[0].iterdir())
    assert names == [
        "alpha.mp4",
        "avatar.safetensors",
        "frames.mp4",
        "landmarks.safetensors",
        "plate.png",
        "portrait.json",
        "regions.mp4",
        "screening.safetensors",
        "source.mp4",
        "tracking.safetensors",
    ]


def test_a_finished_portrait_is_not_done_again(finished: tuple[Path, list[Progress]]) -> None:
    steps = list(pipeline.reconstruct(CLIP, finished[0], max_seconds=SECONDS, holdout=0.2))
    assert len(steps) == 1


def test_other_settings_in_the_same_folder_are_refused(finished: tuple[Path, list[Progress]]) -> None:
    with pytest.raises(InputError, match="holds another portrait"):
        list(pipeline.reconstruct(CLIP, finished[0], max_seconds=SECONDS, holdout=0.2, seed=5))


def test_a_part_of_a_clip_is_worked_on_alone(finished: tuple[Path, list[Progress]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds another portrait"):
        list(pipeline.reconstruct(CLIP, finished[0], start=0.2, max_seconds=SECONDS, holdout=0.2))
    request = EditRequest("text", "bronze")
    with pytest.raises(InputError, match="whose part of its clip is settled"):
        list(pipeline.edit(finished[0], tmp_path / "out.mp4", request=request, start=0.2))
    folder = tmp_path / "part"
    list(pipeline.reconstruct(CLIP, folder, start=1.0, max_seconds=0.3, until="matting"))
    portrait = Portrait.load(folder)
    assert (portrait.settings.start, portrait.clip.start) == (1.0, 1.0)
    assert len(list(read_gray(folder / "alpha.mp4"))) == portrait.clip.frame_count
    steps = list(pipeline.reconstruct(CLIP, folder, start=1.0, max_seconds=0.3, until="matting"))
    assert not steps, "goes on from there"


def test_the_crop_over_white_matches_the_stored_frames(finished: tuple[Path, list[Progress]], tmp_path: Path) -> None:
    output = tmp_path / "crop.mp4"
    list(pipeline.render(finished[0], output, view="crop", background="white"))
    ours, stored = frames_of(output), frames_of(finished[0] / "frames.mp4")
    assert ours.shape == stored.shape
    assert np.abs(ours.astype(float) - stored).mean() < 12
    assert probe(output).rate == probe(CLIP, max_seconds=SECONDS).rate


def test_an_edit_keeps_count_rate_size_and_sound(finished: tuple[Path, list[Progress]], tmp_path: Path) -> None:
    output, saved = tmp_path / "edited.mp4", tmp_path / "saved"
    before = (finished[0] / "avatar.safetensors").read_bytes()
    steps = list(
        pipeline.edit(finished[0], output, request=EditRequest("text", "turn her into a bronze statue"), save=saved)
    )
    assert list(dict.fromkeys(step.stage for step in steps)) == ["edit", "fitting", "render"]
    source, info = probe(CLIP, max_seconds=SECONDS), probe(output)
    assert (info.width, info.height, info.frame_count) == (source.width, source.height, source.frame_count)
    assert info.rate == source.rate
    assert info.has_audio
    assert info.timestamps == pytest.approx(source.timestamps, abs=1e-3)
    assert (finished[0] / "avatar.safetensors").read_bytes() == before, "the avatar before the edit stays"
    changed = np.abs(frames_of(output)[0].astype(float) - next(read_frames(CLIP, source))).mean()
    assert changed > 3
    again = tmp_path / "again.mp4"
    list(pipeline.render(saved, again))
    assert np.abs(frames_of(again).astype(float) - frames_of(output)).mean() < 2, "the saved edit renders as it was"


@pytest.mark.parametrize(
    ("request_", "background"),
    [
        (EditRequest("style", picture=ROOT / "examples/styles/starry_night.jpg", engine="builtin"), "edited"),
        (EditRequest("tryon", picture=ROOT / "examples/garments/striped_jumper.png", engine="builtin"), "transparent"),
        (EditRequest("relight", "red light from the left", engine="builtin"), "blur"),
    ],
    ids=["style", "tryon", "relight"],
)
def test_every_kind_of_edit_changes_the_clip(
    finished: tuple[Path, list[Progress]], tmp_path: Path, request_: EditRequest, background: str
) -> None:
    output = tmp_path / ("edited.webm" if background == "transparent" else "edited.mp4")
    steps = list(pipeline.edit(finished[0], output, request=request_, background=background))
    assert any("3 key frames" in step.message for step in steps if not step.fraction), "the budget is said beforehand"
    source = probe(CLIP, max_seconds=SECONDS)
    assert probe(output).frame_count == source.frame_count
    before, after = (next(read_frames(path, probe(path))).astype(float) for path in (CLIP, output))
    changed = np.abs(after - before).mean(2)
    assert changed[300:460, 150:360].mean() > 5, "the person"
    assert changed[:60, :60].mean() > (0.5 if background == "blur" else 5), "what is behind"


def test_an_edit_can_start_from_another_one(finished: tuple[Path, list[Progress]], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for source, target, text in ((finished[0], first, "bronze statue"), (first, second, "blue hair")):
        wish = EditRequest("text", text, engine="builtin")
        list(pipeline.edit(source, tmp_path / f"{target.name}.mp4", request=wish, save=target))
    assert [made.text for made in Portrait.load(second).edit_requests()] == ["bronze statue", "blue hair"]
    assert [made.text for made in Portrait.load(first).edit_requests()] == ["bronze statue"], "the first is kept"
    clip, once, twice = (
        next(read_frames(path, probe(path))).astype(float)
        for path in (CLIP, tmp_path / "first.mp4", tmp_path / "second.mp4")
    )
    face = np.s_[190:300, 200:320]
    assert np.abs(twice - once)[face].mean() < 0.4 * np.abs(twice - clip)[face].mean(), "the face is still of bronze"


def test_orbits_and_turns_differ_from_the_clips_own_view(finished: tuple[Path, list[Progress]], tmp_path: Path) -> None:
    shown = {}
    for name, options in {"own": {}, "turned": {"yaw": 20.0}, "orbit": {"orbit": True}}.items():
        output = tmp_path / f"{name}.mp4"
        list(pipeline.render(finished[0], output, view="crop", background="white", **options))  # type: ignore[arg-type]
        shown[name] = frames_of(output).astype(float)
    assert np.abs(shown["turned"] - shown["own"]).mean() > 2
    assert np.abs(shown["orbit"] - shown["own"]).mean() > 1


def test_evaluation_measures_training_and_held_out_frames(finished: tuple[Path, list[Progress]]) -> None:
    numbers = pipeline.evaluate(finished[0])
    total = numbers["trained"]["frames"] + numbers["held_out"]["frames"]
    assert total == Portrait.load(finished[0]).clip.frame_count
    assert numbers["held_out"]["frames"] >= 1
    assert 10 < numbers["held_out"]["psnr"] <= numbers["trained"]["psnr"] + 6
    assert 0 < numbers["track_error"]["mean"] < 0.2


def test_a_run_killed_in_any_stage_goes_on_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "portrait"
    order = ["clip", "tracking", "matting", "reconstruction"]
    for number, stage in enumerate(order[1:], 1):
        job = pipeline.reconstruct(CLIP, folder, max_seconds=0.3)
        seen = []
        for step in job:
            seen.append(step.stage)
            if step.stage == stage:
                break
        job.close()  # type: ignore[attr-defined]
        assert seen[0] == order[number - 1]
        assert sorted(pipeline.timings(folder)) == sorted(order[:number])
        leftovers = [p.name for p in folder.iterdir() if p.name.startswith(".")]
        assert not leftovers
    steps = list(pipeline.reconstruct(CLIP, folder, max_seconds=0.3))
    assert steps[0].stage == "reconstruction"
    assert (folder / "avatar.safetensors").is_file()


@pytest.mark.parametrize("news", [1, 2, 4, 8, 12])
def test_an_edit_stopped_anywhere_leaves_nothing_half_written(
    finished: tuple[Path, list[Progress]], tmp_path: Path, news: int
) -> None:
    portrait = Portrait.load(finished[0]).copy_to(tmp_path / "portrait", without=())
    before = {path.name: path.read_bytes() for path in portrait.directory.iterdir()}
    output, save = tmp_path / "edited.mp4", tmp_path / "saved"
    job = pipeline.edit(portrait.directory, output, request=EditRequest("text", "bronze"), save=save)
    seen: list[tuple[str, float, str]] = []
    for step in job:
        if (step.stage, step.fraction, step.message) not in seen:
            seen.append((step.stage, step.fraction, step.message))
        if len(seen) == news:
            break
    job.close()  # type: ignore[attr-defined]
    assert "edit" not in {thread.name for thread in threading.enumerate()}, "it does not go on behind our back"
    assert {path.name: path.read_bytes() for path in portrait.directory.iterdir()} == before
    assert not output.exists()
    assert not save.exists() or is_pending(save) or Portrait.load(save).edit_requests()
    assert not save.exists() or not list(save.glob(".*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"portrait", "saved"}


def test_same_seed_same_avatar(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        with torch_threads(2):  # on one, a race could not be seen
            list(pipeline.reconstruct(CLIP, tmp_path / name, max_seconds=0.2, seed=3))
        files.append((tmp_path / name / "avatar.safetensors").read_bytes())
    assert files[0] == files[1]


def made_clip(path: Path, pictures: list[np.ndarray]) -> Path:
    """A 25 fps clip of pictures ``[H, W, 3]``."""
    from fractions import Fraction

    height, width = pictures[0].shape[:2]
    times = tuple(i / 25 for i in range(len(pictures)))
    info = ClipInfo(width, height, len(pictures), Fraction(25), len(pictures) / 25, False, 0, times)
    write_video(path, pictures, info)
    return path


def noise(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(count)]


def drawing(count: int) -> list[np.ndarray]:
    import cv2

    picture = np.full((240, 320, 3), 255, np.uint8)
    cv2.circle(picture, (160, 120), 70, (0, 0, 0), 3)
    for x in (135, 185):
        cv2.circle(picture, (x, 100), 6, (0, 0, 0), -1)
    cv2.ellipse(picture, (160, 140), (30, 18), 0, 0, 180, (0, 0, 0), 3)
    return [picture] * count


def two_faces_then_none(_: int) -> list[np.ndarray]:
    info = probe(CLIP, max_seconds=0.2)
    face = list(read_frames(CLIP, info))[:2]
    return face + [np.full_like(face[0], 90)] * 28


@pytest.mark.parametrize("make", [noise, drawing, two_faces_then_none])
def test_a_clip_without_a_usable_face_is_refused_and_leaves_nothing(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    clip = made_clip(tmp_path / "clip.mp4", make(30))
    with pytest.raises(InputError, match=r"(?i)face|person") as error:
        list(pipeline.reconstruct(clip, tmp_path / "portrait"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "portrait").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "best"}, "no preset called"),
        ({"body": "robot"}, "no body called"),
        ({"holdout": 1.5}, "between 0 and 0.9"),
        ({"max_seconds": 0}, "more than 0"),
        ({"start": 30.0}, "ends at 3.0 s"),
        ({"device": "tpu"}, "no device called"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        list(pipeline.reconstruct(CLIP, tmp_path / "p", **options))  # type: ignore[arg-type]
    assert not (tmp_path / "p").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match="disk is full"):
        list(pipeline.reconstruct(CLIP, tmp_path / "portrait", max_seconds=0.2))
    assert not (tmp_path / "portrait").exists()


def test_outputs_that_cannot_be_written_are_refused_before_any_work(
    finished: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for output, words in (("a.gif", "does not end in .mp4"), ("file/a.mp4", "is a file"), ("", "Name a file")):
        target = tmp_path / output if output else tmp_path / "dir.mp4"
        if not output:
            target.mkdir()
        with pytest.raises(InputError, match=words):
            list(pipeline.edit(finished[0], target, request=EditRequest("text", "bronze")))
        with pytest.raises(InputError, match=words):
            list(pipeline.render(finished[0], target))


@pytest.mark.parametrize("background", ["#12", "sky", "/no/such/picture.png"])
def test_unknown_backgrounds_are_refused(
    finished: tuple[Path, list[Progress]], tmp_path: Path, background: str
) -> None:
    with pytest.raises(InputError, match="no background"):
        list(pipeline.render(finished[0], tmp_path / "x.mp4", background=background))
    assert not list(tmp_path.iterdir())


def test_an_instruction_that_cannot_be_done_is_answered_and_writes_nothing(
    finished: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="instruct-pix2pix"):
        list(pipeline.edit(finished[0], tmp_path / "x.mp4", request=EditRequest("text", "make her twenty years older")))
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_with_130_and_the_portrait_so_far_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "portrait"
    command = [sys.executable, "-m", "portraitgen", "reconstruct", str(CLIP), "-o", str(folder), "--max-seconds", "0.4"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not Portrait.exists(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "clip" in pipeline.timings(folder)
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_the_clean_plate_is_stored_and_made_again_only_if_it_is_gone(
    finished: tuple[Path, list[Progress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portraitgen.mattes import clean_plate

    portrait = Portrait.load(finished[0]).copy_to(tmp_path / "copy", without=())
    stored = clean_plate(portrait)
    assert stored.shape == (portrait.clip.height, portrait.clip.width, 3)
    portrait.path("plate.png").unlink()
    assert np.array_equal(clean_plate(portrait), stored), "PNG is lossless and the seed is the portrait's"

    def again(*_: object, **__: object) -> np.ndarray:
        raise AssertionError("the plate is stored, not made again")

    monkeypatch.setattr("portraitgen.mattes.background_plate", again)
    assert np.array_equal(clean_plate(portrait), stored)
    portrait.path("plate.png").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="Delete it"):
        clean_plate(portrait)


def test_a_fringe_over_the_tracked_face_counts_as_hair(finished: tuple[Path, list[Progress]]) -> None:
    from portraitgen.clip import read_gray
    from portraitgen.regions import CLOTHES, HAIR, SKIN

    labels = next(read_gray(finished[0] / "regions.mp4"))
    assert (labels[85:105, 215:265] == HAIR).mean() > 0.9, "fringe"
    assert (labels[165:185, 235:255] == SKIN).mean() > 0.9, "nose"
    assert (labels[430:470, 80:140] == CLOTHES).mean() > 0.9, "suit"
