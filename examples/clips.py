"""The example clips: whose photo each is made of, what of it is shown, and what the person does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from performance import Performance
from pictures import Ellipse

Points = tuple[tuple[float, float], ...]


def astronaut() -> np.ndarray:
    """The official portrait of the astronaut Eileen Collins, [512, 512, 3] uint8."""
    from skimage import data

    return data.astronaut()


def admiral() -> np.ndarray:
    """The official portrait of Grace Hopper, computer scientist and rear admiral, [600, 512, 3] uint8."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@dataclass(frozen=True)
class Clip:
    """One clip; places in the photo are in its pixels."""

    name: str
    source: str
    photo: Callable[[], np.ndarray]
    part: tuple[int, int, int]  # top, left and side of the part of the photo that is animated
    scale: float  # enlargement of that part
    window: tuple[int, int, int, int]  # left, top, width and height of the clip in the enlarged part
    performance: Performance
    poster: tuple[int, int, int]  # left, top and side of the square of the clip that stands for it on the page
    collar: Ellipse | None = None  # the rim of a suit's ring
    worn: tuple[Points, ...] = ()  # outlines of what is stiff and moves with the skull


NASA = "NASA, public domain, via scikit-image; animated by examples/make_examples.py"
NAVY = "U.S. Navy, public domain, via matplotlib; animated by examples/make_examples.py"
RING: Ellipse = ((213.3, 220.7), (125.6, 197.3), 118.2)
# fmt: off
CAP: Points = (
    (148.4, 137.4), (147.2, 176), (157.3, 179.5), (165.6, 164.1), (177.4, 149.9), (201.1, 139.5),
    (227.8, 132.7), (266.3, 130.9), (301.9, 132.4), (331.5, 140.4), (349.3, 152.3), (362.7, 176),
    (369.5, 180.4), (371.5, 143.4), (369.5, 98.9), (365.6, 88.5), (353.8, 85.6), (352.3, 79.6),
    (334.5, 57.4), (319.7, 47.6), (300.4, 41.1), (296, 35.2), (278.2, 26.3), (257.4, 23),
    (233.7, 27.8), (220.4, 38.2), (213, 41.7), (189.3, 58.9), (174.5, 79.6), (174.5, 85.6),
    (162.6, 87.1), (155.2, 95.9), (150.2, 113.7),
)
SPECTACLES: Points = (
    (178.9, 178.9), (204.1, 176), (227.8, 174.5), (248.6, 181.9), (257.4, 184.3), (275.2, 182.8),
    (284.1, 176.9), (307.8, 170), (334.5, 168.6), (349.3, 170), (356.7, 180.4), (341.9, 191.4),
    (334.5, 208.6), (325.6, 220.4), (307.8, 228.1), (293, 226.9), (282.6, 217.5), (275.2, 199.7),
    (269.3, 190.8), (260.4, 190.8), (254.5, 202.6), (247.1, 221), (230.8, 231.4), (213, 231.4),
    (199.6, 221), (190.8, 202.6), (186.3, 191.4), (180.4, 185.5),
)
# fmt: on

