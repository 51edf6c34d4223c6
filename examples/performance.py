"""What the person in the example clip does: head motion, expressions, and the hummed melody that the mouth follows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from portraitgen.body import AnnyBody, BodyParameters

RATE = 25  # frames a second
FRAME_COUNT = 75
SOUND_RATE = 48_000  # samples a second
SEED = 0
MOUTH_LEAD = 0.03  # seconds by which lips run ahead of the sound

# Moments in seconds and values in degrees, eased in between: yaw (turn), pitch (nod), roll (tilt) on top of the still's pose.
HEAD_KEYS = {
    "yaw": ((0.0, 0), (0.2, 0), (0.85, 10), (1.1, 9), (1.8, -8), (2.1, -7.5), (2.75, 0), (3.0, 0)),
    "pitch": ((0.0, 0), (0.35, 4), (0.8, -2), (1.25, 4), (1.75, -0.5), (2.2, 5), (2.7, 0), (3.0, 0)),
    "roll": ((0.0, 0), (0.5, -3), (1.2, 3), (1.9, 2), (2.4, -2), (2.85, 0), (3.0, 0)),
}
TORSO_ROLL_KEYS = ((0.0, 0), (0.9, 0.5), (1.9, -0.5), (2.8, 0), (3.0, 0))  # degrees
BROW_KEYS = ((0.0, 0), (0.3, 0.1), (0.6, 0.6), (1.0, 0.1), (1.5, 0), (1.7, 0.5), (2.1, 0), (3.0, 0))
GAZE_KEYS = (
    (0.0, 0),
    (0.3, 0),
    (0.85, -6),
    (1.1, -6),
    (1.75, 6),
    (2.1, 6),
    (2.7, 0),
    (3.0, 0),
)  # degrees, against the turn
BLINK = ((-0.11, 0), (-0.02, 1), (0.03, 1), (0.18, 0))  # seconds about the moment, how far shut
BLINKS = (0.62, 1.48, 2.5)  # seconds at which the eyes are shut
NECK_SHARE = 0.4  # of the head's turn that the neck makes


@dataclass(frozen=True)
class Vowel:
    """How a vowel sounds and looks."""

    formants: tuple[tuple[float, float, float], ...]  # Hz, bandwidth in Hz, gain
    mouth: dict[str, float]  # facial actions at full loudness, added to the still's


VOWELS = {
    "a": Vowel(
        ((850, 110, 1.0), (1300, 120, 0.6), (2900, 200, 0.2)),
        {"jawOpen": 0.1, "mouthSmile": -0.15, "mouthUpperUp": -0.15},
    ),
    "o": Vowel(
        ((480, 90, 1.0), (880, 100, 0.6), (2700, 200, 0.08)),
        {
            "jawOpen": -0.02,
            "mouthFunnel": 0.3,
            "mouthPucker": 0.6,
            "mouthSmile": -0.3,
            "mouthDimple": -0.3,
            "mouthUpperUp": -0.2,
        },
    ),
    "e": Vowel(((560, 90, 1.0), (2050, 140, 0.5), (2900, 200, 0.25)), {"jawOpen": 0.0, "mouthStretch": 0.1}),
    "m": Vowel(
        ((280, 80, 1.0), (1100, 200, 0.12), (2300, 300, 0.04)),
        {"jawOpen": -0.2, "mouthSmile": -0.1, "mouthUpperUp": -0.2, "mouthLowerDown": -0.1, "mouthShrugLower": 0.45},
    ),
}
# Start and length in seconds, pitch in Hz, vowel: "mm-o-e-a, mm-a-o-e, a".
SYLLABLES = (
    (0.22, 0.22, 196.0, "m"),
    (0.42, 0.26, 220.0, "o"),
    (0.70, 0.20, 246.9, "e"),
    (0.92, 0.30, 261.6, "a"),
    (1.26, 0.18, 220.0, "m"),
    (1.42, 0.26, 246.9, "a"),
    (1.72, 0.26, 293.7, "o"),
    (2.00, 0.20, 261.6, "e"),
    (2.24, 0.46, 220.0, "a"),
)


def eased(keys: tuple[tuple[float, float], ...], times: np.ndarray) -> np.ndarray:
    """Values [T] at `times` [T] that rest at every key and swing smoothly between."""
    moments, values = np.array(keys, dtype=np.float64).T
    after = np.clip(np.searchsorted(moments, times, side="right"), 1, len(moments) - 1)
    share = np.clip((times - moments[after - 1]) / (moments[after] - moments[after - 1]), 0, 1)
    return values[after - 1] + (values[after] - values[after - 1]) * share**2 * (3 - 2 * share)


def loudness(start: float, length: float, times: np.ndarray) -> np.ndarray:
    """Of one syllable, 0..1 at `times`: a quick rise and a slower fall that runs into the next syllable."""
    rise = np.clip((times - start) / 0.07, 0, 1)
    fall = np.clip((start + length + 0.06 - times) / 0.13, 0, 1)
    return rise**2 * (3 - 2 * rise) * fall**2 * (3 - 2 * fall)


def sound() -> np.ndarray:
    """The melody, [samples] float32 in -1..1: harmonics of a gliding voice under the formants of each vowel."""
    times = np.arange(round(FRAME_COUNT / RATE * SOUND_RATE)) / SOUND_RATE
    keys = tuple((start + length / 3, np.log(hertz)) for start, length, hertz, _ in SYLLABLES)
    hertz = np.exp(eased(keys, times)) * (1 + 0.012 * np.sin(2 * np.pi * 5.3 * times))
    phase = 2 * np.pi * np.cumsum(hertz) / SOUND_RATE
    breath = np.random.default_rng(SEED).standard_normal(len(times))
    breath = np.convolve(breath, np.hanning(17) / np.hanning(17).sum(), mode="same")
    signal = np.zeros_like(times)
    for start, length, _, name in SYLLABLES:
        gain = loudness(start, length, times)
        heard = np.flatnonzero(gain > 0)
        span = slice(heard[0], heard[-1] + 1)
        voice = 0.06 * breath[span]
        for harmonic in range(1, 19):
            at = harmonic * hertz[span]
            weight = sum(g / (1 + ((at - centre) / (2 * width)) ** 2) for centre, width, g in VOWELS[name].formants)
            voice = voice + (weight + 0.02) / harmonic**0.7 * np.sin(harmonic * phase[span])
        signal[span] += gain[span] * voice
    return (0.5 * signal / np.abs(signal).max()).astype(np.float32)


def perform(still: BodyParameters, body: AnnyBody) -> BodyParameters:
    """FRAME_COUNT frames of the body that start and end in the pose of `still` (one frame)."""
    times = np.arange(FRAME_COUNT) / RATE
    rotations = still.rotations.repeat(FRAME_COUNT, 1, 1)
    turns = [np.deg2rad(eased(HEAD_KEYS[axis], times)) for axis in ("pitch", "yaw", "roll")]
    turn = torch.from_numpy(np.stack(turns, axis=-1)).float()
    rotations[:, body.joint_names.index("neck")] += NECK_SHARE * turn
    rotations[:, body.joint_names.index("head")] += (1 - NECK_SHARE) * turn
    gaze = torch.from_numpy(np.deg2rad(eased(GAZE_KEYS, times))).float()
    for eye in ("eye_left", "eye_right"):
        rotations[:, body.joint_names.index(eye), 1] += gaze
    global_rotation = still.global_rotation.repeat(FRAME_COUNT, 1)
    global_rotation[:, 2] += torch.from_numpy(np.deg2rad(eased(TORSO_ROLL_KEYS, times))).float()
    translation = still.translation.repeat(FRAME_COUNT, 1)
    translation[:, 1] += torch.from_numpy(0.001 * (np.cos(2 * np.pi * times / times[-1]) - 1)).float()  # one breath
    expression = still.expression.repeat(FRAME_COUNT, 1)
    for name, values in actions(times).items():
        for column, action in enumerate(body.expression_names):
            if action in (name, f"{name}Left", f"{name}Right"):
                expression[:, column] += torch.from_numpy(values).float()
    return BodyParameters(still.betas, rotations, expression.clamp(0, 1), global_rotation, translation)


def actions(times: np.ndarray) -> dict[str, np.ndarray]:
    """Facial action (both sides) to what is added to it, [T]."""
    total: dict[str, np.ndarray] = {}
    for start, length, _, vowel in SYLLABLES:
        for name, amount in VOWELS[vowel].mouth.items():
            total[name] = total.get(name, 0) + amount * loudness(start, length, times + MOUTH_LEAD)
    brows = eased(BROW_KEYS, times)
    return total | {"browInnerUp": 0.7 * brows, "browOuterUp": 0.6 * brows, "cheekSquint": 0.2 * blinks(times)}


def blinks(times: np.ndarray) -> np.ndarray:
    """How far the lids are shut, [T] 0..1."""
    return np.max([eased(BLINK, times - moment) for moment in BLINKS], axis=0)


def frame_times() -> tuple[tuple[float, ...], Fraction]:
    """Times of the frames in seconds, and their rate."""
    return tuple(index / RATE for index in range(FRAME_COUNT)), Fraction(RATE)
