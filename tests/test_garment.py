"""Understanding garment photos: landmarks of drawn garments with known truth, the example garments, and refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from portraitgen.editors.garment import Garment, read_garment
from portraitgen.errors import InputError

EXAMPLES = Path(__file__).parent.parent / "examples" / "garments"
SIZE = 512
# Right half of a top with sleeves, in pixels from its axis and from the top: its landmarks are corners of the outline.
NECK, SHOULDER, OUTER, INNER, ARMPIT, HEM = (45, 60), (110, 85), (190, 330), (155, 342), (102, 175), (105, 440)


def picture(path: Path, shapes: list[tuple[list[tuple[float, float]], tuple[int, int, int]]], paper: int = 235) -> Path:
    """Filled polygons [(x, y) ...] on plain paper, RGB, saved as PNG."""
    image = np.full((SIZE, SIZE, 3), paper, np.uint8)
    for points, colour in shapes:
        cv2.fillPoly(image, [np.rint(np.array(points) * 16).astype(np.int32)], colour[::-1], cv2.LINE_AA, 4)
    cv2.imwrite(str(path), image)
    return path


def top_outline(shift: float = 0.0, dip: float = 60.0) -> list[tuple[float, float]]:
    """Outline of the top about x = 256 + shift; its neckline is a curve ``dip`` pixels deep."""
    half = [NECK, SHOULDER, OUTER, INNER, ARMPIT, HEM]
    line = [(NECK[0] * np.cos(a), NECK[1] + dip * np.sin(a)) for a in np.linspace(np.pi, 0, 30)]
    middle = 256 + shift
    return [
        *[(middle + x, y) for x, y in [*line, *half[1:]]],
        *[(middle - x, y) for x, y in reversed(half[1:])],
    ]


def near(found: np.ndarray, side: tuple[float, float], tolerance: float, shift: float = 0.0) -> None:
    """Both of a pair of landmarks [2, 2] lie within ``tolerance`` pixels of the truth."""
    x, y = side
    truth = np.array([[256 + shift - x, y], [256 + shift + x, y]])
    assert np.linalg.norm(found - truth, axis=1).max() < tolerance


@pytest.mark.parametrize("shift", [-30.0, 0.0, 25.0])
def test_landmarks_of_a_top_are_found(tmp_path: Path, shift: float) -> None:
    garment = read_garment(picture(tmp_path / "top.png", [(top_outline(shift), (170, 30, 40))]))
    near(garment.neck, NECK, 8, shift)
    near(garment.shoulders, SHOULDER, 10, shift)
    near(garment.armpits, ARMPIT, 12, shift)  # though the gap is a hair wide at its end
    near(garment.hem, HEM, 10, shift)
    assert garment.sleeves is not None
    near(garment.sleeves[:, 0], OUTER, 14, shift)
    near(garment.sleeves[:, 1], INNER, 14, shift)
    assert garment.description == "a red top with long sleeves"


def test_neckline_follows_the_cut(tmp_path: Path) -> None:
    garment = read_garment(picture(tmp_path / "top.png", [(top_outline(dip=70), (40, 60, 150))]))
    lowest = garment.neckline[:, 1].max()
    assert abs(lowest - (NECK[1] + 70)) < 8
    assert garment.front[int(NECK[1] + 50), 256] < 0 < garment.front[int(NECK[1] + 90), 256]


def test_inside_of_the_back_is_not_the_front(tmp_path: Path) -> None:
    """In a flat-lay the back's lining shows above the front neckline: the silhouette dips 15 pixels, the front 70."""
    back, front = top_outline(dip=15), top_outline(dip=70)
    garment = read_garment(picture(tmp_path / "top.png", [(back, (90, 14, 20)), (front, (190, 40, 50))]))
    assert abs(garment.neckline[:, 1].max() - (NECK[1] + 70)) < 9
    assert garment.front[NECK[1] + 45, 256] < 0
    assert garment.front[NECK[1] + 95, 256] > 0


def curve(dip: float, half: float = NECK[0], shift: float = 0.0) -> list[tuple[float, float]]:
    """A neckline ``dip`` pixels deep, or a line that runs ``shift`` pixels beside it."""
    return [(256 + (half + shift) * np.cos(a), NECK[1] + (dip + shift) * np.sin(a)) for a in np.linspace(np.pi, 0, 60)]


