"""Fits the body to a clip's landmarks: one shape and camera for the clip; pose, gaze and expression for every frame.

Damped Gauss-Newton in two stages: shape, focal length and small landmark offsets from a spread of key frames, with the
frames' own unknowns eliminated; then all frames together. The joint system of all frames is block-pentadiagonal, because
the only coupling is a quadratic penalty on accelerations. It smooths without lag and carries the person through frames
without a face. Unevenly timed frames are treated as evenly timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .body import BodyParameters, SkinnedBody, SkinnedVertices, matrix_to_axis_angle
from .evidence import (
    EYELIDS,
    FACE_COUNT,
    GAP_SIGMA,
    GAPS,
    LIPS,
    ROTATION_START,
    CropLike,
    check_plausible,
    gather_evidence,
    landmark_points,
    make_priors,
    register,
    unpack,
)
from .landmarks import FACE_POINTS, Landmarks, check_coverage
from .smoothing import bending, solve_smooth

BOUND_ROUNDS, STIFF = 4, 1e8  # how bounds are kept
FOCAL_SIGMA = 0.15  # of the logarithm of the focal length
WARM_UP_STEPS = 3  # of the shape's fit, with the shape held


@dataclass(frozen=True)
class TrackingConfig:
    """How hard to try; the defaults suit all presets."""

    key_frames: int = 24  # for shape, focal length and offsets
    shape_steps: int = 12
    pose_steps: int = 4
    focal: float = 2.2  # focal length a priori, in sides of the working image
    shape_prior: float = 60.0  # weight of the shape's prior: landmarks err together, so they must not outvote it
    offset_sigma: float = 0.003  # metres by which FaceMesh may see a point beside its mean place on the surface
    implausible: float = 0.12  # mean error of a frame above which its landmarks are not believed


@dataclass(frozen=True)
class Tracking:
    """The fitted body in the working crop of each of T frames."""

    parameters: BodyParameters
    K: Tensor  # [3, 3] pixels of the working image
    landmark_error: Tensor  # [T] mean over the 468 face points, fraction of the inter-ocular distance; NaN if bridged
    bridged: Tensor  # [T] bool: no believable face in the frame, carried over from its neighbours

    def to_tensors(self) -> dict[str, Tensor]:
        own = {"K": self.K, "landmark_error": self.landmark_error, "bridged": self.bridged}
        return own | {f"parameters.{name}": tensor for name, tensor in self.parameters.tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Tracking:
        prefix = "parameters."
        inner = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return cls(BodyParameters(**inner), tensors["K"], tensors["landmark_error"], tensors["bridged"])


def track(
    landmarks: Landmarks,
    crop: CropLike,
    body: SkinnedBody,
    config: TrackingConfig | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Tracking:
    """Fit the body to the landmarks, in the camera of the working crop.

    on_step is called with the fraction done. Raises InputError where the face is missing too long or is no plausible face.
    """
    config = config or TrackingConfig()
    report = on_step or (lambda fraction: None)
    check_coverage(landmarks.found, landmarks.timestamps)
    fit = _Fit(landmarks, crop, body, config)
    for step in fit.fit_shape():
        report(0.4 * step)
    unbelievable = fit.doubtful()
    if unbelievable.any():
        fit.data = fit.data.without(unbelievable)
        check_plausible(fit.data.seen.numpy(), landmarks)
    for step in fit.fit_frames():
        report(0.4 + 0.6 * step)
    return fit.result()


def _along(function: Callable[[Tensor], tuple[Tensor, Tensor]], at: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the function's two results along each vector of a basis, which becomes their first dimension."""
    return torch.func.vmap(lambda t: torch.func.jvp(function, (at,), (t,))[1])(basis)


