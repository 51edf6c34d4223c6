"""The mesh rasteriser against geometry done by hand."""

from __future__ import annotations

import torch

from portraitgen.mesh import interpolate, rasterize_mesh, vertex_normals

K = torch.tensor([[40.0, 0, 16], [0, 50, 12], [0, 0, 1]])
WIDTH, HEIGHT = 32, 24


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A slanted triangle that fills much of the picture, a small one before it and one behind the camera."""
    large = [[-0.9, -0.6, 2.0], [0.9, -0.5, 3.0], [0.0, 0.8, 2.5]]
    small = [[-0.1, -0.1, 1.0], [0.1, -0.1, 1.0], [0.0, 0.1, 1.1]]
    behind = [[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [0.0, 1.0, -1.0]]
    vertices = torch.tensor([*large, *small, *behind])
    return vertices, torch.arange(9).reshape(3, 3)


def test_each_pixel_sees_the_nearest_triangle_where_its_ray_meets_it() -> None:
    vertices, faces = scene()
    ids, weights, depth = rasterize_mesh(vertices, faces, K, WIDTH, HEIGHT)
    assert ids.shape == (1, HEIGHT, WIDTH)
    assert ids.dtype == torch.int32
    for row in range(HEIGHT):
        for column in range(WIDTH):
            ray = torch.tensor([(column + 0.5 - 16) / 40, (row + 0.5 - 12) / 50, 1.0])
            hits = []
            for index, face in enumerate(faces[:2]):
                where = torch.linalg.solve(vertices[face].T, ray)
                if (where >= 0).all():
                    hits.append((float(1 / where.sum()), index, where / where.sum()))
            nearest = min(hits, default=(0.0, -1, torch.zeros(3)), key=lambda hit: hit[0])
            assert ids[0, row, column] == nearest[1]
            assert abs(depth[0, row, column] - nearest[0]) < 1e-4
            assert torch.allclose(weights[0, row, column], nearest[2], atol=1e-4)
    assert (ids == 0).sum() > 100
    assert (ids == 1).sum() > 20


def test_batches_and_windings_do_not_matter() -> None:
    vertices, faces = scene()
    both = torch.stack((vertices, vertices + torch.tensor((0.1, 0.0, 0.2))))
    ids, weights, depth = rasterize_mesh(both, faces, K, WIDTH, HEIGHT)
    alone = rasterize_mesh(both[1], faces, K, WIDTH, HEIGHT)
    assert torch.equal(ids[1:], alone[0])
    assert torch.equal(weights[1:], alone[1])
    flipped = rasterize_mesh(both, faces.flip(1), K, WIDTH, HEIGHT)
    assert torch.equal(ids, flipped[0])
    assert torch.allclose(depth, flipped[2], atol=1e-5)


def test_nothing_in_view_is_empty() -> None:
    vertices, faces = scene()
    ids, weights, depth = rasterize_mesh(vertices + torch.tensor((100.0, 0, 0)), faces, K, WIDTH, HEIGHT)
    assert (ids == -1).all()
    assert weights.abs().sum() == depth.abs().sum() == 0


def test_a_mesh_without_faces_is_empty() -> None:
    vertices, faces = scene()
    ids, weights, _ = rasterize_mesh(vertices, faces[:0], K, WIDTH, HEIGHT)
    assert (ids == -1).all()
    values = interpolate(vertices[faces[:0]], ids, weights)
    assert values.shape == (1, HEIGHT, WIDTH, 3)
    assert not values.any()


def test_interpolated_positions_project_onto_their_pixels() -> None:
    vertices, faces = scene()
    ids, weights, _ = rasterize_mesh(vertices, faces, K, WIDTH, HEIGHT)
    for attributes in (vertices[faces], vertices[faces][None]):
        points = interpolate(attributes, ids, weights)
        screen = points @ K.T
        rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
        expected = torch.stack((columns, rows), dim=-1)
        hit = ids[0] >= 0
        assert torch.allclose((screen[..., :2] / screen[..., 2:])[0][hit], expected[hit], atol=1e-3)
        assert points[0][~hit].abs().sum() == 0


def test_normals_point_out_of_a_closed_mesh_and_carry_gradients() -> None:
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    normals = vertex_normals(vertices, faces)
    assert torch.allclose(normals, vertices / 3**0.5, atol=1e-6)
    assert torch.allclose(vertex_normals(vertices.expand(2, -1, -1), faces)[1], normals)
    normals[:, 0].sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
