"""The avatar before its first optimiser step: where Gaussians sit and what colour the clip's frames give them.

Hair and loose clothes lie outside the body's surface. Instead of waiting for displacements (Eq. 6) to crawl there, pixels of the person
that the mesh leaves uncovered are lifted to Gaussians bound to the nearest part of the mesh, so that step 0 already shows the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .avatar import Avatar, Texels, on_surface, sample_texels, triangle_frames
from .body import BodyModel, labelled
from .frames import TrainingFrames
from .mesh import rasterize_mesh
from .poses import PosedMesh
from .streaming import breathe
from .unseen import color_unseen

# Cosine of the angle between a face's normal and the way to the camera, up to which a turn may show the face.
_FACING_NEAR = -0.5
_OUTSIDE = 0.05  # fraction of the picture's side that a face may lie outside of it
_UNSEEN = 3.0  # how much coarser unseen faces are
_FINE, _FINE_LABELS = 0.75, ("eye_left", "eye_right", "lips", "teeth")
DEPTH_TOLERANCE = 0.012  # metres that a visible Gaussian may lie behind the mesh
_SOLID_LABELS = ("face", "scalp", "neck", "torso", "arms")
_BELOW = 0.004  # metres that the undercoat lies below the surface
_OPAQUE = 0.95
_FAINT = 0.005
_SMOOTH = 0.02  # of the picture's side
_BEHIND = 0.006  # metres that lifted pixels lie behind the surface that they continue
_BEFORE = 0.008  # metres that hair lies before the surface that it falls over
_RIM = 0.02  # of the picture's side, around hair
_UNDER_HAIR = ("neck", "torso", "arms")  # what long hair falls over
_UNDER_CLOTHES = ("torso", "arms")  # what they move with; a neck turns with the head
_BARE = 0.1  # of an ear's pixels: one that shows less lies within the hair
_BARE_OTHER = 0.5  # the same of the other ear, for one that no view shows


@dataclass(frozen=True)
class Views:
    """Posed meshes and pictures of a few frames.

    Attributes:
        mesh: the posed meshes of M frames.
        triangles: index of the triangle at each pixel ``[M, S, S]``, -1 where there is none.
        depth: ``[M, S, S]`` metres, infinite where there is no mesh.
        images: ``[M, 3, S, S]`` straight colour in [0, 1].
        alphas: ``[M, S, S]`` in [0, 1].
        K: ``[3, 3]``.
        inside: pixels of which something is known ``[M, S, S]``, bool; ``alphas`` are 0 in the others.
        hair: pixels of hair ``[M, S, S]``, bool; none if nothing is known of it.
        clothes: pixels of clothes ``[M, S, S]``, bool; none if nothing is known of them.
        labels: of the mesh's faces ``[F]``, indices into :data:`body.LABELS`.
        within_hair: faces of ears that lie within the hair ``[F]``, bool.
    """

    mesh: PosedMesh
    triangles: Tensor
    depth: Tensor
    images: Tensor
    alphas: Tensor
    K: Tensor
    inside: Tensor
    hair: Tensor
    clothes: Tensor
    labels: Tensor
    within_hair: Tensor

    @cached_property
    def fallen(self) -> Tensor:
        """Pixels of hair before neck, torso and arms and of all that shows before ears within it ``[M, S, S]``, bool."""
        return (self.triangles >= 0) & (
            (self.hair & labelled(self.labels, *_UNDER_HAIR)[self.triangles]) | self.within_hair[self.triangles]
        )

    @cached_property
    def clear(self) -> Tensor:
        """Pixels well away from hair, its strands and its shadow ``[M, S, S]``, bool."""
        rim = round(_RIM * self.hair.shape[-1])
        return torch.nn.functional.max_pool2d(self.hair[:, None].float(), 2 * rim + 1, 1, rim)[:, 0] == 0


def make_views(
    mesh: PosedMesh,
    body: BodyModel,
    data: TrainingFrames,
    gain: Tensor,
    hair: Tensor | None = None,
    clothes: Tensor | None = None,
) -> Views:
    """Views of the M frames in ``data`` with their posed meshes, their ``gain`` ``[M, 3]`` taken off; ``hair`` and ``clothes``
    ``[M, S, S]`` if known.
    """
    size = data.size
    images = data.images.float() / 255 / gain[..., None, None]
    alphas = data.alphas[:, 0].float() / 255 * data.inside
    hair, clothes = (
        torch.zeros_like(alphas, dtype=torch.bool) if region is None else region for region in (hair, clothes)
    )
    triangles, _, depth = rasterize_mesh(mesh.vertices, body.faces, data.K, size, size)
    within_hair = _ears_within_hair(body, mesh, data.K, triangles.long(), hair, alphas > 0.5)
    depth = torch.where(triangles < 0, torch.inf, depth)
    labels = body.face_labels.to(depth.device)
    return Views(mesh, triangles.long(), depth, images, alphas, data.K, data.inside, hair, clothes, labels, within_hair)


def project(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates ``[..., 2]`` and depth ``[...]`` of camera-space points ``[..., 3]``."""
    depth = points[..., 2].clamp_min(1e-3)
    return points[..., :2] / depth[..., None] * K.diagonal()[:2] + K[:2, 2], depth


