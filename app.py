"""The page: ``python app.py`` serves it at http://localhost:7860. Layout and wiring; the work is in `portraitgen`."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import spaces  # isort: skip  # before anything that could start CUDA, which ZeroGPU demands

import contextlib
import html
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from portraitgen import weights
from portraitgen.editors import ENGINES, EditRequest
from portraitgen.errors import InputError
from portraitgen.kernels import compile_in_background
from portraitgen.progress import Progress
from portraitgen.sessions import (
    TEXT_LIMIT,
    Job,
    Session,
    close_session,
    gpu_seconds,
    make_edit,
    make_job,
    make_render,
    open_session,
)
from portraitgen.storage import explain_os_error
from portraitgen.wording import (
    BACKGROUNDS,
    BROKEN,
    CLIP_HINT,
    COLOUR_HINT,
    ENGINE_HINT,
    ENGINE_NAMES,
    FIRST,
    INTRODUCTION,
    LIGHT_HINT,
    LIGHTS,
    PRESET_CHOICES,
    STAGE_LABELS,
    STOPPED,
    STOPPING,
    STORED,
    TEXT_HINT,
    TITLE,
    WAITING,
    note,
    spell,
)

EXAMPLES = Path(__file__).parent / "examples"
STYLE = Path(__file__).with_name("page.css")
STARTERS = 6  # buttons that start a job: one for each tab, to learn the clip, to turn the camera
PAGE_SECONDS = 10  # how much of a clip the page uses unless told otherwise


@spaces.GPU(duration=gpu_seconds)
def compute(job: Job) -> Iterator[Progress]:
    """Run one job from its clip; what an earlier job of the session has finished is not done again."""
    from portraitgen import pipeline

    yield from pipeline.reconstruct(job.clip, job.portrait, preset=job.preset, max_seconds=job.max_seconds)
    if job.verb == "edit":
        yield from pipeline.edit(job.source, job.output, preset=job.preset, **job.options)
    elif job.verb == "render":
        yield from pipeline.render(job.source, job.output, **job.options)


def wait_in_browser() -> str:
    """JavaScript that shows at once that a job waits, and lets it be stopped."""
    update = "{__type__: 'update', interactive: %s}"
    return f"() => [{json.dumps(note(WAITING))}, {', '.join([update % 'false'] * STARTERS)}, {update % 'true'}]"


def screen(status: Any, session: Session, running: bool, *, result: Any = None, preview: Any = None) -> tuple[Any, ...]:
    """Values of ``result, status, preview``, the buttons that start jobs, ``stop, session``, in that order."""
    starters = [gr.Button(interactive=not running) for _ in range(STARTERS)]
    return result, status, preview, *starters, gr.Button(interactive=running), session


def stopped(session: Session) -> tuple[Any, ...]:
    """What the page shows after a stop, once the queue has let go of the job; a run started sooner would be lost."""
    time.sleep(1)
    return screen(note(STOPPED), session, False)[:-1]


def drive(session: Session, prepare: Callable[[Session], Job]) -> Iterator[tuple[Any, ...]]:
    """Run one job for one visitor, yielding what the page shows; a stop takes effect at the next yield.

    Raises:
        gr.Error: with one clear sentence, after showing the same sentence in the message area.
    """
    begin = time.monotonic()
    cause: Exception | None
    try:
        session = open_session(session or Session())
        job = prepare(session)
        yield screen(note("Starting", job.notice, value=0.0), session, True)
        latest: Any = None
        remarks: tuple[str, ...] = ()
        shown = -1.0
        for step in compute(job):
            latest = step.preview if step.preview is not None else latest
            remarks = step.notes or remarks
            now = time.monotonic()
            if now - shown < 0.4 and step.fraction < 1:
                continue
            shown = now
            place = job.stages.index(step.stage) if step.stage in job.stages else 0
            message = f"{STAGE_LABELS.get(step.stage, step.stage)}: {step.fraction:.0%}"
            more = f"Step {place + 1} of {len(job.stages)}, {spell(now - begin)} so far. {step.message}"
            status = note(message, more, job.notice, value=(place + step.fraction) / len(job.stages))
            yield screen(status, session, True, preview=latest)
        if job.verb == "edit":
            session = replace(session, edited=str(job.options["save"]))
        done = note(f"Done in {spell(time.monotonic() - begin)}.", job.notice, *remarks)
        yield screen(done, session, False, result=str(job.output))
        return
    except InputError as error:
        message, cause = str(error), None
    except gr.Error as error:  # ZeroGPU's own, about quota for example
        message, cause = str(error.message), None
    except Exception as error:
        message, cause = explain_os_error(error) if isinstance(error, OSError) else BROKEN, error
    yield screen(note(message, bad=True), session, False)
    raise gr.Error(html.escape(message), print_exception=cause is not None, title="Not done") from cause


def reconstruct(clip: str | None, preset: str, max_seconds: float, session: Session) -> Iterator[tuple[Any, ...]]:
    """Learn the person in a clip, so that later edits of it in this session skip that part.

    Args:
        clip: a video of one person.
        preset: preview, standard or high.
        max_seconds: use only the first seconds of the clip.

    Returns:
        Status as HTML, and the latest picture of the reconstruction.
    """
    for view in drive(session, lambda own: make_job(clip, preset, max_seconds, own)):
        yield view[1:]


def wanted(
    request: EditRequest,
    clip: str | None,
    preset: str,
    max_seconds: float,
    background: str,
    behind: str | None,
    again: bool,
) -> Callable[[Session], Job]:
    """What makes the job of an edit for a visitor."""
    scene = background or "auto"
    return lambda own: make_edit(
        make_job(clip, preset, max_seconds, own), own, request, scene, behind=behind or "", again=again
    )


def edit_text(
    clip: str | None,
    text: str,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    max_seconds: float,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Edit a portrait clip by an instruction.

    Args:
        clip: a video of one person.
        text: what to change, such as "turn her into a bronze statue".
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        max_seconds: use only the first seconds of the clip.
        again: go on from this session's last result instead of the clip.
        engine: auto, builtin, instruct-pix2pix or flux2-klein.
        behind: a picture to put behind the person instead.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    wish = EditRequest("text", text or "", engine=engine, strength=strength, seed=int(seed or 0))
    prepare = wanted(wish, clip, preset, max_seconds, background, behind, again)
    yield from drive(session, prepare)


def edit_style(
    clip: str | None,
    style: str | None,
    keep_colors: bool,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    max_seconds: float,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Edit a portrait clip by a style picture: the person takes on its colours and brushwork.

    Args:
        clip: a video of one person.
        style: a painting or any other picture.
        keep_colors: take the brushwork only.
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        max_seconds: use only the first seconds of the clip.
        again: go on from this session's last result instead of the clip.
        engine: auto, builtin or gatys.
        behind: a picture to put behind the person instead.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    wish = EditRequest(
        "style",
        picture=(style and Path(style)) or None,
        keep_colors=keep_colors,
        engine=engine,
        strength=strength,
        seed=int(seed or 0),
    )
    prepare = wanted(wish, clip, preset, max_seconds, background, behind, again)
    yield from drive(session, prepare)


def edit_tryon(
    clip: str | None,
    garment: str | None,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    max_seconds: float,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Dress the person in a garment.

    Args:
        clip: a video of one person.
        garment: a photo of a top, dress, shirt or jacket, lying flat or worn.
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        max_seconds: use only the first seconds of the clip.
        again: go on from this session's last result instead of the clip.
        engine: auto, builtin or fashn-vton.
        behind: a picture to put behind the person instead.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    wish = EditRequest(
        "tryon", picture=(garment and Path(garment)) or None, engine=engine, strength=strength, seed=int(seed or 0)
    )
    prepare = wanted(wish, clip, preset, max_seconds, background, behind, again)
    yield from drive(session, prepare)


def edit_relight(
    clip: str | None,
    light: str,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    max_seconds: float,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
    light_picture: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Light a portrait clip anew.

    Args:
        clip: a video of one person.
        light: a description, such as "warm sunset from the left".
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        max_seconds: use only the first seconds of the clip.
        again: go on from this session's last result instead of the clip.
        engine: auto, builtin or ic-light.
        behind: a picture to put behind the person instead.
        light_picture: a picture to take the light from, instead of or besides the words.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    wish = EditRequest(
        "relight",
        light or "",
        (light_picture and Path(light_picture)) or None,
        engine=engine,
        strength=strength,
        seed=int(seed or 0),
    )
    prepare = wanted(wish, clip, preset, max_seconds, background, behind, again)
    yield from drive(session, prepare)


def render(
    clip: str | None, preset: str, max_seconds: float, yaw: float, pitch: float, orbit: bool, session: Session
) -> Iterator[tuple[Any, ...]]:
    """Look at the person from another side: the latest edit of this session, or the clip itself.

    Args:
        clip: a video of one person.
        preset: preview, standard or high.
        max_seconds: use only the first seconds of the clip.
        yaw: turn of the camera to the side, in degrees.
        pitch: turn of the camera up or down, in degrees.
        orbit: swing the camera around the person instead.

    Returns:
        The rendered clip, status as HTML, and the latest picture while it works.
    """
    options = {"yaw": 0.0, "pitch": 0.0, "orbit": True} if orbit else {"yaw": yaw, "pitch": pitch, "orbit": False}

    def prepare(own: Session) -> Job:
        job = make_job(clip, preset, max_seconds, own)
        return make_render(job, own, view="crop", background="white", **options)

    yield from drive(session, prepare)


def inspect_clip(clip: str | None, max_seconds: float) -> str:
    """Say at once what an uploaded clip is, or what is wrong with it."""
    if not clip:
        return note(CLIP_HINT)
    from portraitgen.clip import probe

    try:
        info = probe(Path(clip), max_seconds=max_seconds)
    except (InputError, OSError) as error:
        return note(explain_os_error(error) if isinstance(error, OSError) else str(error), bad=True)
    sound = "with sound" if info.has_audio else "without sound"
    return note(
        f"{info.width} × {info.height}, {info.duration:.1f} s, {float(info.rate):.3g} frames a second, {sound}."
    )


def stored_examples() -> list[dict[str, str]]:
    """Stored clips with their stored results, as far as their files are here."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        rows = json.loads((EXAMPLES / "examples.json").read_text("utf-8"))
        for row in rows:
            row.update({key: str(EXAMPLES / row[key]) for key in ("clip", "result", "picture") if key in row})
        return [row for row in rows if Path(row["clip"]).is_file() and Path(row["result"]).is_file()]
    return []


