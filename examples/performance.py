"""How a person in an example clip acts: head motion, expressions, and a voice that the mouth follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from portraitgen.body import AnnyBody, BodyParameters

SOUND_RATE = 48_000  # samples a second
SEED = 0
MOUTH_LEAD = 0.03  # seconds by which lips run ahead of the sound
BLINK = ((-0.11, 0), (-0.02, 1), (0.03, 1), (0.18, 0))  # seconds about the moment, how far shut
NECK_SHARE = 0.4  # of the head's turn that the neck makes
BREATH = 0.06  # of a voice
SWAY = (1, 0.6, 0.25), (1, 2, 5), ((0.0, 1.1, 2.0), (0.5, 2.3, 4.0), (1.7, 0.4, 3.1))  # shares, periods a clip, phases

Keys = tuple[tuple[float, float], ...]  # moments in seconds and values, eased in between


@dataclass(frozen=True)
class Vowel:
    """How a vowel sounds and looks."""

    formants: tuple[tuple[float, float, float], ...]  # Hz, bandwidth in Hz, gain
    mouth: dict[str, float]  # facial actions at full loudness, added to the photo's
    breath: float = BREATH


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
    "ha": Vowel(
        ((800, 130, 1.0), (1350, 140, 0.5), (2800, 250, 0.2)),
        {"jawOpen": 0.12, "mouthUpperUp": 0.05},
        breath=0.25,
    ),
    "hum": Vowel(((300, 80, 1.0), (1000, 200, 0.15), (2200, 300, 0.05)), {"mouthPress": 0.2, "mouthShrugLower": 0.15}),
}


@dataclass(frozen=True)
class Performance:
    """What one person does in one clip, added to the pose of their photo, in which it begins and ends."""

    rate: int  # frames a second
    seconds: float
    syllables: tuple[tuple[float, float, float, str], ...]  # start and length in seconds, pitch in Hz, vowel
    yaw: Keys  # degrees of the head: turn,
    pitch: Keys  # nod
    roll: Keys  # and tilt
    torso_roll: Keys
    gaze: Keys  # degrees to the side
    blinks: tuple[float, ...]  # seconds at which the eyes are shut
    faces: dict[str, Keys] = field(default_factory=dict)  # facial action (both sides) to what is added to it
    sway: tuple[float, float] = (0.0, 0.0)  # of a camera held by hand: pixels, degrees

    @property
    def frame_count(self) -> int:
        return round(self.seconds * self.rate)

    @property
    def times(self) -> np.ndarray:
        """Of the frames, [T] seconds."""
        return np.arange(self.frame_count) / self.rate

    def shut(self) -> np.ndarray:
        """How far the lids are shut, [T] 0..1."""
        return np.max([eased(BLINK, self.times - moment) for moment in self.blinks], axis=0)

    def camera(self) -> np.ndarray:
        """How a camera held by hand strays, [T, 3]: pixels to the right and down, degrees; the same at the end as at the start."""
        shares, periods, phases = SWAY
        angles = 2 * np.pi * self.times[:, None, None] / self.seconds * periods + phases
        return (np.sin(angles) * shares).sum(-1) * (self.sway[0], 0.6 * self.sway[0], self.sway[1])


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


def sound(performance: Performance) -> np.ndarray:
    """The voice, [samples] float32 in -1..1: harmonics of a gliding tone under the formants of each vowel."""
    syllables = performance.syllables
    times = np.arange(round(performance.seconds * SOUND_RATE)) / SOUND_RATE
    keys = tuple((start + length / 3, np.log(hertz)) for start, length, hertz, _ in syllables)
    hertz = np.exp(eased(keys, times)) * (1 + 0.012 * np.sin(2 * np.pi * 5.3 * times))
    phase = 2 * np.pi * np.cumsum(hertz) / SOUND_RATE
    breath = np.random.default_rng(SEED).standard_normal(len(times))
    breath = np.convolve(breath, np.hanning(17) / np.hanning(17).sum(), mode="same")
    signal = np.zeros_like(times)
    for start, length, _, name in syllables:
        gain = loudness(start, length, times)
        heard = np.flatnonzero(gain > 0)
        span = slice(heard[0], heard[-1] + 1)
        voice = VOWELS[name].breath * breath[span]
        for harmonic in range(1, 19):
            at = harmonic * hertz[span]
            weight = sum(g / (1 + ((at - centre) / (2 * width)) ** 2) for centre, width, g in VOWELS[name].formants)
            voice = voice + (weight + 0.02) / harmonic**0.7 * np.sin(harmonic * phase[span])
        signal[span] += gain[span] * voice
    return (0.5 * signal / np.abs(signal).max()).astype(np.float32)


def perform(performance: Performance, still: BodyParameters, body: AnnyBody) -> BodyParameters:
    """All frames of the body, in the pose of `still` (one frame) at both ends."""
    times, count = performance.times, performance.frame_count
    rotations = still.rotations.repeat(count, 1, 1)
    turns = [np.deg2rad(eased(keys, times)) for keys in (performance.pitch, performance.yaw, performance.roll)]
    turn = torch.from_numpy(np.stack(turns, axis=-1)).float()
    rotations[:, body.joint_names.index("neck")] += NECK_SHARE * turn
    rotations[:, body.joint_names.index("head")] += (1 - NECK_SHARE) * turn
    gaze = torch.from_numpy(np.deg2rad(eased(performance.gaze, times))).float()
    for eye in ("eye_left", "eye_right"):
        rotations[:, body.joint_names.index(eye), 1] += gaze
    global_rotation = still.global_rotation.repeat(count, 1)
    global_rotation[:, 2] += torch.from_numpy(np.deg2rad(eased(performance.torso_roll, times))).float()
    translation = still.translation.repeat(count, 1)
    translation[:, 1] += torch.from_numpy(0.001 * (np.cos(2 * np.pi * times / times[-1]) - 1)).float()  # one breath
    expression = still.expression.repeat(count, 1)
    for name, values in actions(performance).items():
        for column, action in enumerate(body.expression_names):
            if action in (name, f"{name}Left", f"{name}Right"):
                expression[:, column] += torch.from_numpy(values).float()
    return BodyParameters(still.betas, rotations, expression.clamp(0, 1), global_rotation, translation)


def actions(performance: Performance) -> dict[str, np.ndarray]:
    """Facial action (both sides) to what is added to it, [T]."""
    times = performance.times
    total: dict[str, np.ndarray] = {name: eased(keys, times) for name, keys in performance.faces.items()}
    for start, length, _, vowel in performance.syllables:
        for name, amount in VOWELS[vowel].mouth.items():
            total[name] = total.get(name, 0) + amount * loudness(start, length, times + MOUTH_LEAD)
    total["cheekSquint"] = total.get("cheekSquint", 0) + 0.2 * performance.shut()
    return total
