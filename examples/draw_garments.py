"""Draws the example garments, as product photos show them; needs nothing but the requirements.

python examples/draw_garments.py [folder]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from cloth import (
    CANVAS,
    Picture,
    Points,
    Weave,
    X,
    Y,
    clouds,
    cotton,
    curve,
    filled,
    fold,
    knit,
    ribs,
    sleeve_folds,
    soft,
    stitches,
    stroke,
    symmetric,
    twill,
    wrinkles,
)

# Right halves of outlines. Doubled points are corners.
BODY = [(0.085, 0.105), (0.085, 0.105), (0.15, 0.125), (0.20, 0.15), (0.225, 0.19), (0.205, 0.31), (0.20, 0.40)]
LONG_BODY = [*BODY, (0.203, 0.60), (0.21, 0.80), (0.21, 0.80), (0.10, 0.815)]
SLEEVE = [(0.19, 0.142), (0.225, 0.165), (0.265, 0.25), (0.325, 0.44), (0.395, 0.69), (0.395, 0.69)]
SLEEVE_IN = [(0.335, 0.712), (0.335, 0.712), (0.275, 0.52), (0.235, 0.40), (0.198, 0.33), (0.17, 0.22)]
CUFF = [(0.381, 0.64), (0.396, 0.692), (0.336, 0.713), (0.318, 0.66)]


def mirrored(points: Points, side: int) -> np.ndarray:
    return curve([(side * x, y) for x, y in points], closed=True)


def polygon(points: Points, side: int = 1) -> np.ndarray:
    return np.array([(side * x, y) for x, y in points])


def neck(depth: float, width: float = 0.085, top: float = 0.105, sharp: float = 2.0) -> np.ndarray:
    """Front neckline from left to right, [N, 2]; ``sharp`` 1 is a V, 2 a curve."""
    x = np.linspace(-1, 1, 41)
    return np.stack([width * x, top + depth * (1 - np.abs(x) ** sharp)], 1)


def front(outline: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Coverage of the garment's front: the outline without what is above the front neckline."""
    return filled(outline) * (1 - filled(np.concatenate([line, [(0.09, 0.0), (-0.09, 0.0)]])))


