"""The matting stage: alpha, region labels, the crop over white, the screening and the clean plate of a tracked clip, written as streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace

import cv2
import numpy as np
import torch

from .bars import Bars, find_bars
from .body import LABELS, load_body
from .clip import read_frames, read_gray, write_gray, write_video
from .despill import screen_channel, without_spill
from .errors import InputError
from .hands import HandFinder, Hands
from .inspection import sample_frames
from .keyframes import evenly_spaced
from .matting import person_alpha
from .mesh import rasterize_mesh
from .plate import background_plate
from .portrait import Portrait
from .progress import Progress
from .regions import RegionModel, fit_region_model, region_labels
from .screening import (
    FaceMeter,
    Screening,
    describe,
    describe_beyond,
    describe_hands,
    find_away,
    reaches_beyond,
    screen,
)
from .storage import replacing
from .streaming import feed
from .tracking import Tracking

_COLOR_SAMPLES = 8
_MESH_BATCH = 4
_BAR_SAMPLES = 8
_NOBODY = 8  # alpha, up to which nothing is before the scene
_SCREENING, _PLATE, _HANDS = "screening.safetensors", "plate.png", "hands.safetensors"


def write_mattes(portrait: Portrait, tracking: Tracking) -> Iterator[Progress]:
    """Write ``alpha.mp4``, ``regions.mp4`` (both lossless gray), ``frames.mp4`` (the working crop over white), what the screening found,
    where there are hands, if any, and ``plate.png`` (the scene without the person).
    """
    total = portrait.clip.frame_count
    faces = crop_landmarks(portrait)
    away = _find_away(portrait, tracking)
    matte = person_alpha(lambda: crop_frames(portrait), faces)
    alphas = (np.zeros_like(alpha) if gone else alpha for alpha, gone in zip(matte, away, strict=True))
    writer = feed(lambda items: write_gray(portrait.path("alpha.mp4"), items, portrait.clip), alphas)
    for number, alpha in enumerate(writer, 1):
        # A picture now and then is enough to see whether the right person was cut out.
        yield Progress(
            "matting", 0.6 * number / total, f"Cutting out the person, frame {number} of {total}", _gray(alpha, number)
        )

    model = _region_model(portrait, faces)
    labels = _labels(portrait, tracking, model, faces)
    writer = feed(lambda items: write_gray(portrait.path("regions.mp4"), items, portrait.clip), labels)
    for number, _ in enumerate(writer, 1):
        yield Progress(
            "matting", 0.6 + 0.3 * number / total, f"Telling hair, skin and clothes apart, frame {number} of {total}"
        )

    meter, finder = FaceMeter(faces), HandFinder(portrait.landmarks().timestamps)
    over_white = _measured_over_white(portrait, meter, finder)
    writer = feed(
        lambda items: write_video(portrait.path("frames.mp4"), items, portrait.clip, audio_from=None, crf=12),
        over_white,
    )
    for number, _ in enumerate(writer, 1):
        yield Progress("matting", 0.9 + 0.08 * number / total, "Storing the cut-out frames")
    _store_hands(portrait, finder)
    _store_screening(portrait, tracking, meter)
    yield Progress("matting", 0.98, "Looking for what is behind the person")
    clean_plate(portrait)


def load_screening(portrait: Portrait) -> Screening:
    """Which frames show the person well; made now for a portrait from before frames were screened."""
    if not portrait.path(_SCREENING).exists():
        tracking = portrait.tracking()
        meter = FaceMeter(crop_landmarks(portrait))
        for number, frame in enumerate(crop_frames(portrait)):
            meter.see(number, frame)
        _store_screening(portrait, tracking, meter)
    return Screening.from_tensors(portrait.load_tensors(_SCREENING))


def clip_bars(portrait: Portrait) -> Bars:
    """The letterbox bars of the clip's frames; looked for now in a portrait from before they were stored."""
    stored = portrait.load_tensors(_SCREENING).get("bars") if portrait.path(_SCREENING).exists() else None
    return _find_bars(portrait) if stored is None else Bars(*stored.tolist())


