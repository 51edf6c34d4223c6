"""Where MediaPipe sees the joints of a hand model, found by drawing it and letting MediaPipe look at it.

It is up to a centimetre and a half beside them: a wrist nearer to the fingers, knuckles on the palm.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .body import axis_angle_to_matrix
from .hand_model import FIRST, HandModel, HandPoses, resting
from .mesh import interpolate, rasterize_mesh, vertex_normals

_SIZE, _FOCAL, _DISTANCE = 384, 1.6, 0.6  # pixels, sides of the picture, metres
_BENDS = (0.1, 0.7)  # radians, of every joint of four fingers
_VIEWS = tuple(product((-0.3, 0.0, 0.3), (-0.4, 0.0, 0.4)))  # pitch and yaw, with the palm to the camera
_BACK = tuple(product((-0.2, 0.2), (math.pi - 0.3, math.pi + 0.3)))  # the same with the back of the hand
_SKIN, _BACKDROP = (0.8, 0.6, 0.5), (0.35, 0.4, 0.45)
_LIGHT = (-0.3, -0.6, -0.7)
_PRIOR = 0.3  # squared sines of the angle between views that tell of depth: the less there is of it, the less is said


def upright(hand: HandModel, betas: Tensor) -> Tensor:
    """The orientation ``[3, 3]`` of a hand at rest with the middle finger up and the palm to the camera."""
    points = hand.landmarks(betas, resting(1, betas))[0]
    up = F.normalize(points[9] - points[0], dim=0)
    palm = hand.axes(betas)[1, 0, 1]
    palm = F.normalize(palm - up * (palm @ up), dim=0)
    return torch.stack([torch.linalg.cross(up, palm), -up, -palm])


def landmark_offsets(hand: HandModel, betas: Tensor) -> Tensor:
    """What lies between a joint and where MediaPipe sees it, on the hand at rest ``[21, 3]``, metres.

    All zero for a hand that MediaPipe does not take for one.

    Args:
        betas: the shape ``[P]``, on the CPU.
    """
    from mediapipe.python.solutions.hands import Hands as Graph

    poses = _poses(hand, betas)
    points, turns = hand.landmarks(betas, poses), hand.turns(betas, poses)[..., :2, :]
    K = torch.tensor([[_FOCAL * _SIZE, 0, _SIZE / 2], [0, _FOCAL * _SIZE, _SIZE / 2], [0, 0, 1]])
    matrix, right = torch.zeros(21, 3, 3), torch.zeros(21, 3)
    with Graph(static_image_mode=True, max_num_hands=1, min_detection_confidence=0.4) as graph:
        for turn, joints, picture in zip(turns, points, draw(hand, betas, poses, K, _SIZE), strict=True):
            found = graph.process(picture).multi_hand_landmarks
            if not found:
                continue
            seen = torch.tensor([(p.x * _SIZE, p.y * _SIZE) for p in found[0].landmark])
            beside = (seen - _SIZE / 2) * joints[:, 2:] / (_FOCAL * _SIZE) - joints[:, :2]
            matrix += turn.transpose(1, 2) @ turn
            right += (turn.transpose(1, 2) @ beside[..., None])[..., 0]
    return torch.linalg.solve(matrix + _PRIOR * torch.eye(3), right)


def _poses(hand: HandModel, betas: Tensor) -> HandPoses:
    """An open hand and a half closed one with the palm to the camera from several sides, and with the back to it."""
    views = torch.tensor([(bend, *view) for bend in _BENDS for view in _VIEWS] + [(0.2, *view) for view in _BACK])
    poses = resting(len(views), betas)
    turns = axis_angle_to_matrix(torch.nn.functional.pad(views[:, 1:], (0, 1)))
    poses.orientation = turns @ upright(hand, betas)
    bends = views[:, :1, None, None] * hand.axes(betas)[1:, :, 2]
    poses.rotations = torch.cat([poses.rotations[:, : FIRST[1]], bends.flatten(1, 2)], 1)
    middle = hand.landmarks(betas, poses)[:, 9]
    poses.translation = torch.tensor((0.0, 0.0, _DISTANCE)) - middle
    return poses


def draw(hand: HandModel, betas: Tensor, poses: HandPoses, K: Tensor, size: int) -> list[np.ndarray]:
    """Pictures ``[N, size, size, 3]`` uint8 of a hand in front of a plain wall.

    Args:
        K: intrinsics ``[3, 3]``.
    """
    vertices = hand.vertices(betas, poses)
    light = vertex_normals(vertices, hand.faces) @ F.normalize(torch.tensor(_LIGHT), dim=0)
    shades = (0.5 + 0.6 * light.clamp_min(0))[..., None] * torch.tensor(_SKIN)
    triangles, corners, _ = rasterize_mesh(vertices, hand.faces, K, size, size)
    shown = interpolate(shades[:, hand.faces], triangles, corners)
    shown = torch.where((triangles >= 0)[..., None], shown, torch.tensor(_BACKDROP))
    return list((shown.clamp(0, 1) * 255).round().byte().numpy())
