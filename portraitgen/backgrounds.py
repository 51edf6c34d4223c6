"""What stands behind the person in a result: the clip's own scene, kept, edited or blurred; a colour; a picture; nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .clip import read_frames, read_gray
from .editors.pictures import read_picture
from .errors import InputError
from .mattes import clip_bars, load_screening
from .portrait import Portrait
from .storage import names_file

SCENES = ("auto", "original", "edited", "blur", "transparent")
NAMED = {"white": (255, 255, 255), "green": (0, 177, 64)}
_BLUR = 0.02  # of the frame's height, the sigma of a blurred background
_SAMPLES = 6
_STILL = 4.0  # grey levels that a scene may differ from its plate on average, and still count as still
_MOVING_SHARE = 0.01  # of its pixels that may differ clearly
_CLEARLY = 32.0

SceneEdit = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Background:
    """A background as it was asked for.

    Attributes:
        scene: one of `SCENES`, or None for a fixed one. "auto" keeps the clip's scene unless the edit is about it.
        picture: colour ``[1, 1, 3]`` or picture ``[H, W, 3]`` uint8 of a fixed one.
    """

    scene: str | None
    picture: np.ndarray | None = None

    @property
    def suffix(self) -> str:
        """Ending of a file that can hold the result."""
        return ".webm" if self.scene == "transparent" else ".mp4"


def parse_background(background: str) -> Background:
    """A scene's name, "white", "green", "#rrggbb" or a picture's path; raises InputError for anything else."""
    if background in SCENES:
        return Background(background)
    if background in NAMED:
        return Background(None, np.array(NAMED[background], np.uint8)[None, None])
    if re.fullmatch(r"#[0-9a-fA-F]{6}", background):
        return Background(None, np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)[None, None])
    if names_file(background):
        picture = (read_picture(Path(background)) * 255).round().byte().permute(1, 2, 0).numpy()
        return Background(None, picture)
    shown = background if len(background) < 60 else background[:57] + "…"
    raise InputError(
        f"There is no background {shown!r}. Use {', '.join(SCENES[1:])}, white, green, a colour such as #204080, or a "
        "picture's path."
    )


def covering(background: np.ndarray, width: int, height: int) -> np.ndarray:
    """The background scaled to cover the frame, its middle kept, ``[height, width, 3]`` uint8."""
    scale = max(width / background.shape[1], height / background.shape[0])
    size = max(width, round(background.shape[1] * scale)), max(height, round(background.shape[0] * scale))
    large = cv2.resize(background, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def blurred(scene: np.ndarray) -> np.ndarray:
    """A scene ``[H, W, 3]`` uint8 out of focus."""
    small = cv2.resize(scene, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), _BLUR * scene.shape[0] / 4, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(soft, scene.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def stands_still(portrait: Portrait, plate: np.ndarray) -> bool:
    """Whether the scene behind the person stays as it is in ``plate`` ``[H, W, 3]`` uint8, but for noise."""
    total, away, bars = portrait.clip.frame_count, load_screening(portrait).away, clip_bars(portrait)
    wanted = set(np.linspace(0, total - 1, min(_SAMPLES, total)).round().astype(int).tolist())
    streams = zip(read_frames(portrait.source, portrait.clip), read_gray(portrait.path("alpha.mp4")), strict=True)
    for number, (frame, alpha) in enumerate(streams):
        if number not in wanted or away[number]:
            continue
        outer, inner = portrait.crop.window(frame)
        free = np.ones(frame.shape[:2], bool)
        person = cv2.dilate(portrait.crop.enlarged(alpha)[inner], np.ones((15, 15), np.uint8))
        free[outer] = person < 8
        difference = cv2.absdiff(cv2.blur(bars.fill(frame), (5, 5)), cv2.blur(plate, (5, 5))).max(2)
        difference = bars.picture(difference)[bars.picture(free)]
        if difference.size and (difference.mean() > _STILL or (difference > _CLEARLY).mean() > _MOVING_SHARE):
            return False
    return True
