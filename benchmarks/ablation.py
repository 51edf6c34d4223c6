"""Neural Gaussian Texture against plain coloured Gaussians (the paper's section 5.1): the clip itself, and one strong style.

    python benchmarks/ablation.py [CLIP] [--max-seconds 3] [--text "..."] [--key-frames 16]

Both are fitted by the same loop, with the same Gaussians, poses, losses and number of steps; the plain ones have three channels and no
network. "style" is the PSNR (dB) to the 2D editor's own pictures, of the key frames that were fitted and of frames that were not.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen import editing, pipeline, reconstruction
from portraitgen.editors import Editor, EditRequest, load_editor
from portraitgen.evaluation import evaluate_reconstruction
from portraitgen.fitting import Fitted
from portraitgen.losses import psnr
from portraitgen.portrait import Portrait

VARIANTS: dict[str, dict[str, int]] = {"neural texture": {}, "plain colour": {"channels": 3, "hidden": 0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--max-seconds", type=float, default=3.0)
    parser.add_argument("--text", default="turn it into an oil painting in the style of Van Gogh")
    parser.add_argument("--key-frames", type=int, default=16)
    options = parser.parse_args()
    editor = load_editor(EditRequest("text", options.text), "cpu")
    print(f"{editor.name}: {editor.understood}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        base = prepared(options.clip, Path(folder) / "base", options.max_seconds)
        rows = [
            measure(name, changes, base, Path(folder) / name.replace(" ", "_"), editor, options)
            for name, changes in VARIANTS.items()
        ]
    report("ablation", rows, clip=options.clip.name, clip_seconds=options.max_seconds, text=options.text)


def prepared(clip: Path, folder: Path, seconds: float) -> Portrait:
    """The clip, tracked and matted, with its last fifth held out."""
    for progress in pipeline.reconstruct(clip, folder, holdout=0.2, max_seconds=seconds):
        if progress.stage == "reconstruction":
            break
    return Portrait.load(folder)


def measure(
    name: str, changes: dict[str, int], base: Portrait, folder: Path, editor: Editor, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: reconstruct, measure, edit, measure."""
    portrait, device = base.copy_to(folder, without=()), torch.device("cpu")
    tracking = portrait.tracking()
    config = dataclasses.replace(reconstruction.PRESETS["preview"], **changes)  # type: ignore[arg-type]
    started = time.perf_counter()
    for _ in reconstruction.reconstruct(portrait, tracking, config, device):
        pass
    seconds = time.perf_counter() - started
    portrait.finish("reconstruction", seconds)
    values = evaluate_reconstruction(portrait, device)
    fitted = reconstruction.load_fitted(portrait, device)
    edit = dataclasses.replace(editing.PRESETS["preview"], key_frames=options.key_frames)
    arguments = (editor, edit, 1.0, 0)
    started = time.perf_counter()
    for _ in editing.edit_avatar(portrait, fitted, tracking.K, *arguments):
        pass
    edit_seconds = time.perf_counter() - started
    total = portrait.trained_frames
    keys = editing.diverse_frames(fitted.poses.tracked, editing.usable_frames(portrait), edit.key_frames)
    others = torch.tensor(sorted(set(range(total)) - set(keys.tolist())))
    others = others[torch.linspace(0, len(others) - 1, min(8, len(others))).long()]
    return {
        "variant": name,
        "held-out PSNR": values["held_out"]["psnr"],
        "SSIM": values["held_out"]["ssim"],
        "perceptual": values["held_out"]["perceptual"],
        "sharpness": values["sharpness"],
        "style, key frames": fidelity(portrait, fitted, tracking.K, editor, keys),
        "style, other frames": fidelity(portrait, fitted, tracking.K, editor, others),
        "reconstruction s": seconds,
        "edit s": edit_seconds,
    }


@torch.no_grad()
def fidelity(portrait: Portrait, fitted: Fitted, K: torch.Tensor, editor: Editor, frames: torch.Tensor) -> float:
    """Mean PSNR in dB, over white, between the edited avatar and the 2D editor's own picture of each of ``frames`` ``[M]``."""
    found = []
    keys = editing.load_key_frames(portrait, fitted, K, frames)
    for number in range(len(frames)):
        batch = editing.edit_batch(fitted, keys, slice(number, number + 1), K, 1.0, 0)
        wanted = editor.edit(batch) * batch.alpha + 1 - batch.alpha
        size = wanted.shape[-1]
        ours = fitted.render(frames[number : number + 1], K[None], size, size).over(torch.ones(3, 1, 1))
        found.append(psnr(ours.clamp(0, 1), wanted))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
