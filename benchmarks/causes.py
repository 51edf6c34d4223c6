"""What reconstruction's fidelity comes from: one thing at a time is taken out or changed, and the held-out frames are measured.

    python benchmarks/causes.py [CLIP] [--preset preview] [--max-seconds 3] [--only NAME ...]

The clip is tracked and matted once, its last fifth is held out, and every row reconstructs it with the preset but for what the row is named
after. "mouth" and "eyes" are the PSNR of what lies within the lips' and the eyelids' bounds, enlarged by a half.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _report import ROOT, report
from ablation import prepared

sys.path.insert(0, str(ROOT))

from portraitgen import alignment, reconstruction
from portraitgen.alignment import Alignment, AlignmentConfig
from portraitgen.evaluation import evaluate_reconstruction
from portraitgen.evidence import EYELIDS, LIPS
from portraitgen.fitting import Fitted
from portraitgen.losses import psnr
from portraitgen.mattes import crop_landmarks
from portraitgen.portrait import Portrait
from portraitgen.reconstruction import ReconstructionConfig
from portraitgen.tracking import Tracking
from portraitgen.training_data import load_training_frames

_NOTHING = 1e-6  # of a standard deviation that allows nothing
EYES = (EYELIDS[:16], EYELIDS[16:])


@dataclasses.dataclass(frozen=True)
class Cause:
    """What a row changes: the preset, the tracking, or a part of the program that no preset turns off."""

    config: Callable[[ReconstructionConfig], ReconstructionConfig] = lambda config: config
    tracking: Callable[[Tracking], Tracking] = lambda tracking: tracking
    patch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


def fit(**changes: Any) -> Cause:
    """The preset with another fit; a function is given the number of steps."""

    def config(old: ReconstructionConfig) -> ReconstructionConfig:
        values = {key: value(old.fit.steps) if callable(value) else value for key, value in changes.items()}
        return dataclasses.replace(old, fit=dataclasses.replace(old.fit, **values))

    return Cause(config)


def spacing(factor: float) -> Cause:
    """The preset with Gaussians at ``factor`` times their distance."""
    return Cause(lambda old: dataclasses.replace(old, texel_pixels=factor * old.texel_pixels))


def patch(owner: Any, name: str, value: Any) -> Cause:
    """A part of the program replaced."""
    return Cause(patch=lambda: mock.patch.object(owner, name, value))


def tracked(**changes: Callable[[Tracking], torch.Tensor]) -> Cause:
    """Tracking with other parameters, which alignment may not find again."""

    def tracking(old: Tracking) -> Tracking:
        values = {name: change(old) for name, change in changes.items()}
        return dataclasses.replace(old, parameters=dataclasses.replace(old.parameters, **values))

    return Cause(tracking=tracking)


def held(**changes: Any) -> Cause:
    """Alignment that may not move some of what it moves, or looks at other points."""
    return patch(alignment, "AlignmentConfig", partial(AlignmentConfig, **changes))


def unaligned(*_: Any) -> Iterator[int]:
    """In place of ``align_frames``: leaves the frames where they are."""
    return iter(())


def grey_start(*arguments: Any, start: Callable[..., Fitted] = reconstruction._start) -> Fitted:
    """In place of ``_start``: Gaussians that know nothing of the frames' colours."""
    fitted = start(*arguments)
    with torch.no_grad():
        fitted.avatar.features[:, :3] = 0.5
    return fitted


