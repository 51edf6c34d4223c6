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
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from portraitgen import weights
from portraitgen.__main__ import PRESETS, explain_os_error
from portraitgen.editors import EditRequest
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

TITLE = "PortraitGen"
INTRODUCTION = """# PortraitGen
Upload a portrait clip, say what to change, and get the clip back: same person, same expressions, same sound.

**Edit only people who agreed.** Your clip stays on this machine and is deleted about an hour after you leave."""
CLIP_HINT = "One person, face in view, 3 to 10 seconds. Steady light and a still camera work best."
COMING = {
    "style": "Image style comes next: upload a painting or a picture, and the person takes on its colours and strokes.",
    "tryon": "Try-on comes next: upload a picture of a garment, and the person wears it through the whole clip.",
    "relight": "Relighting comes next: describe the light, as in “sunset from the left”, and the clip is lit that way.",
}
STAGE_LABELS = {
    "clip": "Reading the clip",
    "tracking": "Following head and shoulders",
    "matting": "Cutting out the person",
    "reconstruction": "Learning the person in 3D",
    "edit": "Editing key pictures",
    "fitting": "Carrying the edit over to every frame",
    "render": "Rendering the clip",
}
PRESET_CHOICES = [("Preview (fastest)" if name == "preview" else name.capitalize(), name) for name in PRESETS]
BACKGROUNDS = [("Original", "original"), ("White", "white"), ("Green", "green")]
ENGINE_NAMES = {"builtin": "Built-in looks", "instruct-pix2pix": "InstructPix2Pix"}
TEXT_HINT = "turn her into a bronze statue"
COLOUR_HINT = "or type a colour such as #203040"
ENGINE_HINT = "InstructPix2Pix appears once its weights are fetched"
STORED = "A stored result, made earlier with this instruction."
WAITING = "Waiting to start."
STOPPING = "Stopping."
STOPPED = "Stopped. Run it again to go on."
BROKEN = "Something broke on our side. Run it again; if it happens again, try another clip."

EXAMPLES = Path(__file__).parent / "examples"
STYLE = Path(__file__).with_name("page.css")
FIRST = ("bronze", "blonde hair", "3d cartoon", "pencil", "sunset", "red clothes", "style 19: starry night", "zombie")
PAGE_SECONDS = 10  # how much of a clip the page uses unless told otherwise


@spaces.GPU(duration=gpu_seconds)
def compute(job: Job) -> Iterator[Progress]:
    """Run one job from its clip; what an earlier job of the session has finished is not done again."""
    from portraitgen import pipeline

    yield from pipeline.reconstruct(job.clip, job.portrait, preset=job.preset, max_seconds=job.max_seconds)
    if job.verb == "edit":
        yield from pipeline.edit(job.portrait, job.output, preset=job.preset, **job.options)
    elif job.verb == "render":
        yield from pipeline.render(job.source, job.output, **job.options)


def note(message: str, *more: str, bad: bool = False, value: float | None = None) -> str:
    """HTML of the message area; every word is escaped."""
    kind = ' class="bad" role="alert"' if bad else ""
    bar = "" if value is None else f'<progress max="1" value="{value:.3f}" aria-label="Whole job"></progress>'
    rest = "".join(f'<p class="more">{html.escape(line)}</p>' for line in more if line)
    return f"<p{kind}>{html.escape(message)}</p>{bar}{rest}"


def wait_in_browser() -> str:
    """JavaScript that shows at once that a job waits, and lets it be stopped."""
    update = "{__type__: 'update', interactive: %s}"
    return f"() => [{json.dumps(note(WAITING))}, {', '.join([update % 'false'] * 3)}, {update % 'true'}]"


