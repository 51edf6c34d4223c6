"""The page: ``python app.py`` serves it at http://localhost:7860. Layout and wiring; what buttons do is in `page_handlers`."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from portraitgen.cores import usable_cores

os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))  # before the libraries are loaded that read it

import spaces  # isort: skip  # noqa: F401  # before anything that could start CUDA, which ZeroGPU demands

import contextlib
import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

import page_endpoints as endpoints
import page_handlers as handlers
from page_browser import (
    NOT_OWN,
    forget_in_browser,
    free_in_browser,
    refuse_in_browser,
    update,
    wait_in_browser,
    wire_browser,
)
from page_notices import Arrivals, show_arrivals, show_prices
from page_tabs import EXAMPLES, build_tabs, picture
from page_theme import theme
from portraitgen import weights
from portraitgen.kernels import compile_in_background
from portraitgen.limits import MAX_MEGABYTES, MAX_SECONDS, MAX_SEED, MAX_START
from portraitgen.sessions import MAX_AGE, ROOT, SWEPT_EVERY, Session, close_session
from portraitgen.sweeping import every, shown_always, sweep_files, sweep_folders
from portraitgen.wording import (
    AGAIN,
    BACKGROUNDS,
    CLIP_HINT,
    COLOUR_HINT,
    CONSENT,
    EMPTY_RESULT,
    EXPORTS,
    GUIDANCE_HINT,
    HEADINGS,
    INTRODUCTION,
    KEY_FRAMES_HINT,
    LABELS,
    LOOK_LABEL,
    MARK,
    OWN_MACHINE,
    PRESET_CHOICES,
    SECONDS,
    START,
    START_HERE,
    STOPPING,
    STORED,
    STORED_HINT,
    TITLE,
    note,
)

HERE = Path(__file__).parent
PAGE_SECONDS = 10  # how much of a clip the page uses unless told otherwise
FILES = ("clip", "result", "poster")  # of a stored example
KINDS = ("text", "style", "tryon", "relight")
HEAVY: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1, "show_progress": "hidden"}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# On a phone gradio hides the link before the dot, not the dot; what page.css says reaches no footer.
NO_DOT = "<style>@media (width <= 640px) { footer .divider { display: none; } }</style>"
EMPTY = f'<p class="empty">{EMPTY_RESULT}</p>'


def stored_examples() -> list[dict[str, str]]:
    """Stored clips with their stored results, as far as their files are here."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        rows = json.loads((EXAMPLES / "examples.json").read_text("utf-8"))
        for row in rows:
            row.update({key: str(EXAMPLES / row[key]) for key in ("clip", "result", "poster", "picture") if key in row})
        return [row for row in rows if row["kind"] in KINDS and all(Path(row[k]).is_file() for k in FILES)]
    return []


def at_hand(place: Any, path: str) -> dict[str, Any]:
    """A file of the page's own as the browser holds files: showing it there asks nothing of the server but the file."""
    cached = place.move_resource_to_block_cache(path)
    place.keep_in_cache.add(cached)
    kept: dict[str, Any] = FileData(path=cached, orig_name=Path(path).name).model_dump()
    return kept


