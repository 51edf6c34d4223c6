"""2D editors: everything that turns frames into edited frames, behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EditBatch:
    """Frames to edit and all that is known about them.

    Attributes:
        source: [B, 3, H, W] the clip's own frames, RGB in [0, 1].
        rendered: [B, 3, H, W] the same frames as the avatar renders them now.
        alpha: [B, 1, H, W] the person, straight alpha in [0, 1].
        regions: soft masks [B, 1, H, W] in [0, 1] by name (background, skin, hair, lips, eyes, brows, teeth, clothes);
            a missing name means that the region is not in the picture.
        normals: [B, 3, H, W] unit, camera space (x right, y down, z forward; facing the camera is z = -1), zeros outside the mesh.
        uv: [B, 2, H, W] texture coordinates in [0, 1], NaN outside the mesh.
        instruction: what the person asked for.
        strength: how strong the edit is, in [0, 1]; 0 returns the source.
        seed: for editors that draw random numbers.
    """

    source: Tensor
    rendered: Tensor
    alpha: Tensor
    regions: dict[str, Tensor]
    normals: Tensor
    uv: Tensor
    instruction: str
    strength: float = 1.0
    seed: int = 0


class Editor(Protocol):
    """A structure-preserving 2D editor.

    Attributes:
        name: shown to the person.
        reads_render: whether an edit starts from the current render, so that editing again brings it forward.
        edits_background: whether the background changes too; otherwise the clip's own stays.
        understood: what it took the instruction to mean, shown to the person.
    """

    name: str
    reads_render: bool
    edits_background: bool
    understood: str

    def edit(self, batch: EditBatch) -> Tensor:
        """Return the edited frames, [B, 3, H, W] in [0, 1]."""
        ...


def load_editor(engine: str, instruction: str, device: str) -> Editor:
    """The text editor called ``engine`` ("builtin" or "instruct-pix2pix"), ready for ``instruction``.

    Raises InputError if there is no such engine, if its weights are missing, or if it cannot do what the instruction asks.
    """
    if engine == "builtin":
        from .text import BuiltinLooks

        return BuiltinLooks(instruction)
    if engine == "instruct-pix2pix":
        from .latent_diffusion import InstructPix2Pix

        return InstructPix2Pix(device)
    raise InputError(f"There is no engine called {engine!r}. Choose one of: builtin, instruct-pix2pix.")
