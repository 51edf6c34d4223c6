"""Which clip, result and controls the page shows together, in a real Chromium, with a stand-in for the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import NEEDED, edit, playwright_api, status, tab, upload
from PIL import Image
from serving import Page

import app
from portraitgen import export
from portraitgen.progress import Progress

pytestmark = NEEDED


def clear(view: Any) -> None:
    view.get_by_test_id("video").get_by_role("button", name="Clear").click()


def shown(view: Any, which: str) -> str:
    """Name of the file in the player."""
    return str(view.locator(f".player .{which}").get_attribute("src")).rsplit("/", 1)[-1]


def finished(view: Any, edits: int) -> None:
    playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(edits)
    playwright_api.expect(view.get_by_role("button", name="Edit this further")).to_be_visible()


def expect_nothing_of_ones_own(view: Any) -> None:
    playwright_api.expect(view.get_by_role("button", name="Edit this further")).to_be_hidden()
    playwright_api.expect(view.get_by_role("button", name="Take it with you")).to_be_hidden()
    playwright_api.expect(view.get_by_role("button", name="Look from all sides")).to_be_hidden()
    playwright_api.expect(view.get_by_label("Go on from the result")).to_be_hidden()


def test_another_clip_is_never_shown_beside_an_earlier_result(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        finished(view, 1)
        first = shown(view, "after")
        assert shown(view, "before") == page.clip.name
        view.get_by_role("button", name="Edit this further").click()
        clear(view)
        upload(view, page.other_clip)
        playwright_api.expect(view.locator(".player")).to_have_count(0)
        playwright_api.expect(view.locator("#download")).to_be_hidden()
        expect_nothing_of_ones_own(view)
        edit(view)
        finished(view, 2)
        assert page.pipeline.calls[-1][1][0] == page.pipeline.calls[-2][1][1], "not gone on from the first one's edit"
        assert shown(view, "before") == page.other_clip.name
        view.get_by_role("button", name="Thumbnail 1 of 2").click()
        status(view).to_contain_text("Shown again.")
        view.wait_for_function("name => document.querySelector('.player .after').src.endsWith(name)", arg=first)
        assert shown(view, "before") == "source.mp4", "the clip as its portrait keeps it"
        edit(view, "make the hair dark blue")
        finished(view, 3)
        assert page.pipeline.folders("edit")[-1] == page.pipeline.folders("edit")[0], "of the clip that came back"


def test_a_clip_chosen_while_a_job_runs_is_not_shown_beside_its_result(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.5, 8
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        status(view).to_contain_text("Carrying the edit over")
        clear(view)
        upload(view, page.other_clip)
        finished(view, 1)
        assert shown(view, "before") == page.clip.name


def test_a_stored_example_is_not_taken_for_ones_own_result(browser: Any, page: Page) -> None:
    row = next(row for row in app.stored_examples() if row["kind"] == "relight")
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        finished(view, 1)
        view.get_by_role("button", name="Edit this further").click()
        view.locator("#shelf").get_by_role("button", name=row["name"].capitalize()).click()
        status(view).to_contain_text("A stored result")
        view.wait_for_function("document.querySelector('.player .after')?.readyState >= 2")
        expect_nothing_of_ones_own(view)
        view.get_by_role("button", name="Thumbnail 1 of 1").click()
        status(view).to_contain_text("Shown again.")
        finished(view, 1)
        playwright_api.expect(view.get_by_role("button", name="Take it with you")).to_be_visible()
        playwright_api.expect(view.get_by_label("Go on from the result")).not_to_be_checked()
        view.locator("#shelf").get_by_role("button", name=row["name"].capitalize()).click()
        status(view).to_contain_text("A stored result")
        view.get_by_role("button", name="Edit the clip").click()
        finished(view, 2)
    assert page.pipeline.calls[-1][1][0] == page.pipeline.calls[-2][1][1], "of the example's own clip"


def write_views(verb: str, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
    """Three views, as many as are needed to see a strip."""
    Image.fromarray(np.full((64, 192, 3), 90, np.uint8)).save(output, "jpeg")
    yield Progress("render", 1.0, "Drawn.")


def test_the_turntable_of_an_earlier_result_goes(browser: Any, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write_packed", write_views)
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        finished(view, 1)
        view.get_by_role("button", name="Look from all sides").click()
        view.get_by_role("button", name="Prepare the turntable").click()
        turntable = playwright_api.expect(view.locator(".turntable"))
        turntable.to_have_count(1)
        view.get_by_role("button", name="Render the clip from this side").click()
        view.wait_for_function("document.querySelector('.player .after').src.includes('turned-')")
        turntable.to_have_count(1)
        edit(view, "make the hair dark blue")
        finished(view, 2)
        turntable.to_have_count(0)


def pick(view: Any, number: int, count: int, result: Path) -> None:
    view.get_by_role("button", name=f"Thumbnail {number} of {count}").click()
    appears(view, result)


def appears(view: Any, result: Path) -> None:
    view.wait_for_function("name => document.querySelector('.player .after').src.includes(name)", arg=result.name)


def test_an_earlier_result_looked_at_while_a_job_runs_keeps_its_clip_and_its_downloads(
    browser: Any, page: Page
) -> None:
    """The job's end shows its own result beside its own clip; a stop leaves what was chosen."""
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        finished(view, 1)
        _, (_, first), options = page.pipeline.calls[-1]
        clear(view)
        upload(view, page.other_clip)
        edit(view, "a bronze statue")
        finished(view, 2)
        page.pipeline.pause, page.pipeline.steps = 0.4, 10
        edit(view, "make it a pencil sketch")
        status(view).to_contain_text("Carrying the edit over")
        pick(view, 1, 2, first)
        assert shown(view, "before") == "source.mp4"
        finished(view, 3)
        appears(view, page.pipeline.calls[-1][1][1])
        assert shown(view, "before") == page.other_clip.name, "not the clip of the one that was looked at"

        page.pipeline.steps = 1000
        edit(view, "a bronze statue")
        status(view).to_contain_text("Carrying the edit over")
        pick(view, 1, 3, first)
        view.get_by_role("button", name="Stop").click()
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
        page.pipeline.pause, page.pipeline.steps = 0.0, 2
        assert first.name in shown(view, "after")
        view.get_by_role("button", name="Take it with you").click()
        with view.expect_download():
            view.get_by_role("button", name="Orbit video").click()
        assert page.pipeline.folders("render")[-1] == options["save"], "what is shown is what is packed"


def test_a_turntable_never_stands_beside_another_result(
    browser: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slowly(verb: str, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        while not go_on.wait(0.2):
            yield Progress("render", 0.5, "Drawing.")
        yield from write_views(verb, source, output)

    monkeypatch.setattr(export, "write_packed", slowly)
    with tab(browser, page) as view:
        upload(view, page.clip)
        for number, text in enumerate(("give him red hair", "a bronze statue"), 1):
            edit(view, text)
            finished(view, number)
        view.get_by_role("button", name="Look from all sides").click()
        view.get_by_role("button", name="Prepare the turntable").click()
        status(view).to_contain_text("Drawing.")
        pick(view, 1, 2, page.pipeline.calls[1][1][1])
        go_on.set()
        status(view).to_contain_text("Done in")
        view.wait_for_timeout(500)
        playwright_api.expect(view.locator(".turntable")).to_have_count(0)
        view.get_by_role("button", name="Prepare the turntable").click()
        playwright_api.expect(view.locator(".turntable")).to_have_count(1)
