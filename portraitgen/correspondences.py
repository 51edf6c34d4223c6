"""Where on a body's mesh each FaceMesh landmark lies, found by drawing the head and letting FaceMesh look at it.

No hand-made table is needed and any mesh with labelled eyes and lips will do. The head is drawn from several directions
with the jaw ajar, so that the two lips are told apart, and the sightings are averaged on the surface.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile

import numpy as np
import torch
from torch import Tensor

from .body import LABELS, BodyParameters, SkinnedBody, axis_angle_to_matrix, cache_folder, load_body
from .landmarks import FACE_POINTS

Targets = tuple[tuple[list[int], Tensor], ...]

FORMAT = 2
SIZE = 512  # px
VIEWS = ((0.0, 0.0), (0.0, 0.35), (0.0, -0.35), (-0.2, 0.0), (0.2, 0.0), (0.0, 0.15), (0.0, -0.15))  # pitch, yaw
# The edges of the lips where they meet, without the corners: told apart by what the jaw moves.
UPPER_EDGE = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_EDGE = (95, 88, 178, 87, 14, 317, 402, 318, 324)
RIGHT_IRIS, LEFT_IRIS = range(468, 473), range(473, 478)
COLOURS = {"lips": (176, 88, 84), "teeth": (235, 230, 220), "tongue": (170, 80, 80), "mouth_interior": (60, 20, 20)}
SKIN, SCALP, CLOTH, SCLERA = (214, 170, 148), (70, 50, 40), (90, 100, 120), (238, 236, 232)
IRIS, PUPIL, BROW, BACKDROP = (96, 66, 44), (16, 12, 10), (84, 60, 48), (150, 155, 160)


def correspondences(body: SkinnedBody) -> tuple[Tensor, Tensor]:
    """Triangle [478] (long, -1 = unmapped) and barycentrics [478, 3] of every FaceMesh landmark; cached on disk."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    versions = f"{body.version}-{importlib.metadata.version('mediapipe')}-{FORMAT}"
    path = cache_folder() / f"{body.name}-facemesh-{versions}.safetensors"
    device = body.faces.device
    try:
        stored = load_file(path)
        return stored["triangles"].to(device), stored["barycentrics"].to(device)
    except (OSError, SafetensorError, KeyError):
        triangles, barycentrics = derive(load_body(body.name) if device.type != "cpu" else body)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = file.name
        save_file({"triangles": triangles, "barycentrics": barycentrics}, part)
        os.replace(part, path)
    except OSError:  # a read-only home: derive them again next time
        if part is not None and os.path.exists(part):
            os.unlink(part)
    return triangles.to(device), barycentrics.to(device)


def derive(body: SkinnedBody) -> tuple[Tensor, Tensor]:
    """Triangle [478] and barycentrics [478, 3] from drawings of the mean head, for a body on the CPU."""
    params = BodyParameters.zeros(body, 1)
    body.part_lips(params)
    vertices = body.vertices(params)[0]
    names = body.skin.skeleton.bone_names
    eyes = {side: body.joints(params)[0, names.index(f"eye_{side}")] for side in ("left", "right")}
    head = torch.stack(list(eyes.values())).mean(0) + torch.tensor((0, 0.02, 0.06))
    targets = _targets(body, vertices)
    total, weight = torch.zeros(FACE_POINTS, 3), torch.zeros(FACE_POINTS, 1)
    for pitch, yaw in VIEWS:
        seen, facing = _sight(body, vertices, eyes, head, torch.tensor((pitch, yaw, 0.0)), targets)
        total, weight = total + seen * facing, weight + facing
    mapped = weight[:, 0] > 0
    points = total / weight.clamp_min(1e-6)
    triangles, barycentrics = torch.full((FACE_POINTS,), -1), torch.zeros(FACE_POINTS, 3)
    for landmarks, permitted in targets:
        allowed = torch.nonzero(permitted)[:, 0]
        chosen = torch.tensor([index for index in landmarks if mapped[index]])
        if len(chosen):
            nearest, where = closest_on_triangles(points[chosen], vertices[body.faces[allowed]])
            triangles[chosen], barycentrics[chosen] = allowed[nearest], where
    return triangles, barycentrics


def _targets(body: SkinnedBody, ajar: Tensor) -> Targets:
    """Landmarks and the triangles, mask [F], that they may lie on. ajar: [V, 3] the head with its lips parted."""
    lips = body.faces_labelled("lips")
    jaw = (ajar - body.vertices(BodyParameters.zeros(body, 1))[0]).norm(dim=-1)[body.faces].mean(1)
    lower = lips & (jaw > jaw[lips].max() / 2)
    others = [index for index in range(468) if index not in (*UPPER_EDGE, *LOWER_EDGE)]
    return (
        (others, body.faces_labelled("face", "lips", "scalp", "neck", "ears")),
        (list(UPPER_EDGE), lips & ~lower),
        (list(LOWER_EDGE), lower),
        (list(RIGHT_IRIS), body.faces_labelled("eye_right")),
        (list(LEFT_IRIS), body.faces_labelled("eye_left")),
    )


