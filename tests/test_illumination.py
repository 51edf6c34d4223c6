from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from portraitgen.editors.illumination import (
    Light,
    blackbody,
    cast_shadow,
    diffuse,
    edge_light,
    estimate_light,
    front_directions,
    glint,
    harmonics,
    project,
    shade,
    strand_glint,
)

LEFT = Light((-math.sqrt(0.5), 0.0, math.sqrt(0.5)), (1.0, 1.0, 1.0), 1.0, 0.0)
RIGHT = LEFT._replace(direction=(math.sqrt(0.5), 0.0, math.sqrt(0.5)))


def directions(count: int = 20000) -> Tensor:
    """Unit vectors [count, 3] spread evenly over the whole sphere."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * index / count, index * math.pi * (3 - math.sqrt(5))
    around = (1 - z * z).sqrt()
    return torch.stack([around * turn.cos(), around * turn.sin(), z], 1).float()


def sphere(size: int = 96) -> tuple[Tensor, Tensor]:
    """Normals [1, 3, size, size] of a ball seen from the front, and its mask."""
    y, x = torch.meshgrid(torch.linspace(-1.1, 1.1, size), torch.linspace(-1.1, 1.1, size), indexing="ij")
    square = 1 - x * x - y * y
    normals = torch.stack([x, y, square.clamp_min(0).sqrt()])[None]
    return functional.normalize(normals, dim=1), (square > 0.02).float()[None, None]


def light(*, tilt: tuple[float, float, float], second: float = 0.0) -> Tensor:
    """Coefficients [1, 9, 3] of light with a direction, whose irradiance averages 1 over directions that face the camera."""
    coefficients = torch.zeros(1, 9, 3)
    coefficients[:, 0] = 1.0
    for channel in range(3):
        coefficients[0, 1:4, channel] = torch.tensor([tilt[1], tilt[2], tilt[0]])
    coefficients[:, 7] = second
    return coefficients / shade(coefficients, front_directions()).mean(2)[:, None]


def test_harmonics_are_orthonormal() -> None:
    basis = harmonics(directions().T[None])[0]
    gram = basis @ basis.T * (4 * math.pi / basis.shape[1])
    assert torch.allclose(gram, torch.eye(9), atol=2e-3)


def test_projected_light_shades_like_its_cosine_integral() -> None:
    everywhere = directions()
    sky = (0.2 + everywhere[:, :1].clamp_min(0) + 0.5 * everywhere[:, 1:2] ** 2).expand(-1, 3)
    weights = torch.full((len(everywhere),), 4 * math.pi / len(everywhere))
    normals = functional.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0.5, 0.3], [-1, 0, 0]]), dim=1)
    exact = torch.einsum("nd,d,dc->nc", (normals @ everywhere.T).clamp_min(0), weights, sky) / math.pi
    shaded = shade(project(sky, everywhere, weights), normals.T[None])[0].T
    assert torch.allclose(shaded, exact, atol=0.02)


@pytest.mark.parametrize("tilt", [(-0.6, -0.2, 0.3), (0.5, 0.0, 0.1), (0.0, -0.7, 0.2)])
def test_the_light_on_a_ball_is_found(tilt: tuple[float, float, float]) -> None:
    normals, mask = sphere()
    truth = light(tilt=tilt, second=0.1)
    skin = torch.tensor([0.5, 0.3, 0.2]).view(1, 3, 1, 1)
    found = estimate_light(skin * shade(truth, normals), normals, mask)
    error = (shade(found, front_directions()) - shade(truth, front_directions())).abs()
    assert float(error.mean()) < 0.05
    assert float(error.max()) < 0.2


def test_freckles_glints_and_noise_hardly_change_the_estimate() -> None:
    normals, mask = sphere()
    truth = light(tilt=(-0.6, -0.2, 0.3))
    generator = torch.Generator().manual_seed(0)
    picture = 0.4 * shade(truth, normals) * (1 + 0.08 * torch.randn(normals.shape, generator=generator))
    dirty = picture.clone()
    dirty[..., 20:32, 30:50] *= 0.3  # a brow
    dirty[..., 50:56, 60:66] += 0.6  # a glint
    found = estimate_light(dirty.clamp_min(0), normals, mask)
    error = (shade(found, front_directions()) - shade(truth, front_directions())).abs()
    assert float(error.mean()) < 0.06
    assert float(error.max()) < 0.2


def test_a_coloured_light_is_told_from_coloured_skin() -> None:
    normals, mask = sphere()
    coefficients = light(tilt=(0.0, 0.0, 0.0)).repeat(1, 1, 1)
    coefficients[0, 3] = torch.tensor([-1.2, 0.0, 1.2])  # red from the left, blue from the right
    found = estimate_light(
        torch.tensor([0.6, 0.3, 0.2]).view(1, 3, 1, 1) * shade(coefficients, normals).clamp_min(0), normals, mask
    )
    left = shade(found, torch.tensor([[[-0.8], [0.0], [0.6]]]))[0, :, 0]
    right = shade(found, torch.tensor([[[0.8], [0.0], [0.6]]]))[0, :, 0]
    assert left[0] > left[2] + 0.4
    assert right[2] > right[0] + 0.4


def test_frames_are_estimated_apart_and_nobody_means_even_light() -> None:
    normals, mask = sphere()
    pictures = torch.cat(
        [0.4 * shade(light(tilt=(-0.6, 0, 0.2)), normals), 0.2 * shade(light(tilt=(0.6, 0, 0.2)), normals)]
    )
    pair = estimate_light(pictures, normals.expand(2, -1, -1, -1), mask.expand(2, -1, -1, -1))
    assert torch.allclose(pair[1:], estimate_light(pictures[1:], normals, mask), atol=1e-5)
    nobody = estimate_light(pictures[:1], normals, torch.zeros_like(mask))
    assert torch.allclose(shade(nobody, front_directions()), torch.ones(1, 3, front_directions().shape[-1]), atol=1e-4)


def test_a_bare_bulb_obeys_lambert_and_a_wall_reaches_round() -> None:
    normals, mask = sphere()
    toward = torch.tensor(LEFT.direction).view(1, 3, 1, 1)
    cosine = (normals * toward).sum(1, keepdim=True)
    assert torch.allclose(diffuse(normals, LEFT), cosine.clamp_min(0))
    beyond = mask.bool() & (cosine < -0.05) & (cosine > -0.3)
    wide = diffuse(normals, LEFT._replace(softness=1.0))
    assert float(wide[beyond].min()) > 0
    assert float(diffuse(normals, LEFT)[beyond].max()) == 0
    red = diffuse(normals, LEFT, torch.tensor([0.3, 0.1, 0.05]).view(1, 3, 1, 1).expand(1, 3, 96, 96))
    edge = mask.bool() & (cosine.abs() < 0.05)
    assert float(red[:, :1][edge].mean()) > 2 * float(red[:, 2:][edge].mean())


def test_glints_sit_half_way_between_lamp_and_camera() -> None:
    normals, _ = sphere(161)
    shine = glint(normals, LEFT, 0.3)
    where = normals.permute(0, 2, 3, 1)[0].reshape(-1, 3)[int(shine.flatten().argmax())]
    half = functional.normalize(torch.tensor(LEFT.direction) + torch.tensor([0.0, 0.0, 1.0]), dim=0)
    assert float((where * half).sum()) > 0.995
    assert float(glint(normals, LEFT._replace(softness=0.8), 0.3).mean()) > float(shine.mean())


def test_hair_shines_across_its_strands() -> None:
    normals = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    upright = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    lying = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    assert float(strand_glint(upright, normals, LEFT).mean()) > 2 * float(strand_glint(lying, normals, LEFT).mean())
    assert float(strand_glint(0 * upright, normals, LEFT).abs().max()) < 1e-3


def test_a_lamp_behind_lights_the_outline_on_its_side() -> None:
    normals, mask = sphere()
    outline = torch.cat([normals[:, :2], torch.ones_like(mask)], 1) * (normals[:, 2:] < 0.5) * mask
    behind = edge_light(normals, outline, Light((0.7, 0.0, -0.71), (1, 1, 1), 1.0, 0.1, 1.0)) * mask
    assert float(behind[..., 80:].max()) > 0.5
    assert float(behind[..., :30].max()) < 0.05
    assert float(behind[..., 44:52, 44:52].max()) < 0.1


def hill(size: int = 128) -> Tensor:
    """Flat ground with one hill in the middle."""
    line = torch.linspace(-1, 1, size)
    return 0.2 * torch.exp(-(line[:, None] ** 2 + line**2) / 0.02)[None, None]


def test_shadows_fall_away_from_the_lamp() -> None:
    low = LEFT._replace(direction=(-0.94, 0.0, 0.34))
    seen = cast_shadow(hill(), low, (128, 128))[0, 0]
    assert float(seen[64, 84]) < 0.1 < 0.9 < float(seen[64, 44])
    assert float(seen[20, 64]) > 0.95
    mirrored = cast_shadow(hill(), low._replace(direction=(0.94, 0.0, 0.34)), (128, 128))[0, 0]
    assert torch.allclose(mirrored.flip(1), seen, atol=0.02)


def test_wide_lamps_have_soft_shadows_and_flat_ground_has_none() -> None:
    low = LEFT._replace(direction=(-0.94, 0.0, 0.34))
    hard, soft = (cast_shadow(hill(), low._replace(softness=value), (128, 128)) for value in (0.0, 1.0))
    steps = [float((seen[..., 1:] - seen[..., :-1]).abs().max()) for seen in (hard, soft)]
    assert steps[0] > 1.5 * steps[1]
    assert float(cast_shadow(torch.zeros(2, 1, 64, 80), low, (32, 40)).min()) > 0.95


def test_blackbodies_go_from_red_to_blue() -> None:
    colours = [blackbody(kelvin) for kelvin in (1000, 1900, 2700, 3200, 4500, 5500, 6500, 9000, 15000)]
    warmth = [red - blue for red, _, blue in colours]
    assert warmth == sorted(warmth, reverse=True)
    assert blackbody(5500) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
    assert all(0 <= part <= 1 for colour in colours for part in colour)
