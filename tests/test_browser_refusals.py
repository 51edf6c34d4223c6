"""What never reaches the work, in a real Chromium: the page says why in a sentence and can be used again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from browsing import NEEDED, edit, open_advanced, playwright_api, status, tab, upload
from serving import Page

import page_handlers
from portraitgen import limits, wording

pytestmark = NEEDED


def expect_ready(view: Any) -> None:
    playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
    playwright_api.expect(view.get_by_role("button", name="Stop")).to_be_disabled()


def test_a_seed_out_of_range_is_answered(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        open_advanced(view)
        seed = view.locator("#seed input")
        for odd in ("-1", str(limits.MAX_SEED + 1)):
            seed.fill(odd)
            edit(view)
            status(view).to_contain_text(f"The seed is {odd}. Enter a whole number")
            expect_ready(view)
        seed.fill(str(limits.MAX_SEED))
        edit(view)
        status(view).to_contain_text("Done in")
    assert page.pipeline.calls[-1][2]["request"].seed == limits.MAX_SEED


def test_a_full_queue_is_answered(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        most, page.queue.max_size = page.queue.max_size, 0
        try:
            edit(view)
            status(view).to_contain_text("Too many jobs are waiting.")
            expect_ready(view)
        finally:
            page.queue.max_size = most
        edit(view)
        status(view).to_contain_text("Done in")


def test_a_clip_that_is_gone_is_answered(browser: Any, page: Page, tmp_path: Path) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        playwright_api.expect(view.locator("#look")).to_be_attached()
        cache = page.clip.parent / "gradio"
        for path in list(cache.rglob(page.clip.name)):
            shutil.rmtree(path.parent)
        edit(view)
        status(view).to_contain_text("The clip is no longer on this machine. Upload it again.")
        expect_ready(view)
        view.get_by_test_id("video").get_by_role("button", name="Clear").click()
        upload(view, page.clip)
        edit(view)
        status(view).to_contain_text("Done in")


def test_a_job_that_the_server_does_not_begin_is_answered(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        view.route("**/queue/join*", lambda route: route.fulfill(status=500, json={"detail": "No."}))
        edit(view)
        status(view).to_contain_text("The job could not be started")
        expect_ready(view)
        view.unroute("**/queue/join*")
        edit(view)
        status(view).to_contain_text("Done in")


# Whoever reads the page's settings, however early, is told of a small limit.
LIMITED = """Object.defineProperty(window, "gradio_config", {
    configurable: true,
    set: (value) => Object.defineProperty(window, "gradio_config",
        { value: { ...value, max_file_size: 1000 }, writable: true, configurable: true }),
})"""


def test_a_file_that_is_too_large_is_answered(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        view.add_init_script(LIMITED)
        view.reload()
        view.locator("#clip input[type=file]").set_input_files(str(page.clip))
        playwright_api.expect(view.locator("#about [role=alert]")).to_contain_text(wording.TOO_LARGE)
        playwright_api.expect(view.locator("#clip video")).to_have_count(0)


def test_an_engine_whose_weights_came_later_is_the_one_in_use(
    browser: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_handlers, "has_gpu", lambda: True)
    monkeypatch.setattr(page_handlers.weights, "ready", lambda name: True)
    monkeypatch.setattr(page_handlers.weights, "bytes_missing", lambda name: 0)
    with tab(browser, page) as view:
        playwright_api.expect(view.locator("#engine-text input")).to_have_value("InstructPix2Pix")
        view.get_by_role("tab", name="Relighting").click()
        playwright_api.expect(view.locator("#engine-relight input")).to_have_value("IC-Light")
