"""The working crop: which square is chosen, and the way in and out of it."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from portraitgen.clip import ClipInfo
from portraitgen.crop import Crop, choose_crop
from portraitgen.errors import InputError

UNKNOWN = np.full(4, np.nan)


def info(width: int, height: int, count: int = 20) -> ClipInfo:
    times = tuple(number / 25 for number in range(count))
    return ClipInfo(width, height, count, Fraction(25), count / 25, False, 0, times)


def boxes(x: float | np.ndarray, y: float, width: float, height: float, count: int = 20) -> np.ndarray:
    """``[T, 4]`` boxes about (x, y)."""
    x = np.broadcast_to(x, count)
    return np.stack([x - width / 2, np.full(count, y - height / 2), x + width / 2, np.full(count, y + height / 2)], 1)


def covers(crop: Crop, box: np.ndarray) -> bool:
    end = crop.left + crop.side, crop.top + crop.side
    return bool(crop.left <= box[0] and crop.top <= box[1] and end[0] >= box[2] and end[1] >= box[3])


def inside(crop: Crop, width: int, height: int) -> bool:
    return crop.left >= 0 and crop.top >= 0 and crop.left + crop.side <= width and crop.top + crop.side <= height


def test_head_shot_is_taken_whole() -> None:
    crop = choose_crop(info(512, 512), boxes(256, 230, 200, 260), boxes(256, 440, 460, 120))
    assert crop == Crop(0, 0, 512, 512)


def test_upper_body_in_a_wide_frame() -> None:
    head, shoulders = boxes(700, 250, 160, 220), boxes(700, 460, 480, 140)
    crop = choose_crop(info(1280, 720), head, shoulders)
    assert inside(crop, 1280, 720)
    assert covers(crop, head[0] + [-20, -60, 20, 20])
    assert covers(crop, shoulders[0])
    assert crop.side <= 2.8 * 220 + 1
    assert crop.size == 512


def test_small_person_gets_a_small_crop() -> None:
    crop = choose_crop(info(1920, 1080), boxes(400, 300, 80, 100), boxes(400, 400, 200, 60))
    assert 256 <= crop.side <= 290
    assert crop.size % 16 == 0
    assert 256 <= crop.size <= crop.side


def test_crop_is_shifted_into_the_frame() -> None:
    head = boxes(90, 120, 140, 180)
    crop = choose_crop(info(1280, 720), head, boxes(110, 300, 380, 120))
    assert inside(crop, 1280, 720)
    assert crop.left == 0
    assert covers(crop, head[0])


def test_person_moving_sideways_stays_in() -> None:
    head = boxes(np.linspace(250, 900, 20), 250, 160, 220)
    crop = choose_crop(info(1280, 720), head, boxes(np.linspace(250, 900, 20), 460, 400, 120))
    assert covers(crop, head[1])
    assert covers(crop, head[-2])
    assert crop.left >= 0


def test_shoulders_that_travel_stay_in_and_the_face_as_sharp() -> None:
    """The numbers of a clip whose camera pans: the square stood in the middle of the way and cut off an arm at either end of it."""
    head = boxes(np.linspace(520, 730, 20), 360, 260, 400)
    shoulders = boxes(np.linspace(600, 735, 20), 600, 660, 240)
    crop = choose_crop(info(1280, 720), head, shoulders)
    fading = 0.05 * crop.side
    assert crop.left <= shoulders[:, 0].min() - fading
    assert crop.left + crop.side >= shoulders[:, 2].max() + fading
    assert crop.size / crop.side == pytest.approx(512 / 720, rel=0.03)
    still = choose_crop(info(1280, 720), head[9:11].repeat(10, 0), shoulders[9:11].repeat(10, 0))
    assert (still.top, still.side, still.size) == (0, 720, 512), "no larger where it has room"
    far = choose_crop(info(1280, 720), head, boxes(np.linspace(200, 1080, 20), 600, 660, 240))
    assert (far.side, far.size) == (1080, 768), "no farther than the pixels go"


def test_single_wrong_boxes_do_not_count() -> None:
    head, shoulders = boxes(700, 250, 160, 220), boxes(700, 460, 480, 140)
    expected = choose_crop(info(1280, 720), head, shoulders)
    head[7] = [0, 0, 40, 40]
    head[[0, 12]] = UNKNOWN
    shoulders[5] = UNKNOWN
    assert choose_crop(info(1280, 720), head, shoulders) == expected


def test_unknown_shoulders_and_heads() -> None:
    nothing = np.tile(UNKNOWN, (20, 1))
    crop = choose_crop(info(1280, 720), boxes(640, 300, 160, 220), nothing)
    assert covers(crop, boxes(640, 300, 160, 220)[0])
    with pytest.raises(InputError, match="No face"):
        choose_crop(info(1280, 720), nothing, nothing)


@pytest.mark.parametrize(
    ("head", "side", "size"),
    [
        ((540, 700, 380, 500), 1920, 768),  # close to the camera: all of the frame
        ((540, 500, 250, 310), 1395, 656),  # down to the waist
        ((540, 500, 190, 250), 1080, 512),  # as wide as the frame
        ((540, 500, 110, 140), 630, 512),  # far away: the upper body alone
    ],
)
def test_upright_phone_video_shows_the_person_to_the_waist(head: tuple[int, ...], side: int, size: int) -> None:
    heads = boxes(*head)
    shoulders = boxes(head[0], head[1] + 0.9 * head[3], 2 * head[2], 0.6 * head[3])
    crop = choose_crop(info(1080, 1920), heads, shoulders)
    assert (crop.side, crop.size) == (side, size)
    assert covers(crop, heads[0])
    assert crop.top >= 0
    assert crop.top + crop.side <= 1920
    assert crop.left == pytest.approx(540 - side / 2, abs=1)


def test_extract_and_paste_are_inverse_at_equal_size() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    crop = Crop(30, 20, 256, 256)
    patch = crop.extract(frame)
    assert np.array_equal(patch, frame[20:276, 30:286])
    assert np.array_equal(crop.paste(frame, patch, np.ones((256, 256), np.float32)), frame)
    alpha = np.zeros((256, 256), np.float32)
    alpha[100:150, 100:150] = 1
    changed = crop.paste(frame, 255 - patch, alpha) != frame
    assert changed[120:170, 130:180].mean() > 0.9
    changed[120:170, 130:180] = False
    assert not changed.any()


@pytest.mark.parametrize("side", [200, 512, 700, 1024])
def test_the_transform_is_the_documented_one(side: int) -> None:
    """A spot lands at ``(x - left) * size / side`` and returns to where it was."""
    rows, columns = np.mgrid[:1100, :1200] + 0.5
    centre = np.array([90 + 0.4 * side, 50 + 0.6 * side])
    spot = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / 800)
    frame = np.repeat((spot * 255)[..., None], 3, 2).astype(np.uint8)
    crop = Crop(90, 50, side, 512)
    patch = crop.extract(frame)
    rows, columns = np.mgrid[:512, :512] + 0.5
    weight = patch[..., 0] / patch[..., 0].sum(dtype=float)
    found = np.array([(weight * columns).sum(), (weight * rows).sum()])
    assert np.allclose(found, (centre - [90, 50]) * 512 / side, atol=0.15)
    back = crop.paste(np.zeros_like(frame), patch, np.full((512, 512), 255, np.uint8))
    assert np.abs(back.astype(int) - frame)[50 : 50 + side, 90 : 90 + side].max() <= 4


def test_beyond_the_frame_its_edge_is_repeated() -> None:
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[:, 0] = 50
    frame[-1] = 90
    patch = Crop(-40, -10, 200, 200).extract(frame)
    assert patch.shape == (200, 200, 3)
    assert (patch[50, :41] == 50).all()
    assert (patch[109:] == 90).all()
    back = Crop(-40, -10, 200, 200).paste(frame, patch, np.ones((200, 200), np.float32))
    assert np.array_equal(back, frame)


def test_which_pixels_show_the_frame() -> None:
    crop = Crop(-37, -12, 200, 160)
    inside = crop.inside(120, 150)
    assert inside.shape == (160, 160)
    columns, rows = inside.any(0).nonzero()[0], inside.any(1).nonzero()[0]
    assert (columns[0], columns[-1]) == (30, 125)  # 37 / 1.25 and 157 / 1.25
    assert (rows[0], rows[-1]) == (10, 129)
    assert inside.sum() == len(rows) * len(columns)
    assert Crop(10, 20, 90, 256).inside(120, 150).all()


def test_masks_and_json() -> None:
    crop = Crop(3, 4, 100, 64)
    assert crop.extract(np.ones((200, 200), np.float32)).shape == (64, 64)
    assert Crop.from_json(json.loads(json.dumps(crop.to_json()))) == crop
    with pytest.raises(ValueError, match="empty crop"):
        Crop(0, 0, 0, 64)
