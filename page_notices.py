"""Lines that the page shows by itself: what is being fetched while the app starts, and what an edit takes of a shared GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from page_handlers import engines, too_long
from portraitgen import weights
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.lending import PRICE, gpu_calls, reserved_seconds
from portraitgen.sessions import Session, make_job
from portraitgen.weights import Fetching
from portraitgen.wording import describe_fetching, describe_price, note

_EVERY = 2.0  # seconds between two looks of a page at what is being fetched


class Arrivals:
    """What is fetched while the app starts; the thread that fetches writes it, every open page reads it.

    Attributes:
        running: whether there may be news; no page looks again once there is not.
        latest: how far the download is.
    """

    def __init__(self) -> None:
        self.running = False
        self.latest: Fetching | None = None

    def fetch(self) -> None:
        """Fetch what ``PORTRAITGEN_FETCH`` names and say in the log how far it is; the built-in engines work meanwhile."""
        self.running = True
        try:
            for self.latest in weights.fetching(weights.wanted_at_start()):
                print(self.latest, flush=True)
        except InputError as error:
            print(f"Weights: {error} The built-in engines stand in.", flush=True)
        finally:
            self.running, self.latest = False, None

    def line(self) -> str:
        """How far it is, as HTML; empty when nothing is fetched."""
        return note(describe_fetching(latest.name, latest.done, latest.total)) if (latest := self.latest) else ""


def show_arrivals(page: gr.Blocks, arrivals: Arrivals, line: Any, lists: dict[str, gr.Dropdown]) -> None:
    """Keep ``line`` and the ``lists`` of engines, one of each kind, as things are: at each visit, and while there is a download."""
    timer = gr.Timer(_EVERY, active=False)
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    places = [timer, line, *lists.values()]
    built = {kind: place.value for kind, place in lists.items()}

    def look(arriving: bool) -> list[Any]:
        """What each place shows; the engine that a visitor has chosen stays, and a new one begins with what came first since the start."""
        running, text = arrivals.running, arrivals.line()
        now = gr.Timer(active=running), gr.HTML(text, visible=bool(text))
        if not arriving and running:
            return [*now, *(gr.skip() for _ in lists)]
        offers = {kind: engines(kind) for kind in lists}
        first = {kind: rows[0][1] for kind, rows in offers.items()}
        newer = [kind for kind in lists if arriving and first[kind] != built[kind]]
        values: dict[str, dict[str, Any]] = {kind: {"value": first[kind]} if kind in newer else {} for kind in lists}
        return [*now, *(gr.Dropdown(offers[kind], **values[kind]) for kind in lists)]

    page.load(lambda: look(True), None, places, **quiet)
    timer.tick(lambda: look(False), None, places, **quiet)


def show_prices(
    triggers: Sequence[Callable[..., Any]], inputs: list[Any], lists: dict[str, gr.Dropdown], places: dict[str, gr.HTML]
) -> None:
    """Keep ``places``, one of each kind of edit, saying what the engine chosen in ``lists`` takes; ``inputs`` are those of `prices`."""

    def look(*values: Any) -> list[str]:
        settings, names = values[: len(inputs)], values[len(inputs) :]
        told = prices(*settings, chosen=dict(zip(lists, names, strict=True)))
        return [told.get(kind, "") for kind in places]

    for trigger in (*triggers, *(place.input for place in lists.values())):
        trigger(
            look,
            [*inputs, *lists.values()],
            list(places.values()),
            trigger_mode="always_last",
            concurrency_id="price",
            concurrency_limit=1,
            api_visibility="private",
            show_progress="hidden",
        )


def prices(
    clip: str | None,
    start: float,
    max_seconds: float,
    preset: str,
    key_frames: float,
    session: Session,
    *,
    chosen: dict[str, str],
) -> dict[str, str]:
    """What an edit of the clip takes of a shared GPU by the engine ``chosen`` for each kind, as HTML, and whether it can be done there."""
    try:
        job = make_job(clip, preset, start, max_seconds, session or Session())
    except (InputError, OSError):  # which the look at the clip says
        return {}
    told = {}
    for kind, engine in chosen.items():
        request = EditRequest(kind, engine=engine, key_frames=int(key_frames) if key_frames else None)
        edit = replace(job, verb="edit", source=job.portrait, options={"request": request})
        warning = too_long(edit)
        reserved = [round(PRICE * reserved_seconds(call)) for call in gpu_calls(edit)]
        cost = describe_price(reserved)
        told[kind] = note(warning, cost, bad=True) if warning else note(cost)
    return told
