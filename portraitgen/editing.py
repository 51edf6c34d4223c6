"""Editing: key frames go through a 2D editor, the avatar is fitted to what comes back (PortraitGen, section 3.3)."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backgrounds import SceneEdit
from .clip import read_gray
from .editors import EditBatch, Editor, EditRequest, load_editor
from .editors.face_aware import edit_face_aware
from .editors.memory import make_room
from .expression import ExpressionCorrection, ExpressionLoss
from .fitting import Course, FitConfig, Fitted, fit
from .frames import TrainingFrames
from .harmonising import harmonise
from .initialization import gather_colors, make_views
from .keeping import Keeper
from .keyframes import diverse_frames
from .losses import PerceptualLoss
from .mattes import BodyShown, clean_crops, crop_landmarks, usable_frames
from .matting import decontaminate
from .portrait import Portrait
from .poses import rest_vertices
from .progress import Progress
from .reconstruction import preview, to_uint8
from .regions import HAIR, soft_regions
from .smirk import at_hand
from .streaming import aside, breathe
from .surfaces import Surfaces
from .training_data import head_centres
from .unfinished import EditCourse, keep_edit, kept_edit
from .unseen import neighbours

_NEAR, _ALIKE = 0.05, 0.1  # metres and difference of colour that separate two Gaussians equally
_NEIGHBOURS = 4
_OWN = ("eyes", "teeth", "mouth")  # regions whose detail is each frame's own: their expression is the person's


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
    steps=140, coarse_steps=30, batch=2, feature_rate=1.5e-2, opacity_rate=1e-2, scale_rate=3e-3, offset_rate=1e-4
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
    """Key frames with everything an editor may ask for.

    Attributes:
        frames: indices in the clip ``[M]``.
        source: crops with their real background ``[M, 3, S, S]`` uint8, before the edit.
        alphas: ``[M, 1, S, S]`` uint8.
        labels: region labels ``[M, S, S]`` uint8, on the CPU.
        surfaces: the tracked body in them.
        inside: pixels that show the body or what is behind it ``[M, S, S]``, bool.
    """

    frames: Tensor
    source: Tensor
    alphas: Tensor
    labels: np.ndarray
    surfaces: Surfaces
    inside: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def hair(self) -> Tensor:
        """Where there is hair ``[M, S, S]``, bool."""
        return torch.from_numpy(self.labels == HAIR).to(self.source.device)


@torch.no_grad()
def load_key_frames(portrait: Portrait, fitted: Fitted, K: Tensor, frames: Tensor) -> KeyFrames:
    """Read ``frames`` (sorted indices ``[M]``) of the clip with matte, region labels and body.

    Of a portrait that has been edited, what it shows now takes the place of the clip: the next edit goes on from there.
    """
    wanted = set(frames.tolist())
    source, alphas, labels = [], [], []
    streams = zip(clean_crops(portrait), read_gray(portrait.path("regions.mp4")), strict=False)
    for number, ((frame, alpha), label) in enumerate(streams):
        if number in wanted:
            source.append(torch.from_numpy(frame).permute(2, 0, 1))
            alphas.append(torch.from_numpy(alpha.copy())[None])
            labels.append(label.copy())
        if len(source) == len(wanted):
            break
    pictures, frames = torch.stack(source).to(K.device), frames.to(K.device)
    if portrait.edits:
        pictures = torch.cat([_rendered(fitted, frames[i : i + 1], K, pictures[i : i + 1]) for i in range(len(frames))])
        pictures = (pictures * 255).round().byte()
    surfaces = Surfaces.of(fitted.mesh(frames).vertices, fitted.body.faces, K, pictures.shape[-1])
    mattes = torch.stack(alphas).to(K.device)
    return KeyFrames(frames, pictures, mattes, np.stack(labels), surfaces, BodyShown(portrait)(frames, mattes))


def _rendered(fitted: Fitted, frames: Tensor, K: Tensor, behind: Tensor) -> Tensor:
    """The clip's ``frames`` ``[B]`` as the avatar renders them now, over pictures ``[B, 3, S, S]`` uint8; in [0, 1]."""
    size = behind.shape[-1]
    return fitted.render(frames, K.expand(len(frames), 3, 3), size, size).over(behind.float() / 255).clamp(0, 1)


