"""Lines that the page shows by itself: what is fetched while the app starts, what an edit takes of a shared GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from browsing import NEEDED, open_advanced, playwright_api, tab

import app
import page_handlers
import page_notices
from page_notices import Arrivals
from portraitgen import sessions, weights, wording
from portraitgen.errors import InputError
from portraitgen.weights import Fetching

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `show_arrivals` wires: the handlers of a visit and of the timer, and the timer itself."""
    wired: dict[str, Any] = {"arrivals": Arrivals()}

    real = gr.Timer

    def timer(*arguments: Any, **options: Any) -> gr.Timer:
        made = real(*arguments, **options)
        made.tick = lambda work, *_, **__: wired.update(timer=made, tick=work)  # type: ignore[attr-defined]
        return made

    monkeypatch.setattr(page_notices.gr, "Timer", timer)
    with gr.Blocks() as page:
        page.load = lambda work, *_, **options: wired.update(load=work)  # type: ignore[method-assign, assignment, misc]
        lists = {kind: gr.Dropdown(page_handlers.engines(kind)) for kind in ("text", "relight")}
        page_notices.show_arrivals(page, wired["arrivals"], gr.HTML(), lists)
    return wired


def test_a_download_is_shown_while_it_runs_and_no_longer(
    looks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals, step, go_on = looks["arrivals"], threading.Event(), threading.Event()

    def fetching(names: list[str]) -> Iterator[Fetching]:
        yield Fetching("ic-light", 34_000_000, 1_719_200_000)
        yield Fetching("instruct-pix2pix", 725_560_000, 2_134_000_000)
        step.set()
        assert go_on.wait(60)

    monkeypatch.setattr(weights, "wanted_at_start", list)
    monkeypatch.setattr(weights, "fetching", fetching)
    assert looks["timer"].active is False
    timer, line, *_ = looks["load"]()
    assert (timer.active, line.visible) == (False, False), "nobody asks again where nothing is fetched"
    thread = threading.Thread(target=arrivals.fetch)
    thread.start()
    assert step.wait(60)
    for look in (looks["load"], looks["tick"]):
        timer, line, *lists = look()
        assert (timer.active, line.visible) == (True, True)
        assert "Fetching InstructPix2Pix, 34 % of 2.1 GB; the built-in engines work meanwhile." in line.value
    go_on.set()
    thread.join()
    timer, line, *lists = looks["tick"]()
    assert (timer.active, line.visible) == (False, False)
    assert lists[0].choices[0][1] == "builtin"
    assert all("value" not in place.constructor_args for place in lists), "what a visitor has chosen stays"
    for place in looks["load"]()[2:]:
        assert "value" not in place.constructor_args, "whoever has chosen before the answer comes keeps it"


def test_an_engine_that_came_first_since_the_start_is_chosen(
    looks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_handlers, "has_gpu", lambda: True)
    monkeypatch.setattr(page_handlers.weights, "ready", lambda name: True)
    assert [place.value for place in looks["load"]()[2:]] == ["instruct-pix2pix", "ic-light"]


def test_a_download_that_fails_ends_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> list[str]:
        raise InputError("PORTRAITGEN_FETCH is wrong.")

    monkeypatch.setattr(weights, "wanted_at_start", refuse)
    arrivals = Arrivals()
    arrivals.fetch()
    assert (arrivals.running, arrivals.line()) == (False, "")
    assert capsys.readouterr().out == "Weights: PORTRAITGEN_FETCH is wrong. The built-in engines stand in.\n"


def test_weights_without_an_engine_go_by_their_own_name() -> None:
    assert wording.describe_fetching("vgg16", 0, 553_500_000).startswith("Fetching vgg16, 0 % of 554 MB;")


class TestInABrowser:
    pytestmark = NEEDED

    def test_the_price_beside_an_engine_follows_the_quality(
        self, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPACES_ZERO_GPU", "true")
        monkeypatch.setattr(sessions, "ROOT", tmp_path / "sessions")
        demo = app.build()
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
        try:
            with tab(browser, SimpleNamespace(url=url)) as view:  # type: ignore[arg-type]
                view.locator("#clip input[type=file]").set_input_files(str(CLIP))
                price = playwright_api.expect(view.locator("#price-text"))
                price.to_contain_text("s to learn the clip, once, and")
                preview = view.locator("#price-text").inner_text()
                playwright_api.expect(view.locator("#about")).not_to_contain_text("share of GPU time")
                open_advanced(view)
                view.get_by_label("High").check()
                price.not_to_have_text(preview)
                price.to_contain_text("s to learn the clip, once, and")
                view.get_by_role("tab", name="Relighting").click()
                relight = playwright_api.expect(view.locator("#price-relight"))
                relight.to_contain_text("s to learn the clip, once, and")
        finally:
            demo.close()

    def test_an_open_page_follows_a_download_and_then_asks_no_more(self, browser: Any) -> None:
        arrivals = Arrivals()
        arrivals.running, arrivals.latest = True, Fetching("instruct-pix2pix", 0, 2_134_000_000)
        demo = app.build(arrivals)
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
        try:
            with tab(browser, SimpleNamespace(url=url)) as view:  # type: ignore[arg-type]
                line = playwright_api.expect(view.locator("#arriving"))
                line.to_contain_text("Fetching InstructPix2Pix, 0 % of 2.1 GB")
                arrivals.latest = Fetching("instruct-pix2pix", 1_067_000_000, 2_134_000_000)
                line.to_contain_text("50 % of 2.1 GB; the built-in engines work meanwhile.")
                arrivals.running, arrivals.latest = False, None
                line.to_be_hidden()
                time.sleep(1)
                asked: list[str] = []
                view.on("request", lambda request: asked.append(request.url))
                view.wait_for_timeout(5000)
                assert [address for address in asked if "run/" in address or "queue/join" in address] == []
        finally:
            demo.close()