def build_avatar(body: BodyModel, views: Views, channels: int, texel_pixels: float) -> Avatar:
    """Avatar with one Gaussian about every ``texel_pixels`` pixels of what the views show, coloured by them."""
    pixel = float(views.mesh.skinned[..., 2].median() / views.K[0, 0])
    spacing = _face_spacing(body, views, pixel * texel_pixels)
    texels = sample_texels(views.mesh.skinned[0].cpu(), body.faces.cpu(), _face_uvs(body), spacing.cpu())
    device = views.images.device
    texels = _to(texels, device)
    offsets = torch.zeros(len(texels), 3, device=device)
    for view in range(len(views.mesh)):
        breathe()
        lifted, lifted_offsets = _lift_uncovered(body, views, view, texels, offsets, pixel, texel_pixels * 1.2)
        texels = _join(texels, lifted)
        offsets = torch.cat([offsets, lifted_offsets])
    below = _undercoat(body, views, spacing > 0, pixel * texel_pixels)
    texels = _join(texels, below)
    offsets = torch.cat([offsets, torch.tensor([0.0, 0.0, -_BELOW], device=device).expand(len(below), 3)])
    avatar = Avatar(body.faces.to(device), texels, channels, offsets).to(device)
    colors, _, on_person = gather_colors(avatar, views)
    with torch.no_grad():
        avatar.features[:, :3] = colors
        avatar.opacity_logits[len(texels) - len(below) :] = torch.tensor(_OPAQUE, device=device).logit()
        # Texels outside the matte start so faint that layers of them make no haze; the mask loss decides about them.
        avatar.opacity_logits[on_person < 0.3] = torch.tensor(_FAINT, device=device).logit()
    return avatar