def _sight(
    body: SkinnedBody, vertices: Tensor, eyes: dict[str, Tensor], centre: Tensor, rotation: Tensor, targets: Targets
) -> tuple[Tensor, Tensor]:
    """What FaceMesh points at on the turned head: unturned surface points [478, 3] and weights [478, 1] (0 = unseen)."""
    from .mesh import interpolate, rasterize_mesh, vertex_normals

    turn = axis_angle_to_matrix(rotation)
    posed = (vertices - centre) @ turn.T + torch.tensor((0.0, 0.0, 1.2))
    K = torch.tensor(((1600.0, 0.0, SIZE / 2), (0.0, 1600.0, SIZE / 2), (0.0, 0.0, 1.0)))
    ids, weights, depth = rasterize_mesh(posed, body.faces, K, SIZE, SIZE)
    normals = interpolate(vertex_normals(posed, body.faces)[body.faces], ids, weights)[0]
    points = interpolate(vertices[body.faces], ids, weights)[0]
    labels = body.face_labels[ids[0].clamp_min(0).long()]
    picture = _draw(points, normals, labels, ids[0] >= 0, eyes)
    found = _detect(picture)
    if found is None:
        return torch.zeros(FACE_POINTS, 3), torch.zeros(FACE_POINTS, 1)
    surface, facing = torch.zeros(FACE_POINTS, 3), torch.zeros(FACE_POINTS, 1)
    near = (ids[0] >= 0) & (depth[0] < 1.25)  # the front of the head
    for landmarks, permitted in targets:
        allowed = near & permitted[ids[0].clamp_min(0).long()]
        places = torch.nonzero(allowed)  # rows and columns
        nearest = torch.cdist(found[landmarks].flip(-1) - 0.5, places.float()).argmin(1)
        row, column = places[nearest].unbind(1)
        surface[landmarks] = points[row, column]
        facing[landmarks] = (-normals[row, column, 2:]).clamp_min(0.02)
    return surface, facing


def _draw(points: Tensor, normals: Tensor, labels: Tensor, hit: Tensor, eyes: dict[str, Tensor]) -> np.ndarray:
    """The head in natural colours [SIZE, SIZE, 3] uint8, lit from the front. points: [SIZE, SIZE, 3] before turning;
    eyes: pivot [3] of each."""
    colour = torch.tensor(SKIN).float().expand(*points.shape).clone()
    for name, value in (("scalp", SCALP), ("torso", CLOTH), ("arms", CLOTH), *COLOURS.items()):
        colour[labels == LABELS.index(name)] = torch.tensor(value).float()
    for side, outwards in (("left", 1.0), ("right", -1.0)):
        offset = points - eyes[side]
        eye, radius = labels == LABELS.index(f"eye_{side}"), offset[..., :2].norm(dim=-1)
        colour[eye] = torch.tensor(SCLERA).float()
        colour[eye & (radius < 0.006)] = torch.tensor(IRIS).float()
        colour[eye & (radius < 0.0025)] = torch.tensor(PUPIL).float()
        along, up = offset[..., 0] * outwards, -offset[..., 1]
        arch = up - 0.0205 - 0.004 * torch.cos((along - 0.006) / 0.024 * 1.5)
        brow = (arch.abs() < 0.0035) & (along > -0.018) & (along < 0.026) & (offset[..., 2] < 0.02)
        colour[brow & (labels == LABELS.index("face"))] = torch.tensor(BROW).float()
    light = torch.nn.functional.normalize(torch.tensor((0.25, -0.45, -1.0)), dim=0)
    shade = 0.45 + 0.6 * (normals @ light).clamp_min(0)
    picture = torch.where(hit[..., None], colour * shade[..., None], torch.tensor(BACKDROP).float())
    return picture.clamp(0, 255).byte().numpy()


def _detect(picture: np.ndarray) -> Tensor | None:
    """FaceMesh points [478, 2] in pixels of one picture, or None."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3) as detector:
        result = detector.process(picture)
    if not result.multi_face_landmarks:
        return None
    return torch.tensor([(p.x * SIZE, p.y * SIZE) for p in result.multi_face_landmarks[0].landmark])


def closest_on_triangles(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """The triangle nearest to each point and the barycentrics of the nearest place on it.

    points: [N, 3]; triangles: [F, 3, 3] corners. Returns [N] long and [N, 3].
    """
    best = torch.full((len(points),), torch.inf)
    index, weights = torch.zeros(len(points), dtype=torch.long), torch.zeros(len(points), 3)
    a, b, c = triangles.unbind(1)
    for number, point in enumerate(points):
        near = (triangles.mean(1) - point).norm(dim=-1).topk(min(64, len(triangles)), largest=False).indices
        inside = _triangle_barycentrics(point, a[near], b[near], c[near])
        # On the outside of a corner or an edge the nearest place is on one of the edges.
        places = [torch.where((inside >= 0).all(-1, keepdim=True), inside, torch.full_like(inside, torch.nan))]
        for first, second in ((0, 1), (1, 2), (2, 0)):
            start, end = triangles[near, first], triangles[near, second]
            along = ((point - start) * (end - start)).sum(-1) / (end - start).square().sum(-1).clamp_min(1e-18)
            edge = torch.zeros_like(inside)
            edge[:, first], edge[:, second] = 1 - along.clamp(0, 1), along.clamp(0, 1)
            places.append(edge)
        where = torch.stack(places)  # [4, near, 3]
        distance = ((where[..., None] * triangles[near]).sum(-2) - point).norm(dim=-1).nan_to_num(torch.inf)
        flat = int(distance.argmin())
        kind, candidate = divmod(flat, len(near))
        if distance[kind, candidate] < best[number]:
            best[number], index[number] = distance[kind, candidate], near[candidate]
            weights[number] = where[kind, candidate]
    return index, weights


def _triangle_barycentrics(point: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Barycentrics [F, 3] of the point's projection into the planes of the triangles with corners [F, 3]."""
    first, second, offset = b - a, c - a, point - a
    d11, d12, d22 = (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
    d1, d2 = (offset * first).sum(-1), (offset * second).sum(-1)
    scale = 1 / (d11 * d22 - d12 * d12).clamp_min(1e-24)
    v, w = (d22 * d1 - d12 * d2) * scale, (d11 * d2 - d12 * d1) * scale
    return torch.stack((1 - v - w, v, w), dim=-1)
