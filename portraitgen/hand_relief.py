"""Hands before the person seen from elsewhere than the clip's camera: the layer of hands on the surface of posed ones.

What the clip's camera sees of a hand, its sleeve included, is bent to the surface of the posed hand model. That itself, in the colours of
what is seen, is the far side of fingers and arm.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from .body import SkinnedBody, load_body
from .clip import read_gray
from .fitting import Fitted
from .free_view import fade_at_edge
from .hand_model import HandModel, HandPoses, load_hand, resting
from .hand_tracking import fit_hand, place_forearm
from .hands import LAYER, Hands, arm_direction, palm_length
from .initialization import project
from .keyframes import evenly_spaced
from .mattes import find_hands
from .mesh import interpolate, rasterize_mesh
from .portrait import Portrait

_POSES = "hand_poses.safetensors"
_MARGIN = 0.015  # metres that a hand is before the body at least
_MOMENTS = 24  # of a gesture, in which that is looked at
_OVERLAP = 40  # pixels of a hand before the body that tell how near it must be
_BENT, _STRETCHED = 0.2, 0.9  # share of an arm's length that a hand which gestures is before the shoulder
_EDGE = 0.8  # pixels, of its alpha
_BESIDE, _SLEEVE = 0.12, 0.25  # palms that fingers may be beside where they were found, and a sleeve beside the arm
_THIN = 0.01  # metres behind what the camera sees, up to which it is seen
_SOLID = 0.9  # alpha of what tells colours
_BORROWED = 0.025  # metres up to which a place takes the colour of one that is seen
_SMOOTH = 2.0  # pixels, of the depth: the posed hand is not in place to the pixel


@torch.no_grad()
def write_hand_poses(portrait: Portrait, fitted: Fitted, K: Tensor) -> Iterator[float]:
    """Write how the hands of the layer are posed, where there are any; yields the share that is done after each gesture.

    Args:
        fitted: the avatar as it was learned.
        K: intrinsics of the working crop ``[3, 3]``.
    """
    hands = find_hands(portrait)
    portrait.path(_POSES).unlink(missing_ok=True)
    if hands is None:
        return
    K, body = K.cpu(), load_body(portrait.settings.body)
    betas = fitted.poses.refined.betas.cpu()
    times = portrait.landmarks().timestamps
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    models = _models(body, hands)
    directions = _arm_directions(portrait, hands)
    done, gestures = 0, []
    for run in np.unique(hands.runs):
        rows = np.flatnonzero(hands.runs == run)
        model = models[bool(hands.right[rows[0]])]
        points, world, seen = (torch.from_numpy(x[rows]) for x in (hands.points, hands.world, hands.seen))
        with torch.enable_grad():
            poses = fit_hand(model, betas, K, points, world, seen, step)
        frames = torch.from_numpy(hands.frames[rows])
        shoulder, upper_arm = _upper_arm(body, fitted, frames, model.side)
        reach = upper_arm + float(model.elbow(betas, resting(1, betas)).norm())
        poses = poses.nearer(_in_reach(poses, shoulder, reach, seen))
        place_forearm(model, betas, poses, shoulder, upper_arm, torch.from_numpy(directions[rows]))
        poses = poses.nearer(_before_body(model, betas, poses, fitted, frames, K, portrait.crop.size))
        gestures.append(poses)
        done += len(rows)
        yield done / len(hands)
    whole = {name: torch.cat([poses.tensors()[name] for poses in gestures]) for name in gestures[0].tensors()}
    portrait.save_tensors(_POSES, whole | {"betas": betas})


def _models(body: SkinnedBody, hands: Hands) -> dict[bool, HandModel]:
    return {bool(right): load_hand(body, "right" if right else "left") for right in np.unique(hands.right)}


def _arm_directions(portrait: Portrait, hands: Hands) -> np.ndarray:
    """Where the arm of every row goes in the picture ``[N, 2]``, unit vectors; NaN where it does not show."""
    directions = np.full((len(hands), 2), np.nan, np.float32)
    for number, alpha in enumerate(read_gray(portrait.path(LAYER))):
        for row in np.flatnonzero(hands.frames == number):
            directions[row] = arm_direction(hands.points[row], alpha)
    return directions


def _upper_arm(body: SkinnedBody, fitted: Fitted, frames: Tensor, side: str) -> tuple[Tensor, float]:
    """Where the shoulder is in ``frames``: ``[B, 3]``; and the length of the upper arm, metres."""
    joints = body.joints(fitted.poses.refined.to("cpu"), frames)
    names = body.skin.skeleton.bone_names
    shoulder, elbow = (joints[:, names.index(f"{part}_{side}")] for part in ("upper_arm", "elbow"))
    return shoulder, float((elbow - shoulder).norm(dim=1).mean())


def _in_reach(poses: HandPoses, shoulder: Tensor, reach: float, seen: Tensor) -> float:
    """By how much a hand must be nearer, at a smaller size, or farther away, to be where an arm can have it: 1 where it is.

    Args:
        shoulder: ``[N, 3]`` in camera space.
        reach: length of the arm, metres.
        seen: the rows that count ``[N]``, if any do.
    """
    counted = seen if seen.any() else ~seen
    depth, beside = float(poses.translation[counted, 2].median()), float(shoulder[counted, 2].median())
    nearest, farthest = beside - _STRETCHED * reach, beside - _BENT * reach
    return min(max(depth, nearest), farthest) / depth


def _before_body(
    model: HandModel, betas: Tensor, poses: HandPoses, fitted: Fitted, frames: Tensor, K: Tensor, size: int
) -> float:
    """By how much a hand must be nearer, at a smaller size, to be before the body in all of a gesture: 1 where it is."""
    shares = [1.0]
    for row in evenly_spaced(torch.arange(len(poses)), _MOMENTS).tolist():
        mesh = fitted.mesh(frames[row : row + 1].to(fitted.avatar.features.device)).vertices.cpu()
        _, _, behind = rasterize_mesh(mesh, fitted.body.faces.cpu(), K, size, size)
        _, _, hand = rasterize_mesh(model.vertices(betas, poses[row : row + 1]), model.faces, K, size, size)
        both = (behind > 0) & (hand > 0)
        if both.sum() >= _OVERLAP:
            shares.append(float(((behind[both] - _MARGIN) / hand[both]).quantile(0.1)))
    return min(1.0, float(np.quantile(shares, 0.1)))


class Relief:
    """The layer of hands as other cameras see it."""

    def __init__(self, portrait: Portrait, K: Tensor, viewmats: Tensor) -> None:
        """
        Args:
            K: intrinsics of the working crop ``[3, 3]``.
            viewmats: cameras ``[T, 4, 4]``, world to camera.
        """
        hands = find_hands(portrait)
        assert hands is not None
        tensors = portrait.load_tensors(_POSES)
        self.portrait, self.hands, self.betas = portrait, hands, tensors.pop("betas")
        self.poses, self.models = HandPoses(**tensors), _models(load_body(portrait.settings.body), hands)
        self.K, self.viewmats, self.size = K.cpu(), viewmats.cpu(), portrait.crop.size
        centres = torch.arange(self.size) + 0.5
        self.xy = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)

    def __call__(self, number: int, color: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Straight colour ``[S, S, 3]`` and alpha ``[S, S]`` of a frame, all in [0, 1], seen from its camera."""
        rows = np.flatnonzero(self.hands.frames == number)
        meshes = [self._mesh(row) for row in rows]
        fronts = torch.cat([rasterize_mesh(*mesh, self.K, self.size, self.size)[2] for mesh in meshes])
        front = torch.where(fronts > 0, fronts, torch.inf).amin(0).numpy()
        if not np.isfinite(front).any():
            return color, np.zeros_like(alpha)
        distance, nearest = ndimage.distance_transform_edt(np.isinf(front), return_indices=True)
        palm = max(palm_length(self.hands.points[row]) for row in rows)
        # What is taken along at the edge of the layer, which does not matter in place, is no part of the hand.
        near = (distance < _SLEEVE * palm) & self.hands.around(number, _BESIDE)
        alpha = cv2.GaussianBlur(cv2.erode(alpha * near, np.ones((3, 3), np.uint8)), (0, 0), _EDGE)
        share = torch.from_numpy(alpha)[..., None]
        values = torch.cat([torch.from_numpy(color) * share, share], -1)  # premultiplied
        surface = torch.from_numpy(cv2.GaussianBlur(front[tuple(nearest)], (0, 0), _SMOOTH))
        coats = [self._coated(vertices, faces, torch.from_numpy(front), values) for vertices, faces in meshes]
        starts = np.cumsum([0, *(len(points) for points, _, _ in coats)]).tolist()
        below = self._seen(
            number,
            torch.cat([points for points, _, _ in coats]),
            torch.cat([values for _, values, _ in coats]),
            torch.cat([faces + start for (_, _, faces), start in zip(coats, starts, strict=False)]),
        )
        above = self._seen(number, *self._sheet(surface, values))
        seen = above + (1 - above[..., 3:]) * below
        return seen[..., :3] / np.maximum(seen[..., 3:], 1e-4), seen[..., 3]

    def _seen(self, number: int, points: Tensor, values: Tensor, faces: Tensor) -> np.ndarray:
        """A mesh of ``points`` ``[N, 3]`` with ``values`` ``[N, 4]`` as the camera of a frame sees it ``[S, S, 4]``; it fades where the
        clip's picture ends."""
        matrix = self.viewmats[number]
        turned = points @ matrix[:3, :3].T + matrix[:3, 3]
        ids, weights, _ = rasterize_mesh(turned, faces, self.K, self.size, self.size)
        seen = interpolate(torch.cat([values, points], 1)[faces], ids, weights)[0]
        fade = fade_at_edge(self.portrait, project(seen[..., 4:].flatten(0, 1), self.K)[0])
        return (seen[..., :4] * fade.view(self.size, self.size, 1)).numpy()

    def _mesh(self, row: int) -> tuple[Tensor, Tensor]:
        """Vertices ``[V, 3]`` and faces ``[F, 3]`` of a posed hand."""
        model = self.models[bool(self.hands.right[row])]
        return model.vertices(self.betas, self.poses[row : row + 1])[0], model.faces

    def _sheet(self, surface: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's pixels as points ``[S², 3]`` at the depth ``surface`` ``[S, S]``, their ``values``, and the faces between them."""
        rays = (self.xy - self.K[:2, 2]) / self.K.diagonal()[:2]
        points = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * surface[..., None]
        corners = torch.arange(self.size**2).view(self.size, self.size)
        quads = torch.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], -1)
        values = values.flatten(0, 1)
        quads = quads[(values[:, 3] > 0)[quads].all(-1)]
        return points.flatten(0, 1), values, quads[:, ((0, 1, 2), (0, 2, 3))].reshape(-1, 3)

    def _coated(self, vertices: Tensor, faces: Tensor, front: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A posed hand in the colours of the layer, on the far side as at the nearest place that the clip's camera sees."""
        xy, depth = project(vertices, self.K)
        column, line = xy.floor().long().clamp(0, self.size - 1).unbind(1)
        own = values[line, column]
        known = (
            (depth < front[line, column] + _THIN) & (own[:, 3] > _SOLID) & (xy >= 0).all(1) & (xy < self.size).all(1)
        )
        if not known.any():
            return vertices, torch.zeros_like(own), faces[:0]
        distance, nearest = (torch.from_numpy(x) for x in cKDTree(vertices[known].numpy()).query(vertices.numpy()))
        return vertices, own[known][nearest] * (distance < _BORROWED)[:, None], faces
