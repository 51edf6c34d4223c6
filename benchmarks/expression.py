"""Expression drift of a 2D editor's key frames, with and without expression correction (after the paper's section 5.3 and figure 10).

    python benchmarks/expression.py [CLIP_OR_PORTRAIT ...] [--max-seconds 2.5] [--key-frames 4] [--sheet FOLDER] [--whole-edit]

Real 2D editors lose expressions: they shut mouths, widen eyes, put on a smile of their own. "drifting" pictures are a look bent like that,
in part the same way in every frame and in part at random; "faithful" ones are the look as it is, which a correction should leave alone.

Drift is the mean distance of FaceMesh's landmarks (the attention network, not the correction's own) in edit and clip, in % of the
distance between the outer corners of the eyes; "mouth and eyes" is what remains once the face is laid over the other. The networks misread
strong looks, faithful or not: compare columns, not rows.

``--whole-edit`` goes on to the end: an editor whose every picture is drifting edits the portrait, with and without correction, in two
passes as an editor from the Hub does, the avatar is fitted to its pictures, and the frames of the result are compared with the clip's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from _report import ROOT, report
from torch import Tensor

sys.path.insert(0, str(ROOT))

from portraitgen import editing, pipeline, reconstruction
from portraitgen.editors import EditBatch, EditRequest, load_editor
from portraitgen.expression import ExpressionCorrection, ExpressionLoss
from portraitgen.keyframes import diverse_frames
from portraitgen.losses import psnr
from portraitgen.mattes import crop_frames, crop_landmarks, usable_frames
from portraitgen.portrait import Portrait
from portraitgen.regions import EYE_OUTLINES, LIPS_INNER, LIPS_OUTER

FRAME_STEP = 4
LOOKS = ("", "anime", "turn her into a bronze statue")  # "" is the clip itself
MOUTH_AND_EYES = [*LIPS_OUTER, *LIPS_INNER, *EYE_OUTLINES[0], *EYE_OUTLINES[1]]
STILL = [33, 263, 133, 362, 127, 356, 98, 327, 67, 297, 109, 338, 10, 168, 5]


def bent(image: Tensor, regions: dict[str, Tensor], noise: torch.Generator) -> Tensor:
    """``[3, H, W]`` with mouth and eyes pushed about by up to a tenth of the face's width."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    flow = torch.zeros(2, height, width)
    eyes, lips = regions.get("eyes"), sum(regions[name] for name in ("lips", "teeth", "mouth") if name in regions)
    if eyes is None or not isinstance(lips, Tensor):
        return image
    columns = x[eyes[0] > 0.5]
    if not len(columns) or not (lips > 0.5).any():
        return image
    unit = float(columns.max() - columns.min())
    middle = float(columns.mean())
    for mask, across, down, lift in (
        (eyes[0] * (x < middle), 0.0, -0.6, 0.0),
        (eyes[0] * (x >= middle), 0.0, -0.6, 0.0),
        (lips[0], 0.35, 0.60, 0.08),
    ):
        centre_x, centre_y = float((x * mask).sum() / mask.sum()), float((y * mask).sum() / mask.sum())
        u, v = (x - centre_x) / unit, (y - centre_y) / unit
        weight = torch.exp(-(u * u + v * v) / (2 * 0.17**2))
        jitter = 0.03 * torch.randn(2, generator=noise)
        shape = 0.2 * torch.randn(2, generator=noise)
        flow[0] += weight * unit * (u * (across + shape[0]) + jitter[0])
        flow[1] += weight * unit * (v * (down + shape[1]) + jitter[1] + lift)
    grid = torch.stack([2 * (x + flow[0]) / width - 1, 2 * (y + flow[1]) / height - 1], -1)
    return F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=False)[0].clamp(0, 1)


def all_bent(pictures: Tensor, batch: EditBatch, noise: torch.Generator) -> Tensor:
    """Edits ``[B, 3, H, W]`` of ``batch``, each bent in its own way."""
    regions = [{name: mask[index] for name, mask in batch.regions.items()} for index in range(len(pictures))]
    return torch.stack([bent(picture, parts, noise) for picture, parts in zip(pictures, regions, strict=True)])


