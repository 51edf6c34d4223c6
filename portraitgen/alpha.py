"""From a coarse mask to alpha: what the colours at the person's edge tell.

In an unknown band around the mask the alpha of each pixel is read from its colour, on the line between the local
foreground and background colours (two local Gaussians; the background's is the clip's clean plate where that holds),
then made consistent by a confidence-weighted guided filter (He et al. 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .motion import fitted

COLOUR_NOISE = 0.02  # standard deviation that sensor and codec give a flat colour (0..1)
NEARER = 60.0  # evidence up to which the background's colour is looked for again, nearer to the person
PRIOR_EVIDENCE = 3.0  # weight of the coarse mask, in the units of the discriminant (squared distance over variance)


@dataclass
class Plate:
    """What the clip shows where the person is not: RGB [S, S, 3] in 0..1 and where it is known [S, S] 0/1."""

    colour: np.ndarray
    known: np.ndarray


def refine_alpha(frame: np.ndarray, coarse: np.ndarray, plate: Plate | None = None) -> np.ndarray:
    """Alpha at full resolution from a coarse mask.

    frame: [S, S, 3] uint8 RGB; coarse: [h, w] float person probability at any resolution; plate: the clip's
    background, if known.
    Returns [S, S] float32 in 0..1.
    """
    size = frame.shape[0]
    unit = size / 512
    image = frame.astype(np.float32) * np.float32(1 / 255)
    prior, sure_person, sure_background, depth = _trimap(fitted(coarse.astype(np.float32), (size, size)), unit)
    value = sure_person.astype(np.float32)
    unknown = ~(sure_person | sure_background)
    if not unknown.any():
        return value
    quarter = (max(32, size // 4),) * 2
    small, person, background, guess, distance = (
        cv2.resize(values.astype(np.float32), quarter, interpolation=cv2.INTER_AREA)
        for values in (image, sure_person, sure_background, prior, depth)
    )
    inner, outer = _local_colours(small, person), _local_colours(small, background)
    outer = _nearer_background(small, inner, outer, person, background, guess, distance / unit)
    inner, outer = inner.at(unknown), outer.at(unknown)
    if plate is not None:
        outer = _with_plate(outer, image, plate, sure_background, unknown)
    estimate, evidence = _discriminate(image[unknown], inner, outer)
    # Far from the coarse edge the mask is rarely wrong: only strong colour evidence moves it there.
    belief = _belief(depth[unknown] / unit)
    value[unknown] = (evidence * estimate + belief * prior[unknown]) / (evidence + belief)
    clear = evidence / (evidence + 30)
    confidence = np.ones_like(value)
    confidence[unknown] = 0.02 + 0.3 * clear
    smooth = guided_filter(image, value, confidence, unknown, radius=max(2, round(3 * unit)), epsilon=2e-4)[unknown]
    value[unknown] = smooth + 0.5 * clear * (value[unknown] - smooth)
    value = _without_haze(value, (prior < 0.5) * depth, unit)
    return np.clip((value - 0.05) / 0.9, 0, 1)  # codec noise leaves a faint veil: values next to the ends are the ends


def _trimap(prior: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Prior with enclosed holes filled, sure person, sure background, pixels to the coarse edge; all [S, S].

    A hole in the coarse mask is more often an earring or a dark cloth than a gap: unknown, with a person's prior.
    """
    size = len(prior)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((prior <= 0.8).astype(np.uint8), connectivity=4)
    left, top, width, height = stats[:, :4].T
    enclosed = (left > 0) & (top > 0) & (left + width < size) & (top + height < size)
    enclosed[0] = False
    holes = enclosed[labels]
    prior = np.where(holes, np.float32(1), np.clip(2 * prior - 0.5, 0, 1))
    person = (prior > 0.5).astype(np.uint8)
    inside = cv2.distanceTransform(cv2.copyMakeBorder(person, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 3)[
        1:-1, 1:-1
    ]
    outside = cv2.distanceTransform(1 - person, cv2.DIST_L2, 3)
    sure_person = (inside > 10 * unit) & (prior > 0.9) & ~holes
    sure_background = (outside > 18 * unit) & (prior < 0.1)
    return prior, sure_person, sure_background, np.where(holes, 15 * unit, inside + outside)


def _belief(depth: np.ndarray) -> np.ndarray:
    """Weight of the coarse mask by the distance to its edge, in pixels at S = 512."""
    return PRIOR_EVIDENCE * np.exp(np.minimum(depth / 5, 4))


@dataclass
class Colours:
    """A Gaussian of RGB for each pixel: mean [..., 3] and covariance [..., 6] (xx, xy, xz, yy, yz, zz)."""

    mean: np.ndarray
    covariance: np.ndarray

    def only(self, where: np.ndarray) -> Colours:
        """Those of the pixels `where` [h, w] says."""
        return Colours(self.mean[where], self.covariance[where])

    def at(self, where: np.ndarray) -> Colours:
        """Of a coarse grid's Gaussians [h, w, ...] those at the N pixels `where` [S, S] says, interpolated."""
        return Colours(fitted(self.mean, where.shape), fitted(self.covariance, where.shape)).only(where)


def _local_colours(colour: np.ndarray, source: np.ndarray) -> Colours:
    """Gaussians of the colours [h, w, 3] weighted by `source` [h, w] around each pixel; far ones fill in for near ones."""
    weight = source[..., None]
    moments = np.concatenate([weight, weight * colour, weight * _products(colour, colour)], axis=2)
    gathered = 1e-5 * moments.mean(axis=(0, 1), keepdims=True)
    for radius, share in ((8, 1.0), (24, 0.02), (80, 0.0005)):
        window = 2 * max(1, round(radius * len(colour) / 512)) + 1
        gathered = gathered + share * cv2.blur(cv2.blur(moments, (window, window)), (window, window))
    gathered = gathered[..., 1:] / np.maximum(gathered[..., :1], 1e-12)
    mean = gathered[..., :3]
    return Colours(mean, gathered[..., 3:] - _products(mean, mean))


def _nearer_background(
    colour: np.ndarray,
    inner: Colours,
    outer: Colours,
    person: np.ndarray,
    background: np.ndarray,
    prior: np.ndarray,
    depth: np.ndarray,
) -> Colours:
    """Background colours that also heed what a first guess takes for background closer to the person.

    A shelf or a shadow that only begins behind the hair is in no sure background; where it has the hair's brightness it
    would read as a veil of hair. All arrays lie on one coarse grid; person, background: shares that are sure;
    prior: the coarse mask; depth: to its edge in pixels at S = 512.
    """
    near = (background < 1) & (person < 1)
    estimate, evidence = _discriminate(colour[near], inner.only(near), outer.only(near))
    belief = _belief(depth[near])
    guess = (evidence * estimate + belief * prior[near]) / (evidence + belief)
    wider, share = background.copy(), np.zeros_like(background)
    wider[near] = np.maximum(wider[near], (1 - guess) ** 3 * (prior[near] < 0.5))
    share[near] = NEARER / (NEARER + evidence)
    nearer = _local_colours(colour, wider)
    return Colours(
        outer.mean + share[..., None] * (nearer.mean - outer.mean),
        outer.covariance + share[..., None] * (nearer.covariance - outer.covariance),
    )


def _without_haze(value: np.ndarray, outside: np.ndarray, unit: float) -> np.ndarray:
    """Alpha [S, S] less the veil that lies evenly over whole neighbourhoods outside the coarse mask.

    Strands leave gaps. A veil without any is background of the hair's colour; only where it is nearly solid, hair.
    outside: pixels to the coarse mask's edge, 0 inside it.
    """
    window = (2 * max(1, round(4 * unit)) + 1,) * 2
    veil = cv2.blur(cv2.erode(value, np.ones(window, np.uint8)), window)
    veil *= np.clip(outside / (4 * unit) - 1, 0, 1) * np.clip(3 - 4 * veil, 0, 1)
    return np.maximum(value - veil, 0) / (1 - veil)


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Upper triangle of the outer product of two [..., 3] arrays, [..., 6]."""
    return left[..., [0, 0, 0, 1, 1, 2]] * right[..., [0, 1, 2, 1, 2, 2]]


def _with_plate(outer: Colours, image: np.ndarray, plate: Plate, background: np.ndarray, where: np.ndarray) -> Colours:
    """Replace the local background colours by the clean plate where it explains the frame's background nearby."""
    quarter = max(32, len(image) // 4)
    weight = background * plate.known
    difference = (image - plate.colour) * weight[..., None]
    error = cv2.transform(difference * difference, np.full((1, 3), 1 / 3, dtype=np.float32))
    window = (2 * round(quarter * 0.05) + 1,) * 2
    error, near = (
        cv2.blur(cv2.resize(values, (quarter, quarter), interpolation=cv2.INTER_AREA), window)
        for values in (error, weight)
    )
    trust = np.exp(-error / np.maximum(near, 1e-6) / (2 * COLOUR_NOISE) ** 2) * (near > 0.02)
    share = (fitted(trust, where.shape)[where] * plate.known[where])[:, None]
    return Colours(outer.mean + share * (plate.colour[where] - outer.mean), outer.covariance * (1 - share))


def _discriminate(pixels: np.ndarray, inner: Colours, outer: Colours) -> tuple[np.ndarray, np.ndarray]:
    """Alpha [N] of pixels [N, 3] between two colour clouds, and its evidence [N] (squared separation over variance).

    A pixel of alpha a has the mean a F + (1 - a) B and the covariance a² Cov F + (1 - a)² Cov B + noise. The most likely
    a comes from alternating weighting and projection: near the background's end only the background's spread counts.
    """
    behind, difference = outer.mean, inner.mean - outer.mean
    estimate = np.full(len(pixels), 0.7, dtype=np.float32)
    for _ in range(3):
        spread = np.square(estimate)[:, None] * inner.covariance + np.square(1 - estimate)[:, None] * outer.covariance
        direction = _solve(spread, difference, COLOUR_NOISE**2)
        evidence = np.maximum(np.einsum("nc,nc->n", direction, difference), 1e-6)
        estimate = np.clip(np.einsum("nc,nc->n", direction, pixels - behind) / evidence, 0, 1)
    misfit = pixels - behind - estimate[:, None] * difference
    surprise = np.einsum("nc,nc->n", _solve(spread, misfit, COLOUR_NOISE**2), misfit)
    return estimate, evidence / (1 + surprise / 4)  # a colour on neither side tells nothing


def _solve(matrix: np.ndarray, vector: np.ndarray, ridge: float) -> np.ndarray:
    """Solve symmetric 3×3 systems, [..., 6] and [..., 3], by the adjugate."""
    xx, xy, xz, yy, yz, zz = (matrix[..., index] for index in range(6))
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    axx, axy, axz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    ayy, ayz, azz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = 1 / np.maximum(xx * axx + xy * axy + xz * axz, ridge**3)
    x, y, z = (vector[..., index] for index in range(3))
    return np.stack(
        [
            (axx * x + axy * y + axz * z) * scale,
            (axy * x + ayy * y + ayz * z) * scale,
            (axz * x + ayz * y + azz * z) * scale,
        ],
        axis=-1,
    )


def guided_filter(
    image: np.ndarray, value: np.ndarray, confidence: np.ndarray, where: np.ndarray, radius: int, epsilon: float
) -> np.ndarray:
    """Filter `value` so that it is locally linear in the colours of `image` (He et al. 2010), weighted by pixel.

    image: [H, W, 3] in 0..1; value: [H, W]; confidence: [H, W] > 0; where: [H, W] bool, the pixels that matter;
    radius in pixels of half resolution; epsilon: ridge. The linear models are fitted at half resolution and applied
    at full resolution. Returns [H, W] float32 in 0..1, meaningful at the `where` pixels.
    """
    height, width = value.shape
    small = (max(1, width // 2), max(1, height // 2))
    window = (2 * radius + 1,) * 2
    guide = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(confidence, small, interpolation=cv2.INTER_AREA)[..., None]
    weighted = cv2.resize(value * confidence, small, interpolation=cv2.INTER_AREA)[..., None]
    moments = np.concatenate(
        [weight, weighted, weight * guide, weighted * guide, weight * _products(guide, guide)], axis=2
    )
    touched = (
        cv2.dilate(cv2.resize(where.astype(np.uint8), small, interpolation=cv2.INTER_LINEAR), np.ones(window, np.uint8))
        > 0
    )
    moments = cv2.blur(moments, window)[touched]
    moments = moments[:, 1:] / moments[:, :1]
    mean, target = moments[:, 1:4], moments[:, :1]
    slope = _solve(moments[:, 7:] - _products(mean, mean), moments[:, 4:7] - mean * target, epsilon)
    model = np.zeros((small[1], small[0], 4), dtype=np.float32)
    model[touched] = np.concatenate([slope, target - np.einsum("nc,nc->n", slope, mean)[:, None]], axis=1)
    model = cv2.resize(cv2.blur(model, window), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.einsum("hwc,hwc->hw", model[..., :3], image) + model[..., 3], 0, 1)
