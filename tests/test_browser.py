"""The page in a real Chromium, as a person finds it and chooses a clip, with a stand-in for the pipeline."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import NEEDED, WAIT, edit, open_advanced, play_time, playwright_api, status, tab, upload
from serving import Page

import app
from portraitgen import inspection
from portraitgen.clip import ClipInfo
from portraitgen.errors import InputError

pytestmark = NEEDED
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
        assert not view.locator("footer").inner_text().strip().startswith("·")


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
        open_advanced(view)
        view.get_by_label("Say in a corner of the picture").check()
        edit(view)
        view.locator(".player .after").wait_for()
        assert page.pipeline.calls[0][2]["start"] == 0.5
        assert page.pipeline.calls[1][2]["mark"] is True
        view.wait_for_function("document.querySelector('.player .after')?.readyState >= 1")
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
        view.wait_for_function("document.querySelector('.player .after')?.readyState >= 2")
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
        open_advanced(view)
        finer = [view.get_by_role("spinbutton", name=name) for name in ("Key frames", "Guidance")]
        for field in finer:
            playwright_api.expect(field).to_have_value("0")
            field.fill("5")
        view.locator("#reset-text").click()
        for field in finer:
            playwright_api.expect(field).to_have_value("0")
        playwright_api.expect(view.get_by_label("Instruction")).to_have_value("")
        playwright_api.expect(strength).to_have_value("1")
