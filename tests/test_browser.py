"""The page in a real Chromium, as a person uses it, with a stand-in for the pipeline."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from test_app import Page, serving

from portraitgen.errors import InputError

playwright_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def page(served: Page) -> Page:
    served.pipeline.reset()
    return served


@contextlib.contextmanager
def tab(browser: Any, page: Page, **options: Any) -> Iterator[Any]:
    """One visitor's tab, waited for until it can be used."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})
    view = context.new_page()
    view.set_default_timeout(15_000)
    view.goto(page.url)
    view.get_by_role("button", name="Edit the clip").wait_for()
    yield view
    context.close()


def upload(view: Any, clip: Path) -> None:
    view.locator("#clip input[type=file]").set_input_files(str(clip))
    playwright_api.expect(view.locator("#clip video")).to_be_visible()


def edit(view: Any, text: str = "give him red hair") -> None:
    view.get_by_label("Instruction").fill(text)
    view.get_by_role("button", name="Edit the clip").click()


def status(view: Any) -> Any:
    return playwright_api.expect(view.locator("#status"))


def test_the_page_asks_nobody_else_and_fits_a_phone(browser: Any, page: Page) -> None:
    hosts: set[str] = set()
    with tab(browser, page) as view:
        view.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
        view.reload()
        view.get_by_role("button", name="Edit the clip").wait_for()
        view.wait_for_timeout(1500)
        playwright_api.expect(view.get_by_text("Edit only people who agreed.")).to_be_visible()
        playwright_api.expect(view.get_by_label("Engine in use")).to_have_value("Built-in looks")
        for name, label in (("Image style", "#style"), ("Try-on", "#garment"), ("Relighting", "#light")):
            view.get_by_role("tab", name=name).click()
            playwright_api.expect(view.locator(label)).to_be_visible()
            playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_have_count(1)
    assert hosts <= {"127.0.0.1", ""}
    with tab(browser, page, viewport={"width": 390, "height": 844}) as view:
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "no sideways scroll on a phone"


def test_an_edit_from_upload_to_download(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.3, 4
    with tab(browser, page, accept_downloads=True) as view:
        upload(view, page.clip)
        playwright_api.expect(view.locator("#about")).to_contain_text("160 × 120")
        playwright_api.expect(view.get_by_role("button", name="Stop")).to_be_disabled()
        chip = view.locator(".gallery button, button.gallery-item").first
        wanted = chip.inner_text()
        chip.click()
        playwright_api.expect(view.get_by_label("Instruction")).to_have_value(wanted)
        view.get_by_role("button", name="Edit the clip").click()
        status(view).to_contain_text("Learning the person in 3D")
        playwright_api.expect(view.locator("#preview img")).to_be_visible()
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_disabled()
        status(view).to_contain_text("Done in")
        playwright_api.expect(view.locator("#result video")).to_be_visible()
        playwright_api.expect(view.locator("#preview")).to_be_hidden()
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
        with view.expect_download() as download:
            view.locator("#download").click()
        assert Path(download.value.path()).read_bytes() == page.pipeline.result
        edit(view, "make the hair dark blue")
        status(view).to_contain_text("Carrying the edit over")
        status(view).to_contain_text("Done in")
    assert len(set(page.pipeline.folders("edit"))) == 1


def test_stop_and_go_on(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.2, 1000
    with tab(browser, page) as view:
        upload(view, page.other_clip)
        edit(view)
        status(view).to_contain_text("Learning the person in 3D")
        view.get_by_role("button", name="Stop").click()
        status(view).to_contain_text("Stopped.")
        playwright_api.expect(view.get_by_role("button", name="Stop")).to_be_disabled()
        page.pipeline.pause, page.pipeline.steps = 0.0, 2
        edit(view)
        status(view).to_contain_text("Done in")
    assert page.pipeline.closed == 1
    assert len(set(page.pipeline.folders("reconstruct"))) == 1, "what was begun can be gone on with"


def test_mistakes_are_shown_in_words(browser: Any, page: Page) -> None:
    broken = page.clip.parent / "broken.mp4"
    broken.write_bytes(b"this is no video")
    with tab(browser, page) as view:
        edit(view)
        status(view).to_contain_text("There is no clip yet.")
        view.locator("#clip input[type=file]").set_input_files(str(broken))
        playwright_api.expect(view.locator("#about [role=alert]")).to_be_visible()
        view.get_by_test_id("video").get_by_role("button", name="Clear").click()
        upload(view, page.clip)
        edit(view, "<img src=x onerror=document.title='hacked'>")
        playwright_api.expect(view.locator("#status [role=alert]")).to_be_visible()
        assert view.title() == "PortraitGen"
        page.pipeline.failure = InputError("No face was found at 0.4 s. Show the face from the front.")
        edit(view)
        status(view).to_contain_text("No face was found at 0.4 s.")
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
        page.pipeline.failure = None
        edit(view)
        status(view).to_contain_text("Done in")


def test_two_people_at_once(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.2, 4
    with tab(browser, page) as first, tab(browser, page) as second:
        upload(first, page.clip)
        upload(second, page.clip)
        edit(first)
        edit(second, "make the hair dark blue")
        status(first).to_contain_text("Done in")
        status(second).to_contain_text("Done in")
        sources = {view.locator("#result video").get_attribute("src") for view in (first, second)}
    assert len(sources) == 2
    assert page.pipeline.most_active == 1
    assert len({folder.parent for folder in page.pipeline.folders("edit")}) == 2
