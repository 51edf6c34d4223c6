"""A mouth for SMPL-X, which ends at the inner edge of the lips: teeth, tongue and a cavity of our own.

Nothing of it is modelled on anybody: arches, tongue and cavity are simple surfaces as wide as the mouth. The upper teeth
are rigid to the head; lower teeth and tongue follow the jaw; the cavity grows out of the lips' inner edge, moves with it in
front and with skull and jaw at its back. All follow the lips when the shape changes, and have UV islands of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import LABELS

# In widths of the mouth, about 5 cm.
ARCH_WIDTH, ARCH_DEPTH, TOOTH_HEIGHT = 0.52, 0.55, 0.2
BEHIND_LIPS, OVERBITE, OVERLAP = 0.1, 0.05, 0.06
TONGUE_WIDTH, TONGUE_LENGTH, TONGUE_DROP = 0.36, 0.7, 0.06
CAVITY_DEPTH, CAVITY_HEIGHT, CAVITY_BULGE = 0.95, 0.3, 0.25
ARCH_GRID, TONGUE_GRID, RINGS = (17, 3), (9, 7), 4
REACH = 0.6  # how far the middle of the lips' inner edge may be from that of the landmarks
SHARED = 0.15  # over what distance sideways lip vertices are averaged to say how a shape moves the teeth


@dataclass(frozen=True)
class Patch:
    """M new vertices, each tied to vertices of the body, and their faces."""

    label: str
    points: np.ndarray  # [M, 3]
    anchors: np.ndarray  # [M, V] weights of the body's vertices; rows sum to 1
    fade: np.ndarray  # [M] share of the anchors' expression and pose correction that is taken over
    jaw: np.ndarray  # [M] skinning weight of the jaw; the rest is the head's
    own: np.ndarray  # [M] share of these weights; the rest is the anchors'
    faces: np.ndarray  # [F, 3] into the body's vertices followed by these
    uvs: np.ndarray  # [U, 2] in any scale
    face_uvs: np.ndarray  # [F, 3]


def add_mouth(parts: dict[str, np.ndarray], inner: np.ndarray, bones: list[str]) -> dict[str, np.ndarray]:
    """The body's arrays with a mouth. inner: [8, 3] landmarks on the lips' inner edge, the person's right corner first.

    A mesh that is closed between the lips gets teeth and tongue, and keeps its own cavity.
    """
    points, faces, labels = parts["template"], parts["faces"], parts["face_labels"]
    jaw = parts["weights"][:, bones.index("jaw")]
    lips = np.unique(faces[labels == LABELS.index("lips")])
    width = float(np.linalg.norm(inner[0] - inner[4]))
    middle = inner[[2, 6]].mean(0)
    patches = []
    for label, upper in (("teeth", True), ("teeth", False), ("tongue", False)):
        grid, uv, quads = _tongue(width) if label == "tongue" else _arch(width, upper)
        place = middle + grid
        kernel = np.exp(-(((place[:, :1] - points[lips, 0]) / (SHARED * width)) ** 2) / 2)
        anchors = np.zeros((len(place), len(points)))
        anchors[:, lips] = kernel / kernel.sum(1, keepdims=True)
        none, one = np.zeros(len(place)), np.ones(len(place))
        patches.append(Patch(label, place, anchors, none, none if upper else one, one, quads + len(points), uv, quads))
    edge = _inner_edge(points, faces, inner.mean(0), REACH * width)
    if edge is not None:
        patches.append(_cavity(points, edge, jaw, width))
    for patch in patches:
        parts = _join(parts, patch, bones)
    return parts


def _join(parts: dict[str, np.ndarray], patch: Patch, bones: list[str]) -> dict[str, np.ndarray]:
    count = len(parts["template"])
    used = np.flatnonzero(patch.anchors.any(0))
    anchors = patch.anchors[:, used]

    def moved(basis: np.ndarray, share: np.ndarray) -> np.ndarray:
        new = share[:, None] * np.einsum("mv,kvc->kmc", anchors, basis[:, used], optimize=True)
        return np.concatenate((basis, new), axis=1)

    rigid = np.zeros((len(anchors), len(bones)))
    rigid[:, bones.index("jaw")], rigid[:, bones.index("head")] = patch.jaw, 1 - patch.jaw
    weights = patch.own[:, None] * rigid + (1 - patch.own[:, None]) * (anchors @ parts["weights"][used])
    first = patch.anchors.shape[1]  # the body's vertices, which keep their numbers, come before all patches
    faces = np.where(patch.faces >= first, patch.faces - first + count, patch.faces)
    return parts | {
        "template": np.concatenate((parts["template"], patch.points)),
        "shape_basis": moved(parts["shape_basis"], np.ones(len(anchors))),
        "expression_basis": moved(parts["expression_basis"], patch.fade),
        "pose_basis": moved(parts["pose_basis"], patch.fade),
        "weights": np.concatenate((parts["weights"], weights)),
        "faces": np.concatenate((parts["faces"], faces)),
        "face_labels": np.append(parts["face_labels"], np.full(len(faces), LABELS.index(patch.label))),
        "uvs": np.concatenate((parts["uvs"], patch.uvs)),
        "face_uvs": np.concatenate((parts["face_uvs"], patch.face_uvs + len(parts["uvs"]))),
    }


def _grid(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column [M] from -1 to 1 and row [M] from 0 to 1 of a grid's points, and its triangles [F, 3]; seen from in front
    (columns to the right, rows downwards) they face the viewer."""
    row, column = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return column.ravel(), row.ravel(), np.concatenate((np.stack((a, b, c), 1), np.stack((b, d, c), 1)))


