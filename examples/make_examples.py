"""Makes the example clips, their stored edits and the picture in the README; needs scikit-image and matplotlib besides the requirements.

    python examples/make_examples.py                          # everything; an hour on two cores
    python examples/make_examples.py upright sunset picture   # only this clip, this edit, and the README's picture

Each clip is a photo in the public domain that a Python package carries, tracked and set in motion by this package's own mesh,
with a voice made from sine waves.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from clips import CLIPS, Clip  # noqa: E402
from performance import SOUND_RATE, perform, sound  # noqa: E402
from puppet import Puppet  # noqa: E402

from portraitgen.body import BodyParameters, load_body  # noqa: E402
from portraitgen.clip import ClipInfo, probe, read_frames  # noqa: E402
from portraitgen.crop import Crop  # noqa: E402
from portraitgen.landmarks import detect_landmarks  # noqa: E402
from portraitgen.progress import Progress  # noqa: E402
from portraitgen.tracking import track  # noqa: E402

EDITS: dict[str, dict[str, str]] = {
    "bronze": {"clip": "portrait", "kind": "text", "text": "turn her into a bronze statue"},
    "starry night": {
        "clip": "portrait",
        "kind": "style",
        "picture": "styles/starry_night.jpg",
        "background": "edited",
    },
    "striped jumper": {"clip": "portrait", "kind": "tryon", "picture": "garments/striped_jumper.png"},
    "sunset": {"clip": "portrait", "kind": "relight", "text": "warm sunset from the left, the background too"},
    "pencil": {"clip": "wide", "kind": "text", "text": "pencil sketch"},
    "neon": {"clip": "wide", "kind": "relight", "text": "blue neon from the right"},
    "comic": {"clip": "wide", "kind": "text", "text": "comic book"},
    "candlelight": {"clip": "upright", "kind": "relight", "text": "candlelight from below, the background too"},
}
SHARPEN = 0.5
PICTURE = "picture"
SHOWN = ("portrait", "bronze", "starry night", "striped jumper", "sunset")  # in the README's picture
MOMENTS = (0, 13, 24, 45, 57)  # frames in it
PICTURE_SIDE = 176  # px
POSTER_SIDE, POSTER_MOMENT = 144, 0.6  # px; share of the clip, at which nobody blinks


def still(clip: Clip) -> np.ndarray:
    """The part of the photo that is animated, [S, S, 3] uint8; the photo's edge goes on where it ends."""
    top, left, side = clip.part
    photo = clip.photo()
    rows, columns = (
        np.arange(start, start + side).clip(0, size - 1)
        for start, size in zip((top, left), photo.shape[:2], strict=True)
    )
    size = round(side * clip.scale)
    large = cv2.resize(photo[rows][:, columns], (size, size), interpolation=cv2.INTER_LANCZOS4)
    return cv2.addWeighted(large, 1 + SHARPEN, cv2.GaussianBlur(large, (0, 0), 1.3), -SHARPEN, 0)


@functools.cache
def puppet(name: str) -> tuple[Puppet, BodyParameters]:
    """The layered still of a clip and all its poses."""
    clip = CLIPS[name]
    picture = still(clip)
    size, count, rate = len(picture), 3, clip.performance.rate
    times = tuple(index / rate for index in range(count))
    info = ClipInfo(size, size, count, Fraction(rate), count / rate, False, 0, times)
    landmarks = detect_landmarks(iter([picture] * count), info)
    body = load_body()
    tracking = track(landmarks, Crop(0, 0, size, size), body)
    pose = tracking.parameters[1:2]
    corner = np.array(clip.part[1::-1])
    collar = clip.collar
    if collar:
        (x, y), axes = (np.array(collar[0]) - corner) * clip.scale, np.array(collar[1]) * clip.scale
        collar = (x, y), (axes[0], axes[1]), collar[2]
    worn = [(np.array(outline) - corner) * clip.scale for outline in clip.worn]
    left, top, width, height = clip.window
    shown = slice(top, top + height), slice(left, left + width)
    actor = Puppet(picture, landmarks, body, pose, tracking.K, shown, collar, worn)
    return actor, perform(clip.performance, pose, body)


