"""Ways through the page in a real Chromium that nothing else goes: try-on, a clip that is too long, and no other host on any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import media
import pytest
from browsing import NEEDED, edit, playwright_api, status, tab, upload
from serving import Page
from test_browser_clips import finished, write_views

from portraitgen import export
from portraitgen.clip import probe, read_frames

pytestmark = NEEDED
EXAMPLES = Path(__file__).parent.parent / "examples"
CLIP = EXAMPLES / "portrait.mp4"


def test_an_edit_from_the_try_on_tab(browser: Any, page: Page) -> None:
    garment = EXAMPLES / "garments" / "striped_jumper.png"
    with tab(browser, page) as view:
        upload(view, page.clip)
        view.get_by_role("tab", name="Try-on").click()
        view.get_by_role("button", name="Edit the clip").click()
        status(view).to_contain_text("no garment photo")
        view.locator("#garment input[type=file]").set_input_files(str(garment))
        view.wait_for_function("document.querySelector('#garment img')?.naturalWidth > 100")
        view.get_by_role("button", name="Edit the clip").click()
        finished(view, 1)
        playwright_api.expect(view.locator(".player .after")).to_be_visible()
        playwright_api.expect(view.locator("#earlier")).to_contain_text("Try-on: striped jumper")
    request = page.pipeline.calls[-1][2]["request"]
    assert request.kind == "tryon"
    assert request.picture.read_bytes() == garment.read_bytes()


def test_a_clip_that_is_too_long_is_used_up_to_the_limit(browser: Any, page: Page, tmp_path: Path) -> None:
    faces = [cv2.resize(frame, (256, 256)) for frame in read_frames(CLIP, probe(CLIP))]
    long = tmp_path / "long.mp4"
    media.write_clip(long, size=(256, 256), count=325, rate=5, draw=lambda number, *_: faces[number % len(faces)])
    with tab(browser, page) as view:
        view.locator("#clip input[type=file]").set_input_files(str(long))
        about = playwright_api.expect(view.locator("#about"))
        about.to_contain_text("10.0 s used,")
        about.to_contain_text("The last 55 s of the clip are left out. Set more seconds to use, up to 60")
        seconds = view.get_by_role("spinbutton", name="Seconds of the clip to use")
        seconds.fill("90")
        seconds.blur()
        about.to_contain_text("60.0 s used,")
        about.to_contain_text("The last 5 s of the clip are left out.")
        playwright_api.expect(seconds).to_have_value("60")
        start = view.get_by_role("spinbutton", name="Start at second")
        start.fill("99")
        start.blur()
        about.to_contain_text("cannot be used from 64.9 s on. Start earlier.")
        start.fill("0")
        start.blur()
        about.to_contain_text("60.0 s used,")
        edit(view)
        status(view).to_contain_text("Done in")
    assert page.pipeline.calls[0][2]["max_seconds"] == 60


def test_no_other_host_is_asked_on_the_whole_way(browser: Any, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write_packed", write_views)
    asked: set[str] = set()
    with tab(browser, page, accept_downloads=True) as view:
        view.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
        view.on("websocket", lambda socket: asked.add(urlsplit(socket.url).hostname or ""))
        upload(view, page.clip)
        edit(view)
        finished(view, 1)
        view.wait_for_function("document.querySelector('.player .after')?.readyState >= 2")
        view.get_by_role("button", name="Play", exact=True).click()
        view.get_by_role("button", name="Look from all sides").click()
        view.get_by_role("button", name="Prepare the turntable").click()
        playwright_api.expect(view.locator(".turntable")).to_be_visible()
        view.get_by_role("button", name="Take it with you").click()
        for button in (view.locator("#download"), view.get_by_role("button", name="Portrait folder (zip)")):
            with view.expect_download() as download:
                button.click()
            assert download.value.path()
        view.get_by_role("button", name="Thumbnail 1 of 1").click()
        status(view).to_contain_text("Shown again.")
        view.wait_for_timeout(1000)
    assert "127.0.0.1" in asked
    assert asked <= {"127.0.0.1", ""}
