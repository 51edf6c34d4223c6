"""Derives the arrays of `SmplxBody` from a person's own `SMPLX_NEUTRAL.npz`: reading, cutting, labels, UVs.

The file is never unpickled: only the numeric arrays that are needed are read, and each is checked. What SMPL-X's other
users take from extra tables (lips, eyes, ears, the face) is derived from the file's own skinning weights, facial landmarks
and geometry, so nothing of SMPL-X's has to be shipped here.

Geometry is turned from y up, facing +z, into OpenCV axes, facing the camera (-z).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .anny_data import pack_islands
from .body import LABELS, Bones
from .errors import InputError
from .smplx_file import SMPLX, SMPLX_SITE
from .smplx_mouth import add_mouth

SHAPE_COUNT, EXPRESSION_COUNT = 100, 50
VERTICES, FACES, JOINTS = 10475, 20908, 55
TO_CAMERA = np.array([1.0, -1.0, -1.0])
# Expected shapes; None is any length.
KEYS: dict[str, tuple[int | None, ...]] = {
    "v_template": (VERTICES, 3),
    "f": (FACES, 3),
    "vt": (None, 2),
    "ft": (FACES, 3),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
    "J_regressor": (JOINTS, VERTICES),
    "shapedirs": (VERTICES, 3, None),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
}
# shapedirs' length: where the expression starts. Version 1.0 of the file has ten components of each.
SHAPES = {400: 300, 20: 10}
HAND = (0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)  # parents of a hand's joints, counted from its wrist = 0
PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *(24 + parent if parent else 20 for parent in HAND),
    *(39 + parent if parent else 21 for parent in HAND),
)

# bone: (SMPL-X joint that it pivots about, SMPL-X joint whose skin it carries). Joints that are not carried by a bone
# follow their nearest ancestor that is. The root is the chest, so the spine's bones turn about the joint above them.
FOLLOWED = {
    "chest": (9, 9),
    "spine_middle": (9, 6),
    "spine_lower": (6, 3),
    "hips": (3, 0),
    "neck": (12, 12),
    "head": (15, 15),
    "jaw": (22, 22),
    "clavicle_left": (13, 13),
    "upper_arm_left": (16, 16),
    "clavicle_right": (14, 14),
    "upper_arm_right": (17, 17),
    "elbow_left": (18, 18),
    "elbow_right": (19, 19),
    "eye_left": (23, 23),
    "eye_right": (24, 24),
}
BONES: Bones = {
    "chest": (None, None, 0.0),
    "spine_middle": ("chest", "spine", 1 / 3),
    "spine_lower": ("spine_middle", "spine", 1 / 3),
    "hips": ("spine_lower", "spine", 1 / 3),
    "neck": ("chest", "neck", 1.0),
    "head": ("neck", "head", 1.0),
    "jaw": ("head", "jaw", 1.0),
    "clavicle_left": ("chest", "clavicle_left", 1.0),
    "upper_arm_left": ("clavicle_left", "upper_arm_left", 1.0),
    "clavicle_right": ("chest", "clavicle_right", 1.0),
    "upper_arm_right": ("clavicle_right", "upper_arm_right", 1.0),
    "elbow_left": ("upper_arm_left", None, 0.0),
    "elbow_right": ("upper_arm_right", None, 0.0),
    "eye_left": ("head", "eye_left", 1.0),
    "eye_right": ("head", "eye_right", 1.0),
}
REVERSED = ("spine_middle", "spine_lower", "hips")
CUT_JOINTS = (1, 2, 4, 5, 7, 8, 10, 11, *range(18, 22), *range(25, JOINTS))  # legs, forearms and hands
HIP_LINE = 0.06  # metres above the pelvis
EAR_RINGS = 3  # of faces between where an ear sticks out and where it grows out of the head
# The 51 landmarks in the file are iBUG's points 18 to 68.
BROWS, NOSE_BASE, EYE_CORNERS, OUTER_LIPS, INNER_LIPS = slice(0, 10), 16, [19, 28], slice(31, 43), slice(43, 51)


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays named in `KEYS`, in double precision or as integers. Raises InputError where they are not SMPL-X's."""
    again = f"Download {SMPLX} again from {SMPLX_SITE}."
    arrays = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path} holds a single array, not the SMPL-X model. {again}")
        with loaded as file:
            for key, shape in KEYS.items():
                if key not in file.files:
                    raise InputError(f"{path} is not the SMPL-X model: {key} is missing. {again}")
                arrays[key] = _checked(path, key, file[key], shape, again)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, PermissionError):
            raise InputError(f"{path} cannot be read. Change its permissions.") from error
        raise InputError(f"{path} is damaged or not an npz file of plain arrays. {again}") from error
    if arrays["shapedirs"].shape[-1] not in SHAPES:
        count = arrays["shapedirs"].shape[-1]
        raise InputError(f"{path} is not the SMPL-X model: shapedirs has {count} components, not 400 or 20. {again}")
    for key, limit in (("f", VERTICES), ("ft", len(arrays["vt"])), ("lmk_faces_idx", FACES)):
        if arrays[key].min() < 0 or arrays[key].max() >= limit:
            raise InputError(f"{path} is damaged: {key} points outside of the mesh. {again}")
    if tuple(arrays["kintree_table"][0, 1:]) != PARENTS[1:]:
        raise InputError(f"{path} is not the SMPL-X model: its joints hang together in another way. {again}")
    return arrays


