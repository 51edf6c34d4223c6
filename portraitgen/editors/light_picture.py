"""The light of a picture: from a face in it if there is one, or else from where in it which colours shine."""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from .colour import to_linear
from .illumination import EXPOSURE, Colour, Light, diffuse, estimate_light, front_directions, luminance, project, shade
from .light_plan import Lighting, backdrop, lamp, place_words
from .light_words import parse_light
from .pictures import read_picture
from .surface import blur

SIDE = 512  # pixels to which a picture is shrunk
SKIN: Colour = (0.47, 0.26, 0.18)  # linear RGB of skin on average, in white light
PAINTED = frozenset(("EYE", "EYEBROW", "LIPS", "IRIS"))
# the places at which lamps are tried, azimuth and elevation
PLACES = ((-75, 5), (75, 5), (-40, 35), (40, 35), (0, 70), (0, 10), (0, -55))
SOFTNESS = 0.4
CONTRAST = 1.8  # an estimate from a face is flatter than its light was: cast shadows are left out of it
LEAST = 0.07  # share of all light below which a lamp is not worth its shadow


def picture_light(text: str, path: Path) -> Lighting:
    """The light of the picture at ``path``; words that come with it change it or say from where it comes.

    Raises InputError if the picture cannot be read, or if there is text without any light in it.
    """
    words = parse_light(text) if text.strip() else None
    picture = read_picture(path, SIDE)
    points = face_points(picture)
    received, level = of_face(picture, *points) if points is not None else of_scene(picture)
    lights, ambient = lamps_for(received)
    lights, ambient = [light._replace(intensity=light.intensity * level) for light in lights], ambient * level
    said = f"the light {'on the face ' if points is not None else ''}in the picture: {_describe(lights)}"
    red, green, blue = ambient.tolist()
    lighting = Lighting(tuple(lights), (red, green, blue))
    if words is not None:
        if words.lights and lights:
            first = max(lights, key=lambda light: light.intensity)
            moved = words.lights[0]
            lights = [first._replace(direction=moved.direction, softness=moved.softness, grazing=moved.grazing)]
        lighting = replace(lighting, lights=tuple(lights), gain=words.gain, contrast=words.contrast)
        if words.backdrop is not None:
            lighting = replace(lighting, backdrop=backdrop(lighting))
        said = f"{said}; {words.understood}"
    return replace(lighting, understood=said)


def face_points(picture: Tensor) -> tuple[Tensor, Tensor] | None:
    """Pixels [N, 2] and normals [N, 3] (z towards the camera) of plain skin on the largest face in ``picture`` [3, h, w]."""
    from mediapipe.python.solutions import face_mesh

    height, width = picture.shape[1:]
    side = max(height, width)  # the network misplaces tilted faces in pictures that are not square
    square = functional.pad(picture, (0, side - width, 0, side - height))
    frame = np.ascontiguousarray((square.permute(1, 2, 0) * 255).round().byte().numpy())
    with face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False) as detector:
        faces = detector.process(frame).multi_face_landmarks
    if not faces:
        return None
    points = side * torch.tensor([[mark.x, mark.y, mark.z] for mark in faces[0].landmark])
    painted = {
        index
        for name in dir(face_mesh)
        if name.startswith("FACEMESH_") and set(name.split("_")) & PAINTED
        for edge in getattr(face_mesh, name)
        for index in edge
    }
    # the plane through a point's neighbours
    near = torch.cdist(points, points).topk(14, largest=False).indices
    around = points[near] - points[near].mean(1, keepdim=True)
    normals = torch.linalg.eigh(around.transpose(1, 2) @ around).eigenvectors[..., 0]
    normals = normals * torch.tensor([1.0, 1.0, -1.0])  # depth grows away from the camera
    normals = normals * normals[:, 2:].sign()
    inside = (points[:, 0] > 1) & (points[:, 0] < width - 2) & (points[:, 1] > 1) & (points[:, 1] < height - 2)
    plain = torch.tensor([index not in painted for index in range(len(points))]) & inside & (normals[:, 2] > 0.1)
    return (points[plain, :2], normals[plain]) if int(plain.sum()) > 100 else None


