from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from portraitgen import backgrounds, mattes, pipeline
from portraitgen.backgrounds import SCENES, blurred, covering, parse_background
from portraitgen.errors import InputError


@pytest.mark.parametrize(
    ("name", "color"), [("white", (255, 255, 255)), ("#204080", (32, 64, 128)), ("#FFffFF", (255, 255, 255))]
)
def test_colours_are_understood(name: str, color: tuple[int, int, int]) -> None:
    background = parse_background(name)
    assert background.scene is None
    assert background.picture is not None
    assert tuple(background.picture[0, 0]) == color


def test_scenes_are_named() -> None:
    for scene in SCENES:
        assert parse_background(scene).scene == scene
    assert parse_background("transparent").suffix == ".webm"
    assert parse_background("blur").suffix == ".mp4"
    with pytest.raises(InputError, match="no background 'sky'"):
        parse_background("sky")
    with pytest.raises(InputError, match="no background 'aaa") as caught:
        parse_background("a" * 5000)  # longer than any path may be
    assert len(str(caught.value)) < 250


def test_pictures_cover_the_frame(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 50:] = (0, 0, 255)
    path = tmp_path / "a b.png"
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    background = parse_background(str(path))
    assert background.picture is not None
    picture = covering(background.picture, 64, 48)
    assert picture.shape == (48, 64, 3)
    assert tuple(picture[24, 60]) == (255, 0, 0)
    assert tuple(picture[24, 4]) == (0, 0, 0)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="picture"):
        parse_background(str(path))


def test_a_blurred_scene_keeps_its_colours_and_loses_its_detail() -> None:
    random = np.random.default_rng(0)
    scene = random.integers(0, 255, (180, 320, 3), dtype=np.uint8)
    scene[:, 160:] //= 4
    soft = blurred(scene)
    assert soft.shape == scene.shape
    for side in (np.s_[:, :100], np.s_[:, 220:]):
        assert abs(float(soft[side].mean()) - float(scene[side].mean())) < 4
        assert soft[side].std() < 0.15 * scene[side].std()


@pytest.mark.parametrize(
    ("scene", "reads_render", "edits_background", "still", "left"),
    [
        ("auto", True, True, False, "original"),
        ("auto", True, True, True, "auto"),
        ("auto", True, False, False, "auto"),
        ("auto", False, True, False, "auto"),
        ("edited", False, True, False, "edited"),
        ("blur", True, True, False, "blur"),
    ],
)
def test_a_scene_that_moves_is_left_alone_by_who_makes_something_else_of_every_frame(
    scene: str, reads_render: bool, edits_background: bool, still: bool, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mattes, "clean_plate", lambda portrait: None)
    monkeypatch.setattr(backgrounds, "stands_still", lambda portrait, plate: still)
    editor: Any = SimpleNamespace(name="Dreamer", reads_render=reads_render, edits_background=edits_background)
    portrait: Any = None
    behind, said = pipeline.settle_scene(portrait, editor, parse_background(scene))
    assert behind.scene == left
    assert said == ("" if left == scene else "The scene moves, and Dreamer edits only still ones. It stays as it is.")
    if scene == "auto" and left == "original":
        with pytest.raises(InputError, match=r"The scene moves, and Dreamer edits only still ones\. Choose another"):
            pipeline.settle_scene(portrait, editor, parse_background("edited"))