def off_the_line(found: np.ndarray, truth: list[tuple[float, float]]) -> float:
    """How far the found neckline [N, 2], but for its ends, is from the true one at most, in pixels."""
    inner = found[len(found) // 8 : -len(found) // 8]
    return float(np.linalg.norm(inner[:, None] - np.array(truth)[None], axis=-1).min(1).max())


@pytest.mark.parametrize("sides", [(8, 52), (8, 30)])  # stitched all round, or seen on one side only
def test_a_stitched_seam_beside_the_neckline_is_not_the_neckline(tmp_path: Path, sides: tuple[int, int]) -> None:
    path = picture(tmp_path / "jacket.png", [(top_outline(dip=15), (24, 44, 92)), (top_outline(dip=60), (52, 86, 150))])
    image = cv2.imread(str(path))
    seam = np.array(curve(60, shift=16)[slice(*sides)], np.float32)
    cv2.polylines(image, [np.rint(seam * 16).astype(np.int32)], False, (30, 140, 220), 2, cv2.LINE_AA, 4)
    cv2.imwrite(str(path), image)
    assert off_the_line(read_garment(path).neckline, curve(60)) < 7


def test_a_hood_lies_around_the_neck(tmp_path: Path) -> None:
    """The neckline is the lower rim of its opening, not the hood's outline, and not the label in it."""
    around = np.linspace(0, 2 * np.pi, 60)
    hood = [(256 + 76 * np.cos(a), 60 + 50 * np.sin(a)) for a in around]
    opening = [(256 + 40 * np.cos(a), 62 + 34 * np.sin(a)) for a in around]
    label = [(256 + 7 * np.cos(a), 48 + 7 * np.sin(a)) for a in around]
    green, dark = (60, 110, 85), (22, 44, 38)
    shapes = [(top_outline(dip=10), green), (hood, green), (opening, dark), (label, (90, 150, 120))]
    garment = read_garment(picture(tmp_path / "hoodie.png", shapes))
    assert garment.hugs_neck
    assert np.abs(np.abs(garment.neck[:, 0] - 256) - 40).max() < 8  # and not the 76 of the hood
    assert abs(garment.neckline[:, 1].max() - 96) < 7
    assert garment.front[80, 256] < 0  # the opening
    assert min(garment.front[80, 256 - 58], garment.front[80, 256 + 58]) > 0  # the hood's rim


def test_the_lining_does_not_show_beside_the_neckline(tmp_path: Path) -> None:
    """Ribs rise at the neck above the shoulders: they stay, and what shows between them does not."""
    ribs = [*curve(52, shift=14), *reversed(curve(52, half=NECK[0] - 14, shift=0))]
    posts = [
        [(256 + side * x, y) for x, y in ((NECK[0] + 14, 62), (NECK[0] + 6, 44), (NECK[0] - 8, 44), (NECK[0] - 14, 62))]
        for side in (-1, 1)
    ]
    navy, cream = (30, 40, 90), (238, 232, 215)
    shapes = [(top_outline(dip=4), (150, 150, 146)), (top_outline(dip=52), cream), (ribs, navy)]
    garment = read_garment(picture(tmp_path / "jumper.png", [*shapes, *[(post, navy) for post in posts]]))
    shown = garment.front > -3
    shown[110:] = False
    shown[:, : 256 - 30], shown[:, 256 + 30 :] = False, False
    assert shown.sum() > 300
    assert float(np.abs(garment.colour - np.array((150, 150, 146)) / 255).max(-1)[shown].min()) > 0.2
    for side in (-1, 1):
        assert garment.front[52, 256 + side * NECK[0]] > 0


def test_mannequin_is_taken_away(tmp_path: Path) -> None:
    skin, middle = (225, 205, 185), 256
    stub = [(middle - 30, 10), (middle + 30, 10), (middle + 36, 110), (middle - 36, 110)]
    forearms = [
        [(middle + side * x, y) for x, y in ((120, 120), (150, 150), (200, 400), (180, 405))] for side in (-1, 1)
    ]
    shirt = [NECK, SHOULDER, (150, 190), (108, 205), (102, 175), HEM]
    line = [(NECK[0] * np.cos(a), NECK[1] + 45 * np.sin(a)) for a in np.linspace(np.pi, 0, 30)]
    outline = [(middle + x, y) for x, y in [*line, *shirt[1:]]] + [(middle - x, y) for x, y in reversed(shirt[1:])]
    shapes = [(stub, skin), *[(arm, skin) for arm in forearms], (outline, (20, 110, 120))]
    garment = read_garment(picture(tmp_path / "mannequin.png", shapes, 200))
    assert garment.hugs_neck
    assert not garment.high_collar
    assert garment.front[30, middle] < 0  # the neck
    assert garment.front[380, middle + 188] < 0  # the forearm
    assert garment.front[300, middle] > 0
    assert garment.description == "a teal top with short sleeves"


def test_transparency_is_the_silhouette(tmp_path: Path) -> None:
    opaque = read_garment(picture(tmp_path / "paper.png", [(top_outline(), (30, 90, 60))]))
    image = cv2.imread(str(tmp_path / "paper.png"))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.rint(np.array(top_outline())).astype(np.int32)], 255)
    cv2.imwrite(str(tmp_path / "cut.png"), np.dstack([image, mask]))
    cut = read_garment(tmp_path / "cut.png")
    agree = (opaque.front > 0) == (cut.front > 0)
    assert agree.mean() > 0.98
    assert np.abs(opaque.shoulders - cut.shoulders).max() < 5


