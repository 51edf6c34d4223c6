"""Clothes taken off a photo of the person who wears them, and laid out flat.

The body is fitted to the person in the photo as it is to the person of a clip, so each thread's place on the body is known, however the
wearer stands and turns. There the photo is unrolled into a picture of the cloth lying flat, from which any other body can be dressed. What
the photo does not show is taken from the other side of the body, and what is on neither is made of the cloth next to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..body import LABELS, load_body
from ..crop import Crop, resized
from ..errors import InputError
from ..landmarks import Landmarks, detect_landmarks
from ..matting import person_alpha
from ..mesh import interpolate, rasterize_mesh
from ..plate import fill
from ..poses import rest_vertices
from ..regions import fit_region_model, region_labels, soft_regions
from ..surfaces import Surfaces
from ..tracking import track
from . import EditBatch
from .colour import from_oklab, smoothstep, to_oklab
from .completion import complete
from .cutting import face_height
from .draping import Drape, beyond_armhole, unrolled
from .folds import broad_shading
from .garment import describe_colours, signed_distance
from .layers import layers, spread_rest

SIZE = 512  # px: side of the square of the photo that is looked at
REACH = 4.2  # side of that square in heights of the head: down to the hips
DENSITY = 900.0  # pixels per metre of the picture of the cloth
HALF_WIDTH, TOP, CHIN, BOTTOM = (
    0.56,
    -0.13,
    -0.10,
    0.52,
)  # metres from the base of the neck; no clothes reach above the chin
SLEEVE_GAP = 0.05  # metres between torso and sleeves in it
RIM = 3  # px along the edge of the clothes whose colours are not used
GRID = 2  # px between the photo's points that are unrolled
STRETCHED = 7.0  # how much longer than in the photo a step may become on the cloth, before it is one across a gap
BROAD, JOINT, EVEN = 40, 14, 8  # px: width of broad colours, of seams, and of what is evened out along the neckline
CHEST = (0.15, 0.03, 0.20)  # half width, top and bottom of the part of the chest of which enough must be seen, metres
ENOUGH = 0.3  # share of it, both sides taken together
TURNED = 0.7  # radians by which the shoulders may be turned away

NO_CLOTHES = "The picture shows a person, but too little of the clothes. Use a photo that reaches from the head to the chest or lower."
TURNED_AWAY = "The person in the picture is turned away too far. Use a photo from the front."


@dataclass(frozen=True)
class _Still:
    """One picture in the place of a clip."""

    width: int
    height: int
    frame_count: int = 1
    timestamps: tuple[float, ...] = (0.0,)


class WornClothes(Drape):
    """The clothes of the person in a photo; places on the cloth are those of the body at rest, unrolled."""

    def __init__(self, batch: EditBatch) -> None:
        texture = _unrolled(batch)
        colour, cover = _completed(texture)
        super().__init__(colour, cover)
        self.description = _describe(texture)

    def places(self, rest: Tensor) -> Tensor:
        """Where on the cloth points of the body at rest [B, 3, H, W] are, [B, 2, H, W] (x, y) in its pixels."""
        start = torch.tensor([-HALF_WIDTH, TOP], dtype=rest.dtype, device=rest.device).view(1, 2, 1, 1)
        return (_plane(rest) - start) * DENSITY


def _plane(rest: Tensor) -> Tensor:
    """Body at rest [B, 3, H, W] to the plane in which torso and sleeves lie side by side, metres [B, 2, H, W]."""
    arm = rest[:, :2] + torch.cat([SLEEVE_GAP * rest[:, :1].sign(), torch.zeros_like(rest[:, :1])], 1)
    return torch.lerp(unrolled(rest), arm, smoothstep(-0.02, 0.03, beyond_armhole(rest)))


@torch.no_grad()
def look_at_wearer(cutout: np.ndarray) -> EditBatch | None:
    """The person in a photo as a batch of one frame, or None where no face with a body to it is found.

    Args:
        cutout: [h, w, 4] float32 sRGB with straight alpha, in [0, 1].

    Raises:
        InputError: the person is turned away.
    """
    opaque = cutout[..., :3] * cutout[..., 3:] + (1 - cutout[..., 3:])
    if face_height(opaque) == 0:
        return None
    picture = np.rint(opaque * 255).astype(np.uint8)
    try:
        landmarks = detect_landmarks(iter([picture]), _Still(picture.shape[1], picture.shape[0]))
        if not np.isfinite(landmarks.pose).all():
            return None
        crop = _square(landmarks, *picture.shape[:2])
        body = load_body("anny", torch.device("cpu"))
        tracking = track(landmarks, crop, body)
    except InputError:
        return None
    frame = crop.extract(picture)
    face = ((landmarks.face[..., :2] - (crop.left, crop.top)) * (crop.size / crop.side)).astype(np.float32)
    surfaces = Surfaces.of(body.vertices(tracking.parameters), body.faces, tracking.K, crop.size)
    nowhere = ~surfaces.inside[:, None]
    parts = body.face_labels[surfaces.triangles.clamp_min(0).long()].long()[:, None].masked_fill(nowhere, -1)
    (alpha,) = person_alpha(lambda: iter([frame]), face)
    rows, columns = crop.window(picture)[1]
    own = np.zeros((int(crop.side), int(crop.side)), np.float32)  # beyond the photo there is nothing
    own[rows, columns] = cutout[..., 3][crop.window(picture)[0]]
    alpha = np.minimum(alpha, np.rint(resized(own, SIZE).clip(0, 1) * 255)).astype(np.uint8)
    model = fit_region_model([(frame, alpha, face[0])])
    labels = region_labels(frame, alpha, face[0], model, parts[0, 0].int().numpy(), LABELS)
    source = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255

    def surface(corners: Tensor) -> Tensor:
        return surfaces.attribute(corners).masked_fill(nowhere, torch.nan)

    batch = EditBatch(
        source=source,
        rendered=source,
        alpha=torch.from_numpy(alpha)[None, None].float() / 255,
        regions=soft_regions(labels[None], alpha[None]),
        normals=surfaces.normals(),
        uv=surface(body.uvs[body.face_uvs]),
        positions=surface(surfaces.vertices[:, body.faces]),
        rest=surface(rest_vertices(body, tracking.parameters)[body.faces]),
        parts=parts,
    )
    _check_turn(batch)
    return batch


def _check_turn(batch: EditBatch) -> None:
    """Raise InputError where the torso does not face the camera."""
    torso = (batch.parts == LABELS.index("torso"))[0, 0]
    rest, seen = (image[0][:, torso].double().T for image in (batch.rest, batch.positions))
    rest, seen = rest - rest.mean(0), seen - seen.mean(0)
    left, _, right = torch.linalg.svd(rest.T @ seen)
    turn = (
        left
        @ torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(left @ right).sign())], dtype=torch.float64))
        @ right
    )
    forward = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64) @ turn
    if float(torch.atan2(forward[0].abs(), -forward[2])) > TURNED:
        raise InputError(TURNED_AWAY)


def _square(landmarks: Landmarks, height: int, width: int) -> Crop:
    """The square of the photo from above the head down to the hips, as far as the photo has them."""
    left, top, right, bottom = landmarks.head_boxes[0]
    head = bottom - top
    side = float(min(np.ceil(REACH * head), max(min(height, width), 1.3 * head)))
    middle = (left + right) / 2 * 0.4 + landmarks.pose[0, 11:13, 0].mean() * 0.6
    start = [middle - side / 2, top - 0.25 * head]
    inside = [np.clip(value, 0, max(length - side, 0)) for value, length in zip(start, (width, height), strict=True)]
    return Crop(float(inside[0]), float(inside[1]), side, SIZE)


@dataclass(frozen=True)
class _Texture:
    """What a photo shows of the cloth lying flat, [h, w] each.

    Attributes:
        colour: [h, w, 3] float32 sRGB.
        known: bool, where the colour is that of cloth alone.
        cloth: bool, where cloth is seen.
        skin: bool, where skin is seen that no cloth covers.
    """

    colour: np.ndarray
    known: np.ndarray
    cloth: np.ndarray
    skin: np.ndarray


def _unrolled(batch: EditBatch) -> _Texture:
    """The photo carried to the plane of the cloth."""
    rest, _ = spread_rest(batch)
    clothes, bare = layers(batch, rest)
    source = _evenly_lit(batch, clothes, bare)
    plane = _plane(rest)[0].permute(1, 2, 0)[::GRID, ::GRID]
    rows, columns = plane.shape[:2]
    facing = (-batch.normals[0, 2, ::GRID, ::GRID]).clamp(0, 1)
    depth = 1 + 0.1 * (1 - facing)  # of what lies on the same place, that which is seen best
    vertices = torch.cat([plane * depth[..., None], depth[..., None]], -1).reshape(-1, 3)
    index = torch.arange(rows * columns).view(rows, columns)
    corners = (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1])
    quads = torch.stack([corner.flatten() for corner in corners], -1)
    body = (clothes + bare)[0, 0, ::GRID, ::GRID].flatten()
    quads = quads[(body[quads] > 0.5).all(-1) & _unfolded(batch, plane.reshape(-1, 2)[quads])]
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    width, height = round(2 * HALF_WIDTH * DENSITY), round((BOTTOM - TOP) * DENSITY)
    K = torch.tensor([[DENSITY, 0, HALF_WIDTH * DENSITY], [0, DENSITY, -TOP * DENSITY], [0, 0, 1]])
    ids, barycentrics, _ = rasterize_mesh(vertices, faces, K, width, height)
    y, x = torch.meshgrid(torch.arange(rows) * float(GRID), torch.arange(columns) * float(GRID), indexing="ij")
    where = interpolate(torch.stack([x, y], -1).reshape(-1, 2)[faces], ids, barycentrics)[0].numpy()
    seen = (ids[0] >= 0).numpy()

    def carried(image: Tensor) -> np.ndarray:
        values = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
        return cv2.remap(values, where[..., 0], where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    inner = -functional.max_pool2d(
        -clothes, 2 * RIM + 1, 1, RIM
    )  # along its edge cloth is mixed with what is behind it
    masks = carried(torch.cat([inner, clothes, bare], 1))
    known, cloth, skin = (seen & (masks[..., number] > level) for number, level in enumerate((0.9, 0.5, 0.5)))
    return _Texture(np.clip(carried(source), 0, 1), known, cloth, skin & ~cloth)


def _unfolded(batch: EditBatch, quads: Tensor) -> Tensor:
    """Whether quads [N, 4, 2] keep their side up and about their size, bool [N]: no steps from an arm to the body behind it."""
    sides = torch.roll(quads, -1, 1) - quads
    area = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    across = (batch.positions[..., 1:] - batch.positions[..., :-1]).norm(dim=1)
    usual = GRID * float(across[torch.isfinite(across)].median())
    return (area > 0.05 * usual**2) & (sides.norm(dim=-1).amax(1) < STRETCHED * usual)


def _evenly_lit(batch: EditBatch, clothes: Tensor, bare: Tensor) -> Tensor:
    """The photo [1, 3, H, W] without the shading that comes of the body's roundness, for the clip brings its own light."""
    return from_oklab(to_oklab(batch.source) / broad_shading(batch, clothes, bare))