@torch.no_grad()
def edit_batch(fitted: Fitted, keys: KeyFrames, index: slice, K: Tensor, strength: float, seed: int) -> EditBatch:
    """What the editor sees of the key frames ``index``: source, current render, matte, regions, and what the tracked body knows."""
    surfaces, body = keys.surfaces[index], fitted.body
    nowhere = ~surfaces.inside[:, None]
    breathe()
    rendered = _rendered(fitted, keys.frames[index], K, keys.source[index])
    breathe()
    return EditBatch(
        source=keys.source[index].float() / 255,
        rendered=rendered,
        alpha=keys.alphas[index].float() / 255,
        regions=soft_regions(keys.labels[index], keys.alphas[index][:, 0].cpu().numpy()),
        normals=surfaces.normals(),
        uv=surfaces.attribute(body.uvs[body.face_uvs]).masked_fill(nowhere, torch.nan),
        positions=surfaces.attribute(surfaces.vertices[:, body.faces]).masked_fill(nowhere, torch.nan),
        rest=surfaces.attribute(rest_vertices(body, fitted.poses.tracked)[body.faces]).masked_fill(nowhere, torch.nan),
        parts=body.face_labels[surfaces.triangles.clamp_min(0).long()].long()[:, None].masked_fill(nowhere, -1),
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
    edited: Portrait | None = None,
) -> Generator[Progress, None, Fitted]:
    """Edit ``fitted`` in place; the portrait on disk stays as it is.

    Args:
        edited: the folder of `unfinished.begin_edit`. How far the edit is is kept there, now and then and when it is left, and what an
            earlier run kept there is gone on with; the end is the same, bit by bit.

    Returns:
        The edited one: ``fitted``, or what an earlier run kept of it.
    """
    torch.manual_seed(seed)
    chosen = diverse_frames(fitted.poses.tracked, usable_frames(portrait), config.key_frames)
    passes = config.passes if editor.reads_render else 1
    budget = f"{len(chosen)} key frames" + (f", {passes} times" if passes > 1 else "")
    # A look that is computed from the frame keeps its expression; one that is dreamt up from noise may not.
    correct = ExpressionCorrection(ExpressionLoss(K.device, at_hand(K.device))) if editor.reads_render else None
    note = f"; expression kept by {correct.loss.encoder.name}" if correct else ""
    yield Progress("edit", 0.0, f"{editor.name}: {editor.understood}; {budget}{note}")
    keys = load_key_frames(portrait, fitted, K, chosen)
    faces = torch.from_numpy(crop_landmarks(portrait)[chosen.numpy()]).to(K)
    perceptual = aside(lambda: PerceptualLoss(K.device)) if config.fit.perceptual else None
    kept = edited and kept_edit(edited, config.fit, editor, K.device)
    fitted, course = kept or (fitted, EditCourse())
    steps, every = config.fit.steps, max(1, config.fit.steps // 6)

    def keep() -> None:
        if edited is not None:
            keep_edit(edited, fitted, course, editor, course.shares(len(keys), steps, passes))

    keeper = Keeper(keep)
    with keeper.on_leaving():  # a fit can be left between its steps only
        while course.number < passes:
            number = course.number
            if course.images is None:
                for start in range(len(course.edited), len(keys), config.batch):
                    index = slice(start, min(start + config.batch, len(keys)))
                    # Later passes start from a render that is edited already and need less of a push.
                    batch = edit_batch(fitted, keys, index, K, strength * (1.0 if number == 0 else 0.6), seed)
                    result = edit_face_aware(editor, batch)
                    if correct is not None:
                        result = correct(result, batch.source, faces[index])
                    course.edited.extend(result)
                    done = (number + 0.9 * index.stop / len(keys)) / passes
                    message = f"{editor.name}: key frame {index.stop} of {len(keys)}"
                    yield Progress("edit", done, message, to_uint8(result[:1])[0])
                    keeper.when_due()
                course.images, course.edited = _targets(keys, agreed(torch.stack(course.edited), keys)), []
                yield Progress("edit", (number + 1) / passes, f"{editor.name}: key frames made to agree")
            data = _training(portrait, keys, course.images)
            if course.fitting is None:
                if number == 0:
                    recolor(fitted, data, keys.hair)
                course.fitting = Course.begin(fitted, data, config.fit, seed + number)
            make_room(K.device)
            for step, _ in fit(fitted, data, config.fit, seed + number, perceptual=perceptual, course=course.fitting):
                done = (number + (step + 1) / steps) / passes
                picture = preview(fitted, data, len(data) // 2) if step % every == 0 else None
                yield Progress("fitting", done, f"Spreading the edit to every frame, step {step + 1}", picture)
                keeper.when_due()
            course.next_pass()
    return fitted


@torch.no_grad()
def agreed(edited: Tensor, keys: KeyFrames) -> Tensor:
    """The edited key frames ``[M, 3, S, S]`` with the same detail at the same place of the body."""
    regions = soft_regions(keys.labels, keys.alphas[:, 0].cpu().numpy())
    own = [regions[name] for name in _OWN if name in regions]
    alphas = keys.alphas.float() / 255 * keys.inside[:, None]  # a hand's detail is nobody's shoulder's
    mask = torch.stack(own).sum(0).clamp(0, 1).to(alphas.device) if own else torch.zeros_like(alphas)
    return harmonise(edited, keys.source.float() / 255, alphas, mask, keys.surfaces)


def _targets(keys: KeyFrames, edited: Tensor) -> Tensor:
    """The edited key frames ``[M, 3, S, S]`` freed of what is behind the person, uint8."""
    alphas = keys.alphas[:, 0].cpu().numpy()
    images = [
        torch.from_numpy(decontaminate(image, alpha)).permute(2, 0, 1)
        for image, alpha in zip(to_uint8(edited), alphas, strict=True)
    ]
    return torch.stack(images).to(edited.device)


def _training(portrait: Portrait, keys: KeyFrames, images: Tensor) -> TrainingFrames:
    """The key frames as training pictures, with what `_targets` made of them."""
    heads = torch.from_numpy(head_centres(portrait)[keys.frames.cpu().numpy()]).float()
    return TrainingFrames(keys.frames, images, keys.alphas, keys.surfaces.K, heads, keys.inside)


@torch.no_grad()
def recolor(fitted: Fitted, data: TrainingFrames, hair: Tensor) -> None:
    """Give the Gaussians the edited pictures' colours at once, so that fitting starts from the edit and not from the clip.

    Those that no key frame shows, and that fitting will not reach, change as the ones do that are near and were of their colour. ``hair``
    ``[M, S, S]`` tells which pixels are of hair, bool: they say nothing of the shoulders below it.
    """
    avatar, mesh = fitted.avatar, fitted.mesh(data.frames)
    views = make_views(mesh, fitted.body, data, fitted.poses.gain(data.frames), hair)
    colors, seen, _ = gather_colors(avatar, views)
    before = avatar.features[:, :3]
    change = colors - before
    if seen.any() and not seen.all():
        place = torch.cat([avatar(mesh[:1]).means[0] / _NEAR, before / _ALIKE], 1)
        change[~seen] = change[seen][neighbours(place[seen], place[~seen], _NEIGHBOURS)].mean(1)
    avatar.features[:, :3] = (before + change).clamp(0, 1)
    fitted.renderer.forget()  # its residual belongs to the old look


def scene_edit(requests: list[EditRequest], device: torch.device, scene: str | None) -> SceneEdit | None:
    """What the edits ``requests``, one after the other, do to the scene behind the person.

    Args:
        scene: "edited" for all of them, "auto" for those that are about the scene too; any other for none.

    Returns:
        a function of pictures ``[H, W, 3]`` uint8, or None where there is nothing to do.
    """
    if scene not in ("auto", "edited"):
        return None
    about = [request for request in requests if request.kind != "tryon"]  # a garment changes no scene
    chain = [(aside(functools.partial(load_editor, request, str(device))), request) for request in about]
    chain = [(editor, request) for editor, request in chain if scene == "edited" or editor.edits_background]
    if not chain:
        return None

    @torch.no_grad()
    def edit(picture: np.ndarray) -> np.ndarray:
        for editor, request in chain:
            source = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 255
            picture = to_uint8(editor.edit(EditBatch.of_background(source, request.strength, request.seed)))[0]
        make_room(device)  # nobody else frees it before the next clip is learned
        return picture

    return edit
