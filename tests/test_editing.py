"""What an edit does to the avatar before it is fitted, on a toy whose pictures are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_body import ToyBody, toy_intrinsics, toy_parameters

from portraitgen import editing, pipeline, reconstruction
from portraitgen.editing import EditingConfig, recolor
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.fitting import Fitted
from portraitgen.frames import TrainingFrames
from portraitgen.initialization import build_avatar, gather_colors, make_views
from portraitgen.mesh import interpolate, rasterize_mesh
from portraitgen.portrait import Portrait
from portraitgen.poses import PosedMesh, Poses
from portraitgen.renderer import NeuralRenderer

SIZE, FRAMES = 96, 4
RED, BLUE, GREEN, YELLOW = ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.1, 0.7, 0.2), (0.9, 0.8, 0.1))


def striped(uv: torch.Tensor, first: tuple[float, ...], second: tuple[float, ...]) -> torch.Tensor:
    """Colours ``[..., 3]`` of texture coordinates ``[..., 2]``: stripes all around the body."""
    stripe = ((uv[..., 1:] * 6).long() % 2).bool()
    return torch.where(stripe, uv.new_tensor(first), uv.new_tensor(second))


@pytest.fixture(scope="module")
def toy() -> tuple[Fitted, TrainingFrames]:
    """A body striped red and blue all around, and pictures of its front in which it is striped green and yellow."""
    body, K = ToyBody(), toy_intrinsics(SIZE)
    vertices = body.vertices(toy_parameters(FRAMES))
    triangles, weights, _ = rasterize_mesh(vertices, body.faces, K, SIZE, SIZE)
    uv = interpolate(body.uvs[body.face_uvs], triangles, weights)
    alphas = ((triangles >= 0) * 255).byte()[:, None]
    pictures = (striped(uv, GREEN, YELLOW).permute(0, 3, 1, 2) * 255).byte()
    everywhere = torch.ones(FRAMES, SIZE, SIZE, dtype=torch.bool)
    data = TrainingFrames(torch.arange(FRAMES), pictures, alphas, K, torch.full((FRAMES, 2), SIZE / 2), everywhere)
    mesh = PosedMesh(vertices, torch.zeros_like(vertices))
    avatar = build_avatar(body, make_views(mesh, body, data, torch.ones(FRAMES, 3)), channels=4, texel_pixels=2.0)
    with torch.no_grad():
        avatar.features[:, :3] = striped(avatar.uvs, RED, BLUE)
    return Fitted(body, avatar, NeuralRenderer(4, 8), Poses.start(body, toy_parameters(FRAMES))), data


@pytest.mark.parametrize(("asked", "used"), [(20, 20), (None, editing.PRESETS["standard"].key_frames)])
def test_the_number_of_key_frames_may_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, used: int
) -> None:
    tracking = SimpleNamespace(K=torch.eye(3))
    seen = []

    def edit_avatar(
        portrait: object, fitted: object, K: object, editor: object, config: EditingConfig, *_: object
    ) -> None:
        seen.append(config.key_frames)
        raise InputError("Enough.")

    portrait = SimpleNamespace(require=lambda stage: None, tracking=lambda: tracking)
    monkeypatch.setattr(Portrait, "load", lambda folder: portrait)
    monkeypatch.setattr(reconstruction, "load_fitted", lambda *_: None)
    monkeypatch.setattr(editing, "edit_avatar", edit_avatar)
    request = EditRequest("text", "bronze", key_frames=asked)
    with pytest.raises(InputError, match="Enough"):
        list(pipeline.edit(tmp_path, tmp_path / "out.mp4", request=request, preset="standard", device="cpu"))
    assert seen == [used]


def test_what_no_key_frame_shows_changes_as_what_looked_like_it(toy: tuple[Fitted, TrainingFrames]) -> None:
    fitted, data = toy
    avatar = fitted.avatar
    views = make_views(fitted.mesh(data.frames), fitted.body, data, torch.ones(FRAMES, 3))
    hidden = ~gather_colors(avatar, views)[1]
    assert hidden.sum() > 100
    recolor(fitted, data, torch.zeros(FRAMES, SIZE, SIZE, dtype=torch.bool))
    error = (avatar.features[:, :3] - striped(avatar.uvs, GREEN, YELLOW)).abs().amax(1)
    assert (error[hidden] < 0.3).float().mean() > 0.95, "0.7 from one colour to the other"
