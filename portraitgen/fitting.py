"""The one optimisation loop that reconstruction and editing share (PortraitGen, Eq. 13 and 15)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .avatar import Avatar
from .body import BodyModel, labelled
from .cores import threads_shared_by
from .frames import Batch, TrainingFrames, sent
from .losses import (
    PerceptualLoss,
    excess_scale_loss,
    gradient_loss,
    grey,
    mask_loss,
    reconstruction_loss,
    ssim,
    stable_loss,
    tether_loss,
    texture_loss,
)
from .poses import PosedMesh, Poses
from .renderer import NeuralRenderer, Rendering, render

# Of the order of a barely visible Gaussian's gradient: with less, Adam lets hidden Gaussians wander off until they show as specks.
_EPSILON = 1e-7
_GRAZING = 0.5  # cosine of the angle to the camera below which a surface is held the more to its colours the more it turns away
_POSES = 8  # that tell how a surface is turned


@dataclass(frozen=True)
class FitConfig:
    """How an avatar is fitted to pictures.

    Attributes:
        steps: optimiser steps.
        coarse_steps: how many of them, at the start, see whole frames at half size; the others see windows at full size.
        batch: pictures per step.
        window: side of the windows in pixels, a multiple of 8.
        texture: weight of the amount of detail; the other weights are those of the terms in `losses` of their names.
        perceptual: weight of the perceptual term, from ``perceptual_start`` (a fraction of the steps) on.
    """

    steps: int
    coarse_steps: int
    batch: int = 1
    window: int = 256
    feature_rate: float = 1e-2
    opacity_rate: float = 3e-2
    scale_rate: float = 5e-3
    offset_rate: float = 4e-5
    quat_rate: float = 2e-3
    renderer_rate: float = 2e-3
    final_rate: float = 0.1
    reconstruction: float = 1.0
    structure: float = 0.1
    gradient: float = 0.5
    texture: float = 2.0
    mask: float = 1.0
    stable: float = 0.3
    perceptual: float = 0.0
    perceptual_start: float = 0.2
    offset_weight: float = 20.0
    scale_weight: float = 50.0
    tether: float = 5.0


@dataclass
class Fitted:
    """What a fit works on and leaves behind."""

    body: BodyModel
    avatar: Avatar
    renderer: NeuralRenderer
    poses: Poses

    def mesh(self, frames: Tensor) -> PosedMesh:
        """The body in the clip's frames ``[B]``."""
        return self.poses.mesh(self.body, frames)

    def render(self, frames: Tensor, Ks: Tensor, width: int, height: int, viewmats: Tensor | None = None) -> Rendering:
        """Render the clip's frames ``[B]`` with intrinsics ``[B, 3, 3]``, from the clip's camera unless ``viewmats`` are given."""
        if viewmats is None:
            viewmats = torch.eye(4, device=Ks.device).expand(len(frames), 4, 4)
        rendering = render(self.avatar, self.renderer, self.mesh(frames), viewmats, Ks, width, height)
        return rendering.exposed(self.poses.gain(frames))


