"""A still portrait set in motion by a tracked mesh.

The still is taken apart into layers: the background, which stays as it is; the suit, which follows the chest; the eyeballs,
the teeth and the dark of the mouth, which follow the skull; and in front of them the head with openings where eyes and
mouth are. Every pixel of the head is given a place in space: on the tracked mesh where it shows skin, on a smooth hull
where it shows hair. The mesh carries the skin, the skull carries the hair (and a cap, or spectacles), and what lies between
is interpolated. Who wears no suit with a wide ring has head and clothes in one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from pictures import Ellipse, Harmonic, continued_around, grown, shrunk, smooth_mask, soft
from torch import Tensor

from portraitgen.body import BONE_NAMES, LABELS, AnnyBody, BodyParameters
from portraitgen.landmarks import Landmarks
from portraitgen.matting import decontaminate, person_alpha
from portraitgen.mesh import interpolate, rasterize_mesh
from portraitgen.plate import fill
from portraitgen.regions import REGIONS, fit_region_model, region_labels

# Outlines of the openings in FaceMesh's numbering.
EYES = {
    "eye_right": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "eye_left": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
}
MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
CHIN = 152
LIPS = (14, 13)  # their inner edges, the lower one first
EYE_RADIUS = 0.012  # metres
LASHES, LID_REACH = 2.5, 9.0  # px above the opening that move as one, and above these over which the lid stretches
REACH = 48  # px by which a head leaves its place at most
NECK_GAP = 25  # px, twice the width of the strip along the jaw in which skin of face and neck share their motion
COLLAR_REACH = 34  # px below the bare neck over which its motion dies away in the dark collar
CAVITY, TONGUE, BETWEEN_LIPS = (34, 14, 13), (128, 62, 60), (110, 52, 48)


@dataclass(frozen=True)
class Patch:
    """A piece of a picture behind an opening, moved by an affine map."""

    colour: np.ndarray  # [H, W, 3] float32 0..1
    alpha: np.ndarray  # [H, W] float32
    outline: np.ndarray  # [N, 3] places in space whose motion it shares

    def drawn_over(self, picture: np.ndarray, places: np.ndarray, K: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """picture [H, W, 3] with the patch where `outline` moved to `places` [N, 3], plus `shift` [2] pixels."""
        if not self.alpha.any():
            return picture  # a mouth that is closed in the photo
        before, after = projected(self.outline, K), projected(places, K) + shift
        corners = np.concatenate((before, np.ones((len(before), 1))), axis=1)
        affine = np.linalg.lstsq(corners, after, rcond=None)[0].T
        rows, columns = (np.flatnonzero(self.alpha.any(axis)) for axis in (1, 0))
        top, left = max(0, int(rows[0]) - REACH), max(0, int(columns[0]) - REACH)
        part = slice(top, int(rows[-1]) + REACH), slice(left, int(columns[-1]) + REACH)
        # Pixel centres lie at +0.5, OpenCV counts from 0.
        affine[:, 2] += affine[:, :2] @ (0.5, 0.5) - 0.5 - (left, top)
        size = picture[part].shape[1::-1]
        colour = cv2.warpAffine(self.colour, affine, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(self.alpha, affine, size, flags=cv2.INTER_LINEAR)
        out = picture.copy()
        out[part] += (colour - out[part]) * alpha[..., None]
        return out


def projected(places: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels [..., 2] of places [..., 3] in camera space."""
    pixels = places @ K.T
    return pixels[..., :2] / pixels[..., 2:]


