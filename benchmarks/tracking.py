"""How closely and how fast clips are tracked: `python benchmarks/tracking.py CLIP...`.

Errors are fractions of the inter-ocular distance (outer eye corners, in 3D), over FaceMesh's 468 face points. "opening" is
how much of the measured opening of eyes and mouth the mesh itself shows, without the tracker's landmark offsets.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen.body import AnnyBody, load_body
from portraitgen.clip import probe, read_frames
from portraitgen.crop import choose_crop
from portraitgen.evidence import GAPS, gather_evidence, landmark_points
from portraitgen.landmarks import detect_landmarks
from portraitgen.tracking import track


def measure(clip: Path, body: AnnyBody) -> dict[str, Any]:
    """One row of the table."""
    info = probe(clip)
    start = time.perf_counter()
    landmarks = detect_landmarks(read_frames(clip, info), info)
    detected = time.perf_counter()
    crop = choose_crop(info, landmarks.head_boxes, landmarks.shoulder_boxes)
    tracking = track(landmarks, crop, body)
    tracked = time.perf_counter()
    upper, lower = (list(side) for side in zip(*GAPS, strict=True))
    points = landmark_points(body).vertices(tracking.parameters)
    pixels = points[..., :2] / points[..., 2:] * tracking.K[0, 0]
    observed = gather_evidence(landmarks, crop).observed
    shown, seen = ((where[:, upper] - where[:, lower]).norm(dim=-1).mean() for where in (pixels, observed))
    return {
        "size": f"{info.width}x{info.height}",
        "frames": info.frame_count,
        "mean error": float(tracking.landmark_error.nanmean()),
        "largest error": float(tracking.landmark_error.nan_to_num(0.0).max()),
        "opening": float(shown / seen),
        "bridged": int(tracking.bridged.sum()),
        "detection s/frame": (detected - start) / info.frame_count,
        "fit s/frame": (tracked - detected) / info.frame_count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    body = load_body()
    landmark_points(body)  # derives the correspondences where they are not cached
    rows = [measure(clip, body) for clip in options.clips]
    sys.argv[1:] = ["CLIP..."]  # other people's clips are not named in the results
    report("tracking", rows, threads=options.threads)


if __name__ == "__main__":
    main()
