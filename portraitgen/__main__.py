"""Command line: ``python -m portraitgen VERB …``, the same calls as the page makes.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 bad input (one line on stderr), 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from portraitgen import __version__

from .cores import usable_cores
from .editors import ENGINES, EditRequest, check_request
from .errors import InputError
from .pipeline import BODIES, PRESETS
from .progress import EDIT_STAGES, RECONSTRUCT_STAGES
from .storage import explain_os_error, names_file
from .terminal import fail, follow, keep_interrupts, keep_streams

BACKGROUND_HELP = (
    "auto (the clip's own, edited too if the edit is about it), original, edited, blur, transparent (writes .webm), white, "
    "green, #rrggbb or a picture (%(default)s)"
)

MARK_HELP = "say in a corner of the picture that it is AI-made, not only in the file's tags"

EXAMPLES = """examples:
  python -m portraitgen reconstruct clip.mp4 -o portrait
  python -m portraitgen edit portrait -o bronze.mp4 --text "turn her into a bronze statue"
  python -m portraitgen edit clip.mp4 -o red_hair.mp4 --text "give him red hair" --strength 0.8
  python -m portraitgen edit portrait -o painted.mp4 --style painting.jpg
  python -m portraitgen edit portrait -o jumper.mp4 --garment jumper.png
  python -m portraitgen edit portrait -o evening.mp4 --light "warm sunset from the left"
  python -m portraitgen render portrait -o orbit.mp4 --view crop --background white --orbit
  python -m portraitgen evaluate portrait --edited bronze.mp4
  python -m portraitgen weights --fetch instruct-pix2pix"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def number(low: float, high: float) -> Any:
    """An argparse type: a finite number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            span = f"from {low:g} up" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {span}")
        return value

    return parse


def natural(text: str) -> int:
    """An argparse type: an integer from 0 to 2^31 - 1."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2147483647")
    return int(text)


