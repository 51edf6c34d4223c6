"""What happens in the browser alone, by JavaScript of page.js: it shows at once, whatever the server is busy with."""

from __future__ import annotations

import json
from typing import Any

from portraitgen.sessions import VIEWS
from portraitgen.wording import PLAYER, QUEUE_FULL, REFUSED, TOO_LARGE, WAITING, note


def update(**changes: Any) -> str:
    """JavaScript of gradio's word for changes of a part of the page."""
    return json.dumps({"__type__": "update", **changes})


STARTERS = 11  # buttons that start a job: one for each tab, learn, turn, look around, and four to take a file away


def buttons(running: bool) -> str:
    """JavaScript values of the buttons that start jobs, and of the one that stops them."""
    return ", ".join([update(interactive=not running)] * STARTERS + [update(interactive=running)])


def wait_in_browser() -> str:
    """JavaScript that shows at once that a job waits, and lets it be stopped."""
    return f"() => {{ portraitgen.begin(); return [{json.dumps(note(WAITING))}, {buttons(True)}] }}"


def free_in_browser() -> str:
    """JavaScript for a job that is over."""
    return f"() => [{buttons(False)}]"


def refuse_in_browser() -> str:
    """JavaScript for a job that the server did not even begin: says so, unless the message area says why, and frees the buttons."""
    words = {"waiting": note(WAITING), "full": note(QUEUE_FULL, bad=True), "other": note(REFUSED, bad=True)}
    return f"(shown) => [portraitgen.refused(shown, {json.dumps(words)}), {buttons(False)}]"


NOT_OWN = f"{update(value=False, visible=False)}, {update(visible=False)}, {update(visible=False)}"  # of `mine`


def forget_in_browser(clip: Any, learn: Any, pair: Any, views: Any, status: Any, owned: list[Any]) -> tuple[Any, ...]:
    """Put a result away that is of the clip before, and what can be done with it; returns the events at which the server forgets it too."""
    chosen = clip.input, clip.stop_recording
    for trigger in chosen:
        emptied = f"() => {{ portraitgen.elsewhere(); return [null, null, '', {NOT_OWN}] }}"
        trigger(None, None, [pair, views, status, *owned], js=emptied, api_visibility="private")
    # The clip may be learned anew, in another quality.
    learn.click(None, pair, views, js=f"(shown) => shown?.length ? {update()} : null", api_visibility="private")
    return chosen


def wire_browser(
    pair: Any,
    player: Any,
    download: Any,
    made: Any,
    views: Any,
    table: Any,
    onward: Any,
    again: Any,
    too_large: Any,
    about: Any,
) -> None:
    """What happens in the browser alone, by page.js: the player, the turntable, saving a file, going on from a result, refusing a file."""
    words = json.dumps(PLAYER)
    # Views of the result before go, but not where one of them was rendered large.
    taken = "{ ...$, value: pair?.at(-1) ?? null, visible: Boolean(pair?.length) }".replace("$", update())
    views_too = f"portraitgen.turned(pair) ? {update()} : null"
    anew = f"[portraitgen.player(pair, {words}), {taken}, {views_too}]"
    show = f"(pair) => portraitgen.same(pair) ? [{', '.join([update()] * 3)}] : {anew}"
    pair.change(None, pair, [player, download, views], js=show, api_visibility="private")
    views.change(
        None, views, table, js=f"(strip) => portraitgen.turntable(strip, {VIEWS}, {words})", api_visibility="private"
    )
    made.change(None, made, None, js="(file) => { portraitgen.save(file) }", api_visibility="private")
    onward.click(None, None, again, js="() => { portraitgen.reveal('go'); return true }", api_visibility="private")
    large = f"() => {json.dumps(note(TOO_LARGE, bad=True))}"
    too_large.click(None, None, about, js=large, api_visibility="private")