def top(
    picture: Picture,
    colour: Sequence[float] | np.ndarray,
    line: np.ndarray,
    weave: Weave,
    seed: int,
    lining: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Sleeves, inside of the back, and front of a long-sleeved top with the front neckline ``line``."""
    relief = wrinkles(seed, 0.0016) + sleeve_folds(0.011)
    for side in (-1, 1):
        picture.cloth(filled(mirrored([*SLEEVE, *SLEEVE_IN], side)), colour, relief, 0.03, weave)
    inside = filled(np.concatenate([line, neck(0.022)[::-1]]))
    picture.cloth(inside, colour if lining is None else lining, wrinkles(40, 0.0005), 0.002, weave, dark=0.62)
    picture.cloth(front(symmetric(LONG_BODY), line), colour, relief, 0.03, weave, shadow=0.3)


def trims(picture: Picture, colour: Sequence[float], line: np.ndarray, weave: Weave) -> None:
    """Ribbed cuffs, hem and collar."""
    for side in (-1, 1):
        along = X * side * 0.94 - Y * 0.34
        picture.cloth(filled(polygon(CUFF, side)), colour, ribs(0.008, along, 0.0022), 0.006, weave)
    hem = filled(polygon([(0.204, 0.765), (0.207, 0.82), (-0.207, 0.82), (-0.204, 0.765)]))
    picture.cloth(hem, colour, ribs(0.009, X, 0.0024), 0.006, weave)
    picture.cloth(stroke(line, 0.026), colour, ribs(0.008, X + 0.4 * np.sign(X) * Y, 0.0018), 0.010, weave, 0.5)


def striped_jumper() -> np.ndarray:
    picture, line = Picture(), neck(0.085)
    wave = Y + 0.12 * np.clip(np.abs(X) - 0.2, 0, 1) + 0.0022 * clouds(3, 0.06, 0.06)
    wave = wave - 0.55 * np.clip(np.abs(X) - 0.215, 0, 1)
    edge = np.clip(0.5 + (np.abs((wave / 0.062) % 1 - 0.5) - 0.31) * 0.062 * CANVAS / 1.5, 0, 1)[..., None]
    stripes = np.array([0.93, 0.90, 0.84], np.float32) * (1 - edge) + np.array([0.11, 0.16, 0.31], np.float32) * edge
    top(picture, stripes, line, knit(0.035), 1, (0.93, 0.90, 0.84))
    trims(picture, (0.11, 0.16, 0.31), line, knit(0.035))
    return picture.photo(None)


def hoodie() -> np.ndarray:
    picture, green, weave = Picture(), (0.30, 0.42, 0.36), cotton(0.03)
    hood = [(0.0, 0.03), (0.09, 0.035), (0.135, 0.075), (0.15, 0.13), (0.12, 0.19), (0.0, 0.20)]
    picture.cloth(filled(symmetric(hood)), green, wrinkles(21, 0.002), 0.05, weave)
    line = neck(0.075, 0.10, 0.12)
    top(picture, green, line, weave, 11)
    opening = [(0.0, 0.062), (0.06, 0.066), (0.088, 0.10), (0.078, 0.15), (0.0, 0.196)]
    picture.cloth(filled(symmetric(opening)), green, wrinkles(25, 0.0015), 0.004, weave, dark=0.5)
    trims(picture, green, neck(0.0, 0.0), weave)
    picture.cloth(stroke(symmetric(opening), 0.03, True), green, wrinkles(27, 0.001), 0.013, weave, 0.55)
    pocket = [(0.085, 0.56), (0.085, 0.56), (0.145, 0.66), (0.15, 0.755), (0.15, 0.755)]
    picture.cloth(filled(symmetric(pocket)), green, wrinkles(29, 0.001), 0.008, weave, 0.4)
    picture.thread(stitches(symmetric([(x * 0.94, y + 0.006) for x, y in pocket])), (0.20, 0.29, 0.25))
    for side in (-1, 1):
        cord = curve([(side * 0.03, 0.198), (side * 0.036, 0.27), (side * 0.028, 0.34), (side * 0.033, 0.385)])
        picture.cloth(stroke(cord, 0.009), (0.86, 0.86, 0.82), ribs(0.006, X + Y, 0.0008), 0.004, None, 0.6)
    return picture.photo((0.86, 0.86, 0.87))


def white_shirt() -> np.ndarray:
    picture, white, weave = Picture(), (0.93, 0.935, 0.95), cotton(0.012)
    line = neck(0.075, 0.075, 0.112, 1.3)
    top(picture, white, line, weave, 31)
    placket = filled(polygon([(0.019, 0.155), (0.019, 0.815), (-0.019, 0.815), (-0.019, 0.155)]))
    picture.cloth(placket, white, 0.4 * wrinkles(31, 0.0016), 0.004, weave, 0.25)
    for side in (-1, 1):
        cuff = [(0.374, 0.625), (0.396, 0.692), (0.336, 0.714), (0.312, 0.648)]
        picture.cloth(filled(polygon(cuff, side)), white, 0.0, 0.006, weave, 0.3)
        picture.thread(stitches(side * np.array([0.0168, 0]) + polygon([(0, 0.18), (0, 0.81)])), (0.74, 0.75, 0.79))
    picture.cloth(stroke(neck(0.068, 0.07, 0.107, 1.4), 0.022), white, 0.0, 0.007, weave, 0.3)
    wing = [(0.066, 0.092), (0.092, 0.112), (0.098, 0.195), (0.074, 0.222), (0.003, 0.180), (0.052, 0.140)]
    for side in (-1, 1):
        picture.cloth(filled(polygon(wing, side)), white, 0.0, 0.009, weave, 0.5)
        edge = [(0.089, 0.118), (0.093, 0.192), (0.073, 0.214), (0.012, 0.182)]
        picture.thread(stitches(polygon(edge, side)), (0.74, 0.75, 0.79))
    for y in (0.19, 0.275, 0.36, 0.455, 0.55, 0.645, 0.74):
        picture.button(0.0, y, 0.0085, (0.88, 0.87, 0.84))
    return picture.photo((0.62, 0.66, 0.70))


def denim_jacket() -> np.ndarray:
    picture, weave, line = Picture(), twill(0.035), neck(0.09, 0.085, 0.115, 1.2)
    worn = (0.5 + 0.16 * clouds(41, 0.05, 0.09) + 0.12 * clouds(42, 0.012, 0.02))[..., None].clip(0, 1)
    denim = np.array([0.16, 0.25, 0.42], np.float32) * (1 - worn) + np.array([0.38, 0.50, 0.66], np.float32) * worn
    thread = (0.80, 0.55, 0.26)
    top(picture, denim, line, weave, 43)
    yoke = curve([(-0.205, 0.285), (0.0, 0.265), (0.205, 0.285)])
    seams = [yoke, polygon([(0.0, 0.2), (0.0, 0.8)])]
    for side in (-1, 1):
        seams.append(curve([(side * 0.165, 0.28), (side * 0.125, 0.5), (side * 0.105, 0.77)]))
        seams.append(curve([(side * 0.085, 0.28), (side * 0.072, 0.5), (side * 0.062, 0.77)]))
        seams.append(curve([(side * 0.20, 0.15), (side * 0.215, 0.22), (side * 0.198, 0.32)]))
        cuff = [(0.378, 0.632), (0.397, 0.692), (0.336, 0.714), (0.314, 0.654)]
        picture.cloth(filled(polygon(cuff, side)), denim, 0.0, 0.006, weave)
        picture.button(side * 0.338, 0.69, 0.008, (0.62, 0.50, 0.36), False)
    for seam in seams:
        picture.colour *= (1 - 0.4 * soft(stroke(seam, 0.003), 0.0015))[..., None]
        for shift in (-0.005, 0.005):
            picture.thread(stitches(seam + np.array([shift, 0.7 * shift])), thread)
    band = filled(polygon([(0.205, 0.765), (0.21, 0.82), (-0.21, 0.82), (-0.205, 0.765)]))
    picture.cloth(band, denim, 0.0, 0.007, weave, 0.4)
    picture.cloth(
        filled(polygon([(0.022, 0.185), (0.022, 0.82), (-0.022, 0.82), (-0.022, 0.185)])), denim, 0.0, 0.004, weave
    )
    for side in (-1, 1):
        for x in (0.017, -0.017):
            picture.thread(stitches(polygon([(side * x, 0.19), (side * x, 0.815)])), thread)
        flap = [(0.065, 0.275), (0.155, 0.28), (0.153, 0.315), (0.11, 0.335), (0.067, 0.312)]
        picture.cloth(filled(polygon(flap, side)), denim, 0.0, 0.005, weave, 0.5)
        picture.thread(stitches(polygon([(0.07, 0.308), (0.11, 0.329), (0.149, 0.311)], side)), thread)
        picture.button(side * 0.11, 0.318, 0.008, (0.62, 0.50, 0.36), False)
        wing = [(0.072, 0.086), (0.1, 0.11), (0.118, 0.205), (0.088, 0.236), (0.012, 0.20), (0.058, 0.145)]
        picture.cloth(filled(polygon(wing, side)), denim, 0.0, 0.010, weave, 0.5)
        edge = [(0.098, 0.12), (0.111, 0.202), (0.087, 0.227), (0.021, 0.20)]
        picture.thread(stitches(polygon(edge, side)), thread)
    for y in (0.228, 0.325, 0.43, 0.54, 0.65, 0.79):
        picture.button(0.0, y, 0.0105, (0.62, 0.50, 0.36), False)
    return picture.photo((0.90, 0.89, 0.87))


def red_dress() -> np.ndarray:
    picture, red, weave = Picture(), (0.70, 0.06, 0.10), cotton(0.02)
    half = [(0.07, 0.06), (0.07, 0.06), (0.125, 0.08), (0.125, 0.08), (0.108, 0.15), (0.135, 0.22), (0.128, 0.3)]
    half += [(0.105, 0.39), (0.14, 0.50), (0.195, 0.72), (0.24, 0.93), (0.24, 0.93), (0.12, 0.955)]
    pleats = np.zeros((CANVAS, CANVAS), np.float32)
    for number, x in enumerate((-0.2, -0.145, -0.09, -0.03, 0.03, 0.085, 0.14, 0.195)):
        pleats += fold([(0.42 * x, 0.40), (0.7 * x, 0.62), (x, 0.94)], 0.016, 0.018 if number % 2 else 0.026)
    line = neck(0.13, 0.07, 0.06, 1.15)
    picture.cloth(filled(np.concatenate([line, neck(0.03, 0.07, 0.06)[::-1]])), red, 0.0, 0.002, weave, dark=0.5)
    picture.cloth(front(symmetric(half), line), red, pleats + wrinkles(51, 0.0012), 0.034, weave)
    belt = curve([(-0.112, 0.375), (0.0, 0.385), (0.112, 0.375)])
    picture.cloth(stroke(belt, 0.03) * filled(symmetric(half)), red, 0.3 * wrinkles(53, 0.001), 0.008, weave, 0.45)
    picture.thread(stitches(line + np.array([0, 0.009])), (0.42, 0.02, 0.05))
    return picture.photo((0.93, 0.92, 0.91))


def mannequin_tee() -> np.ndarray:
    """A T-shirt on a mannequin without a head."""
    picture, skin = Picture(), (0.86, 0.80, 0.73)
    bust = [(0.055, 0.02), (0.052, 0.07), (0.075, 0.12), (0.17, 0.16), (0.19, 0.22), (0.17, 0.5), (0.17, 0.84)]
    for side in (-1, 1):
        arm = [(0.19, 0.17), (0.24, 0.26), (0.275, 0.44), (0.30, 0.62), (0.262, 0.635), (0.225, 0.46), (0.19, 0.33)]
        picture.cloth(filled(mirrored(arm, side)), skin, 0.0, 0.04)
    picture.cloth(filled(symmetric(bust)), skin, 0.0, 0.05)
    picture.cloth(filled(symmetric([(0.0, 0.008), (0.05, 0.013), (0.05, 0.026), (0.0, 0.032)])), (0.5, 0.48, 0.46))
    teal, weave, line = (0.05, 0.42, 0.47), cotton(0.02), neck(0.06, 0.078, 0.118)
    relief = wrinkles(61, 0.0018) + sleeve_folds(0.012)
    for side in (-1, 1):
        short = [(0.18, 0.145), (0.215, 0.165), (0.25, 0.25), (0.275, 0.355), (0.275, 0.355), (0.20, 0.385)]
        short += [(0.20, 0.385), (0.19, 0.33), (0.17, 0.22)]
        picture.cloth(filled(mirrored(short, side)), teal, relief, 0.03, weave)
        picture.thread(stitches(polygon([(0.271, 0.338), (0.201, 0.368)], side)), (0.02, 0.26, 0.30))
    tee = [(0.078, 0.118), (0.078, 0.118), (0.15, 0.135), (0.20, 0.16), (0.215, 0.2), (0.195, 0.31), (0.185, 0.42)]
    tee += [(0.182, 0.58), (0.19, 0.78), (0.19, 0.78), (0.1, 0.795)]
    picture.cloth(front(symmetric(tee), line), teal, relief, 0.034, weave, 0.3)
    picture.cloth(stroke(line, 0.017), teal, 0.0, 0.007, weave, 0.4)
    picture.thread(stitches(line + np.array([0, 0.013])), (0.02, 0.26, 0.30))
    return picture.photo((0.80, 0.80, 0.80))


GARMENTS: dict[str, Callable[[], np.ndarray]] = {
    function.__name__: function
    for function in (striped_jumper, denim_jacket, red_dress, white_shirt, hoodie, mannequin_tee)
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "garments"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in GARMENTS.items():
        picture = draw()
        order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(picture, order), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
