"""Jobs in a real Chromium, from the button to the download, with a stand-in for the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browsing import NEEDED, edit, open_advanced, play_time, playwright_api, status, tab, upload
from serving import Page

from portraitgen.errors import InputError

pytestmark = NEEDED


def pack(view: Any, name: str) -> Path:
    """Press a button that makes a file, and get what the browser saves."""
    with view.expect_download() as download:
        view.get_by_role("button", name=name).click()
    return Path(download.value.path())


def test_an_edit_from_upload_to_download(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.3, 4
    with tab(browser, page, accept_downloads=True) as view:
        upload(view, page.clip)
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
        playwright_api.expect(view.locator(".player .after")).to_be_visible()
        playwright_api.expect(view.locator("#preview")).to_be_hidden()
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
        with view.expect_download() as download:
            view.locator("#download").click()
        assert Path(download.value.path()).read_bytes() == page.pipeline.result
        edit(view, "make the hair dark blue")
        status(view).to_contain_text("Carrying the edit over")
        status(view).to_contain_text("Done in")
    assert len(set(page.pipeline.folders("edit"))) == 1


def test_the_result_plays_beside_the_source(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        player = view.locator(".player")
        player.wait_for()
        playwright_api.expect(player).to_have_attribute("data-mode", "wipe")
        assert not view.locator(".player .after").evaluate("video => video.muted"), "sound on"
        assert view.locator(".player .before").evaluate("video => video.muted")
        line = view.get_by_role("slider", name="Line between clip and result")
        line.focus()
        for _ in range(5):
            line.press("ArrowRight")
        assert player.evaluate("e => getComputedStyle(e).getPropertyValue('--cut')") == "55%"
        view.get_by_role("slider", name="Place in the clip").fill("0.5")
        view.wait_for_function("document.querySelector('.player .before').currentTime > 0.3")
        assert abs(play_time(view, "before") - play_time(view, "after")) < 0.1
        play = view.get_by_role("button", name="Play", exact=True)
        play.press("Enter")
        playwright_api.expect(play).to_have_attribute("aria-pressed", "true")
        view.wait_for_function("!document.querySelector('.player .before').paused")
        play.press("Enter")
        playwright_api.expect(play).to_have_attribute("aria-pressed", "false")
        view.wait_for_function("document.querySelector('.player .before').paused")
        view.get_by_role("radio", name="Side by side").check()
        boxes = [view.locator(f".player .{which}").bounding_box() for which in ("before", "after")]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1
        view.get_by_role("radio", name="Result only").check()
        playwright_api.expect(view.locator(".player .before")).to_be_hidden()


def test_earlier_edits_can_be_shown_and_gone_on_from(browser: Any, page: Page) -> None:
    with tab(browser, page, accept_downloads=True) as view:
        upload(view, page.clip)
        for number, text in enumerate(("give him red hair", "make the hair dark blue")):
            edit(view, text)
            playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(number + 1)
        first = page.pipeline.calls[1][2]["save"]
        view.get_by_role("button", name="Thumbnail 1 of 2").click()
        status(view).to_contain_text("Shown again.")
        view.get_by_role("button", name="Take it with you").click()
        assert pack(view, "Portrait folder (zip)").stat().st_size > 100
        assert pack(view, "Orbit video").read_bytes() == page.pipeline.result
        assert page.pipeline.folders("render") == [first], "what is shown is what is packed"
        view.get_by_role("button", name="Edit this further").click()
        playwright_api.expect(view.get_by_label("Go on from the result")).to_be_checked()
        edit(view, "make it a pencil sketch")
        playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(3)
        assert page.pipeline.folders("edit")[-1] == first


def test_a_closed_page_gives_its_result_back(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        edit(view)
        playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(1)
        view.reload()
        status(view).to_contain_text("Your latest result.")
        playwright_api.expect(view.locator(".player .after")).to_be_visible()
        playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(1)
        edit(view, "make the hair dark blue")
        status(view).to_contain_text("Done in")
    assert len({folder.parent for folder in page.pipeline.folders("edit")}) == 1
    with tab(browser, page) as stranger:
        stranger.wait_for_timeout(1500)
        playwright_api.expect(stranger.locator(".player")).to_have_count(0)


def test_a_closed_page_gives_a_learned_clip_back(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        upload(view, page.clip)
        open_advanced(view)
        view.get_by_role("button", name="Learn the clip now").click()
        status(view).to_contain_text("Done in")
        playwright_api.expect(view.get_by_role("button", name="Take it with you")).to_be_visible()
        view.reload()
        status(view).to_contain_text("Your clip of before. It is learned already")
        playwright_api.expect(view.locator("#clip video")).to_be_visible()
        playwright_api.expect(view.get_by_role("button", name="Take it with you")).to_be_visible()
        edit(view)
        status(view).to_contain_text("Done in")
    assert len(set(page.pipeline.folders("reconstruct"))) == 1


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
        sources = {view.locator(".player .after").get_attribute("src") for view in (first, second)}
    assert len(sources) == 2
    assert page.pipeline.most_active == 1
    assert len({folder.parent for folder in page.pipeline.folders("edit")}) == 2
