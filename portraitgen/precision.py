"""How exactly networks of convolutions are computed: as is on a CPU, in half precision where a card has units for it.

TF32 is left as torch has it, allowed in convolutions and not in matrix products: the switch belongs to the whole process, and the body's
skinning needs its digits.
"""

from __future__ import annotations

import torch

_TENSOR_CORES = (7, 0)  # compute capability from which on half precision is faster


def mixed(device: torch.device) -> torch.autocast:
    """The context in which a network's forward pass runs on ``device``; what leaves it is for the caller to turn to float32."""
    dtype = _dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _dtype(device: torch.device) -> torch.dtype | None:
    """Half precision to compute in, None for full.

    The range of bfloat16 needs no loss scaling. Cards without it (a T4) have float16, whose small gradients vanish: forward alone.
    """
    if device.type != "cuda":
        return None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    forward_alone = not torch.is_grad_enabled()
    return torch.float16 if forward_alone and torch.cuda.get_device_capability(device) >= _TENSOR_CORES else None