def engines(kind: str) -> list[tuple[str, str]]:
    """Engines for one kind of edit that this machine can run, as (name shown, name), the one to use first."""
    here = [name for name in ENGINES[kind] if weights.ready(name)]
    has_gpu = bool(os.environ.get("SPACES_ZERO_GPU")) or shutil.which("nvidia-smi") is not None
    shown = [(ENGINE_NAMES.get(name, ENGINE_NAMES[kind]), name) for name in here]
    return shown[1:] + shown[:1] if has_gpu else shown


def picture(label: str, name: str) -> gr.Image:
    """A place for a picture, handed on as its path: what is wrong with it is said by `portraitgen.editors.pictures`."""
    place = gr.Image(
        label=label, sources=["upload", "clipboard"], type="filepath", height=220, elem_id=name, buttons=[]
    )
    place.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return place


def build() -> gr.Blocks:
    """Lay the page out and wire it."""
    from portraitgen.editors.catalogue import capabilities

    heavy: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1, "show_progress": "hidden"}
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        session = gr.State(Session(), delete_callback=close_session)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown("## 1. Your clip")
                clip = gr.Video(label="Clip", sources=["upload", "webcam"], height=360, elem_id="clip", buttons=[])
                about = gr.HTML(note(CLIP_HINT), elem_id="about", elem_classes="note")
                shelf = gr.Row(visible=bool(stored_examples()))
                gr.Markdown("## 2. The change")
                tabs: dict[str, gr.Tab] = {}
                engine: dict[str, gr.Dropdown] = {}
                with gr.Tabs() as changes:
                    with gr.Tab("Text", id="text") as tabs["text"]:
                        text = gr.Textbox(
                            label="Instruction", placeholder=TEXT_HINT, lines=2, max_length=TEXT_LIMIT, elem_id="text"
                        )
                        samples = {row["name"]: [row["example"]] for row in capabilities()}
                        gr.Examples([samples[name] for name in FIRST if name in samples], [text], label="For example")
                        with gr.Accordion("Everything the built-in looks can do", open=False):
                            gr.Examples(list(samples.values()), [text], label="Pick one", examples_per_page=30)
                        engine["text"] = choose_engine_of("text")
                    with gr.Tab("Image style", id="style") as tabs["style"]:
                        style = picture("Style picture", "style")
                        gr.Examples(sorted(map(str, (EXAMPLES / "styles").glob("*"))), [style], label="For example")
                        keep_colors = gr.Checkbox(False, label="Keep the clip's colours, take the brushwork only")
                        engine["style"] = choose_engine_of("style")
                    with gr.Tab("Try-on", id="tryon") as tabs["tryon"]:
                        garment = picture("Garment photo", "garment")
                        gr.Examples(sorted(map(str, (EXAMPLES / "garments").glob("*"))), [garment], label="For example")
                        engine["tryon"] = choose_engine_of("tryon")
                    with gr.Tab("Relighting", id="relight") as tabs["relight"]:
                        light = gr.Textbox(
                            label="Light", placeholder=LIGHT_HINT, lines=2, max_length=TEXT_LIMIT, elem_id="light"
                        )
                        gr.Examples([[line] for line in LIGHTS], [light], label="For example")
                        with gr.Accordion("Or take the light of a picture", open=False):
                            light_picture = picture("Picture with the light", "light-picture")
                        engine["relight"] = choose_engine_of("relight")
                strength = gr.Slider(0, 1, 1, step=0.05, label="Strength")
                preset = gr.Radio(PRESET_CHOICES, value="preview", label="Quality")
                background = gr.Dropdown(
                    BACKGROUNDS, value="auto", label="Background", info=COLOUR_HINT, allow_custom_value=True
                )
                again = gr.Checkbox(False, label="Go on from the last result")
                with gr.Accordion("Advanced", open=False):
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                    max_seconds = gr.Slider(1, 60, PAGE_SECONDS, step=1, label="Seconds of the clip to use")
                    behind = picture("Picture to put behind the person", "behind")
                    learn = gr.Button("Learn the clip now, edit later", size="sm")
                with gr.Row():
                    runs = [
                        gr.Button(
                            "Edit the clip",
                            variant="primary",
                            elem_id=f"run-{kind}",
                            visible="hidden" if number else True,
                        )
                        for number, kind in enumerate(tabs)
                    ]
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            with gr.Column(min_width=300):
                gr.Markdown("## 3. The result")
                result = gr.Video(label="Result", interactive=False, height=360, elem_id="result", buttons=[])
                status = gr.HTML(note("The result will appear here."), elem_id="status", elem_classes="note")
                preview = gr.Image(
                    label="Work in progress", interactive=False, height=320, elem_id="preview", buttons=[]
                )
                download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
                with gr.Accordion("Look from another side", open=False):
                    yaw = gr.Slider(-40, 40, 0, step=1, label="Turn to the side, degrees")
                    pitch = gr.Slider(-20, 20, 0, step=1, label="Turn up or down, degrees")
                    orbit = gr.Checkbox(False, label="Swing around the person instead")
                    turn = gr.Button("Render this view")

        asked = [clip, preset, max_seconds]
        shown = [result, status, preview, *runs, learn, turn, stop, session]
        settings = [strength, preset, background, seed, max_seconds, again]
        # Before each job's own event and in the browser itself, for the queue says nothing while a job waits in it.
        for button in (*runs, learn, turn):
            button.click(None, None, [status, *shown[3:-1]], js=wait_in_browser(), api_visibility="private")
        wishes: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
            "text": (edit_text, [text], [behind]),
            "style": (edit_style, [style, keep_colors], [behind]),
            "tryon": (edit_tryon, [garment], [behind]),
            "relight": (edit_relight, [light], [behind, light_picture]),
        }
        jobs: list[Any] = [
            learn.click(reconstruct, [*asked, session], shown[1:], api_name="reconstruct", **heavy),
            turn.click(render, [*asked, yaw, pitch, orbit, session], shown, api_name="render", **heavy),
        ]
        for number, (run, (kind, (work, own, optional))) in enumerate(zip(runs, wishes.items(), strict=True)):
            inputs = [clip, *own, *settings, engine[kind], session, *optional]
            jobs.append(run.click(work, inputs, shown, api_name=f"edit_{kind}", **heavy))
            only = ", ".join(
                f"{{__type__: 'update', visible: {'true' if i == number else '`hidden`'}}}" for i in range(4)
            )
            tabs[kind].select(None, None, runs, js=f"() => [{only}]", api_visibility="private")
        stopping = stop.click(lambda: note(STOPPING), None, status, cancels=jobs, queue=False, **quiet)
        stopping.then(stopped, session, shown[:-1], queue=False, **quiet)
        result.change(lambda path: gr.DownloadButton(value=path, interactive=bool(path)), result, download, **quiet)
        # Weights may have arrived since the page was built.
        demo.load(
            lambda: [gr.Dropdown(engines(kind)) for kind in engine], None, list(engine.values()), queue=False, **quiet
        )
        for trigger in (clip.change, max_seconds.release):
            trigger(inspect_clip, [clip, max_seconds], about, **quiet)
        with shelf:
            fields = {"text": text, "style": style, "tryon": garment, "relight": light}
            for row in stored_examples():
                wish = row["picture"] if row["kind"] in ("style", "tryon") else row["text"]
                shows = (row["clip"], wish, row["result"], note(STORED), gr.Tabs(selected=row["kind"]))
                button = gr.Button(row["name"], size="sm")
                button.click(
                    lambda shows=shows: shows, None, [clip, fields[row["kind"]], result, status, changes], **quiet
                )
    return demo.queue(max_size=20)


