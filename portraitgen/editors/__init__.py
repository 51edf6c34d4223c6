"""2D editors: everything that turns frames into edited frames, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


ENGINES: dict[str, tuple[str, ...]] = {
    "text": ("builtin", "instruct-pix2pix", "flux2-klein"),
    "style": ("builtin", "gatys"),
    "tryon": ("builtin", "fashn-vton"),
    "relight": ("builtin", "ic-light"),
}
KEY_FRAMES = (4, 64)  # fewest and most that an edit may use
GUIDANCE = (1.0, 15.0)  # lowest and highest scale


@dataclass(frozen=True)
class EditRequest:
    """What a person asked for, in plain values.

    Attributes:
        kind: one of `ENGINES`.
        text: the instruction, or the description of the light.
        picture: the style picture or the garment photo; for relighting, a picture whose light is wanted.
        engine: one of the kind's `ENGINES`, or "auto".
        strength: how strong the edit is, in [0, 1]; 0 gives the clip back.
        seed: of everything random.
        keep_colors: of a style picture, take the brushwork and leave the clip's colours.
        key_frames: how many frames the 2D editor sees, in `KEY_FRAMES`; None for the preset's number.
        guidance: how closely a diffusion engine keeps to the request, in `GUIDANCE`; None for its own scale. InstructPix2Pix, IC-Light and
            FASHN VTON read it, the others have none.
    """

    kind: str
    text: str = ""
    picture: Path | None = None
    engine: str = "auto"
    strength: float = 1.0
    seed: int = 0
    keep_colors: bool = False
    key_frames: int | None = None
    guidance: float | None = None


@dataclass(frozen=True)
class EditBatch:
    """Frames to edit and all that is known about them.

    Attributes:
        source: [B, 3, H, W] the frames before this edit, RGB in [0, 1].
        rendered: [B, 3, H, W] the same frames as the avatar renders them now.
        alpha: [B, 1, H, W] the person, straight alpha in [0, 1].
        regions: soft masks [B, 1, H, W] in [0, 1] by name (background, skin, hair, lips, eyes, brows, teeth, clothes, mouth);
            a missing name means that the region is not in the picture.
        normals: [B, 3, H, W] unit, camera space (x right, y down, z forward; facing the camera is z = -1), zeros outside the mesh.
        uv: [B, 2, H, W] texture coordinates in [0, 1], NaN outside the mesh.
        positions: [B, 3, H, W] the tracked body's surface under each pixel in camera space, metres, NaN outside the mesh.
        rest: [B, 3, H, W] the same point of the surface on the person standing upright and neutral, metres (x to the right of the
            picture, y down, facing -z), NaN outside the mesh. Equal in all frames for the same place on the body.
        parts: [B, 1, H, W] long, part of the body under each pixel, an index into `portraitgen.body.LABELS`, -1 outside the mesh.
        strength: how strong the edit is, in [0, 1]; 0 returns the source.
        seed: for editors that draw random numbers.
    """

    source: Tensor
    rendered: Tensor
    alpha: Tensor
    regions: dict[str, Tensor]
    normals: Tensor
    uv: Tensor
    positions: Tensor
    rest: Tensor
    parts: Tensor
    strength: float = 1.0
    seed: int = 0

    @classmethod
    def of_background(cls, source: Tensor, strength: float = 1.0, seed: int = 0) -> EditBatch:
        """Pictures ``[B, 3, H, W]`` in which there is nobody."""
        import torch

        nobody, nowhere = torch.zeros_like(source[:, :1]), torch.full_like(source, torch.nan)
        return cls(
            source=source,
            rendered=source,
            alpha=nobody,
            regions={"background": 1 - nobody},
            normals=torch.zeros_like(source),
            uv=nowhere[:, :2],
            positions=nowhere,
            rest=nowhere,
            parts=torch.full_like(nobody, -1, dtype=torch.long),
            strength=strength,
            seed=seed,
        )

    def split(self, count: int) -> Iterator[EditBatch]:
        """The same frames in batches of at most ``count``."""
        for start in range(0, len(self.source), count):
            part = slice(start, start + count)
            yield replace(
                self,
                source=self.source[part],
                rendered=self.rendered[part],
                alpha=self.alpha[part],
                regions={name: mask[part] for name, mask in self.regions.items()},
                normals=self.normals[part],
                uv=self.uv[part],
                positions=self.positions[part],
                rest=self.rest[part],
                parts=self.parts[part],
            )


class Editor(Protocol):
    """A structure-preserving 2D editor, made for one request.

    Attributes:
        name: shown to the person.
        reads_render: whether an edit starts from the current render, so that editing again brings it forward.
        face_aware: whether it sees more in a picture of the head alone, so that the head is edited once more at full resolution.
        edits_background: whether the background changes too; otherwise the clip's own stays.
        understood: what it took the request to mean, shown to the person.
    """

    name: str
    reads_render: bool
    face_aware: bool
    edits_background: bool
    understood: str

    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1]."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """An editor whose edits depend on the frames that it has edited before."""

    def memory(self) -> dict[str, Tensor]:
        """What it has kept of them."""
        ...

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take over the `memory` of another one for the same request, so as to go on where that one was left."""
        ...