def _checked(path: Path, key: str, array: np.ndarray, shape: tuple[int | None, ...], again: str) -> np.ndarray:
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        found, wanted = (" × ".join("any" if n is None else str(n) for n in s) for s in (array.shape, shape))
        raise InputError(f"{path} is not the SMPL-X model: {key} has the shape {found or '1'}, not {wanted}. {again}")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} is not the SMPL-X model: {key} holds no numbers. {again}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{path} is damaged: {key} holds numbers that are not finite. {again}")
    whole = key in ("f", "ft", "kintree_table", "lmk_faces_idx")
    return array.astype(np.int64) if whole else array.astype(np.float64)


def build_arrays(file: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """What `SkinnedBody` takes, from what `read_file` gave."""
    points = file["v_template"] * TO_CAMERA
    start = SHAPES[file["shapedirs"].shape[-1]]
    directions = file["shapedirs"].transpose(2, 0, 1) * TO_CAMERA
    shapes, expressions = directions[:start], directions[start : start + EXPRESSION_COUNT]
    pivots = [pivot for pivot, _ in FOLLOWED.values()]
    regressor = file["J_regressor"][pivots]
    landmarks = (points[file["f"][file["lmk_faces_idx"]]] * file["lmk_bary_coords"][..., None]).sum(1)

    pelvis = file["J_regressor"][0] @ points
    limbs = file["weights"][:, CUT_JOINTS].sum(1) > 0.5
    keep = ~(limbs | (points[:, 1] > pelvis[1] - HIP_LINE))[file["f"]].any(1)
    kept = np.unique(file["f"][keep])
    faces = np.searchsorted(kept, file["f"][keep])
    weights = _bone_weights(file["weights"])[kept]
    labels = label_faces(points[kept], faces, weights, landmarks)
    components = _components(shapes[:, kept], faces, labels)
    joints = {bone: FOLLOWED[bone][0] for bone, (_, joint, _) in BONES.items() if joint is not None}
    parts = {
        "template": points[kept],
        "shape_basis": np.tensordot(components, shapes[:, kept], 1),
        "expression_basis": expressions[:, kept],
        "pose_basis": pose_basis(file["posedirs"], kept, joints, REVERSED),
        "weights": weights,
        "faces": faces,
        "face_labels": labels,
        **_split_uvs(file["vt"], file["ft"][keep], labels),
    }
    parts = add_mouth(parts, landmarks[INNER_LIPS], list(FOLLOWED))
    corners = parts["template"][parts["faces"]]
    parts["uvs"] = pack_islands(parts["uvs"], parts["face_uvs"], corners, parts["face_labels"])
    heads = {
        "bone_heads": regressor @ points,
        "bone_heads_basis": np.tensordot(components, regressor @ shapes, 1),
        "bone_heads_expression": regressor @ expressions,
        "smplx_vertices": kept,
        "smplx_betas": components,  # [P, 300]: the betas of SMPL-X for each of ours
    }

    def tensor(array: np.ndarray) -> Tensor:
        floating = np.issubdtype(array.dtype, np.floating)
        return torch.from_numpy(np.ascontiguousarray(array, np.float32 if floating else np.int64))

    return {name: tensor(array) for name, array in (parts | heads).items()}


def _bone_weights(weights: np.ndarray) -> np.ndarray:
    """Skinning weights [V, 55] on SMPL-X's joints as weights [V, len(BONES)]."""
    carried = {joint: index for index, (_, joint) in enumerate(FOLLOWED.values())}
    out = np.zeros((len(weights), len(carried)))
    for joint in range(JOINTS):
        followed = joint
        while followed not in carried:
            followed = PARENTS[followed]
        out[:, carried[followed]] += weights[:, joint]
    return out / out.sum(1, keepdims=True)


def pose_basis(
    posedirs: np.ndarray, kept: np.ndarray, joints: Mapping[str, int], reversed_bones: Collection[str]
) -> np.ndarray:
    """What each entry of each jointed bone's rotation matrix adds to the vertices, [9 * bones, V, 3].

    joints: the SMPL-X joint that each bone turns about; reversed_bones: those that turn against what is their parent in SMPL-X.
    """
    by_joint = posedirs[kept].reshape(len(kept), 3, JOINTS - 1, 3, 3)
    rows = []
    for bone, joint in joints.items():
        block = by_joint[:, :, joint - 1]  # the joint between a bone and its parent
        if bone in reversed_bones:  # there SMPL-X's rotation is the inverse of ours
            block = block.transpose(0, 1, 3, 2)
        rows.append(np.einsum("vcab,c,a,b->abvc", block, TO_CAMERA, TO_CAMERA, TO_CAMERA).reshape(9, -1, 3))
    return np.concatenate(rows)


def _components(shapes: np.ndarray, faces: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SMPL-X betas [P, S] of the SHAPE_COUNT directions that change a portrait most, of unit variance as SMPL-X's own.

    SMPL-X's components are sorted by how much they change the whole body: a face takes hundreds. shapes: [S, V, 3].
    """
    importance = np.full(shapes.shape[1], 0.15)
    importance[faces[np.isin(labels, [LABELS.index(name) for name in ("face", "lips", "ears")])]] = 1.0
    rows = (shapes * importance[:, None]).reshape(len(shapes), -1)
    vectors = np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :SHAPE_COUNT].T
    return vectors * np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])[:, None]


def label_faces(points: np.ndarray, faces: np.ndarray, weights: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A label per face [F], as index into LABELS, from weights [V, bones] and the file's landmarks [51, 3]."""
    middle = points[faces].mean(1)
    bone = {name: weights[faces].mean(1)[:, index] for index, name in enumerate(BONES)}
    x, y, z = middle.T
    brow, nose = landmarks[BROWS, 1].mean(), landmarks[NOSE_BASE, 1]
    corners = landmarks[EYE_CORNERS]
    unit = np.linalg.norm(corners[0] - corners[1])  # a bit more than 9 cm
    third, sideways = nose - brow, x - corners[:, 0].mean()
    head = bone["head"] + bone["jaw"] > 0.5
    label = np.full(len(faces), LABELS.index("torso"))

    def assign(name: str, mask: np.ndarray) -> None:
        label[mask] = LABELS.index(name)

    assign("arms", sum(bone[f"{part}_{side}"] for part in ("upper_arm", "elbow") for side in ("left", "right")) > 0.5)
    assign("neck", bone["neck"] + bone["head"] + bone["jaw"] > 0.4)
    # Ears stick out of a skull that is widest above them.
    above = head & (y < brow - 0.3 * third)
    width = np.abs(sideways[above]).max() if above.any() else np.inf
    beside = head & (z > corners[:, 2].mean() + 0.4 * unit) & (y > brow - 0.4 * third)
    beside &= y < landmarks[OUTER_LIPS, 1].mean()
    ears = beside & (np.abs(sideways) > width + 0.03 * unit)
    for _ in range(EAR_RINGS):
        ears = beside & np.isin(faces, faces[ears]).any(1)
    lobes = y[ears].max() if ears.any() else nose
    assign("scalp", head & (y < lobes))
    # The hairline lies a third of the face above the brows and comes down to them at the temples.
    hairline = brow - third * (1 - np.minimum(np.abs(sideways) / (0.85 * unit), 1) ** 4)
    assign("face", head & (z < corners[:, 2].mean() + 0.55 * unit) & (y > hairline))
    assign("ears", ears)
    lips = head & _inside(middle[:, :2], landmarks[OUTER_LIPS, :2]) & (z < landmarks[OUTER_LIPS, 2].max() + 0.3 * unit)
    assign("lips", lips)
    inner = landmarks[INNER_LIPS]
    nearest = np.abs(x[:, None] - inner[:, 0]).argmin(1)
    assign("mouth_interior", lips & (z > inner[nearest, 2] + 0.04 * unit))
    for side in ("left", "right"):
        assign(f"eye_{side}", bone[f"eye_{side}"] > 0.5)
    return label


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Mask [N] of the points [N, 2] inside a polygon [K, 2]: those from which a ray to the right crosses it oddly often."""
    crossings = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        between = (points[:, 1] < y0) != (points[:, 1] < y1)
        slope = (x1 - x0) / (y1 - y0) if y0 != y1 else 0.0
        crossings += between & (points[:, 0] < x0 + (points[:, 1] - y0) * slope)
    return crossings % 2 == 1


def _split_uvs(uvs: np.ndarray, face_uvs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The chart with seams between head, body and each eye, so that each gets texels of its own size and nothing overlaps."""
    groups = {"torso": 1, "arms": 1, "eye_left": 2, "eye_right": 3}
    group = np.array([groups.get(name, 0) for name in LABELS])[labels]
    used, split = np.unique(face_uvs + len(uvs) * group[:, None], return_inverse=True)
    return {"uvs": uvs[used % len(uvs)], "face_uvs": split.reshape(-1, 3)}