def test_colours_go_on_beyond_the_garment(tmp_path: Path) -> None:
    garment = read_garment(picture(tmp_path / "top.png", [(top_outline(), (170, 30, 40))]))
    error = np.abs(garment.colour - np.array([170, 30, 40]) / 255).max(-1)
    assert (error < 0.12).mean() > 0.97


EXPECTED = {
    "striped_jumper": ("striped", "long"),
    "denim_jacket": ("blue", "long"),
    "red_dress": ("red dress", "no"),
    "white_shirt": ("white top", "long"),
    "hoodie": ("green top", "long"),
    "mannequin_tee": ("teal top", "short"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_example_garments_are_understood(name: str) -> None:
    garment = read_garment(EXAMPLES / f"{name}.png")
    words, sleeves = EXPECTED[name]
    assert words in garment.description
    assert f"with {sleeves} sleeves" in garment.description
    assert_symmetric(garment)


def assert_symmetric(garment: Garment) -> None:
    """The examples are symmetric about the picture's middle."""
    for pair in (garment.neck, garment.shoulders, garment.armpits, garment.hem):
        assert abs(pair[:, 0].mean() - 256) < 8
        assert abs(pair[0, 1] - pair[1, 1]) < 10
    assert garment.neck[:, 1].mean() < garment.shoulders[:, 1].mean() < garment.armpits[:, 1].mean()
    assert garment.armpits[:, 1].mean() < garment.hem[:, 1].mean()


LEGS = [(180, 40), (332, 40), (350, 470), (280, 470), (258, 210), (254, 210), (232, 470), (162, 470)]
SKIRT = [(190, 100), (322, 100), (400, 430), (112, 430)]
SHOE = [(0, 0), (40, -10), (60, 30), (140, 55), (140, 85), (0, 85)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "no garment"),
        ([(LEGS, (40, 50, 90))], "trousers"),
        ([(SKIRT, (120, 30, 60))], "skirt"),
        (
            [
                ([(x + 60, y + 150) for x, y in SHOE], (60, 40, 30)),
                ([(x + 300, y + 150) for x, y in SHOE], (60, 40, 30)),
            ],
            "pair",
        ),
        ([([(x * 2.5 + 80, y * 2 + 200) for x, y in SHOE], (60, 40, 30))], "shoes"),
        (
            [([(256 + 120 * np.cos(a), 256 + 120 * np.sin(a)) for a in np.linspace(0, 6.28, 60)], (200, 90, 20))],
            "no garment",
        ),
    ],
    ids=["blank", "trousers", "skirt", "shoes", "shoe", "ball"],
)
def test_what_is_no_top_is_refused(tmp_path: Path, shapes: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_garment(picture(tmp_path / "picture.png", shapes))
    assert str(error.value).count(".") <= 2


def test_landscape_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    hills = cv2.resize(random.integers(0, 255, (9, 12, 3)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "landscape.png"), hills)
    with pytest.raises(InputError, match="no garment"):
        read_garment(tmp_path / "landscape.png")


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garment.png").write_bytes(b"nothing")
    with pytest.raises(InputError):
        read_garment(tmp_path / "garment.png")
