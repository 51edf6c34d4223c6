"""Hands seen from the side: a known hand, laid on its pose, against the same hand drawn from there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from portraitgen import hand_tracking
from portraitgen.body import BodyParameters, axis_angle_to_matrix, load_body
from portraitgen.clip import ClipInfo, write_gray
from portraitgen.crop import Crop
from portraitgen.fitting import Fitted
from portraitgen.free_view import orbit_viewmats
from portraitgen.hand_correspondences import draw, upright
from portraitgen.hand_model import HandModel, HandPoses, load_hand, resting
from portraitgen.hand_relief import Relief, write_hand_poses
from portraitgen.hands import LAYER, HandFinder, Hands
from portraitgen.mesh import rasterize_mesh
from portraitgen.portrait import Portrait, Settings
from portraitgen.poses import Poses

SIDE, COUNT = 256, 8
K = torch.tensor([[1.6 * SIDE, 0, SIDE / 2], [0, 1.6 * SIDE, SIDE / 2], [0, 0, 1]])
PIVOT = torch.tensor((0.0, 0.0, 0.75))


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load_hand(load_body(), "right")


def held(hand: HandModel) -> HandPoses:
    """A hand with its palm to the camera in `COUNT` frames."""
    betas = torch.zeros(load_body().shape_count)
    poses = resting(COUNT, betas)
    turns = torch.tensor([(0.1, 0.1, 0.05 * number) for number in range(COUNT)])
    poses.orientation = axis_angle_to_matrix(turns) @ upright(hand, betas)
    poses.translation = torch.tensor((-0.04, 0.06, 0.6)).expand(COUNT, 3)
    return poses


def shown(hand: HandModel, poses: HandPoses) -> tuple[np.ndarray, np.ndarray]:
    """Pictures ``[N, S, S, 3]`` in [0, 1] of the hand and where it is ``[N, S, S]``, bool."""
    betas = torch.zeros(load_body().shape_count)
    ids, _, _ = rasterize_mesh(hand.vertices(betas, poses), hand.faces, K, SIDE, SIDE)
    return np.stack(draw(hand, betas, poses, K, SIDE)).astype(np.float32) / 255, (ids >= 0).numpy()


def seen_from(poses: HandPoses, viewmats: Tensor) -> HandPoses:
    turn, shift = viewmats[:, :3, :3], viewmats[:, :3, 3]
    return HandPoses(
        turn @ poses.orientation,
        (turn @ poses.translation[..., None])[..., 0] + shift,
        poses.rotations,
        poses.scale,
    )


def joints(hand: HandModel, poses: HandPoses) -> np.ndarray:
    points = hand.landmarks(torch.zeros(load_body().shape_count), poses)
    return (points[..., :2] / points[..., 2:] * K[0, 0] + SIDE / 2).numpy()


def seen_hands(hand: HandModel, poses: HandPoses) -> Hands:
    """What is found of a hand by somebody who makes no mistakes."""
    metres = hand.landmarks(torch.zeros(load_body().shape_count), poses)
    return Hands(
        np.arange(COUNT),
        joints(hand, poses).astype(np.float32),
        (metres - metres.mean(1, keepdim=True)).numpy(),
        np.ones(COUNT, bool),
        np.zeros(COUNT, int),
        np.full(COUNT, hand.side == "right"),
        SIDE,
    )


@pytest.fixture
def portrait(tmp_path: Path, hand: HandModel) -> Portrait:
    """A portrait whose clip shows nothing but a hand, as big as it is."""
    info = ClipInfo(SIDE, SIDE, COUNT, Fraction(25), COUNT / 25, False, 0, tuple(i / 25 for i in range(COUNT)))
    made = Portrait(
        tmp_path, Settings("0" * 64, "preview", "anny", 0.0, None, 0), "source.mp4", info, Crop(0, 0, SIDE, SIDE), {}
    )
    poses = held(hand)
    made.save_tensors("hands.safetensors", seen_hands(hand, poses).to_tensors())
    made.save_tensors("screening.safetensors", {"bars": torch.tensor([0, 0, 0, 0])})
    made.save_tensors("hand_poses.safetensors", poses.tensors() | {"betas": torch.zeros(load_body().shape_count)})
    write_gray(made.path(LAYER), iter(255 * shown(hand, poses)[1].astype(np.uint8)), info)
    return made


@pytest.mark.parametrize(("yaw", "pitch"), [(25.0, 0.0), (-25.0, 10.0), (35.0, -10.0)])
def test_a_turned_hand_looks_as_it_is(portrait: Portrait, hand: HandModel, yaw: float, pitch: float) -> None:
    viewmats = orbit_viewmats(PIVOT, np.full(COUNT, yaw), np.full(COUNT, pitch))
    poses = held(hand)
    pictures, there = shown(hand, poses)
    truth, truly = shown(hand, seen_from(poses, viewmats))
    relief = Relief(portrait, K, viewmats)
    for number in (0, 5):
        color, alpha = relief(number, pictures[number], there[number].astype(np.float32))
        room = np.zeros((SIDE, SIDE), bool)
        room[: SIDE * 3 // 4, SIDE // 8 : -SIDE // 8] = True  # farther out it fades
        found, wanted = (alpha > 0.5) & room, truly[number] & room
        assert (found & wanted).sum() / (found | wanted).sum() > 0.88
        both = found & wanted
        assert np.abs(color - truth[number])[both].mean() < 0.1, "shading is the clip's"
        assert not (there[number] & room & ~truly[number] & found).sum() > 0.1 * wanted.sum(), "it has moved"


def test_from_the_clips_own_camera_it_stays_where_it_is(portrait: Portrait, hand: HandModel) -> None:
    pictures, there = shown(hand, held(hand))
    relief = Relief(portrait, K, torch.eye(4).expand(COUNT, 4, 4))
    color, alpha = relief(3, pictures[3], there[3].astype(np.float32))
    upper = np.arange(SIDE)[:, None] < SIDE * 3 // 4
    found, wanted = (alpha > 0.5) & upper, there[3] & upper
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95
    assert np.abs(color - pictures[3])[found & wanted].mean() < 0.01
    assert alpha[-1].max() < 0.05, "it fades where the clip's picture ends"
    assert there[3][-1].any()


def test_what_is_not_near_the_hand_is_left_out(portrait: Portrait, hand: HandModel) -> None:
    pictures, there = shown(hand, held(hand))
    layer = there[3].astype(np.float32)
    layer[10:30, 10:30] = 1
    relief = Relief(portrait, K, torch.eye(4).expand(COUNT, 4, 4))
    _, alpha = relief(3, pictures[3], layer)
    assert not alpha[10:30, 10:30].any()
    stored = portrait.load_tensors("hand_poses.safetensors")
    portrait.save_tensors("hand_poses.safetensors", stored | {"translation": stored["translation"] + 5})
    _, alpha = Relief(portrait, K, torch.eye(4).expand(COUNT, 4, 4))(3, pictures[3], layer)
    assert not alpha.any(), "a pose that is nowhere in the picture shows nothing"


def test_a_frame_in_which_the_layer_is_empty_shows_no_hand(portrait: Portrait, hand: HandModel) -> None:
    pictures, there = shown(hand, held(hand))
    relief = Relief(portrait, K, torch.eye(4).expand(COUNT, 4, 4))
    color, alpha = relief(3, pictures[3], np.zeros_like(there[3], np.float32))
    assert not alpha.any()
    assert np.isfinite(color).all()


def stand_in(depth: float) -> Fitted:
    """What `write_hand_poses` asks of a fitted avatar: a person whose neck is ``depth`` metres away."""
    body = load_body()
    parameters = BodyParameters.zeros(body, COUNT)
    parameters.translation += torch.tensor((0.0, 0.12, depth))
    poses = Poses.start(body, parameters)
    fitted = SimpleNamespace(
        body=body,
        poses=poses,
        avatar=SimpleNamespace(features=torch.zeros(1)),
        mesh=lambda frames: poses.mesh(body, frames),
    )
    return cast(Fitted, fitted)


@pytest.mark.parametrize("depth", [0.75, 0.62, 1.6])
def test_poses_are_found_before_the_body_and_within_reach(
    portrait: Portrait, hand: HandModel, depth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a depth that is right, one that has the hand in the chest, and one that it does not reach from."""
    landmarks = SimpleNamespace(timestamps=np.arange(COUNT) / 25)
    monkeypatch.setattr(Portrait, "landmarks", lambda self: landmarks)
    monkeypatch.setattr(hand_tracking, "landmark_offsets", lambda hand, betas: torch.zeros(21, 3))
    fitted = stand_in(depth)
    portrait.path("hand_poses.safetensors").unlink()
    assert list(write_hand_poses(portrait, fitted, K)) == [1.0]
    stored: dict[str, Any] = portrait.load_tensors("hand_poses.safetensors")
    betas = stored.pop("betas")
    poses, truth = HandPoses(**stored), held(hand)
    ours, theirs = joints(hand, poses), joints(hand, truth)
    assert np.linalg.norm(ours - theirs, axis=2).mean() < 10, "wherever it is, it looks the same"
    body_depth = rasterize_mesh(fitted.mesh(torch.tensor([0])).vertices, fitted.body.faces, K, SIDE, SIDE)[2]
    hand_depth = rasterize_mesh(hand.vertices(betas, poses[:1]), hand.faces, K, SIDE, SIDE)[2]
    both = (body_depth > 0) & (hand_depth > 0)
    assert both.sum() > 100
    assert (hand_depth < body_depth)[both].float().mean() > 0.85
    if depth == 0.75:
        assert poses.translation[:, 2].mean() == pytest.approx(0.6, abs=0.07)
        assert poses.scale.mean() > 0.85
    elif depth == 1.6:
        assert poses.translation[:, 2].mean() > 1.0
        assert poses.scale.mean() > 1.5


def test_where_nobody_shows_a_hand_nothing_is_written(portrait: Portrait) -> None:
    portrait.path("hands.safetensors").unlink()
    assert list(write_hand_poses(portrait, stand_in(0.75), K)) == []
    assert not portrait.path("hand_poses.safetensors").exists()


def test_a_right_hand_is_told_from_a_left_one() -> None:
    """MediaPipe takes every picture for a mirror's."""
    for side in ("left", "right"):
        hand = load_hand(load_body(), side)
        finder = HandFinder(np.arange(COUNT) / 25)
        for number, picture in enumerate(shown(hand, held(hand))[0]):
            finder.see(number, (picture * 255).astype(np.uint8))
        found = finder.found()
        finder.close()
        assert found is not None
        assert (found.right == (side == "right")).all()
        assert found.world.shape == (len(found), 21, 3)
        assert 0.05 < np.linalg.norm(found.world[0, 9] - found.world[0, 0]) < 0.15, "metres"
