from __future__ import annotations

import math

import torch
from torch import Tensor

from portraitgen.harmonising import choose_anchors, disagreement, harmonise
from portraitgen.surfaces import Surfaces, pixel_centres, sample

SIZE = 128
K = torch.tensor([[220.0, 0.0, 64.0], [0.0, 220.0, 64.0], [0.0, 0.0, 1.0]])


def sphere(turns: list[float]) -> tuple[Surfaces, Tensor]:
    """A ball of 12 cm, half a metre away, turned by angles about its upright axis; and its corners' longitude and latitude [F, 3, 2]."""
    rows, columns = 24, 48
    theta = torch.linspace(0.01, math.pi - 0.01, rows)
    phi = torch.linspace(0, 2 * math.pi, columns + 1)[:-1]
    grid = torch.cartesian_prod(theta, phi)
    points = 0.12 * torch.stack(
        [grid[:, 0].sin() * grid[:, 1].cos(), -grid[:, 0].cos(), grid[:, 0].sin() * grid[:, 1].sin()], 1
    )
    index = torch.arange(rows * columns).view(rows, columns)
    right = index.roll(-1, 1)
    first = torch.stack([index[:-1], index[1:], right[:-1]], -1).reshape(-1, 3)
    second = torch.stack([right[:-1], index[1:], right[1:]], -1).reshape(-1, 3)
    faces = torch.cat([first, second])
    posed = []
    for turn in turns:
        c, s = math.cos(turn), math.sin(turn)
        posed.append(points @ torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + torch.tensor([0, 0, 0.5]))
    return Surfaces.of(torch.stack(posed), faces, K, SIZE), points[faces]


def painted(surfaces: Surfaces, corners: Tensor, seeds: list[int]) -> Tensor:
    """Waves that stick to the ball, differently drawn for each seed, [M, 3, S, S]."""
    where = surfaces.attribute(corners)
    pictures = []
    for number, seed in enumerate(seeds):
        directions = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
        directions = 170 * torch.nn.functional.normalize(directions, dim=1)
        waves = torch.einsum("kc,chw->khw", directions, where[number]).sin().mean(0)
        pictures.append((0.5 + waves).clamp(0, 1).expand(3, -1, -1))
    return torch.stack(pictures) * surfaces.inside[:, None]


def test_a_place_is_found_again_in_another_frame() -> None:
    surfaces, corners = sphere([0.0, 0.3])
    xy, seen = surfaces.places(0, 1)
    where = surfaces.attribute(corners)
    found = sample(where[1], xy)
    sure = seen & surfaces.inside[0] & (sample(surfaces.inside[1:].float(), xy)[0] > 0.999)
    assert sure.sum() > 1500
    apart = (found - where[0]).norm(dim=0)[sure]
    assert apart.median() < 0.0003, "metres on the ball, where a pixel is 2.3 mm"
    assert apart.quantile(0.9) < 0.003
    own, _ = surfaces.places(1, 1)
    inside = surfaces.inside[1]
    assert (own - pixel_centres(SIZE, own.device))[inside].abs().max() < 0.02


def test_what_has_turned_away_is_not_seen() -> None:
    surfaces, corners = sphere([0.0, 1.2])
    _, seen = surfaces.places(0, 1)
    where = surfaces.attribute(corners)[0]
    c, s = math.cos(1.2), math.sin(1.2)
    towards = -(-s * where[0] + c * where[2]) / 0.12  # cosine to the camera after the turn, nearly
    inside = surfaces.inside[0]
    assert not seen[inside & (towards < -0.1)].any()
    assert seen[inside & (towards > 0.5)].all()


def test_motion_goes_on_beyond_the_mesh() -> None:
    surfaces, _ = sphere([0.0, 0.0])
    moved = Surfaces.of(surfaces.vertices + torch.tensor([[[0.0] * 3], [[0.02, 0.01, 0.0]]]), surfaces.faces, K, SIZE)
    xy, _ = moved.places(0, 1)
    motion = xy - pixel_centres(SIZE, xy.device)
    inside = moved.inside[0]
    assert (motion[~inside] - motion[inside].mean(0)).abs().max() < 2.5


def test_pictures_that_disagree_get_one_detail() -> None:
    surfaces, corners = sphere([-0.25, 0.0, 0.25])
    alphas = surfaces.inside[:, None].float()
    nobody = torch.zeros_like(alphas)
    source = painted(surfaces, corners, [0, 0, 0])
    edited = painted(surfaces, corners, [1, 2, 3])
    result = harmonise(edited, source, alphas, nobody, surfaces)
    assert disagreement(edited, alphas, surfaces, 1) > 0.6
    assert disagreement(result, alphas, surfaces, 1) < 0.45
    detail = (result - result.mean()).abs()[alphas.expand_as(result) > 0].mean()
    assert detail > 0.85 * (edited - edited.mean()).abs()[alphas.expand_as(result) > 0].mean(), "agreement is no blur"
    kept = harmonise(edited, source, alphas, torch.ones_like(alphas), surfaces)
    torch.testing.assert_close(kept, edited)


def test_pictures_that_agree_are_left_alone() -> None:
    surfaces, corners = sphere([-0.25, 0.0, 0.25])
    alphas = surfaces.inside[:, None].float()
    source, edited = painted(surfaces, corners, [0, 0, 0]), painted(surfaces, corners, [5, 5, 5])
    assert torch.equal(harmonise(edited, source, alphas, torch.zeros_like(alphas), surfaces), edited)
    assert torch.equal(harmonise(edited[:1], source[:1], alphas[:1], alphas[:1], surfaces[:1]), edited[:1])


def test_anchors_see_everything_between_them() -> None:
    surfaces, _ = sphere([-1.0, -0.1, 0.0, 0.1, 1.0])
    anchors = choose_anchors(surfaces.inside[:, None].float(), surfaces)
    assert anchors[0] in (1, 2, 3), "the middle sees most"
    assert {0, 4} <= set(anchors), "the sides are seen from the sides"
