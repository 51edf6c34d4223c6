"""Region masks of the person: skin, hair, lips, eyes, brows, teeth, mouth, clothes.

Eyes, brows, lips and mouth are polygons of FaceMesh points. Skin, hair and clothes are told apart by a colour model of
the clip (three Lab histograms, fitted once, so the decision does not waver from frame to frame), a position prior in
face coordinates (sharpened by the tracked mesh where there is one), and a guided filter that makes the class
probabilities follow the picture's edges.

Conventions: ears, neck, hands and beards are skin; hats are hair; tongue and dark inside of an open mouth are "mouth".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .alpha import guided_filter
from .errors import InputError

REGIONS = ("background", "skin", "hair", "lips", "eyes", "brows", "teeth", "clothes", "mouth")
BACKGROUND, SKIN, HAIR, LIPS, EYES, BROWS, TEETH, CLOTHES, MOUTH = range(len(REGIONS))
COLOUR_CLASSES = (SKIN, HAIR, CLOTHES)

# FaceMesh point numbers around each outline (MediaPipe's face_mesh_connections).
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
EYE_OUTLINES = (
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
)
BROW_OUTLINES = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
FOREHEAD, CHIN, CHEEKS = 10, 152, (234, 454)

BINS = (32, 64, 64)  # cells of the Lab histograms
LIKELY = (0.01, 0.02, 0.1)  # share of each colour class (skin, hair, clothes) that may have any colour at all
SHADING = (2.5, 1.5, 1.2)  # how far each class's colours spread in lightness beyond the samples, in cells
SHADES = (0.85, 0.7, 0.55)  # light that reaches a neck under chin and hair, of that on the face
SHADE_ODDS = 2.0  # log odds against shade; dark locks before the neck are as likely
DOUBT = 1.0  # by how much (log) skin may explain a colour better that hair still learns
SKIN_CHROMA = 12.0  # skin elsewhere on the body keeps within this distance of the face's a and b

# What a tracked mesh part says about the classes (log odds of skin, hair, clothes).
PART_EVIDENCE = {
    "face": (0.0, 0.0, -6.0),  # the label reaches up under the fringe: it rules out clothes, not hair
    "scalp": (0.0, 2.0, -5.0),
    "ears": (1.5, 0.5, -5.0),
    "neck": (2.5, -0.5, 0.0),
    "torso": (0.0, -0.5, 1.5),
    "arms": (0.0, -1.0, 1.0),
}
PART_REGIONS = {
    "eye_left": EYES,
    "eye_right": EYES,
    "lips": LIPS,
    "teeth": TEETH,
    "tongue": MOUTH,
    "mouth_interior": MOUTH,
}


@dataclass(frozen=True)
class RegionModel:
    """Colours of one clip's person."""

    log_likelihood: np.ndarray  # [3, 32·64·64] float32: skin, hair, clothes in cells of Lab
    shaded_skin: np.ndarray  # [32·64·64] float32: log-likelihood of skin in the shade, as under a chin
    skin_lab: np.ndarray  # [3] float32: median skin colour, OpenCV's 8-bit Lab
    has_hair: bool


