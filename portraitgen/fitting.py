"""The one optimisation loop that reconstruction and editing share (PortraitGen, Eq. 13 and 15)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .avatar import Avatar
from .body import BodyModel, BodyParameters
from .frames import TrainingFrames
from .losses import (
    PerceptualLoss,
    excess_scale_loss,
    gradient_loss,
    mask_loss,
    reconstruction_loss,
    ssim,
    stable_loss,
)
from .renderer import NeuralRenderer, Rendering, render

# How far one optimiser step may move rotations (radians), expression weights and translations (metres), relative to each other.
_ROTATION_STEP, _EXPRESSION_STEP, _TRANSLATION_STEP = 0.5, 1.0, 0.3
# Of the order of a barely visible Gaussian's gradient: with less, Adam lets hidden Gaussians wander off until they show as specks.
_EPSILON = 1e-7
_SQUARE_DECAY = 0.98


@dataclass(frozen=True)
class FitConfig:
    """How an avatar is fitted to pictures.

    Attributes:
        steps: optimiser steps.
        coarse_steps: how many of them, at the start, see whole frames at half size and leave the poses alone; the others see windows at
            full size.
        batch: pictures per step.
        window: side of the windows in pixels, a multiple of 8.
        pose_rate: learning rate of the tracking refinement, 0 to leave the tracking as it is.
        perceptual: weight of the perceptual term, from ``perceptual_start`` (a fraction of the steps) on.
    """

    steps: int
    coarse_steps: int
    batch: int = 1
    window: int = 256
    pose_rate: float = 3e-4
    feature_rate: float = 1e-2
    opacity_rate: float = 3e-2
    scale_rate: float = 5e-3
    offset_rate: float = 2e-4
    quat_rate: float = 2e-3
    renderer_rate: float = 2e-3
    final_rate: float = 0.1
    reconstruction: float = 1.0
    structure: float = 0.1
    gradient: float = 0.5
    mask: float = 0.3
    stable: float = 0.3
    perceptual: float = 0.0
    perceptual_start: float = 0.4
    offset_weight: float = 20.0
    scale_weight: float = 50.0
    pose_weight: float = 0.05


class PoseRefinement(nn.Module):
    """Corrections to the tracked body parameters of each frame, learned from pictures.

    Args:
        tracked: parameters of all T frames, kept as they are.
    """

    square: Tensor

    def __init__(self, tracked: BodyParameters) -> None:
        super().__init__()
        self.tracked = tracked
        frames, joints, _ = tracked.rotations.shape
        expressions = tracked.expression.shape[1]
        self.sizes = (joints * 3, expressions, 3, 3)
        self.deltas = nn.Parameter(torch.zeros(frames, sum(self.sizes), device=tracked.rotations.device))
        self.register_buffer("square", torch.zeros(sum(self.sizes), device=tracked.rotations.device))
        self.visits = 0

    def forward(self, frames: Tensor) -> BodyParameters:
        """Refined parameters of ``frames`` ``[B]``."""
        rotations, expression, global_rotation, translation = self.deltas[frames].split(self.sizes, dim=1)
        tracked = self.tracked
        return BodyParameters(
            betas=tracked.betas,
            rotations=tracked.rotations[frames] + _ROTATION_STEP * rotations.view(len(frames), -1, 3),
            expression=tracked.expression[frames] + _EXPRESSION_STEP * expression,
            global_rotation=tracked.global_rotation[frames] + _ROTATION_STEP * global_rotation,
            translation=tracked.translation[frames] + _TRANSLATION_STEP * translation,
        )

    @torch.no_grad()
    def descend(self, frames: Tensor, rate: float) -> None:
        """Move the corrections of ``frames`` ``[B]`` down their gradient.

        A frame is visited a few times only. Adam's moments, kept per frame, would make each visit a full step in every parameter, whatever
        its gradient; here the gradient is scaled by its root mean square over all frames, so that small gradients make small steps.
        """
        assert self.deltas.grad is not None
        gradient = self.deltas.grad[frames]
        self.visits += 1
        self.square.mul_(_SQUARE_DECAY).add_(gradient.square().mean(0), alpha=1 - _SQUARE_DECAY)
        typical = (self.square / (1 - _SQUARE_DECAY**self.visits)).sqrt() + 1e-12
        self.deltas[frames] -= rate * (gradient / typical).clamp(-3, 3)
        self.deltas.grad = None

    @torch.no_grad()
    def spread(self, refined: Tensor) -> None:
        """Give frames that were not refined the corrections of their refined neighbours, interpolated in time.

        Args:
            refined: sorted indices of the refined frames ``[M]``.
        """
        known = refined.cpu().numpy()
        weight = self.deltas.detach().cpu().numpy()
        times = np.arange(len(weight))
        columns = [np.interp(times, known, weight[known, i]) for i in range(weight.shape[1])]
        self.deltas.copy_(torch.as_tensor(np.stack(columns, 1)))

    @torch.no_grad()
    def parameters_of_all(self) -> BodyParameters:
        """Refined parameters of all frames, detached."""
        return self(torch.arange(len(self.tracked.rotations), device=self.deltas.device))


@dataclass
class Fitted:
    """What a fit works on and leaves behind."""

    body: BodyModel
    avatar: Avatar
    renderer: NeuralRenderer
    poses: PoseRefinement

    def render(self, frames: Tensor, Ks: Tensor, width: int, height: int, viewmats: Tensor | None = None) -> Rendering:
        """Render the clip's frames ``[B]`` with intrinsics ``[B, 3, 3]``, from the clip's camera unless ``viewmats`` are given."""
        return self.splat(self.vertices(frames), Ks, width, height, viewmats)

    def vertices(self, frames: Tensor) -> Tensor:
        """The posed mesh ``[B, V, 3]`` of the clip's frames ``[B]`` in camera space, metres."""
        return self.body.vertices(self.poses(frames))

    def splat(self, vertices: Tensor, Ks: Tensor, width: int, height: int, viewmats: Tensor | None = None) -> Rendering:
        """Render the avatar posed on ``vertices`` ``[B, V, 3]``."""
        if viewmats is None:
            viewmats = torch.eye(4, device=Ks.device).expand(len(vertices), 4, 4)
        return render(self.avatar, self.renderer, vertices, viewmats, Ks, width, height)


