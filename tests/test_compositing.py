from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from portraitgen.compositing import _covering, _fade, parse_background
from portraitgen.crop import Crop
from portraitgen.errors import InputError
from portraitgen.rendering import orbit_angles, orbit_viewmats


@pytest.mark.parametrize(
    ("name", "color"), [("white", (255, 255, 255)), ("#204080", (32, 64, 128)), ("#FFffFF", (255, 255, 255))]
)
def test_colours_are_understood(name: str, color: tuple[int, int, int]) -> None:
    background = parse_background(name)
    assert background is not None
    assert tuple(background[0, 0]) == color


def test_the_original_background_is_none() -> None:
    assert parse_background("original") is None


def test_pictures_cover_the_frame(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 50:] = (0, 0, 255)
    path = tmp_path / "a b.png"
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    background = parse_background(str(path))
    assert background is not None
    covering = _covering(background, 64, 48)
    assert covering.shape == (48, 64, 3)
    assert tuple(covering[24, 60]) == (255, 0, 0)
    assert tuple(covering[24, 4]) == (0, 0, 0)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a picture"):
        parse_background(str(path))


def test_the_person_fades_only_at_borders_inside_the_frame() -> None:
    whole = _fade(Crop(0, 0, 512, 512), 512, 512)
    assert np.array_equal(whole, np.ones_like(whole))
    inside = _fade(Crop(100, 0, 400, 256), 1280, 720)
    assert inside[128, 0] < 0.1
    assert inside[128, -1] < 0.1
    assert inside[-1, 128] < 0.1
    assert inside[0, 128] == 1
    assert inside[128, 128] == 1


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
