"""Reconstruction: from a tracked and matted clip to an avatar (PortraitGen, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .avatar import Avatar, Texels
from .body import BodyModel, BodyParameters, load_body
from .fitting import FitConfig, Fitted, PoseRefinement, fit
from .frames import TrainingFrames
from .initialization import build_avatar, make_views
from .keyframes import diverse_frames, evenly_spaced
from .losses import PerceptualLoss
from .mattes import crop_landmarks, crops_with_alpha
from .matting import decontaminate
from .portrait import Portrait
from .progress import Progress
from .renderer import NeuralRenderer
from .tracking import Tracking

_PREVIEWS = 12
_HELD_OUT_POSE_RATE = 1e-3  # the appearance stands still, so poses may move faster than beside it


@dataclass(frozen=True)
class ReconstructionConfig:
    """How a portrait is reconstructed; the presets are the only settings a person chooses.

    Attributes:
        channels: length of the Gaussians' feature vectors.
        hidden: width of the neural renderer at full resolution.
        texel_pixels: distance between neighbouring Gaussians in pixels of the working image.
        views: frames that initialise the Gaussians.
        frames: at most this many frames are trained on, which keeps memory flat for any clip.
        fit: the optimisation.
        refine_steps: optimiser steps per frame that was not trained on, with the appearance frozen.
    """

    channels: int
    hidden: int
    texel_pixels: float
    views: int
    frames: int
    fit: FitConfig
    refine_steps: int


PRESETS: dict[str, ReconstructionConfig] = {
    "preview": ReconstructionConfig(
        channels=16,
        hidden=16,
        texel_pixels=2.0,
        views=8,
        frames=150,
        fit=FitConfig(steps=600, coarse_steps=80),
        refine_steps=8,
    ),
    "standard": ReconstructionConfig(
        channels=24,
        hidden=24,
        texel_pixels=1.6,
        views=12,
        frames=240,
        fit=FitConfig(steps=3000, coarse_steps=600, batch=2, perceptual=0.05),
        refine_steps=16,
    ),
    "high": ReconstructionConfig(
        channels=32,
        hidden=32,
        texel_pixels=1.3,
        views=16,
        frames=360,
        fit=FitConfig(steps=6000, coarse_steps=1000, batch=4, window=320, perceptual=0.05),
        refine_steps=24,
    ),
}


def load_training_frames(
    portrait: Portrait, tracking: Tracking, frames: Tensor, device: torch.device
) -> TrainingFrames:
    """Read ``frames`` (sorted indices ``[M]``) of the clip as foreground colour and alpha at working size."""
    wanted = set(frames.tolist())
    images, alphas = [], []
    for number, (frame, alpha) in enumerate(crops_with_alpha(portrait)):
        if number in wanted:
            images.append(torch.from_numpy(decontaminate(frame, alpha)).permute(2, 0, 1))
            alphas.append(torch.from_numpy(alpha.copy())[None])
        if len(images) == len(wanted):
            break
    heads = torch.from_numpy(head_centres(portrait)[frames.numpy()]).float()
    return TrainingFrames(
        frames.to(device), torch.stack(images).to(device), torch.stack(alphas).to(device), tracking.K.to(device), heads
    )


def head_centres(portrait: Portrait) -> np.ndarray:
    """Centre of the face in the working image ``[T, 2]``, pixels; frames without a face take their neighbours'."""
    centres = np.median(crop_landmarks(portrait), axis=1)
    known = ~np.isnan(centres).any(1)
    times = np.arange(len(centres))
    return np.stack([np.interp(times, times[known], centres[known, i]) for i in range(2)], 1)