def fit_region_model(samples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> RegionModel:
    """Colour model from a few frames of the clip (8 spread over it are plenty).

    samples: (frame [S, S, 3] uint8 RGB, alpha [S, S] uint8, face_landmarks [K, 2+] crop pixels, NaN = skipped).
    Raises InputError when no sample shows a face.
    """
    views = [_View(*sample) for sample in samples]
    views = [view for view in views if view.coordinates is not None]
    if not views:
        raise InputError("No face was found in the sampled frames. Use a clip in which the face is visible.")
    seeds = [np.concatenate([view.cells[view.seed(label)] for view in views]) for label in COLOUR_CLASSES]
    skin_lab = np.median(np.concatenate([view.lab[view.seed(SKIN)] for view in views]), axis=0).astype(np.float32)
    skin, hair, _ = _tables(*seeds)
    # Above a bald head's forehead there is skin: hair must be told from skin by most of its seeds.
    hair_cells = seeds[1][(hair - skin)[seeds[1]] > 0.7]
    has_hair = len(hair_cells) > max(30 * len(views), 0.3 * len(seeds[1]))
    hair_table = _log_histogram(hair_cells, 1)
    clothes_cells = seeds[2][(np.maximum(skin, hair_table) < 3 - np.log(np.prod(BINS)))[seeds[2]]]
    shaded = _shaded_skin(np.concatenate([view.lab[view.seed(SKIN)] for view in views]))
    model = RegionModel(_tables(seeds[0], hair_cells, clothes_cells), shaded, skin_lab, has_hair)
    # Two rounds of re-estimation take in what the seeds missed: shaded neck, hair ends, the rest of the clothes.
    for _ in range(2):
        chosen: list[list[np.ndarray]] = [[], [], []]
        for view in views:
            posterior = view.posterior(model)
            sure = (posterior > 0.85) & (view.alpha > 0.95)[..., None]
            # Beside a neck the place speaks for hair: hair must not learn the skin's colours there.
            skin, hair, _ = model.log_likelihood[:, view.cells]
            sure[..., 1] &= hair > skin - DOUBT
            for index in range(3):
                chosen[index].append(view.cells[sure[..., index]])
        model = RegionModel(_tables(*(np.concatenate(cells) for cells in chosen)), shaded, skin_lab, has_hair)
    return model


def region_labels(
    frame: np.ndarray,
    alpha: np.ndarray,
    face_landmarks: np.ndarray,
    model: RegionModel,
    mesh_labels: np.ndarray | None = None,
    mesh_names: Sequence[str] = (),
) -> np.ndarray:
    """Label image of one frame: indices into REGIONS.

    frame: [S, S, 3] uint8 RGB; alpha: [S, S] uint8; face_landmarks: [K, 2+] crop pixels, NaN where there is no face;
    mesh_labels: [S, S] integers, the tracked mesh's part under each pixel as an index into `mesh_names`, -1 = none.
    Returns [S, S] uint8; background where alpha is under 5 %. Raises InputError when the shapes do not match.
    """
    view = _View(frame, alpha, face_landmarks, mesh_labels, mesh_names)
    size = len(alpha)
    posterior = view.posterior(model)
    picture = frame.astype(np.float32) * np.float32(1 / 255)
    cover = alpha.astype(np.float32) / 255
    person = alpha >= 13
    confidence = np.square(cover) + 1e-3
    solid = [
        guided_filter(
            picture, cv2.resize(posterior[..., index], (size, size)), confidence, person, max(2, size // 128), 5e-4
        )
        for index in (1, 2)
    ]
    # Colours at the matte's edge are mixed with the background: there the solid surroundings decide.
    weight = (np.square(view.alpha) * view.alpha + 1e-4)[..., None]
    moments = np.concatenate([posterior * weight, weight], axis=-1)
    gathered = np.zeros_like(moments)
    for divisor, share in ((128, 1.0), (32, 1e-2)):  # near ones count, far ones fill in
        window = (size // divisor * 2 + 1,) * 2
        gathered += share * cv2.blur(cv2.blur(moments, window), window)
    nearby = gathered[..., :3] / gathered[..., 3:]
    mixed = 1 - _ramp(cover, 0.85, 0.99)
    hair, clothes = (
        solid[index] + mixed * (cv2.resize(nearby[..., index + 1], (size, size)) - solid[index]) for index in (0, 1)
    )
    skin = 1 - hair - clothes
    labels = np.where(hair > np.maximum(skin, clothes), HAIR, np.where(clothes > skin, CLOTHES, SKIN)).astype(np.uint8)
    _paint_features(labels, view, model)
    labels[~person] = BACKGROUND
    return labels


def soft_regions(labels: np.ndarray | Tensor, alpha: np.ndarray | Tensor, feather: float = 2.0) -> dict[str, Tensor]:
    """Feathered masks that sum to 1.

    labels: [B, S, S] or [S, S] uint8 from `region_labels`; alpha: the same shape, uint8 or float 0..1;
    feather: pixels at S = 512.
    Returns {region: [B, 1, S, S] float32}; "background" is 1 - alpha.
    """
    index = torch.as_tensor(labels)
    cover = torch.as_tensor(alpha)
    if index.shape != cover.shape or index.ndim not in (2, 3):
        raise InputError(
            f"Labels {tuple(index.shape)} and alpha {tuple(cover.shape)} do not match. Pass [B, S, S] twice."
        )
    size = index.shape[-1]
    index = index.reshape(-1, 1, *index.shape[-2:]).long()
    cover = cover.reshape(index.shape).float() / (255 if cover.dtype == torch.uint8 else 1)
    hard = torch.cat([(index == label).float() for label in range(1, len(REGIONS))], dim=1)
    near = _blurred(hard, max(1, round(feather * size / 512)))
    # Faint strands beyond the labelled pixels take the region of their surroundings.
    far = _blurred(functional.avg_pool2d(hard, 8, ceil_mode=True, count_include_pad=False), 3)
    far = functional.interpolate(far, size=hard.shape[-2:], mode="bilinear")
    share = near.add_(far, alpha=1e-3).add_(1e-6 * hard.mean(dim=(2, 3), keepdim=True) + 1e-9)
    share.mul_(cover / share.sum(dim=1, keepdim=True))
    return {"background": 1 - cover} | {name: share[:, i : i + 1] for i, name in enumerate(REGIONS[1:])}


def _blurred(masks: Tensor, radius: int) -> Tensor:
    """Two passes of a box filter over [B, C, H, W] that leaves out what lies beyond the border."""
    if masks.is_cuda:
        for _ in range(2):
            masks = functional.avg_pool2d(masks, 2 * radius + 1, 1, radius, count_include_pad=False)
        return masks
    # On the CPU PyTorch adds up every window anew, OpenCV slides it.
    height, width = masks.shape[-2:]
    counts = [
        np.convolve(np.ones(side, np.float32), np.ones(2 * radius + 1, np.float32))[radius : radius + side]
        for side in (height, width)
    ]
    weights = np.reciprocal(np.outer(*counts))
    blurred = np.empty(masks.shape, np.float32)
    for source, result in zip(masks.flatten(0, 1).numpy(), blurred.reshape(-1, height, width), strict=True):
        for plane in (source, result):
            cv2.boxFilter(plane, -1, (2 * radius + 1,) * 2, dst=result, normalize=False, borderType=cv2.BORDER_CONSTANT)
            result *= weights
    return torch.from_numpy(blurred)


class _View:
    """One frame at half resolution with everything the colour and position evidence reads."""

    def __init__(
        self,
        frame: np.ndarray,
        alpha: np.ndarray,
        landmarks: np.ndarray,
        mesh_labels: np.ndarray | None = None,
        mesh_names: Sequence[str] = (),
    ) -> None:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or alpha.shape != frame.shape[:2]:
            raise InputError(
                f"Frame {frame.shape} and alpha {alpha.shape} do not match. Pass [S, S, 3] uint8 and [S, S]."
            )
        if mesh_labels is not None and mesh_labels.shape != alpha.shape:
            raise InputError(f"The mesh labels are {mesh_labels.shape}, the frame {alpha.shape}. Pass the same size.")
        points = np.asarray(landmarks, dtype=np.float32)
        if points.ndim != 2 or points.shape[0] < 468 or points.shape[1] < 2:
            raise InputError(f"The face landmarks have shape {points.shape}. Pass the 468 or 478 points of FaceMesh.")
        half = (alpha.shape[1] // 2, alpha.shape[0] // 2)
        self.frame = frame
        self.points = points[:, :2] if np.isfinite(points[:, :2]).all() else None
        self.mesh = None if mesh_labels is None else np.asarray(mesh_labels)
        self.mesh_names = tuple(mesh_names)
        self.alpha = cv2.resize(alpha, half, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        self.lab = cv2.cvtColor(cv2.resize(frame, half, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
        self.cells = _cells(self.lab)
        self.coordinates = None if self.points is None else self._face_coordinates(self.points / 2)

    def _face_coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Across and down from the face's middle and distance outside its oval (< 0 inside), in face heights."""
        down = points[CHIN] - points[FOREHEAD]
        height = max(float(np.hypot(*down)), 8.0)
        down = down / height
        centre = (points[CHIN] + points[FOREHEAD]) / 2
        rows, columns = self.alpha.shape
        x = (np.arange(columns, dtype=np.float32) + 0.5 - centre[0]) / height
        y = ((np.arange(rows, dtype=np.float32) + 0.5 - centre[1]) / height)[:, None]
        oval = np.zeros(self.alpha.shape, np.uint8)
        _fill(oval, points[list(FACE_OVAL)], 1)
        outside = cv2.distanceTransform(1 - oval, cv2.DIST_L2, 3) - cv2.distanceTransform(oval, cv2.DIST_L2, 3)
        return x * down[1] - y * down[0], x * down[0] + y * down[1], outside / height

    def seed(self, label: int) -> np.ndarray:
        """Pixels [h, w] bool that very likely show the class, whatever their colour."""
        assert self.coordinates is not None
        across, down, outside = self.coordinates
        solid = self.alpha > 0.97
        if label == SKIN:
            face = solid & (outside < -0.06) & (down > -0.2) & (np.abs(across) < 0.3)
            return (
                face & (self._chroma_distance(np.median(self.lab[face], axis=0)) < SKIN_CHROMA) if face.any() else face
            )
        if label == HAIR:
            return solid & (outside > 0.1) & (outside < 0.35) & (down < -0.3)
        return solid & (down > 0.95) & (outside > 0.4)

    def _chroma_distance(self, lab: np.ndarray) -> np.ndarray:
        return np.hypot(self.lab[..., 1] - np.float32(lab[1]), self.lab[..., 2] - np.float32(lab[2]))

    def colour_evidence(self, model: RegionModel) -> np.ndarray:
        """Log-likelihood [h, w, 3] of each pixel's colour if it is skin, hair, clothes; a neck may lie in the shade."""
        evidence = np.moveaxis(model.log_likelihood[:, self.cells], 0, -1).astype(np.float32)
        if self.coordinates is not None:
            across, down, outside = self.coordinates
            neck = _ramp(down, 0.3, 0.45) * _ramp(0.4 - outside, 0, 0.1) * _ramp(0.6 - np.abs(across), 0, 0.1)
            evidence[..., 0] += neck * np.maximum(model.shaded_skin[self.cells] - SHADE_ODDS - evidence[..., 0], 0)
        return evidence

    def log_odds(self, model: RegionModel) -> np.ndarray:
        """Unnormalised log posterior [h, w, 3] of skin, hair, clothes."""
        odds = self.colour_evidence(model)
        odds[..., 0] -= np.clip(self._chroma_distance(model.skin_lab) / SKIN_CHROMA - 1, 0, 1) * 8
        if not model.has_hair:
            odds[..., 1] -= 5
        if self.coordinates is not None:
            across, down, outside = self.coordinates
            deep = _ramp(-outside, 0, 0.08)
            face = _ramp(-outside, -0.06, 0.02)  # the oval's top is only roughly at the hairline
            cheek = _ramp(down, -0.25, -0.12)  # 0 on the forehead, where a fringe may fall, 1 from the brows down
            forehead = _ramp(-outside, 0.02, 0.1) * (1 - cheek)
            # The oval ends below the hairline: just above it colour alone decides.
            hairline = _ramp(0.3 - outside, 0, 0.1) * _ramp(0.4 - np.abs(across), 0, 0.1) * (down < -0.3)
            ears = _ramp(0.14 - outside, 0, 0.04) * _ramp(0.3 - np.abs(down), 0, 0.1)
            above = _ramp(-down, 0.4, 0.6) * (1 - hairline)
            odds[..., 0] += (
                face * (1 + 2 * cheek + 1.5 * forehead) - 3 * (1 - face) * above - 1.5 * _ramp(down, 0.8, 1.0)
            )
            around = 2.5 - ears - 2 * hairline - 4 * _ramp(down, 0.5, 1.1) - 2 * _ramp(outside, 0.7, 1.0)
            odds[..., 1] += face * (-1 - 8 * deep * cheek - 1.5 * forehead) + (1 - face) * around
            odds[..., 1] -= (
                3 * _ramp(0.35 - np.abs(across), 0, 0.1) * _ramp(down, 0.4, 0.5)
            )  # below the chin is shaded neck
            odds[..., 2] += 2 * (-7 * face + (1 - face) * (5 * _ramp(down, 0.15, 0.5) - 5) + _ramp(down, 0.6, 0.9))
        if self.mesh is not None:
            small = cv2.resize(self.mesh.astype(np.int16), self.alpha.shape[::-1], interpolation=cv2.INTER_NEAREST)
            for index, name in enumerate(self.mesh_names):
                if name in PART_EVIDENCE:
                    odds[small == index] += np.array(PART_EVIDENCE[name], dtype=np.float32)
        return odds

    def posterior(self, model: RegionModel) -> np.ndarray:
        """Probabilities [h, w, 3] of skin, hair, clothes. Hair must hang together with the hair of the head."""
        odds = self.log_odds(model)
        if self.coordinates is not None:
            _, down, outside = self.coordinates
            hair = ((odds.argmax(axis=-1) == 1) & (self.alpha > 0.5)).astype(np.uint8)
            _, parts = cv2.connectedComponents(hair, connectivity=4)
            anchored = np.unique(parts[(outside > 0.02) & (outside < 0.5) & (down < 0.1) & (hair > 0)])
            odds[..., 1] -= 30 * ((hair > 0) & ~np.isin(parts, anchored))
        return _softmax(odds)


def _paint_features(labels: np.ndarray, view: _View, model: RegionModel) -> None:
    """Draw eyes, brows, lips, teeth and mouth into `labels` [S, S]: from landmarks, or else from the mesh."""
    if view.points is None:
        if view.mesh is not None:
            for index, name in enumerate(view.mesh_names):
                if name in PART_REGIONS:
                    labels[view.mesh == index] = PART_REGIONS[name]
        return
    points = view.points
    brows = np.zeros_like(labels)
    for outline in BROW_OUTLINES:
        _fill(brows, points[list(outline)], 1)
    labels[(brows > 0) & (labels == SKIN)] = BROWS  # a fringe over a brow stays hair
    for eye in EYE_OUTLINES:
        _fill(labels, points[list(eye)], EYES)
    _fill(labels, points[list(LIPS_OUTER)], LIPS)
    mouth = np.zeros_like(labels)
    _fill(mouth, points[list(LIPS_INNER)], 1)
    if cv2.countNonZero(mouth) < len(labels) ** 2 * 2e-4:
        return
    left, top, width, height = cv2.boundingRect(mouth)
    window = np.s_[top : top + height, left : left + width]
    lab = cv2.cvtColor(cv2.medianBlur(np.ascontiguousarray(view.frame[window]), 3), cv2.COLOR_RGB2LAB).astype(
        np.float32
    )
    bright = lab[..., 0] > 0.62 * model.skin_lab[0]
    pale = lab[..., 1] - 128 < 0.9 * (model.skin_lab[1] - 128) + 3  # tongue and gums are redder than skin
    inner = mouth[window] > 0
    labels[window] = np.where(inner, np.where(bright & pale, TEETH, MOUTH), labels[window])


def _fill(image: np.ndarray, outline: np.ndarray, value: int) -> None:
    """Fill a polygon [N, 2] given in pixels with centres at +0.5, to 1/16 pixel."""
    cv2.fillPoly(image, [np.round((outline - 0.5) * 16).astype(np.int32)], value, lineType=cv2.LINE_8, shift=4)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0, 1)


def _softmax(odds: np.ndarray) -> np.ndarray:
    odds = np.exp(odds - odds.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def _tables(skin: np.ndarray, hair: np.ndarray, clothes: np.ndarray) -> np.ndarray:
    return np.stack([_log_histogram(cells, index) for index, cells in enumerate((skin, hair, clothes))])


def _shaded_skin(lab: np.ndarray) -> np.ndarray:
    """Log density [cells] of the skin colours [N, 3] under less light."""
    colours = cv2.cvtColor(lab[None], cv2.COLOR_LAB2RGB).astype(np.float32)
    shades = [cv2.cvtColor((colours * shade).astype(np.uint8), cv2.COLOR_RGB2LAB)[0] for shade in SHADES]
    return _log_histogram(_cells(np.concatenate(shades)), 0)


def _cells(lab: np.ndarray) -> np.ndarray:
    """Histogram cell of 8-bit Lab colours [..., 3]."""
    lightness, red, yellow = (lab[..., channel].astype(np.int32) for channel in range(3))
    return (lightness >> 3) * (BINS[1] * BINS[2]) + (red >> 2) * BINS[2] + (yellow >> 2)


def _log_histogram(cells: np.ndarray, index: int) -> np.ndarray:
    """Log density [cells] of colour class `index`: a smoothed histogram and a uniform share (all of it if empty)."""
    count = int(np.prod(BINS))
    density = np.bincount(cells, minlength=count).astype(np.float32).reshape(BINS)
    planes = np.ascontiguousarray(np.moveaxis(density, 0, -1))
    for start in range(0, BINS[0], 4):  # OpenCV blurs at most four channels at once
        planes[..., start : start + 4] = cv2.GaussianBlur(
            np.ascontiguousarray(planes[..., start : start + 4]), (0, 0), 1.2
        )
    lines = cv2.GaussianBlur(planes.reshape(-1, BINS[0]), (0, 0), SHADING[index], sigmaY=1e-6)
    density = lines.T.reshape(-1)
    total = density.sum()
    share = 1.0 if total == 0 else LIKELY[index]
    return np.log((1 - share) * density / max(total, 1e-6) + share / count).astype(np.float32)
