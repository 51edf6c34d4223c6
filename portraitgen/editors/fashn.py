"""Virtual try-on with FASHN VTON 1.5: the garment of a photo, drawn onto each frame's person by a network that needs no mask.

The published pipeline loads a human parser under a non-commercial licence; here the clip's own regions and the embedded reading of
the garment photo do its work, so that parser is neither needed nor loaded. Weights: fashn-ai/fashn-vton-1.5 and one network of
fashn-ai/DWPose, both Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..body import LABELS
from ..errors import InputError
from ..landmarks import detect_landmarks
from ..matting import person_alpha
from ..regions import CLOTHES, SKIN_CHROMA, fit_region_model, region_labels
from . import EditBatch
from .dwpose import draw_pose, find_pose, load_network
from .fashn_model import Size, TryOnTransformer, load_transformer, sample
from .garment import READ_SIDE, read_garment
from .latent_diffusion import required
from .memory import resident
from .pictures import read_picture
from .surface import blur, one_frame, region

MASKED = 127 / 255  # what surrounds a garment that is cut out of a photo
CHANGED = (0.03, 0.1)  # difference between which the network's skin takes the place of the clip's
SHOULDERS, HIPS, ARMS = (11, 12), (23, 24), ((11, 13, 15), (12, 14, 16))  # of MediaPipe's pose
HEM = 0.1  # how far a top reaches below the hips, in lengths from the shoulders to them: there trousers begin
TORSO = tuple(LABELS.index(name) for name in ("neck", "torso"))
BELOW_THE_HEAD = (*TORSO, LABELS.index("arms"))


class FashnTryOn:
    """Dresses the person in the garment of a photo.

    The network sees upright pictures of 2 : 3, so frames are fitted into one, with black above and below, as in its training. Face,
    hair and everything beyond the person stay the clip's own pixels.

    Args:
        picture: photo of a top, jacket or dress, flat-lay or worn. It counts as worn where a face is seen; then the pose of who wears
            it is read too, and everything but the garment is covered in grey.
        device: "cpu" or "cuda".
        steps: of the flow; the authors advise 20 to 30.
        chunk: frames edited at a time.
        size: of the network, for networks other than the published one.
        guidance: how closely the garment is followed; None for 1.5, as published.

    Raises:
        InputError: the weights are not here, or the picture cannot be read or shows no garment that a portrait can.
    """

    name = "FASHN VTON 1.5"
    reads_render = False
    face_aware = False
    edits_background = False

    def __init__(
        self,
        picture: Path,
        device: str,
        *,
        steps: int = 20,
        chunk: int = 2,
        size: Size | None = None,
        guidance: float | None = None,
    ) -> None:
        folder, poses = (required(name, self.name) for name in ("fashn-vton", "dwpose"))
        photo = read_picture(picture, READ_SIDE)
        wearer = find_wearer(photo)
        self.understood = read_garment(picture).description if wearer is None else "what the person in the photo wears"
        self.file, self.device = folder / "model.safetensors", device
        self.network = load_network(poses / "dw-ll_ucoco_384.onnx")
        self.steps, self.chunk, self.size = steps, chunk, size or Size()
        self.guidance = 1.5 if guidance is None else guidance
        pose = None
        if wearer is not None:
            pose = find_pose(self.network, _bytes(photo), wearer.box)
            photo = torch.where(torch.from_numpy(wearer.clothes), photo, MASKED)
        figure = draw_pose(pose, *photo.shape[1:])
        self.garment = self._canvas(photo[None], "bicubic")
        self.garment_pose = self._canvas(torch.from_numpy(figure)[None, None] / 255, "nearest-exact")

    @torch.no_grad()
    def edit(self, batch: EditBatch) -> Tensor:
        """Return the dressed frames, [B, 3, H, W] in [0, 1], on the batch's device.

        The network dresses fully or not at all; a lower strength blends. All frames share the seed's noise, which follows the torso.
        """
        shown = [index for index in range(len(batch.source)) if batch.alpha[index].max() > 0.5]
        if batch.strength == 0 or not shown:
            return batch.source
        edited = batch.source.clone()
        key = (self.name, self.file, self.device)
        with resident(key, lambda: load_transformer(self.file, self.device, self.size)) as model:
            for start in range(0, len(shown), self.chunk):
                chosen = shown[start : start + self.chunk]
                edited[chosen] = self._dressed(model, [one_frame(batch, index) for index in chosen]).to(edited)
        return batch.source + batch.strength * worn_area(batch, edited) * (edited - batch.source)

    def _dressed(self, model: TryOnTransformer, frames: list[EditBatch]) -> Tensor:
        """What the network makes of single frames, ``[B, 3, H, W]``."""
        source = torch.cat([frame.source for frame in frames]).cpu()
        height, width = source.shape[-2:]
        figures = [self._figure(frame) for frame in frames]
        generator = torch.Generator().manual_seed(frames[0].seed)
        still = torch.randn((3, self.size.height, self.size.width), generator=generator)
        noise = torch.stack([self._following(still, frame) for frame in frames])
        garments = [one.expand(len(frames), -1, -1, -1) for one in (self.garment, self.garment_pose)]
        conditions = [self._canvas(source, "bicubic"), self._canvas(torch.stack(figures), "nearest-exact"), *garments]
        where = [one.to(self.device) for one in conditions]
        found = sample(model, where, noise.to(self.device), self.steps, self.guidance).float() / 2 + 0.5
        left, top, inner_width, inner_height = self._window(height, width)
        inside = found[..., top : top + inner_height, left : left + inner_width]
        return functional.interpolate(inside, (height, width), mode="bicubic", antialias=True).clamp(0, 1)

    def _figure(self, frame: EditBatch) -> Tensor:
        """The stick figure of a single frame's person, ``[1, H, W]`` in [0, 1]."""
        rows, columns = (np.flatnonzero((frame.alpha[0, 0] > 0.5).any(axis).cpu().numpy()) for axis in (1, 0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
        pose = find_pose(self.network, _bytes(frame.source[0]), box)
        return torch.from_numpy(draw_pose(pose, *frame.source.shape[-2:]))[None] / 255

    def _following(self, noise: Tensor, frame: EditBatch) -> Tensor:
        """White noise ``[3, height, width]`` moved, round the edges, to where a single frame's torso is."""
        x, y = _collar(frame)
        left, top, width, _ = self._window(*frame.source.shape[-2:])
        scale = width / frame.source.shape[-1]
        return noise.roll((round(top + y * scale), round(left + x * scale)), dims=(1, 2))

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where a picture lies in the network's: left, top, width and height in pixels."""
        scale = min(self.size.width / width, self.size.height / height)
        inner = int(width * scale), int(height * scale)
        return (self.size.width - inner[0]) // 2, (self.size.height - inner[1]) // 2, *inner

    def _canvas(self, pictures: Tensor, mode: str) -> Tensor:
        """Pictures ``[B, C, H, W]`` in [0, 1] fitted into the network's, black around, ``[B, C, height, width]`` in -1..1."""
        left, top, width, height = self._window(*pictures.shape[-2:])
        smooth = {"antialias": True} if mode == "bicubic" else {}
        inside = functional.interpolate(pictures, (height, width), mode=mode, **smooth).clamp(0, 1)
        around = (left, self.size.width - left - width, top, self.size.height - top - height)
        return functional.pad(inside, around) * 2 - 1


def worn_area(batch: EditBatch, edited: Tensor) -> Tensor:
    """Where the dressed picture replaces the clip: all clothes, and skin below the head as far as it changed. [B, 1, H, W]."""
    fine = 4 * batch.source.shape[-1] / 512
    on_mesh = batch.parts >= 0
    below = torch.isin(batch.parts, torch.tensor(BELOW_THE_HEAD, device=batch.parts.device))
    votes = torch.cat([(on_mesh & ~below).float(), below.float()], dim=1)
    votes = blur(votes, fine) + 1e-3 * blur(votes, 6 * fine)  # beyond the mesh, the nearest part decides
    body = 1.04 * votes[:, 1:] / votes.sum(1, keepdim=True).clamp_min(1e-6) - 0.02  # nothing of it within the face
    difference = blur((edited - batch.source).abs().amax(1, keepdim=True), fine / 2)
    low, high = CHANGED
    changed = ((difference - low) / (high - low)).clamp(0, 1)
    return (region(batch, "clothes") + region(batch, "skin") * body.clamp(0, 1) * changed).clamp(0, 1)


def _collar(frame: EditBatch) -> tuple[float, float]:
    """Where the base of the neck, the origin of the upright body, is in a single frame: x, y in pixels; 0, 0 without a torso."""
    torso = torch.isin(frame.parts, torch.tensor(TORSO, device=frame.parts.device))[0, 0]
    y, x = torso.nonzero().cpu().double().unbind(1)
    if len(x) < 64:
        return 0.0, 0.0
    rest = frame.rest[0, :, torso].T.cpu().double()
    terms = torch.cat([rest, torch.ones_like(rest[:, :1])], dim=1)
    found = torch.linalg.lstsq(terms, torch.stack([x, y], 1) + 0.5, driver="gelsd").solution[-1]
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class Wearer:
    """Somebody in a garment photo: box [4] (left, top, right, bottom in pixels), and where their upper clothes are, [h, w] bool."""

    box: np.ndarray
    clothes: np.ndarray


def find_wearer(photo: Tensor) -> Wearer | None:
    """Whoever wears the garment in ``photo`` [3, h, w], None where no face is seen; read as frames of a clip are."""
    picture = _bytes(photo)
    height, width = picture.shape[:2]
    side = max(height, width)
    square = cv2.copyMakeBorder(picture, 0, side - height, 0, side - width, cv2.BORDER_REPLICATE)
    try:
        person = detect_landmarks(iter([picture]), SimpleNamespace(frame_count=1, timestamps=(0.0,)))
        alpha = next(person_alpha(lambda: iter([square]), person.face))
    except InputError:  # nobody is seen
        return None
    points = np.concatenate([person.head_boxes.reshape(-1, 2), person.pose[0, :, :2]])
    points = np.clip(points[np.isfinite(points).all(1)], 0, (width, height))
    model = fit_region_model([(square, alpha, person.face[0])])
    clothes = region_labels(square, alpha, person.face[0], model)[:height, :width] == CLOTHES
    joints = person.pose[0, :, :2]
    if np.isfinite(joints).all():
        lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 2), cv2.COLOR_RGB2LAB).astype(np.float32)
        bare = np.linalg.norm(lab[..., 1:] - model.skin_lab[1:], axis=-1) < 1.6 * SKIN_CHROMA
        clothes &= ~(bare & _along_arms(joints, height, width))
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (side // 128) + 1,) * 2)
        clothes = cv2.morphologyEx(clothes.astype(np.uint8), cv2.MORPH_OPEN, brush) > 0  # no outline of the arms
        shoulders, hips = (joints[list(pair), 1].mean() for pair in (SHOULDERS, HIPS))
        clothes[int(max(0.0, hips + HEM * (hips - shoulders))) :] = False
    return Wearer(np.concatenate([points.min(0), points.max(0)]), clothes)


def _along_arms(joints: np.ndarray, height: int, width: int) -> np.ndarray:
    """What is near the arms of a pose ``joints`` [33, 2] in pixels, [height, width] bool."""
    near = np.zeros((height, width), np.uint8)
    thick = max(1, round(0.5 * float(np.linalg.norm(np.subtract(*joints[list(SHOULDERS)])))))
    for shoulder, elbow, wrist in ARMS:
        hand = joints[wrist] + 0.5 * (joints[wrist] - joints[elbow])
        way = np.rint([joints[shoulder], joints[elbow], joints[wrist], hand]).astype(np.int32)
        cv2.polylines(near, [way], False, 1, thick)
    return near > 0


def _bytes(picture: Tensor) -> np.ndarray:
    """``[3, H, W]`` in [0, 1] to ``[H, W, 3]`` uint8."""
    return np.ascontiguousarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
