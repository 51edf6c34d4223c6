"""Reconstruction: from a tracked and matted clip to an avatar (PortraitGen, section 3.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .alignment import align_frames, steady_frames
from .avatar import Avatar, Texels
from .body import BodyModel, BodyParameters, load_body
from .errors import InputError
from .estimates import expected_seconds
from .fitting import Course, FitConfig, Fitted, fit
from .frames import Picture, TrainingFrames
from .hand_layer import body_beside_hands, write_hands
from .hand_relief import write_hand_poses
from .heap import trim
from .initialization import build_avatar, make_views
from .keeping import Keeper
from .keyframes import diverse_frames, training_frames
from .losses import PerceptualLoss
from .mattes import load_screening, usable_frames
from .portrait import Portrait
from .poses import Poses
from .progress import Progress
from .rasterization import backend_name
from .regions import CLOTHES, HAIR
from .renderer import NeuralRenderer
from .streaming import aside
from .tracking import Tracking
from .training_data import load_regions, load_training_frames, read_pictures

_AVATAR = "avatar.safetensors"
_UNFINISHED = "fitted.safetensors"  # the same before the frames in between are aligned; gone once they are
_COURSE = "fitting.safetensors"  # a fit in the middle; gone once it is done
# Poses of the frames aligned so far, before the fit and after it.
_FIRST_POSES, _LATER_POSES = "placed.safetensors", "aligned.safetensors"
_PREVIEWS = 12
# Looks at a frame: with what the frames' own colours show, where a third follows its faults, and with what is learned.
_FIRST_LOOKS, _LATER_LOOKS = 2, 3


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
        realign: after which fractions of the optimisation the trained frames are aligned again, with what is learned by then.
    """

    channels: int
    hidden: int
    texel_pixels: float
    views: int
    frames: int
    fit: FitConfig
    realign: tuple[float, ...]


PRESETS: dict[str, ReconstructionConfig] = {
    "preview": ReconstructionConfig(
        channels=16,
        hidden=8,
        texel_pixels=2.0,
        views=8,
        frames=150,
        fit=FitConfig(steps=160, coarse_steps=0, batch=2, perceptual=0.2),
        realign=(0.5,),
    ),
    "standard": ReconstructionConfig(
        channels=24,
        hidden=16,
        texel_pixels=1.6,
        views=12,
        frames=240,
        fit=FitConfig(steps=400, coarse_steps=0, batch=2, texture=6.0, perceptual=0.2),
        realign=(0.3, 0.7, 1.0),
    ),
    "high": ReconstructionConfig(
        channels=32,
        hidden=32,
        texel_pixels=1.3,
        views=16,
        frames=360,
        fit=FitConfig(steps=2000, coarse_steps=0, batch=4, window=320, texture=6.0, perceptual=0.2),
        realign=(0.2, 0.5, 1.0),
    ),
}


