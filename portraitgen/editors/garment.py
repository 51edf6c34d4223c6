"""Understanding a garment photo: what of it is the garment, and where its neckline, shoulders, armpits, sleeves and hem are.

Flat-lay photos, ghost mannequins, mannequins and people wearing the garment are read. Everything is found from the silhouette,
except the front of the neckline: the inside of the back, a neck or a mannequin lies above it within the silhouette.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .cutting import cut_out
from .figure import NECK, SHOULDER, SHOULDER_LINE
from .pictures import read_cutout
from .silhouette import Silhouette

READ_SIDE = 1024  # px: the photo as it is worn
LOOK_SIDE = 384  # px: the photo as it is measured
RAYS, RINGS = 61, 72  # of the polar picture in which the neckline is found
STITCH = 2  # rings: what is thinner along a ray is a line on the cloth and not its edge
ENDS = RAYS // 10  # rays at each end whose edge is not trusted
CROOKED = 3  # rings by which the two sides of a neckline may differ
FRONT_EDGE = 5.0  # CIELAB step from which on an edge within the silhouette counts as the front neckline

HOOD = 0.6  # of the shoulders' width: what stands up between them and is wider is a hood, and no neck

REMEDY = "Use a photo of a top, jacket or dress from the front on a plain background."
NO_GARMENT = f"The picture shows no garment. {REMEDY}"
NOT_WORN_HERE = f"This looks like {{}}, which a portrait does not show. {REMEDY}"

# sRGB of the words for colours.
NAMES = {
    "white": (0.93, 0.93, 0.93),
    "light grey": (0.75, 0.75, 0.75),
    "grey": (0.5, 0.5, 0.5),
    "black": (0.08, 0.08, 0.09),
    "red": (0.75, 0.08, 0.1),
    "dark red": (0.4, 0.05, 0.1),
    "pink": (0.93, 0.6, 0.7),
    "orange": (0.93, 0.5, 0.12),
    "deep orange": (0.85, 0.33, 0.15),
    "brown": (0.4, 0.25, 0.15),
    "beige": (0.82, 0.73, 0.6),
    "yellow": (0.95, 0.85, 0.2),
    "green": (0.25, 0.45, 0.3),
    "light green": (0.55, 0.8, 0.5),
    "teal": (0.05, 0.42, 0.45),
    "grey blue": (0.42, 0.5, 0.58),
    "light blue": (0.6, 0.75, 0.9),
    "blue": (0.2, 0.35, 0.65),
    "dark blue": (0.2, 0.29, 0.48),
    "navy": (0.08, 0.11, 0.26),
    "purple": (0.42, 0.2, 0.55),
}


@dataclass(frozen=True)
class Garment:
    """A garment photo, understood. "Left" is left in the picture; positions are (x, y) in the photo's pixels.

    Attributes:
        colour: [h, w, 3] float32 sRGB in [0, 1]; beyond the garment its nearest colours continue.
        front: [h, w] float32 pixels inside (positive) or outside of the garment's front, negative above the front neckline.
        neck, shoulders, armpits, hem: [2, 2] left and right points.
        neckline: [N, 2] the front neckline from the left to the right point of the neck.
        hugs_neck: whether neck, hood or collar stands up from between the shoulders, so that the neckline lies at the neck.
        high_collar: whether that is the garment's own collar, which covers the neck.
        sleeves: outer and inner end of the left and the right sleeve [2, 2, 2], None without sleeves.
        description: such as "a striped navy and white top with long sleeves".
    """

    colour: np.ndarray
    front: np.ndarray
    neck: np.ndarray
    shoulders: np.ndarray
    armpits: np.ndarray
    hem: np.ndarray
    neckline: np.ndarray
    hugs_neck: bool
    high_collar: bool
    sleeves: np.ndarray | None
    description: str


def read_garment(path: Path) -> Garment:
    """Read and understand a garment photo.

    Raises:
        InputError: the file is no readable picture, shows no garment, or one that a portrait cannot show (trousers, skirts, shoes).
    """
    cutout = read_cutout(path, READ_SIDE).permute(1, 2, 0).numpy()
    picture, mask = cut_out(cutout, LOOK_SIDE)
    if mask is None:
        raise InputError(NO_GARMENT)
    return understand(picture, mask)


def understand(picture: np.ndarray, mask: np.ndarray) -> Garment:
    """The garment in ``picture`` [h, w, 3] float32 with silhouette ``mask`` [h, w] in [0, 1]; raises InputError if it is none."""
    shrink = min(1.0, LOOK_SIDE / max(mask.shape))
    size = max(8, round(mask.shape[1] * shrink)), max(8, round(mask.shape[0] * shrink))
    ratio = np.array([mask.shape[1] / size[0], mask.shape[0] / size[1]])
    solid = cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 0.5
    lab = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    solid = _one_piece(solid)
    shape = Silhouette(solid)
    _refuse(shape)
    hugs_neck = shape.neck_height > 0.3 * shape.neck_width
    if hugs_neck and shape.neck_width > HOOD * np.ptp(shape.shoulders[:, 0]):
        shape = Silhouette(solid, neck=_within_hood(shape))
    neckline, above = _neckline(lab, shape)
    if hugs_neck:
        body = _without_mannequin(lab, solid, above)
        if body is not None:
            solid = body
            shape = Silhouette(solid, neck=shape.neck)
    hole = _above(neckline * ratio, shape.neck * ratio, mask.shape) if above.any() else np.zeros(mask.shape, bool)
    colour, front = _front(picture, mask, solid, hole)
    description = _describe(lab, solid & ~above, shape)
    ends = None if shape.sleeves is None else shape.sleeves * ratio
    points = (shape.neck * ratio, shape.shoulders * ratio, shape.armpits * ratio, shape.hem * ratio)
    return Garment(colour, front, *points, neckline * ratio, hugs_neck, not above.any(), ends, description)


def _one_piece(solid: np.ndarray) -> np.ndarray:
    """The largest piece with its small holes closed; refuses what is nothing, or a pair of things."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]
    if count < 2 or areas[0] < 0.025 * solid.size:
        raise InputError(NO_GARMENT)
    if count > 2 and areas[1] > 0.4 * areas[0]:
        raise InputError(NOT_WORN_HERE.format("a pair of things"))
    piece = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    piece = cv2.morphologyEx(piece, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    holes, marks, found, _ = cv2.connectedComponentsWithStats(1 - piece, connectivity=4)
    for hole in range(1, holes):
        if found[hole, cv2.CC_STAT_AREA] < 0.01 * piece.sum():
            piece[marks == hole] = 1
    return piece > 0


def _refuse(shape: Silhouette) -> None:
    """Raise InputError for silhouettes that are no top, jacket or dress."""
    if shape.has_sleeves:
        return
    lower = shape.solid[shape.top + shape.height // 2 : shape.bottom - 1, shape.left : shape.right + 1]
    middle = lower[:, int(0.35 * lower.shape[1]) : int(0.65 * lower.shape[1]) + 1]
    split = (~middle).any(1) & lower[:, : lower.shape[1] // 2].any(1) & lower[:, lower.shape[1] // 2 :].any(1)
    if split.mean() > 0.35:
        raise InputError(NOT_WORN_HERE.format("trousers"))
    if shape.height < 0.6 * shape.width:
        raise InputError(NOT_WORN_HERE.format("shoes or a bag"))
    dip = -shape.neck_height
    if dip > 0.02 * shape.width or shape.neck_height > 0.05 * shape.height:
        return
    widths = (shape.last - shape.first + 1)[shape.top + 2 : shape.bottom]
    upper = widths[: max(2, len(widths) // 2)]
    quarter = max(1, len(upper) // 4)
    narrows = upper[quarter:].min() < 0.9 * upper[:quarter].max()  # a waist below a bust
    if not narrows:
        raise InputError(NOT_WORN_HERE.format("a skirt") if widths[0] > 0.25 * widths.max() else NO_GARMENT)


def _within_hood(shape: Silhouette) -> np.ndarray:
    """Where the neck will be [2, 2] in a hood, which hides where the shoulders end: as on the body, measured from the shoulders."""
    half = np.ptp(shape.shoulders[:, 0]) / 2
    middle = shape.shoulders.mean(0)
    rise = (np.interp(SHOULDER, *SHOULDER_LINE) - np.interp(NECK, *SHOULDER_LINE)) / SHOULDER * half
    return middle + np.array([[-NECK / SHOULDER * half, -rise], [NECK / SHOULDER * half, -rise]])


def _neckline(lab: np.ndarray, shape: Silhouette) -> tuple[np.ndarray, np.ndarray]:
    """The front neckline [N, 2] and what lies above it [h, w] bool.

    In a polar picture around the middle of the neck, the neckline is the path from left to right that crosses little and is itself a
    strong edge: of the silhouette, or between the front and what shows above it.
    """
    left, right = shape.neck
    centre, radius = (left + right) / 2, max(4.0, float(np.linalg.norm(right - left)) / 2)
    core = cv2.erode(shape.solid.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2, borderValue=0) > 0
    seen = cv2.GaussianBlur(_continued(lab, core if core.any() else shape.solid), (0, 0), max(0.6, radius / 30))
    angles = np.linspace(np.pi, 0, RAYS)
    reach = np.linspace(0.05, 2.3, RINGS)
    x = centre[0] + radius * reach[None] * np.cos(angles)[:, None]
    y = centre[1] + radius * reach[None] * np.sin(angles)[:, None]
    polar = cv2.remap(seen, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    polar = _without_lines(polar)
    inside = cv2.remap(shape.solid.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    edge = np.zeros((RAYS, RINGS))
    edge[:, 2:-2] = np.linalg.norm(polar[:, 4:] - polar[:, :-4], axis=-1)
    depth = cv2.distanceTransform(np.pad(shape.solid.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1] / radius
    depth = cv2.remap(depth, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    edge *= np.clip((depth - 0.08) / 0.1, 0, 1)  # the silhouette's own rim is no seam
    rim = np.zeros_like(edge)
    rim[:, 1:-1] = np.abs(inside[:, 2:] - inside[:, :-2])
    passed = np.cumsum(np.linalg.norm(np.diff(polar, axis=1, prepend=polar[:, :1]), axis=-1), axis=1)
    strain = 14.0 * np.clip(reach - 1.25 - 0.75 * np.sin(angles)[:, None] ** 2, 0, None)  # deep only in the middle
    strain += 40.0 * np.clip(0.5 + 0.2 * np.sin(angles)[:, None] ** 2 - reach, 0, None)  # and around a throat
    strain[[0, 1, -2, -1]] += 160 * np.clip(reach - 1, 0, 0.5)
    # a label is passed and left behind; what has the colours of the middle again is no front
    middle = np.stack([np.median(polar[:, : ring + 1], axis=1) for ring in range(RINGS)], 1)
    front = np.clip(np.linalg.norm(np.roll(polar, 2, 1) - middle, axis=-1) / FRONT_EDGE - 0.5, 0, 1)
    path = _even_path(strain + 0.35 * np.minimum(passed, 60.0) * (0.3 + 0.7 * front) - np.minimum(edge, 30.0))
    seam = bool(np.median(edge[np.arange(RAYS), path][RAYS // 8 : -RAYS // 8]) > FRONT_EDGE)
    if not seam:  # nothing shows above the front: its edge is the silhouette's
        path = _even_path(strain - 30.0 * rim)
    radii = _with_ends(_with_ends(reach[path], angles)[::-1], angles[::-1])[::-1]
    radii = cv2.GaussianBlur(radii[:, None].copy(), (1, 0), 0.1, sigmaY=1.6)[:, 0]
    line = centre + radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    if not seam and shape.neck_height > 0.3 * shape.neck_width:  # a collar that stands up the neck
        return line, np.zeros_like(shape.solid)
    return line, _above(line, shape.neck, shape.solid.shape)


def _above(line: np.ndarray, neck: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What lies above a neckline [N, 2] in a picture [h, w], and beside it above the ``neck`` [2, 2], bool.

    Ribs and collars between the neckline and the neck stay: they stand up about as high as they are wide.
    """
    (left, right), width = neck, shape[1]
    rise = np.clip([line[0, 0] - left[0], right[0] - line[-1, 0]], 0, None)
    beyond = [
        (line[-1, 0], right[1] - rise[1]),
        (right[0], right[1] - rise[1]),
        (right[0], right[1] - 1),
        (width + 9, right[1] - 1),
        (width + 9, -9),
        (-9, -9),
        (-9, left[1] - 1),
        (left[0], left[1] - 1),
        (left[0], left[1] - rise[0]),
        (line[0, 0], left[1] - rise[0]),
    ]
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(np.concatenate([line, beyond]) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask > 0


def _path(cost: np.ndarray) -> np.ndarray:
    """The cheapest ring of each ray [RAYS] under ``cost`` [RAYS, RINGS] without jumps."""
    best, way = cost[0], np.zeros((RAYS, RINGS), np.int64)
    jumps = np.arange(-6, 7)
    for ray in range(1, RAYS):
        padded = np.pad(best, 6, constant_values=1e9)
        options = np.stack([padded[6 + jump : 6 + jump + RINGS] + 1.5 * abs(jump) for jump in jumps])
        way[ray] = np.clip(np.arange(RINGS) + jumps[options.argmin(0)], 0, RINGS - 1)
        best = options.min(0) + cost[ray]
    path = [int(best.argmin())]
    for ray in range(RAYS - 1, 0, -1):
        path.append(int(way[ray, path[-1]]))
    return np.array(path[::-1])


def _even_path(cost: np.ndarray) -> np.ndarray:
    """As `_path`, with both sides about alike, as garments are cut: an edge that only one of them has is a crease or a shadow."""
    both = _path(cost + cost[::-1])
    aside = np.abs(np.arange(RINGS)[None] - both[:, None])
    return _path(cost + 1e4 * (aside > CROOKED))


def _with_ends(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """``radii`` [RAYS] with the first `ENDS` on the straight line that the next ones begin, no farther out than the neck, nor farther in.

    There the cloth ends right beside the neckline, so that its edge is not seen for sure.
    """
    (x, further), (y, deeper) = (radii[[ENDS, 2 * ENDS]] * turn(angles[[ENDS, 2 * ENDS]]) for turn in (np.cos, np.sin))
    across = (deeper - y) * np.cos(angles[:ENDS]) - (further - x) * np.sin(angles[:ENDS])
    straight = (x * (deeper - y) - y * (further - x)) / np.where(np.abs(across) < 1e-6, 1e-6, across)
    straight = np.where(straight > 0, straight, 1.0)
    return np.concatenate([np.clip(straight, radii[ENDS], max(1.0, radii[ENDS])), radii[ENDS:]])


def _without_lines(polar: np.ndarray) -> np.ndarray:
    """The polar picture [RAYS, RINGS, 3] without what is thin along its rays: seams are stitched, but do not end the cloth."""
    reach = 2 * STITCH
    padded = np.pad(polar, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    near = np.stack([padded[:, step : step + RINGS] for step in range(2 * reach + 1)])
    return np.median(near, axis=0).astype(np.float32)


def _continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``image`` [h, w, 3] with the nearest of its ``known`` pixels [h, w] everywhere else."""
    _, index = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros((int(index.max()) + 1, 3), np.float32)
    nearest[index[known]] = image[known]
    return nearest[index]


def _without_mannequin(lab: np.ndarray, solid: np.ndarray, above: np.ndarray) -> np.ndarray | None:
    """The silhouette without what has the colours of the neck; None if that is the garment's own collar."""
    stub = cv2.erode((solid & above).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if stub.sum() < 12:
        return None
    samples = lab[stub]
    mean, spread = np.median(samples, 0), np.maximum(samples.std(0), (7, 2.5, 2.5))
    alike = (np.abs(lab - mean) / spread / (3.5, 2.5, 2.5)).max(-1) < 1
    alike = cv2.morphologyEx((alike & solid).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    kept = solid & (cv2.dilate(alike, np.ones((3, 3), np.uint8)) == 0)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(kept.astype(np.uint8), connectivity=4)
    if len(stats) < 2 or stats[1:, cv2.CC_STAT_AREA].max() < 0.35 * solid.sum():
        return None
    piece = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return cv2.morphologyEx(piece, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0


def _front(picture: np.ndarray, mask: np.ndarray, solid: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours that go on beyond the garment, [h, w, 3], and the signed distance to its front [h, w], at the photo's full size."""
    height, width = mask.shape
    near = cv2.resize(solid.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    front = (mask > 0.5) & (near > 0.4) & ~hole
    distance = signed_distance(front)
    rim = 1.5 + max(height, width) / 400
    # the neckline is not found to the pixel, and what lies behind it must not show beside it
    collar = np.arange(height)[:, None] < np.flatnonzero(hole.any(1)).max(initial=0) + 2 * rim
    core = cv2.distanceTransform(front.astype(np.uint8), cv2.DIST_L2, 5) > np.where(collar, 2 * rim, rim)
    core = core if core.any() else front
    grown = _continued(picture, core)
    smooth = cv2.GaussianBlur(grown, (0, 0), 1.5 * rim)
    ring = np.clip((rim - distance) / (4 * rim), 0, 1)[..., None]
    return np.where(core[..., None], picture, grown + ring * (smooth - grown)), distance.astype(np.float32)


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """Pixels [h, w] float32 from each pixel to the border of ``inside`` [h, w] bool, positive inside, without the stairs of its pixels."""
    solid = inside.astype(np.uint8)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    return cv2.GaussianBlur(distance, (0, 0), 1.0 + max(inside.shape) / 350)


def describe_colours(pixels: np.ndarray) -> list[str]:
    """Names of the main colours of CIELAB ``pixels`` [N, 3], the commonest first."""
    pixels = np.ascontiguousarray(pixels[:: max(1, len(pixels) // 40000)], np.float32)
    cv2.setRNGSeed(3)
    _, labels, centres = cv2.kmeans(pixels, 3, None, (3, 20, 0.5), 2, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(labels[:, 0], minlength=3) / len(pixels)
    palette = np.array(list(NAMES.values()), np.float32)[None]
    known = cv2.cvtColor(palette, cv2.COLOR_RGB2LAB)[0]
    names: list[str] = []
    for index in np.argsort(-shares):
        difference = (known - centres[index]) * (0.6, 1, 1)
        name = list(NAMES)[int(np.linalg.norm(difference, axis=1).argmin())]
        lightness = np.ptp(centres[:, 0])
        if shares[index] > 0.15 and name not in names and (not names or lightness > 25):
            names.append(name)
    return names


def _describe(lab: np.ndarray, garment: np.ndarray, shape: Silhouette) -> str:
    """The garment in a few words: pattern, colours, kind, sleeves."""
    names = describe_colours(lab[garment])
    left, right = (int(x) for x in shape.armpits[:, 0])
    torso = lab[int(shape.armpits[:, 1].mean()) : int(shape.hem[:, 1].mean()), left : right + 1, 0]
    striped = False
    if torso.shape[0] > 20 and torso.shape[1] > 8:
        rows = torso.mean(1) - cv2.blur(torso.mean(1)[:, None], (1, len(torso) // 3))[:, 0]
        striped = rows.std() > 8 and rows.var() > 0.5 * torso.var() and (np.diff(np.sign(rows)) != 0).sum() >= 6
    colours = " and ".join(names[:2] if striped else names[:1])
    kind = "dress" if shape.hem[:, 1].mean() - shape.shoulders[:, 1].mean() > 2.6 * shape.chest else "top"
    length = 0.0
    if shape.sleeves is not None:
        start = (shape.shoulders + shape.armpits) / 2
        length = float(np.linalg.norm(shape.sleeves.mean(1) - start, axis=1).mean() / shape.chest)
    sleeves = "no" if length == 0 else "short" if length < 0.62 else "long"
    phrase = f"{'striped ' if striped else ''}{colours} {kind}"
    return f"a{'n' if phrase[0] in 'aeiou' else ''} {phrase} with {sleeves} sleeves"