def landmarks(pictures: Tensor) -> np.ndarray:
    """FaceMesh points ``[B, 478, 2]`` in pixels, NaN where there is no face."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    found = []
    with FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True) as mesh:
        for picture in reconstruction.to_uint8(pictures):
            faces = mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks
            height, width = picture.shape[:2]
            points = [(p.x * width, p.y * height) for p in faces[0].landmark] if faces else [(np.nan, np.nan)] * 478
            found.append(points)
    return np.array(found)


def drift(found: np.ndarray, source: np.ndarray) -> tuple[float, float]:
    """Of all points as they lie, and of mouth and eyes once the face is laid over the other; % of the inter-ocular distance."""
    ocular = np.linalg.norm(source[:, 33] - source[:, 263], axis=-1)
    plain = np.linalg.norm(found - source, axis=-1).mean(1) / ocular
    parts = []
    for ours, theirs, unit in zip(found, source, ocular, strict=True):
        if np.isnan(ours).any() or np.isnan(theirs).any():
            continue
        a, b = (points.astype(np.float64) @ (1, 1j) for points in (ours, theirs))
        a, b = a - a[STILL].mean(), b - b[STILL].mean()
        a = a * (np.vdot(a[STILL], b[STILL]) / np.vdot(a[STILL], a[STILL]))
        parts.append(np.abs(a - b)[MOUTH_AND_EYES].mean() / unit)
    return 100 * float(np.nanmean(plain)), 100 * float(np.mean(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=[ROOT / "examples" / "portrait.mp4"])
    parser.add_argument("--max-seconds", type=float, default=2.5)
    parser.add_argument("--key-frames", type=int, default=4)
    parser.add_argument(
        "--sheet", type=Path, help="folder for pictures: clip, drifting, corrected, faithful, corrected"
    )
    parser.add_argument("--whole-edit", action="store_true", help="measure the fitted avatar instead of the pictures")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(options.clips):
            portrait = prepared(clip, Path(folder) / str(number), options.max_seconds)
            rows += whole_edits(portrait, number) if options.whole_edit else compare(portrait, number, options)
    if options.whole_edit:
        report("expression_whole_edit", rows)
    else:
        report("expression", rows, key_frames=options.key_frames)


def prepared(clip: Path, folder: Path, seconds: float) -> Portrait:
    """A portrait with an avatar: as it lies there, or made from a clip."""
    if clip.is_dir():
        return Portrait.load(clip)
    for _ in pipeline.reconstruct(clip, folder, max_seconds=seconds):
        pass
    return Portrait.load(folder)


def compare(portrait: Portrait, number: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one clip."""
    tracking = portrait.tracking()
    fitted = reconstruction.load_fitted(portrait, torch.device("cpu"))
    chosen = diverse_frames(fitted.poses.tracked, usable_frames(portrait), options.key_frames)
    keys = editing.load_key_frames(portrait, fitted, tracking.K, chosen)
    batch = editing.edit_batch(fitted, keys, slice(0, len(chosen)), tracking.K, 1.0, 0)
    tracked = torch.from_numpy(crop_landmarks(portrait)[chosen.numpy()])
    source = landmarks(batch.source)
    correct = ExpressionCorrection(ExpressionLoss())
    rows, sheet = [], []
    for look in LOOKS:
        faithful = load_editor(EditRequest("text", look), "cpu").edit(batch) if look else batch.source
        bends = torch.Generator().manual_seed(0)
        drifting = all_bent(faithful, batch, bends)
        line = [batch.source[-1]]
        for name, pictures in (("drifting", drifting), ("faithful", faithful)):
            started = time.perf_counter()
            corrected = correct(pictures, batch.source, tracked)
            seconds = (time.perf_counter() - started) / len(pictures)
            row: dict[str, Any] = {"clip": number, "look": look or "none", "editor": name}
            for when, shown in (("", pictures), (", corrected", corrected)):
                everything, parts_only = drift(landmarks(shown), source)
                row |= {f"drift %{when}": everything, f"mouth and eyes %{when}": parts_only}
            row |= {"PSNR to faithful": psnr(pictures, faithful), "PSNR, corrected": psnr(corrected, faithful)}
            rows.append(row | {"s a frame": seconds})
            line += [pictures[-1], corrected[-1]]
        sheet.append(torch.cat(line, 2))
    if options.sheet is not None:
        from PIL import Image

        options.sheet.mkdir(parents=True, exist_ok=True)
        Image.fromarray(reconstruction.to_uint8(torch.cat(sheet, 1)[None])[0]).save(
            options.sheet / f"expression_{number}.png"
        )
    return rows


class Drifting:
    """A built-in editor, or none, with bent pictures, used as an editor that redraws faces is."""

    name, face_aware, edits_background, understood = "Drifting", True, False, ""

    def __init__(self, look: str, bends: bool) -> None:
        self.editor = load_editor(EditRequest("text", look), "cpu") if look else None
        self.noise, self.reads_render = torch.Generator().manual_seed(0) if bends else None, bends

    def edit(self, batch: EditBatch) -> Tensor:
        pictures = self.editor.edit(batch) if self.editor else batch.source
        return pictures if self.noise is None else all_bent(pictures, batch, self.noise)


@torch.no_grad()
def whole_edits(portrait: Portrait, number: int) -> list[dict[str, Any]]:
    """The rows of one clip when the avatar is fitted to the edited pictures."""
    K, device = portrait.tracking().K, torch.device("cpu")
    frames = torch.arange(0, portrait.clip.frame_count, FRAME_STEP)
    wanted = islice(crop_frames(portrait), 0, None, FRAME_STEP)
    source = landmarks(torch.stack([torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in wanted]))
    rows, size = [], portrait.crop.size
    for look in LOOKS[:2]:
        for name, bends, corrected in (
            ("drifting", True, False),
            ("drifting, corrected", True, True),
            ("faithful", False, False),
        ):
            fitted = reconstruction.load_fitted(portrait, device)
            correction = ExpressionCorrection if corrected else lambda loss: None
            with mock.patch.object(editing, "ExpressionCorrection", correction), torch.enable_grad():
                editor = Drifting(look, bends)
                for _ in editing.edit_avatar(portrait, fitted, K, editor, editing.PRESETS["preview"], 1.0, 0):
                    pass
            shown = [
                fitted.render(frame[None], K[None], size, size).over(torch.ones(3, 1, 1)).clamp(0, 1)
                for frame in frames
            ]
            everything, parts_only = drift(landmarks(torch.cat(shown)), source)
            rows.append({"clip": number, "look": look or "none", "editor": name, "drift %": everything})
            rows[-1]["mouth and eyes %"] = parts_only
    return rows


if __name__ == "__main__":
    main()