CAUSES: dict[str, Cause] = {
    "as it is": Cause(),
    "landmarks alone, no alignment": patch(reconstruction, "align_frames", unaligned),
    "held-out frames not aligned": patch(reconstruction, "_align_rest", unaligned),
    "aligned before fitting only": Cause(lambda old: dataclasses.replace(old, realign=())),
    "alignment without nodes": held(node=_NOTHING),
    "alignment of nodes alone": held(
        rotation=_NOTHING, global_rotation=_NOTHING, expression=_NOTHING, translation=_NOTHING
    ),
    "alignment of three times as many points": held(points=3 * AlignmentConfig.points),
    "expressions as the landmarks say": held(expression=_NOTHING),
    "one expression for all frames": tracked(
        expression=lambda old: old.parameters.expression.mean(0).expand_as(old.parameters.expression).clone()
    ),
    "no gain per frame": patch(Alignment, "_expose", lambda *_: None),
    "shrunken frames instead of windows": fit(coarse_steps=lambda steps: steps),
    "shrunken frames for a fifth, then windows": fit(coarse_steps=lambda steps: steps // 5),
    "grey Gaussians at the start": patch(reconstruction, "_start", grey_start),
    "half as many Gaussians": spacing(2**0.5),
    "twice as many Gaussians": spacing(0.5**0.5),
    "no displacement of Gaussians": fit(offset_rate=0.0),
    "no network, plain colours": Cause(lambda old: dataclasses.replace(old, channels=3, hidden=0)),
    "no perceptual term": fit(perceptual=0.0),
    "no SSIM": fit(structure=0.0),
    "no gradient term": fit(gradient=0.0),
    "no term for the amount of detail": fit(texture=0.0),
    "no mask term": fit(mask=0.0),
    "no stable term": fit(stable=0.0),
    "no regularisers": fit(offset_weight=0.0, scale_weight=0.0, tether=0.0),
    "half as many steps": fit(steps=lambda steps: steps // 2),
    "twice as many steps": fit(steps=lambda steps: steps * 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "examples" / "portrait.mp4")
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--max-seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="+", default=list(CAUSES), choices=CAUSES, metavar="NAME")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = prepared(options.clip, Path(folder) / "base", options.max_seconds)
        for name in options.only:
            with tempfile.TemporaryDirectory() as place:
                portrait = base.copy_to(Path(place) / "portrait", without=())
                rows.append({"without or with": name} | measure(CAUSES[name], portrait, options.preset))
            # An hour of work: what is there is written down after every row.
            report(
                f"causes_{options.clip.stem}",
                rows,
                preset=options.preset,
                clip_seconds=options.max_seconds,
                holdout=0.2,
            )


def measure(cause: Cause, portrait: Portrait, preset: str) -> dict[str, Any]:
    """Reconstruct and look at the held-out frames."""
    device, started = torch.device("cpu"), time.perf_counter()
    with cause.patch():
        tracking = cause.tracking(portrait.tracking())
        for _ in reconstruction.reconstruct(portrait, tracking, cause.config(reconstruction.PRESETS[preset]), device):
            pass
    seconds = time.perf_counter() - started
    portrait.finish("reconstruction", seconds)
    values = evaluate_reconstruction(portrait, device)
    row = {
        name: values["held_out"][key]
        for name, key in (("PSNR", "psnr"), ("SSIM", "ssim"), ("perceptual", "perceptual"))
    }
    row |= parts(portrait, device)
    return row | {"sharpness": values["sharpness"], "trained": values["trained"]["psnr"], "seconds": seconds}


@torch.no_grad()
def parts(portrait: Portrait, device: torch.device) -> dict[str, float]:
    """PSNR of mouth and eyes in the held-out frames."""
    fitted, K = reconstruction.load_fitted(portrait, device), portrait.tracking().K
    frames = torch.arange(portrait.trained_frames, portrait.clip.frame_count)
    data = load_training_frames(portrait, portrait.tracking(), frames, device)
    points, found = crop_landmarks(portrait), {"mouth": [], "eyes": []}  # type: dict[str, list[float]]
    for number, frame in enumerate(frames.tolist()):
        batch = data.whole(torch.tensor([number]), 1)
        truth = (batch.image * batch.alpha + 1 - batch.alpha)[0]
        ours = fitted.render(frames[number : number + 1], K[None], data.size, data.size).over(torch.ones(3, 1, 1))[0]
        for name, groups in (("mouth", (LIPS,)), ("eyes", EYES)):
            for group in groups:
                if np.isfinite(points[frame, list(group)]).all():
                    window = bounds(points[frame, list(group)], data.size)
                    found[name].append(psnr(ours[None][(..., *window)], truth[None][(..., *window)]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def bounds(points: np.ndarray, size: int) -> tuple[slice, slice]:
    """Rows and columns around ``points`` ``[N, 2]``, half as large again."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.75 * (high - low).max()
    left, top = np.clip(middle - half, 0, size - 2).astype(int)
    right, bottom = np.clip(middle + half, 2, size).astype(int)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


if __name__ == "__main__":
    main()
