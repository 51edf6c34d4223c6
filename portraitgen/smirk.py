"""SMIRK's expression encoder (Retsinas et al. 2024, MIT) from a checkpoint that a person brings, for `portraitgen.expression`.

``SMIRK_em1.pt`` is handed out by its authors alone; put it into ``weights/``. Of its three encoders the expression one is read: MobileNetV3
(timm's ``tf_mobilenetv3_large_minimal_100``), pooled, then a linear layer to 50 FLAME expression weights, two eyelids and three angles of
the jaw. It needs no FLAME file.

EMOCA, which the paper used, is not offered: its checkpoints are pickles of its own classes, which cannot be read without running code from
the file, and their licence is non-commercial. Whoever has it running can pass any object that is an `ExpressionEncoder`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import weights
from .errors import InputError
from .expression import FACE_POINTS

CHECKPOINT = "SMIRK_em1.pt"
BACKBONE, CHANNELS = "tf_mobilenetv3_large_minimal_100", 960
EXPRESSIONS, EYELIDS, JAW = 50, 2, 3
_PREFIX = "smirk_encoder.expression_encoder."
_SOURCE = "Take SMIRK_em1.pt as its authors (georgeretsi/smirk) hand it out"


class Smirk:
    """The expression encoder, frozen.

    Args:
        path: the checkpoint; read with ``weights_only``, nothing in it is run.
        device: where the pictures are.

    Raises:
        InputError: if there is no such file or it is not SMIRK's checkpoint.
    """

    name = "SMIRK"
    size = 224
    scale = 1.0

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        stored = _stored(path)
        self.trunk = _trunk()
        self.head = nn.Linear(CHANNELS, EXPRESSIONS + EYELIDS + JAW)
        for part, prefix in ((self.trunk, "encoder."), (self.head, "expression_layers.0.")):
            named = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
            try:
                part.load_state_dict(named)
            except RuntimeError as error:
                raise InputError(f"{path.name} does not fit SMIRK's expression encoder. {_SOURCE}.") from error
            part.eval().requires_grad_(False).to(device)

    def squares(self, landmarks: Tensor) -> Tensor:
        """Upright squares ``[B, 4]`` (see `expression.face_squares`), 1.4 times the mean side of the landmarks' box, as in training."""
        points = landmarks[:, :FACE_POINTS, :2]
        low, high = points.amin(1), points.amax(1)
        side = 1.4 * (high - low).mean(1, keepdim=True)
        return torch.cat([(low + high) / 2, side, torch.zeros_like(side)], 1)

    def features(self, crops: Tensor) -> Tensor:
        """``[B, 55]`` of faces ``[B, 3, 224, 224]`` in [0, 1]: expression, eyelids, jaw, each over a change that can be seen."""
        code = self.head(self.trunk(crops)[-1].mean((2, 3)))
        expression, eyelids, jaw = code.split((EXPRESSIONS, EYELIDS, JAW), 1)
        opening, turns = jaw[:, :1].relu(), jaw[:, 1:].clamp(-0.2, 0.2)
        return torch.cat([expression / 0.5, eyelids.clamp(0, 1) / 0.2, opening / 0.05, turns / 0.05], 1)


def at_hand(device: torch.device | str = "cpu") -> Smirk | None:
    """The encoder if its checkpoint lies in ``weights/``, or None."""
    path = weights.ROOT / CHECKPOINT
    return Smirk(path, device) if path.is_file() else None


def _trunk() -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(BACKBONE, pretrained=False, features_only=True)
    return network


def _stored(path: Path) -> dict[str, Tensor]:
    """The expression encoder's tensors by name."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}. {_SOURCE}.") from error
    except Exception as error:  # what is no checkpoint is refused wherever its bytes happen to lead
        raise InputError(f"{path.name} is not a checkpoint that can be read safely. {_SOURCE}.") from error
    found = content.items() if isinstance(content, dict) else ()
    stored = {name.removeprefix(_PREFIX): value for name, value in found if str(name).startswith(_PREFIX)}
    if not stored:
        raise InputError(f"{path.name} holds no expression encoder of SMIRK. {_SOURCE}.")
    return stored
