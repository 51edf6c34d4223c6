"""The page's handlers and endpoints, over HTTP, with a stand-in for the pipeline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from serving import Page, write_clip

import app
import page_endpoints
from portraitgen import sessions, wording
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError

ROOT = Path(__file__).parent.parent
CLIP = ["clip", "preset", "start", "max_seconds"]
EDIT = ["strength", "preset", "background", "seed", "start", "max_seconds", "mark", "again", "engine", "behind"]
FINER = ["key_frames", "guidance"]
ENDPOINTS = {
    "/reconstruct": CLIP,
    "/edit_text": ["clip", "text", *EDIT, *FINER],
    "/edit_style": ["clip", "style", "keep_colors", *EDIT, *FINER],
    "/edit_tryon": ["clip", "garment", *EDIT, *FINER],
    "/edit_relight": ["clip", "light", *EDIT, "light_picture", *FINER],
    "/render": [*CLIP, "yaw", "pitch", "orbit", "mark"],
}


def refusal(job: Any) -> str:
    with pytest.raises(AppError) as caught:
        job.result()
    return str(caught.value)


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_endpoints_are_these(page: Page) -> None:
    described = page.client().view_api(return_format="dict", print_info=False)
    taken = {
        name: [place["parameter_name"] for place in facts["parameters"]]
        for name, facts in described["named_endpoints"].items()
    }
    assert taken == ENDPOINTS
    assert described["unnamed_endpoints"] == {}


@pytest.mark.parametrize("name", ["/edit_text", "/edit_style", "/edit_tryon", "/edit_relight"])
def test_start_and_mark_reach_the_work(page: Page, tmp_path: Path, name: str) -> None:
    picture = tmp_path / "waves.png"
    Image.fromarray((np.indices((80, 90)).sum(0)[..., None] % 64 * np.array([1, 2, 3])).astype(np.uint8)).save(picture)
    wishes = {
        "/edit_text": {"text": "bronze"},
        "/edit_style": {"style": handle_file(str(picture))},
        "/edit_tryon": {"garment": handle_file(str(ROOT / "examples" / "garments" / "striped_jumper.png"))},
        "/edit_relight": {"light": "sunset"},
    }
    client = page.client()
    clip = handle_file(str(page.clip))
    results = []
    for start, mark in ((0.25, True), (0.5, True), (0, False)):
        client.predict(clip=clip, start=start, max_seconds=1, mark=mark, api_name=name, **wishes[name])
        learned, edited = page.pipeline.calls[-2:]
        assert learned[2]["start"] == pytest.approx(start)
        assert edited[2]["mark"] is mark
        results.append(edited[1][1].name)
    assert len(set(page.pipeline.folders("reconstruct"))) == 3, "another part is another portrait"
    assert [re.sub(r"^edited-[0-9a-f]+", "", result) for result in results] == [
        "-from-0.250.mp4",
        "-from-0.500.mp4",
        ".mp4",
    ]
    client.predict(clip=clip, start=0.25, max_seconds=1, mark=True, yaw=9, api_name="/render")
    assert page.pipeline.calls[-1][2]["mark"] is True
    assert "ends at 1.0 s" in refusal(client.submit(clip=clip, start=30, api_name=name, **wishes[name]))


def test_an_edit_comes_back(page: Page) -> None:
    result, status, _ = page.edit(page.client(), strength=0.5, seed=7, background="#203040", preset="high").result()
    assert Path(result).read_bytes() == page.pipeline.result
    assert "Done in" in status
    verbs = [name for name, _, _ in page.pipeline.calls]
    assert verbs == ["reconstruct", "edit"]
    assert page.pipeline.calls[0][2] == {"preset": "high", "start": 0.0, "max_seconds": 10.0}
    options = page.pipeline.calls[1][2]
    assert options["request"] == EditRequest("text", "give him red hair", engine="builtin", strength=0.5, seed=7)
    assert (options["preset"], options["background"], options["mark"]) == ("high", "#203040", False)


def test_key_frames_and_guidance_reach_the_work(page: Page, tmp_path: Path) -> None:
    client, clip = page.client(), handle_file(str(page.clip))
    client.predict(clip=clip, text="red hair", key_frames=20, guidance=7.5, api_name="/edit_text")
    client.predict(clip=clip, light="sunset", key_frames=5, guidance=3, api_name="/edit_relight")
    client.predict(clip=clip, light="sunset", api_name="/edit_relight")
    asked = [options["request"] for verb, _, options in page.pipeline.calls if verb == "edit"]
    assert [(request.key_frames, request.guidance) for request in asked] == [(20, 7.5), (5, 3), (None, None)]


def test_what_was_left_out_is_still_shown_at_the_end(page: Page) -> None:
    page.pipeline.notes = ("3 frames are <blurred>.",)
    _, status, _ = page.edit(page.client()).result()
    assert "Done in" in status
    assert "3 frames are &lt;blurred&gt;." in status


def test_progress_names_the_stage(page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.2, 5
    job = page.edit(page.client(), clip=page.other_clip)
    job.result()
    shown = [status for _, status, _ in job.outputs()]
    assert any("Learning the person in 3D: 60%" in status for status in shown)
    assert any("Step 6 of 7" in status for status in shown)
    assert any(" left." in status for status in shown)


def test_a_portrait_is_kept_for_the_session_and_belongs_to_it(page: Page) -> None:
    first, second = page.client(), page.client()
    for client in (first, first, second):
        page.edit(client).result()
    own = page.pipeline.folders("edit")
    assert own[0] == own[1], "the same clip is not learned twice"
    assert own[2] != own[0]
    assert own[2].parent != own[0].parent
    assert own[0].parent.parent == page.sessions


def test_a_view_shows_the_latest_edit(page: Page) -> None:
    client = page.client()
    clip = handle_file(str(page.clip))
    client.predict(clip=clip, orbit=True, api_name="/render")
    page.edit(client).result()
    client.predict(clip=clip, yaw=20, api_name="/render")
    plain, edited = page.pipeline.folders("render")
    assert plain == page.pipeline.folders("edit")[0]
    assert edited == page.pipeline.calls[-2][2]["save"]
    assert page.pipeline.calls[-1][2]["yaw"] == 20
    assert [options["orbit"] for name, _, options in page.pipeline.calls if name == "render"] == [True, False]
    client.predict(clip=handle_file(str(page.other_clip)), api_name="/render")
    learned, shown = page.pipeline.calls[-2:]
    assert learned[0] == "reconstruct"
    assert shown[1][0] == learned[1][1], "of another clip its own portrait is shown"


def test_reconstruct_alone(page: Page) -> None:
    status, _ = page.client().predict(clip=handle_file(str(page.clip)), api_name="/reconstruct")
    assert "Done in" in status
    assert [name for name, _, _ in page.pipeline.calls] == ["reconstruct"]


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("/edit_style", {"style": None}, "no style picture"),
        ("/edit_tryon", {"garment": None}, "no garment photo"),
        ("/edit_relight", {"light": "  ", "light_picture": None}, "light is not described"),
    ],
)
def test_an_edit_without_its_input_says_so(page: Page, name: str, inputs: dict[str, Any], words: str) -> None:
    clip = handle_file(str(page.clip))
    assert words in refusal(page.client().submit(clip=clip, api_name=name, **inputs))
    assert page.pipeline.calls == []


def test_a_style_picture_reaches_the_work(page: Page, tmp_path: Path) -> None:
    style = tmp_path / "waves.png"
    Image.fromarray((np.indices((80, 90)).sum(0)[..., None] % 64 * np.array([1, 2, 3])).astype(np.uint8)).save(style)
    client = page.client()
    job = client.submit(
        clip=handle_file(str(page.clip)), style=handle_file(str(style)), keep_colors=True, api_name="/edit_style"
    )
    assert Path(job.result()[0]["video"] if isinstance(job.result()[0], dict) else job.result()[0]).is_file()
    request = page.pipeline.calls[-1][2]["request"]
    assert (request.kind, request.keep_colors) == ("style", True)
    assert request.picture.read_bytes() == style.read_bytes()


def test_an_edit_can_go_on_from_the_last_one(page: Page) -> None:
    client = page.client()
    page.edit(client).result()
    first = page.pipeline.folders("edit")[-1]
    page.edit(client, "make it a pencil sketch", again=True).result()
    second = page.pipeline.folders("edit")[-1]
    assert second == page.pipeline.calls[1][2]["save"], "the folder that the first edit left"
    page.pipeline.reset()
    page.edit(client, "red hair", page.other_clip, again=True, preset="high").result()
    assert [name for name, _, _ in page.pipeline.calls] == ["edit"], "another clip is not learned for nothing"
    page.edit(client, "a bronze statue").result()
    assert page.pipeline.folders("edit")[-1] == first, "the clip's own portrait"


def test_mistakes_are_answered_before_any_work(page: Page) -> None:
    client = page.client()
    broken = page.clip.parent / "broken.mp4"
    broken.write_bytes(b"this is no video")
    assert "no clip yet" in refusal(client.submit(clip=None, text="red hair", api_name="/edit_text"))
    assert "instruction is empty" in refusal(page.edit(client, " "))
    assert "longer than 400 letters" in refusal(page.edit(client, "red hair " * 50))
    assert "no colour such as" in refusal(page.edit(client, background="/etc/passwd"))
    assert "broken" in refusal(page.edit(client, clip=broken))
    assert "cannot do this" in refusal(page.edit(client, "translate the contract into Latin"))
    refusal(page.edit(client, preset="ultra"))
    refusal(page.edit(client, engine="/bin/sh"))
    refusal(page.edit(client, strength=3))
    assert "number of key frames is 3, it must lie between 4 and 64" in refusal(page.edit(client, key_frames=3))
    assert "guidance is 40, it must lie between 1 and 15" in refusal(page.edit(client, guidance=40))
    assert page.pipeline.calls == []


def test_failures_are_one_sentence(page: Page, capfd: pytest.CaptureFixture[str]) -> None:
    client = page.client()
    page.pipeline.failure = InputError("No <b>face</b> was found. Show the face.")
    assert "No &lt;b&gt;face&lt;/b&gt; was found." in refusal(page.edit(client))
    page.pipeline.failure = OSError(28, "No space left on device")
    assert "The disk is full" in refusal(page.edit(client))
    page.pipeline.failure = RuntimeError("secret detail")
    message = refusal(page.edit(client))
    assert wording.BROKEN in message
    assert "secret" not in message
    assert "secret detail" in capfd.readouterr().err, "the log keeps what the page hides"


def test_a_stop_ends_the_work_and_frees_the_queue(page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.1, 1000
    client = page.client()
    job = page.edit(client, clip=page.other_clip)
    wait_for(lambda: page.pipeline.active)
    job.cancel()
    wait_for(lambda: not page.pipeline.active)
    assert page.pipeline.closed == 1
    page.pipeline.reset()
    page.edit(client).result()


def test_heavy_jobs_run_one_at_a_time(page: Page) -> None:
    page.pipeline.pause = 0.1
    jobs = [page.edit(page.client(), clip=clip) for clip in (page.clip, page.other_clip)]
    results = [job.result()[0] for job in jobs]
    assert len(set(results)) == 2
    assert page.pipeline.most_active == 1


def test_nothing_but_results_can_be_fetched(page: Page) -> None:
    import httpx

    page.edit(page.client()).result()
    secret = page.pipeline.folders("edit")[0] / "secret"
    secret.write_text("x")
    for path in (secret, ROOT / "pyproject.toml", Path("/etc/passwd")):
        assert httpx.get(f"{page.url}gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": float("nan")}, "seed is not a number"),
        ({"strength": None}, "strength is not a number"),
        ({"start": None}, "start is not a number"),
        ({"preset": "../../elsewhere"}, "no preset called"),
    ],
    ids=["seed", "strength", "start", "preset"],
)
def test_numbers_and_presets_that_are_none_are_answered(
    own: sessions.Session, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {
        "strength": 1.0,
        "preset": "preview",
        "background": "auto",
        "seed": 0,
        "start": 0,
        "max_seconds": 2,
        "mark": False,
        "again": False,
        "engine": "builtin",
    }
    clip = str(write_clip(tmp_path / "clip.mp4"))
    with pytest.raises(gr.Error, match=words) as caught:
        list(page_endpoints.edit_text(clip, "red hair", **(settings | changes), session=own))
    assert caught.value.__cause__ is None, "it is no mistake of ours"


def test_stored_examples_need_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    assert app.stored_examples() == []
    listed = tmp_path / "examples.json"
    listed.write_text(
        '[{"name": "n", "kind": "text", "clip": "a.mp4", "text": "bronze", "result": "b.mp4", "poster": "b.jpg"}]'
    )
    for name in ("a.mp4", "b.mp4", "b.jpg"):
        assert app.stored_examples() == []
        (tmp_path / name).touch()
    assert app.stored_examples()[0]["clip"] == str(tmp_path / "a.mp4")
    listed.write_text('{"not": "a list"}')
    assert app.stored_examples() == []


def test_a_program_may_leave_the_engine_to_the_page(page: Page) -> None:
    page.edit(page.client(), engine="auto").result()
    assert page.pipeline.calls[-1][2]["request"].engine == "auto"
    assert "is not to be had on this machine" in refusal(page.edit(page.client(), engine="flux2-klein"))


def test_the_page_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, app; app.build()\n"
        "print([name for name in ('mediapipe', 'warp', 'anny', 'diffusers', 'transformers') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr
