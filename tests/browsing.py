"""A visitor's browser: tabs of the page in a real Chromium."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM
from serving import Page

playwright_api = pytest.importorskip("playwright.sync_api")
NEEDED = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
PICTURES = Path(__file__).parent.parent / "artifacts"
WAIT = 150_000  # ms; a busy machine is no failure
playwright_api.expect.set_options(timeout=WAIT)


@contextlib.contextmanager
def tab(browser: Any, page: Page, **options: Any) -> Iterator[Any]:
    """One visitor's tab, waited for until it can be used."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})
    view = context.new_page()
    view.set_default_timeout(WAIT)
    view.goto(page.url)
    view.get_by_role("button", name="Edit the clip").wait_for()
    try:
        yield view
    except BaseException:
        PICTURES.mkdir(exist_ok=True)
        view.screenshot(path=PICTURES / f"failure-{time.time_ns():x}.png", full_page=True)
        raise
    finally:
        context.close()


def upload(view: Any, clip: Path) -> None:
    view.locator("#clip input[type=file]").set_input_files(str(clip))
    playwright_api.expect(view.locator("#clip video")).to_be_visible()
    playwright_api.expect(view.locator("#about")).to_contain_text("moments looked at show no face")


def open_advanced(view: Any) -> None:
    """Opens the rarer settings. Gradio mounts them only now, and up to 0.1 s after a field can be typed into it puts
    the field's first value there, over what no person could have typed that soon."""
    view.get_by_role("button", name="Advanced").click()
    playwright_api.expect(view.locator("#seed input")).to_be_visible()
    view.wait_for_timeout(1000)


def edit(view: Any, text: str = "give him red hair") -> None:
    view.get_by_label("Instruction").fill(text)
    view.get_by_role("button", name="Edit the clip").click()


def status(view: Any) -> Any:
    return playwright_api.expect(view.locator("#status"))


def play_time(view: Any, which: str) -> float:
    return float(view.locator(f".player .{which}").evaluate("video => video.currentTime"))
