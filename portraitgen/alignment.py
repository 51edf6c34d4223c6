"""Alignment of the posed avatar with the clip's pictures, which landmarks alone leave off by several pixels.

Optical flow from the avatar's render to the frame says, for every visible Gaussian, how far it lies beside its place in the picture. One
regularised least-squares step moves joints, facial actions and the nodes of `poses` there (Gauss-Newton with the flow in place of a colour
gradient, which sees only a pixel far). What is left between the colours of both is the camera's gain. A frame is placed in one to three
renders without any backward pass, where refinement by gradient descent takes dozens; appearance learned on aligned frames is sharp.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

from .avatar import on_surface, triangle_frames
from .body import BodyParameters
from .cores import threads_shared_by, usable_cores
from .fitting import Fitted
from .flow import SHRINK, gray, masked_gray, optical_flow, shrunk
from .frames import Picture, TrainingFrames
from .initialization import DEPTH_TOLERANCE, project
from .mesh import rasterize_mesh
from .poses import PosedMesh
from .rasterization import rasterize
from .streaming import breathe

_FAR = 8.0  # pixels of motion that are half trusted
_NOISE = 0.5  # pixels
_SETTLED = 0.75  # pixels found left by a look after which another one changes next to nothing
_STEP = 0.03  # of the finite differences, standard deviations
_INDEPENDENT = 300.0  # how many independent measurements the points are worth, however many there are
_OPAQUE = 0.3
_COVERED, _DARK, _BRIGHT = 0.95, 0.08, 0.95  # alpha and colours of pixels that tell of the camera's gain
_ENOUGH = 200  # of these pixels
_LARGEST_GAIN = 0.7  # logarithm
_STEADYING_POINTS = 800  # Gaussians looked at while frames are compared with their neighbours
_STEADINESS = 8.0  # how much more the motion between two frames is trusted than where either lies: three frames to both sides count
_MOST_AT_ONCE = 8  # frames with a GPU, each of which takes some memory there

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class AlignmentConfig:
    """How far, as standard deviations, the pictures may move what tracking found; and how many Gaussians are looked at."""

    points: int = 1600
    rotation: float = 0.04  # radians, joints
    global_rotation: float = 0.05  # radians
    expression: float = 0.3  # of the body's own standard deviations
    translation: float = 0.01  # metres
    node: float = 0.005  # metres


class Alignment:
    """Aligns frames with an avatar that stands still meanwhile; changes ``fitted.poses`` in place.

    Args:
        fitted: avatar and poses.
        K: intrinsics of the working image ``[3, 3]``.
        size: S, of the working image.
        seed: of the choice of Gaussians.
    """

    def __init__(self, fitted: Fitted, K: Tensor, size: int, seed: int, config: AlignmentConfig | None = None) -> None:
        self.fitted, self.config = fitted, config or AlignmentConfig()
        self.whole, self.size = (size, K), size // SHRINK
        self.K = K.clone()
        self.K[:2] /= SHRINK
        avatar = fitted.avatar
        solid = (torch.sigmoid(avatar.opacity_logits) > _OPAQUE).nonzero().squeeze(1).cpu()
        order = torch.randperm(len(solid), generator=torch.Generator().manual_seed(seed))
        self.points = solid[order[: self.config.points]].to(K.device)
        corners = avatar.mesh_faces[avatar.texel_faces[self.points]]
        self.vertices, inverse = torch.unique(corners, return_inverse=True)
        self.corners = inverse.view(-1, 3)
        self.skin = fitted.body.subset(self.vertices)
        influence = fitted.poses.basis[corners] * avatar.barycentrics[self.points][..., None]
        self.sigma = self._scales()
        self.influence = influence.sum(1) * self.config.node  # [P, K]

    @torch.no_grad()
    def align(self, frame: int, image: Tensor, alpha: Tensor, inside: Tensor, looks: int) -> float:
        """Align one frame of the clip.

        Args:
            frame: its index.
            image: straight foreground colour ``[3, S, S]`` in [0, 1].
            alpha: ``[1, S, S]``.
            inside: pixels of which something is known ``[S, S]``, bool; the others are not looked at.
            looks: at most so many renders; fewer where the frame is in place before.

        Returns:
            Motion that the last look found left, in pixels of the working image; 0 where nothing could be seen.
        """
        image, alpha, inside = shrunk(image * alpha), shrunk(alpha), inside[::SHRINK, ::SHRINK]
        target = gray(image, alpha[0])
        where = torch.tensor([frame], device=self.K.device)
        derivatives, left = self._derivatives(where), 0.0
        for _ in range(looks):
            places, moved, trust = self._look(where, image, alpha, inside, target)
            left = SHRINK * float((trust * moved.norm(dim=1)).sum() / trust.sum().clamp_min(1e-6))
            self.move(frame, self._solve(derivatives, places, moved, trust, self._corrections(frame)))
            if left < _SETTLED:
                break
        return left

    @torch.no_grad()
    def strayed(self, frame: int, flow: np.ndarray, trust: np.ndarray, inside: Tensor) -> Tensor:
        """The change ``[N]`` of the frame after ``frame`` that would put its body where the clip's own motion takes that of ``frame``.

        Args:
            flow, trust: from the one picture to the other, see `optical_flow`.
            inside: pixels of both of which something is known ``[S, S]``, bool.
        """
        pair = torch.tensor([frame, frame + 1], device=self.K.device)
        mesh = self.fitted.mesh(pair)
        before, after = self._means(mesh.skinned[:, self.vertices], mesh.vertices[:, self.vertices])
        (xy, _), motion, known = self._measured(mesh[:1], before, flow, trust, inside[::SHRINK, ::SHRINK])
        places = project(after, self.K)
        nothing = torch.zeros_like(self.sigma)
        return self._solve(self._derivatives(pair[1:]), places, xy + motion - places[0], known, nothing)

    def _solve(
        self, derivatives: Tensor, places: tuple[Tensor, Tensor], moved: Tensor, trust: Tensor, corrections: Tensor
    ) -> Tensor:
        """The change ``[N]`` of all ``corrections`` so far ``[N]`` that moves the points from their ``places`` by ``moved`` ``[P, 2]``."""
        weight = trust / (1 + (moved.norm(dim=1) / _FAR) ** 2) * (_INDEPENDENT / len(self.points)) / _NOISE**2
        matrix, right = _normal_equations(*self._project(derivatives, *places), moved, weight)
        matrix.diagonal().add_(1)
        factor = torch.linalg.cholesky(matrix)
        return self.sigma * torch.cholesky_solve((right - corrections / self.sigma)[:, None], factor)[:, 0]

    def _look(
        self, where: Tensor, image: Tensor, cover: Tensor, inside: Tensor, target: np.ndarray
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Render a frame and measure its exposure against ``image`` (premultiplied) ``inside``; pixel ``[P, 2]`` and depth ``[P]`` of each
        point, its motion to the target ``[P, 2]`` and trust in it ``[P]``."""
        fitted, avatar = self.fitted, self.fitted.avatar
        mesh = fitted.mesh(where)
        posed = avatar(mesh)
        view = torch.eye(4, device=self.K.device)[None]
        colors = posed.features[:, :3] * fitted.poses.gain(where)
        gaussians = posed.means, posed.quats, posed.scales, posed.opacities, colors
        # Rendered whole and then shrunk, like the target: rendered small, the rasteriser's blur weighs twice, which biases the flow.
        size, K = self.whole
        picture, alpha = (x.permute(0, 3, 1, 2) for x in rasterize(*gaussians, view, K[None], size, size))
        # Beyond the clip's picture and behind hands the body goes on in the render only, which the flow would take for motion.
        small = torch.where(inside, shrunk(picture[0]), image)
        coverage = torch.where(inside, shrunk(alpha[0]), cover)
        self._expose(where, small, image, inside & (torch.minimum(coverage, cover)[0] > _COVERED))
        flow, trust = optical_flow(gray(small, coverage[0]), target)
        return self._measured(mesh, posed.means[0, self.points], flow, trust, inside)

    def _measured(
        self, mesh: PosedMesh, means: Tensor, flow: np.ndarray, trust: np.ndarray, inside: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Pixel ``[P, 2]`` and depth ``[P]`` of the points at ``means`` ``[P, 3]`` on one frame's ``mesh``; the ``flow`` ``[P, 2]`` and the
        ``trust`` ``[P]`` there, none where they are hidden or not ``inside``."""
        _, _, depths = rasterize_mesh(mesh.vertices, self.fitted.body.faces, self.K, self.size, self.size)
        depths = torch.where(depths > 0, depths, torch.inf)[0]
        xy, depth = project(means, self.K)
        within = ((xy >= 1) & (xy < self.size - 1)).all(1)
        column, row = xy.long().clamp(0, self.size - 1).unbind(1)
        visible = within & inside[row, column] & (depth < depths[row, column] + DEPTH_TOLERANCE)
        measured = torch.from_numpy(np.dstack([flow, trust])).to(self.K.device)[row, column]
        return (xy, depth), measured[:, :2], measured[:, 2] * visible

    def _expose(self, where: Tensor, picture: Tensor, image: Tensor, known: Tensor) -> None:
        """Enter the gain at which a frame's render ``[3, h, w]`` has the colours of its ``image``: the middle one of the ratios of all
        ``known`` pixels ``[h, w]``."""
        poses = self.fitted.poses
        both = torch.stack([picture, image])
        telling = known & (both > _DARK).all(1).all(0) & (both < _BRIGHT).all(1).all(0)
        if telling.sum() < _ENOUGH:
            return
        ratio = (image[:, telling] / picture[:, telling]).log().median(1).values
        poses.exposure[where] = (poses.gain(where).log() + ratio).clamp(-_LARGEST_GAIN, _LARGEST_GAIN)

    def _derivatives(self, where: Tensor) -> Tensor:
        """Derivatives ``[M, P, 3]`` of the points' places in metres by the body's M parameters in units of sigma, by finite differences."""
        refined = self.fitted.poses.refined[where]
        steps = _STEP * self.sigma[: -2 * self.influence.shape[1]]
        change = torch.cat([torch.zeros_like(steps)[None], torch.diag(steps)])
        parts = change.split([refined.rotations[0].numel(), refined.expression.shape[1], 3, 3], dim=1)
        parameters = BodyParameters(
            refined.betas,
            refined.rotations + parts[0].unflatten(1, (-1, 3)),
            refined.expression + parts[1],
            refined.global_rotation + parts[2],
            refined.translation + parts[3],
        )
        vertices = self.skin.vertices(parameters)
        means = self._means(vertices, vertices)
        return (means[1:] - means[:1]) / _STEP

    def _means(self, skinned: Tensor, vertices: Tensor) -> Tensor:
        """Places ``[B, P, 3]`` of the points, as `Avatar` poses them, from the vertices of their triangles ``[B, V, 3]`` without and with
        what the nodes add."""
        avatar = self.fitted.avatar
        surface = on_surface(vertices, self.corners, avatar.barycentrics[self.points])
        return surface + (triangle_frames(skinned, self.corners) @ avatar.offsets[self.points][..., None]).squeeze(-1)

    def _project(self, derivatives: Tensor, xy: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of the points' pixels ``[M, P, 2]`` by the body's parameters, of their x ``[K, P]`` by the nodes' x, of y by y.

        All by one standard deviation of the corrections, in which the least squares are well conditioned.
        """
        scale = self.K.diagonal()[:2] / depth[:, None]
        slope = (xy - self.K[:2, 2]) / self.K.diagonal()[:2]
        body = (derivatives[..., :2] - slope * derivatives[..., 2:]) * scale
        return body, (self.influence * scale[:, :1]).T, (self.influence * scale[:, 1:]).T

    def _scales(self) -> Tensor:
        """Standard deviation of all corrections a priori ``[N]``."""
        config, expression = self.config, self.fitted.body.expression_prior.sigma
        parts = [
            torch.full((self.fitted.poses.refined.rotations[0].numel(),), config.rotation),
            config.expression * expression.cpu(),
            torch.full((3,), config.global_rotation),
            torch.full((3,), config.translation),
        ]
        nodes = torch.full((2 * self.fitted.poses.basis.shape[1],), config.node)
        return torch.cat([*parts, nodes]).to(self.K.device)

    def _corrections(self, frame: int) -> Tensor:
        """What separates a frame from its tracking, nodes included ``[N]``."""
        poses = self.fitted.poses
        now, before = poses.refined, poses.tracked
        return torch.cat(
            [
                (now.rotations[frame] - before.rotations[frame]).flatten(),
                now.expression[frame] - before.expression[frame],
                now.global_rotation[frame] - before.global_rotation[frame],
                now.translation[frame] - before.translation[frame],
                poses.nodes[frame, :, 0],
                poses.nodes[frame, :, 1],
            ]
        )

    def move(self, frame: int, change: Tensor) -> None:
        """Add ``change`` ``[N]`` to the corrections of a frame."""
        poses = self.fitted.poses
        now, nodes = poses.refined, self.influence.shape[1]
        rotations, expression, turn, shift, x, y = change.split(
            [now.rotations[frame].numel(), now.expression.shape[1], 3, 3, nodes, nodes]
        )
        now.rotations[frame] += rotations.view(-1, 3)
        now.expression[frame] += expression
        now.global_rotation[frame] += turn
        now.translation[frame] += shift
        poses.nodes[frame] += torch.stack([x, y], 1)


def _normal_equations(
    body: Tensor, across: Tensor, down: Tensor, moved: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Matrix ``[N, N]`` and right side ``[N]`` of the least squares in which the unknowns explain the motion of the points.

    By blocks, for a node that shifts a point across never shifts it down: a third of the work of the product as a whole.

    Args:
        body, across, down: derivatives as `Alignment._project` returns them, ``[M, P, 2]``, ``[K, P]`` and ``[K, P]``; N is M + 2 K.
        moved: motion in pixels ``[P, 2]``.
        weight: of each point ``[P]``.
    """
    m, k = len(body), len(across)
    matrix = body.new_zeros(m + 2 * k, m + 2 * k)
    right = body.new_empty(m + 2 * k)
    heavy = body * weight[:, None]
    matrix[:m, :m] = heavy.flatten(1) @ body.flatten(1).T
    right[:m] = heavy.flatten(1) @ moved.flatten()
    for axis, nodes in enumerate((across, down)):
        part = slice(m + axis * k, m + (axis + 1) * k)
        matrix[part, part] = (nodes * weight) @ nodes.T
        matrix[part, :m] = nodes @ heavy[..., axis].T
        matrix[:m, part] = matrix[part, :m].T
        right[part] = nodes @ (weight * moved[:, axis])
    return matrix, right


def align_frames(
    fitted: Fitted, data: TrainingFrames, pictures: Iterable[Picture], looks: int, seed: int
) -> Iterator[int]:
    """Align frames of the clip with the avatar as it is; yields how many are done after each.

    A few frames are worked on at a time. On a CPU, with a thread for each frame, that fills the cores; one frame's small operations do not
    (0.13 seconds a frame on two cores against 0.19 with torch's threads in one frame and 0.23 on one core). With a GPU, the
    flow is measured on the CPU all the same, and what waits in one frame for the GPU's numbers does not hold up the others: all threads
    give their work to one CUDA stream, in whose order it is done. Frames do not depend on each other, so the result does not depend on how
    many.

    Args:
        fitted: avatar and poses; the poses of these frames change.
        data: the clip's camera and the size of its frames.
        pictures: a stream, of which only the frames in work are held.
        looks: at most so many renders of each frame.
        seed: of the choice of Gaussians.
    """
    alignment = Alignment(fitted, data.K, data.size, seed)

    def work(picture: Picture) -> None:
        image, alpha, inside = (x.to(data.K.device) for x in (picture.image, picture.alpha, picture.inside))
        alignment.align(picture.frame, image.float() / 255, alpha.float() / 255, inside, looks)

    for done, _ in enumerate(_side_by_side(work, pictures, data.K.device), 1):
        yield done


def steady_frames(fitted: Fitted, data: TrainingFrames, pictures: Iterable[Picture], seed: int) -> Iterator[int]:
    """Take the trembling out of aligned poses; yields how many frames are done after each.

    Each frame is aligned by itself, to some tenths of a pixel that are another error in every frame. From one frame to the next the clip's
    own optical flow knows the motion better: poses are moved towards what their neighbours and the flow say, as a running average is, but
    along the motion, so that nothing lags. Frames that are left out of ``pictures`` stay as they are.

    Args:
        fitted: avatar and poses.
        data: the clip's camera and the size of its frames.
        pictures: a stream, in order; on the CPU.
        seed: of the choice of Gaussians.
    """
    alignment = Alignment(fitted, data.K, data.size, seed, AlignmentConfig(points=_STEADYING_POINTS))

    def work(pair: tuple[tuple[int, np.ndarray, Tensor], tuple[int, np.ndarray, Tensor]]) -> tuple[int, Tensor] | None:
        (frame, before, here), (following, after, there) = pair
        if following != frame + 1:
            return None
        return following, alignment.strayed(frame, *optical_flow(before, after), (here & there).to(data.K.device)).cpu()

    grays = ((frame, masked_gray(image, alpha), inside) for frame, image, alpha, inside in pictures)
    links: dict[int, Tensor] = {}
    for done, link in enumerate(_side_by_side(work, itertools.pairwise(grays), data.K.device), 2):
        if link is not None:
            links[link[0]] = link[1]
        yield done
    if links:
        change = _between_neighbours(links, len(fitted.poses.refined)).to(data.K)
        for frame in range(len(change)):
            alignment.move(frame, change[frame])


def _between_neighbours(links: dict[int, Tensor], count: int) -> Tensor:
    """Changes ``[count, N]`` of all frames: small ones, after which little is left of how far each frame strayed from the one before it.

    Args:
        links: by frame, the change ``[N]`` that would put it where the frame before it says.
    """
    size = len(next(iter(links.values())))
    wanted, weight = np.zeros((count, size)), np.zeros(count)
    for frame, change in links.items():
        wanted[frame], weight[frame] = change.numpy(), _STEADINESS
    follows = np.append(weight[1:], 0)
    matrix = np.stack([np.append(0, -weight[1:]), 1 + weight + follows])  # tridiagonal, its upper half
    right = weight[:, None] * wanted
    right[:-1] -= follows[:-1, None] * wanted[1:]
    return torch.from_numpy(solveh_banded(matrix, right)).float()


def _side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item], device: torch.device) -> Iterator[_Result]:
    """What ``work`` makes of each item, in order, a few at a time."""
    workers, stream = _at_once(device), iter(items)
    with threads_shared_by(workers), ThreadPoolExecutor(workers, "align") as pool:
        while chunk := list(itertools.islice(stream, workers)):
            breathe()
            yield from pool.map(work, chunk)


def _at_once(device: torch.device) -> int:
    """How many frames are worked on at a time."""
    return torch.get_num_threads() if device.type == "cpu" else min(usable_cores(), _MOST_AT_ONCE)
