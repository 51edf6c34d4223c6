"""Region labels: sanity on the astronaut portrait, on painted scenes, and the soft masks' arithmetic."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
import torch

from portraitgen.errors import InputError
from portraitgen.regions import (
    BACKGROUND,
    BROW_OUTLINES,
    BROWS,
    CLOTHES,
    EYE_OUTLINES,
    EYES,
    FACE_OVAL,
    HAIR,
    LIPS,
    LIPS_INNER,
    LIPS_OUTER,
    MOUTH,
    REGIONS,
    SKIN,
    TEETH,
    RegionModel,
    _blurred,
    fit_region_model,
    region_labels,
    soft_regions,
)


@cache
def astronaut_frame() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, alpha and landmarks of the NASA portrait (public domain)."""
    from mediapipe.python.solutions.face_mesh import FaceMesh
    from skimage.data import astronaut

    from portraitgen.matting import person_alpha

    picture = astronaut()
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = mesh.process(picture).multi_face_landmarks[0].landmark
    points = np.array([(point.x * 512, point.y * 512) for point in found], np.float32)
    alpha = next(iter(person_alpha(lambda: iter([picture]), points[None])))
    return picture, alpha, points


@cache
def astronaut_model() -> RegionModel:
    return fit_region_model([astronaut_frame()])


@cache
def astronaut_labels() -> np.ndarray:
    return region_labels(*astronaut_frame(), astronaut_model())


def share(labels: np.ndarray, label: int, window: tuple[slice, slice]) -> float:
    return float((labels[window] == label).mean())


def test_outlines_match_mediapipe() -> None:
    from mediapipe.python.solutions import face_mesh_connections as connections

    def points(edges) -> set[int]:
        return {index for edge in edges for index in edge}

    assert set(FACE_OVAL) == points(connections.FACEMESH_FACE_OVAL)
    assert set(LIPS_OUTER) | set(LIPS_INNER) == points(connections.FACEMESH_LIPS)
    assert set(EYE_OUTLINES[0]) == points(connections.FACEMESH_LEFT_EYE)
    assert set(EYE_OUTLINES[1]) == points(connections.FACEMESH_RIGHT_EYE)
    assert set(BROW_OUTLINES[0]) == points(connections.FACEMESH_RIGHT_EYEBROW)
    assert set(BROW_OUTLINES[1]) == points(connections.FACEMESH_LEFT_EYEBROW)


def test_astronaut_regions() -> None:
    labels = astronaut_labels()
    _, alpha, points = astronaut_frame()
    assert labels.shape == (512, 512)
    assert labels.dtype == np.uint8
    assert astronaut_model().has_hair
    assert share(labels, HAIR, np.s_[30:60, 175:270]) > 0.97
    assert share(labels, HAIR, np.s_[70:110, 160:175]) > 0.9
    assert share(labels, SKIN, np.s_[112:125, 195:255]) > 0.8  # cheeks and nose
    assert share(labels, SKIN, np.s_[168:178, 205:245]) > 0.9  # chin and neck
    assert share(labels, CLOTHES, np.s_[260:500, 80:250]) > 0.97
    assert share(labels, BACKGROUND, np.s_[20:180, 320:500]) > 0.99
    inner = np.zeros_like(labels)
    cv2.fillPoly(inner, [points[list(LIPS_INNER)].round().astype(np.int32)], 1)
    assert (labels[cv2.erode(inner, np.ones((3, 3), np.uint8)) > 0] == TEETH).mean() > 0.7  # she smiles
    lower = points[17].round().astype(int)
    assert labels[lower[1] - 2, lower[0]] == LIPS
    for outline in EYE_OUTLINES:
        x, y = points[list(outline)].mean(axis=0).astype(int)
        assert labels[y, x] == EYES
    assert (labels == BROWS).sum() > 100
    assert (labels[alpha < 13] == BACKGROUND).all()
    assert (labels[alpha >= 13] != BACKGROUND).all()


def test_labels_do_not_waver_with_noise() -> None:
    picture, alpha, points = astronaut_frame()
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
    labels = region_labels(noisy, alpha, points, astronaut_model())
    assert (labels != astronaut_labels())[alpha > 128].mean() < 0.02


def test_mesh_labels_decide_where_colours_do_not() -> None:
    picture, alpha, points = astronaut_frame()
    names = ("face", "scalp", "torso")
    mesh = np.full(alpha.shape, -1, np.int32)
    mesh[230:] = 2
    labels = region_labels(picture, alpha, points, astronaut_model(), mesh, names)
    assert (labels[300:, :][alpha[300:, :] > 250] == CLOTHES).mean() >= (
        astronaut_labels()[300:, :][alpha[300:, :] > 250] == CLOTHES
    ).mean()


