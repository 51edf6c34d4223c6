"""Matting: a synthetic head with known alpha for the refinement, the astronaut portrait for the whole path."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from portraitgen.alpha import Plate, guided_filter, refine_alpha
from portraitgen.errors import InputError
from portraitgen.matting import decontaminate, head_boxes, person_alpha
from portraitgen.motion import Moment, flow_between, smooth_along_motion

SIZE = 256


def texture(colour: tuple[float, float, float], contrast: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 1)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 3)[..., None]
    return np.clip(np.array(colour, np.float32) + contrast * noise / noise.std(), 0, 1)


def strands(shift: float = 0.0) -> np.ndarray:
    """Alpha of a round head with 60 strands of hair that stick out 9 pixels, moved right by `shift`."""
    scale = 4
    canvas = np.zeros((SIZE * scale, SIZE * scale), np.uint8)
    middle = np.array([SIZE / 2 + shift, SIZE * 0.55]) * scale
    cv2.circle(canvas, tuple(middle.round().astype(int).tolist()), 70 * scale, 255, -1, cv2.LINE_AA)
    for angle in np.linspace(np.pi, 2 * np.pi, 60):
        way = np.array([np.cos(angle), np.sin(angle)])
        ends = [(middle + way * length * scale).round().astype(int).tolist() for length in (66, 79)]
        cv2.line(canvas, ends[0], ends[1], 255, 5, cv2.LINE_AA)
    alpha = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), 0.7)


def scene(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame uint8, true alpha, foreground and background in 0..1."""
    alpha = strands(shift)
    foreground, background = texture((0.35, 0.2, 0.12), 0.03, 1), texture((0.55, 0.65, 0.7), 0.03, 2)
    mixed = alpha[..., None] * foreground + (1 - alpha[..., None]) * background
    return (mixed * 255 + 0.5).astype(np.uint8), alpha, foreground, background


def coarse_mask(shift: float = 0.0) -> np.ndarray:
    """What a segmentation network would give: a low-resolution disc, off by up to 4 pixels."""
    rows, columns = np.mgrid[:64, :64].astype(np.float32) * 4 + 2
    distance = np.hypot(columns - SIZE / 2 - shift - 2, rows - SIZE * 0.55)
    return 1 / (1 + np.exp((distance - 72) / 2.5))


def test_refinement_finds_the_strands() -> None:
    frame, truth, _, background = scene()
    coarse = cv2.resize(coarse_mask(), (SIZE, SIZE))
    refined = refine_alpha(frame, coarse_mask())
    band = (truth > 0.02) & (truth < 0.98)
    assert np.abs(refined - truth)[band].mean() < 0.4 * np.abs(coarse - truth)[band].mean()
    assert np.abs(refined - truth).mean() < 0.01
    assert np.corrcoef(refined[band], truth[band])[0, 1] > 0.9
    plated = refine_alpha(frame, coarse_mask(), Plate(background, np.ones((SIZE, SIZE), np.float32)))
    assert np.abs(plated - truth)[band].mean() < 1.1 * np.abs(refined - truth)[band].mean()


def test_a_shadow_behind_the_hair_is_no_hair() -> None:
    _, truth, foreground, background = scene()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    shadow = ((columns > SIZE / 2 + 30) & (np.hypot(columns - SIZE / 2, rows - SIZE * 0.55) < 84)).astype(np.float32)
    shadow = 0.9 * cv2.GaussianBlur(shadow, (0, 0), 3)[..., None]
    background = background * (1 - shadow) + (0.37, 0.32, 0.28) * shadow  # half way to the hair's colour
    frame = ((truth[..., None] * foreground + (1 - truth[..., None]) * background) * 255 + 0.5).astype(np.uint8)
    refined = refine_alpha(frame, coarse_mask())
    veiled = (shadow[..., 0] > 0.36) & (cv2.dilate(truth, np.ones((7, 7))) < 0.01)
    assert veiled.sum() > 300
    assert refined[veiled].mean() < 0.07
    band = (truth > 0.02) & (truth < 0.98)
    assert np.corrcoef(refined[band], truth[band])[0, 1] > 0.86  # strands in front of it are still there


def test_a_plate_that_does_not_fit_is_ignored() -> None:
    frame, truth, _, _ = scene()
    wrong = Plate(texture((0.3, 0.2, 0.15), 0.03, 5), np.ones((SIZE, SIZE), np.float32))
    assert np.abs(refine_alpha(frame, coarse_mask(), wrong) - truth).mean() < 0.012