@torch.no_grad()
def gather_colors(avatar: Avatar, views: Views) -> tuple[Tensor, Tensor, Tensor]:
    """Colour of each Gaussian: mean of the pixels where the views show it, weighted towards the views that face it.

    Returns:
        colours ``[N, 3]`` in [0, 1] (a Gaussian that no view shows takes those of well seen ones near it); whether each was seen ``[N]``;
        and the mean alpha under it ``[N]``, seen or hidden; 1 where every view ends before it.
    """
    size = views.images.shape[-1]
    total = torch.zeros(len(avatar), 3, device=views.images.device)
    alpha_total, weight_total, hair_total, clear_total, inside_total = (
        torch.zeros(len(avatar), device=total.device) for _ in range(5)
    )
    for view in range(len(views.mesh)):
        breathe()
        mesh = views.mesh[view : view + 1]
        means = avatar(mesh).means[0]
        facing = avatar.facing(mesh)[0]
        xy, depth = project(means, views.K)
        column, row = (xy[:, 0].long(), xy[:, 1].long())
        within = (xy >= 0).all(1) & (xy < size).all(1)
        column, row = column.clamp(0, size - 1), row.clamp(0, size - 1)
        inside = within & views.inside[view, row, column]
        lifted = avatar.lifted
        uncovered = lifted | ((facing > 0) & ~views.fallen[view, row, column])
        visible = inside & (depth < views.depth[view, row, column] + DEPTH_TOLERANCE) & uncovered
        alpha = views.alphas[view, row, column]
        inside_total += inside
        alpha_total += inside * alpha
        weight = visible * (alpha > 0.5) * torch.where(lifted, 0.3, facing.clamp_min(0) ** 2 + 1e-3)
        sampled = torch.nn.functional.grid_sample(
            views.images[view : view + 1], (xy / size * 2 - 1)[None, None], mode="bilinear", align_corners=False
        )[0, :, 0].T
        total += weight[:, None] * sampled
        weight_total += weight
        hair_total += weight * views.hair[view, row, column]
        clear_total += weight * views.clear[view, row, column]
    colored = weight_total > 1e-4
    colors = total / weight_total.clamp_min(1e-6)[:, None]
    if colored.any() and not colored.all():
        points, labels = avatar(views.mesh[:1]).means[0], views.labels[avatar.texel_faces]
        hair, clear = (part > 0.5 * weight_total for part in (hair_total, clear_total))
        color_unseen(colors, colored, weight_total, points, labels, hair, clear)
    # What no view shows of the person may come into the frame in others.
    on_person = torch.where(inside_total > 0, alpha_total / inside_total.clamp_min(1), 1.0)
    return colors, colored, on_person


def _face_uvs(body: BodyModel) -> Tensor:
    return body.uvs[body.face_uvs].float().cpu()


def _face_spacing(body: BodyModel, views: Views, wanted: float) -> Tensor:
    """Distance between texels on each face ``[F]`` in metres: coarser where no view looks, 0 out of the frame or inside the body."""
    size = views.images.shape[-1]
    seen = torch.zeros(len(body.faces) + 1, dtype=torch.bool, device=views.images.device)
    seen[views.triangles.unique()] = True  # -1, no triangle, falls on the last, spare entry
    nearly = torch.zeros_like(seen[:-1])
    solid = labelled(body.face_labels, *_SOLID_LABELS)
    for view in range(len(views.mesh)):
        breathe()
        vertices = views.mesh[view : view + 1].vertices
        normals = triangle_frames(vertices, body.faces)[0, :, :, 2]
        centres = vertices[0, body.faces].mean(1)
        xy, _ = project(centres, views.K)
        inside = ((xy > -_OUTSIDE * size) & (xy < (1 + _OUTSIDE) * size)).all(1)
        facing = -(normals * torch.nn.functional.normalize(centres, dim=-1)).sum(-1)
        nearly |= inside & ((facing > _FACING_NEAR) | solid)
    spacing = torch.where(seen[:-1], wanted, torch.where(nearly, _UNSEEN * wanted, 0.0))
    spacing[views.within_hair] = 0
    return torch.where(labelled(body.face_labels, *_FINE_LABELS) & seen[:-1], _FINE * wanted, spacing)


def _undercoat(body: BodyModel, views: Views, laid: Tensor, wanted: float) -> Texels:
    """Coarse texels for an opaque layer just below the skin, on the faces ``[F]`` where texels are ``laid``.

    Seen from where the clip never looks, the surface's small Gaussians stand apart; what shows between them is then the same colour and not
    what lies behind the person.
    """
    spacing = torch.where(laid & labelled(body.face_labels, *_SOLID_LABELS), _UNSEEN * wanted, 0.0)
    texels = sample_texels(views.mesh.skinned[0].cpu(), body.faces.cpu(), _face_uvs(body), spacing.cpu())
    return _to(texels, views.images.device)


