"""Cutting a garment that nobody wears out of its photo: by transparency, or by a plain background."""

from __future__ import annotations

import os

import cv2
import numpy as np

PLAIN = 9.0  # CIELAB distance up to which colours along the border count as one background
SHADOW = 0.45  # weight of a difference in lightness alone: shadows lie on the background too
LARGEST_FACE = 0.33  # of the picture's height: beyond, the picture is of the face


def cut_out(cutout: np.ndarray, look_side: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture [h, w, 3] and the garment's silhouette [h, w] in [0, 1], both float32; None where no garment can be told apart.

    Args:
        cutout: [h, w, 4] float32 sRGB with straight alpha, in [0, 1].
        look_side: the longer side in pixels at which the picture is segmented.
    """
    picture, alpha = np.ascontiguousarray(cutout[..., :3], np.float32), cutout[..., 3]
    if (alpha < 0.5).mean() > 0.03:
        return picture, np.ascontiguousarray(alpha, np.float32)
    height, width = alpha.shape
    shrink = min(1.0, look_side / max(height, width))
    size = max(8, round(width * shrink)), max(8, round(height * shrink))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    away, plain = _from_background(lab)
    if not plain or face_height(small) > LARGEST_FACE:
        return picture, None
    solid = _plain_silhouette(small, lab, away)
    if solid.mean() > 0.95:
        return picture, None
    mask = cv2.resize(solid.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, 0.5 / shrink))
    return picture, np.clip(0.5 + (mask - 0.5) * 1.6, 0, 1)


def _from_background(lab: np.ndarray) -> tuple[np.ndarray, bool]:
    """Distance [h, w] of each colour from the background's, a smooth one through the border's colours, and whether that is plain.

    What is somewhat darker counts as nearer: shadows lie on the background too.
    """
    height, width = lab.shape[:2]
    band = max(2, round(0.02 * max(height, width)))
    border = np.ones((height, width), bool)
    border[band:-band, band:-band] = False
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.stack(
        [np.ones_like(x), x / width - 0.5, y / height - 0.5, (x / width - 0.5) ** 2, (y / height - 0.5) ** 2], -1
    )
    start = np.median(lab[border], 0)
    agree = np.linalg.norm(lab[border] - start, axis=1) < 3 * PLAIN
    for _ in range(4):
        if agree.sum() < 20:
            return np.full((height, width), 100.0, np.float32), False
        plane, *_ = np.linalg.lstsq(terms[border][agree], lab[border][agree], rcond=None)
        agree = np.linalg.norm(lab[border] - terms[border] @ plane, axis=1) < PLAIN
    difference = lab - terms @ plane
    away = np.linalg.norm(difference, axis=-1)
    sides = np.concatenate([away[:band].ravel(), away[:, :band].ravel(), away[:, -band:].ravel()])
    difference[..., 0] *= np.where((difference[..., 0] < 0) & (difference[..., 0] > -35), SHADOW, 1)
    return np.linalg.norm(difference, axis=-1).astype(np.float32), bool((sides < PLAIN).mean() > 0.72)


def _plain_silhouette(small: np.ndarray, lab: np.ndarray, away: np.ndarray) -> np.ndarray:
    """What is not background [h, w] bool: flooded from the border up to edges, then settled along the edges by graph cuts."""
    steps = (
        np.linalg.norm(np.stack([cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)]), axis=(0, 3)) / 8
    )
    gray = cv2.blur(away, (3, 3))
    passable = ((gray < PLAIN) & (steps < 2.2) | (gray < 1.2)).astype(np.uint8)
    padded = np.pad(passable, 1, constant_values=1)
    count, labels = cv2.connectedComponents(padded, connectivity=4)
    behind = (labels == labels[0, 0])[1:-1, 1:-1]
    # between arm and body the background shows again, cut off from the border
    for label in range(1, count):
        hole = (labels == label)[1:-1, 1:-1]
        if hole.sum() > 0.001 * hole.size and np.median(gray[hole]) < 0.35 * PLAIN:
            behind |= hole
    behind = cv2.morphologyEx(behind.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    solid = 1 - behind
    margin = np.ones((5, 5), np.uint8)
    trimap = np.where(solid == 1, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[cv2.erode(solid, margin) == 1] = cv2.GC_FGD
    trimap[cv2.dilate(solid, margin) == 0] = cv2.GC_BGD
    if 0 < solid.sum() < solid.size and (trimap == cv2.GC_FGD).any() and (trimap == cv2.GC_BGD).any():
        cv2.setRNGSeed(0)
        models = np.zeros((2, 1, 65))
        picture = np.rint(small * 255).astype(np.uint8)
        cv2.grabCut(picture, trimap, None, models[0], models[1], 2, cv2.GC_INIT_WITH_MASK)
        band = (trimap == cv2.GC_PR_FGD) | (trimap == cv2.GC_PR_BGD)
        settled = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        # cuts like short borders and close narrow gaps: where the colour is beyond doubt, it decides
        solid = np.where(band & (away < 0.3 * PLAIN), 0, np.where(band & (away > 4 * PLAIN), 1, settled)).astype(
            np.uint8
        )
    return solid == 1


def face_height(picture: np.ndarray) -> float:
    """Height of the largest face in ``picture`` [h, w, 3] float32 from forehead to chin, as a share of the picture's; 0 without one."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    from mediapipe.python.solutions.face_detection import FaceDetection

    with FaceDetection(model_selection=1, min_detection_confidence=0.6) as detector:
        found = detector.process(np.rint(picture * 255).astype(np.uint8)).detections
    return max((item.location_data.relative_bounding_box.height for item in found or ()), default=0.0)
