"""Landmark detection on a real face (NASA's portrait of Eileen Collins, public domain, from scikit-image)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from portraitgen.body import LABELS, load_body
from portraitgen.correspondences import closest_on_triangles, correspondences
from portraitgen.errors import InputError
from portraitgen.evidence import GAPS
from portraitgen.landmarks import Landmarks, check_coverage, detect_landmarks, head_boxes, shoulder_boxes

NOSE = np.array((221.0, 128.0))  # tip of the nose in the portrait


@dataclass(frozen=True)
class Times:
    frame_count: int
    rate: float = 10.0

    @property
    def timestamps(self) -> tuple[float, ...]:
        return tuple(index / self.rate for index in range(self.frame_count))


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    from skimage import data

    return data.astronaut()


def canvas(width: int, height: int, *pasted: tuple[np.ndarray, int, int]) -> np.ndarray:
    out = np.full((height, width, 3), 127, np.uint8)
    for picture, left, top in pasted:
        out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out


def small(picture: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def test_a_real_face_and_its_shoulders(portrait: np.ndarray) -> None:
    shifts = [0, 8, 16, 24]
    frames = (canvas(560, 512, (portrait, shift, 0)) for shift in shifts)
    seen: list[int] = []
    landmarks = detect_landmarks(frames, Times(4), seen.append)
    assert seen == [1, 2, 3, 4]
    assert landmarks.found.all()
    assert landmarks.face.shape == (4, 478, 3)
    nose = NOSE + np.array([(shift, 0) for shift in shifts])
    assert np.abs(landmarks.face[:, 1, :2] - nose).max() < 6
    eyes = landmarks.face[:, 473, 0] - landmarks.face[:, 468, 0]  # the person's left iris is on the right
    assert (eyes > 30).all()
    assert np.isfinite(landmarks.pose).all()  # also between the frames that Pose looked at
    assert (landmarks.pose[:, 11, 0] > landmarks.pose[:, 12, 0]).all()
    assert ((landmarks.head_boxes[:, :2] < nose) & (nose < landmarks.head_boxes[:, 2:])).all()
    assert (landmarks.shoulder_boxes[:, 1] > landmarks.face[:, 152, 1] - 30).all()  # below the chin, roughly
    again = Landmarks.from_tensors(landmarks.to_tensors())
    assert np.array_equal(again.face, landmarks.face, equal_nan=True)
    assert np.array_equal(again.timestamps, landmarks.timestamps)


def test_a_small_face_in_a_large_frame(portrait: np.ndarray) -> None:
    frame = canvas(3840, 2160, (portrait, 2700, 500))
    landmarks = detect_landmarks(iter([frame] * 2), Times(2))
    assert np.abs(landmarks.face[:, 1, :2] - (NOSE + np.array((2700, 500)))).max() < 6


def test_the_largest_face_near_the_middle_and_the_same_one_throughout(portrait: np.ndarray) -> None:
    main, other = small(portrait, 0.8), small(portrait, 0.6)
    grown = small(portrait, 1.0)
    frames = [canvas(1200, 520, (main, 360, 40), (other, 860, 40))] * 3
    frames += [canvas(1200, 520, (main, 260, 40), (grown, 680, 4))] * 3  # the other one comes nearer
    landmarks = detect_landmarks(iter(frames), Times(6))
    assert np.abs(landmarks.face[0, 1, :2] - (NOSE * 0.8 + (360, 40))).max() < 8
    assert np.abs(landmarks.face[-1, 1, :2] - (NOSE * 0.8 + (260, 40))).max() < 8


def test_losses_leave_gaps_and_most_of_a_clip_missing_is_an_error(portrait: np.ndarray) -> None:
    blank = np.full_like(portrait, 127)
    landmarks = detect_landmarks(iter([portrait, portrait, blank, blank, portrait]), Times(5))
    assert landmarks.found.tolist() == [True, True, False, False, True]
    with pytest.raises(
        InputError,
        match=r"missing from more than half of the frames; the first without it is frame 3 \(0\.20 s\).*trim",
    ):
        detect_landmarks(iter([portrait] * 2 + [blank] * 8), Times(10))


def test_no_face_is_an_error_that_says_so() -> None:
    with pytest.raises(InputError, match=r"No face was found, from frame 1 \(0\.00 s\).*Use a clip"):
        detect_landmarks(iter([np.full((120, 160, 3), 90, np.uint8)] * 8), Times(8))


def test_coverage_sentences() -> None:
    times = np.arange(40) / 20
    found = np.ones(40, bool)
    found[20:] = False
    check_coverage(found, times)
    found[19] = False
    with pytest.raises(InputError, match=r"frame 20 \(0\.95 s\)") as short:
        check_coverage(found, times)
    assert "--max-seconds" not in str(short.value), "less than a second is too little to offer"
    times = times * 2
    with pytest.raises(InputError, match=r"first without it is frame 20 \(1\.90 s\).*--max-seconds 1\.90"):
        check_coverage(found, times)
    with pytest.raises(InputError, match=r"No face was found, from frame 1 \(0\.00 s\)"):
        check_coverage(np.zeros(4, bool), times[:4])


def test_boxes_are_nan_where_nothing_was_found() -> None:
    face = np.full((2, 478, 3), np.nan, np.float32)
    face[0, :, :2] = np.random.default_rng(0).uniform(100, 200, (478, 2))
    boxes = head_boxes(face)
    assert boxes[0, 1] < 60  # room for hair
    assert np.isnan(boxes[1]).all()
    pose = np.full((2, 33, 4), np.nan, np.float32)
    pose[0, 11:15] = ((220, 300, 0, 1), (80, 300, 0, 1), (260, 700, 0, 0.9), (40, 400, 0, 0.1))
    boxes = shoulder_boxes(pose, 640, 480)
    assert boxes[0, 3] == 480  # the seen elbow is below the frame
    assert 0 < boxes[0, 0] < 80  # the unseen one does not count
    assert np.isnan(boxes[1]).all()


def test_correspondences_lie_where_they_should() -> None:
    body = load_body()
    triangles, barycentrics = correspondences(body)
    assert (triangles >= 0).all()
    assert torch.allclose(barycentrics.sum(1), torch.ones(478), atol=1e-4)
    assert barycentrics.min() >= 0
    points = (body.skin.template[body.faces[triangles]] * barycentrics[..., None]).sum(1)
    labels = body.face_labels[triangles]
    assert (labels[468:473] == LABELS.index("eye_right")).all()
    assert (labels[473:478] == LABELS.index("eye_left")).all()
    assert (labels[[0, 13, 14, 17]] == LABELS.index("lips")).all()
    jaw = (body.skin.expression_basis[body.expression_names.index("jawOpen")][body.faces[triangles]]).mean(1)[:, 1]
    for upper, lower in GAPS[6:]:
        assert jaw[lower] > jaw[upper] + 0.008  # each lip's inner edge is on its own lip
    assert points[159, 1] < points[145, 1]
    assert points[1, 2] < points[:468, 2].quantile(0.05)  # the tip of the nose is in front
    mirrored = points[[33, 61, 234]] * torch.tensor((-1.0, 1, 1))
    assert (mirrored - points[[263, 291, 454]]).norm(dim=1).max() < 0.006


def test_closest_places_on_triangles() -> None:
    triangles = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 5], [1, 0, 5], [0, 1, 5]]])
    points = torch.tensor([[0.25, 0.25, 1.0], [-1, -1, 0], [0.5, -2, 4.9], [1.0, 1.0, 0]])
    index, weights = closest_on_triangles(points, triangles)
    assert index.tolist() == [0, 0, 1, 0]
    expected = torch.tensor([[0.5, 0.25, 0.25], [1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    assert torch.allclose(weights, expected, atol=1e-5)
