"""Makes the example clip, its stored edits and the picture in the README; needs scikit-image besides the requirements.

    python examples/make_examples.py            # everything; minutes on two cores
    python examples/make_examples.py --clip     # only the clip

The clip is the official portrait of the astronaut Eileen Collins (NASA, public domain), which scikit-image carries, tracked
and set in motion by this package's own mesh, with a melody made from sine waves.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from performance import FRAME_COUNT, RATE, SOUND_RATE, blinks, perform, sound  # noqa: E402
from puppet import Ellipse, Puppet  # noqa: E402

from portraitgen.body import BodyParameters, load_body  # noqa: E402
from portraitgen.clip import ClipInfo, probe, read_frames  # noqa: E402
from portraitgen.crop import Crop  # noqa: E402
from portraitgen.landmarks import detect_landmarks  # noqa: E402
from portraitgen.tracking import track  # noqa: E402

SOURCE = "NASA, public domain, via scikit-image; animated by examples/make_examples.py"
EDITS: dict[str, dict[str, str]] = {
    "bronze": {"kind": "text", "text": "turn her into a bronze statue"},
    "starry night": {"kind": "style", "picture": "styles/starry_night.jpg", "background": "edited"},
    "striped jumper": {"kind": "tryon", "picture": "garments/striped_jumper.png"},
    "sunset": {"kind": "relight", "text": "warm sunset from the left, the background too"},
}
PART, SCALE = (0, 60, 336), 1.625  # top, left and side of the part of the photo that is animated; enlargement
COLLAR: Ellipse = ((213.3, 220.7), (125.6, 197.3), 118.2)  # the rim of the suit's ring in the photo
SIZE, LEFT = 512, 17  # px, side of the clip and its left edge in the animated part: what is beyond may move in
SHARPEN = 0.5
MOMENTS = (0, 13, 24, 45, 57)  # frames in the README's picture
PICTURE_SIDE = 176  # px


def still() -> np.ndarray:
    """The part of the photo that is animated, [S, S, 3] uint8."""
    from skimage import data

    top, left, side = PART
    photo = data.astronaut()[top : top + side, left : left + side]
    size = round(side * SCALE)
    large = cv2.resize(photo, (size, size), interpolation=cv2.INTER_LANCZOS4)
    return cv2.addWeighted(large, 1 + SHARPEN, cv2.GaussianBlur(large, (0, 0), 1.3), -SHARPEN, 0)


@functools.cache
def puppet() -> tuple[Puppet, BodyParameters]:
    """The layered still and all its poses."""
    picture = still()
    size, count = len(picture), 3
    times = tuple(index / RATE for index in range(count))
    info = ClipInfo(size, size, count, Fraction(RATE), count / RATE, False, 0, times)
    landmarks = detect_landmarks(iter([picture] * count), info)
    body = load_body()
    tracking = track(landmarks, Crop(0, 0, size, size), body)
    (x, y), axes, degrees = COLLAR
    collar = (
        ((x - PART[1]) * SCALE, (y - PART[0]) * SCALE),
        (axes[0] * SCALE, axes[1] * SCALE),
        degrees,
    )
    pose = tracking.parameters[1:2]
    return Puppet(picture, landmarks, body, pose, tracking.K, collar), perform(pose, body)


def frames(which: list[int]) -> Iterator[np.ndarray]:
    """Frames of the clip by number, [SIZE, SIZE, 3] uint8."""
    actor, poses = puppet()
    shut = blinks(np.array(which) / RATE)
    for picture in actor.frames(poses[torch.tensor(which)], shut):
        yield np.ascontiguousarray(picture[:SIZE, LEFT : LEFT + SIZE])


def make_clip(path: Path) -> None:
    """Write the clip: H.264 with AAC."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "17", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        audio.bit_rate = 96_000
        samples = av.AudioFrame.from_ndarray(sound()[None], format="fltp", layout="mono")
        samples.sample_rate = SOUND_RATE
        samples.pts, samples.time_base = 0, Fraction(1, SOUND_RATE)
        for picture in frames(list(range(FRAME_COUNT))):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


def make_results(clip: Path, picture: Path) -> list[dict[str, str]]:
    """Edit the clip as a visitor would with the preview preset, draw the README's picture, and list what was made."""
    from portraitgen.editors import EditRequest
    from portraitgen.pipeline import edit, reconstruct, render

    entries, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        portrait, rebuilt = Path(folder) / "portrait", Path(folder) / "rebuilt.mp4"
        jobs = [reconstruct(clip, portrait, preset="preview"), render(portrait, rebuilt)]
        for name, wish in EDITS.items():
            results.append(FOLDER / f"portrait_{name.replace(' ', '_')}.mp4")
            style = FOLDER / wish["picture"] if "picture" in wish else None
            request = EditRequest(wish["kind"], wish.get("text", ""), style, engine="builtin")
            jobs.append(edit(portrait, results[-1], request=request, background=wish.get("background", "auto")))
            entries.append({"name": name, "clip": clip.name, "result": results[-1].name, "source": SOURCE} | wish)
        for steps in jobs:
            for step in steps:
                print(f"{step.stage} {step.fraction:4.0%} {step.message}", end="\x1b[K\r", file=sys.stderr)
        rows = [np.concatenate(chosen(path), axis=1) for path in (clip, rebuilt, *results)]
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(picture), sheet, [cv2.IMWRITE_JPEG_QUALITY, 86])
    return entries


def chosen(path: Path) -> list[np.ndarray]:
    """The frames of a video at MOMENTS, small."""
    wanted = [frame for index, frame in enumerate(read_frames(path, probe(path))) if index in MOMENTS]
    return [cv2.resize(frame, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA) for frame in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the example clip and its stored results.")
    parser.add_argument("--clip", action="store_true", help="make only the clip")
    only_clip = parser.parse_args().clip
    clip = FOLDER / "portrait.mp4"
    make_clip(clip)
    if not only_clip:
        entries = make_results(clip, FOLDER / "readme_picture.jpg")
        (FOLDER / "examples.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
