"""Numbers about a portrait and about an edit of it: sharpness, fidelity on held-out frames, steadiness, expression drift."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .clip import ClipInfo, probe, read_frames
from .errors import InputError
from .hand_layer import has_hands, with_hands
from .landmarks import detect_landmarks
from .losses import PerceptualLoss, psnr, ssim
from .mattes import clean_crops, crops_with_alpha, inside_picture, load_screening
from .portrait import Portrait
from .reconstruction import load_fitted
from .rendering import RenderedCrop, render_crops

_EYE_CORNERS = (33, 263)
_MEASURES = ("psnr", "psnr_256", "ssim", "perceptual")
_SMALL = 256


def evaluate_reconstruction(portrait: Portrait, device: torch.device) -> dict[str, Any]:
    """Compare the avatar with the clip, in the part of the working crop that shows the clip's picture, over white and free of a
    screen's light.

    Returns:
        ``held_out`` and ``trained`` frame counts with PSNR (dB; ``psnr_256``: of the crop shrunk to 256²), SSIM and perceptual distance
        each, ``sharpness`` (mean gradient magnitude inside the person in the full frame, ours over the source's), ``track_error``
        (fractions of the inter-ocular distance), ``gaussians``, ``frames_per_second`` of rendering and ``seconds``.
    """
    fitted = load_fitted(portrait, device)
    tracking = portrait.tracking()
    perceptual = PerceptualLoss(device)
    rows: dict[str, list[tuple[float, ...]]] = {"trained": [], "held_out": []}
    sharpness, rendering_seconds = [], 0.0
    away = load_screening(portrait).away
    inside = inside_picture(portrait).to(device)
    renders = render_crops(portrait, fitted, tracking.K)
    if has_hands(portrait):
        renders = with_hands(portrait, renders)
    clip = zip(read_frames(portrait.source, portrait.clip), clean_crops(portrait), strict=False)
    for number, (frame, (crop, alpha)) in enumerate(clip):
        started = time.perf_counter()
        rendering = next(renders)
        rendering_seconds += time.perf_counter() - started
        if away[number]:
            continue
        ours = torch.from_numpy(rendering.color + (1 - rendering.alpha[..., None])).clamp(0, 1)
        matte = alpha[..., None].astype(np.float32) / 255
        truth = torch.from_numpy(crop.astype(np.float32) / 255 * matte + 1 - matte)
        a, b = (x.permute(2, 0, 1)[None].to(device) for x in (ours, truth))
        row = _compare(a, b, inside, perceptual)
        rows["trained" if number < portrait.trained_frames else "held_out"].append(row)
        sharpness.append(_sharpness(portrait, frame, alpha, rendering))
    result: dict[str, Any] = {"perceptual_network": perceptual.name}
    for name, values in rows.items():
        mean = np.mean(values, 0) if values else (None,) * len(_MEASURES)
        result[name] = {"frames": len(values)} | {
            key: None if value is None else round(float(value), 4) for key, value in zip(_MEASURES, mean, strict=True)
        }
    result["sharpness"] = round(float(np.mean(sharpness)), 4)
    error = tracking.landmark_error[~torch.isnan(tracking.landmark_error)]
    result["track_error"] = {"mean": round(float(error.mean()), 5), "max": round(float(error.max()), 5)}
    result["gaussians"] = len(fitted.avatar)
    result["frames_per_second"] = round(portrait.clip.frame_count / rendering_seconds, 3)
    result["seconds"] = portrait.stages
    return result


@torch.no_grad()
def _compare(ours: Tensor, truth: Tensor, inside: Tensor, perceptual: PerceptualLoss) -> tuple[float, ...]:
    """`_MEASURES` of working crops ``[1, 3, S, S]`` where ``inside`` ``[S, S]``, a rectangle, shows the clip's frame."""
    rows, columns = inside.any(1), inside.any(0)
    pair = [x[..., rows, :][..., columns] for x in (ours, truth)]
    small = [torch.nn.functional.interpolate(x, scale_factor=_SMALL / len(inside), mode="area") for x in pair]
    return psnr(*pair), psnr(*small), float(ssim(*pair)), float(perceptual(*pair))


def _sharpness(portrait: Portrait, frame: np.ndarray, alpha: np.ndarray, rendering: RenderedCrop) -> float:
    """Mean gradient magnitude inside the person of the full frame with the render laid over it, over that of the frame itself."""
    crop = portrait.crop
    pasted = crop.paste(frame, rendering.straight(), rendering.alpha)
    outer, inner = crop.window(frame)
    inside = cv2.erode(crop.enlarged(alpha), np.ones((7, 7), np.uint8))[inner] > 250
    ours, source = (_gradient(picture[outer].astype(np.float32))[inside].sum() for picture in (pasted, frame))
    return float(ours / max(1e-6, source))


def evaluate_edit(portrait: Portrait, edited: Path) -> dict[str, Any]:
    """Compare an edited full-frame video with the portrait's clip.

    Returns:
        ``warp_error`` (mean absolute difference of neighbouring edited frames along the source's optical flow, inside the person, in
        [0, 1]) and ``source_warp_error``; ``landmark_drift`` (mean distance of face landmarks in edit and source, fraction of the
        inter-ocular distance, None where the edit has no detectable face) and on how many frames a face was found.
    """
    info = probe(edited)
    clip = portrait.clip
    if (info.width, info.height, info.frame_count) != (clip.width, clip.height, clip.frame_count):
        raise InputError(
            f"{edited} has {info.frame_count} frames of {info.width}x{info.height}, the portrait's clip {clip.frame_count} of "
            f"{clip.width}x{clip.height}. Give the video that `edit` wrote for this portrait."
        )
    ours, source = warp_errors(portrait, read_frames(edited, info))
    drift = landmark_drift(portrait, edited, info)
    return {
        "warp_error": round(ours, 5),
        "source_warp_error": round(source, 5),
        "landmark_drift": None if drift is None else round(drift[0], 5),
        "faces_found": 0 if drift is None else drift[1],
        "frames": info.frame_count,
    }


def warp_errors(
    portrait: Portrait, edited: Iterable[np.ndarray], within: Iterable[np.ndarray] | None = None
) -> tuple[float, float]:
    """Flow warp error of edited full frames (as many from the start as there are) and of the source itself.

    Inside the person, where the source's flow is consistent, and ``within`` the masks ``[S, S]`` of the working crops, if there are any.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    errors = []
    edits = (portrait.crop.extract(frame) for frame in edited)
    masks = itertools.repeat(True) if within is None else within
    moments = zip(crops_with_alpha(portrait), edits, masks, strict=False)
    for ((before, matte), edit_before, mask), ((after, _), edit_after, _) in itertools.pairwise(moments):
        grays = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (before, after)]
        motion = flow.calc(grays[0], grays[1], None)
        warped = _warp(after, motion)
        same = (np.abs(warped.astype(np.float32) - before).mean(2) < 20) & (matte > 128) & mask
        if same.any():
            pair = [
                np.abs(_warp(x, motion).astype(np.float32) - y)[same].mean() / 255
                for x, y in ((edit_after, edit_before), (after, before))
            ]
            errors.append(pair)
    if not errors:
        return 0.0, 0.0
    ours, source = np.mean(errors, 0)
    return float(ours), float(source)


def _warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(
        image, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def landmark_drift(portrait: Portrait, edited: Path, info: ClipInfo) -> tuple[float, int] | None:
    """Mean distance of face landmarks in an edited video (``info`` is its `probe`) of the clip's first frames, or all, and in the clip.

    Returns:
        The distance as a fraction of that between the outer corners of the eyes, and in how many frames a face was found; None without one.
    """
    before = portrait.load_tensors("landmarks.safetensors")["face"][: info.frame_count, :, :2].numpy()
    try:
        after = detect_landmarks(read_frames(edited, info), info).face[..., :2]
    except InputError:
        return None
    ocular = np.nanmedian(np.linalg.norm(before[:, _EYE_CORNERS[0]] - before[:, _EYE_CORNERS[1]], axis=-1))
    distance = np.linalg.norm(np.asarray(after) - before, axis=-1).mean(1) / ocular
    found = ~np.isnan(distance)
    return (float(distance[found].mean()), int(found.sum())) if found.any() else None


def _gradient(image: np.ndarray) -> np.ndarray:
    gray = image.mean(2)
    return np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
