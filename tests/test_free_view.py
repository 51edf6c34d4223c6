"""A portrait seen from elsewhere than the clip's camera, on a toy: nothing torn, loose or of the wrong colour comes into sight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_export import FRAMES, SIZE, kept
from test_fitting import make_fitted
from toy_body import toy_intrinsics

from portraitgen.body import LABELS
from portraitgen.crop import Crop
from portraitgen.fitting import Fitted
from portraitgen.free_view import (
    complete_mouth,
    even_fringe,
    fade_cut,
    fade_loose,
    orbit_angles,
    orbit_viewmats,
    usual_places,
)
from portraitgen.initialization import project
from portraitgen.portrait import Portrait

__all__ = ["kept"]


def test_hidden_teeth_look_like_those_that_are_shown() -> None:
    fitted = make_fitted()
    avatar, body, K = fitted.avatar, fitted.body, toy_intrinsics(SIZE)
    centre = body.template[body.faces].mean(1)
    names = torch.where(centre[:, 1] > 0, LABELS.index("teeth"), LABELS.index("lips"))
    body.face_labels = torch.where(centre[:, 0] > 0.04, LABELS.index("face"), names)
    places = usual_places(fitted)
    labels, front, back = body.face_labels[avatar.texel_faces], places[:, 2] < 0.48, places[:, 2] > 0.53
    white, red = torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.8, 0.1, 0.1])
    with torch.no_grad():
        avatar.features[:, :3] = torch.where(back[:, None], red, white)
        avatar.opacity_logits.fill_(1.0)
        avatar.opacity_logits[back] = -1.0
        avatar.offsets[back] += 0.002
    before = {name: value.clone() for name, value in avatar.state_dict().items()}
    with torch.no_grad():  # as where views are rendered
        complete_mouth(fitted, K, places)
    hidden, others = back & (labels == LABELS.index("teeth")), labels != LABELS.index("teeth")
    shown = front & (labels == LABELS.index("teeth")) & (places[:, :2].norm(dim=1) < 0.04)
    assert hidden.sum() > 50
    assert shown.sum() > 50
    features = avatar.features.detach()
    assert (features[hidden, :3] - white).abs().max() < 1e-3
    assert avatar.opacity_logits.detach()[hidden].sigmoid().min() > 0.9
    assert torch.equal(avatar.offsets.detach()[hidden], avatar.rest_offsets[hidden])
    for part in (others, shown):
        for name, value in avatar.state_dict().items():
            if len(value) == len(avatar):
                assert torch.equal(value[part], before[name][part]), name


def test_a_bead_in_the_hair_is_hair() -> None:
    fitted = make_fitted()
    avatar, places = fitted.avatar, usual_places(fitted)
    above, generator = places[:, 1] < 0, torch.Generator().manual_seed(0)
    beads = torch.rand(len(avatar), generator=generator) < 0.04
    brown, white, blue = (torch.tensor(color) for color in ([0.4, 0.25, 0.15], [0.9, 0.9, 0.9], [0.2, 0.3, 0.7]))
    with torch.no_grad():
        avatar.opacity_logits.fill_(2.0)
        avatar.rest_offsets[above] = torch.tensor([0.0, 0.0, 0.02])  # a cap of hair, the rest is skin with spots
        avatar.features[:, :3] = parted(places, brown, blue)
        avatar.features[beads, :3] = white
    before = avatar.features.detach().clone()
    even_fringe(fitted, places)
    after = avatar.features.detach()
    assert (after[beads & above, :3] - white).abs().amax(1).min() > 0.15
    assert torch.equal(after[~above], before[~above]), "what lies on the surface is as it was learned"
    apart = (places[:, 0] - 0.02).abs() > 0.02
    assert torch.equal(after[above & ~beads & apart], before[above & ~beads & apart])
    torch.testing.assert_close(after[above & beads & apart, :3], parted(places, brown, blue)[above & beads & apart])


def parted(places: torch.Tensor, brown: torch.Tensor, blue: torch.Tensor) -> torch.Tensor:
    """Brown to the left, blue to the right of a parting."""
    return torch.where(places[:, :1] > 0.02, blue, brown)


def test_without_a_mouth_nothing_is_completed() -> None:
    fitted = make_fitted()
    before = {name: value.clone() for name, value in fitted.avatar.state_dict().items()}
    complete_mouth(fitted, toy_intrinsics(SIZE), usual_places(fitted))
    assert all(torch.equal(value, before[name]) for name, value in fitted.avatar.state_dict().items())


def test_a_turned_camera_keeps_looking_at_the_pivot() -> None:
    pivot = torch.tensor([0.1, -0.05, 0.7])
    matrices = orbit_viewmats(pivot, np.array([0.0, 30.0, -20.0]), np.array([0.0, 0.0, 10.0]))
    torch.testing.assert_close(matrices[0], torch.eye(4))
    for matrix in matrices:
        torch.testing.assert_close(matrix[:3, :3] @ pivot + matrix[:3, 3], pivot)
        torch.testing.assert_close(torch.linalg.det(matrix[:3, :3]), torch.tensor(1.0))
    # A positive yaw brings what lies behind the pivot to the right.
    behind = matrices[1][:3, :3] @ (pivot + torch.tensor([0.0, 0.0, 0.1])) + matrices[1][:3, 3]
    assert behind[0] > pivot[0]


def test_an_orbit_starts_and_ends_at_the_clips_own_view() -> None:
    yaw, pitch = orbit_angles(60)
    assert yaw[0] == pitch[0] == 0
    assert abs(yaw[-1]) < 5
    assert yaw.max() == pytest.approx(35, abs=0.5)


@pytest.mark.parametrize("bars", [False, True])
def test_seen_from_elsewhere_the_body_fades_out_where_the_frame_cuts_it(kept: tuple[Path, Fitted], bars: bool) -> None:
    folder, fitted = kept
    portrait, K, size = Portrait.load(folder), toy_intrinsics(SIZE), SIZE
    # The frame, or the picture between its bars, ends within the toy, on the right and below.
    portrait.clip = replace(portrait.clip, width=SIZE, height=SIZE if bars else SIZE // 2)
    portrait.crop = Crop(SIZE // 2, 0, SIZE, SIZE)
    if bars:
        portrait.save_tensors("screening.safetensors", {"bars": torch.tensor([0, SIZE // 2, 0, 0])})
    with torch.no_grad():
        fitted.avatar.opacity_logits.fill_(0.0)
        xy, _ = project(fitted.avatar(fitted.mesh(torch.arange(FRAMES))).means.mean(0), K)
    fade_cut(portrait, fitted, K, usual_places(fitted))
    opacity = fitted.avatar.opacity_logits.detach().sigmoid().flatten()
    far = (xy[:, 0] < 0.3 * size) & (xy[:, 1] < 0.3 * size)
    outside = (xy[:, 0] > 0.5 * size) | (xy[:, 1] > 0.5 * size)
    assert far.any()
    assert outside.any()
    assert torch.allclose(opacity[far], torch.tensor(0.5), atol=1e-3)
    assert opacity[outside].max() < 1e-3
    assert ((opacity > 0.05) & (opacity < 0.45)).any(), "no hard edge between"


def test_seen_from_elsewhere_nothing_hangs_in_the_air(kept: tuple[Path, Fitted]) -> None:
    _, fitted = kept
    avatar = fitted.avatar
    with torch.no_grad():
        avatar.opacity_logits.fill_(1.0)
        avatar.offsets[:3] += torch.tensor([0.0, 0.0, 0.1])  # a tuft beside the person
        avatar.offsets[3] += torch.tensor(
            [0.0, 0.0, float(avatar.scales.detach()[3].amax())]
        )  # one that stands off a little
    fade_loose(fitted, usual_places(fitted))
    opacity = avatar.opacity_logits.detach().sigmoid()
    assert opacity[:3].max() < 1e-3
    assert opacity[3:].min() > 0.7
