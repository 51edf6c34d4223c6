"""Draws the style pictures in examples/styles: paintings made of code alone, the same on every machine.

Run: python examples/draw_styles.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SIZE, SCALE = 512, 2  # pixels of a picture; how much larger it is drawn
N = SIZE * SCALE
Y, X = (np.mgrid[:N, :N].astype(np.float32) + 0.5) / N  # where each pixel lies, 0 to 1
Rng = np.random.Generator
Layers = list[tuple[int, float, float]]  # strokes, length and width in pixels


def rgb(*codes: str) -> np.ndarray:
    """Hex colours as floats [len, 3]."""
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes], np.float32)


def ramp(values: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colours along a palette at values in [0, 1]."""
    where = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, where, colours[:, channel]) for channel in range(3)], -1).astype(np.float32)


def noise(rng: Rng, cells: float, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Clouds [N, N] in [0, 1] with about ``cells`` clouds a side, ``stretch`` times as wide as high."""
    total = np.zeros((N, N), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        grid = rng.standard_normal((int(count) + 3, int(count / stretch) + 3)).astype(np.float32)
        total += cv2.resize(grid, (N, N), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.clip(0.5 + 0.28 * total, 0, 1)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def step(low: float, high: float, values: np.ndarray) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return below + (above - below) * mask[..., None]


def borders(labels: np.ndarray) -> np.ndarray:
    """1 where two labels meet, uint8."""
    edges = cv2.morphologyEx((labels % 251).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return (edges > 0).astype(np.uint8)


def brush(rng: Rng, picture: np.ndarray, angle: np.ndarray, layers: Layers, jitter: float, relief: float) -> np.ndarray:
    """Paint ``picture`` with bristly strokes along ``angle``, coarse ones first; thick paint catches light."""
    canvas = (picture * 255).astype(np.uint8).copy()
    height = np.full((N, N), 128, np.uint8)
    for count, length, width in layers:
        position = rng.random((count, 2)).astype(np.float32) * N
        inside = np.clip(position, 0, N - 1).astype(int)
        colour = (
            picture[inside[:, 1], inside[:, 0]] + rng.normal(0, jitter, (count, 3)) + rng.normal(0, jitter, (count, 1))
        )
        path, directions = [position], []
        for _ in range(6):
            inside = np.clip(path[-1], 0, N - 1).astype(int)
            turn = angle[inside[:, 1], inside[:, 0]]
            directions.append(np.stack([np.cos(turn), np.sin(turn)], -1))
            path.append(path[-1] + directions[-1] * length / 6)
        points, along = np.stack(path, 1), np.stack([*directions, directions[-1]], 1)
        across = np.stack([-along[..., 1], along[..., 0]], -1)
        bristles = max(3, int(width / 2.2))
        for stroke in range(count):
            for bristle in np.linspace(-0.5, 0.5, bristles):
                start = int(rng.integers(0, 2))
                line = points[stroke, start:] + across[stroke, start:] * bristle * width
                tone = np.clip(colour[stroke] + rng.normal(0, 0.35 * jitter, 3), 0, 1) * 255
                args = ([(line * 8).astype(np.int32)], False)
                thick = max(1, round(1.3 * width / bristles))
                cv2.polylines(canvas, *args, tone.tolist(), thick, cv2.LINE_AA, 3)
                cv2.polylines(height, *args, int(rng.integers(60, 220)), thick, cv2.LINE_AA, 3)
    slope = blur(height.astype(np.float32) / 255, 1.2)
    light = cv2.Sobel(slope, cv2.CV_32F, 1, 0) + cv2.Sobel(slope, cv2.CV_32F, 0, 1)
    return np.clip(canvas / 255 - relief * light[..., None], 0, 1)


def along(field: np.ndarray) -> np.ndarray:
    """Angle of the lines on which a field is constant."""
    return np.arctan2(cv2.Sobel(field, cv2.CV_32F, 1, 0), -cv2.Sobel(field, cv2.CV_32F, 0, 1)) + np.pi


def starry_night(rng: Rng) -> np.ndarray:
    """Oil: a night sky that turns around its stars, over hills and a cypress."""
    stream = 1.6 * Y + 0.10 * np.sin(5 * X + 1) + 0.22 * noise(rng, 2.5, 3)
    eddies = [(0.40, 0.30, 0.13, 1.5), (0.66, 0.38, 0.10, -1.1), (0.86, 0.15, 0.11, 1.3)]
    for x, y, size, strength in eddies:
        stream += strength * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / size**2)
    sky = ramp(np.clip(0.5 + 0.42 * np.sin(stream * 26) + 0.2 * (noise(rng, 6) - 0.5) + 0.35 * (Y - 0.35), 0, 1),
               rgb("0b1640", "16307a", "2456ad", "4f8fc8", "a9d3d8"))  # fmt: skip
    stars = [(0.86, 0.15, 0.085), (0.13, 0.12, 0.05), (0.30, 0.09, 0.04), (0.58, 0.12, 0.045), (0.20, 0.34, 0.038),
             (0.72, 0.24, 0.03), (0.93, 0.42, 0.04), (0.50, 0.47, 0.032)]  # fmt: skip
    for x, y, size in stars:
        distance = np.hypot(X - x, Y - y) / size
        stream += 0.5 * np.exp(-(distance**2) / 2) * size * 8
        glow = np.clip(1 - distance / 2.3, 0, 1) * (0.72 + 0.28 * np.cos(distance * 7))
        sky = mix(sky, ramp(np.clip(1.15 - distance / 1.8, 0, 1), rgb("7fb6b0", "e0d067", "f9c93a", "fff3b5")), glow)
    angle = along(stream)
    for base, height, colours in (
        (0.66, 0.06, ("27478a", "35639f", "1c3570")), (0.76, 0.05, ("1c3b57", "2f6a5e", "14284d")),
        (0.87, 0.04, ("12302f", "3a6b35", "0c1d2a")),
    ):  # fmt: skip
        edge = base + height * np.sin(7 * X + 9 * base) + 0.03 * np.sin(17 * X + 30 * base)
        mask = step(0, 0.004, Y - edge)
        folds = 30 * (Y - edge) + 4 * noise(rng, 3, 2)
        sky = mix(sky, ramp(0.5 + 0.5 * np.sin(folds * 3), rgb(*colours)), mask)
        angle = np.where(mask > 0.5, along(folds), angle)
    for _ in range(26):
        x, y = rng.uniform(0.3, 0.98), rng.uniform(0.79, 0.9)
        window = np.exp(-(((X - x) / 0.007) ** 4) - ((Y - y) / 0.010) ** 4)
        sky = mix(sky, np.broadcast_to(rgb("f7b733")[0], sky.shape), window)
    sway = 0.17 + 0.022 * np.sin(16 * Y) + 0.012 * np.sin(37 * Y)
    width = 0.085 * np.clip((Y - 0.18) / 0.75, 0, 1) ** 0.8
    tree = step(0.006, -0.006, np.abs(X - sway) - width * (0.85 + 0.3 * noise(rng, 14, 2)))
    flames = 60 * (X - sway) + 5 * noise(rng, 5, 2)
    sky = mix(sky, ramp(0.5 + 0.5 * np.sin(flames * 1.6), rgb("071a1b", "123a2b", "3d5a2a")), tree)
    angle = np.where(tree > 0.5, along(flames), angle)
    layers = [(1800, 70.0, 20.0), (5200, 52.0, 12.0), (9000, 34.0, 7.0)]
    return brush(rng, sky, angle, layers, 0.035, 0.32)


def woodcut(rng: Rng) -> np.ndarray:
    """Woodcut: the sun over ploughed fields, cut with a gouge into black."""
    sun_x, sun_y = 0.62, 0.33
    around = np.arctan2(Y - sun_y, X - sun_x)
    far = np.hypot(X - sun_x, Y - sun_y)
    wobble = noise(rng, 9, 3) - 0.5
    tone = np.clip(1.02 - 1.25 * far + 0.2 * (noise(rng, 3) - 0.5), 0, 1)
    phase = around * 84 / (2 * np.pi) + 0.5 * wobble
    for number, (base, height, frequency) in enumerate(((0.52, 0.07, 6), (0.64, 0.05, 8), (0.78, 0.06, 5))):
        edge = base + height * np.sin(frequency * X + 2.2 * number) + 0.012 * np.sin(31 * X + number)
        mask = edge < Y
        depth = Y - edge
        rows = (X - 0.5 - 0.2 * np.sin(3 * number)) / (0.18 + 2.2 * depth) * (9 + 3 * number)
        rows = rows if number != 1 else depth * 60 + 3 * np.sin(9 * X)
        phase = np.where(mask, rows + 0.8 * wobble, phase)
        tone = np.where(mask, np.clip(0.78 - 3.2 * depth + 0.25 * np.sin(5 * X + 3 * number), 0.12, 0.9), tone)
        tone = np.where(np.abs(depth) < 0.004, 0.0, tone)
    for _ in range(15):
        x, base = rng.uniform(0.02, 0.98), rng.uniform(0.6, 0.86)
        tall = 0.10 + 0.22 * (base - 0.55)
        up = (base - Y) / tall
        crown = (np.abs(X - x) < 0.30 * tall * np.clip(1.06 - up, 0, 1) * (0.72 + 0.28 * np.cos(up * 34))) & (up > 0)
        phase = np.where(crown, (np.abs(X - x) * 1.6 + (Y - base)) * 95 + wobble, phase)
        tone = np.where(crown, np.clip(0.12 + 4.5 * (X - x + 0.02), 0.05, 0.62), tone)
    cut = np.sin(2 * np.pi * phase) * 0.5 + 0.5
    gouge = np.clip(tone + 0.16 * (noise(rng, 40, 3) - 0.5), 0, 1)
    paper = step(-0.09, 0.09, gouge - cut * 0.98 - 0.01)
    disc = step(0.004, -0.004, far - 0.105 - 0.004 * wobble)
    grain = noise(rng, 160, 2, stretch=24)
    ink = rgb("17130f")[0] + 0.10 * step(0.62, 0.85, grain)[..., None]
    sheet = rgb("f1e4c6")[0] * (0.93 + 0.07 * noise(rng, 60, 3)[..., None])
    picture = mix(ink, sheet, paper)
    return np.asarray(mix(picture, rgb("c8351f")[0] * (0.88 + 0.16 * grain[..., None]), disc))


def watercolour(rng: Rng) -> np.ndarray:
    """Watercolour: wet flowers, colours running into each other and drying with dark rims."""
    grain = noise(rng, 150, 3)
    canvas = np.ones((N, N, 3), np.float32) * rgb("fbf7ee")[0]

    def wash(shape: np.ndarray, colour: np.ndarray, strength: float, wet: float) -> None:
        """One wash where ``shape`` > 0: pigment settles in the paper's pits and is carried to the rim."""
        nonlocal canvas
        ragged = shape + wet * 0.05 * (noise(rng, 7, 5) - 0.5) + 0.004 * (grain - 0.5)
        cover = step(-0.003 - 0.05 * wet**3, 0.003 + 0.05 * wet**3, ragged)
        rim = np.exp(-((ragged - 0.004) ** 2) / 0.006**2) * cover * (1 - 0.7 * wet)
        pool = 0.45 + 0.75 * noise(rng, 4, 4) + 0.35 * (grain - 0.5)
        density = strength * (cover * pool + 0.55 * rim)
        canvas = canvas * np.exp(-density[..., None] * -np.log(np.clip(colour, 0.03, 0.985)))

    for x, y, size, code in ((0.2, 0.2, 0.34, "a9d6e5"), (0.8, 0.3, 0.36, "f7c6a3"), (0.5, 0.85, 0.42, "b9d8a8"),
                             (0.1, 0.75, 0.25, "d7b9e0"), (0.9, 0.85, 0.25, "9fd0cf")):  # fmt: skip
        wash(size - np.hypot(X - x, Y - y), rgb(code)[0], 0.8, 1.0)
    for _ in range(34):
        x, y, turn = rng.uniform(0.02, 0.98), rng.uniform(0.35, 1.0), rng.uniform(-2.4, -0.7)
        length, wide = rng.uniform(0.12, 0.26), rng.uniform(0.016, 0.035)
        u = (X - x) * np.cos(turn) + (Y - y) * np.sin(turn)
        v = -(X - x) * np.sin(turn) + (Y - y) * np.cos(turn) - 0.9 * u * (length - u)
        leaf = wide * np.sin(np.pi * np.clip(u / length, 0, 1)) - np.abs(v) - 0.003
        code = ("5f9a4a", "2f7d5b", "8fb255", "3b6f86", "6b8f3a")[rng.integers(5)]
        wash(np.where((u > 0) & (u < length), leaf, -1), rgb(code)[0], rng.uniform(0.5, 0.95), 0.25)
    reds = (("e8486a", "c2255c"), ("f28c38", "e2533a"), ("8f5fc0", "5b3fa8"), ("f5c13c", "ee8f2e"), ("e77fb3", "c04490"),
            ("5b8fd6", "3558b0"))  # fmt: skip
    spots = [(0.30, 0.34, 0.15), (0.66, 0.25, 0.14), (0.52, 0.56, 0.16), (0.18, 0.62, 0.11), (0.83, 0.55, 0.13), (0.40, 0.82, 0.11),
             (0.73, 0.82, 0.12), (0.10, 0.16, 0.09), (0.90, 0.12, 0.10)]  # fmt: skip
    for number, (x, y, size) in enumerate(spots):
        pair = rgb(*reds[number % len(reds)])
        around, far = np.arctan2(Y - y, X - x), np.hypot(X - x, (Y - y) * 1.12)
        petals, turn = int(rng.integers(5, 8)), rng.uniform(0, 6)
        for layer, (reach, colour) in enumerate(((1.0, pair[0]), (0.86, pair[0]), (0.6, pair[1]), (0.34, pair[1]))):
            lobes = 0.78 + 0.22 * np.abs(np.cos(around * petals / 2 + turn + layer))
            wash(size * reach * lobes - far, colour, 0.62, 0.35)
        wash(0.16 * size - far, rgb("4a2f1c")[0], 0.9, 0.3)
    for _ in range(130):
        x, y, size = rng.random(), rng.random(), rng.exponential(0.0028) + 0.001
        left, right = max(0, int((x - 0.02) * N)), int((x + 0.02) * N)
        top, bottom = max(0, int((y - 0.02) * N)), int((y + 0.02) * N)
        patch = (slice(top, bottom), slice(left, right))
        drop = step(0.0006, -0.0006, np.hypot(X[patch] - x, Y[patch] - y) - size)
        canvas[patch] *= 1 - 0.5 * drop[..., None] * (1 - rgb(reds[rng.integers(6)][0])[0])
    return np.clip(canvas * (0.965 + 0.05 * grain[..., None]), 0, 1)


def cubist(rng: Rng) -> np.ndarray:
    """Oil: a guitar, a bottle and a table taken apart into facets."""
    ground = ramp(noise(rng, 3, 2), rgb("6d6350", "a8895a", "d0b27a", "8e8f86"))

    def put(mask: np.ndarray, code: str) -> None:
        nonlocal ground
        ground = mix(ground, np.broadcast_to(rgb(code)[0], ground.shape), mask.astype(np.float32))

    put(0.75 * X + Y > 1.28, "7c3f26")
    put(np.abs(X - 0.78) + 0.35 * np.abs(Y - 0.5) < 0.16, "2f5a58")
    for x, y, size in ((0.40, 0.66, 0.21), (0.47, 0.43, 0.155)):
        put(np.hypot(X - x, Y - y) < size, "c8772f")
    put(np.abs((X - 0.45) + 0.34 * (Y - 0.5)) < 0.035, "2b211a")
    put(np.hypot(X - 0.435, Y - 0.55) < 0.062, "1c1815")
    put((np.abs(X - 0.16) < 0.09) & (np.abs(Y - 0.34) < 0.2), "e6dcc3")
    put(np.hypot(X - 0.86, Y - 0.83) < 0.09, "b33a24")
    put((np.abs(X - 0.62 - 0.3 * (Y - 0.2)) < 0.05) & (Y < 0.42), "35507c")
    labels = np.zeros((N, N), np.int64)
    for number in range(15):
        turn, through = rng.choice([0.35, 0.9, 1.25, 1.95, 2.5]) + rng.normal(0, 0.16), rng.uniform(0.1, 0.9, 2)
        labels += (((X - through[0]) * np.cos(turn) + (Y - through[1]) * np.sin(turn)) > 0).astype(np.int64) << number
    for number, (x, y, size) in enumerate(((0.40, 0.66, 0.21), (0.47, 0.43, 0.155), (0.86, 0.83, 0.09)), 15):
        labels += (np.hypot(X - x, Y - y) < size).astype(np.int64) << number
    _, facets = np.unique(labels, return_inverse=True)
    facets = facets.reshape(N, N)
    count = np.bincount(facets.ravel())
    tones = rgb("efe6cf", "caa45d", "8a5a2b", "4b5c66", "8fa3a8", "1f1d1c", "b5552b", "d9b98a", "3f6d73", "6d7f3e")
    shift = rng.normal(0, 0.06, (len(count), 1)) + tones[rng.integers(0, len(tones), len(count))] * 0.42
    mean = np.stack([np.bincount(facets.ravel(), ground[..., c].ravel()) / count for c in range(3)], -1)
    picture = (mean * 0.62 + shift)[facets]
    turn = rng.uniform(0, np.pi, len(count))[facets]
    middle = [np.bincount(facets.ravel(), values.ravel()) / count for values in (X, Y)]
    reach = np.sqrt(count / N**2)[facets] + 0.02
    slope = ((X - middle[0][facets]) * np.cos(turn * 2) + (Y - middle[1][facets]) * np.sin(turn * 2)) / reach
    picture = np.clip(picture * (1 + 0.30 * np.clip(slope, -1.3, 1.3))[..., None], 0, 1).astype(np.float32)
    painted = brush(rng, picture, turn.astype(np.float32), [(9000, 30.0, 10.0), (9000, 20.0, 6.0)], 0.022, 0.16)
    painted = mix(picture, painted, np.full((N, N), 0.85, np.float32))
    edge = blur(borders(facets).astype(np.float32), 1.4) * step(0.42, 0.56, noise(rng, 5, 2))
    neck = (X - 0.45) + 0.34 * (Y - 0.5)
    strings = sum(np.exp(-(((neck - place) / 0.0016) ** 2)) for place in (-0.018, -0.006, 0.006, 0.018))
    painted = mix(painted, np.broadcast_to(rgb("f4e9c8")[0], painted.shape), 0.8 * strings * ((Y > 0.1) & (Y < 0.8)))
    return np.asarray(mix(painted, np.broadcast_to(rgb("15110f")[0], painted.shape), np.clip(1.5 * edge, 0, 1)))


def ink(rng: Rng) -> np.ndarray:
    """Ink on rice paper: mountains in mist, bamboo, a seal."""
    fibres = noise(rng, 70, 3, stretch=4)
    density = np.zeros((N, N), np.float32)
    for base, height, cells, strength in ((0.34, 0.24, 4, 0.38), (0.46, 0.22, 5, 0.62), (0.62, 0.2, 6, 0.95)):
        ridge = base - height * (noise(rng, cells, 6)[N // 2] - 0.35)
        depth = Y - ridge[None]
        fade = np.exp(-np.clip(depth, 0, 1) / (0.11 * (0.6 + noise(rng, 5, 3)[N // 3][None])))
        strokes = 0.55 + 0.9 * noise(rng, 26, 4, stretch=0.35)
        edge = step(-0.002, 0.004, depth + 0.010 * (noise(rng, 40, 3) - 0.5))
        density = density * (1 - 0.85 * edge * np.clip(fade * 2, 0, 1)) + strength * edge * fade * strokes

    def blade(x: float, y: float, turn: float, length: float, wide: float, dark: float, bend: float) -> None:
        """One stroke of a loaded brush: pressed down, drawn out to a tip, dry at the end."""
        nonlocal density
        u = (X - x) * np.cos(turn) + (Y - y) * np.sin(turn)
        v = -(X - x) * np.sin(turn) + (Y - y) * np.cos(turn) - bend * u * u
        t = np.clip(u / length, 0, 1)
        half = wide * np.sin(np.pi * t**0.55) * (1 - 0.35 * t)
        body = step(0.0015, -0.0015, np.abs(v) - half) * (u > 0) * (u < length)
        dry = cv2.remap(streaks, (t * N * 0.5).astype(np.float32), (np.clip(v / wide, -1, 1) * 0.5 + 0.5).astype(np.float32) * N * 0.2,
                        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)  # fmt: skip
        body = body * np.clip(1.25 - step(0.35, 0.8, dry * (0.35 + t)), 0.12, 1)
        density = np.maximum(density * (1 - 0.3 * body), dark * body * (0.85 + 0.3 * fibres))

    streaks = noise(rng, 60, 2, stretch=12)
    nodes = []
    for x, lean, wide, dark in ((0.66, 0.05, 0.007, 0.55), (0.92, 0.03, 0.012, 0.95), (0.80, -0.06, 0.018, 1.7)):
        for segment in range(7):
            low, high = 1.06 - segment * 0.175, 1.06 - segment * 0.175 - 0.169
            middle = x + lean * (1 - Y)
            t = np.clip((low - Y) / (low - high), 0, 1)
            half = wide * (1 + 0.28 * np.abs(2 * t - 1) ** 7)
            body = step(0.0012, -0.0012, np.abs(X - middle) - half) * (high < Y) * (low > Y)
            side = np.clip((X - middle) / half, -1, 1)
            wash = dark * (0.34 + 0.5 * np.clip(side, 0, 1) ** 2 + 0.4 * np.clip(-side, 0, 1) ** 5)
            density = density * (1 - 0.8 * body) + body * wash * (0.6 + 0.7 * noise(rng, 12, 3, stretch=0.2))
            joint = np.exp(-(((Y - high - 0.004) / 0.0035) ** 2)) * step(0.003, -0.001, np.abs(X - middle) - 1.2 * wide)
            density = np.maximum(density, 1.5 * dark * joint)
            nodes.append((x + lean * (1 - high), high, dark))
    for x, y, dark in (nodes[place] for place in (2, 4, 5, 9, 11, 12, 16, 18, 19)):
        side = rng.choice([-1.0, 1.0])
        tip_x, tip_y = x + side * rng.uniform(0.05, 0.12), y + rng.uniform(-0.03, 0.02)
        for leaf in range(int(rng.integers(4, 7))):
            turn = np.pi / 2 - side * (0.9 - 0.42 * leaf) + rng.normal(0, 0.12)
            size = rng.uniform(0.10, 0.17), rng.uniform(0.008, 0.013)
            blade(tip_x, tip_y, turn, *size, dark * rng.uniform(0.8, 1.5), rng.normal(0, 0.5))
        blade(x, y, np.arctan2(tip_y - y, tip_x - x), float(np.hypot(tip_x - x, tip_y - y)), 0.0022, dark, 0.0)
    for _ in range(9):
        x, y = 0.18 + rng.normal(0, 0.09), 0.15 + rng.normal(0, 0.035)
        blade(x, y, 0.35 + rng.normal(0, 0.1), 0.022, 0.003, 1.6, 8.0)
        blade(x, y, np.pi - 0.35 + rng.normal(0, 0.1), 0.022, 0.003, 1.6, -8.0)
    vignette = 1 - 0.10 * step(0.45, 0.9, np.hypot(X - 0.5, Y - 0.5))
    paper = rgb("f3ead6")[0] * ((0.94 + 0.08 * fibres) * vignette)[..., None]
    bled = 0.75 * density + 0.25 * blur(density, 5)
    picture = paper * np.exp(-bled[..., None] * np.array([2.05, 2.0, 1.85], np.float32))
    seal = step(0.002, -0.002, np.maximum(np.abs(X - 0.10), np.abs(Y - 0.86)) - 0.036 - 0.004 * noise(rng, 30, 2))
    carved = (np.abs(np.sin((X - 0.10) * 130)) > 0.35) | (np.abs(np.sin((Y - 0.86) * 95)) > 0.8)
    red = rgb("b3261c")[0] * (0.9 + 0.2 * fibres[..., None])
    return np.asarray(mix(picture, red, seal * np.where(carved, 0.95, 0.15) * step(0.15, 0.4, noise(rng, 60, 2))))


def stained_glass(rng: Rng) -> np.ndarray:
    """Stained glass: a rose window, the sun behind it, lead between the panes."""
    x, y = X - 0.5, Y - 0.5
    around, far = np.arctan2(y, x), np.hypot(x, y)
    wave = 12
    rings = [0.055, 0.145, 0.235, 0.315, 0.40, 0.475]
    ring = np.zeros((N, N), np.int64)
    for number, radius in enumerate(rings):
        swing = (0.0, 0.035, -0.03, 0.026, -0.02, 0.0)[number]
        ring += (far > radius + swing * np.cos(wave * around + number * np.pi)).astype(np.int64)
    counts = np.array([1, 12, 12, 24, 24, 24, 28])
    offsets = np.array([0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.5])
    sector = np.floor((around / (2 * np.pi) + 0.5) * counts[ring] + offsets[ring]).astype(np.int64) % counts[ring]
    panes = ring * 64 + sector
    palettes = [rgb("ffe9a8"), rgb("f6b21b", "f08a1d"), rgb("d9261c", "b0152a"), rgb("2449a8", "2f7fc4"), rgb("6a2c91", "8e3fae"),
                rgb("0f6b4f", "2fa36b"), rgb("1b2d6b", "23508f")]  # fmt: skip
    names, place = np.unique(panes, return_inverse=True)
    colours = np.stack([palettes[name // 64][(name % 64) % len(palettes[name // 64])] for name in names])
    colours = np.clip(colours * (1 + rng.normal(0, 0.13, (len(names), 1))), 0, 1)
    glass = colours[place.reshape(N, N)].astype(np.float32)
    turn = rng.uniform(0, np.pi, len(names))[place.reshape(N, N)]
    seeds = noise(rng, 24, 4) - 0.5
    streak = np.sin((X * np.cos(turn) + Y * np.sin(turn)) * 120 + 9 * noise(rng, 6, 3))
    light = (1.18 - 0.75 * far + 0.10 * streak + 0.45 * seeds)[..., None]
    glass = np.clip(glass * light + 0.18 * np.clip(light - 1, 0, 1), 0, 1)
    glass = np.clip(glass + 0.16 * step(0.80, 0.86, noise(rng, 90, 1))[..., None], 0, 1)
    distance = cv2.distanceTransform(1 - borders(panes), cv2.DIST_L2, 5)
    lead = step(8.5, 6.5, distance + 2.5 * seeds)
    round_top = np.clip(1 - distance / 8, 0, 1)
    slope = cv2.Sobel(blur(round_top, 1.5), cv2.CV_32F, 1, 0) + cv2.Sobel(blur(round_top, 1.5), cv2.CV_32F, 0, 1)
    metal = rgb("1a1a1d")[0] + np.clip(0.25 * slope, -0.05, 0.25)[..., None]
    glow = blur(mix(glass, np.zeros_like(glass), lead), 22)
    shade = 0.72 + 0.28 * step(6, 30, distance)
    picture = mix(glass * shade[..., None], metal, lead)
    return np.clip(picture + 0.16 * glow, 0, 1)


STYLES: dict[str, Callable[[Rng], np.ndarray]] = {
    "starry_night": starry_night,
    "woodcut": woodcut,
    "watercolour": watercolour,
    "cubist": cubist,
    "ink": ink,
    "stained_glass": stained_glass,
}


def draw(name: str) -> np.ndarray:
    """One of `STYLES` as [SIZE, SIZE, 3] uint8."""
    picture = STYLES[name](np.random.default_rng(sorted(STYLES).index(name) + 1))
    small = cv2.resize(picture.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def main() -> None:
    """Write every style as a JPEG."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "styles"
    folder.mkdir(parents=True, exist_ok=True)
    for name in STYLES:
        cv2.imwrite(str(folder / f"{name}.jpg"), draw(name)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