def of_face(picture: Tensor, points: Tensor, normals: Tensor) -> tuple[Tensor, float]:
    """Irradiance [N, 3] on the directions that face the camera, mean luminance 1, and how bright it is altogether."""
    size = torch.tensor([picture.shape[2], picture.shape[1]])
    spread = float((points.amax(0) - points.amin(0)).max())
    linear = blur(to_linear(picture)[None], max(0.015 * spread, 0.6))
    colours = functional.grid_sample(linear, (2 * points / size - 1)[None, None], align_corners=False)
    estimate = estimate_light(colours, normals.T[None, :, None], torch.ones_like(colours[:, :1]))
    received = shade(estimate, front_directions())[0].T
    received = (1 + CONTRAST * (received - 1)).clamp_min(0.03)
    mean = colours.mean((0, 2, 3))
    tint = mean / torch.tensor(SKIN)
    grey = float(luminance(tint[None, :, None]))
    level = min(max(math.sqrt(grey), 0.45), 1.25)
    return received * (tint / max(grey, 1e-3)).clamp(0.05, 4) ** 0.8, level


def of_scene(picture: Tensor) -> tuple[Tensor, float]:
    """As `of_face`, of a picture without a face, as though it hung before the person and shone on it."""
    small = functional.interpolate(to_linear(picture)[None], size=(12, 16), mode="area")[0]
    y, x = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 16), indexing="ij")
    directions = functional.normalize(torch.stack([1.5 * x, 1.2 * y, torch.full_like(x, 0.5)]).flatten(1).T, dim=1)
    colours = small.flatten(1).T
    # what a picture shows as white was brighter than white
    bright = colours * (0.15 + luminance(colours.T[None])[0, 0][:, None] / max(float(colours.mean()), 1e-3))
    received = shade(project(bright, directions, torch.ones(len(directions))), front_directions())[0].T
    received = received / float(luminance(received.mean(0)[None, :, None]).clamp_min(1e-4))
    mean = received.mean(0)
    return (mean + 1.3 * (received - mean)).clamp_min(0.05), min(max(math.sqrt(float(colours.mean()) / 0.2), 0.5), 1.2)


def lamps_for(received: Tensor) -> tuple[list[Light], Tensor]:
    """Lamps and light from everywhere [3] that give directions facing the camera what they are said to receive, [N, 3]."""
    normals = front_directions()
    lamps = [lamp((azimuth, elevation), (1.0, 1.0, 1.0), 1.0, SOFTNESS) for azimuth, elevation in PLACES]
    lobes = torch.stack(
        [EXPOSURE * diffuse(normals[..., None], one)[0, 0, :, 0] for one in lamps] + [torch.ones(normals.shape[-1])], 1
    )
    # least squares without negative light, by multiplicative steps
    amounts = torch.full((lobes.shape[1], 3), 0.3)
    for _ in range(400):
        amounts = amounts * (lobes.T @ received + 1e-6) / (lobes.T @ (lobes @ amounts) + 2e-2)
    strength = amounts.mean(1)
    total = float(strength.sum())
    found = []
    for one, amount in zip(lamps, amounts, strict=False):
        if float(amount.mean()) > LEAST * total:
            red, green, blue = (amount / amount.mean()).tolist()
            found.append(one._replace(colour=(red, green, blue), intensity=float(amount.mean())))
    return sorted(found, key=lambda light: -light.intensity), amounts[-1]


def colour_word(colour: Colour) -> str:
    """A linear colour in a word."""
    top = max(colour)
    red, green, blue = ((part / top) ** (1 / 2.2) for part in colour)
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    if saturation < 0.10:
        return "white"
    if saturation < 0.40:
        return "warm" if hue < 0.2 or hue > 0.92 else "cool" if 0.45 < hue < 0.72 else "tinted"
    names = ("red", "orange", "yellow", "green", "green", "green", "teal", "blue", "blue", "purple", "pink", "pink")
    return names[round(hue * 12) % 12]


def _describe(lights: list[Light]) -> str:
    return ", ".join(f"{colour_word(light.colour)} {place_words(light)}" for light in lights[:3]) or "even on all sides"