def reconstruct(
    portrait: Portrait, tracking: Tracking, config: ReconstructionConfig, device: torch.device
) -> Iterator[Progress]:
    """Fit an avatar to the portrait's frames and write ``avatar.safetensors``."""
    seed = portrait.settings.seed
    torch.manual_seed(seed)
    body = load_body(portrait.settings.body, device)
    tracked = tracking.parameters.to(device)
    yield Progress("reconstruction", 0.0, "Reading the frames to learn from")
    trained = evenly_spaced(torch.arange(portrait.trained_frames), config.frames)
    data = load_training_frames(portrait, tracking, trained, device)

    yield Progress("reconstruction", 0.02, "Placing Gaussians on the body")
    poses = PoseRefinement(tracked)
    chosen = diverse_frames(tracked, trained, config.views)
    view_data = data.select(torch.searchsorted(trained, chosen))
    with torch.no_grad():
        vertices = body.vertices(poses(view_data.frames))
    avatar = build_avatar(body, make_views(vertices, body.faces, view_data), config.channels, config.texel_pixels)
    renderer = NeuralRenderer(config.channels, config.hidden).to(device)
    fitted = Fitted(body, avatar, renderer, poses)

    perceptual = PerceptualLoss(device) if config.fit.perceptual else None
    every = max(1, config.fit.steps // _PREVIEWS)
    for step, _ in fit(fitted, data, config.fit, seed, perceptual=perceptual):
        done = 0.05 + 0.85 * (step + 1) / config.fit.steps
        message = f"Fitting {len(avatar):,} Gaussians, step {step + 1} of {config.fit.steps}"
        picture = preview(fitted, data, len(data) // 2) if step % every == 0 else None
        yield Progress("reconstruction", done, message, picture)

    poses.spread(trained)
    rest = sorted(set(range(portrait.clip.frame_count)) - set(trained.tolist()))
    # Frames between trained ones follow them closely; those after the last one (held out) need a refinement of their own.
    rest = [frame for frame in rest if frame >= portrait.trained_frames]
    if rest:
        unseen = load_training_frames(portrait, tracking, torch.tensor(rest), device)
        steps = config.refine_steps * len(rest)
        refine = FitConfig(steps=steps, coarse_steps=0, pose_rate=_HELD_OUT_POSE_RATE)
        for step, _ in fit(fitted, unseen, refine, seed, train_appearance=False):
            yield Progress(
                "reconstruction", 0.9 + 0.09 * (step + 1) / steps, "Refining the pose of the held-out frames"
            )
    save_fitted(portrait, fitted)
    yield Progress("reconstruction", 1.0, "Avatar ready", preview(fitted, data, len(data) // 2))


@torch.no_grad()
def preview(fitted: Fitted, data: TrainingFrames, index: int) -> np.ndarray:
    """The avatar at training frame ``index`` over white, ``[S, S, 3]`` uint8."""
    rendering = fitted.render(data.frames[index : index + 1], data.K[None], data.size, data.size)
    return to_uint8(rendering.over(torch.ones(3, 1, 1, device=data.K.device)))[0]


def to_uint8(images: Tensor) -> np.ndarray:
    """``[B, 3, H, W]`` in [0, 1] to ``[B, H, W, 3]`` uint8."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def save_fitted(portrait: Portrait, fitted: Fitted) -> None:
    """Write avatar, renderer and refined tracking to ``avatar.safetensors``."""
    tensors = {f"avatar.{key}": value for key, value in fitted.avatar.state_dict().items()}
    tensors |= {f"renderer.{key}": value for key, value in fitted.renderer.state_dict().items()}
    tensors |= {f"body.{key}": value for key, value in fitted.poses.parameters_of_all().tensors().items()}
    portrait.save_tensors("avatar.safetensors", tensors)


def load_fitted(portrait: Portrait, device: torch.device) -> Fitted:
    """Read what ``save_fitted`` wrote."""
    portrait.require("reconstruction")
    tensors = portrait.load_tensors("avatar.safetensors")
    body: BodyModel = load_body(portrait.settings.body, device)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    state = part("avatar.")
    channels = state["features"].shape[1]
    texels = Texels(state["texel_faces"], state["barycentrics"], state["uvs"], state["spacing"])
    avatar = Avatar(state["mesh_faces"], texels, channels)
    avatar.load_state_dict(state)
    layers = part("renderer.")
    renderer = NeuralRenderer(channels, len(layers["enter.bias"]))
    renderer.load_state_dict(layers)
    parameters = BodyParameters(**part("body.")).to(device)
    return Fitted(body, avatar.to(device), renderer.to(device), PoseRefinement(parameters))
