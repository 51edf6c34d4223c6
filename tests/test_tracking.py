"""The tracker on landmarks of a known body: what went in comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from portraitgen.body import JOINT_NAMES, AnnyBody, BodyParameters, axis_angle_to_matrix, load_body
from portraitgen.errors import InputError
from portraitgen.evidence import POSE_INDICES, landmark_points
from portraitgen.landmarks import Landmarks, head_boxes, shoulder_boxes
from portraitgen.smoothing import bending, solve_smooth
from portraitgen.tracking import Tracking, TrackingConfig, track

SIZE, FOCAL, RATE = 512, 2.2 * 512, 25
QUICK = TrackingConfig(key_frames=8)


@dataclass(frozen=True)
class Crop:
    left: float = 40.0
    top: float = 10.0
    side: float = 640.0
    size: int = SIZE


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    return load_body()


def truth(body: AnnyBody, frame_count: int = 24) -> BodyParameters:
    """A person who nods, turns, talks and blinks."""
    params = BodyParameters.zeros(body, frame_count)
    time = torch.arange(frame_count) / RATE
    params.betas += 0.5 * torch.randn(len(params.betas), generator=torch.Generator().manual_seed(3))
    params.translation[:] = torch.tensor((0.0, 0.13, 0.9))
    params.translation[:, 0] += 0.02 * torch.sin(3 * time)
    for joint in ("neck", "head"):
        params.rotations[:, JOINT_NAMES.index(joint), 1] = 0.15 * torch.sin(6 * time)
    for side, sign in (("left", 1), ("right", -1)):
        params.rotations[:, JOINT_NAMES.index(f"upper_arm_{side}"), 2] = sign * 0.45
        params.rotations[:, JOINT_NAMES.index(f"eye_{side}"), 1] = 0.2 * torch.sin(5 * time)
        blink = body.expression_names.index(f"eyeBlink{side.capitalize()}")
        params.expression[:, blink] = torch.exp(-(((time - 0.4) / 0.06) ** 2))
    params.expression[:, body.expression_names.index("jawOpen")] = 0.35 - 0.35 * torch.cos(8 * time)
    return params


def observe(body: AnnyBody, params: BodyParameters, crop: Crop, noise: float = 0.0) -> Landmarks:
    """The landmarks that a perfect detector, or one with Gaussian noise in pixels, finds in the source frame."""
    points = landmark_points(body).vertices(params)
    pixels = (points[..., :2] / points[..., 2:] * FOCAL + SIZE / 2) * crop.side / crop.size
    depth = (points[..., 2:] - points[:, :1, 2:]) / points[..., 2:] * FOCAL * crop.side / crop.size
    pixels = torch.cat((pixels + torch.tensor((crop.left, crop.top)), depth), dim=-1).numpy().astype(np.float32)
    pixels[..., :2] += np.random.default_rng(0).normal(0, noise, pixels[..., :2].shape) if noise else 0
    pose = np.zeros((len(params), 33, 4), np.float32)
    pose[:, POSE_INDICES, :3] = pixels[:, 478:]
    pose[:, POSE_INDICES, 3] = 1
    face, times = pixels[:, :478].copy(), np.arange(len(params)) / RATE
    nowhere = np.zeros(len(times), bool)
    return Landmarks(face, pose, head_boxes(face), shoulder_boxes(pose, 720, 720), times, nowhere)


def head_orientation(params: BodyParameters) -> torch.Tensor:
    turns = [params.global_rotation, *(params.rotations[:, JOINT_NAMES.index(name)] for name in ("neck", "head"))]
    first, second, third = (axis_angle_to_matrix(turn) for turn in turns)
    return first @ second @ third


def degrees_apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    trace = (first.transpose(1, 2) @ second).diagonal(dim1=1, dim2=2).sum(-1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def lose(landmarks: Landmarks, frames: slice) -> Landmarks:
    face, pose = landmarks.face.copy(), landmarks.pose.copy()
    face[frames], pose[frames] = np.nan, np.nan
    return replace(landmarks, face=face, pose=pose)


@pytest.fixture(scope="module")
def tracked(body: AnnyBody) -> Tracking:
    steps: list[float] = []
    tracking = track(observe(body, truth(body), Crop(), noise=0.3), Crop(), body, QUICK, steps.append)
    assert steps == sorted(steps)
    assert math.isclose(steps[-1], 1.0)
    return tracking


def test_landmarks_are_met_and_unknowns_recovered(body: AnnyBody, tracked: Tracking) -> None:
    expected = truth(body)
    assert tracked.landmark_error.mean() < 0.012
    assert tracked.landmark_error.max() < 0.02
    assert not tracked.bridged.any()
    assert degrees_apart(head_orientation(tracked.parameters), head_orientation(expected)).max() < 5
    for name, least in (("jawOpen", 0.95), ("eyeBlinkLeft", 0.9)):
        index = body.expression_names.index(name)
        pair = torch.stack((tracked.parameters.expression[:, index], expected.expression[:, index]))
        assert torch.corrcoef(pair)[0, 1] > least, name
    gaze = JOINT_NAMES.index("eye_left")
    pair = torch.stack((tracked.parameters.rotations[:, gaze, 1], expected.rotations[:, gaze, 1]))
    assert torch.corrcoef(pair)[0, 1] > 0.9


def test_parameters_stay_well_behaved(tracked: Tracking) -> None:
    params = tracked.parameters
    assert params.expression.min() >= 0
    assert params.expression.max() <= 1
    assert params.betas.abs().max() < 4
    assert params.rotations[:, JOINT_NAMES.index("spine")].abs().max() < 0.05
    assert params.global_rotation.abs().max() < 0.3
    assert 1.5 * SIZE < tracked.K[0, 0] < 3 * SIZE
    assert tracked.K[0, 2] == tracked.K[1, 2] == SIZE / 2


def test_smoothing_has_no_lag(body: AnnyBody, tracked: Tracking) -> None:
    turn, expected = (head_orientation(params)[:, 0, 2] for params in (tracked.parameters, truth(body)))

    def mismatch(shift: int) -> float:
        count = len(turn) - 4
        return float((turn[2 + shift : 2 + shift + count] - expected[2 : 2 + count]).std())

    assert mismatch(0) < min(mismatch(-1), mismatch(1))


def test_a_short_gap_is_bridged_smoothly(body: AnnyBody) -> None:
    expected = truth(body)
    landmarks = lose(observe(body, expected, Crop()), slice(8, 14))
    tracking = track(landmarks, Crop(), body, QUICK)
    assert tracking.bridged.tolist() == [8 <= frame < 14 for frame in range(24)]
    assert torch.equal(tracking.landmark_error.isnan(), tracking.bridged)
    assert degrees_apart(head_orientation(tracking.parameters), head_orientation(expected)).max() < 10
    step = (tracking.parameters.translation[1:] - tracking.parameters.translation[:-1]).norm(dim=1)
    assert step.max() < 0.015


def test_wrong_frames_and_points_do_not_pull(body: AnnyBody) -> None:
    expected = truth(body)
    landmarks = observe(body, expected, Crop())
    landmarks.face[10, :, :2] = np.random.default_rng(1).uniform(0, 600, (478, 2))
    landmarks.face[:, 40:50, 0] += 60
    tracking = track(landmarks, Crop(), body, QUICK)
    assert tracking.bridged.nonzero().flatten().tolist() == [10]
    assert degrees_apart(head_orientation(tracking.parameters), head_orientation(expected)).max() < 7


def test_errors_name_the_frame(body: AnnyBody) -> None:
    landmarks = observe(body, truth(body), Crop())
    with pytest.raises(InputError, match=r"missing from more than half .* is frame 6 \(0\.20 s\)"):
        track(lose(landmarks, slice(5, 23)), Crop(), body, QUICK)
    nonsense = replace(landmarks, face=landmarks.face.copy())
    nonsense.face[..., :2] = np.random.default_rng(1).uniform(0, 600, (478, 2))
    with pytest.raises(InputError, match=r"frame 1 \(0\.00 s\) does not look like a real face.*not a drawing"):
        track(nonsense, Crop(), body, QUICK)


def test_a_few_frames_are_enough(body: AnnyBody) -> None:
    for count in (1, 2, 3):
        tracking = track(observe(body, truth(body, count), Crop()), Crop(), body, QUICK)
        assert tracking.landmark_error.max() < 0.02
        assert len(tracking.parameters) == count


def test_tracking_round_trip(tracked: Tracking) -> None:
    again = Tracking.from_tensors(tracked.to_tensors())
    assert torch.equal(again.parameters.expression, tracked.parameters.expression)
    assert torch.equal(again.K, tracked.K)
    assert torch.equal(again.bridged, tracked.bridged)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
def test_block_solver_equals_the_dense_one(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    size = 4
    roots = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    blocks = roots @ roots.transpose(1, 2) + torch.eye(size)
    smoothness = torch.rand(size, generator=generator, dtype=torch.float64) * 10
    right = torch.randn(count, size, generator=generator, dtype=torch.float64)
    energy = torch.kron(bending(torch.eye(count, dtype=torch.float64)), torch.diag(smoothness))
    dense = torch.block_diag(*blocks) + energy
    expected = torch.linalg.solve(dense, right.flatten()).reshape(count, size)
    assert torch.allclose(solve_smooth(blocks, smoothness, right), expected, atol=1e-9)


def test_bending_is_the_gradient_of_the_accelerations_energy() -> None:
    values = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    energy = 0.5 * (values[:-2] - 2 * values[1:-1] + values[2:]).square().sum()
    assert torch.allclose(torch.autograd.grad(energy, values)[0], bending(values.detach()))
