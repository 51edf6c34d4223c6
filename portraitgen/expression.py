"""Expression guidance: what keeps an edited face's expression that of the clip (PortraitGen, section 3.3.1, Eq. 14).

The paper compares EMOCA's expression codes. Here the built-in encoder is MediaPipe's FaceMesh network (``face_landmark.tflite`` of its
wheel, Apache-2.0), run in torch so that it has gradients: expression is where lips, lids, brows and jaw lie on the face. Encoders that a
person brings (`portraitgen.smirk`) take its place behind one protocol.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .regions import BROW_OUTLINES, EYE_OUTLINES, LIPS_INNER, LIPS_OUTER
from .streaming import breathe
from .tflite import Network

FACE_POINTS = 468

# Places that no expression moves, left and right of the picture, and down the middle: they say how the face lies.
_SIDES = ((33, 263), (133, 362), (127, 356), (98, 327), (67, 297), (109, 338))
_MIDDLE = ((10, 168), (168, 5))
_JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)
_PARTS = (
    (1.0, LIPS_OUTER + LIPS_INNER),
    (1.0, EYE_OUTLINES[0] + EYE_OUTLINES[1]),
    (0.5, BROW_OUTLINES[0] + BROW_OUTLINES[1]),
    (0.3, _JAW),
)
# Openings: lids, lips, the mouth's width, brows above lids. They tell an expression from a feature that lies elsewhere.
_OPENINGS = (
    *((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)),
    *((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (61, 291), (78, 308)),
    *((105, 159), (334, 386), (66, 158), (296, 385)),
)
_OPENING_WEIGHT = 2.0


class ExpressionEncoder(Protocol):
    """A differentiable network that reads the expression of a face.

    Attributes:
        name: shown to the person.
        size: side of the square pictures that it looks at.
        scale: of a difference between two features that can be seen; smaller ones count little, larger ones in proportion.
    """

    name: str
    size: int
    scale: float

    def squares(self, landmarks: Tensor) -> Tensor:
        """Where it looks: squares ``[B, 4]`` as of `face_squares`, from FaceMesh landmarks ``[B, 478, 2 or 3]`` in pixels."""
        ...

    def features(self, crops: Tensor) -> Tensor:
        """Features ``[B, D]`` of faces ``[B, 3, size, size]`` in [0, 1]; differentiable."""
        ...


def face_squares(landmarks: Tensor) -> Tensor:
    """The squares in which MediaPipe looks for the landmarks of a face that it follows.

    Args:
        landmarks: FaceMesh points ``[B, 468 or 478, 2 or 3]`` in pixels.

    Returns:
        ``[B, 4]``: centre x and y in pixels, side in pixels, clockwise angle in radians. Half as large again as the longer side of the
        points' upright box, turned with the line between the outer corners of the eyes.
    """
    points = landmarks[:, :FACE_POINTS, :2]
    low, high = points.amin(1), points.amax(1)
    across = points[:, 263] - points[:, 33]
    return torch.cat(
        [(low + high) / 2, 1.5 * (high - low).amax(1, keepdim=True), torch.atan2(across[:, 1], across[:, 0])[:, None]],
        1,
    )


def crop_faces(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Cut ``squares`` ``[B, 4]`` (see `face_squares`) out of ``[B, C, H, W]``, bilinearly, as ``[B, C, size, size]``.

    Beyond the picture its border is repeated, as MediaPipe does. Differentiable in ``image``.
    """
    height, width = image.shape[-2:]
    steps = (torch.arange(size, dtype=image.dtype, device=image.device) + 0.5) / size - 0.5
    across, down = torch.meshgrid(steps, steps, indexing="xy")
    centre_x, centre_y, side, angle = (values.view(-1, 1, 1) for values in squares.to(image).unbind(1))
    x = centre_x + side * (angle.cos() * across - angle.sin() * down)
    y = centre_y + side * (angle.sin() * across + angle.cos() * down)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


