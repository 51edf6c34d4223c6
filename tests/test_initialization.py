"""The avatar before its first step, on a toy whose pictures are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from toy_body import ToyBody, toy_intrinsics, toy_parameters

from portraitgen.body import LABELS, labelled
from portraitgen.fitting import Fitted
from portraitgen.frames import TrainingFrames
from portraitgen.initialization import Views, build_avatar, gather_colors, make_views, project
from portraitgen.losses import psnr
from portraitgen.mesh import interpolate, rasterize_mesh
from portraitgen.poses import PosedMesh, Poses
from portraitgen.renderer import NeuralRenderer
from portraitgen.unseen import color_unseen

SIZE, FRAMES = 96, 4


def painted(body: ToyBody, vertices: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures ``[M, 3, S, S]`` in [0, 1] and masks ``[M, S, S]`` of the toy with colours by its UVs."""
    triangles, weights, _ = rasterize_mesh(vertices, body.faces, K, SIZE, SIZE)
    uv = interpolate(body.uvs[body.face_uvs], triangles, weights)
    image = torch.stack([uv[..., 0], uv[..., 1], 0.5 + 0.4 * (12 * uv[..., 0]).sin()], 1)
    return image, (triangles >= 0).float()


def filmed(body: ToyBody, vertices: torch.Tensor) -> TrainingFrames:
    """Frames that show the toy as it is posed."""
    K = toy_intrinsics(SIZE)
    image, mask = painted(body, vertices, K)
    return TrainingFrames(
        torch.arange(len(vertices)),
        (image * 255).byte(),
        (mask * 255).byte()[:, None],
        K,
        torch.full((len(vertices), 2), SIZE / 2),
        torch.ones(len(vertices), SIZE, SIZE, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def scene() -> tuple[ToyBody, TrainingFrames, PosedMesh]:
    body = ToyBody()
    vertices = body.vertices(toy_parameters(FRAMES))
    return body, filmed(body, vertices), PosedMesh(vertices, torch.zeros_like(vertices))


def rendered(body: ToyBody, avatar, data: TrainingFrames) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    fitted = Fitted(body, avatar, NeuralRenderer(4, 8), Poses.start(body, toy_parameters(FRAMES)))
    with torch.no_grad():
        result = fitted.render(data.frames, data.K.expand(FRAMES, 3, 3), SIZE, SIZE)
    return result.over(torch.ones(3, 1, 1)), result.alpha


def test_step_0_already_shows_the_pictures(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    body, data, mesh = scene
    avatar = build_avatar(body, make_views(mesh, body, data, torch.ones(len(data), 3)), channels=4, texel_pixels=2.0)
    batch = data.whole(torch.arange(FRAMES), 1)
    picture, alpha = rendered(body, avatar, data)
    inner = torch.nn.functional.avg_pool2d(batch.alpha, 9, 1, 4) > 0.999
    assert psnr(picture * inner, batch.image * inner) > 33, "inside the person"
    assert (alpha - batch.alpha).abs().mean() < 0.08, "discs reach a little beyond the silhouette until they are fitted"
    assert not avatar.lifted.any(), "the mesh covers everything here"


def test_pixels_outside_the_mesh_are_lifted_and_follow_the_body(
    scene: tuple[ToyBody, TrainingFrames, PosedMesh],
) -> None:
    body, data, mesh = scene
    wide = torch.nn.functional.max_pool2d(data.alphas.float(), 15, 1, 7)
    hair = (wide > 0) & (data.alphas == 0)
    images = torch.where(hair, torch.tensor([200, 20, 20]).view(1, 3, 1, 1), data.images.long()).byte()
    haired = dataclasses.replace(data, images=images, alphas=wide.byte())
    avatar = build_avatar(
        body, make_views(mesh, body, haired, torch.ones(len(haired), 3)), channels=4, texel_pixels=2.0
    )
    lifted = avatar.lifted
    assert lifted.sum() > 200
    means = avatar(mesh).means
    for frame in range(FRAMES):
        xy, _ = project(means[frame, lifted], data.K)
        column, row = xy.long().clamp(0, SIZE - 1).T
        assert (wide[frame, 0, row, column] > 0).float().mean() > 0.8
    _, alpha = rendered(body, avatar, data)
    ring = hair.float()
    assert (alpha * ring).sum() / ring.sum() > 0.6
    red = avatar.features[lifted, :3].mean(0)
    assert red[0] > 0.6
    assert red[1] < 0.3


def test_clothes_beside_a_face_move_with_the_body(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    body, data, mesh = scene
    wide = torch.nn.functional.max_pool2d(data.alphas.float(), 15, 1, 7).byte()
    views = make_views(mesh, body, dataclasses.replace(data, alphas=wide), torch.ones(len(data), 3))
    height = mesh.vertices[0, body.faces][..., 1].mean(1)
    torso = height > mesh.vertices[0, ..., 1].mean()
    head = torch.where(height < height.quantile(0.3), LABELS.index("face"), LABELS.index("neck"))
    labels = torch.where(torso, LABELS.index("torso"), head)
    around = (wide > 0)[:, 0] & (data.alphas == 0)[:, 0]
    for clothes, only in ((torch.zeros_like(around), False), (around, True)):
        avatar = build_avatar(
            body, dataclasses.replace(views, labels=labels, clothes=clothes), channels=4, texel_pixels=2.0
        )
        assert avatar.lifted.sum() > 200
        assert torso[avatar.texel_faces[avatar.lifted]].all() == only
        means = avatar(mesh).means[0, avatar.lifted].detach()
        column, row = project(means, data.K)[0].long().clamp(0, SIZE - 1).T
        assert (wide[0, 0, row, column] > 0).float().mean() > 0.8, "where they are seen all the same"


def test_hair_is_a_layer_of_its_own_before_what_it_falls_over(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    """What is below takes the colour of what is beside it, so that a turned shoulder has no patch of hair."""
    body, data, mesh = scene
    place = data.images[:, :2].float() / 255  # the UVs are painted there
    strand = (place - place[:1, :, SIZE // 2, SIZE // 2].view(1, 2, 1, 1)).abs().amax(1) < 0.08
    hair = torch.nn.functional.max_pool2d(strand.float(), 5, 1, 2) > 0
    red, grey = torch.tensor([200, 20, 20]), torch.tensor([128, 128, 128])
    images = torch.where(strand[:, None], red.view(3, 1, 1), grey.view(3, 1, 1)).byte()
    views = make_views(mesh, body, data.replaced(images), torch.ones(FRAMES, 3), hair)
    views = dataclasses.replace(views, labels=torch.full_like(views.labels, LABELS.index("torso")))
    avatar = build_avatar(body, views, channels=4, texel_pixels=2.0)
    assert avatar.lifted.sum() > 80
    red_lifted, green_lifted, _ = avatar.features[avatar.lifted, :3].median(0).values
    assert red_lifted - green_lifted > 0.65, "it moves with the body below it"
    below = avatar.features[~avatar.lifted, :3]
    torch.testing.assert_close(below, torch.full_like(below, 128 / 255), atol=0.02, rtol=0)
    picture, _ = rendered(body, avatar, data)
    inner = torch.nn.functional.avg_pool2d(strand[:, None].float(), 9, 1, 4) > 0.999
    assert (picture[:, :1] - picture[:, 1:2])[inner].mean() > 0.6, "and the hair covers it"


@pytest.mark.parametrize(
    ("label", "hair_columns", "expected"),
    [
        ("scalp", SIZE // 2, "red"),  # hair on the left half only: the back of the head is hair as well
        ("torso", 0, "blue"),  # the back as the front before it, not as the nearer sides
    ],
)
def test_what_no_frame_shows_takes_the_colours_that_belong_there(
    scene: tuple[ToyBody, TrainingFrames, PosedMesh], label: str, hair_columns: int, expected: str
) -> None:
    body, data, mesh = scene
    column = torch.arange(SIZE)
    hair = (column < hair_columns).expand(FRAMES, SIZE, SIZE)
    red = hair if hair_columns else ((column - SIZE / 2).abs() > SIZE / 6).expand(FRAMES, SIZE, SIZE)
    colours = torch.tensor([[20, 20, 200], [200, 20, 20]])
    images = colours[red.long()].permute(0, 3, 1, 2).byte()
    views = make_views(mesh, body, data.replaced(images), torch.ones(FRAMES, 3), hair)
    views = dataclasses.replace(views, labels=torch.full_like(views.labels, LABELS.index(label)))
    avatar = build_avatar(body, views, channels=4, texel_pixels=2.0)
    means = avatar(mesh[:1]).means[0]
    back = (means[:, 2] > 0.57) & (means[:, 0].abs() < 0.02) & ~avatar.lifted
    assert back.sum() > 20
    found = avatar.features[back, :3].mean(0)
    assert found[0 if expected == "red" else 2] > 0.7
    assert found[2 if expected == "red" else 0] < 0.2


@pytest.mark.parametrize(("label", "dark"), [("mouth_interior", True), ("tongue", True), ("teeth", False)])
def test_a_mouth_that_no_frame_opens_is_dark_inside(label: str, dark: bool) -> None:
    generator = torch.manual_seed(0)
    skin = torch.rand(200, 3, generator=generator) * torch.tensor([0.06, 0.03, 0.0])
    points = torch.cat([skin, *(skin + torch.tensor([0.0, 0.0, depth]) for depth in (0.0005, 0.02))])
    seen = torch.arange(len(points)) < len(skin)
    labels = torch.where(seen, LABELS.index("lips"), LABELS.index(label))
    rose = torch.tensor([0.8, 0.5, 0.4])
    colors = torch.where(seen[:, None], rose, torch.zeros(3))
    nothing = torch.zeros_like(seen)
    color_unseen(colors, seen, seen.float(), points, labels, nothing, nothing)
    torch.testing.assert_close(colors[:400], rose.expand(400, 3), atol=0.02, rtol=0)
    torch.testing.assert_close(colors[400:], (0.3 * rose if dark else rose).expand(200, 3))


@pytest.mark.parametrize(
    ("yaw", "hidden_share", "expected"),
    [
        (0.0, 0.0, (False, False)),
        (0.0, 1.0, (True, False)),
        (0.0, 0.5, (False, False)),
        (-0.9, 0.8, (False, True)),  # the right ear is out of sight: what shows of the left one tells
        (-0.9, 0.2, (False, False)),
    ],
)
def test_ears_within_hair_are_left_out(yaw: float, hidden_share: float, expected: tuple[bool, bool]) -> None:
    body = ToyBody()
    x = body.template[body.faces].mean(1)[:, 0]
    ears = tuple(labelled(body.face_labels, "ears") & side for side in (x < 0, x > 0))
    parameters = toy_parameters(1)
    parameters.global_rotation[:, 1] = yaw
    vertices = body.vertices(parameters)
    triangles, _, _ = rasterize_mesh(vertices, body.faces, toy_intrinsics(SIZE), SIZE, SIZE)
    shown = (triangles >= 0) & ears[0][triangles.long()]
    rows = shown[0].nonzero()[:, 0]
    hair = shown & (torch.arange(SIZE)[:, None] < rows.float().quantile(hidden_share) + float(hidden_share == 1))
    mesh = PosedMesh(vertices, torch.zeros_like(vertices))
    views = make_views(mesh, body, filmed(body, vertices), torch.ones(1, 3), hair)
    assert tuple(bool(views.within_hair[ear].all()) for ear in ears) == expected
    assert tuple(bool(views.within_hair[ear].any()) for ear in ears) == expected
    avatar = build_avatar(body, views, channels=4, texel_pixels=2.0)
    assert not views.within_hair[avatar.texel_faces[~avatar.lifted]].any()


@pytest.mark.parametrize("yaw", [-1.2, 0.8, 2.5])
def test_nothing_shines_through_from_where_the_clip_never_looks(
    scene: tuple[ToyBody, TrainingFrames, PosedMesh], yaw: float
) -> None:
    body, data, mesh = scene
    avatar = build_avatar(body, make_views(mesh, body, data, torch.ones(len(data), 3)), channels=4, texel_pixels=2.0)
    turned = toy_parameters(FRAMES)
    turned.global_rotation[:, 1] = yaw
    fitted = Fitted(body, avatar, NeuralRenderer(4, 8), Poses.start(body, turned))
    with torch.no_grad():
        alpha = fitted.render(data.frames, data.K.expand(FRAMES, 3, 3), SIZE, SIZE).alpha
    triangles, _, _ = rasterize_mesh(fitted.mesh(data.frames).vertices, body.faces, data.K, SIZE, SIZE)
    inner = torch.nn.functional.avg_pool2d((triangles >= 0).float()[:, None], 5, 1, 2) > 0.999
    assert alpha[inner].min() > 0.97


def test_hidden_gaussians_take_a_seen_neighbours_colour(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    body, data, mesh = scene
    flat = data.replaced(torch.full_like(data.images, 128))
    views = make_views(mesh, body, flat, torch.ones(len(flat), 3))
    avatar = build_avatar(body, views, channels=4, texel_pixels=2.0)
    colors, seen, _ = gather_colors(avatar, views)
    assert not seen.all()
    torch.testing.assert_close(colors, torch.full_like(colors, 128 / 255), atol=0.01, rtol=0)


def test_what_lies_beyond_the_clips_frame_is_guessed(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    """It may come into the frame in other pictures, and has the colours of what is beside it until then."""
    body, data, mesh = scene
    cut = 2 * SIZE // 5
    images, inside = torch.full_like(data.images, 128), data.inside.clone()
    images[..., : cut - 1], inside[..., :cut] = 255, False
    ended = dataclasses.replace(data, images=images, inside=inside)
    avatar = build_avatar(body, make_views(mesh, body, ended, torch.ones(len(data), 3)), channels=4, texel_pixels=2.0)
    torch.testing.assert_close(avatar.features[:, :3], torch.full((len(avatar), 3), 128 / 255), atol=0.01, rtol=0)
    _, alpha = rendered(body, avatar, data)
    beyond = torch.nn.functional.avg_pool2d(data.alphas.float() / 255, 7, 1, 3)[..., : cut - 2] > 0.999
    assert alpha[..., : cut - 2][beyond].min() > 0.9


def test_a_view_without_the_body_changes_nothing(scene: tuple[ToyBody, TrainingFrames, PosedMesh]) -> None:
    body, data, mesh = scene
    away = torch.zeros_like(mesh.displacement)
    away[0, :, 0] += 5
    views = make_views(PosedMesh(mesh.skinned, away), body, data, torch.ones(len(data), 3))
    assert isinstance(views, Views)
    avatar = build_avatar(body, views, channels=4, texel_pixels=2.0)
    assert all(torch.isfinite(p).all() for p in avatar.parameters())
