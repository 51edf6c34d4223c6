"""Command line: ``python -m portraitgen VERB …``, the same calls as the page makes.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 bad input (one line on stderr), 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cores import usable_cores
from .editors import EditRequest, check_request
from .errors import InputError
from .estimates import clip_seconds
from .grammar import build_parser
from .progress import EDIT_STAGES, RECONSTRUCT_STAGES
from .sessions import PACKED, VERBS
from .storage import check_output, explain_os_error, names_file
from .terminal import fail, follow, keep_interrupts, keep_streams
from .wording import describe_clip, describe_cost, describe_face


def reconstruct(arguments: argparse.Namespace) -> str | None:
    """Verb ``reconstruct``: clip to portrait folder."""
    if not arguments.clip.exists():
        raise InputError(f"There is no clip at {arguments.clip}. Check the path.")
    from portraitgen import pipeline

    steps = pipeline.reconstruct(
        arguments.clip,
        arguments.output,
        preset=arguments.preset,
        body=arguments.body,
        holdout=arguments.holdout,
        start=arguments.start,
        max_seconds=arguments.max_seconds,
        device=arguments.device,
        seed=arguments.seed,
    )
    follow(steps, RECONSTRUCT_STAGES)
    return json.dumps(pipeline.timings(arguments.output)) if arguments.json else None


def wanted_edit(arguments: argparse.Namespace) -> EditRequest:
    """The edit that the command line asks for."""
    common = {name: getattr(arguments, name) for name in ("engine", "strength", "seed", "key_frames", "guidance")}
    if arguments.keep_colors and arguments.style is None:
        raise InputError("--keep-colors belongs to --style. Leave it out, or give a style picture.")
    besides = Path(arguments.light_picture) if arguments.light_picture else None
    if besides is not None and (arguments.light is None or names_file(arguments.light)):
        raise InputError("--light-picture belongs to --light in words. Leave it out, or describe the light.")
    if arguments.style is not None:
        return EditRequest("style", picture=Path(arguments.style), keep_colors=arguments.keep_colors, **common)
    if arguments.garment is not None:
        return EditRequest("tryon", picture=Path(arguments.garment), **common)
    if arguments.light is not None:
        if names_file(arguments.light):
            return EditRequest("relight", picture=Path(arguments.light), **common)
        return EditRequest("relight", text=arguments.light, picture=besides, **common)
    return EditRequest("text", text=arguments.text, **common)


def edit(arguments: argparse.Namespace) -> str | None:
    """Verb ``edit``: portrait folder or clip to edited clip."""
    request = wanted_edit(arguments)
    check_request(request)
    if not arguments.source.exists():
        raise InputError(f"There is no portrait folder or clip at {arguments.source}. Check the path.")
    from portraitgen import pipeline

    steps = pipeline.edit(
        arguments.source,
        arguments.output,
        request=request,
        preset=arguments.preset,
        start=arguments.start,
        max_seconds=arguments.max_seconds,
        background=arguments.background,
        device=arguments.device,
        save=arguments.save,
        mark=arguments.mark,
    )
    seconds = follow(steps, EDIT_STAGES if arguments.source.is_dir() else RECONSTRUCT_STAGES + EDIT_STAGES)
    return json.dumps(seconds) if arguments.json else None


def check_folder(directory: Path) -> None:
    """Refuse what is no folder at all."""
    if not directory.is_dir():
        raise InputError(f"There is no portrait folder at {directory}. Make one with reconstruct.")


def render(arguments: argparse.Namespace) -> str | None:
    """Verb ``render``: portrait folder to clip."""
    if arguments.orbit and (arguments.yaw is not None or arguments.pitch is not None):
        raise InputError("An orbit moves the camera by itself. Use either --orbit or --yaw and --pitch.")
    check_folder(arguments.directory)
    from portraitgen import pipeline

    steps = pipeline.render(
        arguments.directory,
        arguments.output,
        view=arguments.view,
        background=arguments.background,
        yaw=arguments.yaw or 0.0,
        pitch=arguments.pitch or 0.0,
        orbit=arguments.orbit,
        device=arguments.device,
        mark=arguments.mark,
    )
    seconds = follow(steps, ("render",))
    return json.dumps(seconds) if arguments.json else None


def export(arguments: argparse.Namespace) -> str | None:
    """Verb ``export``: portrait folder to a file for other programs."""
    check_folder(arguments.directory)
    what, output = arguments.what, arguments.output
    check_output(output, PACKED[what])
    from .export import write_packed

    seconds = follow(write_packed(what, arguments.directory, output, device=arguments.device), VERBS[what])
    return json.dumps(seconds) if arguments.json else None


def inspect(arguments: argparse.Namespace) -> str:
    """Verb ``inspect``: what the page says of a clip before anything is done with it."""
    from .clip import probe
    from .inspection import inspect as look
    from .inspection import write_picture

    if arguments.output is not None:
        check_output(arguments.output, ".jpg")
    info = probe(arguments.clip, start=arguments.start, max_seconds=arguments.max_seconds)
    found = look(arguments.clip, info)
    if arguments.output is not None:
        write_picture(arguments.output, found)
    learn, edit = clip_seconds(info.frame_count, arguments.preset, found.crop.size)
    if arguments.json:
        values = {name: value for name, value in info.to_json().items() if name not in ("timestamps", "colour")}
        crop = found.crop.to_json()
        face = {"seen": found.seen, "moments": found.moments}
        return json.dumps(values | {"crop": crop, "face": face, "cpu_seconds": {"learn": learn, "edit": edit}})
    from .pipeline import resolve_device

    facts = describe_clip(info.width, info.height, info.duration, float(info.rate), info.has_audio, info.start)
    cost = describe_cost(learn, edit, cores=usable_cores(), gpu=resolve_device("auto").type == "cuda")
    return "\n".join([facts, describe_face(found.seen, found.moments), cost])


def evaluate(arguments: argparse.Namespace) -> str:
    """Verb ``evaluate``: measurements as one JSON object on stdout."""
    check_folder(arguments.directory)
    if arguments.edited is not None and not arguments.edited.is_file():
        raise InputError(f"There is no edited clip at {arguments.edited}. Make one with edit.")
    from portraitgen import pipeline

    return json.dumps(pipeline.evaluate(arguments.directory, edited=arguments.edited, device=arguments.device))


def weights(arguments: argparse.Namespace) -> str:
    """Verb ``weights``: fetch what was asked for, then print the table."""
    from tqdm import tqdm

    from portraitgen import weights as store

    wanted = [entry.name for entry in store.TABLE] if arguments.all else [arguments.fetch] if arguments.fetch else []
    for name in wanted:
        with contextlib.closing(tqdm(desc=name, unit="B", unit_scale=True, file=sys.stderr, leave=False)) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            store.fetch(name, show)
    return store.table()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; every error that a person can cause is one line on stderr and exit code 2."""
    verbs = {
        "inspect": inspect,
        "reconstruct": reconstruct,
        "edit": edit,
        "render": render,
        "export": export,
        "evaluate": evaluate,
        "weights": weights,
    }
    parsed = build_parser().parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries the result alone, whatever a library prints
            result = verbs[parsed.verb](parsed)
        if result is not None:
            print(result, flush=True)
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Stopped. Run the same command again to start over, or to go on with a reconstruction.", 130)
    except OSError as error:
        fail(explain_os_error(error))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    keep_streams()
    keep_interrupts()
    sys.exit(main())