def fit(
    fitted: Fitted,
    data: TrainingFrames,
    config: FitConfig,
    seed: int,
    *,
    train_appearance: bool = True,
    perceptual: PerceptualLoss | None = None,
) -> Iterator[tuple[int, float]]:
    """Fit the avatar, the renderer and the poses to ``data``; yields (step, loss) after every step.

    Args:
        fitted: changed in place.
        data: pictures to fit.
        config: step counts, rates and weights.
        seed: seed of the order of frames, windows and backgrounds.
        train_appearance: False freezes avatar and renderer, so that only the poses learn.
        perceptual: the perceptual term; left out if None or if its weight is 0.
    """
    generator = np.random.default_rng(seed)
    for part in (fitted.avatar, fitted.renderer):
        part.requires_grad_(train_appearance)
    optimizer = _optimizer(fitted, config) if train_appearance else None
    limit = fitted.avatar.spacing[:, None] * 2.5
    queue: list[int] = []
    device = data.images.device
    for step in range(config.steps):
        while len(queue) < config.batch:
            queue.extend(generator.permutation(len(data)).tolist())
        index = torch.tensor([queue.pop() for _ in range(config.batch)], device=device)
        coarse = step < config.coarse_steps
        batch = data.whole(index, 2) if coarse else data.windows(index, config.window, generator)
        height, width = batch.image.shape[-2:]
        # The rasteriser's fixed blur makes everything look larger in half-size pictures, so poses learn at full size only.
        refine = bool(config.pose_rate) and not coarse
        with torch.set_grad_enabled(refine):
            vertices = fitted.vertices(batch.frames)
        rendering = fitted.splat(vertices, batch.Ks, width, height)
        background = torch.as_tensor(generator.random((config.batch, 3, 1, 1)), dtype=torch.float32, device=device)
        target = batch.image * batch.alpha + (1 - batch.alpha) * background
        picture = rendering.over(background)

        loss = config.reconstruction * reconstruction_loss(picture, target)
        loss = loss + config.structure * (1 - ssim(picture, target))
        loss = loss + config.gradient * gradient_loss(picture, target)
        loss = loss + config.mask * mask_loss(rendering.alpha, batch.alpha)
        stable = rendering.color_features + (1 - rendering.alpha) * background
        loss = loss + config.stable * stable_loss(stable, target)
        if perceptual is not None and config.perceptual and step >= config.perceptual_start * config.steps:
            loss = loss + config.perceptual * perceptual(picture, target)
        if train_appearance:
            displacement = fitted.avatar.offsets - fitted.avatar.rest_offsets
            loss = loss + config.offset_weight * displacement.square().mean()
            loss = loss + config.scale_weight * excess_scale_loss(fitted.avatar.scales, limit)
        if refine:
            loss = loss + config.pose_weight * fitted.poses.deltas[batch.frames].square().mean()

        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if optimizer is not None:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * _rate(step, config)
            optimizer.step()
        if refine:
            fitted.poses.descend(batch.frames, config.pose_rate * _rate(step, config))
        yield step, float(loss.detach())


def _rate(step: int, config: FitConfig) -> float:
    """Constant for half of the steps, then a cosine down to ``final_rate``."""
    progress = max(0.0, 2 * step / max(1, config.steps) - 1)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(fitted: Fitted, config: FitConfig) -> torch.optim.Optimizer:
    avatar = fitted.avatar
    groups: list[dict[str, Any]] = [
        {"params": [avatar.features], "lr": config.feature_rate},
        {"params": [avatar.opacity_logits], "lr": config.opacity_rate},
        {"params": list(fitted.renderer.parameters()), "lr": config.renderer_rate},
        {"params": [avatar.log_scales], "lr": config.scale_rate},
        {"params": [avatar.offsets], "lr": config.offset_rate},
        {"params": [avatar.quats], "lr": config.quat_rate},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.Adam(groups, eps=_EPSILON)
