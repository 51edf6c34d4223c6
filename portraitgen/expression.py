"""Expression guidance: what keeps an edited face's expression that of the clip (PortraitGen, section 3.3.1, Eq. 14).

The paper compares EMOCA's expression codes. Here the built-in encoder is MediaPipe's FaceMesh network (``face_landmark.tflite`` of its
wheel, Apache-2.0), run in torch so that it has gradients: expression is where lips, lids, brows and jaw lie on the face. Encoders that a
person brings (`portraitgen.smirk`) take its place behind one protocol.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .regions import BROW_OUTLINES, EYE_OUTLINES, LIPS_INNER, LIPS_OUTER
from .tflite import Network

if TYPE_CHECKING:
    from .fitting import Fitted

FACE_POINTS = 468
GREY = 0.5  # behind the person, in the render and in the clip

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
        """Scalar: mean of a pseudo-Huber distance in units of the encoder's scale, weighted by the presence of both faces."""
        difference = (features.values - target.values.detach()) / self.encoder.scale
        distance = ((1 + difference.square()).sqrt() - 1).mean(1)
        return (distance * features.presence * target.presence).mean()

    def forward(self, image: Tensor, target: Tensor, landmarks: Tensor) -> Tensor:
        """Compare ``image`` with ``target``, both ``[B, 3, H, W]`` in [0, 1] with the same ``landmarks`` ``[B, 478, 2 or 3]``."""
        with torch.no_grad():
            wanted = self.features(target, landmarks)
        return self.compare(self.features(image, landmarks), wanted)


def _anywhere(landmarks: Tensor) -> Tensor:
    """Points that give a proper square, for faces that are not known."""
    count, depth = landmarks.shape[1:]
    return torch.linspace(0, 64, count, device=landmarks.device, dtype=landmarks.dtype)[:, None].expand(count, depth)


class ExpressionGuidance:
    """The loss term of fitting: the avatar's face, rendered on its own, against the clip's in the same frame.

    Args:
        loss: what compares.
        frames: indices in the clip ``[M]``.
        source: the clip's crops ``[M, S, S, 3]`` uint8.
        alphas: ``[M, S, S]`` uint8.
        landmarks: FaceMesh points ``[M, 478, 2 or 3]`` in the crops' pixels, NaN where there are none.
        K: intrinsics of the crops ``[3, 3]``, on the device that fits.
        seed: of the small shifts of the look, new at every call: a network asked about the one same crop again and again can be
            satisfied with a pattern instead of a face.
    """

    every = 4  # steps of the fit between two calls

    def __init__(
        self,
        loss: ExpressionLoss,
        frames: Tensor,
        source: np.ndarray,
        alphas: np.ndarray,
        landmarks: Tensor,
        K: Tensor,
        seed: int = 0,
    ) -> None:
        self.loss, self.K = loss, K
        self.landmarks = landmarks.to(K)
        self.place = {frame: place for place, frame in enumerate(frames.tolist())}
        self.generator = torch.Generator().manual_seed(seed)
        found = []
        for picture, alpha, points in zip(source, alphas, self.landmarks, strict=True):
            image, matte = (torch.from_numpy(x).to(K.device).float() / 255 for x in (picture, alpha))
            over = (image * matte[..., None] + GREY * (1 - matte[..., None])).permute(2, 0, 1)
            with torch.no_grad():
                found.append(loss.features(over[None], points[None]))
        self.target = Features(torch.cat([f.values for f in found]), torch.cat([f.presence for f in found]))

    def __call__(self, fitted: Fitted, frames: Tensor) -> Tensor:
        """The loss, a scalar, of the avatar in the clip's ``frames`` ``[B]``, all of them among those known here."""
        index = torch.tensor([self.place[frame] for frame in frames.tolist()])
        seen = index[self.target.presence[index].cpu() > 0.5]
        if not len(seen):
            return self.K.new_zeros(())
        landmarks = self.landmarks[seen]
        squares = face_squares(landmarks)
        # Only scales that the renderer is trained at: the picture's own, and half of it.
        scale = 1.0 if float(squares[:, 2].max()) <= 320 else 0.5
        reach = float((squares[:, 2] * (squares[:, 3].cos().abs() + squares[:, 3].sin().abs())).max()) * scale
        side = int(-(-reach * 1.1 // 16) * 16)
        corners = (squares[:, :2] * scale - side / 2).round()
        Ks = self.K.repeat(len(seen), 1, 1)
        Ks[:, :2] *= scale
        Ks[:, :2, 2] -= corners
        frames = frames[(self.target.presence[index] > 0.5).to(frames.device)]
        picture = fitted.render(frames, Ks, side, side).over(self.K.new_full((1, 3, 1, 1), GREY))
        points = landmarks[..., :2] * scale - corners[:, None]
        shift = torch.randn(len(seen), 1, 2, generator=self.generator).to(points)
        points = points + 0.01 * (squares[:, 2] * scale)[:, None, None] * shift
        found = self.loss.features(picture, points)
        target = Features(self.target.values[seen], self.target.presence[seen])
        return self.loss.compare(found, target)
