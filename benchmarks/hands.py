"""What becomes of a hand that passes before the person, when it is kept apart and when it is learned as a part of the body.

    python benchmarks/hands.py [CLIP ...] [--max-seconds 3] [--sheet FOLDER]

A rendered hand with its forearm rises beside the face of every clip, waves and sinks (`tests/rendered_hand.py`), so that it is known where
it is. The clip is reconstructed and rendered back. Columns, PSNR in dB of the result against the clip with the hand:

- hand, around: in the hand, and in what is nearer to it than an eighth of the picture;
- behind: of the avatar alone against the clip without the hand, where the hand is: whether the hand was learned into the body;
- overlap: of the hand that was found and the real one, intersection over union; seen: share of the frames with a hand.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from _report import ROOT, report

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

from rendered_hand import waving

from portraitgen import mattes, pipeline
from portraitgen.clip import ClipInfo, probe, read_frames, read_gray, write_video
from portraitgen.crop import as_float
from portraitgen.hands import LAYER
from portraitgen.portrait import Portrait
from portraitgen.reconstruction import load_fitted
from portraitgen.rendering import render_crops

NEAR = 1 / 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=[ROOT / "examples" / "portrait.mp4"])
    parser.add_argument("--max-seconds", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path, help="folder for pictures: clip, kept apart, learned")
    options = parser.parse_args()
    rows = []
    for clip in options.clips:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(clip, Path(folder), options)
    report("hands", rows)


def compare(clip: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one clip."""
    info = probe(clip, max_seconds=options.max_seconds)
    clean = [square(frame) for frame in read_frames(clip, info)]
    frames, hand = waving(clean)
    side, count = len(frames[0]), len(frames)
    times = tuple(time - info.timestamps[0] for time in info.timestamps)
    made = ClipInfo(side, side, count, Fraction(info.rate), info.duration, False, 0, times)
    gesture = folder / "gesture.mp4"
    write_video(gesture, iter(frames), made, audio_from=None, crf=8)
    rows, pictures = [], [np.stack(frames)]
    for name, looks in (("kept apart", True), ("learned", False)):
        nobody = mock.patch.object(mattes.HandFinder, "found", return_value=None)
        with contextlib.nullcontext() if looks else nobody:
            for _ in pipeline.reconstruct(gesture, folder / name):
                pass
        for _ in pipeline.render(folder / name, folder / f"{name}.mp4"):
            pass
        portrait = Portrait.load(folder / name)
        result = np.stack(list(read_frames(folder / f"{name}.mp4", portrait.clip)))
        pictures.append(result)
        rows.append({"clip": clip.name, "hands": name} | measure(portrait, np.stack(clean), pictures[0], result, hand))
    if options.sheet is not None:
        options.sheet.mkdir(parents=True, exist_ok=True)
        chosen = np.linspace(0.05, 0.95, 6) * count
        sheet = np.concatenate([np.concatenate(row[chosen.astype(int)], 1) for row in pictures])
        cv2.imwrite(str(options.sheet / f"hands_{clip.stem}.png"), sheet[::2, ::2, ::-1])
    return rows


def square(frame: np.ndarray) -> np.ndarray:
    """The middle of a frame ``[H, W, 3]``, as broad as high and even."""
    side = min(frame.shape[:2]) // 2 * 2
    top, left = ((length - side) // 2 for length in frame.shape[:2])
    return np.ascontiguousarray(frame[top : top + side, left : left + side])


@torch.no_grad()
def measure(
    portrait: Portrait, clean: np.ndarray, source: np.ndarray, result: np.ndarray, hand: np.ndarray
) -> dict[str, float | None]:
    """Numbers about one portrait; pictures ``[T, S, S, 3]`` uint8 and the hand's coverage ``[T, S, S]``."""
    side = source.shape[1]
    inside = hand > 0.99
    reach = np.ones((round(2 * NEAR * side) + 1,) * 2, np.uint8)
    around = np.stack([cv2.dilate((mask > 0).astype(np.uint8), reach) for mask in hand]).astype(bool) & (hand == 0)
    fitted, crop = load_fitted(portrait, torch.device("cpu")), portrait.crop
    behind, overlap, seen = [], [], []
    layer = portrait.path(LAYER)
    layers = read_gray(layer) if layer.exists() else iter([np.zeros((crop.size,) * 2, np.uint8)] * len(hand))
    for number, (body, found) in enumerate(
        zip(render_crops(portrait, fitted, portrait.tracking().K), layers, strict=True)
    ):
        there = crop.extract(np.rint(hand[number] * 255).astype(np.uint8)) > 250
        if there.mean() < 0.005:
            continue
        known = there & (body.alpha > 0.9)
        behind.append(np.square(body.straight() - as_float(crop.extract(clean[number])))[known].mean())
        overlap.append(((found > 128) & there).sum() / ((found > 128) | there).sum())
        seen.append(overlap[-1] > 0.1)
    error = np.square(result.astype(np.float64) - source).mean(-1) / 255**2
    kept = layer.exists()
    return {
        "hand dB": decibel(error[inside].mean()),
        "around dB": decibel(error[around].mean()),
        "whole dB": decibel(error.mean()),
        "behind dB": decibel(float(np.mean(behind))),
        "overlap": float(np.mean(overlap)) if kept else None,
        "seen": float(np.mean(seen)) if kept else None,
        "reconstruct s": round(sum(portrait.stages.values())),
    }


def decibel(squares: float) -> float:
    return float(-10 * np.log10(max(squares, 1e-10)))


if __name__ == "__main__":
    main()
