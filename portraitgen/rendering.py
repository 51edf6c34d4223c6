"""From avatar to pictures of the whole clip: working crops, full frames over their background, orbits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from .body import LABELS
from .editors.colour import smoothstep
from .fitting import Fitted
from .initialization import project
from .portrait import Portrait

_BATCH = 4
_MOMENTS = 8  # of the clip, that stand for all of it
_FADE = 0.14  # of the working crop's side
_VISIBLE, _GONE = 0.2, 14.0  # opacity, and the logit of none
# Gaussians are joined to those of their nearest ones that are within so many standard deviations; loose groups are less than this share.
_JOINED, _LINKS, _LOOSE = 3.0, 12, 0.005
ORBIT_YAW, ORBIT_PITCH = 35.0, 15.0


@dataclass(frozen=True)
class RenderedCrop:
    """One rendered frame in the working crop, as numpy arrays.

    Attributes:
        color: premultiplied colour ``[S, S, 3]`` in [0, 1].
        alpha: ``[S, S]`` in [0, 1].
    """

    color: np.ndarray
    alpha: np.ndarray

    def straight(self) -> np.ndarray:
        """Straight colour ``[S, S, 3]`` in [0, 1]."""
        return np.clip(self.color / np.maximum(self.alpha, 1e-3)[..., None], 0, 1)


@torch.no_grad()
def render_crops(
    portrait: Portrait, fitted: Fitted, K: Tensor, viewmats: Tensor | None = None
) -> Iterator[RenderedCrop]:
    """Render every frame of the clip in the working crop, streamed.

    Args:
        viewmats: cameras ``[T, 4, 4]`` world to camera; the clip's own camera if None.
    """
    size, total = portrait.crop.size, portrait.clip.frame_count
    device = fitted.avatar.features.device
    K = K.to(device)
    for start in range(0, total, _BATCH):
        frames = torch.arange(start, min(start + _BATCH, total), device=device)
        cameras = None if viewmats is None else viewmats[frames.cpu()].to(device)
        rendering = fitted.render(frames, K.expand(len(frames), 3, 3), size, size, cameras)
        alphas = rendering.alpha[:, 0].clamp(0, 1).cpu().numpy()
        colors = rendering.color.permute(0, 2, 3, 1).cpu().numpy()
        for color, alpha in zip(colors, alphas, strict=True):
            yield RenderedCrop(np.clip(color, 0, 1), alpha)


def orbit_angles(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch in degrees ``[count]`` of a camera that swings once around the head while the clip plays."""
    phase = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return ORBIT_YAW * np.sin(phase), ORBIT_PITCH * np.sin(2 * phase)


def orbit_viewmats(pivot: Tensor, yaw: np.ndarray, pitch: np.ndarray) -> Tensor:
    """Cameras ``[T, 4, 4]`` turned about ``pivot`` ``[3]`` by angles in degrees; positive yaw shows the person's left side more."""
    matrices = []
    for y, p in zip(np.radians(yaw), np.radians(pitch), strict=True):
        cy, sy, cp, sp = math.cos(y), math.sin(y), math.cos(p), math.sin(p)
        about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        rotation = about_x @ about_y
        matrix = torch.eye(4)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = pivot.cpu() - rotation @ pivot.cpu()
        matrices.append(matrix)
    return torch.stack(matrices)


def prepare_free_view(portrait: Portrait, fitted: Fitted, K: Tensor) -> None:
    """Let fade, in place, what can be seen only from elsewhere than the clip's camera: `fade_cut` and `fade_loose`."""
    places = usual_places(fitted)
    fade_cut(portrait, fitted, K, places)
    fade_loose(fitted, places)


@torch.no_grad()
def usual_places(fitted: Fitted) -> Tensor:
    """Where each Gaussian is in camera space, averaged over the clip ``[N, 3]`` metres."""
    return fitted.avatar(fitted.mesh(_moments(fitted))).means.mean(0)


@torch.no_grad()
def fade_loose(fitted: Fitted, places: Tensor) -> None:
    """Let Gaussians vanish, in place, that hang in the air: groups that nothing joins to the person.

    At the edge of hair or of a collar the clip's own camera sees them against the rest; from elsewhere they are specks beside it.

    Args:
        places: `usual_places` of the Gaussians ``[N, 3]``.
    """
    avatar = fitted.avatar
    visible = (avatar.opacity_logits.sigmoid() > _VISIBLE).nonzero()[:, 0]
    points = places[visible].cpu().numpy()
    reach = _JOINED * avatar.scales[visible].amax(1).cpu().numpy()
    distance, other = cKDTree(points).query(points, min(_LINKS, len(points)))
    one, link = (distance <= np.maximum(reach[:, None], reach[other])).nonzero()
    links = coo_matrix((np.ones(len(one)), (one, other[one, link])), (len(points), len(points)))
    _, group = connected_components(links, directed=False)
    loose = torch.from_numpy(np.bincount(group)[group] < _LOOSE * len(points)).to(visible.device)
    avatar.opacity_logits[visible[loose]] = -_GONE


@torch.no_grad()
def fade_cut(portrait: Portrait, fitted: Fitted, K: Tensor, places: Tensor) -> None:
    """Let the body fade out, in place, towards the sides and the lower edge of the clip's frame, for which it ends in nothing.

    From the clip's own camera that end lies outside of the picture; from any other one its ragged rim would be seen.

    Args:
        K: intrinsics of the working crop ``[3, 3]``.
        places: `usual_places` of the Gaussians ``[N, 3]``.
    """
    avatar = fitted.avatar
    xy, _ = project(places, K.to(avatar.features))
    inside = torch.from_numpy(portrait.crop.inside(portrait.clip.width, portrait.clip.height))
    columns, rows = inside.any(0).nonzero()[:, 0], inside.any(1).nonzero()[:, 0]
    room = torch.stack([xy[:, 0] - columns[0], columns[-1] + 1 - xy[:, 0], rows[-1] + 1 - xy[:, 1]]).amin(0)
    weight = smoothstep(0.0, _FADE * portrait.crop.size, room)
    avatar.opacity_logits.copy_((avatar.opacity_logits.sigmoid() * weight).clamp(1e-6, 1 - 1e-6).logit())


def _moments(fitted: Fitted) -> Tensor:
    """A few frames from all of the clip."""
    count = len(fitted.poses.refined)
    return torch.linspace(0, count - 1, min(count, _MOMENTS)).long().to(fitted.avatar.features.device)


@torch.no_grad()
def head_pivot(fitted: Fitted) -> Tensor:
    """Centre of the head in camera space ``[3]``, averaged over the clip."""
    vertices = fitted.mesh(_moments(fitted)).vertices
    names = [number for number, label in enumerate(LABELS) if label in ("face", "scalp")]
    head = torch.isin(fitted.body.face_labels, torch.tensor(names, device=vertices.device))
    return vertices[:, fitted.body.faces[head].unique()].mean((0, 1))