def build(arrivals: Arrivals | None = None) -> gr.Blocks:
    """Lay the page out and wire it; ``arrivals`` is what is fetched meanwhile, if anything."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEPT_EVERY, MAX_AGE)) as demo:
        session = gr.State(Session(), delete_callback=close_session)
        visit = gr.BrowserState("", storage_key="portraitgen-visit")
        with gr.Column(elem_id="opening"):
            gr.Markdown(INTRODUCTION)
            if os.environ.get("SPACE_ID"):
                gr.Markdown(OWN_MACHINE.format(space=os.environ["SPACE_ID"]))
        with gr.Row(elem_id="steps"):
            with gr.Column(min_width=300):
                gr.Markdown(HEADINGS[0])
                gr.Markdown(CONSENT, elem_id="consent")
                clip = gr.Video(
                    label=LABELS["clip"], sources=["upload", "webcam"], height=320, elem_id="clip", buttons=[]
                )
                too_large = gr.Button(visible="hidden", elem_id="too-large")
                about = gr.HTML(note(CLIP_HINT), padding=False, elem_id="about", elem_classes="note")
                look = gr.Image(label=LOOK_LABEL, interactive=False, height=250, elem_id="look", buttons=[])
                with gr.Row():
                    start = gr.Slider(
                        0, MAX_START, 0, step=0.1, label=START, min_width=240, interactive=False, elem_id="start"
                    )
                    max_seconds = gr.Slider(
                        1, MAX_SECONDS, PAGE_SECONDS, step=1, label=SECONDS, min_width=240, elem_id="seconds"
                    )
                here = gr.Button(START_HERE, size="sm")
                with gr.Column(visible=bool(stored_examples()), elem_id="shelf"):
                    gr.Markdown(STORED_HINT)
                    shelf = gr.Row()
                gr.Markdown(HEADINGS[1])
                arriving = gr.HTML("", visible=False, padding=False, elem_id="arriving", elem_classes="note")
                tabs, own, engine, reset, price = build_tabs()
                strength = gr.Slider(0, 1, 1, step=0.05, label=LABELS["strength"])
                background = gr.Dropdown(
                    BACKGROUNDS, value="auto", label=LABELS["background"], info=COLOUR_HINT, allow_custom_value=True
                )
                again = gr.Checkbox(False, label=AGAIN, visible=False, elem_id="again")
                with gr.Accordion(LABELS["advanced"], open=False):
                    preset = gr.Radio(PRESET_CHOICES, value="preview", label=LABELS["quality"])
                    with gr.Row():
                        seed = gr.Number(
                            0,
                            label=LABELS["seed"],
                            precision=0,
                            minimum=0,
                            maximum=MAX_SEED,
                            min_width=90,
                            elem_id="seed",
                        )
                        # Out of range is answered by `editors.check_request`, which says it better than gradio.
                        key_frames = gr.Number(
                            0, label=LABELS["key_frames"], info=KEY_FRAMES_HINT, precision=0, min_width=90
                        )
                        guidance = gr.Number(0, label=LABELS["guidance"], info=GUIDANCE_HINT, min_width=160)
                    seed.preprocess = lambda payload: payload  # type: ignore[method-assign]  # `make_edit` says what is wrong
                    mark = gr.Checkbox(False, label=MARK)
                    behind = picture(LABELS["behind"], "behind")
                    learn = gr.Button(LABELS["learn"], size="sm")
                with gr.Row(elem_id="go"):
                    runs = [
                        gr.Button(
                            LABELS["run"],
                            variant="primary",
                            scale=3,
                            elem_id=f"run-{kind}",
                            visible="hidden" if number else True,
                        )
                        for number, kind in enumerate(KINDS)
                    ]
                    stop = gr.Button(
                        LABELS["stop"], variant="stop", interactive=False, scale=1, min_width=90, elem_id="stop"
                    )
            with gr.Column(min_width=300, elem_id="outcome"):
                gr.Markdown(HEADINGS[2])
                status = gr.HTML("", padding=False, elem_id="status", elem_classes="note")
                preview = gr.Image(
                    label=LABELS["preview"], interactive=False, height=350, elem_id="preview", buttons=[]
                )
                player = gr.HTML(EMPTY, padding=False, elem_id="player")
                result = gr.Video(interactive=False, visible="hidden", elem_id="result")  # of a job, for programs
                pair = gr.File(visible="hidden", file_count="multiple", elem_id="pair")
                made = gr.File(visible="hidden", elem_id="made")
                views = gr.File(visible="hidden", elem_id="views")
                with gr.Row(elem_id="after"):
                    onward = gr.Button(LABELS["onward"], size="sm", visible=False, elem_id="onward")
                    download = gr.DownloadButton(LABELS["download"], size="sm", visible=False, elem_id="download")
                with gr.Column(visible=False, elem_id="more") as more:
                    with gr.Accordion(LABELS["views"], open=False):
                        table = gr.HTML("", padding=False, elem_id="table")
                        around = gr.Button(LABELS["around"], size="sm")
                        yaw = gr.Slider(-40, 40, 0, step=1, label=LABELS["yaw"])
                        pitch = gr.Slider(-20, 20, 0, step=1, label=LABELS["pitch"])
                        orbit = gr.Checkbox(False, label=LABELS["orbit"])
                        turn = gr.Button(LABELS["turn"], size="sm")
                    with gr.Accordion(LABELS["take"], open=False), gr.Row():
                        packs = {
                            what: gr.Button(name, size="sm", min_width=140, elem_id=f"pack-{what}")
                            for what, name in EXPORTS.items()
                        }
                earlier = gr.Gallery(
                    label=LABELS["earlier"],
                    visible=False,
                    interactive=False,
                    allow_preview=False,
                    columns=4,
                    height="auto",
                    object_fit="cover",
                    buttons=[],
                    elem_id="earlier",
                )

        asked = [clip, preset, start, max_seconds]
        starters = [*runs, learn, turn, around, *packs.values()]
        shown = [result, status, preview]
        settings = [strength, preset, background, seed, start, max_seconds, mark, again]
        # Before each job's own event and in the browser itself, for the queue says nothing while a job waits in it.
        for button in starters:
            button.click(None, None, [status, *starters, stop], js=wait_in_browser(), api_visibility="private")
        wishes: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
            "text": (endpoints.edit_text, own["text"], [behind]),
            "style": (endpoints.edit_style, own["style"], [behind]),
            "tryon": (endpoints.edit_tryon, own["tryon"], [behind]),
            "relight": (endpoints.edit_relight, own["relight"][:1], [behind, *own["relight"][1:]]),
        }
        jobs: list[Any] = [
            learn.click(endpoints.reconstruct, [*asked, session], shown[1:], api_name="reconstruct", **HEAVY),
            turn.click(endpoints.render, [*asked, yaw, pitch, orbit, mark, session], shown, api_name="render", **HEAVY),
        ]
        for number, (go, (kind, (work, mine, optional))) in enumerate(zip(runs, wishes.items(), strict=True)):
            inputs = [clip, *mine, *settings, engine[kind], session, *optional, key_frames, guidance]
            jobs.append(go.click(work, inputs, shown, api_name=f"edit_{kind}", **HEAVY))
            only = ", ".join(update(visible=True if i == number else "hidden") for i in range(len(KINDS)))
            tabs[kind].select(None, None, runs, js=f"() => [{only}]", api_visibility="private")
            fresh = [*own[kind], strength, preset, background, seed, mark, again, behind, key_frames, guidance]
            values = json.dumps([getattr(place, "value", None) for place in fresh])
            reset[kind].click(None, None, fresh, js=f"() => {values}", api_visibility="private")
        private = {**HEAVY, "api_visibility": "private"}
        for what, button in (*packs.items(), ("views", around)):
            place = views if what == "views" else made
            work = functools.partial(handlers.export, what)
            jobs.append(button.click(work, [mark, session], [place, *shown[1:]], **private))
        stopping = stop.click(lambda: note(STOPPING), None, status, cancels=jobs, queue=False, **QUIET)
        halted = stopping.then(handlers.stopped, None, [status, preview], queue=False, **QUIET)
        for over in (*jobs, halted):
            over.then(None, None, [*starters, stop], js=free_in_browser(), api_visibility="private")
        owned = [again, more, onward]
        belongings = [visit, earlier, pair, *owned]
        for job in jobs:
            job.failure(None, status, [status, *starters, stop], js=refuse_in_browser(), api_visibility="private")
            job.then(handlers.after, session, belongings, queue=False, **QUIET)
        brought = [clip, start, max_seconds, preset, pair, status, *owned]
        earlier.select(None, None, None, js="() => portraitgen.elsewhere()", api_visibility="private")
        earlier.select(handlers.pick, session, brought, queue=False, **QUIET)
        wire_browser(pair, player, download, made, views, table, onward, again, too_large, about)
        for trigger in forget_in_browser(clip, learn, pair, views, status, owned):
            trigger(handlers.forget, session, None, queue=False, **QUIET)
        demo.load(handlers.resume, [visit, session], [clip, status, *belongings], queue=False, **QUIET)
        show_arrivals(demo, arrivals or Arrivals(), arriving, engine)
        # One after the other, so that what was asked last is answered last.
        now: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_id": "look", "concurrency_limit": 1, **QUIET}
        clip.change(
            handlers.look_anew, [clip, max_seconds, preset, session], [about, look, start, max_seconds, preset], **now
        )
        moved = here.click(None, None, start, js="() => portraitgen.moment('clip')", api_visibility="private")
        for trigger in (start.release, max_seconds.release, preset.input, moved.then):
            asked_of = [clip, start, max_seconds, preset, session]
            trigger(handlers.look_at, asked_of, [about, look], js="(...all) => portraitgen.within(...all)", **now)
        if handlers.shares_gpu():
            moves: list[Any] = [
                clip.change,
                start.release,
                max_seconds.release,
                preset.input,
                key_frames.input,
                moved.then,
            ]
            moves += [job.then for job in jobs]
            show_prices(moves, [clip, start, max_seconds, preset, key_frames, session], engine, price)
        with shelf:
            for row in stored_examples():
                form = own[row["kind"]][0]
                wish = at_hand(form, row["picture"]) if row["kind"] in ("style", "tryon") else row["text"]
                films = [at_hand(place, row[name]) for place, name in ((clip, "clip"), (pair, "result"))]
                answer = json.dumps([films[0], wish, films, note(row["name"], STORED)])
                # The tab is no output of that event: gradio 6.31 does not draw tabs that are one.
                show = (
                    f"() => {{ portraitgen.elsewhere(); portraitgen.choose('kinds', {KINDS.index(row['kind'])});"
                    f" return [...portraitgen.found({answer}), {NOT_OWN}] }}"
                )
                button = gr.Button(row["name"].capitalize(), icon=row["poster"], size="sm", min_width=80)
                button.click(None, None, [clip, form, pair, status, *owned], js=show, api_visibility="private")
                button.click(handlers.forget, session, None, queue=False, **QUIET)
    return demo.queue(max_size=20)


def launch_options() -> dict[str, Any]:
    """Options of ``launch``: look, limits on files, nothing recorded."""
    return {
        "theme": theme(),
        "css_paths": HERE / "page.css",
        "head": f"<script>{(HERE / 'page.js').read_text('utf-8')}</script>{NO_DOT}",
        "max_file_size": f"{MAX_MEGABYTES}mb",
        "allowed_paths": [str(EXAMPLES)],
        "blocked_paths": [str(weights.ROOT)],
        "run_history": False,
        "footer_links": ["api", "settings"],
        "show_error": True,
    }


def warm_up(page: gr.Blocks) -> None:
    """Import what the first look at a clip needs, while the visitor still chooses one; not before the page is served, which it would delay.

    Where a GPU is lent, all that is done there too: its workers are forked off this process, and their seconds count.
    """
    while not page.is_running:
        time.sleep(0.05)
    import mediapipe.python.solutions.face_mesh  # noqa: F401

    import portraitgen.landmarks  # noqa: F401

    if handlers.shares_gpu():
        from portraitgen.pipeline import load_for_editing, load_for_learning

        load_for_learning()
        load_for_editing()


def sweep(page: gr.Blocks) -> None:
    """Delete what visitors left, of their own folders and of gradio's copies, once it is old."""
    sweep_folders(ROOT, MAX_AGE)
    copies = os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    sweep_files(Path(copies), MAX_AGE, shown_always(page))


if __name__ == "__main__":
    # ZeroGPU's cards are known; others build for themselves at their first use.
    compile_in_background(("cpu", 120) if handlers.shares_gpu() else ("cpu",))
    arrivals = Arrivals()
    threading.Thread(target=arrivals.fetch, name="weights", daemon=True).start()
    page = build(arrivals)
    threading.Thread(target=warm_up, args=(page,), name="warm-up", daemon=True).start()
    every(SWEPT_EVERY, lambda: sweep(page))
    page.launch(**launch_options())
