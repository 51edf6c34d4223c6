"""The page in a real Chromium, as a person uses it, with a stand-in for the pipeline."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from test_app import Page, serving

import app
from portraitgen import inspection
from portraitgen.clip import ClipInfo
from portraitgen.errors import InputError

playwright_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
PICTURES = Path(__file__).parent.parent / "artifacts"
WAIT = 150_000  # ms; a busy machine is no failure
playwright_api.expect.set_options(timeout=WAIT)
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


def edit(view: Any, text: str = "give him red hair") -> None:
    view.get_by_label("Instruction").fill(text)
    view.get_by_role("button", name="Edit the clip").click()


def status(view: Any) -> Any:
    return playwright_api.expect(view.locator("#status"))


CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"
CONTRAST = """(selectors) => {
    const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const over = (top, below) => {
        const a = top.length > 3 ? top[3] : 1;
        return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
    };
    const behind = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.push(channels(getComputedStyle(e).backgroundColor));
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = {};
    for (const selector of selectors) {
        for (const e of document.querySelectorAll(selector)) {
            if (!e.checkVisibility() || e.disabled || !(e.innerText || e.placeholder || "").trim()) continue;
            const ground = behind(e);
            const [low, high] = [light(over(channels(getComputedStyle(e).color), ground)), light(ground)].sort((a, b) => a - b);
            found[`${selector}: ${e.innerText.trim().slice(0, 30)}`] = (high + 0.05) / (low + 0.05);
        }
    }
    return found;
}"""
READ = [
    "h1",
    "h2",
    "p",
    "label span",
    "#consent strong",
    "button",
    "[role=tab]",
    ".note p",
    ".note .more",
    "textarea",
    "footer *",
]


def play_time(view: Any, which: str) -> float:
    return float(view.locator(f".player .{which}").evaluate("video => video.currentTime"))


def pack(view: Any, name: str) -> Path:
    """Press a button that makes a file, and get what the browser saves."""
    with view.expect_download() as download:
        view.get_by_role("button", name=name).click()
    return Path(download.value.path())


def test_the_page_asks_nobody_else_and_fits_a_phone(browser: Any, page: Page) -> None:
    hosts: set[str] = set()
    with tab(browser, page) as view:
        view.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
        view.reload()
        view.get_by_role("button", name="Edit the clip").wait_for()
        view.wait_for_timeout(1500)
        playwright_api.expect(view.get_by_text("Edit only people who agreed.")).to_be_visible()
        for kind, name, label, engine in (
            ("text", "Text", "#text", "Built-in looks"),
            ("style", "Image style", "#style", "Built-in style transfer"),
            ("tryon", "Try-on", "#garment", "Built-in try-on"),
            ("relight", "Relighting", "#light", "Built-in relighting"),
        ):
            view.get_by_role("tab", name=name).click()
            playwright_api.expect(view.locator(label)).to_be_visible()
            playwright_api.expect(view.locator(f"#engine-{kind} input")).to_have_value(engine)
            playwright_api.expect(
                view.locator(".gallery button, button.gallery-item, .gallery-item").first
            ).to_be_attached()
            playwright_api.expect(view.locator(f"#reset-{kind}")).to_be_visible()
            playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_have_count(1)
    assert hosts <= {"127.0.0.1", ""}
    with tab(browser, page, viewport={"width": 390, "height": 844}) as view:
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "no sideways scroll on a phone"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser: Any, page: Page, scheme: str) -> None:
    page.pipeline.failure = InputError("No face was found. Show the face.")
    with tab(browser, page, color_scheme=scheme) as view:
        upload(view, page.clip)
        edit(view)
        status(view).to_contain_text("No face was found.")
        view.wait_for_timeout(500)
        for name in ("Image style", "Try-on", "Relighting", "Text"):
            view.get_by_role("tab", name=name).click()
            contrasts = view.evaluate(CONTRAST, [*READ, "#status .bad"])
            assert len(contrasts) > 30
            assert {key: value for key, value in contrasts.items() if value < 4.5} == {}
        dark = view.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in re.findall(r"\d+", dark)[:3]) < 200) == (scheme == "dark")


def test_the_first_look_shows_face_crop_and_cost(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        view.locator("#clip input[type=file]").set_input_files(str(CLIP))
        about = playwright_api.expect(view.locator("#about"))
        about.to_contain_text("512 × 512, 3.0 s used")
        about.to_contain_text("One face in view.")
        about.to_contain_text("to learn the clip, once")
        playwright_api.expect(view.locator("#look img")).to_be_visible()
        seconds = view.get_by_role("spinbutton", name="Seconds of the clip to use")
        seconds.fill("2")
        seconds.blur()
        about.to_contain_text("2.0 s used,")


def test_a_part_of_the_clip_is_chosen(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        view.locator("#clip input[type=file]").set_input_files(str(CLIP))
        about = playwright_api.expect(view.locator("#about"))
        about.to_contain_text("3.0 s used,")
        start = view.get_by_role("spinbutton", name="Start at second")
        assert start.get_attribute("max") == "2.9"
        start.fill("1")
        start.blur()
        about.to_contain_text("2.0 s used from 1.0 s on")
        view.locator("#clip video").evaluate("video => { video.currentTime = 0.52 }")
        view.get_by_role("button", name="Start at the picture").click()
        about.to_contain_text("2.5 s used from 0.5 s on")
        playwright_api.expect(start).to_have_value("0.5")
        view.get_by_test_id("video").get_by_role("button", name="Clear").click()
        upload(view, page.clip)
        playwright_api.expect(start).to_have_value("0")
        start.fill("0.5")
        start.blur()
        view.get_by_role("button", name="Advanced").click()
        view.get_by_label("Say in a corner of the picture").check()
        edit(view)
        view.locator(".player .after").wait_for()
        assert page.pipeline.calls[0][2]["start"] == 0.5
        assert page.pipeline.calls[1][2]["mark"] is True
        view.wait_for_function("document.querySelector('.player .after').readyState >= 1")
        view.get_by_role("slider", name="Place in the clip").fill("0.3")
        view.wait_for_function("document.querySelector('.player .before').currentTime > 0.6")
        assert abs(play_time(view, "before") - 0.5 - play_time(view, "after")) < 0.1


def test_what_is_known_of_an_earlier_clip_does_not_come_back(
    browser: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, late = inspection.inspect, threading.Event()

    def slow(path: Path, info: ClipInfo) -> inspection.Inspection:
        if info.start:
            late.set()
            time.sleep(4)
        return look(path, info)

    monkeypatch.setattr(inspection, "inspect", slow)
    with tab(browser, page) as view:
        view.locator("#clip input[type=file]").set_input_files(str(CLIP))
        about = playwright_api.expect(view.locator("#about"))
        about.to_contain_text("3.0 s used,")
        start = view.get_by_role("spinbutton", name="Start at second")
        start.fill("1")
        start.blur()
        assert late.wait(WAIT / 1000)
        view.get_by_test_id("video").get_by_role("button", name="Clear").click()
        upload(view, page.clip)
        view.wait_for_timeout(5000)
        about.not_to_contain_text("from 1.0 s on")


def test_a_stored_example_shows_its_result_at_once(browser: Any, page: Page) -> None:
    row = next(row for row in app.stored_examples() if row["kind"] == "relight")
    with tab(browser, page) as view:
        asked: list[Any] = []
        view.route("**/queue/join*", lambda route: asked.append(route))  # the server answers nothing until the end
        view.locator("#shelf").get_by_role("button", name=row["name"].capitalize()).click()  # and its picture's name
        playwright_api.expect(view.locator(".player .before")).to_be_visible()
        status(view).to_contain_text("A stored result")
        playwright_api.expect(view.locator("#light textarea")).to_have_value(row["text"])
        view.wait_for_function("document.querySelector('.player .after').readyState >= 2")
        assert page.pipeline.calls == []
        for route in asked:
            route.continue_()
        view.unroute("**/queue/join*")
        view.get_by_role("button", name="Edit the clip").click()
        status(view).to_contain_text("Done in")
    assert page.pipeline.calls[0][1][0].read_bytes() == Path(row["clip"]).read_bytes()


def test_a_stored_picture_is_in_the_form(browser: Any, page: Page) -> None:
    row = next(row for row in app.stored_examples() if row["kind"] == "style")
    with tab(browser, page) as view:
        view.locator("#shelf").get_by_role("button", name=row["name"].capitalize()).click()
        view.wait_for_function("document.querySelector('#style img')?.naturalWidth > 100")
        view.get_by_role("button", name="Edit the clip").click()
        status(view).to_contain_text("Done in")
    assert page.pipeline.calls[-1][2]["request"].picture.read_bytes() == Path(row["picture"]).read_bytes()


def test_a_screen_reader_hears_each_stage_once(browser: Any, page: Page) -> None:
    page.pipeline.pause, page.pipeline.steps = 0.6, 6
    with tab(browser, page) as view:
        view.evaluate(
            "() => { window.heard = []; const told = document.querySelector('[role=status]#spoken');"
            "new MutationObserver(() => heard.push(told.textContent)).observe(told, {childList: true}) }"
        )
        upload(view, page.other_clip)
        edit(view)
        status(view).to_contain_text("Done in")
        playwright_api.expect(view.locator("#spoken")).to_contain_text("Done in")
        heard = view.evaluate("heard")
    assert not any("%" in line for line in heard)
    assert heard.count("Learning the person in 3D") == heard.count("Carrying the edit over to every frame") == 1


def test_reset_gives_the_form_back(browser: Any, page: Page) -> None:
    with tab(browser, page) as view:
        view.get_by_label("Instruction").fill("give him red hair")
        strength = view.get_by_role("spinbutton", name="Strength")
        strength.fill("0.5")
        strength.blur()
        view.locator("#reset-text").click()
        playwright_api.expect(view.get_by_label("Instruction")).to_have_value("")
        playwright_api.expect(strength).to_have_value("1")


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
        status(view).to_contain_text("Your latest result of the last hour.")
        playwright_api.expect(view.locator(".player .after")).to_be_visible()
        playwright_api.expect(view.locator("#earlier button.thumbnail-item")).to_have_count(1)
        edit(view, "make the hair dark blue")
        status(view).to_contain_text("Done in")
    assert len({folder.parent for folder in page.pipeline.folders("edit")}) == 1
    with tab(browser, page) as stranger:
        stranger.wait_for_timeout(1500)
        playwright_api.expect(stranger.locator(".player")).to_have_count(0)


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
