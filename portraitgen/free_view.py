"""A portrait seen from elsewhere than the clip's camera: the cameras of an orbit, and what the clip never showed made fit to be seen."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from .body import labelled
from .editors.colour import smoothstep
from .fitting import Fitted
from .initialization import project
from .mattes import inside_picture
from .portrait import Portrait
from .streaming import breathe
from .unseen import NEIGHBOURS, neighbours, of_neighbours

_MOMENTS = 8  # of the clip, that stand for all of it
_FADE = 0.14  # of the working crop's side
_VISIBLE, _GONE = 0.2, 14.0  # opacity, and the logit of none
# Gaussians are joined to those of their nearest ones that are within so many standard deviations; loose groups are less than this share.
_JOINED, _LINKS, _LOOSE = 3.0, 12, 0.005
_ODD = 0.2  # difference of a colour from the middle one around it
_MOUTHS = 24  # moments at which the mouth is looked at
# Share of itself that a Gaussian shows at its best moment: below it nothing is known of its looks, from the second on they tell others'.
_HIDDEN, _SHOWN = 0.1, 0.3
_FIRM = 0.92  # opacity
ORBIT_YAW, ORBIT_PITCH = 35.0, 15.0


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
    """Make what only other cameras than the clip's see fit to be seen, in place: mouth, fringe, lower edge and what hangs in the air."""
    places = usual_places(fitted)
    complete_mouth(fitted, K, places)
    even_fringe(fitted, places)
    fade_cut(portrait, fitted, K, places)
    fade_loose(fitted, places)


@torch.no_grad()
def usual_places(fitted: Fitted) -> Tensor:
    """Where each Gaussian is in camera space, averaged over the clip ``[N, 3]`` metres."""
    return fitted.avatar(fitted.mesh(_moments(fitted))).means.mean(0)


@torch.no_grad()
def even_fringe(fitted: Fitted, places: Tensor) -> None:
    """Give Gaussians of hair and loose clothes, in place, that are unlike nearly all others near them the looks of those.

    Slits of the scene that a matte takes for hair, and the dark between two locks, are seen edge on by the clip's camera; from the side
    they are beads and dots on the person's outline.

    Args:
        places: `usual_places` of the Gaussians ``[N, 3]``.
    """
    avatar = fitted.avatar
    fringe = (avatar.lifted & (avatar.opacity_logits.sigmoid() > _VISIBLE)).nonzero()[:, 0]
    if len(fringe) <= NEIGHBOURS:
        return
    colors = avatar.features[fringe, :3]
    others = colors[neighbours(places[fringe], places[fringe], NEIGHBOURS + 1)[:, 1:]]
    odd = (colors - others.median(1).values).abs().amax(1) > _ODD
    if odd.any() and (~odd).sum() >= NEIGHBOURS:
        weights = torch.ones_like(avatar.spacing[fringe])
        avatar.features[fringe[odd]] = of_neighbours(avatar.features[fringe], weights, places[fringe], ~odd, odd)


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
    weight = fade_at_edge(portrait, xy)
    avatar.opacity_logits.copy_((avatar.opacity_logits.sigmoid() * weight).clamp(1e-6, 1 - 1e-6).logit())


def fade_at_edge(portrait: Portrait, xy: Tensor) -> Tensor:
    """Share ``[N]`` that is left of what lies at ``xy`` ``[N, 2]`` in the working crop, pixels: none at the sides and the lower edge of
    the clip's picture."""
    inside = inside_picture(portrait)
    columns, rows = inside.any(0).nonzero()[:, 0], inside.any(1).nonzero()[:, 0]
    room = torch.stack([xy[:, 0] - columns[0], columns[-1] + 1 - xy[:, 0], rows[-1] + 1 - xy[:, 1]]).amin(0)
    return smoothstep(0.0, _FADE * portrait.crop.size, room)


def complete_mouth(fitted: Fitted, K: Tensor, places: Tensor) -> None:
    """Let teeth and tongue look, in place, where the clip hardly shows them as they do where it shows them.

    What comes out from behind the lips for a moment has taken on their colour and shadow, the rest of a row of teeth that of nothing at
    all: through the same lips seen from the side that is specks and gaps.

    Args:
        K: intrinsics of the working crop ``[3, 3]``.
        places: `usual_places` of the Gaussians ``[N, 3]``.
    """
    avatar = fitted.avatar
    labels = fitted.body.face_labels.to(places.device)[avatar.texel_faces]
    if not labelled(labels, "lips").any():
        return
    share = _shown_of_mouth(fitted, K)
    for part in ("teeth", "tongue"):
        own = labelled(labels, part) & ~avatar.lifted
        known, unknown = own & (share >= _SHOWN), own & (share < _HIDDEN)
        if known.sum() < NEIGHBOURS or not unknown.any():
            continue
        with torch.no_grad():
            avatar.features[unknown] = of_neighbours(avatar.features, share, places, known, unknown)
            avatar.offsets[unknown] = avatar.rest_offsets[unknown]
            avatar.opacity_logits[unknown] = torch.tensor(_FIRM).logit().item()
            avatar.log_scales[unknown] = (0.8 * avatar.spacing[unknown]).log()[:, None]


def _shown_of_mouth(fitted: Fitted, K: Tensor) -> Tensor:
    """Share of itself that each Gaussian shows within the lips' bounds ``[N]``, at its best moment: about 1 for all of it."""
    avatar = fitted.avatar
    lips = fitted.body.faces[labelled(fitted.body.face_labels, "lips")].unique().to(avatar.features.device)
    K = K.to(avatar.features)
    share = torch.zeros_like(avatar.spacing)
    for frame in _moments(fitted, _MOUTHS).split(1):
        breathe()
        with torch.no_grad():
            xy, depth = project(fitted.mesh(frame).vertices[0, lips], K)
        corner = xy.amin(0).floor()
        side = 8 * math.ceil(float((xy.amax(0) - corner).max()) / 8)
        focus = K.clone()
        focus[:2, 2] -= corner
        with torch.enable_grad():
            rendering = fitted.render(frame, focus[None], side, side)
            (weights,) = torch.autograd.grad(rendering.color_features.sum(), avatar.features)
        area = (avatar.spacing * K[0, 0] / depth.mean()).square()
        share = torch.maximum(share, weights[:, :3].mean(1) / area)
    return share


@torch.no_grad()
def _moments(fitted: Fitted, most: int = _MOMENTS) -> Tensor:
    """A few frames from all of the clip."""
    count = len(fitted.poses.refined)
    return torch.linspace(0, count - 1, min(count, most)).long().to(fitted.avatar.features.device)


@torch.no_grad()
def head_pivot(fitted: Fitted) -> Tensor:
    """Centre of the head in camera space ``[3]``, averaged over the clip."""
    vertices = fitted.mesh(_moments(fitted)).vertices
    head = labelled(fitted.body.face_labels, "face", "scalp")
    return vertices[:, fitted.body.faces[head].unique()].mean((0, 1))