def test_without_landmarks_the_mesh_places_the_features() -> None:
    picture, alpha, points = astronaut_frame()
    names = ("face", "eye_left", "lips", "tongue", "teeth")
    mesh = np.full(alpha.shape, -1, np.int32)
    mesh[80:180, 180:270] = 0
    for index, (x, y) in enumerate([(240, 100), (225, 145), (225, 155), (225, 165)], start=1):
        mesh[y - 4 : y + 4, x - 4 : x + 4] = index
    labels = region_labels(picture, alpha, np.full_like(points, np.nan), astronaut_model(), mesh, names)
    assert [labels[y, x] for x, y in [(240, 100), (225, 145), (225, 155), (225, 165)]] == [EYES, LIPS, MOUTH, TEETH]
    assert share(labels, SKIN, np.s_[112:125, 195:255]) > 0.8
    alone = region_labels(picture, alpha, np.full_like(points, np.nan), astronaut_model())
    assert share(alone, HAIR, np.s_[30:60, 175:270]) > 0.8
    assert set(np.unique(alone)) <= {BACKGROUND, SKIN, HAIR, CLOTHES}


def painted(hair: tuple[int, int, int] | None, long: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cartoon on the astronaut's landmarks: head and neck, hair cap (to the shoulders if long), grey shirt."""
    _, _, points = astronaut_frame()
    points = (points - points.mean(axis=0)) * 1.6 + np.array([256, 220], np.float32)
    skin = (224, 172, 140)
    frame, alpha = np.full((512, 512, 3), 200, np.uint8), np.zeros((512, 512), np.uint8)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, height = (low + high) / 2, high[1] - low[1]

    def paint(shape, colour) -> None:
        mask = np.zeros((512, 512), np.uint8)
        shape(mask)
        frame[mask > 0] = colour
        alpha[mask > 0] = 255

    def at(x: float, y: float) -> tuple[int, int]:
        return int(middle[0] + x * height), int(middle[1] + y * height)

    if hair is not None and long:
        paint(lambda mask: cv2.rectangle(mask, at(-0.75, -0.2), at(0.75, 1.0), 255, -1), hair)
    paint(lambda mask: cv2.rectangle(mask, at(-1.1, 0.9 if not long else 1.0), at(1.1, 2.5), 255, -1), (70, 72, 75))
    paint(lambda mask: cv2.rectangle(mask, at(-0.25, 0.3), at(0.25, 0.92), 255, -1), skin)
    paint(lambda mask: cv2.circle(mask, at(0, -0.2), int(0.78 * height), 255, -1), skin if hair is None else hair)
    paint(lambda mask: cv2.fillPoly(mask, [points[list(FACE_OVAL)].astype(np.int32)], 255), skin)
    noise = np.random.default_rng(1).normal(0, 4, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8), alpha, points


@pytest.mark.parametrize("colour", [(40, 30, 25), (150, 80, 40), (235, 220, 180), (60, 90, 200)])
def test_hair_of_any_colour(colour: tuple[int, int, int]) -> None:
    frame, alpha, points = painted(colour)
    labels = region_labels(frame, alpha, points, fit_region_model([(frame, alpha, points)]))
    forehead, chin = points[10], points[152]
    x, y = int(forehead[0]), int(forehead[1] - 0.25 * (chin[1] - forehead[1]))
    assert share(labels, HAIR, np.s_[y - 5 : y + 5, x - 30 : x + 30]) > 0.95
    assert share(labels, CLOTHES, np.s_[430:500, 200:300]) > 0.95
    assert share(labels, SKIN, np.s_[int(chin[1]) + 18 : int(chin[1]) + 35, x - 15 : x + 15]) > 0.95


def test_long_hair_below_the_chin_is_hair() -> None:
    frame, alpha, points = painted((90, 50, 30), long=True)
    labels = region_labels(frame, alpha, points, fit_region_model([(frame, alpha, points)]))
    chin = points[152]
    height = chin[1] - points[10, 1]
    y, x = int(chin[1] + 0.1 * height), int(chin[0] - 0.6 * height)
    assert share(labels, HAIR, np.s_[y - 6 : y + 6, x - 6 : x + 6]) > 0.9


@pytest.mark.parametrize("colour", [(190, 110, 70), (150, 80, 40), (90, 50, 30)])
def test_a_neck_in_the_shade_of_the_hair_is_skin(colour: tuple[int, int, int]) -> None:
    frame, alpha, points = painted(colour, long=True)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, height = (low + high) / 2, high[1] - low[1]

    def window(left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        x, y = (middle[0] + np.array([left, right]) * height), (middle[1] + np.array([top, bottom]) * height)
        return slice(int(y[0]), int(y[1])), slice(int(x[0]), int(x[1]))

    shade = window(0.05, 0.5, 0.5, 0.92)  # a head turned aside has its neck off the middle
    noise = np.random.default_rng(0).normal(0, 4, frame[shade].shape)
    frame[shade] = np.clip(np.array([123, 90, 72]) + noise, 0, 255).astype(np.uint8)  # 0.55 of the face's light
    mesh = np.full(alpha.shape, -1, np.int32)
    mesh[window(-0.5, 0.45, 0.5, 0.92)] = 0
    labels = region_labels(frame, alpha, points, fit_region_model([(frame, alpha, points)]), mesh, ("neck",))
    assert share(labels, SKIN, window(0.1, 0.58, 0.46, 0.85)) > 0.6
    assert share(labels, HAIR, window(-0.7, 0.58, -0.3, 0.85)) > 0.95  # a lock before the neck on the other side


def test_the_matte_s_edge_beside_thin_hair_is_hair() -> None:
    frame, alpha, points = painted((90, 50, 30))
    low, high = points.min(axis=0), points.max(axis=0)
    y = int((low[1] + high[1]) / 2 - 0.1 * (high[1] - low[1]))
    right = int(np.flatnonzero(alpha[y]).max())
    face = np.s_[y - 30 : y + 30, int(points[0, 0]) : right - 9]
    frame[face] = (224, 172, 140)
    veil = np.s_[y - 20 : y + 20, right + 1 : right + 7]
    frame[veil], alpha[veil] = (205, 190, 175), 80
    labels = region_labels(frame, alpha, points, fit_region_model([(frame, alpha, points)]))
    assert share(labels, HAIR, np.s_[y - 15 : y + 15, right + 1 : right + 6]) > 0.9


def test_bald_heads_have_no_hair() -> None:
    frame, alpha, points = painted(None)
    model = fit_region_model([(frame, alpha, points)])
    assert not model.has_hair
    labels = region_labels(frame, alpha, points, model)
    assert (labels == HAIR).mean() < 0.01


def test_soft_regions_sum_to_one() -> None:
    labels, alpha = astronaut_labels(), astronaut_frame()[1]
    masks = soft_regions(np.stack([labels, labels[::-1]]), np.stack([alpha, alpha[::-1]]))
    assert tuple(masks) == REGIONS
    assert all(mask.shape == (2, 1, 512, 512) and mask.dtype == torch.float32 for mask in masks.values())
    stacked = torch.cat(list(masks.values()), dim=1)
    assert torch.allclose(stacked.sum(dim=1), torch.ones(2, 512, 512), atol=1e-5)
    assert stacked.min() >= 0
    assert torch.allclose(masks["background"][0, 0], 1 - torch.from_numpy(alpha).float() / 255)
    assert masks["hair"][0, 0, 45, 220] > 0.99
    step = (masks["hair"][0, 0, 1:] - masks["hair"][0, 0, :-1]).abs()
    assert step[:, 180:260][30:70].max() < 0.6  # feathered, not a step


@pytest.mark.parametrize("radius", [1, 4])
def test_the_sliding_box_filter_equals_pooling(radius: int) -> None:
    masks = torch.rand(2, 3, 37, 24, generator=torch.Generator().manual_seed(0))
    expected = masks.clone()
    for _ in range(2):
        expected = torch.nn.functional.avg_pool2d(expected, 2 * radius + 1, 1, radius, count_include_pad=False)
    torch.testing.assert_close(_blurred(masks, radius), expected, atol=1e-6, rtol=1e-5)


def test_strands_beyond_the_labels_take_their_neighbours_region() -> None:
    labels = np.zeros((128, 128), np.uint8)
    labels[40:, 30:98] = HAIR
    alpha = np.where(labels > 0, 1.0, 0.0).astype(np.float32)
    alpha[32:40, 60] = 0.04
    masks = soft_regions(labels, alpha)
    assert masks["hair"][0, 0, 33, 60] > 0.039


def test_bad_input() -> None:
    frame, alpha, points = astronaut_frame()
    model = astronaut_model()
    with pytest.raises(InputError):
        region_labels(frame, alpha[:-2], points, model)
    with pytest.raises(InputError):
        region_labels(frame.astype(np.float32), alpha, points, model)
    with pytest.raises(InputError):
        region_labels(frame, alpha, points[:100], model)
    with pytest.raises(InputError):
        region_labels(frame, alpha, points, model, np.zeros((4, 4), np.int32), ("face",))
    with pytest.raises(InputError):
        fit_region_model([(frame, alpha, np.full_like(points, np.nan))])
    with pytest.raises(InputError):
        soft_regions(astronaut_labels(), alpha[:-2])
