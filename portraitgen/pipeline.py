"""The jobs that the command line and the page share: reconstruct, edit, render, evaluate.

Each is a generator of `Progress`; closing it stops the job, and what is finished by then stays usable. Nothing appears at an output path
before it is whole.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .estimates import finished_stages, is_pending
from .progress import RECONSTRUCT_STAGES, Progress
from .stages import clip_stage, matting_stage, timed, tracking_stage
from .storage import check_output, check_writable
from .streaming import aside, steady

if TYPE_CHECKING:
    import torch

    from .backgrounds import Background
    from .editors import Editor, EditRequest
    from .portrait import Portrait

PRESETS = ("preview", "standard", "high")
BODIES = ("anny", "smplx")
VIEWS = ("frame", "crop")


@steady
def reconstruct(
    clip: Path,
    directory: Path,
    *,
    preset: str = "preview",
    body: str = "anny",
    holdout: float = 0.0,
    start: float = 0.0,
    max_seconds: float | None = None,
    device: str = "auto",
    seed: int = 0,
    until: str = "reconstruction",
) -> Iterator[Progress]:
    """Turn a clip into a portrait folder.

    A folder that holds an unfinished run of the same clip with the same settings is continued after its last finished stage.

    Args:
        clip: the video.
        directory: the portrait folder, new, empty or unfinished.
        preset: one of `PRESETS`.
        body: one of `BODIES`; "smplx" reads the person's own file, see `smplx_file.find_smplx`.
        holdout: fraction of the frames, at the end, in [0, 0.9], that is tracked but never trained on.
        start: use the clip from this second on.
        max_seconds: use only this much of it.
        device: "auto", "cpu" or "cuda".
        seed: of everything random; same seed, same machine, same result.
        until: "matting" to stop before the stage that wants a GPU; calling it again goes on from there.

    Raises:
        InputError: for anything that the person can put right; a folder that this run began is removed.
    """
    _check_choice("preset", preset, PRESETS)
    _check_choice("body", body, BODIES)
    if not 0 <= holdout <= 0.9:
        raise InputError(f"The held-out fraction is {holdout:g}, it must lie between 0 and 0.9.")
    if max_seconds is not None and max_seconds <= 0:
        raise InputError(f"The length to use is {max_seconds:g} seconds, it must be more than 0.")
    if not clip.is_file():
        raise InputError(f"There is no file {clip}. Check the path.")
    check_writable(directory)
    finished = finished_stages(directory)
    wanted = RECONSTRUCT_STAGES[: RECONSTRUCT_STAGES.index(until) + 1]
    if left := [stage for stage in wanted if stage not in finished]:
        yield Progress(left[0], 0.0, "Starting")
    aside(load_for_learning)

    from .body import load_body
    from .portrait import Portrait, Settings, file_sha256
    from .reconstruction import PRESETS as CONFIGS
    from .reconstruction import reconstruct as fit_avatar

    where = resolve_device(device)
    if body == "smplx":  # the person's own file: find out now, not after the clip's first pass, whether it can be used
        load_body(body)
    settings = Settings(file_sha256(clip), preset, body, holdout, max_seconds, seed, start)
    began = not Portrait.exists(directory)
    if began and directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty and holds no portrait. Choose a new folder.")
    try:
        if began:
            portrait = yield from clip_stage(clip, directory, settings)
        else:
            portrait = Portrait.load(directory)
            if portrait.settings != settings:
                raise InputError(
                    f"{directory} holds another portrait (other clip, part, preset, seed or hold-out). Choose a new folder."
                )
        if "tracking" not in portrait.stages:
            yield from timed(portrait, "tracking", tracking_stage(portrait))
        if "matting" not in portrait.stages:
            yield from timed(portrait, "matting", matting_stage(portrait))
        if until == "matting":
            return
        if "reconstruction" not in portrait.stages:
            config = CONFIGS[preset]
            yield from timed(portrait, "reconstruction", fit_avatar(portrait, portrait.tracking(), config, where))
    except InputError:
        if began:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    yield Progress(
        RECONSTRUCT_STAGES[-1],
        1.0,
        " ".join([f"Portrait ready in {directory}.", *portrait.notes]),
        notes=tuple(portrait.notes),
    )


@steady
def edit(
    source: Path,
    output: Path,
    *,
    request: EditRequest,
    preset: str = "preview",
    start: float = 0.0,
    max_seconds: float | None = None,
    background: str = "auto",
    device: str = "auto",
    save: Path | None = None,
    mark: bool = False,
    stand_in: bool = False,
) -> Iterator[Progress]:
    """Edit a portrait and write the whole clip, edited, with its sound.

    Args:
        source: a portrait folder, or a clip, which is then reconstructed in a temporary folder first.
        output: the mp4 to write; a webm if the background is transparent.
        request: what to do to it.
        preset: one of `PRESETS`.
        start, max_seconds: the part of a clip to use, as for `reconstruct`; a portrait folder has its own.
        background: "auto" (the clip's own, edited too if the request is about it), "original", "edited", "blur", "transparent", "white",
            "green", "#rrggbb" or a picture's path.
        device: "auto", "cpu" or "cuda".
        save: folder for the edited portrait, to render or to edit again. A run that was cut off has kept there how far it was, and the same
            edit goes on from that; another one takes its place.
        mark: draw "AI-edited" small in a corner; the file's tags say it in any case.
        stand_in: as for `settle_engine`.
    """
    _check_choice("preset", preset, PRESETS)
    yield Progress("edit", 0.0, "Starting")
    aside(load_for_editing)
    from .backgrounds import parse_background

    behind = parse_background(background)
    check_output(output, behind.suffix)
    if source.is_dir() and (start or max_seconds is not None):
        raise InputError(
            f"{source} is a portrait folder, whose part of its clip is settled. Leave start and length out."
        )
    if save is not None:
        check_writable(save)
        if save.exists() and any(save.iterdir()) and not is_pending(save):
            raise InputError(f"{save} is not empty. Choose a new folder for the edited portrait.")
    from .editors import load_editor
    from .engines import settle_engine
    from .smirk import at_hand

    where = resolve_device(device)
    request = yield from settle_engine(request, str(where), stand_in=stand_in)
    editor = aside(functools.partial(load_editor, request, str(where)))
    if editor.reads_render:
        aside(at_hand)  # the person's own file: find out now, not after the clip is learned, whether it can be used
    if source.is_file():
        with tempfile.TemporaryDirectory(prefix="portraitgen-") as folder:
            portrait_folder = Path(folder) / "portrait"
            part: dict[str, Any] = {"start": start, "max_seconds": max_seconds}
            yield from reconstruct(source, portrait_folder, preset=preset, device=device, seed=request.seed, **part)
            yield from _edit_portrait(portrait_folder, output, request, editor, behind, where, preset, save, mark)
    else:
        yield from _edit_portrait(source, output, request, editor, behind, where, preset, save, mark)


def _edit_portrait(
    source: Path,
    output: Path,
    request: EditRequest,
    editor: Editor,
    behind: Background,
    where: torch.device,
    preset: str,
    save: Path | None,
    mark: bool,
) -> Iterator[Progress]:
    """Edit a portrait folder, with everything about the request settled."""
    from .compositing import write_result
    from .editing import PRESETS as CONFIGS
    from .editing import edit_avatar, scene_edit
    from .portrait import Portrait
    from .provenance import EDITED, provenance
    from .reconstruction import load_fitted
    from .unfinished import begin_edit, end_edit

    portrait = Portrait.load(source)
    portrait.require("reconstruction")
    behind, kept = settle_scene(portrait, editor, behind)
    if kept:
        yield Progress("edit", 0.0, kept, notes=(kept,))
    started = time.perf_counter()
    K = portrait.tracking().K.to(where)
    edited = None if save is None else begin_edit(portrait, save, request, preset)
    if edited is not None and "edit" in edited.stages:
        fitted = load_fitted(edited, where)
    else:
        config = CONFIGS[preset]
        config = replace(config, key_frames=request.key_frames or config.key_frames)
        fitted = load_fitted(portrait, where)
        try:
            fitted = yield from edit_avatar(portrait, fitted, K, editor, config, request.strength, request.seed, edited)
        except InputError:
            if save is not None:
                shutil.rmtree(save, ignore_errors=True)
            raise
        portrait.stages["edit"] = round(time.perf_counter() - started, 3)
        if edited is not None:
            end_edit(edited, fitted, request, portrait.stages["edit"])
    rendering_started = time.perf_counter()
    earlier = portrait.edit_requests()
    # An editor may take seconds to make: not again where it would have nothing to do.
    on_scene = [request] if behind.scene == "edited" or editor.edits_background else []
    yield from write_result(
        portrait,
        fitted,
        K,
        output,
        view="frame",
        background=behind,
        edit_scene=scene_edit([*earlier, *on_scene], where, behind.scene),
        metadata=provenance([*earlier, request]),
        mark=EDITED if mark else "",
    )
    portrait.stages["render"] = round(time.perf_counter() - rendering_started, 3)
    portrait.save()
    if edited is not None:
        edited.pending = ""
        edited.finish("render", portrait.stages["render"])
    notes = (*portrait.notes, kept) if kept else tuple(portrait.notes)
    yield Progress("render", 1.0, f"Wrote {output}", notes=notes)


def settle_scene(portrait: Portrait, editor: Editor, behind: Background) -> tuple[Background, str]:
    """The background that an edit can have, and a sentence where that is another one than would be expected.

    An editor that starts from noise makes something else of every frame: of a scene it is given one picture, which must be all of it.

    Raises:
        InputError: the scene was to be edited, moves, and this editor edits only still ones.
    """
    from .backgrounds import stands_still
    from .mattes import clean_plate

    asked = behind.scene == "edited"
    if not editor.reads_render or not (asked or (behind.scene == "auto" and editor.edits_background)):
        return behind, ""
    if stands_still(portrait, clean_plate(portrait)):
        return behind, ""
    why = f"The scene moves, and {editor.name} edits only still ones."
    if asked:
        raise InputError(f"{why} Choose another background.")
    return replace(behind, scene="original"), f"{why} It stays as it is."


@steady
def render(
    directory: Path,
    output: Path,
    *,
    view: str = "frame",
    background: str = "auto",
    yaw: float = 0.0,
    pitch: float = 0.0,
    orbit: bool = False,
    device: str = "auto",
    mark: bool = False,
) -> Iterator[Progress]:
    """Render a portrait to a video with the clip's frames, rate and sound.

    Args:
        directory: a portrait folder.
        output: the mp4 to write; a webm if the background is transparent.
        view: "frame" for the clip's full frame, "crop" for the working crop.
        background: as for `edit`.
        yaw: turn of the camera about the head in degrees, in [-60, 60].
        pitch: in [-30, 30].
        orbit: swing the camera around the head while the clip plays; ``yaw`` and ``pitch`` are its middle.
        device: "auto", "cpu" or "cuda".
        mark: draw what this is ("AI-edited") small in a corner; the file's tags say it in any case.
    """
    _check_choice("view", view, VIEWS)
    if not (-60 <= yaw <= 60 and -30 <= pitch <= 30):
        raise InputError(
            f"The camera is turned by {yaw:g} and {pitch:g} degrees; keep yaw within 60 and pitch within 30."
        )
    yield Progress("render", 0.0, "Starting")
    aside(load_for_editing)
    from .backgrounds import parse_background
    from .compositing import write_result
    from .editing import scene_edit
    from .free_view import head_pivot, orbit_angles, orbit_viewmats, prepare_free_view
    from .portrait import Portrait
    from .provenance import EDITED, RENDERED, provenance
    from .reconstruction import load_fitted

    behind = parse_background(background)
    check_output(output, behind.suffix)
    portrait = Portrait.load(directory)
    portrait.require("reconstruction")
    where = resolve_device(device)
    fitted = load_fitted(portrait, where)
    viewmats = None
    if orbit or yaw or pitch:
        count = portrait.clip.frame_count
        swing = orbit_angles(count) if orbit else (np.zeros(count), np.zeros(count))
        viewmats = orbit_viewmats(head_pivot(fitted), swing[0] + yaw, swing[1] + pitch)
        prepare_free_view(portrait, fitted, portrait.tracking().K)
    done = portrait.edit_requests()
    change = scene_edit(done, where, behind.scene)
    K = portrait.tracking().K.to(where)
    yield from write_result(
        portrait,
        fitted,
        K,
        output,
        view=view,
        background=behind,
        viewmats=viewmats,
        edit_scene=change,
        metadata=provenance(done),
        mark=(EDITED if done else RENDERED) if mark else "",
    )
    yield Progress("render", 1.0, f"Wrote {output}", notes=tuple(portrait.notes))


def load_for_learning() -> None:
    """Import what turning a clip into a portrait takes, some seconds at the first use; nothing of it starts CUDA."""
    import mediapipe.python.solutions.face_mesh  # noqa: F401

    from . import _warp_mesh, _warp_rasterizer, landmarks, mattes, reconstruction, tracking  # noqa: F401


def load_for_editing() -> None:
    """Import what editing and rendering a portrait takes."""
    from . import compositing, editing  # noqa: F401


def evaluate(directory: Path, *, edited: Path | None = None, device: str = "auto") -> dict[str, Any]:
    """Measure a portrait against its clip and, if given, an edited video of it; see `portraitgen.evaluation`."""
    from .evaluation import evaluate_edit, evaluate_reconstruction
    from .portrait import Portrait

    portrait = Portrait.load(directory)
    portrait.require("reconstruction")
    if edited is not None:
        return evaluate_edit(portrait, edited)
    return evaluate_reconstruction(portrait, resolve_device(device))


def timings(directory: Path) -> dict[str, float]:
    """Seconds that each finished stage of a portrait took."""
    from .portrait import Portrait

    return dict(Portrait.load(directory).stages)


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: "auto" (CUDA where there is any), "cpu" or "cuda"."""
    import torch

    _check_choice("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here. Use --device cpu, or leave it out.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"There is no {what} called {value!r}. Choose one of: {', '.join(choices)}.")
