"""Hands apart from the body: of the same person, against the packages that they come from, and seen by MediaPipe where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from test_body import TO_ANNY, anny_reference
from torch import Tensor

from portraitgen.body import AnnyBody, BodyParameters, SkinnedBody, anny_arrays, axis_angle_to_matrix, load_body
from portraitgen.hand_correspondences import draw, landmark_offsets, upright
from portraitgen.hand_data import _ANNY
from portraitgen.hand_model import BONES, FIRST, JOINT_NAMES, SIDES, HandModel, HandPoses, load_hand, resting

FLIP = torch.tensor((1.0, -1.0, -1.0))
FIRST_OF_HAND = {"left": 25, "right": 40}


@pytest.fixture(scope="module", params=[(name, side) for name in ("anny", "smplx") for side in SIDES], ids="-".join)
def pair(request: pytest.FixtureRequest, smplx_file: Path) -> tuple[SkinnedBody, HandModel]:
    name, side = request.param
    body = load_body(name)
    return body, load_hand(body, side)


def random_shape(body: SkinnedBody) -> Tensor:
    return torch.randn(body.shape_count, generator=torch.Generator().manual_seed(1))


def random_poses(count: int) -> HandPoses:
    generator = torch.Generator().manual_seed(2)
    orientation = axis_angle_to_matrix(torch.randn(count, 3, generator=generator))
    rotations = 0.4 * torch.randn(count, len(JOINT_NAMES), 3, generator=generator)
    return HandPoses(orientation, torch.randn(count, 3, generator=generator), rotations, torch.ones(count))


def test_a_hand_goes_on_where_the_body_ends(pair: tuple[SkinnedBody, HandModel]) -> None:
    body, hand = pair
    betas = random_shape(body)
    parameters = BodyParameters.zeros(body, 1)
    parameters.betas = betas
    names = body.skin.skeleton.bone_names
    elbow = body.skin.pivots(parameters)[..., names.index(f"elbow_{hand.side}"), :].reshape(3)
    heads = hand.skin.pivots(
        BodyParameters(betas, parameters.rotations, parameters.expression[:, :0], *[torch.zeros(1, 3)] * 2)
    )
    own = list(BONES)
    assert torch.allclose(heads[own.index("elbow")], elbow, atol=1e-5)
    forearm = (heads[own.index("wrist")] - elbow).norm()
    assert 0.15 < forearm < 0.35
    assert len(hand.faces) > 2000


def test_landmarks_go_from_the_wrist_to_the_tips(pair: tuple[SkinnedBody, HandModel]) -> None:
    body, hand = pair
    betas = random_shape(body)
    points = hand.landmarks(betas, resting(1, betas))[0]
    assert points[0].abs().max() < 1e-6
    fingers = points[1:].view(5, 4, 3)
    far = fingers.norm(dim=2)
    assert (far[1:].diff(dim=1) > 0.005).all(), "every joint is farther out than the one before it"
    assert 0.13 < float(far[2, 3]) < 0.25, "metres from the wrist to the tip of the middle finger"
    vertices = hand.vertices(betas, resting(1, betas))[0]
    assert torch.cdist(fingers[:, 3], vertices).min(1).values.max() < 1e-4, "tips lie on the skin"


def test_fingers_bend_towards_the_palm(pair: tuple[SkinnedBody, HandModel]) -> None:
    body, hand = pair
    betas = random_shape(body)
    axes = hand.axes(betas)
    identity = torch.eye(3).expand(5, 3, 3, 3)
    assert torch.allclose(axes @ axes.transpose(-1, -2), identity, atol=1e-5)
    poses = resting(2, betas)
    bends = axes[1:, :, 2] * torch.tensor([0.0, 1.0])[:, None, None, None]
    poses.rotations = torch.cat([poses.rotations[:, : FIRST[1]], bends.flatten(1, 2)], 1)
    open_hand, fist = hand.landmarks(betas, poses)
    palm = open_hand[[0, 5, 9, 13, 17]].mean(0)
    for tip in (8, 12, 16, 20):
        assert (fist[tip] - palm).norm() < 0.75 * (open_hand[tip] - palm).norm()
        towards = axes[1, 0, 1]
        assert (fist[tip] - open_hand[tip]) @ towards > 0


def test_poses_are_rigid_and_scaled_about_the_camera(pair: tuple[SkinnedBody, HandModel]) -> None:
    body, hand = pair
    betas, poses = random_shape(body), random_poses(3)
    points = hand.landmarks(betas, poses)
    assert torch.allclose(hand.landmarks(betas, poses.nearer(0.5)), 0.5 * points, atol=1e-5)
    moved = HandPoses(poses.orientation, poses.translation + 1, poses.rotations, poses.scale)
    assert torch.allclose(hand.vertices(betas, moved), hand.vertices(betas, poses) + 1, atol=1e-5)
    assert torch.allclose(hand.vertices(betas, poses)[1:2], hand.vertices(betas, poses[1:2]), atol=1e-5)
    turns = hand.turns(betas, poses)
    assert torch.allclose(turns @ turns.transpose(-1, -2), torch.eye(3).expand_as(turns), atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_vertices_equal_the_smplx_packages_own(side: str, smplx_file: Path) -> None:
    body = load_body("smplx")
    hand, poses, betas = load_hand(body, side), random_poses(3), random_shape(body)
    model = smplx.create(
        str(smplx_file),
        "smplx",
        use_pca=False,
        flat_hand_mean=True,
        num_betas=300,
        num_expression_coeffs=50,
        batch_size=3,
    )
    wrist = 21 if side == "right" else 20
    pose = torch.zeros(3, 55, 3)
    order = [f"{finger}_{number}" for finger in ("index", "middle", "little", "ring", "thumb") for number in (1, 2, 3)]
    for place, joint in enumerate(order):
        pose[:, FIRST_OF_HAND[side] + place] = poses.rotations[:, JOINT_NAMES.index(joint)] * FLIP
    pose[:, wrist] = (
        -poses.rotations[:, JOINT_NAMES.index("forearm")] * FLIP
    )  # there the hand turns against the forearm
    with torch.no_grad():
        out = model(
            betas=(betas @ body.smplx_betas).expand(3, -1),
            body_pose=pose[:, 1:22].flatten(1),
            left_hand_pose=pose[:, 25:40].flatten(1),
            right_hand_pose=pose[:, 40:].flatten(1),
        )
    weights = torch.from_numpy(np.load(smplx_file, allow_pickle=True)["weights"])
    carried = [wrist - 2, wrist, *range(FIRST_OF_HAND[side], FIRST_OF_HAND[side] + 15)]
    mine = weights[:, carried].sum(1) > 0.5
    kept = torch.unique(model.faces_tensor[mine[model.faces_tensor].all(1)])
    theirs = (out.vertices[:, kept] - out.joints[:, wrist : wrist + 1]) * FLIP
    still = HandPoses(torch.eye(3).expand(3, 3, 3), torch.zeros(3, 3), poses.rotations, poses.scale)
    ours = hand.vertices(betas, still)
    # Theirs hangs on an arm at rest, ours on a hand at rest.
    turn = axis_angle_to_matrix(poses.rotations[:, JOINT_NAMES.index("forearm")])
    assert (ours - theirs @ turn.transpose(1, 2)).norm(dim=2).max() < 1e-4


@pytest.mark.parametrize("side", SIDES)
def test_vertices_equal_annys_forward(side: str) -> None:
    body = load_body()
    assert isinstance(body, AnnyBody)
    hand, poses, betas = load_hand(body, side), random_poses(2), random_shape(body)
    coefficients = anny_arrays()[0]["anny_coefficients"]
    shape = torch.cat((coefficients[0] + betas @ coefficients[1:], torch.zeros(len(body.expression_names))))
    model = anny_reference(body)
    rest = model.get_rest_model(shape.expand(2, -1).double())["rest_bone_poses"]
    parameters = BodyParameters(betas, poses.rotations, torch.zeros(2, 0), torch.zeros(2, 3), torch.zeros(2, 3))
    ours = hand.skin.bone_transforms(parameters).double()
    transforms = torch.eye(4, dtype=torch.float64).expand(2, len(model.bone_labels), -1, -1).clone()
    for index, bone in enumerate(BONES):
        for name in _ANNY[bone][1]:
            place = model.bone_labels.index(f"{name}.{side[0].upper()}")
            transforms[:, place, :3, :3] = TO_ANNY @ ours[:, index, :, :3] @ TO_ANNY.T
            transforms[:, place, :3, 3] = ours[:, index, :, 3] @ TO_ANNY.T
    theirs = model(transforms @ rest, shape.expand(2, -1).double())["vertices"] @ TO_ANNY
    mine = hand.skin.vertices(parameters).double()
    # What hangs on the upper arm as well is ours alone.
    distance = torch.cdist(mine, theirs).min(2).values
    assert distance.median() < 1e-6
    assert (distance < 1e-5).double().mean() > 0.9


@pytest.mark.parametrize("side", SIDES)
def test_mediapipe_sees_drawn_hands_beside_their_joints(side: str) -> None:
    """And where it sees them is told well enough to find them again from other sides than it was learned from."""
    from mediapipe.python.solutions.hands import Hands as Graph

    body = load_body()
    hand, betas = load_hand(body, side), torch.zeros(body.shape_count)
    offsets = landmark_offsets(hand, betas)
    assert 0.008 < offsets[0].norm() < 0.03, "the wrist"
    assert offsets.norm(dim=1).max() < 0.03
    poses = resting(4, betas)
    turns = torch.tensor([(0.15, 0.2, 0.3), (-0.2, -0.2, -0.3), (0.0, 0.3, 0.1), (0.2, -0.1, 0.0)])
    poses.orientation = axis_angle_to_matrix(turns) @ upright(hand, betas)
    poses.translation = torch.tensor((0.0, 0.08, 0.7)).expand(4, 3)
    K = torch.tensor([[800.0, 0, 256], [0, 800, 256], [0, 0, 1]])
    errors = []
    with Graph(static_image_mode=True, max_num_hands=1) as graph:
        for number, picture in enumerate(draw(hand, betas, poses, K, 512)):
            result = graph.process(picture)
            assert result.multi_hand_landmarks
            assert result.multi_handedness[0].classification[0].label == ("Left" if side == "right" else "Right")
            seen = torch.tensor([(p.x * 512, p.y * 512) for p in result.multi_hand_landmarks[0].landmark])
            for moved in (None, offsets):
                points = hand.landmarks(betas, poses[number : number + 1], moved)[0]
                xy = points[:, :2] / points[:, 2:] * 800 + 256
                errors.append(float((xy - seen).norm(dim=1).mean()))
    without, with_offsets = sum(errors[::2]) / 4, sum(errors[1::2]) / 4
    assert with_offsets < 0.65 * without
    assert with_offsets < 6, "pixels, of a palm of a hundred"


def test_a_hand_that_mediapipe_does_not_know_has_no_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    from portraitgen import hand_correspondences

    body = load_body()
    hand, betas = load_hand(body, "left"), torch.zeros(body.shape_count)

    def draw_nothing(hand: HandModel, betas: Tensor, poses: HandPoses, K: Tensor, size: int) -> list[np.ndarray]:
        return [np.zeros((size, size, 3), np.uint8)] * len(poses)

    monkeypatch.setattr(hand_correspondences, "draw", draw_nothing)
    assert not landmark_offsets(hand, betas).any()