def _lift_uncovered(
    body: BodyModel, views: Views, view: int, texels: Texels, offsets: Tensor, pixel: float, stride: float
) -> tuple[Texels, Tensor]:
    """Texels and offsets for the person's pixels in one view that neither the mesh nor earlier lifted texels cover."""
    size = views.images.shape[-1]
    device = views.images.device
    mesh = views.mesh[view : view + 1]
    # Hair that falls over neck and shoulders is a layer of its own before them.
    covered = ((views.triangles[view] >= 0) & ~views.fallen[view]).cpu().numpy()
    nothing = Texels(*(t[:0] for t in (texels.faces, texels.barycentrics, texels.uvs, texels.spacing)))
    if not covered.any():
        return nothing, offsets[:0]
    earlier = offsets.norm(dim=1) > 0
    blocked = covered.copy()
    if earlier.any():
        xy, _ = project(_positions(body, mesh, texels, offsets)[earlier], views.K)
        columns, rows = xy.round().long().clamp(0, size - 1).T.cpu().numpy()
        marks = np.zeros((size, size), bool)
        marks[rows, columns] = True
        blocked |= ndimage.binary_closing(
            ndimage.binary_dilation(marks, iterations=max(1, round(stride))), iterations=2
        )
    missing = (views.alphas[view].cpu().numpy() > 0.5) & ~blocked
    grid = np.arange(stride / 2, size, stride).astype(int)
    rows, columns = (g.ravel() for g in np.meshgrid(grid, grid, indexing="ij"))
    chosen = missing[rows, columns]
    rows, columns = rows[chosen], columns[chosen]
    if not len(rows):
        return nothing, offsets[:0]
    faces = _nearest_faces(views, view, covered, rows, columns)
    depth = _depth_around(views.depth[view])[rows, columns]
    hang = _hanging_depth(body, mesh, views.K, size).to(depth)[columns]
    depth = torch.where(views.hair[view][rows, columns], torch.minimum(depth, hang), depth)
    xy = torch.as_tensor(np.stack([columns, rows], 1) + 0.5, dtype=torch.float32, device=device)
    points = torch.cat([(xy - views.K[:2, 2]) / views.K.diagonal()[:2] * depth[:, None], depth[:, None]], 1)
    weights = torch.full((len(faces), 3), 1 / 3, device=device)
    spacing = torch.full((len(faces),), stride * pixel, device=device)
    uvs = body.uvs[body.face_uvs[faces]].float().mean(1).to(device)
    lifted = Texels(faces, weights, uvs, spacing)
    frames = triangle_frames(mesh.skinned, body.faces)[0, faces]
    centres = on_surface(mesh.vertices, body.faces[faces], weights)[0]
    return lifted, (frames.transpose(1, 2) @ (points - centres)[..., None]).squeeze(-1)


def _nearest_faces(views: Views, view: int, covered: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """The face that shows nearest to each pixel ``[P]`` among the ``covered`` ones ``[S, S]``; to one of clothes, nearest of the body's.

    A collar that moved with the jaw would fly off as soon as the mouth opens, and one that half moved with the neck would be torn.
    """
    triangles = views.triangles[view]
    worn = views.clothes[view].cpu().numpy()[rows, columns]
    below = covered & labelled(views.labels, *_UNDER_CLOTHES)[triangles.clamp_min(0)].cpu().numpy()
    near = np.empty((2, len(rows)), int)
    for shown, wanted in ((covered, ~worn), (below if below.any() else covered, worn)):
        if wanted.any():
            nearest = ndimage.distance_transform_edt(~shown, return_distances=False, return_indices=True)
            near[:, wanted] = nearest[:, rows[wanted], columns[wanted]]
    return triangles[near[0], near[1]]


def _depth_around(depth: Tensor) -> Tensor:
    """Depth ``[S, S]`` of what the mesh does not show: just before it, and beyond its silhouette where it would continue.

    The depth of the nearest mesh pixel jumps from one triangle of the silhouette to the next, which shows as cracks from the side; its
    average over a neighbourhood outside the mesh does not.
    """
    outside = np.isinf(depth.cpu().numpy())
    nearest = ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)
    filled = depth.cpu().numpy()[tuple(nearest)]
    sigma = _SMOOTH * len(filled)
    total = ndimage.gaussian_filter(filled * outside, sigma)
    continued = total / np.maximum(ndimage.gaussian_filter(outside.astype(np.float32), sigma), 1e-6)
    return torch.as_tensor(np.where(outside, continued + _BEHIND, filled - _BEFORE), device=depth.device)