def build_parser() -> Parser:
    """The whole grammar of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m portraitgen",
        description="Edit a portrait clip by a sentence, a style picture, a garment or a light: the clip becomes a dynamic "
        "3D Gaussian avatar, the avatar is edited, and the clip is rendered again with its sound. Edit only people who agreed.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"portraitgen {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    running = Parser(add_help=False)
    running.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    running.add_argument("--json", action="store_true", help="print the seconds of each stage as JSON on stdout")

    learning = Parser(add_help=False)
    learning.add_argument("--preset", choices=PRESETS, default="preview", help="quality against time (%(default)s)")
    learning.add_argument("--seed", type=natural, default=0, metavar="N", help="same seed, same machine, same result")

    verb = verbs.add_parser(
        "reconstruct",
        parents=[learning, running],
        help="turn a clip into a portrait folder",
        description="Turn a portrait clip into a portrait folder. Run it again to go on after a stop.",
        epilog="example:\n  python -m portraitgen reconstruct clip.mp4 -o portrait --preset standard",
        formatter_class=raw,
    )
    verb.add_argument("clip", type=Path, metavar="CLIP", help="video of one person, up to a minute")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="portrait folder to write")
    verb.add_argument(
        "--body", choices=BODIES, default="anny", help="body model (%(default)s); smplx: see weights/README.md"
    )
    verb.add_argument(
        "--holdout",
        type=number(0, 0.9),
        default=0.0,
        metavar="FRACTION",
        help="the last FRACTION of the frames are tracked but never trained on",
    )
    verb.add_argument(
        "--max-seconds", type=number(0.1, math.inf), metavar="S", help="use only the first S seconds of the clip"
    )

    verb = verbs.add_parser(
        "edit",
        parents=[learning, running],
        help="edit a portrait folder or a clip",
        description="Edit a portrait folder, or a clip directly, and write the edited clip with its sound.",
        epilog='example:\n  python -m portraitgen edit portrait -o bronze.mp4 --text "turn her into a bronze statue"',
        formatter_class=raw,
    )
    verb.add_argument("source", type=Path, metavar="DIR_OR_CLIP", help="portrait folder, or a clip")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4", help="edited clip to write")
    wish = verb.add_mutually_exclusive_group(required=True)
    wish.add_argument("--text", metavar="T", help="an instruction, such as 'give him red hair'")
    wish.add_argument("--style", metavar="IMG", help="a picture whose colours and brushwork the person takes on")
    wish.add_argument("--garment", metavar="IMG", help="a photo of a garment to wear, lying flat or worn")
    wish.add_argument("--light", metavar="T", help="a light, as in 'sunset from the left', or a picture lit that way")
    choices = sorted({name for names in ENGINES.values() for name in names})
    verb.add_argument(
        "--engine",
        choices=["auto", *choices],
        default="auto",
        metavar="NAME",
        help=f"{', '.join(choices)} (%(default)s)",
    )
    verb.add_argument("--keep-colors", action="store_true", help="with --style: keep the clip's own colours")
    verb.add_argument("--strength", type=number(0, 1), default=1.0, metavar="X", help="0 to 1 (%(default)s)")
    verb.add_argument("--background", default="auto", metavar="B", help=BACKGROUND_HELP)
    verb.add_argument("--mark", action="store_true", help=MARK_HELP)
    verb.add_argument("--save", type=Path, metavar="DIR2", help="keep the edited portrait in this folder")

    verb = verbs.add_parser(
        "render",
        parents=[running],
        help="render a portrait folder",
        description="Render a portrait folder to a clip.",
        epilog="example:\n  python -m portraitgen render portrait -o side.mp4 --view crop --background white --yaw 20",
        formatter_class=raw,
    )
    verb.add_argument("directory", type=Path, metavar="DIR", help="portrait folder")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4", help="clip to write")
    verb.add_argument("--view", choices=("frame", "crop"), default="frame", help="whole frame or working crop")
    verb.add_argument(
        "--background",
        default="auto",
        metavar="B",
        help=BACKGROUND_HELP,
    )
    verb.add_argument("--yaw", type=number(-180, 180), metavar="DEG", help="turn the camera to the side")
    verb.add_argument("--pitch", type=number(-90, 90), metavar="DEG", help="turn the camera up or down")
    verb.add_argument("--mark", action="store_true", help=MARK_HELP)
    verb.add_argument("--orbit", action="store_true", help="swing the camera around the person")

    verb = verbs.add_parser(
        "evaluate",
        help="measure a portrait folder",
        description="Measure a portrait folder, and an edit of it; print one JSON object on stdout.",
        epilog="example:\n  python -m portraitgen evaluate portrait --edited bronze.mp4",
        formatter_class=raw,
    )
    verb.add_argument("directory", type=Path, metavar="DIR", help="portrait folder")
    verb.add_argument("--edited", type=Path, metavar="OUT.mp4", help="an edited clip of it")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")

    verb = verbs.add_parser(
        "weights",
        help="downloadable weights: what is here, what is missing",
        description="List the weights that can be downloaded, with licence and size, or fetch them.",
        epilog="example:\n  python -m portraitgen weights --fetch instruct-pix2pix",
        formatter_class=raw,
    )
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--fetch", metavar="NAME", help="download one entry")
    which.add_argument("--all", action="store_true", help="download every entry")
    return parser


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
        max_seconds=arguments.max_seconds,
        device=arguments.device,
        seed=arguments.seed,
    )
    follow(steps, RECONSTRUCT_STAGES)
    return json.dumps(pipeline.timings(arguments.output)) if arguments.json else None


def wanted_edit(arguments: argparse.Namespace) -> EditRequest:
    """The edit that the command line asks for."""
    common = {"engine": arguments.engine, "strength": arguments.strength, "seed": arguments.seed}
    if arguments.keep_colors and arguments.style is None:
        raise InputError("--keep-colors belongs to --style. Leave it out, or give a style picture.")
    if arguments.style is not None:
        return EditRequest("style", picture=Path(arguments.style), keep_colors=arguments.keep_colors, **common)
    if arguments.garment is not None:
        return EditRequest("tryon", picture=Path(arguments.garment), **common)
    if arguments.light is not None:
        if names_file(arguments.light):
            return EditRequest("relight", picture=Path(arguments.light), **common)
        return EditRequest("relight", text=arguments.light, **common)
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
        background=arguments.background,
        device=arguments.device,
        save=arguments.save,
        mark=arguments.mark,
    )
    seconds = follow(steps, EDIT_STAGES if arguments.source.is_dir() else RECONSTRUCT_STAGES + EDIT_STAGES)
    return json.dumps(seconds) if arguments.json else None


def render(arguments: argparse.Namespace) -> str | None:
    """Verb ``render``: portrait folder to clip."""
    if arguments.orbit and (arguments.yaw is not None or arguments.pitch is not None):
        raise InputError("An orbit moves the camera by itself. Use either --orbit or --yaw and --pitch.")
    if not arguments.directory.is_dir():
        raise InputError(f"There is no portrait folder at {arguments.directory}. Make one with reconstruct.")
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


def evaluate(arguments: argparse.Namespace) -> str:
    """Verb ``evaluate``: measurements as one JSON object on stdout."""
    if not arguments.directory.is_dir():
        raise InputError(f"There is no portrait folder at {arguments.directory}. Make one with reconstruct.")
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
    verbs = {"reconstruct": reconstruct, "edit": edit, "render": render, "evaluate": evaluate, "weights": weights}
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
