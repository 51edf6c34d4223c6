"""Small convolutional TensorFlow Lite graphs as frozen, differentiable torch modules.

MediaPipe's interpreter gives no gradients, but the networks in its wheel (Apache-2.0) are ordinary files. What FaceMesh needs is read:
floats in half or single precision, convolutions (plain and depthwise), PReLU, maximum pooling, zero padding and sums. The container is a
FlatBuffer; numbers of fields and operators are those of TensorFlow Lite's schema, version 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ADD, CONVOLUTION, DEPTHWISE, DEQUANTIZE, MAX_POOL, PAD, PRELU = 0, 3, 4, 6, 17, 34, 54
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4"}
_SAME = 0  # padding scheme; 1 is no padding


@dataclass(frozen=True)
class _Table:
    """A table of a FlatBuffer: its fields go by number and may be absent."""

    data: bytes
    place: int

    def field(self, number: int) -> int:
        """Where the field's value lies, 0 if it is absent."""
        directory = self.place - self._read("<i", self.place)
        if 4 + 2 * number >= self._read("<H", directory):
            return 0
        offset = self._read("<H", directory + 4 + 2 * number)
        return offset and self.place + offset

    def number(self, field: int, kind: str = "<i") -> int:
        """A whole number, 0 if absent."""
        place = self.field(field)
        return self._read(kind, place) if place else 0

    def table(self, field: int) -> _Table:
        place = self.field(field)
        return _Table(self.data, place + self._read("<I", place))

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self.data, place + self._read("<I", place)) for place in places]

    def numbers(self, field: int) -> list[int]:
        start, count = self._vector(field)
        return np.frombuffer(self.data, "<i4", count, start).tolist()

    def content(self, field: int) -> bytes:
        start, count = self._vector(field)
        return self.data[start : start + count]

    def _vector(self, field: int) -> tuple[int, int]:
        place = self.field(field)
        if not place:
            return 0, 0
        place += self._read("<I", place)
        return place + 4, self._read("<I", place)

    def _read(self, kind: str, place: int) -> int:
        return int(struct.unpack_from(kind, self.data, place)[0])


@dataclass(frozen=True)
class Step:
    """One operation on tensors that go by number; the options are of convolutions and pooling."""

    operator: int
    inputs: tuple[int, ...]
    output: int
    same: bool
    stride: tuple[int, int]  # down, across
    window: tuple[int, int]  # of pooling, down, across


class Network(nn.Module):
    """A graph with one input, its constants frozen buffers.

    Args:
        path: a .tflite file.

    Raises:
        ValueError: if the file is not of this format or holds an operation that is not known here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        data = path.read_bytes()
        if data[4:8] != b"TFL3":
            raise ValueError(f"{path.name} is not a TensorFlow Lite file")
        model = _Table(data, struct.unpack_from("<I", data)[0])
        operators = [code.number(0, "<b") for code in model.tables(1)]
        graph, buffers = model.tables(2)[0], model.tables(4)
        constants: dict[int, np.ndarray[Any, Any]] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        for number, tensor in enumerate(graph.tables(0)):
            self.shapes[number] = tuple(tensor.numbers(0))
            content = buffers[tensor.number(2, "<I")].content(0)
            if content:
                constants[number] = np.frombuffer(content, _TYPES[tensor.number(1, "<b")]).reshape(self.shapes[number])
        (self.input,), self.outputs = graph.numbers(1), tuple(graph.numbers(2))
        self.steps: list[Step] = []
        for row in graph.tables(3):
            operator, inputs, output = operators[row.number(0)], tuple(row.numbers(1)), row.numbers(2)[0]
            if operator == DEQUANTIZE:
                constants[output] = constants[inputs[0]].astype(np.float32)
            else:
                self.steps.append(_step(operator, inputs, output, row))
        for step in self.steps:
            self._freeze(step, constants)

    def _freeze(self, step: Step, constants: dict[int, np.ndarray[Any, Any]]) -> None:
        """Keep the step's constants as buffers in torch's layout."""
        for number in set(step.inputs) & set(constants):
            value = constants[number]
            if step.operator == CONVOLUTION and value.ndim == 4:
                value = value.transpose(0, 3, 1, 2)  # out, in, down, across
            elif step.operator == DEPTHWISE and value.ndim == 4:
                value = value.transpose(3, 0, 1, 2)  # channel, 1, down, across
            elif step.operator == PRELU:
                value = value.reshape(-1)
            elif step.operator == PAD:
                value = value[[3, 1, 2]]  # of NHWC to channels, down, across; nobody pads the batch
            self.register_buffer(f"constant_{number}", torch.from_numpy(np.ascontiguousarray(value)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Run the graph on ``[B, C, H, W]`` of the size that it asks for; returns its outputs ``[B, C', H', W']``.

        Gradients go to ``image`` alone. Half and double precision work once the module is converted.
        """
        values = {self.input: image}
        for step in self.steps:
            found = (values[n] if n in values else self.get_buffer(f"constant_{n}") for n in step.inputs)
            values[step.output] = _run(step, *found)
        return [values[number] for number in self.outputs]


def _step(operator: int, inputs: tuple[int, ...], output: int, row: _Table) -> Step:
    if operator not in (ADD, CONVOLUTION, DEPTHWISE, MAX_POOL, PAD, PRELU):
        raise ValueError(f"operation {operator} of TensorFlow Lite is not known here")
    if operator in (PAD, PRELU):
        return Step(operator, inputs, output, same=False, stride=(1, 1), window=(1, 1))
    options = row.table(4)
    activation = options.number({ADD: 0, CONVOLUTION: 3, DEPTHWISE: 4, MAX_POOL: 5}[operator], "<b")
    if activation:
        raise ValueError(f"fused activation {activation} of TensorFlow Lite is not known here")
    if operator == ADD:
        return Step(operator, inputs, output, same=False, stride=(1, 1), window=(1, 1))
    window = (options.number(4), options.number(3)) if operator == MAX_POOL else (1, 1)
    return Step(
        operator,
        inputs,
        output,
        same=options.number(0, "<b") == _SAME,
        stride=(options.number(2), options.number(1)),
        window=window,
    )


def _run(step: Step, value: Tensor, *others: Tensor) -> Tensor:
    if step.operator == ADD:
        return value + others[0]
    if step.operator == PRELU:
        return F.prelu(value, others[0])
    if step.operator == PAD:
        (before_c, after_c), (above, below), (left, right) = others[0].tolist()
        return F.pad(value, (left, right, above, below, before_c, after_c))
    if step.operator == MAX_POOL:
        value = _padded(value, step.window, step.stride, float("-inf")) if step.same else value
        return F.max_pool2d(value, step.window, step.stride)
    weight, bias = others
    value = _padded(value, weight.shape[2:], step.stride, 0.0) if step.same else value
    return F.conv2d(value, weight, bias, step.stride, groups=len(weight) if step.operator == DEPTHWISE else 1)


def _padded(value: Tensor, window: tuple[int, ...], stride: tuple[int, int], fill: float) -> Tensor:
    """Padded so that every ``stride``-th place has its window; an odd pixel goes below and to the right, as TensorFlow has it."""
    total = [max(0, (-(-n // s) - 1) * s + w - n) for n, w, s in zip(value.shape[2:], window, stride, strict=True)]
    if not any(total):
        return value
    (up, down), (left, right) = ((n // 2, n - n // 2) for n in total)
    return F.pad(value, (left, right, up, down), value=fill)
