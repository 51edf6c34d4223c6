"""Editing: key frames go through a 2D editor, the avatar is fitted to what comes back (PortraitGen, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .clip import read_gray
from .editors import EditBatch, Editor, EditRequest, load_editor
from .fitting import FitConfig, Fitted, fit
from .frames import TrainingFrames
from .initialization import gather_colors, make_views
from .keyframes import diverse_frames
from .losses import PerceptualLoss
from .mattes import crops_with_alpha, usable_frames
from .matting import decontaminate
from .mesh import rasterize_mesh, vertex_normals
from .portrait import Portrait
from .poses import rest_vertices
from .progress import Progress
from .reconstruction import head_centres, preview, to_uint8
from .regions import soft_regions


@dataclass(frozen=True)
class EditingConfig:
    """How an avatar is edited.

    Attributes:
        key_frames: how many frames go through the 2D editor.
        passes: how often they do; passes after the first start from the current render and matter only to editors that read it.
        batch: key frames per call of the editor.
        fit: the optimisation of each pass.
    """

    key_frames: int
    passes: int
    batch: int
    fit: FitConfig


_EDIT_FIT = FitConfig(
    steps=260, coarse_steps=60, feature_rate=1.5e-2, opacity_rate=1e-2, scale_rate=3e-3, offset_rate=1e-4
)

PRESETS: dict[str, EditingConfig] = {
    "preview": EditingConfig(key_frames=16, passes=2, batch=4, fit=_EDIT_FIT),
    "standard": EditingConfig(
        key_frames=24,
        passes=2,
        batch=4,
        fit=FitConfig(steps=1200, coarse_steps=200, batch=2, perceptual=0.05),
    ),
    "high": EditingConfig(
        key_frames=32,
        passes=2,
        batch=8,
        fit=FitConfig(steps=2400, coarse_steps=300, batch=4, perceptual=0.05),
    ),
}


@dataclass(frozen=True)
class KeyFrames:
    """Key frames with everything an editor may ask for, on the CPU.

    Attributes:
        frames: indices in the clip ``[M]``.
        source: crops with their real background ``[M, S, S, 3]`` uint8.
        alphas: ``[M, S, S]`` uint8.
        labels: region labels ``[M, S, S]`` uint8.
    """

    frames: Tensor
    source: np.ndarray
    alphas: np.ndarray
    labels: np.ndarray


def load_key_frames(portrait: Portrait, frames: Tensor) -> KeyFrames:
    """Read ``frames`` (sorted indices ``[M]``) of the clip with matte and region labels."""
    wanted = set(frames.tolist())
    source, alphas, labels = [], [], []
    streams = zip(crops_with_alpha(portrait), read_gray(portrait.path("regions.mp4")), strict=False)
    for number, ((frame, alpha), label) in enumerate(streams):
        if number in wanted:
            source.append(frame)
            alphas.append(alpha.copy())
            labels.append(label.copy())
        if len(source) == len(wanted):
            break
    return KeyFrames(frames, np.stack(source), np.stack(alphas), np.stack(labels))


@torch.no_grad()
def edit_batch(fitted: Fitted, keys: KeyFrames, index: slice, K: Tensor, strength: float, seed: int) -> EditBatch:
    """What the editor sees of the key frames ``index``: source, current render, matte, regions, and what the tracked body knows."""
    device = K.device
    frames = keys.frames[index].to(device)
    size = keys.source.shape[1]
    source = torch.from_numpy(keys.source[index]).to(device).permute(0, 3, 1, 2).float() / 255
    alpha = torch.from_numpy(keys.alphas[index]).to(device)[:, None].float() / 255
    rendered = fitted.render(frames, K.expand(len(frames), 3, 3), size, size).over(source).clamp(0, 1)
    vertices = fitted.mesh(frames).vertices
    triangles, barycentrics, _ = rasterize_mesh(vertices, fitted.body.faces, K, size, size)
    inside = triangles >= 0
    faces = fitted.body.faces[triangles.clamp_min(0).long()]
    weights = barycentrics[..., None]
    normals = vertex_normals(vertices, fitted.body.faces)
    normals = torch.stack([n[f] for n, f in zip(normals, faces, strict=True)])
    normals = torch.nn.functional.normalize((normals * weights).sum(3), dim=-1) * inside[..., None]
    numbers = triangles.clamp_min(0).long()
    corners = {
        "uv": fitted.body.uvs[fitted.body.face_uvs[numbers]],
        "positions": torch.stack([v[f] for v, f in zip(vertices, faces, strict=True)]),
        "rest": rest_vertices(fitted.body, fitted.poses.tracked)[faces],
    }
    surface = {
        name: torch.where(inside[..., None], (values * weights).sum(3), torch.nan).permute(0, 3, 1, 2)
        for name, values in corners.items()
    }
    parts = torch.where(inside, fitted.body.face_labels[numbers].long(), -1)[:, None]
    return EditBatch(
        source=source,
        rendered=rendered,
        alpha=alpha,
        regions=soft_regions(keys.labels[index], keys.alphas[index]),
        normals=normals.permute(0, 3, 1, 2),
        **surface,
        parts=parts,
        strength=strength,
        seed=seed,
    )


def edit_avatar(
    portrait: Portrait,
    fitted: Fitted,
    K: Tensor,
    editor: Editor,
    config: EditingConfig,
    strength: float,
    seed: int,
) -> Iterator[Progress]:
    """Edit ``fitted`` in place; the portrait on disk stays as it is."""
    torch.manual_seed(seed)
    device = K.device
    chosen = diverse_frames(fitted.poses.tracked, usable_frames(portrait), config.key_frames)
    yield Progress("edit", 0.0, f"{editor.name}: {editor.understood}; {len(chosen)} key frames")
    keys = load_key_frames(portrait, chosen)
    passes = config.passes if editor.reads_render else 1
    perceptual = PerceptualLoss(device) if config.fit.perceptual else None
    for number in range(passes):
        edited: list[np.ndarray] = []
        for start in range(0, len(chosen), config.batch):
            index = slice(start, min(start + config.batch, len(chosen)))
            # Later passes start from a render that is edited already and need less of a push.
            batch = edit_batch(fitted, keys, index, K, strength * (1.0 if number == 0 else 0.6), seed)
            result = to_uint8(editor.edit(batch))
            edited.extend(result)
            done = (number + index.stop / len(chosen)) / passes
            yield Progress("edit", done, f"{editor.name}: key frame {index.stop} of {len(chosen)}", result[0])
        data = _targets(portrait, keys, edited, K)
        if number == 0:
            _recolor(fitted, data)
        every = max(1, config.fit.steps // 6)
        for step, _ in fit(fitted, data, config.fit, seed + number, perceptual=perceptual):
            done = (number + (step + 1) / config.fit.steps) / passes
            picture = preview(fitted, data, len(data) // 2) if step % every == 0 else None
            yield Progress("fitting", done, f"Spreading the edit to every frame, step {step + 1}", picture)


def _targets(portrait: Portrait, keys: KeyFrames, edited: list[np.ndarray], K: Tensor) -> TrainingFrames:
    """The edited key frames as training pictures."""
    images = [
        torch.from_numpy(decontaminate(image, alpha)).permute(2, 0, 1)
        for image, alpha in zip(edited, keys.alphas, strict=True)
    ]
    heads = torch.from_numpy(head_centres(portrait)[keys.frames.numpy()]).float()
    alphas = torch.from_numpy(keys.alphas)[:, None]
    return TrainingFrames(keys.frames.to(K.device), torch.stack(images).to(K.device), alphas.to(K.device), K, heads)


@torch.no_grad()
def _recolor(fitted: Fitted, data: TrainingFrames) -> None:
    """Give the Gaussians the edited pictures' colours at once, so that fitting starts from the edit and not from the clip."""
    colors, seen, _ = gather_colors(fitted.avatar, make_views(fitted.mesh(data.frames), fitted.body.faces, data))
    fitted.avatar.features[:, :3] = torch.where(seen[:, None], colors, fitted.avatar.features[:, :3])
    fitted.renderer.forget()  # its residual belongs to the old look


def background_editors(requests: list[EditRequest], device: torch.device) -> Callable[[np.ndarray], np.ndarray] | None:
    """What the edits ``requests``, one after the other, do to a background without a person: ``[H, W, 3]`` uint8 to the same.

    None if they all leave backgrounds alone.
    """
    chain = [(load_editor(request, str(device)), request) for request in requests]
    chain = [(editor, request) for editor, request in chain if editor.edits_background]
    if not chain:
        return None

    @torch.no_grad()
    def edit(picture: np.ndarray) -> np.ndarray:
        for editor, request in chain:
            source = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 255
            picture = to_uint8(editor.edit(EditBatch.of_background(source, request.strength, request.seed)))[0]
        return picture

    return edit
