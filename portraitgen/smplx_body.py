"""SMPL-X as a body model, from the file that a person brings; nothing of it is in this package or fetched by it.

The file is found by `smplx_file.find_smplx`. The mean person of `SMPLX_NEUTRAL.npz` is cut down to what a portrait shows and
packed like `AnnyBody`: see there for root, axes and units. What SMPL-X's own forward pass does to the kept vertices is done
here too, the correctives of the pose included. Legs, which a portrait does not show, are left out, and forearms and hands are apart, see
`hand_model`.

- `betas` are the directions of SMPL-X's 300 that change a portrait most; `smplx_betas` turns them into SMPL-X's own.
- `expression` is SMPL-X's, about standard normal; the jaw is a joint.
- SMPL-X ends at the lips: teeth, tongue and the cavity of the mouth are `smplx_mouth`'s.

SMPL-X's licence allows non-commercial research, education and art only, and does not allow passing the file on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from .body import BodyParameters, ExpressionPrior, Skeleton, SkinnedBody
from .smplx_data import BONES, build_arrays, read_file
from .smplx_file import find_smplx

FORMAT = 1  # part of the version: increase when the arrays change
SKELETON = Skeleton(BONES, "neck")


class SmplxBody(SkinnedBody):
    """SMPL-X's upper body; see the module's description for its conventions."""

    name = "smplx"
    # Arms that are stretched sideways at rest hang down.
    pose_mean: ClassVar[Mapping[str, tuple[float, float, float]]] = {
        "upper_arm_left": (0.0, 0.0, 1.1),
        "upper_arm_right": (0.0, 0.0, -1.1),
    }

    def __init__(self, arrays: Mapping[str, Tensor], version: str) -> None:
        count = len(arrays["expression_basis"])
        super().__init__(arrays, SKELETON, tuple(f"expression_{number}" for number in range(count)))
        self.version = version
        self.expression_prior = ExpressionPrior(torch.ones(count), acceleration=0.3, low=-4.0, high=4.0)
        self.smplx_vertices = arrays[
            "smplx_vertices"
        ]  # [N] numbers in SMPL-X of the first N vertices; the mouth follows
        self.smplx_betas = arrays["smplx_betas"]  # [P, 300 or 10]

    def part_lips(self, params: BodyParameters) -> None:
        params.rotations[:, self.joint_names.index("jaw"), 0] = 0.03


def load_smplx(device: torch.device | str = "cpu") -> SmplxBody:
    """The body in the person's own file, on `device`. Raises InputError where it is missing or broken."""
    path = find_smplx()
    facts = path.stat()
    arrays, version = _arrays(path, facts.st_size, facts.st_mtime_ns)
    return SmplxBody({key: value.to(device) for key, value in arrays.items()}, version)


@functools.lru_cache(maxsize=1)
def _arrays(path: Path, size: int, modified: int) -> tuple[dict[str, Tensor], str]:
    """Arrays and version of the file, for as long as it stays as it is."""
    arrays, digest = build_arrays(read_file(path)), hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return arrays, f"{digest.hexdigest()[:16]}-{FORMAT}"
