"""Known poses of a hand, found again from what is seen of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from portraitgen import hand_tracking
from portraitgen.body import axis_angle_to_matrix, load_body
from portraitgen.hand_correspondences import draw, upright
from portraitgen.hand_model import FIRST, HandModel, HandPoses, load_hand, resting
from portraitgen.hand_tracking import fit_hand, place_forearm

SIDE, FOCAL, STEP = 400, 640.0, 1 / 25
K = torch.tensor([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]])
COUNT = 16


@pytest.fixture(scope="module", params=["anny-left", "anny-right", "smplx-right"])
def hand(request: pytest.FixtureRequest, smplx_file: Path) -> HandModel:
    body, side = request.param.split("-")
    return load_hand(load_body(body), side)


@pytest.fixture(scope="module")
def betas(hand: HandModel) -> Tensor:
    return torch.zeros(len(hand.skin.shape_basis))


def gesture(hand: HandModel, betas: Tensor, bend: float, yaw: float = 0.2) -> HandPoses:
    """A hand that waves and comes a little nearer, its palm to the camera but for ``yaw``."""
    share = torch.linspace(0, 1, COUNT)
    poses = resting(COUNT, betas)
    turns = torch.stack([0.2 * share, yaw + 0.2 * share, 0.4 * torch.sin(5 * share)], 1)
    poses.orientation = axis_angle_to_matrix(turns) @ upright(hand, betas)
    poses.translation = torch.stack([-0.05 + 0.1 * share, 0.06 - 0.04 * share, 0.66 - 0.05 * share], 1)
    bends = bend * hand.axes(betas)[1:, :, 2]
    poses.rotations = torch.cat([poses.rotations[:, : FIRST[1]], bends.flatten(0, 1).expand(COUNT, 12, 3)], 1)
    return poses


def flat(points: Tensor) -> Tensor:
    return points[..., :2] / points[..., 2:] * FOCAL + SIDE / 2


@pytest.mark.parametrize("bend", [0.1, 1.0])
def test_known_poses_are_found_again(
    hand: HandModel, betas: Tensor, bend: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From joints in the picture with some noise, and in space with much of it."""
    generator = torch.Generator().manual_seed(0)
    offsets = 0.006 * torch.randn(21, 3, generator=generator)
    monkeypatch.setattr(hand_tracking, "landmark_offsets", lambda hand, betas: offsets)
    poses = gesture(hand, betas, bend)
    shown = hand.landmarks(betas, poses, offsets)
    points = flat(shown) + torch.randn(COUNT, 21, 2, generator=generator)
    world = shown - shown.mean(1, keepdim=True) + 0.012 * torch.randn(COUNT, 21, 3, generator=generator)
    found = fit_hand(hand, betas, K, points, world, torch.ones(COUNT, dtype=torch.bool), STEP)
    truth, ours = hand.landmarks(betas, poses), hand.landmarks(betas, found)
    assert (flat(truth) - flat(ours)).norm(dim=2).mean() < 2.5
    assert (truth - ours)[..., 2].mean().abs() < 0.03
    centred = [points - points.mean(1, keepdim=True) for points in (truth, ours)]
    assert (centred[0] - centred[1]).norm(dim=2).mean() < 0.009
    assert ours.diff(n=2, dim=0).norm(dim=2).mean() < 1.5 * truth.diff(n=2, dim=0).norm(dim=2).mean() + 0.0005


def test_what_mediapipe_sees_in_drawn_pictures_is_enough(hand: HandModel, betas: Tensor) -> None:
    from mediapipe.python.solutions.hands import Hands as Graph

    poses = gesture(hand, betas, 0.3)
    points, world = [], []
    with Graph(max_num_hands=1) as graph:
        for picture in draw(hand, betas, poses, K, SIDE):
            result = graph.process(picture)
            points.append([(p.x * SIDE, p.y * SIDE) for p in result.multi_hand_landmarks[0].landmark])
            world.append([(p.x, p.y, p.z) for p in result.multi_hand_world_landmarks[0].landmark])
    seen = torch.ones(COUNT, dtype=torch.bool)
    found = fit_hand(hand, betas, K, torch.tensor(points), torch.tensor(world), seen, STEP)
    truth, ours = hand.landmarks(betas, poses), hand.landmarks(betas, found)
    assert (truth - ours)[..., 2].mean().abs() < 0.08
    centred = [points - points.mean(1, keepdim=True) for points in (truth, ours)]
    assert (centred[0] - centred[1]).norm(dim=2).mean() < 0.015


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_moment_is_enough_and_what_is_carried_on_counts_less(
    hand: HandModel, betas: Tensor, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_tracking, "_STEPS", 60)
    poses = gesture(hand, betas, 0.2)[:count]
    shown = hand.landmarks(betas, poses)
    seen = torch.zeros(count, dtype=torch.bool)
    found = fit_hand(hand, betas, K, flat(shown), shown - shown.mean(1, keepdim=True), seen, STEP)
    assert len(found) == count
    assert all(tensor.isfinite().all() for tensor in found.tensors().values())
    assert (flat(hand.landmarks(betas, found)) - flat(shown)).norm(dim=2).mean() < 25


def test_the_forearm_goes_to_an_elbow_that_hand_and_shoulder_allow(hand: HandModel, betas: Tensor) -> None:
    poses = gesture(hand, betas, 0.2)
    outwards = 1.0 if hand.side == "left" else -1.0
    shoulder = torch.tensor((outwards * 0.15, 0.3, 0.75)).expand(COUNT, 3)
    nowhere = torch.full((COUNT, 2), torch.nan)
    place_forearm(hand, betas, poses, shoulder, 0.27, nowhere)
    elbow = hand.elbow(betas, poses)
    length = hand.elbow(betas, resting(1, betas)).norm()
    assert torch.allclose((elbow - poses.translation).norm(dim=1), length.expand(COUNT), atol=1e-4)
    assert ((elbow - shoulder).norm(dim=1) - 0.27).abs().max() < 0.02
    assert (elbow[:, 1] > poses.translation[:, 1]).all(), "below a raised hand"
    sideways = torch.tensor((0.6 * outwards, 0.8))
    sideways = (sideways / sideways.norm()).expand(COUNT, 2)
    place_forearm(hand, betas, poses, shoulder, 0.27, sideways)
    way = hand.elbow(betas, poses) - poses.translation
    way = way[:, :2] / way[:, :2].norm(dim=1, keepdim=True)
    assert ((way * sideways).sum(1) > 0.95).all(), "where the picture shows it"
    joints = hand.landmarks(betas, poses)
    place_forearm(hand, betas, poses, shoulder, 0.27, nowhere)
    assert torch.equal(hand.landmarks(betas, poses), joints), "the hand itself stays"
