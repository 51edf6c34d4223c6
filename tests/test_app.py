"""The page's handlers and endpoints, over HTTP, with a stand-in for the pipeline."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
import page_endpoints
import page_handlers
import portraitgen
from portraitgen import sessions, wording
from portraitgen.clip import probe
from portraitgen.crop import Crop
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.portrait import Portrait, Settings
from portraitgen.progress import Progress

ROOT = Path(__file__).parent.parent
ENDPOINTS = {"/reconstruct", "/edit_text", "/edit_style", "/edit_tryon", "/edit_relight", "/render"}


def write_clip(path: Path, tint: int = 0) -> Path:
    """A second of moving colour, h264, with a tone as sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=12)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(12):
            picture = np.full((120, 160, 3), (tint, 20 * index, 128), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = np.sin(np.arange(16000) / 8).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def write_portrait(folder: Path, clip: Path) -> None:
    """A portrait folder without an avatar."""
    folder.mkdir()
    shutil.copyfile(clip, folder / "source.mp4")
    settings = Settings("0" * 64, "preview", "anny", 0.0, 10.0, 0)
    Portrait(folder, settings, "source.mp4", probe(clip), Crop(0, 0, 120, 256), {"reconstruction": 1.0}).save()


class FakePipeline(types.ModuleType):
    """Takes as long as a test wants, remembers what it was asked and who worked at the same time."""

    def __init__(self, result: Path) -> None:
        super().__init__("portraitgen.pipeline")
        self.result = result.read_bytes()
        self.reset()

    def reset(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.failure: BaseException | None = None
        self.pause = 0.0  # seconds per step
        self.steps = 2
        self.notes: tuple[str, ...] = ()
        self.active = self.most_active = self.closed = 0

    def work(self, stage: str) -> Iterator[Progress]:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            for index in range(self.steps):
                time.sleep(self.pause)
                if self.failure is not None:
                    raise self.failure
                picture = np.full((64, 64, 3), 40 * index, np.uint8)
                yield Progress(stage, (index + 1) / self.steps, "Working on it.", picture, self.notes)
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            self.active -= 1

    def reconstruct(self, clip: Path, directory: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("reconstruct", (clip, directory), options))
        if not directory.is_dir():
            yield from self.work("reconstruction")
            write_portrait(directory, clip)

    def edit(self, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("edit", (source, output), options))
        yield from self.work("fitting")
        write_portrait(options["save"], source / "source.mp4")
        output.write_bytes(self.result)

    def render(self, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("render", (source, output), options))
        yield from self.work("render")
        output.write_bytes(self.result)

    def resolve_device(self, name: str) -> str:
        return name

    def folders(self, verb: str) -> list[Path]:
        return [args[1] if verb == "reconstruct" else args[0] for name, args, _ in self.calls if name == verb]


@dataclass
class Page:
    url: str
    pipeline: FakePipeline
    clip: Path
    other_clip: Path
    sessions: Path

    def client(self) -> Client:
        return Client(self.url, verbose=False)

    def edit(self, client: Client, text: str = "give him red hair", clip: Path | None = None, **more: Any) -> Any:
        return client.submit(clip=handle_file(str(clip or self.clip)), text=text, api_name="/edit_text", **more)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Page]:
    """The real page over a fake pipeline, with every file below `folder`."""
    clip, other = write_clip(folder / "clip.mp4", 60), write_clip(folder / "other.mp4", 200)
    fake = FakePipeline(write_clip(folder / "result.mp4", 120))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setattr(sessions, "ROOT", folder / "sessions")
        patch.setitem(sys.modules, "portraitgen.pipeline", fake)
        patch.setattr(portraitgen, "pipeline", fake, raising=False)
        demo = app.build()
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
        try:
            yield Page(url, fake, clip, other, folder / "sessions")
        finally:
            demo.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def page(served: Page) -> Page:
    served.pipeline.reset()
    return served


def refusal(job: Any) -> str:
    with pytest.raises(AppError) as caught:
        job.result()
    return str(caught.value)


def wait_for(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_endpoints_are_these(page: Page) -> None:
    described = page.client().view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == ENDPOINTS
    assert described["unnamed_endpoints"] == {}


def test_an_edit_comes_back(page: Page) -> None:
    result, status, _ = page.edit(page.client(), strength=0.5, seed=7, background="#203040", preset="high").result()
    assert Path(result).read_bytes() == page.pipeline.result
    assert "Done in" in status
    verbs = [name for name, _, _ in page.pipeline.calls]
    assert verbs == ["reconstruct", "edit"]
    assert page.pipeline.calls[0][2] == {"preset": "high", "max_seconds": 10.0}
    options = page.pipeline.calls[1][2]
    assert options["request"] == EditRequest("text", "give him red hair", engine="builtin", strength=0.5, seed=7)
    assert (options["preset"], options["background"]) == ("high", "#203040")


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
    assert edited == page.pipeline.calls[-3][2]["save"]
    assert page.pipeline.calls[-1][2]["yaw"] == 20
    assert [options["orbit"] for name, _, options in page.pipeline.calls if name == "render"] == [True, False]


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


def test_a_job_can_be_sent_to_a_worker() -> None:
    import pickle

    job = sessions.Job(Path("c"), Path("p"), "preview", 10.0, verb="edit", options={"text": "a", "save": Path("s")})
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.stages[0] == "clip"
    assert job.stages[-1] == "render"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sessions.Session:
    """A visitor with a folder."""
    monkeypatch.setattr(sessions, "ROOT", tmp_path / "sessions")
    return sessions.open_session(sessions.Session())


def finished_edit(own: sessions.Session, text: str) -> sessions.Session:
    """The visitor after one more edit, as a job leaves it."""
    clip = write_clip(Path(own.folder) / "upload.mp4")
    learned = Path(own.folder) / "learned"
    if not learned.is_dir():
        write_portrait(learned, clip)
    job = sessions.Job(clip, learned, "preview", 10.0)
    job = sessions.make_edit(job, own, EditRequest("text", text, engine="builtin"), "auto")
    write_portrait(job.options["save"], clip)
    shutil.copyfile(clip, job.output)
    return sessions.finish_edit(own, job)


def test_old_folders_are_swept_and_closed_ones_deleted(own: sessions.Session) -> None:
    os.utime(own.folder, (0, 0))
    kept = sessions.open_session(sessions.Session())
    assert not Path(own.folder).exists()
    assert sessions.open_session(kept) == kept
    assert sessions.open_session(own).folder not in (own.folder, kept.folder)
    sessions.close_session(kept)
    assert Path(kept.folder).exists(), "who came back within the hour still uses it"
    an_hour_ago = time.time() - 3600
    os.utime(kept.folder, (an_hour_ago, an_hour_ago))
    sessions.close_session(kept)
    assert not Path(kept.folder).exists()
    sessions.close_session(sessions.Session())


def test_edits_are_kept_in_order_and_the_earliest_go(own: sessions.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEPT_RESULTS", 2)
    for text in ("red hair", "bronze", "pencil sketch"):
        own = finished_edit(own, text)
    rows = sessions.history(own)
    assert [row.title for row in rows] == ["bronze", "pencil sketch"]
    assert own.edited == rows[-1].portrait
    assert Image.open(rows[0].picture).size == (320, 240)
    assert len(list(Path(own.folder).glob("edited-*.mp4"))) == 2
    assert len([path for path in Path(own.folder).glob("edited-*") if path.is_dir()]) == 2
    shown = page_handlers.pick(own, types.SimpleNamespace(index=0))  # type: ignore[arg-type]
    assert shown[:2] == (sessions.replace(own, edited=rows[0].portrait), rows[0].clip)


def test_someone_who_closed_the_page_gets_the_latest_result_back(own: sessions.Session) -> None:
    assert sessions.resume_session(Path(own.folder).name) is None, "nothing is finished yet"
    own = finished_edit(own, "bronze")
    again = sessions.resume_session(Path(own.folder).name)
    assert again is not None
    assert (again.folder, again.edited) == (own.folder, own.edited)
    session, clip, result, status, *_ = page_handlers.resume(Path(own.folder).name)
    assert session == again
    assert Path(clip).name == "source.mp4"
    assert result == sessions.history(own)[0].clip
    assert wording.RESTORED in status
    secret = Path(own.folder).name
    for name in ("", "..", "../sessions", f"../sessions/{secret}", secret[:-1], secret + "/", "x" * 32):
        assert sessions.resume_session(name) is None, name


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), "7", [1]])
def test_what_is_no_number_is_refused(own: sessions.Session, odd: Any) -> None:
    assert sessions.number(0.5, "strength") == 0.5
    with pytest.raises(InputError, match="The strength is not a number"):
        sessions.number(odd, "strength")
    with pytest.raises(InputError, match="length to use is not a number"):
        sessions.make_job("clip.mp4", "preview", odd, own)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": float("nan")}, "seed is not a number"),
        ({"strength": None}, "strength is not a number"),
        ({"preset": "../../elsewhere"}, "no preset called"),
    ],
    ids=["seed", "strength", "preset"],
)
def test_numbers_and_presets_that_are_none_are_answered(
    own: sessions.Session, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {
        "strength": 1.0,
        "preset": "preview",
        "background": "auto",
        "seed": 0,
        "max_seconds": 2,
        "again": False,
        "engine": "builtin",
    }
    clip = str(write_clip(tmp_path / "clip.mp4"))
    with pytest.raises(gr.Error, match=words) as caught:
        list(page_endpoints.edit_text(clip, "red hair", **(settings | changes), session=own))
    assert caught.value.__cause__ is None, "it is no mistake of ours"


def test_what_can_be_taken_away_needs_a_result(own: sessions.Session) -> None:
    for what in ("webm", "orbit", "ply", "zip", "views"):
        with pytest.raises(InputError, match="no result yet"):
            sessions.make_export(what, own)
    own = finished_edit(own, "bronze")
    jobs = {what: sessions.make_export(what, own) for what in ("webm", "orbit", "ply", "zip", "views")}
    suffixes = [job.output.suffix for job in jobs.values()]
    assert suffixes == [".webm", ".mp4", ".ply", ".zip", ".jpg"]
    assert {job.source for job in jobs.values()} == {Path(own.edited)}
    assert jobs["webm"].stages == ("render",)
    assert jobs["webm"].options == {"background": "transparent"}


def test_a_file_made_before_is_replaced(own: sessions.Session) -> None:
    own = finished_edit(own, "bronze")
    first = sessions.make_export("zip", own).output
    first.write_bytes(b"x")
    assert sessions.make_export("zip", own).output != first
    assert not first.exists()


def test_a_result_is_named_in_few_words() -> None:
    assert sessions.edit_title(EditRequest("text", "bronze")) == "bronze"
    assert sessions.edit_title(EditRequest("style", picture=Path("a/starry_night.jpg"))) == "Style: starry night"
    assert len(sessions.edit_title(EditRequest("relight", "warm light " * 20))) < 50


@pytest.mark.parametrize(
    ("title", "message", "words"),
    [
        ("ZeroGPU illegal duration", "The requested GPU duration (180s) is larger than the maximum allowed", "fewer"),
        (
            "ZeroGPU quota exceeded",
            "You have exceeded your free ZeroGPU quota (90s requested vs. 12s left). Try again in 3:04:05. ",
            "Try again in 3:04:05,",
        ),
        ("ZeroGPU quota exceeded", "Space app has reached its GPU limit. Retry", "Try again later"),
        ("ZeroGPU quota exceeded", "No GPU was available after 60s. Retry later", "in a minute"),
        ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits allocated", "Wait until one"),
        ("ZeroGPU worker error", "RuntimeError", wording.BROKEN),
        ("Error", "Something else.", "Something else."),
    ],
)
def test_refusals_of_the_shared_gpu_say_what_to_do(title: str, message: str, words: str) -> None:
    assert words in wording.explain_gpu(title, message)
    assert not wording.is_overrun(message)


def test_costs_are_said_as_people_say_them() -> None:
    told = wording.describe_cost(215, 105, cores=2, gpu=False, reserved=())
    assert "about 4 min to learn the clip, once, and 2 min for each edit" in told
    assert "learned already" in wording.describe_cost(0, 42, cores=1, gpu=False, reserved=())
    told = wording.describe_cost(215, 105, cores=2, gpu=True, reserved=(40, 25))
    assert "40 s to learn the clip, once, and 25 s for each edit" in told
    assert "takes 25 s for each edit" in wording.describe_cost(0, 105, cores=2, gpu=True, reserved=(25,))
    assert [wording.roughly(s) for s in (3, 42, 100, 7000)] == ["5 s", "40 s", "2 min", "1.9 h"]


def test_the_message_area_escapes() -> None:
    shown = wording.note("<script>", "<i>", "", value=0.5, bad=True)
    assert "<script>" not in shown
    assert "<i>" not in shown
    assert 'value="0.500"' in shown


def test_stored_examples_need_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    assert app.stored_examples() == []
    listed = tmp_path / "examples.json"
    listed.write_text('[{"name": "n", "kind": "text", "clip": "a.mp4", "text": "bronze", "result": "b.mp4"}]')
    assert app.stored_examples() == []
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    assert app.stored_examples()[0]["clip"] == str(tmp_path / "a.mp4")
    listed.write_text('{"not": "a list"}')
    assert app.stored_examples() == []


def test_engines_follow_the_weights_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_handlers.shutil, "which", lambda name: None)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setattr(page_handlers.weights, "path", lambda name: None)
    assert [name for _, name in page_handlers.engines("text")] == ["builtin"]
    monkeypatch.setattr(page_handlers.weights, "path", lambda name: tmp_path)
    assert [name for _, name in page_handlers.engines("text")] == ["builtin", "instruct-pix2pix", "flux2-klein"]
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert page_handlers.engines("text")[0] == ("InstructPix2Pix", "instruct-pix2pix")
    assert page_handlers.engines("relight") == [("IC-Light", "ic-light"), ("Built-in relighting", "builtin")]


def test_the_page_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, app; app.build()\n"
        "print([name for name in ('mediapipe', 'warp', 'anny', 'diffusers', 'transformers') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr
