"""Clothes taken off photos of people: the person of the example clip, and a face on bodies whose surface is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_tryon import POSES, SIZE, masked, person

from portraitgen.editors.completion import complete
from portraitgen.editors.draping import SHOULDER
from portraitgen.editors.pictures import read_cutout
from portraitgen.editors.tryon import BuiltinTryOn
from portraitgen.editors.worn import DENSITY, HALF_WIDTH, TOP, WornClothes, look_at_wearer
from portraitgen.errors import InputError

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"


def portrait() -> np.ndarray:
    """The first frame of the example clip, BGR: an astronaut in an orange suit with a black ring around the neck."""
    good, frame = cv2.VideoCapture(str(CLIP)).read()
    assert good
    return frame


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worn") / "portrait.png"
    cv2.imwrite(str(path), portrait())
    return path


@pytest.fixture(scope="module")
def suit(photo: Path) -> BuiltinTryOn:
    return BuiltinTryOn(photo)


def at(clothes: WornClothes, x: float, y: float) -> np.ndarray:
    """Mean colour [3] of the cloth lying flat about a place in metres from the base of the neck."""
    column, row = round((x + HALF_WIDTH) * DENSITY), round((y - TOP) * DENSITY)
    return clothes.levels[0][0, :, row - 6 : row + 7, column - 6 : column + 7].mean((1, 2)).numpy()


def test_the_suit_is_laid_out_flat(suit: BuiltinTryOn) -> None:
    clothes = suit.registration
    assert isinstance(clothes, WornClothes)
    assert "orange" in suit.understood
    for side in (-1, 1):
        red, green, blue = at(clothes, side * SHOULDER, 0.08)
        assert red > 0.6
        assert red > 1.5 * green > 1.5 * blue
    assert at(clothes, 0, 0).max() < 0.25  # the ring's black lining


def test_what_the_photo_does_not_show_goes_on(suit: BuiltinTryOn) -> None:
    """The photo ends at the chest. Below it the suit is orange down to the hips, with cloth everywhere."""
    clothes = suit.registration
    for x in (-0.12, 0.0, 0.12):
        for y in (0.25, 0.35, 0.45):
            red, green, _ = at(clothes, x, y)
            assert red > 1.3 * green
            assert red > 0.35
    below = clothes.cover[0, 0, round((0.15 - TOP) * DENSITY) :]
    assert (below > 0).float().mean() > 0.99


def test_the_suit_is_worn(suit: BuiltinTryOn) -> None:
    batch = person(POSES[:2], neckline=0.01)
    edited = suit.edit(batch)
    inside = masked(batch, "clothes", 6)
    changed = (edited - batch.source).abs().amax(1, keepdim=True)
    assert (changed[inside] > 0.08).float().mean() > 0.97
    rows = torch.arange(SIZE)[:, None] > 0.75 * SIZE
    chest = inside & rows
    assert (edited[:, :1] > 1.3 * edited[:, 2:])[chest].float().mean() > 0.95
    outside = masked(batch, "background").expand_as(edited)
    assert (edited - batch.source)[outside].abs().max() < 0.02


def test_a_whole_suit_is_worn(tmp_path: Path) -> None:
    """The same astronaut further away, before a flag and a shuttle, with her helmet on her arm."""
    data = pytest.importorskip("skimage.data")
    cv2.imwrite(str(tmp_path / "astronaut.png"), data.astronaut()[..., ::-1])
    editor = BuiltinTryOn(tmp_path / "astronaut.png")
    assert "orange" in editor.understood
    red, green, blue = at(editor.registration, -0.12, 0.12)
    assert red > 1.5 * green > 1.5 * blue


def test_the_background_may_be_cut_off(photo: Path, suit: BuiltinTryOn, tmp_path: Path) -> None:
    """A cut-out of the person is read like the photo: the background takes no part."""
    wearer = look_at_wearer(read_cutout(photo).permute(1, 2, 0).numpy())
    assert wearer is not None
    alpha = np.rint(wearer.alpha[0, 0].numpy() * 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "cut.png"), np.dstack([portrait(), alpha]))
    editor = BuiltinTryOn(tmp_path / "cut.png")
    for place in ((-SHOULDER, 0.08), (SHOULDER, 0.08), (0.0, 0.0)):
        assert np.abs(at(editor.registration, *place) - at(suit.registration, *place)).max() < 0.12


def test_a_face_without_clothes_is_refused(tmp_path: Path) -> None:
    """Cut from the forehead to the chin, and from above the hair to the throat."""
    frame = portrait()
    for name, window in (("face", np.s_[150:300, 170:350]), ("head", np.s_[40:330, 110:400])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.resize(frame[window], None, fx=2, fy=2))
        with pytest.raises(InputError, match=r"no garment|too little of the clothes") as error:
            BuiltinTryOn(tmp_path / f"{name}.png")
        assert str(error.value).count(".") <= 2


def test_completion_goes_on_with_stripes() -> None:
    y, x = np.mgrid[0:360, 0:600]
    stripes = np.where((x // 30 % 2)[..., None] > 0, (0.9, 0.9, 0.8), (0.1, 0.15, 0.4)).astype(np.float32)
    known = y < 180
    made = complete(np.where(known[..., None], stripes, 0), known, np.ones_like(known))
    assert np.array_equal(made[:150], stripes[:150])
    lower = made[190:320, 60:540], stripes[190:320, 60:540]
    assert np.corrcoef(lower[0][..., 0].ravel(), lower[1][..., 0].ravel())[0, 1] > 0.8


def test_completion_of_nothing() -> None:
    nothing = np.zeros((60, 80), bool)
    colour = np.full((60, 80, 3), 0.4, np.float32)
    assert np.isfinite(complete(colour, nothing, ~nothing)).all()
    assert np.array_equal(complete(colour, ~nothing, ~nothing), colour)