def reconstruct(
    portrait: Portrait, tracking: Tracking, config: ReconstructionConfig, device: torch.device
) -> Iterator[Progress]:
    """Fit an avatar to the portrait's frames and write ``avatar.safetensors``.

    The fit is kept now and then, when it is stopped, and before the frames that were not learned from are aligned, which takes as long
    again for a long clip: a run that is cut off goes on from there.
    """
    torch.manual_seed(portrait.settings.seed)
    body = load_body(portrait.settings.body, device)
    tracked = tracking.parameters.to(device)
    yield Progress("reconstruction", 0.0, "Reading the frames to learn from")
    trained = training_frames(tracking.parameters, usable_frames(portrait), config.frames)
    rest = sorted(set(range(portrait.clip.frame_count)) - set(trained.tolist()))
    preset, size = portrait.settings.preset, portrait.crop.size
    part, whole = (
        expected_seconds(("reconstruction",), count, preset, size=size)["reconstruction"]
        for count in (len(trained), portrait.clip.frame_count)
    )
    learned = 0.97 * part / whole  # share of the time
    if portrait.path(_UNFINISHED).is_file():
        fitted = read_fitted(portrait, _UNFINISHED, device)
        fitted.poses.tracked = tracked
        shown = load_training_frames(portrait, tracking, trained[len(trained) // 2 :][:1], device)
    else:
        fitted, shown = yield from _learn(portrait, tracking, trained, body, config, device, learned)
        if rest:
            save_fitted(portrait, fitted, _UNFINISHED)
            portrait.keep("reconstruction", learned)
            portrait.path(_COURSE).unlink(missing_ok=True)
    trim()
    for done in _align_rest(portrait, fitted, shown, trained, rest, learned):
        message = f"Aligning the frames in between, {done} of {len(rest)}"
        yield Progress("reconstruction", learned + (0.97 - learned) * done / len(rest), message)
    for done in _steady(portrait, fitted, shown):
        message = f"Steadying the motion, frame {done}"
        yield Progress("reconstruction", 0.97 + 0.02 * done / portrait.clip.frame_count, message)
    for done in write_hands(portrait, fitted, tracking.K):
        message = f"Telling hands from what is behind them, frame {done}"
        yield Progress("reconstruction", 0.99 + 0.005 * done / portrait.clip.frame_count, message)
    for share in write_hand_poses(portrait, fitted, tracking.K):
        yield Progress("reconstruction", 0.995 + 0.005 * share, "Finding out how the hands are held")
    save_fitted(portrait, fitted)
    for name in (_UNFINISHED, _COURSE, _FIRST_POSES, _LATER_POSES):
        portrait.path(name).unlink(missing_ok=True)
    yield Progress("reconstruction", 1.0, "Avatar ready", preview(fitted, shown, 0))


def _learn(
    portrait: Portrait,
    tracking: Tracking,
    trained: Tensor,
    body: BodyModel,
    config: ReconstructionConfig,
    device: torch.device,
    share: float,
) -> Generator[Progress, None, tuple[Fitted, TrainingFrames]]:
    """Fit an avatar to the frames ``trained``, which is the first ``share`` of the stage; returns it and one of the frames, to show it in.

    The others, and what fitting took, are gone when the rest of a long clip comes. A fit that was kept is gone on with.
    """

    def news(fraction: float, message: str, picture: np.ndarray | None = None) -> Progress:
        return Progress("reconstruction", share * fraction, message, picture)

    seed, tracked = portrait.settings.seed, tracking.parameters.to(device)
    data = shown = load_training_frames(portrait, tracking, trained, device)

    if portrait.path(_COURSE).is_file():
        fitted = read_fitted(portrait, _COURSE, device)
        fitted.poses.tracked = tracked
        kept = portrait.load_tensors(_COURSE)
        course = Course.resume(fitted, config.fit, part_of(kept, "course."))
        if "inside" in kept:
            shown = replace(data, inside=_unpacked(kept["inside"], data.size).to(device))
    else:
        fitted = yield from _place(portrait, tracked, trained, data, body, config, news, share)
        course = Course.begin(fitted, data, config.fit, seed)

    perceptual = aside(lambda: PerceptualLoss(device)) if config.fit.perceptual else None
    realigned = {round(share * config.fit.steps) for share in config.realign}
    backend = backend_name(device)
    steps, every = config.fit.steps, max(1, config.fit.steps // _PREVIEWS)

    def keep() -> None:
        more = {f"course.{name}": value for name, value in course.tensors().items()}
        if shown is not data:
            more["inside"] = _packed(shown.inside)
        save_fitted(portrait, fitted, _COURSE, more)
        portrait.keep("reconstruction", share * (0.24 + 0.76 * course.step / steps))

    keep()
    keeper = Keeper(keep)
    while course.step < steps:
        learned_from = shown
        for step, _ in fit(fitted, learned_from, config.fit, seed, perceptual=perceptual, course=course):
            message = f"Fitting {len(fitted.avatar):,} Gaussians with {backend}, step {step + 1} of {steps}"
            picture = preview(fitted, data, len(data) // 2) if step % every == 0 else None
            done = 0.24 + 0.76 * (step + 1) / steps
            aligning = step + 1 in realigned  # which belongs to the step: before it is done, nothing is kept
            with contextlib.nullcontext() if aligning else keeper.on_leaving():
                yield news(done, message, picture)
            if aligning:
                shown = yield from _look_again(portrait, fitted, data, partial(news, done))
            keeper.when_due()
            if shown is not learned_from:
                break
    return fitted, data.select(torch.tensor([len(data) // 2]))


def _look_again(
    portrait: Portrait, fitted: Fitted, data: TrainingFrames, news: Callable[[str], Progress]
) -> Generator[Progress, None, TrainingFrames]:
    """Align ``data`` with what is learned so far; returns it with all that is now known to be beside hands, to go on learning from.

    Not to align with: a hand's edge, and its shade, are where a flow goes wrong.
    """
    for done in align_frames(fitted, data, data.pictures(range(len(data))), _LATER_LOOKS, portrait.settings.seed):
        yield news(f"Aligning again with what is learned so far, frame {done} of {len(data)}")
    beside: dict[int, Tensor] = {}
    for row, inside in body_beside_hands(portrait, fitted, data):
        beside[row] = inside
        yield news(f"Telling hands from what is behind them, frame {row + 1} of {len(data)}")
    if not beside:
        return data
    shown = replace(data, inside=data.inside.clone())
    shown.inside[list(beside)] = torch.stack(list(beside.values()))
    return shown


def _packed(mask: Tensor) -> Tensor:
    """A mask ``[..., S]``, bool, as bits ``[..., S / 8]`` uint8."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy(), axis=-1))


def _unpacked(bits: Tensor, size: int) -> Tensor:
    """What was `_packed`, of ``size`` S."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1, count=size).astype(bool))


def _place(
    portrait: Portrait,
    tracked: BodyParameters,
    trained: Tensor,
    data: TrainingFrames,
    body: BodyModel,
    config: ReconstructionConfig,
    news: Callable[[float, str], Progress],
    share: float,
) -> Generator[Progress, None, Fitted]:
    """An avatar that is to be fitted to ``data``, the clip's frames ``trained``, in poses that agree with them; see `_learn`."""
    seed = portrait.settings.seed
    yield news(0.02, "Placing Gaussians on the body")
    chosen = torch.searchsorted(trained, diverse_frames(tracked, trained, config.views).cpu())
    views = data.select(chosen)
    hair, clothes = load_regions(portrait, views.frames, HAIR, CLOTHES)
    fitted = _start(body, Poses.start(body, tracked), views, hair, clothes, config)
    for _ in align_frames(fitted, data, data.pictures(chosen.tolist()), _FIRST_LOOKS, seed):
        yield news(0.05, "Placing Gaussians on the body")
    # The views now agree with one another, so that what they build anew has no double edges.
    fitted = _start(body, fitted.poses, views, hair, clothes, config)
    left, ends = (lambda done: data.pictures(range(done, len(data)))), (share * 0.06, share * 0.24)
    for done in _align_kept(portrait, fitted, data, trained.tolist(), left, _FIRST_LOOKS, _FIRST_POSES, ends):
        message = f"Aligning the body with the pictures, frame {done} of {len(data)}"
        yield news(0.06 + 0.18 * done / len(data), message)
    return _start(body, fitted.poses, views, hair, clothes, config)


def _start(
    body: BodyModel, poses: Poses, views: TrainingFrames, hair: Tensor, clothes: Tensor, config: ReconstructionConfig
) -> Fitted:
    """An avatar built from ``views`` in the poses known so far, with an untrained renderer."""
    avatar = build_avatar(
        body,
        make_views(poses.mesh(body, views.frames), body, views, poses.gain(views.frames), hair, clothes),
        config.channels,
        config.texel_pixels,
    )
    return Fitted(body, avatar, NeuralRenderer(config.channels, config.hidden).to(views.K.device), poses)


def _align_kept(
    portrait: Portrait,
    fitted: Fitted,
    data: TrainingFrames,
    frames: list[int],
    pictures: Callable[[int], Iterable[Picture]],
    looks: int,
    name: str,
    ends: tuple[float, float],
) -> Iterator[int]:
    """Align the clip's ``frames``; yields how many are done after each. Of a run that was cut off the first ones are kept in ``name``.

    Args:
        pictures: of the frames behind so many, as for `align_frames`.
        ends: shares of the stage that are done before and after.
    """
    first = done = 0
    if portrait.path(name).is_file():
        rows = portrait.load_tensors(name)
        first = done = len(rows["nodes"])
        fitted.poses.put(frames[:first], rows)

    def keep() -> None:
        portrait.save_tensors(name, fitted.poses.rows(frames[:done]))
        portrait.keep("reconstruction", ends[0] + (ends[1] - ends[0]) * done / len(frames))

    keeper = Keeper(keep)
    with keeper.on_leaving():
        for number in align_frames(fitted, data, pictures(first), looks, portrait.settings.seed):
            done = first + number
            yield done
            keeper.when_due()


def _align_rest(
    portrait: Portrait, fitted: Fitted, data: TrainingFrames, trained: Tensor, rest: list[int], share: float
) -> Iterator[int]:
    """Align the frames ``rest`` that were not ``trained`` on, one by one from the disk; yields how many are done after each."""
    if not rest:
        return
    device = data.K.device
    fitted.poses.interpolate(trained.to(device), torch.tensor(rest, device=device))
    usable = load_screening(portrait).usable
    wanted = [frame for frame in rest if usable[frame]]

    def pictures(done: int) -> Iterator[Picture]:
        return read_pictures(portrait, wanted[done:], foreground=True)

    yield from _align_kept(portrait, fitted, data, wanted, pictures, _LATER_LOOKS, _LATER_POSES, (share, 0.97))


def _steady(portrait: Portrait, fitted: Fitted, data: TrainingFrames) -> Iterator[int]:
    """Take the trembling out of the frames that were aligned, read one by one; yields how many are done after each."""
    wanted = np.flatnonzero(load_screening(portrait).usable).tolist()
    yield from steady_frames(fitted, data, read_pictures(portrait, wanted, foreground=False), portrait.settings.seed)


@torch.no_grad()
def preview(fitted: Fitted, data: TrainingFrames, index: int) -> np.ndarray:
    """The avatar at training frame ``index`` over white, ``[S, S, 3]`` uint8."""
    rendering = fitted.render(data.frames[index : index + 1], data.K[None], data.size, data.size)
    return to_uint8(rendering.over(torch.ones(3, 1, 1, device=data.K.device)))[0]


def to_uint8(images: Tensor) -> np.ndarray:
    """``[B, 3, H, W]`` in [0, 1] to ``[B, H, W, 3]`` uint8."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def save_fitted(
    portrait: Portrait, fitted: Fitted, name: str = _AVATAR, more: Mapping[str, Tensor] | None = None
) -> None:
    """Write avatar, renderer and refined tracking to ``name``, and ``more`` beside them."""
    tensors = {f"avatar.{key}": value for key, value in fitted.avatar.state_dict().items()}
    tensors |= {f"renderer.{key}": value for key, value in fitted.renderer.state_dict().items()}
    tensors |= {f"body.{key}": value for key, value in fitted.poses.refined.tensors().items()}
    tensors |= {"nodes": fitted.poses.nodes, "exposure": fitted.poses.exposure}
    portrait.save_tensors(name, tensors | dict(more or {}))


def load_fitted(portrait: Portrait, device: torch.device) -> Fitted:
    """Read what ``save_fitted`` wrote."""
    portrait.require("reconstruction")
    return read_fitted(portrait, _AVATAR, device)


def read_fitted(portrait: Portrait, name: str, device: torch.device) -> Fitted:
    """The same from the file ``name``."""
    tensors = portrait.load_tensors(name)
    if not tensors.keys() >= {"nodes", "exposure"}:
        raise InputError(f"{portrait.path(name)} was written by another version. Reconstruct the clip again.")
    body: BodyModel = load_body(portrait.settings.body, device)

    state = part_of(tensors, "avatar.")
    channels = state["features"].shape[1]
    texels = Texels(state["texel_faces"], state["barycentrics"], state["uvs"], state["spacing"])
    avatar = Avatar(state["mesh_faces"], texels, channels)
    avatar.load_state_dict(state)
    layers = part_of(tensors, "renderer.")
    renderer = NeuralRenderer(channels, len(layers["enter.bias"]) if layers else 0)
    renderer.load_state_dict(layers)
    poses = Poses.start(body, BodyParameters(**part_of(tensors, "body.")).to(device))
    poses.nodes, poses.exposure = tensors["nodes"].to(device), tensors["exposure"].to(device)
    return Fitted(body, avatar.to(device), renderer.to(device), poses)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of ``tensors`` whose names begin so, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