class _Fit:
    """The state of one fit: observations, priors, and current estimates."""

    def __init__(self, landmarks: Landmarks, crop: CropLike, body: SkinnedBody, config: TrackingConfig) -> None:
        self.config, self.size = config, crop.size
        self.points = landmark_points(body)
        self.data = gather_evidence(landmarks, crop)
        self.prior = make_priors(body, self.data.step)
        self.joint_names = body.joint_names
        self.pose_count = ROTATION_START + 3 * len(body.joint_names)  # the unknowns before the expression's
        self.focal = torch.tensor(config.focal * crop.size)
        self.betas = torch.zeros(body.shape_count)
        self.offsets = torch.zeros(len(self.points.template), 3)
        self.unknowns = self._initialise()

    def _initialise(self) -> Tensor:
        """Unknowns [T, N] from the rigid motion that best carries the mean head onto each frame's 3D landmarks."""
        neutral = self._unpack(self.betas, torch.zeros(1, len(self.prior.mean)))
        mean = self._skin().rest(neutral)[0, :FACE_COUNT]
        target = self.data.face[:, :FACE_COUNT].nan_to_num(0.0)
        rotation, scale = register(mean, target)
        depth = self.focal / scale.clamp_min(1e-6)
        half = matrix_to_axis_angle(rotation) / 2
        unknowns = self.prior.mean.expand(len(target), -1).clone()
        for start in (ROTATION_START + 3 * self.joint_names.index(joint) for joint in ("neck", "head")):
            unknowns[:, start : start + 3] = half
        place = (target[..., :2].mean(1) - self.size / 2) / self.focal * depth[:, None]
        unknowns[:, 3:6] = torch.cat((place, depth[:, None]), dim=1)
        model = self.points.vertices(self._unpack(self.betas, unknowns))[:, :FACE_COUNT].mean(1)
        unknowns[:, 3:6] += unknowns[:, 3:6] - model
        known = torch.nonzero(self.data.seen)[:, 0].numpy()
        frames = np.arange(len(unknowns))
        for column in range(unknowns.shape[1]):  # straight lines across the gaps
            unknowns[:, column] = torch.from_numpy(np.interp(frames, known, unknowns[known, column].numpy()))
        return unknowns

    def _unpack(self, betas: Tensor, unknowns: Tensor) -> BodyParameters:
        return unpack(betas, unknowns, len(self.joint_names))

    def _skin(self) -> SkinnedVertices:
        return replace(self.points, template=self.points.template + self.offsets)

    def _residuals(self, frames: Tensor, unknowns: Tensor) -> Tensor:
        """Projected minus observed landmarks [B, 482, 2] in pixels."""
        points = self._skin().vertices(self._unpack(self.betas, unknowns))
        projected = points[..., :2] / points[..., 2:].clamp_min(0.05) * self.focal + self.size / 2
        return projected - self.data.observed[frames]

    def _robust(self, frames: Tensor, residuals: Tensor) -> Tensor:
        """Square roots of the weights [B, 482]: Huber in each point, Geman-McClure in the frame's mean error."""
        distance = residuals.norm(dim=-1) / self.data.unit[frames].nan_to_num(1.0)[:, None]
        huber = (0.04 / distance.clamp_min(1e-9)).clamp_max(1.0).sqrt()
        huber[:, FACE_POINTS:] = (0.5 / distance[:, FACE_POINTS:].clamp_min(1e-9)).clamp_max(1.0).sqrt()
        whole = 1 / (1 + (distance[:, :FACE_COUNT].mean(1, keepdim=True) / self.config.implausible).square())
        return self.data.weights[frames] * huber * whole

    def _linearise(self, frames: Tensor, shared: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weighted residuals [B, R], derivatives by the frames' unknowns [B, R, N], by betas and log focal [B, R, P + 1]
        (empty unless shared), and by each point's own place at rest [B, 482, 2, 3]."""
        skin, unknowns = self._skin(), self.unknowns[frames]
        rest = skin.rest(self._unpack(self.betas, unknowns))
        homogeneous = torch.cat((rest, torch.ones_like(rest[..., :1])), dim=-1)  # [B, L, 4]

        def posed(pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:  # [B, bones, 3, 4] and [B, Q]
            params = self._unpack(betas, torch.cat((pose, unknowns[:, self.pose_count :]), dim=1))
            return skin.bone_transforms(params), skin.pose_coefficients(params)

        pose = unknowns[:, : self.pose_count]
        blended = (skin.weights @ posed(pose, self.betas)[0].flatten(2)).unflatten(-1, (3, 4))
        linear = blended[..., :3]
        points = (blended @ homogeneous[..., None])[..., 0]
        by_bones, by_correction = _along(
            lambda p: posed(p, self.betas), pose, torch.eye(self.pose_count)[:, None].expand(-1, len(frames), -1)
        )
        by_pose = self._points_by(by_bones, homogeneous)
        if len(skin.pose_basis):
            by_pose = by_pose + linear @ torch.einsum("nbq,qlc->blcn", by_correction, skin.pose_basis)
        depth = points[..., 2:].clamp_min(0.05)
        flat = points[..., :2] / depth
        project = torch.cat((torch.eye(2).expand(*depth.shape[:2], 2, 2), -flat[..., None]), dim=-1)
        project = project * (self.focal / depth)[..., None]  # [B, L, 2, 3]
        residuals = flat * self.focal + self.size / 2 - self.data.observed[frames]
        root = self._robust(frames, residuals)[..., None]
        by_place = project * root[..., None] @ linear
        moved = torch.cat((by_pose, linear @ skin.expression_basis.permute(1, 2, 0)), dim=-1)
        by_frame = self._rows(frames, root, project @ moved, moved, points)
        by_shared = by_frame.new_zeros(len(frames), by_frame.shape[1], 0)
        if shared:
            by_bones, _ = _along(lambda b: posed(pose, b), self.betas, torch.eye(len(self.betas)))
            moved = self._points_by(by_bones, homogeneous) + linear @ skin.shape_basis.permute(1, 2, 0)
            by_focal = (flat * self.focal)[..., None]
            still = torch.zeros_like(moved[..., :1])
            seen = torch.cat((project @ moved, by_focal), dim=-1)
            by_shared = self._rows(frames, root, seen, torch.cat((moved, still), dim=-1), points)
        rows = self._rows(frames, root, residuals[..., None], points[..., None], points)[..., 0]
        rows[:, -1] -= self.data.turn[frames] * self.data.turn_weight[frames]
        return rows, by_frame, by_shared, by_place

    def _rows(self, frames: Tensor, root: Tensor, seen: Tensor, moved: Tensor, points: Tensor) -> Tensor:
        """Weighted rows [B, R, N] of the least squares: every point, the gaps between lids and lips, the shoulders' turn.

        root: [B, L, 1] weights of the points; seen: [B, L, 2, N] and moved: [B, L, 3, N] the points (or their derivatives)
        in pixels and in metres; points: [B, L, 3].
        """
        upper, lower = (list(side) for side in zip(*GAPS, strict=True))
        gap_weight = self.data.seen[frames] / (GAP_SIGMA * self.data.unit[frames].nan_to_num(1.0))
        gaps = (seen[:, upper] - seen[:, lower]) * gap_weight[:, None, None, None]
        left = FACE_POINTS
        depth = points[:, left : left + 2, 2].mean(1)
        turn = (moved[:, left, 2] - moved[:, left + 1, 2]) * (self.focal / depth * self.data.turn_weight[frames])[
            :, None
        ]
        return torch.cat(((seen * root[..., None]).flatten(1, 2), gaps.flatten(1, 2), turn[:, None]), dim=1)

    def _points_by(self, by: Tensor, homogeneous: Tensor) -> Tensor:
        """Derivatives of the points [B, L, 3, N] from those of the bones [N, B, bones, 3, 4]."""
        spread = (self.points.weights[..., None] * homogeneous[:, :, None]).flatten(2)  # [B, L, bones * 4]
        moved = spread @ by.permute(1, 2, 4, 3, 0).flatten(3).flatten(1, 2)
        return moved.unflatten(-1, (3, -1))

    def fit_shape(self) -> Iterator[float]:
        """Betas, focal length and offsets from key frames. Yields the fraction done.

        The frames' own unknowns are eliminated from each step (Schur complement). A step that makes matters worse is taken
        back and tried again, shorter.
        """
        frames, steps = self._key_frames(), self.config.shape_steps
        best, damping = float("inf"), 1e-3
        for step in range(steps + 1):
            linearised = self._linearise(frames, shared=True)
            cost = self._cost(frames, linearised[0])
            if cost < best:
                best, damping = cost, max(damping / 4, 1e-4)
                kept = (self.betas, self.focal, self.unknowns.clone(), linearised)
            else:
                damping *= 10
                self.betas, self.focal, self.unknowns, linearised = kept
                self.unknowns = self.unknowns.clone()
            if step == steps // 2:  # the offsets change the problem: start counting anew
                self._fit_offsets(linearised[0], linearised[3])
                linearised = self._linearise(frames, shared=True)
                best = self._cost(frames, linearised[0])
                kept = (self.betas, self.focal, self.unknowns.clone(), linearised)
            if step < steps:
                self._step_shape(frames, linearised, damping, hold=step < WARM_UP_STEPS)
                yield (step + 1) / steps
        self._start_from(frames)

    def _start_from(self, key_frames: Tensor) -> None:
        """Start all other frames with the fitted shape and camera and the expression of the most similar key frame."""
        fitted = self.unknowns[key_frames]
        similar = torch.cdist(self._outlines(torch.arange(len(self.unknowns))), self._outlines(key_frames)).argmin(1)
        self.unknowns = self._initialise()
        self.unknowns[:, self.pose_count :] = fitted[similar, self.pose_count :]
        self.unknowns[key_frames] = fitted

    def _outlines(self, frames: Tensor) -> Tensor:
        """A description of pose and expression of each frame, [B, D]."""
        face = self.data.face[frames, ::4]
        return ((face - face.mean(1, keepdim=True)) / self.data.unit[frames, None, None]).flatten(1).nan_to_num(0.0)

    def _cost(self, frames: Tensor, residuals: Tensor) -> float:
        """What the shape's fit minimises; the points' robust weights make it grow ever more slowly with their errors."""
        unknowns = self.prior.weight * (self.unknowns[frames] - self.prior.mean).square()
        shared = self.betas.square().sum() + (self._focal_drift() / FOCAL_SIGMA).square()
        return float(residuals.square().sum() + unknowns.sum() + self.config.shape_prior * shared)

    def _focal_drift(self) -> Tensor:
        return (self.focal / (self.config.focal * self.size)).log()

    def _step_shape(
        self, frames: Tensor, linearised: tuple[Tensor, Tensor, Tensor, Tensor], damping: float, hold: bool
    ) -> None:
        """One damped Gauss-Newton step of betas, focal length (unless held) and the frames' own unknowns."""
        residuals, by_frame, by_shared, _ = linearised
        own, gradient = self._normal_equations(frames, residuals, by_frame, damping)
        a, s = by_frame.double(), by_shared.double()
        cross = a.transpose(1, 2) @ s
        move = torch.zeros(s.shape[-1], dtype=torch.float64)
        if not hold:
            stiff = torch.diag_embed(self._held(frames, gradient) * STIFF)
            solved = torch.linalg.solve(own + stiff, torch.cat((cross, gradient[..., None]), dim=-1))
            prior = torch.full_like(move, self.config.shape_prior)
            prior[-1] /= FOCAL_SIGMA**2
            alone = (s.transpose(1, 2) @ s).sum(0)
            matrix = alone + torch.diag(damping * alone.diagonal() + prior)
            matrix = matrix - (cross.transpose(1, 2) @ solved[..., :-1]).sum(0)
            downhill = (
                s.transpose(1, 2) @ residuals.double()[..., None] - cross.transpose(1, 2) @ solved[..., -1:]
            ).sum(0)
            drift = torch.cat((self.betas, self._focal_drift()[None]))
            move = -torch.linalg.solve(matrix, downhill[:, 0] + prior * drift)
        self.betas = self.betas + move[:-1].float()
        self.focal = self.focal * move[-1].clamp(-0.2, 0.2).exp().float()
        self._move(frames, own, gradient + cross @ move, torch.linalg.solve)

    def _fit_offsets(self, residuals: Tensor, by_place: Tensor) -> None:
        """Move each face point near its mean place on the surface, given everything else.

        residuals: [B, R] rows of `_linearise`; by_place: [B, L, 2, 3].
        """
        share = min(1.0, 6 / len(residuals))  # the frames repeat one another, so they count as a few
        own = residuals[:, : 2 * by_place.shape[1]].unflatten(1, (-1, 2))
        matrix = share * torch.einsum("blcx,blcy->lxy", by_place, by_place)
        right = share * torch.einsum("blcx,blc->lx", by_place, own) - (matrix @ self.offsets[..., None])[..., 0]
        sigma = torch.full((len(matrix), 1, 1), self.config.offset_sigma)
        sigma[[*LIPS, *EYELIDS]] /= 10  # else they would take over the opening of mouth and eyes from the expression
        offsets = -torch.linalg.solve(matrix + torch.eye(3) / sigma**2, right)
        offsets[FACE_COUNT:] = 0
        self.offsets = offsets

    def fit_frames(self) -> Iterator[float]:
        """Unknowns of all frames together, shape and camera held. Yields the fraction done."""
        total, batch = len(self.unknowns), 64
        smoothness = self.prior.smoothness.double()
        gradient = torch.empty(self.unknowns.shape, dtype=torch.float64)
        own = torch.empty((*gradient.shape, gradient.shape[1]), dtype=torch.float64)  # most of what a long clip takes
        for step in range(self.config.pose_steps):
            for start in range(0, total, batch):
                frames = torch.arange(start, min(start + batch, total))
                residuals, by_frame, _, _ = self._linearise(frames, shared=False)
                own[frames], gradient[frames] = self._normal_equations(frames, residuals, by_frame, damping=1e-4)
            gradient += smoothness * bending(self.unknowns.double())
            self._move(torch.arange(total), own, gradient, lambda m, g: solve_smooth(m, smoothness, g))
            yield (step + 1) / self.config.pose_steps

    def _normal_equations(
        self, frames: Tensor, residuals: Tensor, by_frame: Tensor, damping: float
    ) -> tuple[Tensor, Tensor]:
        """Matrix [B, N, N] and gradient [B, N] of the frames' own unknowns, priors included, in double precision."""
        prior, rows = self.prior.weight.double(), by_frame.double()
        matrix = rows.transpose(1, 2) @ rows
        matrix = matrix + torch.diag_embed(damping * matrix.diagonal(dim1=1, dim2=2) + prior)
        gradient = (rows.transpose(1, 2) @ residuals.double()[..., None])[..., 0]
        return matrix, gradient + prior * (self.unknowns[frames] - self.prior.mean)

    def _held(self, frames: Tensor, gradient: Tensor) -> Tensor:
        """Mask [B, N] of the unknowns that rest on a bound and would leave it downhill."""
        here = self.unknowns[frames]
        return ((here <= self.prior.low) & (gradient > 0)) | ((here >= self.prior.high) & (gradient < 0))

    def _move(
        self, frames: Tensor, matrix: Tensor, gradient: Tensor, solve: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """Take the Gauss-Newton step of the frames' unknowns within their bounds; the matrix is changed.

        Clipping the free step would not do: unknowns that work against each other would overshoot. Those that would leave
        their bounds are held on them and the others solved again.
        """
        here, low, high = self.unknowns[frames].double(), self.prior.low.double(), self.prior.high.double()
        target, held = here, self._held(frames, gradient)
        diagonal = matrix.diagonal(dim1=1, dim2=2)  # stiffened in place: a long clip leaves no room for copies
        free = diagonal.clone()
        for _ in range(BOUND_ROUNDS):
            stiff = held * STIFF
            diagonal.copy_(free + stiff)
            there = here - solve(matrix, gradient + stiff * (here - target))
            beyond = ((there < low) | (there > high)) & ~held
            if not beyond.any():
                break
            target, held = torch.where(beyond, there.clamp(low, high), target), held | beyond
        self.unknowns[frames] = there.clamp(low, high).float()

    def _key_frames(self) -> Tensor:
        """Frames that differ most from one another: farthest-point sampling of the landmarks, the middle one first."""
        known = torch.nonzero(self.data.seen)[:, 0]
        shapes = self._outlines(known)
        chosen = [int((shapes - shapes.median(0).values).norm(dim=1).argmin())]
        distance = (shapes - shapes[chosen[0]]).norm(dim=1)
        while len(chosen) < min(self.config.key_frames, len(known)):
            chosen.append(int(distance.argmax()))
            distance = torch.minimum(distance, (shapes - shapes[chosen[-1]]).norm(dim=1))
        return known[torch.tensor(sorted(chosen))]

    def errors(self) -> Tensor:
        """Mean face landmark error of each frame [T] as a fraction of the inter-ocular distance; NaN where unseen."""
        frames = torch.arange(len(self.unknowns))
        distance = self._residuals(frames, self.unknowns)[:, :FACE_COUNT].norm(dim=-1).mean(1) / self.data.unit
        return torch.where(self.data.seen, distance, torch.nan)

    def doubtful(self) -> Tensor:
        """Mask [T] of the seen frames whose landmarks do not fit even with a pose and expression of their own."""
        frames = torch.nonzero(self.data.seen)[:, 0]
        for _ in range(3):
            for part in frames.split(64):
                residuals, by_frame, _, _ = self._linearise(part, shared=False)
                own, gradient = self._normal_equations(part, residuals, by_frame, damping=1e-3)
                self._move(part, own, gradient, torch.linalg.solve)
        return self.errors().nan_to_num(0.0) > self.config.implausible

    def result(self) -> Tracking:
        focal, centre = float(self.focal), self.size / 2
        K = torch.tensor(((focal, 0.0, centre), (0.0, focal, centre), (0.0, 0.0, 1.0)))
        parameters = self._unpack(self.betas, self.unknowns).detach()
        return Tracking(parameters, K, self.errors(), ~self.data.seen)
