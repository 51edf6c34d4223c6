from __future__ import annotations

import torch
from toy_body import ToyBody, toy_parameters

from portraitgen.poses import Poses, node_basis


def test_nodes_blend_smoothly_and_completely() -> None:
    vertices = ToyBody().vertices(toy_parameters(1))[0]
    basis = node_basis(vertices, 12)
    assert basis.shape == (len(vertices), 12)
    torch.testing.assert_close(basis.sum(1), torch.ones(len(vertices)))
    assert (basis.amax(0) > 0.5).all(), "every node rules somewhere"
    assert torch.isfinite(node_basis(vertices[:5], 128)).all(), "more nodes than vertices"


def test_displacements_lie_in_the_picture_plane() -> None:
    body = ToyBody()
    poses = Poses.start(body, toy_parameters(3))
    poses.nodes[1] = torch.tensor([0.01, -0.02])
    mesh = poses.mesh(body, torch.tensor([0, 1]))
    torch.testing.assert_close(mesh.vertices[0], mesh.skinned[0])
    expected = torch.tensor([0.01, -0.02, 0.0]).expand_as(mesh.skinned[1])
    torch.testing.assert_close(mesh.displacement[1], expected)


def test_frames_in_between_take_their_neighbours_corrections() -> None:
    poses = Poses.start(ToyBody(), toy_parameters(6))
    for frame, amount in ((1, 1.0), (3, 3.0)):
        poses.nodes[frame] = amount
        poses.refined.translation[frame] += amount
        poses.refined.expression[frame] += amount
    poses.interpolate(torch.tensor([1, 3]), torch.tensor([0, 2, 4, 5]))
    expected = torch.tensor([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])
    torch.testing.assert_close(poses.nodes[:, 0, 0], expected)
    torch.testing.assert_close((poses.refined.translation - poses.tracked.translation)[:, 1], expected)
    torch.testing.assert_close((poses.refined.expression - poses.tracked.expression)[:, 0], expected)
    torch.testing.assert_close(poses.refined.betas, poses.tracked.betas)
