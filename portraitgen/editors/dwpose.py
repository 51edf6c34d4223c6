"""Poses as the try-on network was taught them: DWPose's 133 points of one person, and the grey stick figures drawn from them.

Where the person is, the caller knows, so no person detector is needed. Network: dw-ll_ucoco_384 of DWPose (Yang et al., ICCV 2023
workshops; Apache-2.0) as ONNX.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SEEN = 0.3  # score from which a point counts
MARGIN = 1.25  # of the box around the person
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # applied to blue, green, red, in this order
BODY, FACE, HANDS = 18, slice(18, 86), (slice(86, 107), slice(107, 128))  # in what `find_pose` returns

# The network's points (COCO whole body: 17 of the body, 6 of the feet, 68 of the face, 2 times 21 of the hands) in drawing order,
# less the neck: nose; right shoulder, elbow, wrist; left ones; right hip, knee, ankle; left ones; right, left eye; right, left ear.
BODY_ORDER = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
SHOULDERS = (5, 6)
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
LIMB_VALUES = np.linspace(20, 240, 18).astype(np.uint8)
FINGER_VALUES = np.linspace(160, 220, len(FINGERS)).astype(np.uint8)
STICK, LIMB_DIMMING, JOINT_GAIN = 4, 0.6, 1.3
HAND_VALUE, FACE_VALUE = 240, 200


@functools.lru_cache(maxsize=1)
def load_network(file: Path) -> Any:
    """The ONNX session of the pose network; it runs on the CPU, where one person takes a fraction of a second."""
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def find_pose(network: Any, picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points of the person in ``box``: ``[128, 2]`` pixels (x, y), NaN where not seen: body, face, left and right hand.

    Args:
        network: of `load_network`.
        picture: ``[H, W, 3]`` uint8 RGB.
        box: left, top, right, bottom in pixels.
    """
    entry = network.get_inputs()[0]
    height, width = entry.shape[2:]
    centre, extent = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * MARGIN
    scale = min(width / extent[0], height / extent[1])
    shift = np.array([width, height]) / 2 - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    crop = cv2.warpAffine(picture[..., ::-1], matrix, (width, height), flags=cv2.INTER_LINEAR)
    given = ((crop - np.array(MEAN)) / DEVIATION).transpose(2, 0, 1)[None].astype(np.float32)
    across, down = (answer[0] for answer in network.run(None, {entry.name: given}))  # [133, 2 W], [133, 2 H]
    places = np.stack([across.argmax(1), down.argmax(1)], 1) / 2
    scores = np.minimum(across.max(1), down.max(1))
    points = (places - shift) / scale
    points[scores <= SEEN] = np.nan
    neck = points[list(SHOULDERS)].mean(0)
    body = np.insert(points[list(BODY_ORDER)], 1, neck, axis=0)
    return np.concatenate([body, points[23:]])


def draw_pose(points: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """The stick figure of `find_pose`'s points, ``[height, width]`` uint8; black for None."""
    canvas = np.zeros((height, width), np.uint8)
    if points is None:
        return canvas
    seen = ~np.isnan(points).any(1)
    whole = np.nan_to_num(points).astype(int)
    for number, (start, end) in enumerate(LIMBS):
        if seen[start] and seen[end]:
            x, y = whole[start] - whole[end]
            middle = (whole[start] + whole[end]) // 2
            axes = (int(np.hypot(x, y)) // 2, STICK)
            outline = cv2.ellipse2Poly(middle.tolist(), axes, int(np.degrees(np.arctan2(y, x))), 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, int(LIMB_VALUES[number]))
    canvas = (canvas * LIMB_DIMMING).astype(np.uint8)
    for joint in np.flatnonzero(seen[:BODY]):
        first = next(number for number, limb in enumerate(LIMBS) if joint in limb)
        cv2.circle(canvas, whole[joint].tolist(), 4, min(255, int(LIMB_VALUES[first] * JOINT_GAIN)), -1)
    inside = seen & (whole > 0).all(1)  # beyond the left and upper edge, hands and face are not drawn
    for hand in HANDS:
        joints, shown = whole[hand], inside[hand]
        for number, (start, end) in enumerate(FINGERS):
            if shown[start] and shown[end]:
                cv2.line(canvas, joints[start].tolist(), joints[end].tolist(), int(FINGER_VALUES[number]), 2)
        for joint in np.flatnonzero(shown):
            cv2.circle(canvas, joints[joint].tolist(), 4, HAND_VALUE, -1)
    for point in whole[FACE][inside[FACE]]:
        cv2.circle(canvas, point.tolist(), 3, FACE_VALUE, -1)
    return canvas
