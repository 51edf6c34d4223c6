"""Visitors and each other's files, over plain HTTP, as someone would who does not use the page."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio import processing_utils
from serving import Page, serving, write_clip

import app
from portraitgen import weights
from portraitgen.sweeping import shown_always, sweep_files

ROOT = Path(__file__).parent.parent
FILES = [
    ("edit_text", "clip"),
    ("edit_text", "behind"),
    ("edit_style", "style"),
    ("edit_tryon", "garment"),
    ("edit_relight", "light_picture"),
    ("reconstruct", "clip"),
    ("render", "clip"),
]
WORDS = {"edit_text": {"text": "give him red hair"}, "edit_relight": {"light": "sunset"}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, gr.Blocks]]:
    options, build, built = {**app.launch_options(), "max_file_size": "1mb"}, app.build, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "launch_options", lambda: options)
        patch.setattr(app, "build", lambda: built.append(build()) or built[0])
        with serving(tmp_path_factory.mktemp("page")) as page:
            yield page, built[0]


@pytest.fixture
def page(served: tuple[Page, gr.Blocks]) -> Page:
    served[0].pipeline.reset()
    return served[0]


def upload(page: Page, name: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{page.url}gradio_api/upload", files={"files": (name, content)})


def stored(page: Page, path: Path) -> str:
    """Where the server keeps an upload."""
    return str(upload(page, path.name, path.read_bytes()).raise_for_status().json()[0])


def file_of(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(page: Page, name: str, **values: Any) -> tuple[str, Any]:
    """How a call ends, "complete" or "error", and what it says."""
    begun = httpx.post(f"{page.url}gradio_api/call/v2/{name}", json=values).raise_for_status().json()
    stream = httpx.get(f"{page.url}gradio_api/call/{name}/{begun['event_id']}", timeout=60).text
    end = re.findall(r"event: (complete|error)\ndata: (.*)", stream)[-1]
    return end[0], json.loads(end[1])


def edit(page: Page) -> tuple[Path, str]:
    """An edit by somebody: the folder of their portrait, and the path of their result as their own page gets it."""
    end, values = call(page, "edit_text", clip=file_of(stored(page, page.clip)), text="give him red hair")
    assert end == "complete", values
    return page.pipeline.folders("edit")[-1], next(v["path"] for v in values if isinstance(v, dict) and "path" in v)


@pytest.mark.parametrize(("name", "argument"), FILES)
def test_a_call_reads_no_file_that_was_not_uploaded(page: Page, name: str, argument: str) -> None:
    portrait, _ = edit(page)
    kept = write_clip(portrait / "source.mp4")
    result = next(path for path in portrait.parent.rglob("*.mp4") if path != kept)
    own = {"clip": file_of(stored(page, page.clip)), **WORDS.get(name, {})}
    page.pipeline.reset()
    example = next((ROOT / "examples").rglob("*.*g"))
    paths = (kept, result, Path("/etc/passwd"), ROOT / "app.py", weights.ROOT / "README.md", example)
    assert all(path.is_file() for path in paths)
    cache = Path(stored(page, page.clip)).parent
    for spelled in (*map(str, paths), f"{cache}/{os.path.relpath(kept, cache)}", f"file://{kept}"):
        end, said = call(page, name, **{**own, argument: file_of(spelled)})
        assert end == "error", (spelled, said)
    assert page.pipeline.calls == []


def test_a_call_connects_to_no_machine_behind_the_server(page: Page) -> None:
    asked: list[str] = []

    class Inside(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Inside) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            address = f"http://{host}:{server.server_port}/clip.mp4"
            for value in (file_of(address), {**file_of(address), "url": address}):
                assert call(page, "edit_text", clip=value, text="red hair")[0] == "error"
        server.shutdown()
    assert asked == []
    assert page.pipeline.calls == []


def test_the_server_hands_out_nothing_else(page: Page) -> None:
    portrait, result = edit(page)
    write_clip(portrait / "source.mp4")
    inside = [path for path in portrait.parent.rglob("*") if path.is_file()]
    assert len(inside) >= 2
    outside = [
        ROOT / "app.py",
        ROOT / "README.md",
        weights.ROOT / "README.md",
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
    ]
    folders = [portrait.parent, portrait, Path(result).parent, Path(result).parent.parent, ROOT]
    with httpx.Client(base_url=page.url) as visitor:
        assert visitor.get(f"gradio_api/file={result}").status_code == 200, "their own page shows it"
        for path in (*inside, *outside, *folders):
            parent = Path(result).parent
            spelled = [str(path), f"/{path}", str(path).replace("/", "%2f"), os.path.relpath(path), f"file://{path}"]
            spelled += [f"{parent}/{os.path.relpath(path, parent)}", f"{result}/{os.path.relpath(path, result)}"]
            spelled += [name.replace("..", "%2e%2e") for name in spelled if ".." in name]
            for way in ("gradio_api/file=", "gradio_api/stream/", "file=", "static/", "gradio_api/proxy=", "assets/"):
                for name in spelled:
                    code = visitor.get(f"{way}{name}").status_code
                    assert code in (307, 400, 401, 403, 404, 405), (way, name, code)


def test_names_cannot_be_guessed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows the clip, the text and the name of the file still does not know where the server keeps it."""
    portrait, result = edit(page)
    own = Path(stored(page, page.clip))
    for path in (own, Path(result)):
        assert re.fullmatch(r"[0-9a-f]{64}", path.parent.name), path
    assert own.parent.name == processing_utils.hash_file(page.clip)
    monkeypatch.setattr(processing_utils, "hash_seed", b"of another server")
    assert own.parent.name != processing_utils.hash_file(page.clip), "the seed of this server is in the name"
    folder = portrait.parent
    assert len(folder.name) >= 8
    assert folder.parent == page.sessions
    assert page.sessions.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../../evil.mp4", "/etc/evil.mp4", "..\\evil.mp4", "a\n<b>.mp4", "." * 300 + "mp4"])