def frames(name: str, which: Iterable[int]) -> Iterator[np.ndarray]:
    """Frames of a clip by number, [H, W, 3] uint8."""
    clip, chosen = CLIPS[name], list(which)
    actor, poses = puppet(name)
    left, top, width, height = clip.window
    pictures = actor.frames(poses[torch.tensor(chosen)], clip.performance.shut()[chosen])
    for picture, (right, down, degrees) in zip(pictures, clip.performance.camera()[chosen], strict=True):
        turn = cv2.getRotationMatrix2D((left + width / 2 - 0.5, top + height / 2 - 0.5), degrees, 1.0)
        turn[:, 2] -= left + right, top + down
        yield cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def make_clip(name: str) -> None:
    """Write a clip: H.264 with AAC."""
    performance, (width, height) = CLIPS[name].performance, CLIPS[name].window[2:]
    with av.open(str(path_of(name)), "w", options={"movflags": "faststart"}) as container:
        options = {"crf": "17", "preset": "slow", "threads": "1"}
        video = container.add_stream("libx264", rate=performance.rate, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        audio.bit_rate = 96_000
        samples = av.AudioFrame.from_ndarray(sound(performance)[None], format="fltp", layout="mono")
        samples.sample_rate = SOUND_RATE
        samples.pts, samples.time_base = 0, Fraction(1, SOUND_RATE)
        for picture in frames(name, range(performance.frame_count)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


def path_of(name: str) -> Path:
    """The file of a clip or of an edit."""
    return FOLDER / f"{EDITS[name]['clip'] + '_' if name in EDITS else ''}{name.replace(' ', '_')}.mp4"


def learned(clip: str, folder: Path) -> Path:
    """The portrait of a clip in a folder, made unless it is there."""
    from portraitgen.pipeline import reconstruct

    follow(reconstruct(path_of(clip), folder / clip, preset="preview"))
    return folder / clip


def make_result(name: str, folder: Path) -> None:
    """Edit a clip as a visitor would with the preview preset."""
    from portraitgen.editors import EditRequest
    from portraitgen.pipeline import edit

    wish = EDITS[name]
    picture = FOLDER / wish["picture"] if "picture" in wish else None
    request = EditRequest(wish["kind"], wish.get("text", ""), picture, engine="builtin")
    portrait = learned(wish["clip"], folder)
    follow(edit(portrait, path_of(name), request=request, background=wish.get("background", "auto")))


def make_poster(name: str) -> None:
    """The face in an edit, small."""
    left, top, side = CLIPS[EDITS[name]["clip"]].poster
    stored = list(read_frames(path_of(name), probe(path_of(name))))
    face = stored[round(POSTER_MOMENT * len(stored))][top : top + side, left : left + side]
    small = cv2.resize(face, (POSTER_SIDE, POSTER_SIDE), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path_of(name).with_suffix(".jpg")), small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def follow(steps: Iterable[Progress]) -> None:
    """Run a job to its end and say how far it is."""
    for step in steps:
        print(f"{step.stage} {step.fraction:4.0%} {step.message}", end="\x1b[K\r", file=sys.stderr)


def make_picture(folder: Path) -> None:
    """Draw the README's picture: clip, reconstruction and edits at five moments."""
    from portraitgen.pipeline import render

    clip, *edits = SHOWN
    rebuilt = folder / "rebuilt.mp4"
    follow(render(learned(clip, folder), rebuilt))
    rows = [np.concatenate(chosen(path), axis=1) for path in (path_of(clip), rebuilt, *map(path_of, edits))]
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(FOLDER / "readme_picture.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 86])


def chosen(path: Path) -> list[np.ndarray]:
    """The frames of a video at MOMENTS, small."""
    wanted = [frame for index, frame in enumerate(read_frames(path, probe(path))) if index in MOMENTS]
    return [cv2.resize(frame, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA) for frame in wanted]


def entries() -> list[dict[str, str]]:
    """What the page needs to know about the stored edits."""
    return [
        {"name": name}
        | wish
        | {
            "clip": path_of(wish["clip"]).name,
            "result": path_of(name).name,
            "poster": path_of(name).with_suffix(".jpg").name,
            "source": CLIPS[wish["clip"]].source,
        }
        for name, wish in EDITS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the example clips and their stored results.")
    everything = [*CLIPS, *EDITS, PICTURE]
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to make, all if none is named: {', '.join(everything)}"
    )
    parser.add_argument(
        "--portraits", type=Path, metavar="DIR", help="keep the learned portraits here for the next time"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(everything):
        parser.error(f"nothing here is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.portraits or Path(temporary)
        for name in options.names or everything:
            if name in CLIPS:
                make_clip(name)
            elif name in EDITS:
                make_result(name, folder)
                make_poster(name)
            else:
                make_picture(folder)
    (FOLDER / "examples.json").write_text(json.dumps(entries(), indent=2) + "\n")


if __name__ == "__main__":
    main()