HUMMING = Performance(
    rate=25,
    seconds=3.0,
    syllables=(  # "mm-o-e-a, mm-a-o-e, a"
        (0.22, 0.22, 196.0, "m"),
        (0.42, 0.26, 220.0, "o"),
        (0.70, 0.20, 246.9, "e"),
        (0.92, 0.30, 261.6, "a"),
        (1.26, 0.18, 220.0, "m"),
        (1.42, 0.26, 246.9, "a"),
        (1.72, 0.26, 293.7, "o"),
        (2.00, 0.20, 261.6, "e"),
        (2.24, 0.46, 220.0, "a"),
    ),
    yaw=((0.0, 0), (0.2, 0), (0.85, 10), (1.1, 9), (1.8, -8), (2.1, -7.5), (2.75, 0), (3.0, 0)),
    pitch=((0.0, 0), (0.35, 4), (0.8, -2), (1.25, 4), (1.75, -0.5), (2.2, 5), (2.7, 0), (3.0, 0)),
    roll=((0.0, 0), (0.5, -3), (1.2, 3), (1.9, 2), (2.4, -2), (2.85, 0), (3.0, 0)),
    torso_roll=((0.0, 0), (0.9, 0.5), (1.9, -0.5), (2.8, 0), (3.0, 0)),
    gaze=((0.0, 0), (0.3, 0), (0.85, -6), (1.1, -6), (1.75, 6), (2.1, 6), (2.7, 0), (3.0, 0)),  # against the turn
    blinks=(0.62, 1.48, 2.5),
    faces={
        "browInnerUp": ((0.0, 0), (0.3, 0.07), (0.6, 0.42), (1.0, 0.07), (1.5, 0), (1.7, 0.35), (2.1, 0), (3.0, 0)),
        "browOuterUp": ((0.0, 0), (0.3, 0.06), (0.6, 0.36), (1.0, 0.06), (1.5, 0), (1.7, 0.3), (2.1, 0), (3.0, 0)),
    },
)
LAUGHING = Performance(
    rate=30,
    seconds=3.2,
    syllables=(  # "o-a-e-o: ha ha ha ha ha"
        (0.15, 0.20, 233.1, "o"),
        (0.36, 0.24, 277.2, "a"),
        (0.62, 0.18, 246.9, "e"),
        (0.82, 0.26, 233.1, "o"),
        (1.32, 0.13, 370.0, "ha"),
        (1.54, 0.13, 349.2, "ha"),
        (1.76, 0.13, 329.6, "ha"),
        (1.98, 0.13, 293.7, "ha"),
        (2.21, 0.16, 261.6, "ha"),
    ),
    yaw=((0.0, 0), (0.1, 0), (0.7, -12), (1.05, -11), (1.7, 11), (2.2, 12), (2.95, 0), (3.2, 0)),
    pitch=((0.0, 0), (0.3, 3), (0.7, -1), (1.2, 2), (1.5, -5), (1.8, -3), (2.1, -6), (2.5, 3), (2.95, 0), (3.2, 0)),
    roll=((0.0, 0), (0.5, 3), (1.1, -2), (1.75, -6), (2.3, -4), (2.95, 0), (3.2, 0)),
    torso_roll=((0.0, 0), (0.8, -0.6), (1.8, 1.0), (2.9, 0), (3.2, 0)),
    gaze=((0.0, 0), (0.15, 0), (0.7, 8), (1.05, 8), (1.7, -7), (2.2, -7), (2.8, 0), (3.2, 0)),  # against the turn
    blinks=(0.42, 1.22, 2.55),
    faces={
        "browInnerUp": ((0.0, 0), (0.3, 0.35), (0.6, 0), (0.9, 0.3), (1.25, 0.1), (1.55, 0.4), (2.3, 0), (3.2, 0)),
        "browOuterUp": ((0.0, 0), (0.3, 0.3), (0.6, 0), (0.9, 0.3), (1.25, 0.1), (1.55, 0.3), (2.3, 0), (3.2, 0)),
        "cheekSquint": ((0.0, 0), (1.2, 0), (1.5, 0.5), (2.2, 0.5), (2.8, 0), (3.2, 0)),
        "mouthSmile": ((0.0, 0), (1.2, 0), (1.5, 0.15), (2.2, 0.15), (2.8, 0), (3.2, 0)),
    },
    sway=(6.0, 0.35),
)
NODDING = Performance(
    rate=25,
    seconds=3.2,
    syllables=(  # "mm-hm", and a short tune with closed lips
        (0.20, 0.24, 185.0, "hum"),
        (0.50, 0.30, 220.0, "hum"),
        (1.35, 0.24, 196.0, "hum"),
        (1.62, 0.20, 220.0, "hum"),
        (1.86, 0.20, 246.9, "hum"),
        (2.10, 0.50, 196.0, "hum"),
    ),
    yaw=((0.0, 0), (0.1, 0), (1.0, 1.5), (1.65, -7), (2.1, -6.5), (2.7, 3), (3.1, 0), (3.2, 0)),
    pitch=((0.0, 0), (0.1, 0), (0.4, 5), (0.65, 0.5), (0.9, 4), (1.15, 0), (1.8, -1), (2.4, 3), (2.75, -1), (3.2, 0)),
    roll=((0.0, 0), (0.3, 0), (1.15, 3), (1.8, -4), (2.3, -3), (2.95, 0), (3.2, 0)),
    torso_roll=((0.0, 0), (1.0, 0.5), (1.9, -0.6), (2.9, 0), (3.2, 0)),
    gaze=((0.0, 0), (1.05, 0), (1.3, -7), (2.0, -4), (2.2, 4), (2.7, 0), (3.2, 0)),
    blinks=(0.8, 2.12),
    faces={
        "mouthSmile": ((0.0, 0), (0.3, 0), (1.1, 0.45), (1.9, 0.2), (2.5, 0.5), (3.0, 0), (3.2, 0)),
        "cheekSquint": ((0.0, 0), (0.3, 0), (1.1, 0.3), (1.9, 0.1), (2.5, 0.35), (3.0, 0), (3.2, 0)),
    },
)
CLIPS = {
    clip.name: clip
    for clip in (
        Clip("portrait", NASA, astronaut, (0, 60, 336), 1.625, (17, 0, 512, 512), HUMMING, (110, 10, 290), RING),
        Clip(
            "upright",
            NAVY,
            admiral,
            (0, -40, 600),
            1.64,
            (225, 4, 540, 960),
            NODDING,
            (40, 30, 470),
            worn=(CAP, SPECTACLES),
        ),
        Clip("wide", NASA, astronaut, (0, 0, 512), 1.75, (21, 8, 854, 480), LAUGHING, (180, 0, 330), RING),
    )
}