def test_the_name_of_an_upload_is_only_a_name(page: Page, name: str) -> None:
    cache = Path(stored(page, page.clip)).parent.parent
    answer = upload(page, name, page.clip.read_bytes())
    if answer.status_code == 200:
        path = Path(answer.json()[0])
        assert path.resolve().parent.parent == cache
        assert path.is_file()
        end, said = call(page, "reconstruct", clip=file_of(str(path)))
        assert end == "complete", said
        clip, portrait = page.pipeline.calls[-1][1]
        assert "evil" not in str(portrait)
        assert Path(clip) == path
    else:
        assert answer.status_code in (400, 422)
    assert not list(cache.parent.glob("*evil*"))


def test_uploads_have_a_limit(page: Page) -> None:
    assert re.fullmatch(r"\d+mb", app.launch_options()["max_file_size"])
    before = {path for path in Path(stored(page, page.clip)).parent.parent.rglob("*") if path.is_file()}
    assert upload(page, "large.mp4", bytes(2 << 20)).status_code == 413
    after = {path for path in Path(stored(page, page.clip)).parent.parent.rglob("*") if path.is_file()}
    assert after == before, "nothing is left of it"


def test_the_options_that_guard(page: Page) -> None:
    options = app.launch_options()
    assert options["allowed_paths"] == [str(app.EXAMPLES)]
    assert str(weights.ROOT) in options["blocked_paths"]
    assert options["run_history"] is False
    frequency, age = app.build().delete_cache
    assert frequency <= 600
    assert 3600 <= age <= 3 * 3600


def test_what_gradio_keeps_is_swept_by_age(page: Page, served: tuple[Page, gr.Blocks]) -> None:
    """Gradio forgets the files of parts of the page that changed for a visitor; the sweep goes by what lies on the disk."""
    _, result = edit(page)
    cache, keep = Path(result).parent.parent, shown_always(served[1])
    clip = Path(stored(page, page.clip))
    sweep_files(cache, 3600, keep)
    assert clip.is_file()
    assert Path(result).is_file()
    sweep_files(cache, -1, keep)
    assert {str(path) for path in cache.rglob("*") if path.is_file()} <= keep
    assert call(page, "edit_text", clip=file_of(stored(page, page.clip)), text="blue hair")[0] == "complete"


def test_no_answer_shows_the_machine(page: Page) -> None:
    page.pipeline.failure = RuntimeError(f"secret {ROOT}")
    end, said = call(page, "edit_text", clip=file_of(stored(page, page.other_clip)), text="red hair")
    assert end == "error"
    assert "secret" not in str(said)
    assert str(ROOT) not in str(said)
    assert "Traceback" not in str(said)
