"""The SMPL-X body on a made-up file of the real one's shapes: against the real `smplx` package, and all the way to an avatar."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from quick import quicken
from scipy.spatial import cKDTree
from test_tracking import QUICK, Crop, degrees_apart, observe
from torch import Tensor

from portraitgen import pipeline, reconstruction
from portraitgen import tracking as tracking_module
from portraitgen.body import LABELS, BodyParameters, axis_angle_to_matrix, load_body, matrix_to_axis_angle
from portraitgen.correspondences import correspondences
from portraitgen.evidence import GAPS
from portraitgen.mesh import rasterize_mesh
from portraitgen.portrait import Portrait
from portraitgen.smplx_body import SmplxBody, load_smplx
from portraitgen.smplx_data import CUT_JOINTS, EXPRESSION_COUNT, FOLLOWED, SHAPE_COUNT, build_arrays, read_file
from portraitgen.smplx_mouth import RINGS, _inner_edge
from portraitgen.tracking import Tracking, track

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "portrait.mp4"
FILE = "SMPLX_NEUTRAL.npz"
FLIP = torch.tensor((1.0, -1.0, -1.0), dtype=torch.float64)


@pytest.fixture(scope="module")
def arrays(smplx_file: Path) -> dict[str, np.ndarray]:
    return read_file(smplx_file)


@pytest.fixture(scope="module")
def body(smplx_file: Path) -> SmplxBody:
    return load_smplx()


def random_parameters(body: SmplxBody, frame_count: int) -> BodyParameters:
    generator = torch.Generator().manual_seed(0)
    params = BodyParameters.zeros(body, frame_count)
    sizes = {"betas": 1.0, "rotations": 0.3, "expression": 1.0, "global_rotation": 0.4, "translation": 1.0}
    for name, tensor in params.tensors().items():
        tensor += sizes[name] * torch.randn(tensor.shape, generator=generator)
    return params


def in_double(body: SmplxBody, params: BodyParameters) -> tuple[SmplxBody, BodyParameters]:
    skin = body.skin
    tensors = {f.name: getattr(skin, f.name) for f in dataclasses.fields(skin) if f.name != "skeleton"}
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    names = ("faces", "uvs", "face_uvs", "face_labels", "smplx_vertices", "smplx_betas")
    double = SmplxBody(tensors | {name: getattr(body, name) for name in names}, body.version)
    return double, BodyParameters(*(tensor.double() for tensor in params.tensors().values()))


def smplx_vertices(smplx_file: Path, body: SmplxBody, params: BodyParameters) -> Tensor:
    """What the smplx package makes of the same person, in camera space; double precision throughout."""
    frames = len(params)
    model = smplx.create(
        str(smplx_file),
        "smplx",
        use_pca=False,
        flat_hand_mean=True,
        num_betas=300,
        num_expression_coeffs=EXPRESSION_COUNT,
        batch_size=frames,
        dtype=torch.float64,
    )
    transforms = body.skin.bone_transforms(params)
    names = body.skin.skeleton.bone_names
    world = {
        joint: FLIP[:, None] * transforms[:, names.index(bone), :, :3] * FLIP for bone, (_, joint) in FOLLOWED.items()
    }
    pose = torch.zeros(frames, 55, 3, dtype=torch.float64)
    for joint, rotation in world.items():
        parent = int(model.parents[joint])
        pose[:, joint] = matrix_to_axis_angle(rotation if parent < 0 else world[parent].transpose(1, 2) @ rotation)
    betas = (params.betas @ body.smplx_betas.double()).expand(frames, -1)
    still = {"transl": torch.zeros(frames, 3, dtype=torch.float64)}
    with torch.no_grad():
        pelvis = model(betas=betas, expression=params.expression, **still).joints[:, 0]
        shift = FLIP * transforms[:, names.index("hips"), :, 3]
        out = model(
            betas=betas,
            expression=params.expression,
            global_orient=pose[:, 0],
            body_pose=pose[:, 1:22].flatten(1),
            jaw_pose=pose[:, 22],
            leye_pose=pose[:, 23],
            reye_pose=pose[:, 24],
            transl=shift + (world[0] @ pelvis[..., None])[..., 0] - pelvis,
        )
    return out.vertices[:, body.smplx_vertices] * FLIP


def test_vertices_equal_the_smplx_packages_own(smplx_file: Path, body: SmplxBody) -> None:
    double, params = in_double(body, random_parameters(body, 3))
    expected = smplx_vertices(smplx_file, double, params)
    count = len(body.smplx_vertices)

    def error(vertices: Tensor) -> float:
        return float((vertices[:, :count] - expected).norm(dim=-1).max())

    assert error(double.vertices(params)) < 1e-6
    assert error(body.vertices(random_parameters(body, 3)).double()) < 1e-5
    plain = dataclasses.replace(double.skin, pose_basis=double.skin.pose_basis[:0])
    assert error(plain.vertices(params)) > 1e-3, "the correctives of the pose count"


def test_version_1_0_of_the_file_works_too(smplx_file: Path, arrays: dict[str, np.ndarray]) -> None:
    shapedirs = np.concatenate((arrays["shapedirs"][..., :10], arrays["shapedirs"][..., 300:310]), -1)
    body = SmplxBody(build_arrays(arrays | {"shapedirs": shapedirs}), "test")
    assert (body.shape_count, len(body.expression_names)) == (10, 10)
    assert body.smplx_betas.shape == (10, 10)
    assert body.vertices(BodyParameters.zeros(body, 1)).isfinite().all()


def test_the_mesh_is_cut_and_labelled(body: SmplxBody, arrays: dict[str, np.ndarray]) -> None:
    assert body.vertex_count < 8000
    assert (body.shape_count, len(body.expression_names)) == (SHAPE_COUNT, EXPRESSION_COUNT)
    assert body.faces.max() == body.vertex_count - 1
    assert arrays["weights"][body.smplx_vertices][:, CUT_JOINTS].sum(1).max() <= 0.5
    assert torch.allclose(body.skin.weights.sum(1), torch.ones(body.vertex_count), atol=1e-5)
    assert torch.allclose(body.smplx_betas @ body.smplx_betas.T, torch.eye(SHAPE_COUNT), atol=1e-5)
    names = body.skin.skeleton.bone_names
    for side in ("left", "right"):
        rigid = body.skin.weights[body.faces[body.faces_labelled(f"eye_{side}")], names.index(f"eye_{side}")]
        assert rigid.min() > 0.9
    middle = {name: body.skin.template[body.faces[body.faces_labelled(name)]].mean((0, 1)) for name in LABELS}
    assert middle["scalp"][1] < middle["face"][1] < middle["neck"][1] < middle["torso"][1]
    assert middle["eye_right"][0] < 0 < middle["eye_left"][0]
    assert middle["lips"][2] < middle["teeth"][2] < middle["tongue"][2] < middle["neck"][2]


def test_labels_agree_with_those_of_the_mesh_that_the_file_was_made_of(body: SmplxBody) -> None:
    anny = load_body()
    shift = body.skin.template[body.faces[body.faces_labelled("lips")]].mean((0, 1)) - anny.skin.template[
        anny.faces[anny.faces_labelled("lips")]
    ].mean((0, 1))
    centres = (anny.skin.template + shift)[anny.faces].mean(1)
    nearest = cKDTree(centres.numpy()).query(body.skin.template[body.faces].mean(1).numpy())[1]
    least = {"face": 0.7, "scalp": 0.7, "ears": 0.7, "neck": 0.9, "lips": 0.9, "torso": 0.9, "arms": 0.5}
    for name, share in least.items():
        mine = body.faces_labelled(name)
        assert anny.faces_labelled(name)[nearest][mine].float().mean() > share, name
        assert mine.sum() > 0.6 * anny.faces_labelled(name).sum(), name


def test_uv_islands_do_not_overlap(body: SmplxBody) -> None:
    flat = torch.cat((body.uvs, torch.ones(len(body.uvs), 1)), dim=1)
    K = torch.diag(torch.tensor((512.0, 512.0, 1.0)))
    covered = (rasterize_mesh(flat, body.face_uvs, K, 512, 512)[0] >= 0).sum()
    first, second = (body.uvs[body.face_uvs[:, i]] - body.uvs[body.face_uvs[:, 0]] for i in (1, 2))
    area = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs().sum() / 2
    assert abs(covered / 512**2 - area) < 0.02
    assert area > 0.3
    assert body.uvs.min() >= 0
    assert body.uvs.max() <= 1


def boundary(faces: Tensor) -> set[tuple[int, int]]:
    edges = {tuple(edge) for edge in torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])).tolist()}
    return {(a, b) for a, b in edges if (b, a) not in edges}


def test_the_mouth_has_teeth_tongue_and_a_closed_cavity(body: SmplxBody) -> None:
    lips = body.faces_labelled("lips", "mouth_interior", "face")
    own = {vertex for edge in boundary(body.faces[lips]) for vertex in edge}
    rim = set(body.faces[body.faces_labelled("lips")].flatten().tolist())
    assert not own & rim, "no hole between lips and cavity, and faces around their edges run the same way"
    params = BodyParameters.zeros(body, 3)
    params.rotations[1, body.joint_names.index("jaw"), 0] = 0.2
    params.expression[2] = torch.randn(EXPRESSION_COUNT, generator=torch.Generator().manual_seed(1))
    vertices = body.vertices(params)
    teeth = body.faces[body.faces_labelled("teeth")].unique()
    opened = (vertices[1] - vertices[0])[teeth]
    upper = opened.norm(dim=-1) < 1e-6
    assert upper.sum() == (~upper).sum(), "one row stays on the skull, the other follows the jaw"
    assert opened[~upper, 1].min() > 0.005
    row = vertices[:, teeth[~upper]]
    between = (row[:, :, None] - row[:, None]).norm(dim=-1)
    assert (between[1] - between[0]).abs().max() < 1e-5
    assert (between[2] - between[0]).abs().max() < 1e-3, "an expression moves the jaw's pivot at most"
    shape = BodyParameters.zeros(body, 1)
    shape.betas += torch.randn(SHAPE_COUNT, generator=torch.Generator().manual_seed(2))
    gap = [
        where[0][body.faces[body.faces_labelled("teeth")]].mean((0, 1)) - where[0][sorted(rim)].mean(0)
        for where in (body.vertices(BodyParameters.zeros(body, 1)), body.vertices(shape))
    ]
    assert (gap[0] - gap[1]).norm() < 0.002, "teeth stay behind the lips of every shape"


def test_a_mesh_without_a_hole_keeps_its_mouth(arrays: dict[str, np.ndarray], body: SmplxBody) -> None:
    corners = arrays["f"][arrays["lmk_faces_idx"][43:51]]
    inner = (arrays["v_template"][corners] * arrays["lmk_bary_coords"][43:51, :, None]).sum(1)
    edge = _inner_edge(arrays["v_template"], arrays["f"], inner.mean(0), 0.03)
    assert edge is not None
    fan = np.stack((np.roll(edge, -1)[1:-1], edge[1:-1], np.full(len(edge) - 2, edge[0])), 1)
    closed = arrays["f"].copy()
    closed[-len(fan) :] = fan
    kept = SmplxBody(build_arrays(arrays | {"f": closed}), "test")
    for name in ("teeth", "tongue"):
        assert kept.faces_labelled(name).sum() == body.faces_labelled(name).sum()
    cavity = (RINGS * 2 + 1) * len(edge)
    assert len(kept.faces) == len(body.faces) - cavity + len(fan)


def test_root_is_the_base_of_the_neck_and_the_spine_swings_the_hips(body: SmplxBody) -> None:
    params = BodyParameters.zeros(body, 2)
    params.translation[:] = torch.tensor((0.1, -0.2, 1.5))
    params.rotations[1, body.joint_names.index("spine"), 0] = 0.5
    names = body.skin.skeleton.bone_names
    assert torch.allclose(body.joints(params)[:, names.index("neck")], params.translation, atol=1e-6)
    moved = (body.vertices(params)[1] - body.vertices(params)[0]).norm(dim=-1)
    rigid = body.skin.pose_basis.abs().amax((0, 2)) < 1e-5
    above = body.skin.weights[:, [names.index("head"), names.index("jaw")]].sum(1) > 0.99
    assert moved[above & rigid].max() < 1e-3
    assert moved.max() > 0.05


def test_gradients_reach_every_parameter_and_a_subset_agrees_with_the_whole(body: SmplxBody) -> None:
    params = BodyParameters.zeros(body, 2)
    for tensor in params.tensors().values():
        tensor.requires_grad_()
    body.vertices(params).square().sum().backward()
    for name, tensor in params.tensors().items():
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name
    params, chosen, frames = random_parameters(body, 3), torch.tensor((5, 4000, 6000)), torch.tensor((2, 0))
    part = body.subset(chosen).vertices(params, frames)
    assert torch.allclose(part, body.vertices(params)[frames][:, chosen], atol=1e-5)


def test_correspondences_lie_where_they_should(body: SmplxBody) -> None:
    triangles, barycentrics = correspondences(body)
    assert (triangles >= 0).all()
    labels = body.face_labels[triangles]
    assert (labels[468:473] == LABELS.index("eye_right")).all()
    assert (labels[473:478] == LABELS.index("eye_left")).all()
    assert (labels[[0, 13, 14]] == LABELS.index("lips")).all()
    points = (body.skin.template[body.faces[triangles]] * barycentrics[..., None]).sum(1)
    jaw = body.skin.weights[body.faces[triangles], body.skin.skeleton.bone_names.index("jaw")].mean(1)
    for upper, lower in GAPS[6:]:
        assert jaw[lower] > jaw[upper] + 0.3
    assert points[159, 1] < points[145, 1]
    assert points[1, 2] < points[:468, 2].quantile(0.05)
    again = correspondences(load_smplx())
    assert torch.equal(again[0], triangles)


def test_tracking_recovers_jaw_gaze_and_pose(body: SmplxBody) -> None:
    frames = 24
    truth = BodyParameters.zeros(body, frames)
    time = torch.arange(frames) / 25
    truth.betas += 0.5 * torch.randn(SHAPE_COUNT, generator=torch.Generator().manual_seed(3))
    truth.translation[:] = torch.tensor((0.0, 0.13, 0.9))
    rotation = dict(zip(body.joint_names, truth.rotations.unbind(1), strict=True))  # views
    for side, sign in (("left", 1), ("right", -1)):
        rotation[f"upper_arm_{side}"][:, 2] = sign * 1.1
        rotation[f"eye_{side}"][:, 1] = 0.2 * torch.sin(5 * time)
    for joint in ("neck", "head"):
        rotation[joint][:, 1] = 0.15 * torch.sin(6 * time)
    rotation["jaw"][:, 0] = 0.15 - 0.15 * torch.cos(8 * time)
    truth.expression[:, 5] = torch.sin(4 * time)

    tracking = track(observe(body, truth, Crop(), noise=0.3), Crop(), body, QUICK)
    found = tracking.parameters
    assert isinstance(tracking, Tracking)
    assert tracking.landmark_error.mean() < 0.012
    assert tracking.landmark_error.max() < 0.02
    assert found.expression.abs().max() <= 4
    assert found.expression.min() < -0.1, "expressions are signed"

    def orientation(params: BodyParameters) -> Tensor:
        turns = [
            params.global_rotation,
            *(params.rotations[:, body.joint_names.index(name)] for name in ("neck", "head")),
        ]
        first, second, third = (axis_angle_to_matrix(turn) for turn in turns)
        return first @ second @ third

    assert degrees_apart(orientation(found), orientation(truth)).max() < 5
    for joint, axis, least in (("jaw", 0, 0.95), ("eye_left", 1, 0.9)):
        index = body.joint_names.index(joint)
        pair = torch.stack((found.rotations[:, index, axis], truth.rotations[:, index, axis]))
        assert torch.corrcoef(pair)[0, 1] > least, joint
    assert found.rotations[:, body.joint_names.index("jaw"), 0].min() >= -0.02 - 1e-6


def test_the_trackers_derivatives_are_those_of_its_residuals(body: SmplxBody, monkeypatch: pytest.MonkeyPatch) -> None:
    params = random_parameters(body, 2)
    params.global_rotation[:], params.translation[:] = 0.0, torch.tensor((0.0, 0.13, 0.9))
    fit = tracking_module._Fit(observe(body, params, Crop()), Crop(), body, QUICK)
    monkeypatch.setattr(fit, "_robust", lambda frames, residuals: torch.ones(residuals.shape[:2]))
    frames = torch.arange(2)
    fit.unknowns[:, 6:] = 0.2 * torch.randn(fit.unknowns[:, 6:].shape, generator=torch.Generator().manual_seed(4))
    _, by_frame, _, _ = fit._linearise(frames, shared=False)
    start, step, measured = fit.unknowns.clone(), 2e-3, []
    for column in range(fit.pose_count):
        ends = []
        for sign in (1, -1):
            fit.unknowns = start.clone()
            fit.unknowns[:, column] += sign * step
            ends.append(fit._linearise(frames, shared=False)[0])
        measured.append((ends[0] - ends[1]) / (2 * step))
    expected = torch.stack(measured, -1)
    error = (by_frame[..., : fit.pose_count] - expected).flatten(0, 1).norm(dim=0)
    assert (error < 0.01 * expected.flatten(0, 1).norm(dim=0) + 1.0).all()


def test_a_clip_becomes_an_avatar_on_it(smplx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"steps": 4, "coarse_steps": 2}
    quicken(monkeypatch, reconstruction.PRESETS, few, views=2, frames=4, texel_pixels=5.0)
    list(pipeline.reconstruct(CLIP, tmp_path / "portrait", body="smplx", max_seconds=0.3))
    portrait = Portrait.load(tmp_path / "portrait")
    assert portrait.settings.body == "smplx"
    error = portrait.tracking().landmark_error
    assert error.nanmean() < 0.03
    fitted = reconstruction.load_fitted(portrait, torch.device("cpu"))
    assert isinstance(fitted.body, SmplxBody)
    labels = fitted.body.face_labels[fitted.avatar.texel_faces]
    assert {"face", "lips", "eye_left", "eye_right", "torso"} <= {LABELS[index] for index in labels.unique().tolist()}
