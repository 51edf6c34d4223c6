from __future__ import annotations

import pytest
import torch
from toy_body import ToyBody, toy_parameters

from portraitgen.avatar import Avatar, on_surface, sample_texels, triangle_frames
from portraitgen.body import BodyParameters
from portraitgen.poses import PosedMesh


@pytest.fixture(scope="module")
def body() -> ToyBody:
    return ToyBody()


def make_avatar(body: ToyBody, spacing: float = 0.008) -> Avatar:
    vertices = body.vertices(toy_parameters(1))[0]
    wanted = torch.full((len(body.faces),), spacing)
    return Avatar(body.faces, sample_texels(vertices, body.faces, body.uvs[body.face_uvs], wanted), channels=5)


def posed(body: ToyBody, parameters: BodyParameters) -> PosedMesh:
    vertices = body.vertices(parameters)
    return PosedMesh(vertices, torch.zeros_like(vertices))


def test_triangle_frames_are_rotations_with_the_normal_last(body: ToyBody) -> None:
    vertices = body.vertices(toy_parameters(3))
    frames = triangle_frames(vertices, body.faces)
    area = torch.linalg.cross(
        vertices[:, body.faces[:, 1]] - vertices[:, body.faces[:, 0]],
        vertices[:, body.faces[:, 2]] - vertices[:, body.faces[:, 0]],
    ).norm(dim=-1)
    frames = frames[area > 1e-7]
    identity = frames.transpose(1, 2) @ frames
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frames), torch.ones(len(frames)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spacing", [0.004, 0.008, 0.016])
def test_texels_lie_on_their_faces_at_about_the_wanted_distance(body: ToyBody, spacing: float) -> None:
    vertices = body.vertices(toy_parameters(1))[0]
    wanted = torch.full((len(body.faces),), spacing)
    texels = sample_texels(vertices, body.faces, body.uvs[body.face_uvs], wanted)
    assert (texels.barycentrics >= 0).all()
    torch.testing.assert_close(texels.barycentrics.sum(1), torch.ones(len(texels)))
    assert set(texels.faces.tolist()) == set(range(len(body.faces))), "every face carries at least one texel"
    assert 0.4 * spacing < float(texels.spacing.median()) < 1.6 * spacing


def test_faces_without_spacing_carry_no_texels(body: ToyBody) -> None:
    vertices = body.vertices(toy_parameters(1))[0]
    wanted = torch.full((len(body.faces),), 0.008)
    wanted[::2] = 0
    texels = sample_texels(vertices, body.faces, body.uvs[body.face_uvs], wanted)
    assert (texels.faces % 2 == 1).all()


def test_gaussians_move_rigidly_with_the_mesh(body: ToyBody) -> None:
    avatar = make_avatar(body)
    with torch.no_grad():
        avatar.offsets.add_(torch.randn_like(avatar.offsets) * 0.002)
    still = toy_parameters(1)
    turned = BodyParameters(
        still.betas, still.rotations, still.expression, torch.tensor([[0.1, 0.4, -0.2]]), still.translation
    )
    a, b = avatar(posed(body, still)), avatar(posed(body, turned))
    distances = [(g.means[0, ::7, None] - g.means[0, None, ::7]).norm(dim=-1) for g in (a, b)]
    torch.testing.assert_close(distances[0], distances[1], atol=1e-5, rtol=0)
    assert (a.means - b.means).abs().max() > 0.01


def test_a_displacement_moves_gaussians_without_turning_them(body: ToyBody) -> None:
    avatar = make_avatar(body)
    with torch.no_grad():
        avatar.offsets.add_(0.05)
    mesh = posed(body, toy_parameters(2))
    shift = torch.zeros_like(mesh.skinned)
    shift[..., 0] = 0.2 * mesh.skinned[..., 1]
    before, after = avatar(mesh), avatar(PosedMesh(mesh.skinned, shift))
    torch.testing.assert_close(after.quats, before.quats)
    surface = on_surface(shift, body.faces[avatar.texel_faces], avatar.barycentrics)
    torch.testing.assert_close(after.means - before.means, surface, atol=1e-6, rtol=0)


def test_gradients_reach_every_attribute(body: ToyBody) -> None:
    avatar = make_avatar(body)
    gaussians = avatar(posed(body, toy_parameters(2)))
    total = sum(
        (tensor * torch.randn_like(tensor)).sum()
        for tensor in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features)
    )
    assert isinstance(total, torch.Tensor)
    total.backward()
    for name, parameter in avatar.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
