"""The clean plate and the composite, on synthetic scenes whose background is known."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from portraitgen.crop import Crop
from portraitgen.plate import background_plate, composite, fill

WIDTH, HEIGHT, SIZE = 320, 240, 240
CROP = Crop(40, 0, 240, SIZE)


def scenery(width: int = WIDTH, height: int = HEIGHT, contrast: float = 1.0) -> np.ndarray:
    """A smooth, corner-rich background ``[H, W, 3]`` uint8."""
    coarse = np.random.default_rng(1).uniform(60, 200, (height // 12, width // 12, 3))
    return np.clip(
        128 + contrast * (cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) - 128), 0, 255
    ).astype(np.uint8)


def person(x: float, y: float = 130) -> np.ndarray:
    """Soft alpha ``[SIZE, SIZE]`` uint8 of a head at (x, y) in the crop."""
    alpha = cv2.ellipse(np.zeros((SIZE, SIZE), np.float32), ((x, y), (70, 100), 0), 1.0, -1)
    return (cv2.GaussianBlur(alpha, (5, 5), 0) * 255).round().astype(np.uint8)


def scene(
    background: np.ndarray, alpha: np.ndarray, crop: Crop = CROP, colour: tuple[int, int, int] = (250, 20, 240)
) -> np.ndarray:
    """The frame with the person in front."""
    return crop.paste(background, np.full((*alpha.shape, 3), colour, np.uint8), alpha)


def test_a_moving_person_is_removed_exactly() -> None:
    background = scenery()
    noise = np.random.default_rng(2)
    alphas = [person(x) for x in np.linspace(40, 200, 30)]
    frames = [
        scene(np.clip(background + noise.normal(0, 2, background.shape), 0, 255).astype(np.uint8), alpha)
        for alpha in alphas
    ]
    plate = background_plate(zip(frames, alphas, strict=True), CROP, len(frames))
    assert np.abs(plate.astype(int) - background).mean() < 2
    assert np.abs(plate.astype(int) - background).max() < 20


def test_a_still_person_leaves_no_ghost() -> None:
    gradient = np.linspace(80, 180, WIDTH)[None, :, None] + np.linspace(-20, 20, HEIGHT)[:, None, None] + np.zeros(3)
    background = gradient.astype(np.uint8)
    alpha = person(120)
    frames = [scene(background, alpha)] * 8
    plate = background_plate([(frame, alpha) for frame in frames], CROP, 8)
    assert np.abs(plate.astype(int) - background).max() < 12
    assert np.abs(plate.astype(int) - background).mean() < 1.5


def test_errors_of_the_matte_now_and_then_do_not_show() -> None:
    background = scenery()
    alphas = [person(x) for x in np.linspace(60, 180, 40)]
    frames = [scene(background, alpha) for alpha in alphas]
    alphas[17] = np.zeros_like(alphas[17])
    plate = background_plate(zip(frames, alphas, strict=True), CROP, 40)
    assert np.abs(plate.astype(int) - background).max() < 16


def test_the_plate_follows_a_moving_camera() -> None:
    wide = scenery(WIDTH + 40, HEIGHT)
    shifts = np.linspace(0, 30, 24)
    backgrounds = [cv2.warpAffine(wide, np.array([[1, 0, -s], [0, 1, 0]]), (WIDTH, HEIGHT)) for s in shifts]
    alphas = [person(x) for x in np.linspace(70, 180, 24)]
    frames = [scene(image, alpha) for image, alpha in zip(backgrounds, alphas, strict=True)]
    plate = background_plate(zip(frames, alphas, strict=True), CROP, 24)
    view = (slice(10, 230), slice(60, 260))
    assert np.abs(plate.astype(int) - backgrounds[0])[view].mean() < 3
    nobody = np.zeros((SIZE, SIZE), np.uint8)
    for number in (8, 20):
        removed = composite(frames[number], plate, np.zeros((SIZE, SIZE, 3), np.uint8), nobody, alphas[number], CROP)
        assert np.abs(removed.astype(int) - backgrounds[number])[view].mean() < 3


def test_composite_keeps_the_bits_of_what_nobody_touches() -> None:
    frame = scene(scenery(), person(120))
    new = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
    for crop in (CROP, Crop(40, 0, 240, 192), Crop(-30, 20, 260, 240)):
        before, after = (cv2.resize(person(x), (crop.size, crop.size)) for x in (100, 130))
        result = composite(frame, np.zeros_like(frame), cv2.resize(new, (crop.size, crop.size)), after, before, crop)
        reached = crop.paste(
            np.zeros_like(frame), np.ones((crop.size, crop.size, 3), np.uint8) * 255, np.maximum(before, after) > 0
        )
        untouched = cv2.dilate(reached, np.ones((5, 5), np.uint8)) == 0
        assert untouched.mean() > 0.5
        assert np.array_equal(result[untouched], frame[untouched])
    nobody = np.zeros((SIZE, SIZE), np.float32)
    assert np.array_equal(composite(frame, np.zeros_like(frame), new, nobody, nobody, CROP), frame)


def test_composite_of_the_same_person_changes_nothing_much() -> None:
    background, alpha = scenery(), person(120)
    frame = scene(background, alpha)
    new = np.full((SIZE, SIZE, 3), (250, 20, 240), np.uint8)
    result = composite(frame, background, new, alpha, alpha, CROP)
    assert np.abs(result.astype(int) - frame).max() <= 12
    assert np.abs(result.astype(int) - frame).mean() < 0.5


def test_a_smaller_person_uncovers_the_plate() -> None:
    background, before = scenery(), person(120)
    small = cv2.erode(before, np.ones((21, 21), np.uint8))
    new = np.full((SIZE, SIZE, 3), (250, 20, 240), np.uint8)
    result = composite(scene(background, before), background, new, small, before, CROP)
    expected = scene(background, small)
    assert np.abs(result.astype(int) - expected).max() < 24
    assert np.abs(result.astype(int) - expected).mean() < 1


def test_light_that_changed_since_the_plate_makes_no_seam() -> None:
    background, before = scenery(contrast=0.4), person(120)
    brighter = np.clip(background.astype(int) + 25, 0, 255).astype(np.uint8)
    nobody = np.zeros((SIZE, SIZE), np.uint8)
    result = composite(scene(brighter, before), background, np.zeros((SIZE, SIZE, 3), np.uint8), nobody, before, CROP)
    assert np.abs(result.astype(int) - brighter).max() < 14


def test_a_camera_that_left_the_plate_fills_from_the_frame() -> None:
    before = person(120)
    elsewhere = cv2.flip(cv2.rotate(scenery(HEIGHT, WIDTH, 0.5), cv2.ROTATE_90_CLOCKWISE), 0)
    nobody = np.zeros((SIZE, SIZE), np.uint8)
    result = composite(scene(elsewhere, before), scenery(), np.zeros((SIZE, SIZE, 3), np.uint8), nobody, before, CROP)
    touched = before > 0
    assert (
        np.abs(result[:, 40:280].astype(int) - elsewhere[:, 40:280])[touched].mean() < 20
    )  # 28 is the spread of this scenery


def test_fill_keeps_what_is_known() -> None:
    image = scenery(90, 70)
    known = np.ones((70, 90), bool)
    known[20:50, 30:70] = False
    filled = fill(np.where(known[..., None], image, 0).astype(np.uint8), known)
    assert np.array_equal(filled[known], image[known])
    assert filled[~known].min() > 40
    assert (fill(image, np.zeros_like(known)) == 128).all()
    with pytest.raises(ValueError, match="no frames"):
        background_plate([], CROP, 0)


def test_memory_does_not_grow_with_the_clip() -> None:
    background, alpha = scenery(), person(120)
    frame = scene(background, alpha)

    def peak(count: int) -> int:
        tracemalloc.start()
        background_plate(((frame, alpha) for _ in range(count)), CROP, count)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(100) < 1.2 * peak(12)