def choose_engine_of(kind: str) -> gr.Dropdown:
    """The choice of an engine; with one only, its name."""
    return gr.Dropdown(engines(kind), label="Engine in use", info=ENGINE_HINT, elem_id=f"engine-{kind}")


def launch_options() -> dict[str, Any]:
    """Options of ``launch``: look, limits on files, nothing recorded."""
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return {
        "theme": gr.themes.Soft(primary_hue="teal", neutral_hue="slate", **fonts),
        "css_paths": STYLE,
        "max_file_size": "200mb",
        "allowed_paths": [str(EXAMPLES)],
        "blocked_paths": [str(weights.ROOT)],
        "run_history": False,
        "footer_links": ["api", "settings"],
        "show_error": True,
    }


def fetch_weights() -> None:
    """Fetch what ``PORTRAITGEN_FETCH`` names and say in the log how far it is; the page works with the built-in engines meanwhile."""
    try:
        for step in weights.fetching(weights.wanted_at_start()):
            print(step, flush=True)
    except InputError as error:
        print(f"Weights: {error} The built-in engines stand in.", flush=True)


if __name__ == "__main__":
    # ZeroGPU's cards are known; others build for themselves at their first use.
    compile_in_background(("cpu", 120) if os.environ.get("SPACES_ZERO_GPU") else ("cpu",))
    threading.Thread(target=fetch_weights, name="weights", daemon=True).start()
    build().launch(**launch_options())
