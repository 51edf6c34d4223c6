"""The four tabs of the page: what each kind of edit asks for, its examples, its engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

import page_handlers as handlers
from portraitgen.sessions import TEXT_LIMIT
from portraitgen.wording import ENGINE_HINT, FIRST, LABELS, LIGHT_HINT, LIGHTS, TEXT_HINT

EXAMPLES = Path(__file__).parent / "examples"


def picture(label: str, name: str) -> gr.Image:
    """A place for a picture, handed on as its path: what is wrong with it is said by `portraitgen.editors.pictures`."""
    place = gr.Image(
        label=label, sources=["upload", "clipboard"], type="filepath", height=200, elem_id=name, buttons=[]
    )
    place.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return place


def chips(samples: list[list[str]], place: Any, label: str = LABELS["samples"], **options: Any) -> None:
    """Buttons that fill a place in."""
    gr.Examples(samples, [place], label=label, api_visibility="private", **options)


def pictures_in(folder: str) -> list[list[str]]:
    """The project's own pictures in a folder of the examples."""
    return [[str(path)] for path in sorted((EXAMPLES / folder).glob("*.*"))]


def build_tabs() -> tuple[
    dict[str, gr.Tab], dict[str, list[Any]], dict[str, gr.Dropdown], dict[str, gr.Button], dict[str, gr.HTML]
]:
    """The four kinds of edit: by kind its tab, what it asks for, its engine, its reset, its price."""
    from portraitgen.editors.catalogue import capabilities

    tabs: dict[str, gr.Tab] = {}
    own: dict[str, list[Any]] = {}
    engine: dict[str, gr.Dropdown] = {}
    reset: dict[str, gr.Button] = {}
    price: dict[str, gr.HTML] = {}

    def foot(kind: str) -> None:
        with gr.Row(equal_height=True, elem_classes="foot"):
            engine[kind] = gr.Dropdown(
                handlers.engines(kind), label=LABELS["engine"], info=ENGINE_HINT, elem_id=f"engine-{kind}", scale=4
            )
            # Programs may also say "auto", or name what came later: `page_handlers.offered` answers what cannot be.
            engine[kind].preprocess = lambda payload: payload  # type: ignore[method-assign]
            reset[kind] = gr.Button(LABELS["reset"], size="sm", scale=1, min_width=90, elem_id=f"reset-{kind}")
        price[kind] = gr.HTML(
            "", visible=handlers.shares_gpu(), padding=False, elem_id=f"price-{kind}", elem_classes="note"
        )

    with gr.Tabs(elem_id="kinds"):
        with gr.Tab(LABELS["tab_text"], id="text") as tabs["text"]:
            words = gr.Textbox(
                label=LABELS["text"], placeholder=TEXT_HINT, lines=2, max_length=TEXT_LIMIT, elem_id="text"
            )
            samples = {row["name"]: [row["example"]] for row in capabilities()}
            chips([samples[name] for name in FIRST if name in samples], words)
            with gr.Accordion(LABELS["all_looks"], open=False):
                chips(list(samples.values()), words, LABELS["pick"], examples_per_page=30)
            own["text"] = [words]
            foot("text")
        with gr.Tab(LABELS["tab_style"], id="style") as tabs["style"]:
            style = picture(LABELS["style"], "style")
            chips(pictures_in("styles"), style)
            own["style"] = [style, gr.Checkbox(False, label=LABELS["keep_colours"])]
            foot("style")
        with gr.Tab(LABELS["tab_tryon"], id="tryon") as tabs["tryon"]:
            own["tryon"] = [picture(LABELS["garment"], "garment")]
            chips(pictures_in("garments"), own["tryon"][0])
            foot("tryon")
        with gr.Tab(LABELS["tab_relight"], id="relight") as tabs["relight"]:
            light = gr.Textbox(
                label=LABELS["light"], placeholder=LIGHT_HINT, lines=2, max_length=TEXT_LIMIT, elem_id="light"
            )
            chips([[line] for line in LIGHTS], light)
            with gr.Accordion(LABELS["light_of_picture"], open=False):
                own["relight"] = [light, picture(LABELS["light_picture"], "light-picture")]
            foot("relight")
    return tabs, own, engine, reset, price
