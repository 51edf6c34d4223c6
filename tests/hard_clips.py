"""Clips that try what people film: made from the example by drawing over it, cutting it and distorting it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from portraitgen.clip import ClipInfo, probe, read_frames, write_video
from portraitgen.landmarks import FrameTimes, detect_landmarks

EXAMPLE = Path(__file__).parent.parent / "examples" / "portrait.mp4"
SIDE, RATE = 256, Fraction(25, 3)
EYES = ((33, 133), (362, 263))


@functools.cache
def acted() -> tuple[np.ndarray, np.ndarray]:
    """Every third frame of the example ``[25, SIDE, SIDE, 3]`` uint8 and its face landmarks ``[25, 478, 2]`` in pixels."""
    info = probe(EXAMPLE)
    frames = [frame for number, frame in enumerate(read_frames(EXAMPLE, info)) if number % 3 == 0]
    small = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
    times: FrameTimes = timed(len(frames))
    large = detect_landmarks(iter(frames), times).face[..., :2]
    return small, large * (SIDE / frames[0].shape[0])


def timed(count: int, rate: Fraction = RATE, times: Sequence[float] | None = None) -> ClipInfo:
    """What `write_video` needs to know."""
    times = tuple(number / float(rate) for number in range(count)) if times is None else tuple(times)
    end = times[-1] + 1 / float(rate)
    return ClipInfo(SIDE, SIDE, count, Fraction(count / end).limit_denominator(1001), end, False, 0, times)


def written(path: Path, frames: Sequence[np.ndarray], **options: object) -> Path:
    """The frames as a clip."""
    write_video(path, frames, timed(len(frames), **options), crf=8)  # type: ignore[arg-type]
    return path


def backdrop() -> np.ndarray:
    """The example's scene without the person, roughly."""
    frame = acted()[0][0]
    row = np.concatenate((frame[:60, :20], frame[:60, -20:]), axis=1).mean(0, keepdims=True)
    return cv2.resize(cv2.blur(row, (1, 9)), (SIDE, SIDE)).round().astype(np.uint8)


def other_person(turn: int = 100) -> list[np.ndarray]:
    """Somebody else in the same room: mirrored, a wider face, darker skin and hair, clothes of another hue by ``turn``."""
    frames = []
    for frame in acted()[0]:
        wide = cv2.resize(np.ascontiguousarray(frame[:, ::-1]), (round(1.25 * SIDE), SIDE))
        hue, saturation, value = cv2.split(cv2.cvtColor(wide[:, SIDE // 8 :][:, :SIDE], cv2.COLOR_RGB2HSV))
        clothes = saturation > 150
        hue[clothes] = (hue[clothes] + turn) % 180
        person = (saturation > 50) & ~clothes
        value[person] = (255 * (value[person] / 255) ** 2).astype(np.uint8)
        frames.append(cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2RGB))
    return frames


def with_hand(frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """A hand over mouth and nose: a palm and four fingers in the colour of the cheeks, with dark gaps between them."""
    out = frame.copy()
    skin = np.median(frame[tuple(face[[50, 280, 205, 425]].astype(int).T[::-1])], axis=0)
    middle, size = face[[4, 13]].mean(0), float(np.linalg.norm(face[10] - face[152]))
    for number in range(4):
        knuckle = middle + size * np.array((-0.3 + 0.2 * number, 0.25))
        tip = knuckle + size * np.array((0.05, -0.55))
        for width, shade in ((0.21, 0.5), (0.17, 0.9)):
            ends = [tuple(place.round().astype(int).tolist()) for place in (knuckle, tip)]
            cv2.line(out, *ends, (skin * shade).tolist(), round(width * size), cv2.LINE_AA)
    palm = tuple((middle + size * np.array((0, 0.42))).round().astype(int).tolist())
    cv2.ellipse(out, palm, (round(0.42 * size), round(0.25 * size)), 0, 0, 360, (skin * 0.85).tolist(), -1, cv2.LINE_AA)
    return out


def with_ball(frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """A green ball before one half of the face."""
    out, size = frame.copy(), float(np.linalg.norm(face[10] - face[152]))
    centre = tuple(face[[205, 50, 4]].mean(0).round().astype(int).tolist())
    cv2.ellipse(out, centre, (round(0.3 * size), round(0.38 * size)), 0, 0, 360, (40, 160, 60), -1, cv2.LINE_AA)
    return out


def with_glasses(frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Spectacles with thick dark frames."""
    out, size = frame.copy(), float(np.linalg.norm(face[33] - face[263]))
    middles = [face[list(corners)].mean(0) for corners in EYES]
    reach = size * np.array((0.27, 0.2))
    for middle in middles:
        low, high = ((middle + sign * reach).round().astype(int).tolist() for sign in (-1, 1))
        cv2.rectangle(out, tuple(low), tuple(high), (25, 20, 20), max(2, round(0.05 * size)), cv2.LINE_AA)
    bridge = [(middles[0] + reach * (1, 0)), (middles[1] - reach * (1, 0))]
    ends = [tuple(place.round().astype(int).tolist()) for place in bridge]
    cv2.line(out, *ends, (25, 20, 20), max(2, round(0.05 * size)), cv2.LINE_AA)
    return out


def smeared(frame: np.ndarray, length: int = 23) -> np.ndarray:
    """Motion blur along a slanted line."""
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (0, length // 3), (length - 1, length - 1 - length // 3), 1.0, 1)
    return cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