def test_hole_in_the_coarse_mask_is_filled_but_a_gap_is_not() -> None:
    frame, _, _, background = scene()
    coarse = cv2.resize(coarse_mask(), (SIZE, SIZE))
    cv2.circle(coarse, (128, 150), 9, 0.2, -1)  # the network is fooled, the picture shows the person
    assert refine_alpha(frame, coarse)[140:160, 118:138].min() > 0.9
    gap = frame.copy()
    patch = np.s_[143:157, 121:135]
    gap[patch] = (background[patch] * 255).astype(np.uint8)
    assert refine_alpha(gap, coarse)[147:153, 125:131].max() < 0.7


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_stay_what_they_are(value: float) -> None:
    frame, _, _, _ = scene()
    refined = refine_alpha(frame, np.full((64, 64), value, np.float32))
    assert np.array_equal(refined, np.full((SIZE, SIZE), value, np.float32))


def test_guided_filter_reproduces_a_colour_linear_alpha() -> None:
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    image = cv2.resize(image, (128, 128), interpolation=cv2.INTER_LINEAR)
    value = 0.1 + image @ np.array([0.3, 0.2, 0.2], np.float32)
    everywhere = np.ones(value.shape, bool)
    exact = guided_filter(image, value, np.ones_like(value), everywhere, 4, 1e-6)
    assert np.abs(exact - value).max() < 0.01
    broken, confidence = value.copy(), np.ones_like(value)
    broken[60:66, 60:66], confidence[60:66, 60:66] = 0, 1e-4
    assert np.abs(guided_filter(image, broken, confidence, everywhere, 4, 1e-6) - value).max() < 0.05


def test_temporal_filter_follows_motion_and_removes_flicker() -> None:
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    random = np.random.default_rng(3)
    frames = [scene(1.5 * t)[0] for t in range(10)]
    truths = [scene(1.5 * t)[1] for t in range(10)]
    noisy = [(truth + random.normal(0, 0.15, truth.shape)).astype(np.float32) for truth in truths]
    small = [cv2.resize(frame, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA) for frame in frames]
    flows = [None] + [flow_between(estimator, small[t - 1], small[t]) for t in range(1, 10)]
    items = [Moment(frame, flow, value) for frame, flow, value in zip(frames, flows, noisy, strict=True)]
    steady = list(smooth_along_motion(iter(items)))
    assert len(steady) == 10
    assert all(item.frame is frame for item, frame in zip(steady, frames, strict=True))
    before = np.mean([np.abs(a - b).mean() for a, b in zip(noisy, truths, strict=True)])
    after = np.mean([np.abs(item.value - b).mean() for item, b in zip(steady, truths, strict=True)])
    assert after < 0.6 * before


def test_decontaminate_removes_the_background_colour() -> None:
    frame, truth, foreground, background = scene()
    alpha = (truth * 255 + 0.5).astype(np.uint8)
    edge = (truth > 0.2) & (truth < 0.9)
    bleeding = np.abs(frame / 255 - foreground)[edge].mean()
    for known in (None, (background * 255 + 0.5).astype(np.uint8)):
        result = decontaminate(frame, alpha, known)
        assert result.shape == frame.shape
        assert result.dtype == np.uint8
        assert np.abs(result / 255 - foreground)[edge].mean() < 0.35 * bleeding
    assert np.abs(decontaminate(frame, alpha)[truth == 1].astype(int) - frame[truth == 1]).max() <= 2
    with pytest.raises(InputError):
        decontaminate(frame, alpha[:-1])


def test_head_boxes_bridge_gaps() -> None:
    points = np.random.default_rng(0).uniform(100, 200, (5, 478, 2))
    points[[0, 2, 4]] = np.nan
    points[3] = points[1] + 20
    boxes = head_boxes(points)
    assert np.isfinite(boxes).all()
    assert np.allclose(boxes[2], (boxes[1] + boxes[3]) / 2, atol=1e-3)
    assert np.allclose(boxes[0], boxes[1])
    assert np.isnan(head_boxes(np.full((3, 478, 3), np.nan))).all()