@dataclass
class Course:
    """How far a fit is: with the `Fitted`, all that its next steps depend on.

    Attributes:
        step: the next one.
        queue: positions of the frames that come next, the last one first.
        generator: of frames, windows and backgrounds.
        optimizer: with its averages.
        start: the Gaussians' features before the first step ``[N, D]``.
        grazing: see `_grazing`, before the first step ``[N]``.
    """

    step: int
    queue: list[int]
    generator: np.random.Generator
    optimizer: torch.optim.Optimizer
    start: Tensor
    grazing: Tensor

    @classmethod
    def begin(cls, fitted: Fitted, data: TrainingFrames, config: FitConfig, seed: int) -> Course:
        """Before the first step."""
        start = fitted.avatar.features.detach().clone()
        return cls(0, [], np.random.default_rng(seed), _optimizer(fitted, config), start, _grazing(fitted, data))

    def tensors(self) -> dict[str, Tensor]:
        """The same as tensors, for `resume`; of the optimiser the averages of each parameter in its order."""
        generator = json.dumps(self.generator.bit_generator.state).encode()
        averages = {
            f"optimizer.{number}.{name}": value
            for number, parameter in enumerate(_parameters(self.optimizer))
            for name, value in self.optimizer.state[parameter].items()
        }
        return averages | {
            "step": torch.tensor(self.step),
            "queue": torch.tensor(self.queue, dtype=torch.int64),
            "generator": torch.tensor(list(generator), dtype=torch.uint8),
            "start": self.start,
            "grazing": self.grazing,
        }

    @classmethod
    def resume(cls, fitted: Fitted, config: FitConfig, tensors: dict[str, Tensor]) -> Course:
        """What `tensors` gave for a fit of ``fitted`` as it was then."""
        optimizer, device = _optimizer(fitted, config), fitted.avatar.features.device
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                state = optimizer.state[_parameters(optimizer)[int(number)]]
                state[key] = value if key == "step" else value.to(device)  # which Adam counts on the CPU
        generator = np.random.default_rng()
        generator.bit_generator.state = json.loads(bytes(tensors["generator"].tolist()))
        start, grazing = tensors["start"].to(device), tensors["grazing"].to(device)
        return cls(int(tensors["step"]), tensors["queue"].tolist(), generator, optimizer, start, grazing)