def _hanging_depth(body: BodyModel, mesh: PosedMesh, K: Tensor, size: int) -> Tensor:
    """Depth ``[S]`` at each column of the picture of the upright plane through both ears, where long hair hangs; constant beside them.

    Continued from the neck and the shoulders instead, whose silhouettes lie further back, it would stand off like a cape from the side.
    """
    xy, depth = project(mesh.vertices[0, body.faces].mean(1), K)
    ears = _ears(body, xy)
    (start, near), (end, far) = ((float(xy[ear, 0].mean()), float(depth[ear].mean())) for ear in ears)
    return torch.as_tensor(np.interp(np.arange(size) + 0.5, (start, end), (near, far)), device=K.device)


def _ears(body: BodyModel, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Faces of the ear on the picture's left and of the one on its right, each ``[F]``, bool; ``xy`` ``[F, 2]`` are their centres."""
    both = labelled(body.face_labels, "ears")
    right = xy[:, 0] > (xy[both, 0].amin() + xy[both, 0].amax()) / 2
    return both & ~right, both & right


def _ears_within_hair(
    body: BodyModel, mesh: PosedMesh, K: Tensor, triangles: Tensor, hair: Tensor, person: Tensor
) -> Tensor:
    """Faces of the ears ``[F]`` that all of M frames hide in hair, from which they would stick out when seen from the side.

    Args:
        mesh: of the M frames.
        K: ``[3, 3]``.
        triangles: index of the triangle at each pixel ``[M, S, S]``, -1 where there is none.
        hair: pixels of hair ``[M, S, S]``, bool.
        person: pixels of the person ``[M, S, S]``, bool.
    """
    person = person & (triangles >= 0)
    shown, bare = (torch.bincount(triangles[pixels], minlength=len(body.faces)) for pixels in (person, person & ~hair))
    xy, _ = project(mesh.vertices[0, body.faces].mean(1), K)
    left, right = _ears(body, xy)
    within = torch.zeros_like(left)
    for ear, other in ((left, right), (right, left)):
        seen, share = (ear, _BARE) if shown[ear].any() else (other, _BARE_OTHER)
        within |= ear & (bare[seen].sum() < share * shown[seen].sum())
    return within


def _positions(body: BodyModel, mesh: PosedMesh, texels: Texels, offsets: Tensor) -> Tensor:
    surface = on_surface(mesh.vertices, body.faces[texels.faces], texels.barycentrics)[0]
    frames = triangle_frames(mesh.skinned, body.faces)[0, texels.faces]
    return surface + (frames @ offsets[..., None]).squeeze(-1)


def _to(texels: Texels, device: torch.device) -> Texels:
    return Texels(*(t.to(device) for t in (texels.faces, texels.barycentrics, texels.uvs, texels.spacing)))


def _join(a: Texels, b: Texels) -> Texels:
    return Texels(
        torch.cat([a.faces, b.faces]),
        torch.cat([a.barycentrics, b.barycentrics]),
        torch.cat([a.uvs, b.uvs]),
        torch.cat([a.spacing, b.spacing]),
    )