def moved(places: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Places [..., 3] under a rigid transform [4, 4]."""
    return places @ transform[:3, :3].T + transform[:3, 3]


def plain(shade: tuple[int, int, int], like: np.ndarray) -> np.ndarray:
    """A picture of one shade (0..255), of the size of another; float32 0..1."""
    return np.broadcast_to(np.array(shade, np.float32) / 255, like.shape)


class Puppet:
    """The layers of one still and how they move."""

    def __init__(
        self,
        still: np.ndarray,  # [S, S, 3] uint8
        landmarks: Landmarks,  # of the still, repeated
        body: AnnyBody,
        parameters: BodyParameters,  # one frame
        K: Tensor,  # [3, 3]
        shown: tuple[slice, slice],  # rows and columns that the clip shows
        collar: Ellipse | None = None,  # the outer rim of a suit's ring
        worn: Sequence[np.ndarray] = (),  # outlines [N, 2] of what is stiff and moves with the skull
    ) -> None:
        self.still, self.body, self.K = still, body, K.double().numpy()
        self.size = len(still)
        points = landmarks.face[1, :, :2]
        alpha = list(person_alpha(lambda: iter([still] * len(landmarks.face)), landmarks.face))[1]
        labels = region_labels(still, alpha, points, fit_region_model([(still, alpha, points)]))
        hair = labels == REGIONS.index("hair")
        hair[: int(points[CHIN, 1])] = False  # all people here have short hair, but a dark jacket can look like it
        labels[hair] = REGIONS.index("clothes")
        self.worn = np.zeros(alpha.shape, bool)
        for outline in worn:
            self.worn |= smooth_mask(outline, self.size, 0.6) > 0.5
        self._rest_body(parameters)
        self._cut_out(alpha, labels, collar)
        self._openings(points)
        seen = np.zeros(alpha.shape, bool)
        seen[shown] = True
        self.head_alpha[~grown(seen, 2 * REACH + 1)] = 0
        self._places()
        self._fill_openings()

    def _rest_body(self, parameters: BodyParameters) -> None:
        """Which part of the mesh each pixel of the still shows."""
        body = self.body
        vertices = body.vertices(parameters)
        ids, weights, depth = rasterize_mesh(
            vertices, body.faces, torch.from_numpy(self.K).float(), self.size, self.size
        )
        self.mesh_ids, self.mesh_weights, self.mesh_depth = ids[0].long(), weights[0], depth[0].double().numpy()
        self.rest_vertices, self.rest_bones = vertices[0], self._bones(parameters)[0]
        self.middle = float(body.joints(parameters)[0, BONE_NAMES.index("head"), 2])

    def _bones(self, parameters: BodyParameters) -> np.ndarray:
        """Rest space to camera space, [T, bones, 4, 4]."""
        transforms = self.body.skin.bone_transforms(parameters).double().numpy()
        bottom = np.broadcast_to((0.0, 0.0, 0.0, 1.0), (*transforms.shape[:2], 1, 4))
        return np.concatenate((transforms, bottom), axis=2)

    def _cut_out(self, alpha: np.ndarray, labels: np.ndarray, collar: Ellipse | None) -> None:
        """Split the matte into head and suit, and complete what each of them hides."""
        still = self.still
        enclosed = np.zeros(alpha.shape, bool)
        if collar:
            enclosed = cv2.ellipse(enclosed.astype(np.uint8), collar, 1, -1) > 0
        matte = np.maximum(alpha.astype(np.float32) / 255, soft(enclosed | self.worn, 0.8))
        self.plate = fill(still, ~grown(matte > 0.02, 7)).astype(np.float32) / 255
        bare = self.worn | ~np.isin(labels, [REGIONS.index(name) for name in ("background", "clothes")])
        _, parts, stats, _ = cv2.connectedComponentsWithStats(shrunk(bare, 9).astype(np.uint8))
        bare &= grown(parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), 11)
        self.bare, self.labels = bare, labels
        if not collar:  # clothes that lie on the neck move on with it, in one piece
            self.head_alpha, self.deep = matte, np.zeros(alpha.shape, bool)
            self.suit, self.suit_alpha = self.plate, np.zeros_like(matte)
            return
        neck = grown(shrunk(bare, 41), 41) | (np.arange(self.size) < np.flatnonzero(enclosed.any(1))[0] - 6)[:, None]
        bare &= neck  # nothing of the collar's rim
        # Below the neck the head fades into the dark collar, where both layers look the same.
        neck_line = np.where(bare.any(0), self.size - 1 - bare[::-1].argmax(0), self.size)
        neck_line = np.where(neck_line > neck_line[bare.any(0)].max() - 30, neck_line, self.size)
        below = np.arange(self.size)[:, None] - neck_line[None]
        self.deep = below > COLLAR_REACH  # further below the neck than its motion reaches
        fade = np.where(below > 0, np.clip(1.2 - below / (COLLAR_REACH - 8), 0, 1), bare).astype(np.float32)
        head = np.maximum(soft(bare, 0.9), soft(fade, 2) * (below > -8))
        clothes = (labels == REGIONS.index("clothes")) | (enclosed & ~bare)
        self.head_alpha = np.where(grown(clothes, 7), np.minimum(matte, head), matte * grown(bare, 13))
        suit = matte * (grown(clothes, 7) | ~grown(bare, 13))
        hidden = grown(bare, 9)
        self.suit_alpha = np.where(hidden, soft(enclosed, 0.8), suit)
        behind = continued_around(still, (suit > 0.99) & ~hidden, hidden, collar)
        self.suit = decontaminate(behind, np.rint(self.suit_alpha * 255).astype(np.uint8)).astype(np.float32) / 255

    def _openings(self, points: np.ndarray) -> None:
        """Cut eyes and mouth out of the head."""
        self.outlines = {name: points[list(ids)] for name, ids in EYES.items()} | {"mouth": points[list(MOUTH)]}
        self.lips = points[list(LIPS)]
        self.holes = {name: smooth_mask(outline, self.size, 0.6) for name, outline in self.outlines.items()}
        self.opening = np.maximum.reduce(list(self.holes.values()))
        self.head_alpha = (self.head_alpha * (1 - self.opening)).astype(np.float32)
        self.head = decontaminate(self.still, np.rint(self.head_alpha * 255).astype(np.uint8)).astype(np.float32) / 255

    def _fill_openings(self) -> None:
        """What is behind them: the still's own eyes and teeth, continued under lids and lips, and a dark cavity."""
        self.patches = {}
        for name, outline in self.outlines.items():
            solid = self.holes[name] > 0.9
            colour = cv2.inpaint(self.still, (grown(solid, 29) & ~solid).astype(np.uint8), 3, cv2.INPAINT_TELEA)
            colour, places = colour.astype(np.float32) / 255, self._place_of(outline)
            if name != "mouth":
                self.patches[name] = Patch(colour, soft(grown(solid, 15), 1), places)
                continue
            above = np.max([np.roll(solid, -rows, axis=0) for rows in range(6)], axis=0)  # teeth go on under the lip
            self.patches["teeth"] = Patch(colour, soft(above, 0.7), places)
            for part, shade in (("cavity", CAVITY), ("lips", BETWEEN_LIPS)):
                self.patches[part] = Patch(plain(shade, colour), soft(grown(solid, 15), 1), places)
            x, y = self.lips[0]
            tongue = cv2.ellipse(np.zeros_like(self.opening), (int(x), int(y) + 2), (16, 6), 0, 0, 360, 1.0, -1)
            self.patches["tongue"] = Patch(plain(TONGUE, colour), soft(tongue, 2.5), places)

    def _places(self) -> None:
        """A place in space for every pixel around the head, and what each of them moves with."""
        rows, columns = np.flatnonzero(self.head_alpha.any(1)), np.flatnonzero(self.head_alpha.any(0))
        box = self.box = self._box(rows, columns, 8)
        self.reach = self._box(rows, columns, REACH)
        parts = torch.where(self.mesh_ids < 0, -1, self.body.face_labels[self.mesh_ids.clamp_min(0)]).numpy()[box]
        face, neck = (
            np.isin(parts, [LABELS.index(name) for name in names]) for names in (("face", "lips", "ears"), ("neck",))
        )
        on_head = face | (neck & ~grown(face, NECK_GAP))  # what the chin uncovers of the neck stretches over a gap
        hair = shrunk(self.bare & (self.labels == REGIONS.index("hair")), 3)[box]
        self.skin = on_head & shrunk(self.bare & (self.labels != REGIONS.index("hair")), 5)[box]
        closed, worn = self.opening[box] < 0.02, self.worn[box]
        self.skin &= closed & ~worn
        self.hair = ((hair & ~self.skin) | worn) & closed
        self.chest = (~grown(self.bare, 2 * COLLAR_REACH + 1) | self.deep)[box]
        rim = self.hair & ~shrunk(self.bare, 5)[box]
        torso = self.chest & (self.mesh_depth[box] > 0)
        depth = np.where(rim, self.middle, self.mesh_depth[box])
        depth = Harmonic(self.skin | rim | torso)(depth[..., None])[..., 0]
        y, x = np.mgrid[box] + 0.5
        self.places = np.stack((x, y, np.ones_like(x)), axis=-1) @ np.linalg.inv(self.K).T * depth[..., None]
        self.spread = Harmonic(self.skin | self.hair | self.chest)
        corner = np.arange(depth.size).reshape(depth.shape)
        a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]))
        faces = np.concatenate((np.stack((a, b, c), axis=1), np.stack((b, d, c), axis=1)))
        self.grid = torch.from_numpy(faces[(self.head_alpha[box].ravel()[faces] > 0).any(1)])
        pixels = torch.from_numpy(np.stack((x, y), axis=-1).reshape(-1, 2)).float()
        self.grid_pixels = pixels[self.grid]
        index = self.mesh_ids[box][torch.from_numpy(self.skin)]
        self.skin_corners = self.body.faces[index]
        self.skin_weights = self.mesh_weights[box][torch.from_numpy(self.skin)][..., None]
        self.lids = self._lids()
        self.chest_depth = float(np.median(self.mesh_depth[box][torso]))

    def _box(self, rows: np.ndarray, columns: np.ndarray, margin: int) -> tuple[slice, slice]:
        """The part of the picture between the first and the last of sorted `rows` and `columns`, and a margin around it."""
        ends = ((int(line[0]) - margin, int(line[-1]) + margin + 1) for line in (rows, columns))
        top_bottom, left_right = (slice(max(0, low), min(self.size, high)) for low, high in ends)
        return top_bottom, left_right

    def _place_of(self, points: np.ndarray) -> np.ndarray:
        """Places in space [N, 3] of points [N, 2] in pixels of the still."""
        rows, columns = (points[:, 1] - self.box[0].start).astype(int), (points[:, 0] - self.box[1].start).astype(int)
        depth = self.places[rows, columns, 2:]
        return np.concatenate((points, np.ones((len(points), 1))), axis=1) @ np.linalg.inv(self.K).T * depth

    @torch.no_grad()
    def frames(self, parameters: BodyParameters, shut: np.ndarray) -> Iterator[np.ndarray]:
        """The puppet in the poses of `parameters` with its lids `shut` [T] (0 as in the still .. 1), [S, S, 3] uint8."""
        bones = self._bones(parameters) @ np.linalg.inv(self.rest_bones)
        skull, chest = bones[:, BONE_NAMES.index("head")], bones[:, 0]
        eye = self.body.joint_names.index("eye_left")
        gaze = (parameters.rotations[:, eye] - parameters.rotations[:1, eye]).numpy()
        for index in range(len(parameters)):
            vertices = self.body.vertices(parameters, torch.tensor([index]))[0] - self.rest_vertices
            motion = self._motion(vertices, skull[index], chest[index])
            motion += self.lids[..., None] * (float(shut[index]) * skull[index, :3, 1])
            picture = self._suit_over_plate(chest[index])
            picture = self._interior(picture, motion, skull[index], gaze[index])
            picture = self._head_over(picture, motion)
            yield np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)

    def _motion(self, vertices: Tensor, skull: np.ndarray, chest: np.ndarray) -> np.ndarray:
        """By how much each place of the head moves, [h, w, 3] metres. vertices: [V, 3] motion of the mesh."""
        motion = np.zeros_like(self.places)
        motion[self.skin] = (vertices[self.skin_corners] * self.skin_weights).sum(1).double().numpy()
        for where, bone in ((self.hair, skull), (self.chest, chest)):
            motion[where] = moved(self.places[where], bone) - self.places[where]
        return self.spread(motion)

    def _lids(self) -> np.ndarray:
        """How far each place moves down when the eyes shut, [h, w] metres.

        The mesh folds its lids away where the still shows skin, so the skin above the eye is pulled down instead: lashes
        rigidly, what is above them less and less.
        """
        y, x = np.mgrid[self.box] + 0.5
        down = np.zeros_like(y)
        for name in EYES:
            low, high = self.outlines[name][:9], np.roll(self.outlines[name], -8, axis=0)[:9]
            order = np.argsort(low[:, 0]), np.argsort(high[:, 0])
            lower, upper = (
                np.interp(x, points[ids, 0], points[ids, 1]) for points, ids in zip((low, high), order, strict=True)
            )
            height = np.maximum(lower - upper, 0)
            above = np.clip((upper - LASHES - y) / LID_REACH, 0, 1)
            inside = np.clip((lower + 1 - y) / (height + 1).clip(1e-6), 0, 1)
            down += height * np.where(y < upper, (1 - above) ** 2 * (1 + 2 * above), inside)
        return down * self.places[..., 2] / self.K[1, 1]

    def _suit_over_plate(self, chest: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[: self.size, : self.size] + 0.5
        rays = np.stack((x, y, np.ones_like(x)), axis=-1) @ np.linalg.inv(self.K).T * self.chest_depth
        back = projected(moved(rays, np.linalg.inv(chest)), self.K).astype(np.float32) - 0.5
        colour = cv2.remap(self.suit, back, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(self.suit_alpha, back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return self.plate + (colour - self.plate) * alpha[..., None]

    def _interior(self, picture: np.ndarray, motion: np.ndarray, skull: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        """Eyeballs, the dark of the mouth, tongue and teeth, painted where the head has openings."""
        for name in EYES:
            patch = self.patches[name]
            along = EYE_RADIUS * np.array((gaze[1], -gaze[0])) * self.K[0, 0] / patch.outline[:, 2].mean()
            picture = patch.drawn_over(picture, moved(patch.outline, skull), self.K, along)
        rows, columns = (self.lips[:, ::-1] - (self.box[0].start, self.box[1].start)).astype(int).T
        lips = self.places[rows, columns]
        lower, upper = projected(lips + motion[rows, columns], self.K)
        jaw = lower - projected(moved(lips, skull), self.K)[0]
        gap = np.linalg.norm(lower - upper) / np.linalg.norm(self.lips[0] - self.lips[1])
        bright = float(np.clip((gap - 0.35) / 0.4, 0, 1))  # no light falls on teeth behind closing lips
        for name, share, strength in (
            ("cavity", 0.5, 1),
            ("tongue", 0.9, 1),
            ("lips", 0.5, 1 - bright),
            ("teeth", 0, bright),
        ):
            patch = self.patches[name]
            patch = replace(patch, alpha=patch.alpha * np.float32(strength))
            picture = patch.drawn_over(picture, moved(patch.outline, skull), self.K, share * jaw)
        return picture

    def _head_over(self, picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """picture [S, S, 3] behind the head, whose places moved by `motion`."""
        places = torch.from_numpy((self.places + motion).reshape(-1, 3)).float()
        rows, columns = self.reach
        # Drawn at twice the size, so that the edge of the chin before the neck is smooth.
        K = self.K * ((2.0,), (2.0,), (1.0,))
        K[:2, 2] -= 2 * columns.start, 2 * rows.start
        width, height = columns.stop - columns.start, rows.stop - rows.start
        ids, weights, _ = rasterize_mesh(places, self.grid, torch.from_numpy(K).float(), 2 * width, 2 * height)
        source = interpolate(self.grid_pixels, ids, weights)[0].numpy() - 0.5
        colour = cv2.remap(self.head, source, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = (cv2.remap(self.head_alpha, source, None, cv2.INTER_LINEAR) * (ids[0] >= 0).numpy())[..., None]
        solid = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)[..., None]
        drawn = cv2.resize(colour * alpha, (width, height), interpolation=cv2.INTER_AREA)
        out = picture.copy()
        out[self.reach] = picture[self.reach] * (1 - solid) + drawn
        return out