def fit(
    fitted: Fitted,
    data: TrainingFrames,
    config: FitConfig,
    seed: int,
    *,
    perceptual: PerceptualLoss | None = None,
    course: Course | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Fit the avatar and the renderer to ``data``, the poses as they are; yields (step, loss) after every step.

    Nothing in the loop waits for a GPU but the rasteriser, once a step: how much memory it needs is up to what the window shows.

    Args:
        fitted: changed in place.
        data: pictures to fit.
        config: step counts, rates and weights.
        seed: seed of the order of frames, windows and backgrounds.
        perceptual: the perceptual term; left out if None or if its weight is 0.
        course: where to go on, from the beginning if None; kept up to date, so that a fit left after any step can be gone on with. It ends
            in what it would have ended in, bit by bit.
    """
    course = course or Course.begin(fitted, data, config, seed)
    generator, queue, optimizer = course.generator, course.queue, course.optimizer
    limit = fitted.avatar.spacing[:, None] * 2.5
    device = data.images.device
    # An eyeball turns under its lids and bulges nowhere: moved off it, an iris shows through the lid of the first blink.
    eyes = labelled(fitted.body.face_labels, "eye_left", "eye_right")[fitted.avatar.texel_faces]
    for step in range(course.step, config.steps):
        while len(queue) < config.batch:
            queue.extend(generator.permutation(len(data)).tolist())
        index = torch.tensor([queue.pop() for _ in range(config.batch)])
        coarse = step < config.coarse_steps
        batch = data.whole(index, 2) if coarse else data.windows(index, config.window, generator)
        background = sent(generator.random((config.batch, 3, 1, 1)), device, torch.float32)
        asked = perceptual if config.perceptual and step >= config.perceptual_start * config.steps else None

        optimizer.zero_grad(set_to_none=True)
        loss = _regularity(fitted, config, limit, course.start, course.grazing)
        loss.backward()
        loss = loss.detach() + _descend(fitted, batch, background, config, asked)
        fitted.avatar.offsets.grad.masked_fill_(eyes[:, None], 0.0)  # type: ignore[union-attr]
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * _rate(step, config)
        optimizer.step()
        course.step = step + 1
        yield step, loss


def _descend(
    fitted: Fitted, batch: Batch, background: Tensor, config: FitConfig, perceptual: PerceptualLoss | None
) -> Tensor:
    """Add the gradients of `_picture_loss` to those of the parameters; returns the loss.

    On a CPU every picture is worked on by a thread of its own, as far as there are any, and their gradients are added up in order: a step
    of two pictures takes 0.6 of the time that torch's threads need together, each of whose operations is too short to be shared.
    """
    parameters = [*fitted.avatar.parameters(), *fitted.renderer.parameters()]
    workers = min(len(batch), torch.get_num_threads()) if background.device.type == "cpu" else 1

    def gradients(part: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
        pictures = batch[part]
        loss = _picture_loss(fitted, pictures, background[part], config, perceptual) * (len(pictures) / len(batch))
        return loss.detach(), torch.autograd.grad(loss, parameters)

    edges = [len(batch) * worker // workers for worker in range(workers + 1)]
    parts = [slice(*edge) for edge in pairwise(edges)]
    if workers == 1:
        found = [gradients(parts[0])]
    else:
        with threads_shared_by(workers), ThreadPoolExecutor(workers, "fit") as pool:
            found = list(pool.map(gradients, parts))
    for _, values in found:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad = value if parameter.grad is None else parameter.grad.add_(value)
    return torch.stack([loss for loss, _ in found]).sum()


def _picture_loss(
    fitted: Fitted, batch: Batch, background: Tensor, config: FitConfig, perceptual: PerceptualLoss | None
) -> Tensor:
    """What is asked of the render of ``batch`` over ``background`` ``[B, 3, 1, 1]``; every term is a mean over the pictures."""
    height, width = batch.image.shape[-2:]
    rendering = fitted.render(batch.frames, batch.Ks, width, height)
    target = batch.image * batch.alpha + (1 - batch.alpha) * background
    # Beyond the clip's frame nothing is asked for: there the terms compare the target with itself.
    picture = torch.where(batch.inside, rendering.over(background), target)
    alpha = torch.where(batch.inside, rendering.alpha, batch.alpha)

    loss = config.reconstruction * reconstruction_loss(picture, target)
    grey_picture, grey_target = grey(picture), grey(target)
    loss = loss + config.structure * (1 - ssim(grey_picture, grey_target))
    loss = loss + config.gradient * gradient_loss(picture, target)
    loss = loss + config.texture * texture_loss(grey_picture, grey_target)
    loss = loss + config.mask * mask_loss(alpha, batch.alpha)
    stable = torch.where(batch.inside, rendering.color_features + (1 - rendering.alpha) * background, target)
    loss = loss + config.stable * stable_loss(stable, target)
    if perceptual is not None:
        # Of grey pictures: asked about colour, the network answers with coloured grain where cloth or hair is fine.
        loss = loss + config.perceptual * perceptual(grey_picture.expand_as(picture), grey_target.expand_as(target))
    return loss


def _regularity(fitted: Fitted, config: FitConfig, limit: Tensor, start: Tensor, grazing: Tensor) -> Tensor:
    """What is asked of the Gaussians whatever the pictures show: scales ``[N, 3]`` below ``limit`` ``[N, 1]``, features near ``start``."""
    avatar = fitted.avatar
    loss = config.offset_weight * (avatar.offsets - avatar.rest_offsets).square().mean()
    loss = loss + config.scale_weight * excess_scale_loss(avatar.scales, limit)
    return loss + config.tether * tether_loss(avatar.features, start, grazing)


@torch.no_grad()
def _grazing(fitted: Fitted, data: TrainingFrames) -> Tensor:
    """How little the pictures tell of each Gaussian's colour ``[N]``: 0 for what some frame faces, 1 for what none does.

    A surface seen edge-on takes the blend of person and background at the silhouette for its own, which shows as specks when it is turned.
    """
    avatar = fitted.avatar
    poses = np.unique(np.linspace(0, len(data) - 1, _POSES).round().astype(int)).tolist()
    facing = torch.stack([avatar.facing(fitted.mesh(data.frames[i : i + 1]))[0] for i in poses]).amax(0)
    return (1 - facing / _GRAZING).clamp(0, 1) * ~avatar.lifted


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


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that ``optimizer`` changes, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