def _arch(width: float, upper: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row of teeth: points [M, 3] about the middle of the lips, UVs [M, 2] and triangles [F, 3]."""
    along, down, faces = _grid(*ARCH_GRID)
    top = OVERLAP - TOOTH_HEIGHT if upper else 0.0
    back = BEHIND_LIPS + (0.0 if upper else OVERBITE) + ARCH_DEPTH * along**2
    points = width * np.stack((ARCH_WIDTH * along, top + TOOTH_HEIGHT * down, back), 1)
    return points, np.stack((ARCH_DEPTH * 1.5 * along, -TOOTH_HEIGHT * down), 1), faces


def _tongue(width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tongue's upper side, like `_arch`: far at the top of the grid, the tip at its bottom, bent down at the rim."""
    across, near, faces = _grid(*TONGUE_GRID)
    rounding = np.sqrt(np.maximum(1 - np.maximum(2 * near - 1, 0) ** 2 * 0.75, 0))
    drop = TONGUE_DROP + 0.1 * across**2 + 0.12 * near**3
    back = BEHIND_LIPS + 3 * OVERBITE + TONGUE_LENGTH * (1 - near)
    points = width * np.stack((TONGUE_WIDTH * across * rounding, drop, back), 1)
    return points, np.stack((TONGUE_WIDTH * across, -TONGUE_LENGTH * near), 1), faces


def _inner_edge(points: np.ndarray, faces: np.ndarray, middle: np.ndarray, reach: float) -> np.ndarray | None:
    """The hole in the mesh between the lips: its vertices in order, as the faces around it run; None where it is closed."""
    edges = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    known = {tuple(edge) for edge in edges.tolist()}
    after = {a: b for a, b in known if (b, a) not in known}
    found, nearest = None, reach
    while after:
        loop = [next(iter(after))]
        while (following := after.pop(loop[-1], None)) is not None and following != loop[0]:
            loop.append(following)
        distance = float(np.linalg.norm(points[loop].mean(0) - middle))
        if following is not None and len(loop) > 3 and distance < nearest:
            found, nearest = np.array(loop), distance
    return found


def _cavity(points: np.ndarray, edge: np.ndarray, jaw: np.ndarray, width: float) -> Patch:
    """Rings that widen behind the inner edge of the lips [L], and the throat that closes the last of them."""
    count, total = len(edge), len(points)
    line = points[edge]
    first = int(line[:, 0].argmin())
    edge, line = np.roll(edge, -first), np.roll(line, -first, 0)  # starts in a corner of the mouth
    half = np.arange(count) < line[:, 0].argmax()
    upper = half if jaw[edge[half]].mean() < jaw[edge[~half]].mean() else ~half
    low, high = line[:, 0].min(), line[:, 0].max()
    across = (line[:, 0] - (low + high) / 2) / (high - low) * 2
    height = np.sqrt(np.maximum(1 - across**2, 0)) * np.where(upper, -1, 1)  # 0 in the corners
    depth = np.arange(1, RINGS + 1)[:, None] / RINGS
    rings = np.empty((RINGS, count, 3))
    rings[..., 0] = line[:, 0] + CAVITY_BULGE * depth * across * (high - low) / 2
    rings[..., 1] = line[:, 1] + width * CAVITY_HEIGHT * height * np.sin(np.pi / 2 * np.minimum(2 * depth, 1))
    rings[..., 2] = line[:, 2] + width * CAVITY_DEPTH * depth
    anchors = np.zeros((RINGS * count + 1, total))
    anchors[np.arange(RINGS * count), np.tile(edge, RINGS)] = 1
    anchors[-1, edge] = 1 / count
    deep = np.append(np.repeat(depth, count), 1.0)

    numbers = np.concatenate((edge, total + np.arange(RINGS * count))).reshape(RINGS + 1, count)
    throat = total + RINGS * count
    following = np.roll(numbers, -1, 1)
    a, b, c, d = (part.ravel() for part in (numbers[:-1], following[:-1], numbers[1:], following[1:]))
    last = np.stack((following[-1], numbers[-1], np.full(count, throat)), 1)
    faces = np.concatenate((np.stack((b, a, c), 1), np.stack((b, c, d), 1), last))
    chart = np.full(total + RINGS * count + 1, -1)
    chart[numbers.ravel()], chart[throat] = np.arange(numbers.size), numbers.size
    radius, angle = 1 - 0.8 * np.linspace(0, 1, RINGS + 1)[:, None], np.arange(count) / count * 2 * np.pi
    uvs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), -1).reshape(-1, 2)
    return Patch(
        "mouth_interior",
        np.concatenate((rings.reshape(-1, 3), rings[-1].mean(0, keepdims=True))),
        anchors,
        (1 - deep) ** 2,
        np.append(np.tile(0.5 + 0.5 * height, RINGS), 0.5),
        deep,
        faces,
        np.append(uvs, [[0.0, 0.0]], axis=0),
        chart[faces],
    )
