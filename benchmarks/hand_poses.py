"""How well hands are posed that are known: drawn gestures, looked at by MediaPipe, fitted, and seen again from the side.

    python benchmarks/hand_poses.py [--body anny|smplx]

A hand of the body's own model waves, comes nearer and turns for 1.2 s: open, half closed, as a fist, pointing, with its back and its edge
to the camera. Columns, means over all frames:

- seen %: frames in which MediaPipe finds it;
- picture px: joints of the fitted hand beside the true ones, in a picture of 480 pixels with a palm of about 85;
- shape mm: the same in space, apart from where the hand as a whole is; distance %: how much too far away it is;
- ±25, ±35: of the layer as another camera sees it and the true hand drawn from there, intersection over union.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import ROOT, report

sys.path.insert(0, str(ROOT))

from portraitgen.body import SkinnedBody, axis_angle_to_matrix, load_body
from portraitgen.clip import ClipInfo
from portraitgen.crop import Crop
from portraitgen.free_view import orbit_viewmats
from portraitgen.hand_correspondences import draw, upright
from portraitgen.hand_model import FIRST, SIDES, HandModel, HandPoses, load_hand, resting
from portraitgen.hand_relief import Relief
from portraitgen.hand_tracking import fit_hand
from portraitgen.hands import HandFinder
from portraitgen.mesh import rasterize_mesh
from portraitgen.portrait import Portrait, Settings

SIZE, COUNT, RATE = 480, 36, 30
K = torch.tensor([[1.6 * SIZE, 0, SIZE / 2], [0, 1.6 * SIZE, SIZE / 2], [0, 0, 1]])
PIVOT = torch.tensor((0.0, 0.0, 0.75))
TURNS = (25.0, 35.0)
# Turn of the palm away from the camera, and how far index finger and the other three are bent, radians.
GESTURES = {
    "open": (0.1, 0.1, 0.1),
    "half closed": (0.2, 0.6, 0.6),
    "fist": (0.2, 1.2, 1.2),
    "pointing": (0.3, 0.1, 1.3),
    "back": (np.pi, 0.2, 0.2),
    "edge": (1.0, 0.3, 0.3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", default="anny")
    options = parser.parse_args()
    body = load_body(options.body)
    rows = [
        {"body": body.name, "hand": side, "gesture": name} | measure(body, load_hand(body, side), *facts)
        for side in SIDES
        for name, facts in GESTURES.items()
    ]
    report("hand_poses", rows)


@torch.no_grad()
def measure(body: SkinnedBody, hand: HandModel, yaw: float, index: float, others: float) -> dict[str, Any]:
    """Numbers about one gesture."""
    betas = torch.zeros(body.shape_count)
    truth = gesture(hand, betas, yaw, index, others)
    pictures = draw(hand, betas, truth, K, SIZE)
    finder = HandFinder(np.arange(COUNT) / RATE)
    for number, picture in enumerate(pictures):
        finder.see(number, picture)
    finder.close()
    hands = finder.found()
    if hands is None:
        return {"seen %": 0.0}
    gestures = []
    for run in np.unique(hands.runs):
        rows = hands.runs == run
        points, world, seen = (torch.from_numpy(x[rows]) for x in (hands.points, hands.world, hands.seen))
        with torch.enable_grad():
            gestures.append(fit_hand(hand, betas, K, points, world, seen, 1 / RATE))
    found = HandPoses(*(torch.cat([poses.tensors()[name] for poses in gestures]) for name in gestures[0].tensors()))
    mine = truth[torch.from_numpy(hands.frames)]
    wanted, joints = hand.landmarks(betas, mine), hand.landmarks(betas, found)
    centred = [x - x.mean(1, keepdim=True) for x in (wanted, joints)]
    beside = (flat(wanted) - flat(joints)).norm(dim=2)
    layers = (rasterize_mesh(hand.vertices(betas, truth), hand.faces, K, SIZE, SIZE)[0] >= 0).numpy()
    with tempfile.TemporaryDirectory() as folder:
        info = ClipInfo(SIZE, SIZE, COUNT, Fraction(RATE), COUNT / RATE, False, 0, tuple(np.arange(COUNT) / RATE))
        settings = Settings("0" * 64, "preview", body.name, 0.0, None, 0)
        portrait = Portrait(Path(folder), settings, "source.mp4", info, Crop(0, 0, SIZE, SIZE), {})
        portrait.save_tensors("hands.safetensors", hands.to_tensors())
        portrait.save_tensors("screening.safetensors", {"bars": torch.zeros(4, dtype=torch.long)})
        portrait.save_tensors("hand_poses.safetensors", found.tensors() | {"betas": betas})
        turned = {
            f"±{turn:.0f}": float(
                np.mean([overlap(portrait, hand, truth, pictures, layers, angle) for angle in (-turn, turn)])
            )
            for turn in TURNS
        }
    return {
        "seen %": 100 * float(np.mean(np.isin(np.arange(COUNT), hands.frames))),
        "picture px": float(beside.mean()),
        "shape mm": 1000 * float((centred[0] - centred[1]).norm(dim=2).mean()),
        "distance %": 100 * float((joints[..., 2].mean(1) / wanted[..., 2].mean(1) - 1).mean()),
    } | turned


def gesture(hand: HandModel, betas: torch.Tensor, yaw: float, index: float, others: float) -> HandPoses:
    """The true poses of a gesture."""
    share = torch.linspace(0, 1, COUNT)
    zero = torch.zeros(COUNT)
    about = axis_angle_to_matrix(torch.stack([zero, zero + yaw, zero], 1))
    wave = axis_angle_to_matrix(torch.stack([0.2 * share, 0.3 * (share - 0.5), 0.4 * torch.sin(6 * share)], 1))
    poses = resting(COUNT, betas)
    poses.orientation = wave @ about @ upright(hand, betas)
    poses.translation = torch.stack([-0.05 + 0.1 * share, 0.06 - 0.05 * share, 0.65 - 0.05 * share], 1)
    bends = torch.tensor([index, others, others, others])[:, None, None] * hand.axes(betas)[1:, :, 2]
    poses.rotations = torch.cat([poses.rotations[:, : FIRST[1]], bends.flatten(0, 1).expand(COUNT, 12, 3)], 1)
    return poses


def flat(points: torch.Tensor) -> torch.Tensor:
    return points[..., :2] / points[..., 2:] * K[0, 0] + SIZE / 2


def overlap(
    portrait: Portrait,
    hand: HandModel,
    truth: HandPoses,
    pictures: list[np.ndarray],
    layers: np.ndarray,
    yaw: float,
) -> float:
    """Intersection over union of the layer seen from ``yaw`` degrees and the true hand, where the layer does not fade."""
    betas = torch.zeros(len(hand.skin.shape_basis))
    viewmats = orbit_viewmats(PIVOT, np.full(COUNT, yaw), np.zeros(COUNT))
    relief = Relief(portrait, K, viewmats)
    turn, shift = viewmats[:, :3, :3], viewmats[:, :3, 3]
    place = (turn @ truth.translation[..., None])[..., 0] + shift
    seen = HandPoses(turn @ truth.orientation, place, truth.rotations, truth.scale)
    true = (rasterize_mesh(hand.vertices(betas, seen), hand.faces, K, SIZE, SIZE)[0] >= 0).numpy()
    upper = np.arange(SIZE)[:, None] < SIZE * 3 // 4
    shares = []
    for number in range(2, COUNT - 2, 6):
        if not (relief.hands.frames == number).any():
            continue
        _, alpha = relief(number, pictures[number].astype(np.float32) / 255, layers[number].astype(np.float32))
        found = (alpha > 0.5) & upper
        shares.append((found & true[number]).sum() / ((found | true[number]) & upper).sum())
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
