"""What the command line understands: its verbs, their options, the help."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from portraitgen import __version__

from .editors import ENGINES, GUIDANCE, KEY_FRAMES
from .pipeline import BODIES, PRESETS
from .sessions import PACKED
from .terminal import fail

BACKGROUND_HELP = (
    "auto (the clip's own, edited too if the edit is about it), original, edited, blur, transparent (writes .webm), white, "
    "green, #rrggbb or a picture (%(default)s)"
)

MARK_HELP = "say in a corner of the picture that it is AI-made, not only in the file's tags"

EXAMPLES = """examples:
  python -m portraitgen inspect clip.mp4
  python -m portraitgen reconstruct clip.mp4 -o portrait
  python -m portraitgen edit portrait -o bronze.mp4 --text "turn her into a bronze statue"
  python -m portraitgen edit clip.mp4 -o red_hair.mp4 --text "give him red hair" --strength 0.8
  python -m portraitgen edit portrait -o painted.mp4 --style painting.jpg
  python -m portraitgen edit portrait -o jumper.mp4 --garment jumper.png
  python -m portraitgen edit portrait -o evening.mp4 --light "warm sunset from the left"
  python -m portraitgen render portrait -o orbit.mp4 --view crop --background white --orbit
  python -m portraitgen export portrait --what ply -o portrait.ply
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

    trimming = Parser(add_help=False)
    trimming.add_argument(
        "--start",
        type=number(0, math.inf),
        default=0.0,
        metavar="S",
        help="use the clip from second S on (%(default)g)",
    )
    trimming.add_argument(
        "--max-seconds", type=number(0.1, math.inf), metavar="S", help="use only S seconds of the clip"
    )

    learning = Parser(add_help=False)
    learning.add_argument("--preset", choices=PRESETS, default="preview", help="quality against time (%(default)s)")
    learning.add_argument("--seed", type=natural, default=0, metavar="N", help="same seed, same machine, same result")

    verb = verbs.add_parser(
        "inspect",
        parents=[trimming],
        help="look at a clip before anything is done with it",
        description="Say in a few seconds whether a clip can be used: its face, the part that will be worked on, the time it will take.",
        epilog="example:\n  python -m portraitgen inspect clip.mp4 --start 12 --max-seconds 8 -o look.jpg",
        formatter_class=raw,
    )
    verb.add_argument("clip", type=Path, metavar="CLIP", help="video of one person")
    verb.add_argument("-o", "--output", type=Path, metavar="LOOK.jpg", help="write a picture of what will be worked on")
    verb.add_argument("--preset", choices=PRESETS, default="preview", help="quality to estimate for (%(default)s)")
    verb.add_argument("--json", action="store_true", help="print the facts as one JSON object")

    verb = verbs.add_parser(
        "reconstruct",
        parents=[trimming, learning, running],
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

    verb = verbs.add_parser(
        "edit",
        parents=[trimming, learning, running],
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
    verb.add_argument("--light-picture", metavar="IMG", help="with --light in words: a picture lit that way besides")
    verb.add_argument("--keep-colors", action="store_true", help="with --style: keep the clip's own colours")
    verb.add_argument("--strength", type=number(0, 1), default=1.0, metavar="X", help="0 to 1 (%(default)s)")
    fewest, most = KEY_FRAMES
    verb.add_argument("--key-frames", type=natural, metavar="N", help=f"{fewest} to {most} (as the preset says)")
    verb.add_argument(
        "--guidance",
        type=number(*GUIDANCE),
        metavar="X",
        help="{:g} to {:g}: how closely instruct-pix2pix, ic-light and fashn-vton keep to what is asked (their own)".format(
            *GUIDANCE
        ),
    )
    verb.add_argument("--background", default="auto", metavar="B", help=BACKGROUND_HELP)
    verb.add_argument("--mark", action="store_true", help=MARK_HELP)
    verb.add_argument("--save", type=Path, metavar="DIR2", help="keep the edited portrait in this folder")

    verb = verbs.add_parser(
        "render",
        parents=[running],
        help="render a portrait folder",
        description="Render a portrait folder to a clip.",
        epilog="examples:\n  python -m portraitgen render portrait -o side.mp4 --view crop --background white --yaw 20\n"
        "  python -m portraitgen render portrait -o orbit.mp4 --view crop --background white --orbit\n"
        "  python -m portraitgen render portrait -o cut_out.webm --background transparent",
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
        "export",
        parents=[running],
        help="take a portrait folder to other programs",
        description="Write a portrait folder as 3D Gaussians (ply), as an archive (zip), or as a strip of pictures from all sides (views).",
        epilog="example:\n  python -m portraitgen export portrait --what ply -o portrait.ply",
        formatter_class=raw,
    )
    verb.add_argument("directory", type=Path, metavar="DIR", help="portrait folder")
    verb.add_argument("--what", choices=tuple(PACKED), required=True, help="what to make of it")
    endings = ", ".join(f"OUT{suffix}" for suffix in PACKED.values())
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=f"file to write: {endings}")

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