def spell(seconds: float) -> str:
    """A length of time in words: ``"42 s"``, ``"3 min 5 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def screen(status: Any, session: Session, running: bool, *, result: Any = None, preview: Any = None) -> tuple[Any, ...]:
    """Values of ``result, status, preview, run, learn, turn, stop, session``, in that order."""
    starters = [gr.Button(interactive=not running) for _ in range(3)]
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


def edit_text(
    clip: str | None,
    text: str,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    max_seconds: float,
    engine: str,
    session: Session,
) -> Iterator[tuple[Any, ...]]:
    """Edit a portrait clip by an instruction.

    Args:
        clip: a video of one person.
        text: what to change, such as "turn her into a bronze statue".
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: original, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        max_seconds: use only the first seconds of the clip.
        engine: builtin or instruct-pix2pix.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """

    def prepare(own: Session) -> Job:
        job = make_job(clip, preset, max_seconds, own)
        request = EditRequest("text", text or "", engine=engine, strength=strength, seed=int(seed or 0))
        return make_edit(job, own, request, background or "original")

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


def edit_style(clip: str, style: str) -> str:
    """Edit a portrait clip by a style picture (comes next)."""
    raise gr.Error(COMING["style"], print_exception=False)


def edit_tryon(clip: str, garment: str) -> str:
    """Dress the person in a garment from a picture (comes next)."""
    raise gr.Error(COMING["tryon"], print_exception=False)


def edit_relight(clip: str, light: str) -> str:
    """Light the clip anew by a description (comes next)."""
    raise gr.Error(COMING["relight"], print_exception=False)


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
        listed = json.loads((EXAMPLES / "examples.json").read_text("utf-8"))
        rows = [{**row, "clip": str(EXAMPLES / row["clip"]), "result": str(EXAMPLES / row["result"])} for row in listed]
        return [row for row in rows if Path(row["clip"]).is_file() and Path(row["result"]).is_file()]
    return []


def engines() -> list[tuple[str, str]]:
    """Engines this machine can run, as (name shown, name), the one to use first."""
    here = ["builtin"] + (["instruct-pix2pix"] if weights.path("instruct-pix2pix") else [])
    has_gpu = bool(os.environ.get("SPACES_ZERO_GPU")) or shutil.which("nvidia-smi") is not None
    return [(ENGINE_NAMES[name], name) for name in (reversed(here) if has_gpu else here)]


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
                with gr.Tabs():
                    with gr.Tab("Text"):
                        text = gr.Textbox(
                            label="Instruction", placeholder=TEXT_HINT, lines=2, max_length=TEXT_LIMIT, elem_id="text"
                        )
                        samples = {row["name"]: [row["example"]] for row in capabilities()}
                        gr.Examples([samples[name] for name in FIRST if name in samples], [text], label="For example")
                        with gr.Accordion("Everything the built-in looks can do", open=False):
                            gr.Examples(list(samples.values()), [text], label="Pick one", examples_per_page=30)
                        strength = gr.Slider(0, 1, 1, step=0.05, label="Strength")
                        preset = gr.Radio(PRESET_CHOICES, value="preview", label="Quality")
                        with gr.Row():
                            background = gr.Dropdown(
                                BACKGROUNDS,
                                value="original",
                                label="Background",
                                info=COLOUR_HINT,
                                allow_custom_value=True,
                            )
                            engine = gr.Dropdown(engines(), label="Engine in use", info=ENGINE_HINT, elem_id="engine")
                        with gr.Accordion("Advanced", open=False):
                            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                            max_seconds = gr.Slider(1, 60, PAGE_SECONDS, step=1, label="Seconds of the clip to use")
                            learn = gr.Button("Learn the clip now, edit later", size="sm")
                        with gr.Row():
                            run = gr.Button("Edit the clip", variant="primary", elem_id="run")
                            stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                    for name, key in (("Image style", "style"), ("Try-on", "tryon"), ("Relighting", "relight")):
                        with gr.Tab(name):
                            gr.Markdown(COMING[key])
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
        wish = [clip, text, strength, preset, background, seed, max_seconds, engine, session]
        shown = [result, status, preview, run, learn, turn, stop, session]
        # Before each job's own event and in the browser itself, for the queue says nothing while a job waits in it.
        for button in (run, learn, turn):
            button.click(None, None, [status, *shown[3:7]], js=wait_in_browser(), api_visibility="private")
        jobs: list[Any] = [
            run.click(edit_text, wish, shown, api_name="edit_text", **heavy),
            learn.click(reconstruct, [*asked, session], shown[1:], api_name="reconstruct", **heavy),
            turn.click(render, [*asked, yaw, pitch, orbit, session], shown, api_name="render", **heavy),
        ]
        stopping = stop.click(lambda: note(STOPPING), None, status, cancels=jobs, queue=False, **quiet)
        stopping.then(stopped, session, shown[:-1], queue=False, **quiet)
        result.change(lambda path: gr.DownloadButton(value=path, interactive=bool(path)), result, download, **quiet)
        for trigger in (clip.change, max_seconds.release):
            trigger(inspect_clip, [clip, max_seconds], about, **quiet)
        with shelf:
            for row in stored_examples():
                stored = (row["clip"], row["text"], row["result"], note(STORED))
                button = gr.Button(f"Stored example: {row['text']}", size="sm")
                button.click(lambda stored=stored: stored, None, [clip, text, result, status], **quiet)
        for function in (edit_style, edit_tryon, edit_relight):
            gr.api(function, api_name=function.__name__, queue=False)
    return demo.queue(max_size=20)


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


if __name__ == "__main__":
    # ZeroGPU's cards are known; others build for themselves at their first use.
    compile_in_background(("cpu", 120) if os.environ.get("SPACES_ZERO_GPU") else ("cpu",))
    build().launch(**launch_options())