def _completed(texture: _Texture) -> tuple[np.ndarray, np.ndarray]:
    """Colours [h, w, 3] everywhere, and pixels [h, w] inside the cloth."""
    known, colour = texture.known, np.where(texture.known[..., None], texture.colour, 0)
    mirrored, theirs = colour[:, ::-1], known[:, ::-1]
    both = (known & theirs).astype(np.float32)
    weight = cv2.GaussianBlur(both, (0, 0), BROAD)
    if weight.max() > 0.05:  # light and fit differ from side to side
        change = cv2.GaussianBlur((colour - mirrored) * both[..., None], (0, 0), BROAD)
        change = fill(change / np.maximum(weight, 1e-3)[..., None], weight > 0.05)
        mirrored = np.clip(mirrored + change, 0, 1)
    theirs = theirs & ~texture.skin
    inside = np.clip(cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 5) / JOINT, 0, 1)
    own = np.where(theirs, inside, known)[..., None]
    colour = colour * own + mirrored * theirs[..., None] * (1 - own)
    known = known | theirs
    cloth = _nearest_label(texture)
    return complete(colour, known, cloth), signed_distance(cloth)


def _nearest_label(texture: _Texture) -> np.ndarray:
    """Where there is cloth, bool [h, w]: as seen, or else as on the other side, or else as next to it."""
    cloth, skin = _without_specks(texture.cloth, EVEN), _without_specks(texture.skin, EVEN // 3)
    skin[: round((CHIN - TOP) * DENSITY)] = True
    known = cloth | skin
    cloth, skin = cloth | ~known & cloth[:, ::-1], skin | ~known & skin[:, ::-1] & ~cloth[:, ::-1]
    to_cloth, to_skin = (cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) for mask in (cloth, skin))
    return cv2.GaussianBlur((to_cloth <= to_skin).astype(np.float32), (0, 0), EVEN) > 0.5


def _without_specks(mask: np.ndarray, radius: int) -> np.ndarray:
    """The larger pieces of ``mask`` [h, w] bool, without threads of less than ``radius`` and what hangs on them."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    core = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    large = areas > 0.1 * areas[1:].max(initial=0)
    large[0] = False
    return large[labels]


def _describe(texture: _Texture) -> str:
    """The clothes in a few words; raises InputError where too little of them is seen."""
    half, top, bottom = CHEST
    rows = slice(round((top - TOP) * DENSITY), round((bottom - TOP) * DENSITY))
    columns = slice(round((HALF_WIDTH - half) * DENSITY), round((HALF_WIDTH + half) * DENSITY))
    seen = (texture.cloth | texture.cloth[:, ::-1])[rows, columns]
    if seen.mean() < ENOUGH:
        raise InputError(NO_CLOTHES)
    lab = cv2.cvtColor(texture.colour, cv2.COLOR_RGB2LAB)
    colours = describe_colours(lab[texture.known])[0]
    return f"the {colours} clothes of the person in the photo"
