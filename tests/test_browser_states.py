"""Every state of the page, wide and narrow, light and dark: nothing sticks out, no picture is missing. Keeps pictures of all to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import NEEDED, PICTURES, edit, playwright_api, status, tab
from serving import Page

from portraitgen.errors import InputError

pytestmark = NEEDED
CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"
# Visible controls and pictures that reach out of the window (slides of a strip may), and pictures that did not load.
WRONG = """() => {
    const strip = (e) => e.closest(".tab-wrapper, .tab-container, .overflow-menu, .gallery, .table-wrap");
    const name = (e) => `${e.tagName} ${e.id || e.className} ${(e.innerText || "").slice(0, 30)}`;
    const all = [...document.querySelectorAll("button, input, textarea, img, video, p, h1, h2")];
    const shown = all.filter((e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }));
    const boxes = shown.map((e) => [e, e.getBoundingClientRect()]).filter(([, box]) => box.width > 1);
    const out = boxes.filter(([e, box]) => !strip(e) && (box.left < -1 || box.right > innerWidth + 1));
    const broken = shown.filter((e) => e.tagName == "IMG" && e.complete && !e.naturalWidth);
    const wide = document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [];
    return [...wide, ...out.map(([e]) => name(e)), ...broken.map((e) => `broken ${name(e)}`)];
}"""


@pytest.mark.parametrize(
    ("device", "width", "scheme"),
    [("desktop", 1440, "light"), ("phone", 390, "light"), ("phone-dark", 390, "dark"), ("dark", 1440, "dark")],
)
def test_no_state_of_the_page_sticks_out(browser: Any, page: Page, device: str, width: int, scheme: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    height = 844 if width == 390 else 1000
    with tab(browser, page, viewport={"width": width, "height": height}, color_scheme=scheme) as view:

        def judge(state: str) -> None:
            view.wait_for_function("[...document.images].every((e) => e.complete || !e.checkVisibility())")
            view.wait_for_timeout(400)
            view.screenshot(path=PICTURES / f"{state}-{device}.png", full_page=True)
            assert view.evaluate(WRONG) == [], state

        judge("empty")
        view.locator("#clip input[type=file]").set_input_files(str(CLIP))
        playwright_api.expect(view.locator("#about")).to_contain_text("to learn the clip, once")
        judge("clip")
        for name in ("Image style", "Try-on", "Relighting", "Text"):
            view.get_by_role("tab", name=name).click()
            judge(name.lower().replace(" ", "-"))
        page.pipeline.pause, page.pipeline.steps = 0.5, 60
        edit(view)
        playwright_api.expect(view.locator("#preview img")).to_be_visible()
        judge("working")
        view.get_by_role("button", name="Stop").click()
        playwright_api.expect(view.get_by_role("button", name="Edit the clip")).to_be_enabled()
        page.pipeline.pause, page.pipeline.steps = 0.0, 2
        page.pipeline.result = CLIP.with_name("portrait_bronze.mp4").read_bytes()
        edit(view)
        view.locator(".player .after").wait_for()
        status(view).to_contain_text("Done in")
        for name in ("Look from all sides", "Take it with you"):
            view.get_by_role("button", name=name).click()
        judge("result")
        page.pipeline.failure = InputError("No face was found at 0.4 s. Show the face from the front.")
        edit(view)
        status(view).to_contain_text("No face was found at 0.4 s.")
        judge("error")