class FaceMesh:
    """MediaPipe's landmark network in torch. Agrees with MediaPipe's own interpreter to 1e-4 of a crop's pixel.

    The weights are shared by the process and frozen; an object holds no state.
    """

    name = "FaceMesh"
    size = 192
    scale = 0.02

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.network = _network(str(device))

    def squares(self, landmarks: Tensor) -> Tensor:
        return face_squares(landmarks)

    def points(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks ``[B, 468, 3]`` in the crops' pixels (z on the scale of x), and how surely there is a face ``[B]``, in 0..1."""
        points, score = self.network(crops)
        return points.reshape(-1, FACE_POINTS, 3), score.flatten().sigmoid()

    def features(self, crops: Tensor) -> Tensor:
        return expression_of(self.points(crops)[0])


@functools.lru_cache(maxsize=4)
def _network(device: str) -> Network:
    import importlib.util

    specification = importlib.util.find_spec("mediapipe")  # not imported: it takes seconds
    if specification is None or specification.origin is None:
        raise ModuleNotFoundError("mediapipe is not installed, and FaceMesh's weights come with it")
    file = Path(specification.origin).parent / "modules" / "face_landmark" / "face_landmark.tflite"
    return Network(file).eval().requires_grad_(False).to(device)


def expression_of(points: Tensor) -> Tensor:
    """Expression ``[B, D]`` in FaceMesh points ``[B, 468, 2 or 3]``, whatever the face's place, size and roll in the picture.

    Weighted coordinates of lips, lids, brows and jaw in a frame that hangs on eye corners, nose and forehead, and weighted openings of
    mouth and eyes. The unit is about half of the distance between the outer corners of the eyes.
    """
    points = points[..., :2]
    left, right = points[:, [pair[0] for pair in _SIDES]], points[:, [pair[1] for pair in _SIDES]]
    above, below = points[:, [pair[0] for pair in _MIDDLE]], points[:, [pair[1] for pair in _MIDDLE]]
    still = torch.cat([left, right], 1)
    centre = still.mean(1, keepdim=True)
    unit = (still - centre).square().sum(2).mean(1).sqrt().clamp_min(1e-3)
    across, down = (right - left).sum(1), (below - above).sum(1)
    axis = F.normalize(across + torch.stack([down[:, 1], -down[:, 0]], 1), dim=1)
    x, y = ((points - centre) / unit[:, None, None]).unbind(2)
    cosine, sine = axis[:, :1], axis[:, 1:]
    own = torch.stack([cosine * x + sine * y, cosine * y - sine * x], 2)
    first, second = own[:, [pair[0] for pair in _OPENINGS]], own[:, [pair[1] for pair in _OPENINGS]]
    openings = ((first - second).square().sum(2) + 1e-8).sqrt()
    parts = [weight * own[:, list(numbers)].flatten(1) for weight, numbers in _PARTS]
    return torch.cat([*parts, _OPENING_WEIGHT * openings], 1)


@dataclass(frozen=True)
class Features:
    """Expression of some faces: ``values`` ``[B, D]``, ``presence`` ``[B]`` in 0..1 (how surely there is a face at all)."""

    values: Tensor
    presence: Tensor


class ExpressionLoss(nn.Module):
    """How far the expression of rendered faces is from that of the clip's.

    A picture in which FaceMesh does not find a face (a mosaic, a very dark look) weighs next to nothing, so that nonsense landmarks do not
    bend the avatar.

    Args:
        device: where the pictures are.
        encoder: what reads the expression; FaceMesh if None.
    """

    def __init__(self, device: torch.device | str = "cpu", encoder: ExpressionEncoder | None = None) -> None:
        super().__init__()
        self.mesh = FaceMesh(device)
        self.encoder: ExpressionEncoder = encoder or self.mesh

    def features(self, image: Tensor, landmarks: Tensor) -> Features:
        """Expression of the faces in ``[B, 3, H, W]`` in [0, 1] where the tracker saw them.

        Args:
            landmarks: FaceMesh points ``[B, 478, 2 or 3]`` in the picture's pixels; NaN for a face that was not seen: it counts nothing.
        """
        known = torch.isfinite(landmarks).flatten(1).all(1)
        landmarks = torch.where(known[:, None, None], landmarks, _anywhere(landmarks))
        crops = crop_faces(image, face_squares(landmarks), self.mesh.size)
        if self.encoder is self.mesh:
            points, presence = self.mesh.points(crops)
            values = expression_of(points)
        else:
            with torch.no_grad():
                presence = self.mesh.points(crops)[1]
            values = self.encoder.features(crop_faces(image, self.encoder.squares(landmarks), self.encoder.size))
        return Features(values, presence.detach() * known)

    def compare(self, features: Features, target: Features) -> Tensor:
        """Scalar: mean of the `distances`, weighted by the presence of both faces."""
        return (self.distances(features, target) * features.presence * target.presence).mean()

    def distances(self, features: Features, target: Features) -> Tensor:
        """Pseudo-Huber distance of each pair of faces ``[B]`` in units of the encoder's scale, whether there are faces or not."""
        difference = (features.values - target.values.detach()) / self.encoder.scale
        return ((1 + difference.square()).sqrt() - 1).mean(1)

    def forward(self, image: Tensor, target: Tensor, landmarks: Tensor) -> Tensor:
        """Compare ``image`` with ``target``, both ``[B, 3, H, W]`` in [0, 1] with the same ``landmarks`` ``[B, 478, 2 or 3]``."""
        with torch.no_grad():
            wanted = self.features(target, landmarks)
        return self.compare(self.features(image, landmarks), wanted)


def _anywhere(landmarks: Tensor) -> Tensor:
    """Points that give a proper square, for faces that are not known."""
    count, depth = landmarks.shape[1:]
    return torch.linspace(0, 64, count, device=landmarks.device, dtype=landmarks.dtype)[:, None].expand(count, depth)


class ExpressionCorrection:
    """Brings the expression of edited key frames back to the clip's, by bending the pictures smoothly around mouth and eyes.

    Asked of the avatar's colours, the network's gradient paints coloured grain that the network takes for a face and nobody else does: so
    it answers as a loss term of fitting. A smooth field of few numbers cannot do that; so the field is what descends the gradient, once
    for every key frame, and the fit sees pictures whose expression is right.

    It is for editors that redraw faces, as diffusion does. Pictures of a structure-preserving look have the clip's expression already, and
    where the look is strong (bronze) FaceMesh misreads them by as much as a mild drift: leave those alone.

    Args:
        loss: what compares.
        steps: of descent.
    """

    def __init__(self, loss: ExpressionLoss, steps: int = 16) -> None:
        self.loss, self.steps = loss, steps

    def __call__(self, edited: Tensor, source: Tensor, landmarks: Tensor) -> Tensor:
        """Bend ``edited`` ``[B, 3, H, W]`` towards the expression of ``source``, both in [0, 1].

        Args:
            landmarks: FaceMesh points of the source ``[B, 478, 2 or 3]`` in pixels, NaN where there are none.

        Returns:
            ``[B, 3, H, W]``; a picture stays as it is where either face is not found, or where bending does not help.
        """
        with torch.no_grad():
            target = self.loss.features(source, landmarks)
            before = self.loss.features(edited, landmarks)
        usable = (before.presence > 0.5) & (target.presence > 0.5)
        if not bool(usable.any()):
            return edited
        target = Features(target.values, torch.ones_like(target.presence))
        place, scale = _placed(edited, torch.where(usable[:, None, None], landmarks, _anywhere(landmarks)))
        field = torch.zeros(len(edited), 2, _GRID, _GRID, device=edited.device, requires_grad=True)
        optimizer = torch.optim.Adam([field], lr=_FIELD_RATE)
        with torch.enable_grad():
            for _ in range(self.steps):
                breathe()
                found = self.loss.features(_bent(edited, field, place, scale), landmarks)
                stiff = (field[..., 1:, :] - field[..., :-1, :]).square().sum()
                stiff = stiff + (field[..., :, 1:] - field[..., :, :-1]).square().sum()
                distance = self.loss.distances(found, target)
                optimizer.zero_grad()
                ((distance * usable).sum() + _STIFFNESS * stiff + _HOLD * field.square().sum()).backward()
                optimizer.step()
        with torch.no_grad():
            bent = _bent(edited, field, place, scale)
            after = self.loss.features(bent, landmarks)
            better = usable & (self.loss.distances(after, target) < self.loss.distances(before, target))
        return torch.where(better[:, None, None, None], bent, edited)


_GRID = 12  # nodes of the field along a side of the face's square
_FIELD_RATE = 2e-3  # of the square's side, a step of descent
_STIFFNESS, _HOLD = 10.0, 60.0  # of the field's differences, and of the field itself


def _placed(image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel lies in the face's square ``[B, H, W, 2]``, in [-1, 1] inside, and the square's axes in grid units ``[B, 2, 2]``."""
    height, width = image.shape[-2:]
    squares = face_squares(landmarks).to(image)
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device) + 0.5, torch.arange(width, device=image.device) + 0.5, indexing="ij"
    )
    centre_x, centre_y, side, angle = (values.view(-1, 1, 1) for values in squares.unbind(1))
    cosine, sine = angle.cos(), angle.sin()
    right, down = x - centre_x, y - centre_y
    place = torch.stack([cosine * right + sine * down, cosine * down - sine * right], -1) * (2 / side)[..., None]
    across = torch.stack([squares[:, 3].cos() / width, squares[:, 3].sin() / height], 1)
    along = torch.stack([-squares[:, 3].sin() / width, squares[:, 3].cos() / height], 1)
    return place, torch.stack([across, along], 1) * (2 * squares[:, 2])[:, None, None]


def _bent(image: Tensor, field: Tensor, place: Tensor, scale: Tensor) -> Tensor:
    """Sample ``image`` through ``field`` ``[B, 2, G, G]``, in fractions of the square's side; from its edge on nothing moves."""
    inside = F.pad(field[..., 1:-1, 1:-1], (1, 1, 1, 1))
    shift = F.grid_sample(inside, place, mode="bicubic", padding_mode="zeros", align_corners=True)
    moved = torch.einsum("bchw,bcd->bhwd", shift, scale)
    height, width = image.shape[-2:]
    still = torch.eye(2, 3, device=image.device, dtype=image.dtype).expand(len(image), 2, 3)
    grid = F.affine_grid(still, [len(image), 1, height, width], align_corners=False)
    return F.grid_sample(image, grid + moved, mode="bilinear", padding_mode="border", align_corners=False)