@cache
def astronaut_clip(count: int = 7) -> tuple[list[np.ndarray], np.ndarray]:
    """The NASA portrait (public domain) under small motions, with its FaceMesh landmarks moved along."""
    from mediapipe.python.solutions.face_mesh import FaceMesh
    from skimage.data import astronaut

    picture = astronaut()
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = mesh.process(picture).multi_face_landmarks[0].landmark
    points = np.array([(point.x * 512, point.y * 512) for point in found])
    frames, landmarks = [], []
    for t in range(count):
        motion = cv2.getRotationMatrix2D((224, 200), 1.5 * np.sin(t / 2), 1 + 0.01 * np.cos(t / 2))
        motion[:, 2] += [3 * np.sin(t / 3), 2 * np.cos(t / 3)]
        frames.append(cv2.warpAffine(picture, motion, (512, 512), borderMode=cv2.BORDER_REPLICATE))
        landmarks.append(points @ motion[:, :2].T + motion[:, 2])
    return frames, np.array(landmarks)


@cache
def astronaut_alpha() -> list[np.ndarray]:
    frames, landmarks = astronaut_clip()
    gaps = landmarks.copy()
    gaps[2] = np.nan
    return list(person_alpha(lambda: iter(frames), gaps))


def test_astronaut_is_cut_out() -> None:
    frames, _ = astronaut_clip()
    alphas = astronaut_alpha()
    assert len(alphas) == len(frames)
    for alpha in alphas:
        assert alpha.shape == (512, 512)
        assert alpha.dtype == np.uint8
        assert alpha[60:110, 200:250].min() > 250  # face
        assert alpha[300:420, 80:250].min() > 250  # suit: no holes
        assert alpha[20:180, 320:500].max() < 40  # wall and space shuttle
        assert alpha[60:200, 5:60].max() < 40  # flag
        assert 0.005 < ((alpha > 20) & (alpha < 235)).mean() < 0.08  # a soft edge, but only an edge


def test_astronaut_is_steadier_than_the_raw_segmentation() -> None:
    from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

    frames, landmarks = astronaut_clip()
    with SelfieSegmentation(model_selection=0) as network:
        raw = [network.process(frame).segmentation_mask * 255 for frame in frames]

    def unsteadiness(alphas: list[np.ndarray]) -> float:
        total = 0.0
        for t in range(1, len(alphas)):
            # The motion is known from the landmarks: an affine map between neighbouring frames.
            motion, _ = cv2.estimateAffine2D(landmarks[t - 1], landmarks[t])
            moved = cv2.warpAffine(
                alphas[t - 1].astype(np.float32), motion, (512, 512), borderMode=cv2.BORDER_REPLICATE
            )
            total += float(np.abs(alphas[t] - moved)[8:-8, 8:-8].mean())
        return total

    assert unsteadiness(astronaut_alpha()) < 0.6 * unsteadiness(raw)


def test_streaming_holds_a_few_frames_only() -> None:
    frames, landmarks = astronaut_clip()
    pulled = 0

    def source():
        nonlocal pulled
        pulled = 0
        for frame in frames:
            pulled += 1
            yield frame

    stream = person_alpha(source, landmarks)
    next(stream)
    assert pulled <= 5
    stream.close()


def test_without_landmarks_the_person_is_still_found() -> None:
    frames, landmarks = astronaut_clip()
    alpha = next(iter(person_alpha(lambda: iter(frames[:2]), np.full_like(landmarks[:2], np.nan))))
    assert alpha[60:110, 200:250].min() > 250


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((128, 96, 3), np.uint8)] * 3,
        [np.zeros((128, 128), np.uint8)] * 3,
        [np.zeros((128, 128, 3), np.float32)] * 3,
        [np.zeros((128, 128, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)],
        [np.zeros((128, 128, 3), np.uint8)] * 2,
        [np.zeros((128, 128, 3), np.uint8)] * 4,
        [np.zeros((128, 128, 3), np.uint8)] * 3,  # right in form, but nobody there
    ],
)
def test_bad_frames(frames: list[np.ndarray]) -> None:
    with pytest.raises(InputError):
        list(person_alpha(lambda: iter(frames), np.full((3, 478, 2), np.nan)))


@pytest.mark.parametrize("shape", [(0, 478, 2), (478, 2), (3, 478, 1)])
def test_bad_landmarks(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        next(person_alpha(lambda: iter([]), np.zeros(shape)))