def check_request(request: EditRequest) -> None:
    """Raise InputError for a kind or an engine that does not exist, a number out of its range, and a missing text or picture."""
    if request.kind not in ENGINES:
        raise InputError(f"There is no edit called {request.kind!r}. Choose one of: {', '.join(ENGINES)}.")
    if request.engine not in ("auto", *ENGINES[request.kind]):
        known = ", ".join(ENGINES[request.kind])
        raise InputError(f"There is no engine called {request.engine!r} for this edit. Choose one of: {known}.")
    if not 0 <= request.strength <= 1:
        raise InputError(f"The strength is {request.strength:g}, it must lie between 0 and 1.")
    for what, value, (low, high) in (
        ("number of key frames", request.key_frames, KEY_FRAMES),
        ("guidance", request.guidance, GUIDANCE),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"The {what} is {value:g}, it must lie between {low:g} and {high:g}.")
    if request.kind == "text" and not request.text.strip():
        raise InputError("The instruction is empty. Write what to change, such as 'give him red hair'.")
    if request.kind == "relight" and not request.text.strip() and request.picture is None:
        raise InputError("The light is not described. Write it, as in 'sunset from the left', or give a picture.")
    if request.kind in ("style", "tryon") and request.picture is None:
        raise InputError(f"There is no {'style picture' if request.kind == 'style' else 'garment photo'}. Give one.")
    if request.picture is not None and not request.picture.is_file():
        raise InputError(f"There is no picture at {request.picture}. Check the path.")


def engine_for(kind: str, engine: str, device: str) -> str:
    """The engine that does an edit: of "auto", the one from the Hub where its weights and a GPU are, or else the built-in one."""
    if engine != "auto":
        return engine
    from .. import weights

    preferred = ENGINES[kind][1]
    return preferred if device.startswith("cuda") and weights.ready(preferred) else "builtin"


def choose_engine(request: EditRequest, device: str) -> EditRequest:
    """The request with its engine settled by `engine_for`; raises InputError as `check_request` does."""
    check_request(request)
    return replace(request, engine=engine_for(request.kind, request.engine, device))


def load_editor(request: EditRequest, device: str) -> Editor:
    """The editor for ``request``, ready to edit on ``device``.

    Raises InputError as `choose_engine` does, if the engine's weights are missing, or if it cannot do what the request asks.
    """
    request = choose_engine(request, device)
    builtin, picture = request.engine == "builtin", request.picture
    if request.kind == "style" and picture is not None:
        if builtin:
            from .style import BuiltinStyle

            return BuiltinStyle(picture, request.keep_colors, device)
        from .gatys import Gatys

        return Gatys(picture, request.keep_colors, device)
    if request.kind == "tryon" and picture is not None:
        if builtin:
            from .tryon import BuiltinTryOn

            return BuiltinTryOn(picture)
        from .fashn import FashnTryOn

        return FashnTryOn(picture, device, guidance=request.guidance)
    if request.kind == "relight":
        if builtin:
            from .relight import BuiltinRelight

            return BuiltinRelight(request.text, picture)
        from .ic_light import IcLight

        return IcLight(request.text, picture, device, guidance=request.guidance)
    if request.engine == "instruct-pix2pix":
        from .latent_diffusion import InstructPix2Pix

        return InstructPix2Pix(request.text, device, guidance=request.guidance)
    if request.engine == "flux2-klein":
        from .flux import FluxKlein

        return FluxKlein(request.text, device)
    from .text import BuiltinLooks

    return BuiltinLooks(request.text)