def inside_picture(portrait: Portrait) -> torch.Tensor:
    """Which pixels of the working crop ``[S, S]`` show the clip's picture, and neither its bars nor what is beyond its frame; bool."""
    clip, crop, bars = portrait.clip, portrait.crop, clip_bars(portrait)
    inner = replace(crop, left=crop.left - bars.left, top=crop.top - bars.top)
    return torch.from_numpy(inner.inside(clip.width - bars.left - bars.right, clip.height - bars.top - bars.bottom))


def find_hands(portrait: Portrait) -> Hands | None:
    """Hands before the person in the clip's working crops; None where there are none, or where nobody has looked for any."""
    path = portrait.path(_HANDS)
    if not path.exists():
        return None
    try:
        return Hands.from_tensors(portrait.load_tensors(_HANDS))
    except KeyError:
        raise InputError(f"{path} was written by another version. Reconstruct the clip again.") from None


class BodyShown:
    """Which pixels of the working crop show the body or what is behind it: neither bars, nor a hand that may be before it."""

    def __init__(self, portrait: Portrait) -> None:
        self.picture, self.hands = inside_picture(portrait), find_hands(portrait)

    def __call__(self, frames: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
        """For ``frames`` ``[B]`` with the mattes ``[B, 1, S, S]``, uint8: ``[B, S, S]``, bool, on their device."""
        picture = self.picture.to(alphas.device).expand(len(frames), -1, -1)
        if self.hands is None:
            return picture
        around = torch.from_numpy(np.stack([self.hands.around(frame) for frame in frames.tolist()]))
        return picture & ~(around.to(alphas.device) & (alphas[:, 0] > _NOBODY))


def usable_frames(portrait: Portrait) -> torch.Tensor:
    """Sorted indices ``[M]`` of the frames to learn from: not held out, and none that the screening found fault with."""
    usable = np.flatnonzero(load_screening(portrait).usable[: portrait.trained_frames])
    if not len(usable):
        raise InputError(
            "The part of the clip to learn from shows no clear face. Hold out less of it, or use another clip."
        )
    return torch.from_numpy(usable)


def clean_plate(portrait: Portrait) -> np.ndarray:
    """The scene without the person, ``[H, W, 3]`` uint8, from ``plate.png``; made and stored if it is not there.

    It goes on over letterbox bars, whose black would be what is guessed behind a person close to them.
    """
    path = portrait.path(_PLATE)
    if path.exists():
        stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        if stored is not None and stored.shape[:2] == (portrait.clip.height, portrait.clip.width):
            return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
        raise InputError(f"{path} is broken. Delete it; it is made again.")
    away, bars = load_screening(portrait).away, clip_bars(portrait)
    streams = zip(read_frames(portrait.source, portrait.clip), read_gray(portrait.path("alpha.mp4")), away, strict=True)
    here = ((bars.fill(frame), alpha) for frame, alpha, gone in streams if not gone)
    plate = background_plate(here, portrait.crop, int((~away).sum()), seed=portrait.settings.seed)
    with replacing(path) as temporary:
        cv2.imencode(".png", cv2.cvtColor(plate, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tofile(
            temporary
        )
    return plate


def crop_frames(portrait: Portrait) -> Iterator[np.ndarray]:
    """The working crop of every frame ``[S, S, 3]`` uint8."""
    return (portrait.crop.extract(frame) for frame in read_frames(portrait.source, portrait.clip))


def crops_with_alpha(portrait: Portrait) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The working crop of every frame with its alpha ``[S, S]`` uint8."""
    return zip(crop_frames(portrait), read_gray(portrait.path("alpha.mp4")), strict=True)


def clean_crops(portrait: Portrait) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`crops_with_alpha` of a clip whose mattes are all there, free of the light of a green or a blue screen."""
    key = screen_channel(portrait.crop.extract(clean_plate(portrait)))
    if key is None:
        yield from crops_with_alpha(portrait)
        return
    regions = read_gray(portrait.path("regions.mp4"))
    for (frame, alpha), labels in zip(crops_with_alpha(portrait), regions, strict=True):
        yield without_spill(frame, alpha, labels, key), alpha


def crop_landmarks(portrait: Portrait) -> np.ndarray:
    """FaceMesh points ``[T, 478, 2]`` in pixels of the working crop, NaN rows where no face was found."""
    face = portrait.landmarks().face
    crop = portrait.crop
    points = np.asarray(face)[..., :2]
    return ((points - np.array([crop.left, crop.top])) * (crop.size / crop.side)).astype(np.float32)


def _find_away(portrait: Portrait, tracking: Tracking) -> np.ndarray:
    landmarks = portrait.landmarks()
    return find_away(tracking.bridged.numpy(), landmarks.elsewhere, landmarks.timestamps)


def _store_screening(portrait: Portrait, tracking: Tracking, meter: FaceMeter) -> None:
    landmarks = portrait.landmarks()
    times = landmarks.timestamps
    found = screen(tracking.bridged.numpy(), tracking.landmark_error.numpy(), landmarks.elsewhere, times, meter)
    bars = torch.tensor(astuple(_find_bars(portrait)))
    portrait.save_tensors(_SCREENING, found.to_tensors() | {"bars": bars})
    crop, alphas = portrait.crop, read_gray(portrait.path("alpha.mp4"))
    beyond = reaches_beyond(alphas, (crop.left > 0, crop.left + crop.side < portrait.clip.width))
    hands = find_hands(portrait)
    shown = np.isin(np.arange(len(times)), hands.frames[hands.seen] if hands else [])
    portrait.notes = [*describe(found, times), *describe_beyond(beyond, times), *describe_hands(shown, times)]
    portrait.save()


def _find_bars(portrait: Portrait) -> Bars:
    return find_bars([frame for _, frame in sample_frames(portrait.source, portrait.clip, _BAR_SAMPLES)])


def _store_hands(portrait: Portrait, finder: HandFinder) -> None:
    finder.close()
    found = finder.found()
    portrait.path(_HANDS).unlink(missing_ok=True)
    if found is not None:
        portrait.save_tensors(_HANDS, found.to_tensors())


def _measured_over_white(portrait: Portrait, meter: FaceMeter, finder: HandFinder) -> Iterator[np.ndarray]:
    for number, (frame, alpha) in enumerate(crops_with_alpha(portrait)):
        meter.see(number, frame)
        finder.see(number, frame)
        yield _over_white(frame, alpha)


def _region_model(portrait: Portrait, faces: np.ndarray) -> RegionModel:
    known = np.flatnonzero(~np.isnan(faces).any((1, 2)))
    wanted = set(evenly_spaced(torch.as_tensor(known), _COLOR_SAMPLES).tolist())
    return fit_region_model(
        (frame, alpha, faces[number])
        for number, (frame, alpha) in enumerate(crops_with_alpha(portrait))
        if number in wanted
    )


def _labels(portrait: Portrait, tracking: Tracking, model: RegionModel, faces: np.ndarray) -> Iterator[np.ndarray]:
    parts = _mesh_labels(portrait, tracking)
    for number, ((frame, alpha), part) in enumerate(zip(crops_with_alpha(portrait), parts, strict=True)):
        yield region_labels(frame, alpha, faces[number], model, part, LABELS)


@torch.no_grad()
def _mesh_labels(portrait: Portrait, tracking: Tracking) -> Iterator[np.ndarray]:
    """Part of the tracked mesh under each pixel ``[S, S]``, an index into LABELS or -1."""
    body = load_body(portrait.settings.body, torch.device("cpu"))
    size, total = portrait.crop.size, portrait.clip.frame_count
    for start in range(0, total, _MESH_BATCH):
        frames = torch.arange(start, min(start + _MESH_BATCH, total))
        triangles, _, _ = rasterize_mesh(body.vertices(tracking.parameters, frames), body.faces, tracking.K, size, size)
        parts = torch.where(triangles < 0, -1, body.face_labels[triangles.clamp_min(0).long()])
        yield from parts.to(torch.int32).numpy()


def _over_white(frame: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    matte = alpha[..., None].astype(np.float32) / 255
    return (frame * matte + 255 * (1 - matte) + 0.5).astype(np.uint8)


def _gray(alpha: np.ndarray, number: int) -> np.ndarray | None:
    return np.repeat(alpha[..., None], 3, 2) if number % 20 == 1 else None
