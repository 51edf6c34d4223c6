"""A pose network of four nodes, written as the real one is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def field(code: int, kind: int, payload: bytes | int) -> bytes:
    """One field of a protocol buffer: kind 0 is a number, 2 is bytes."""

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    if isinstance(payload, int):
        return varint(code << 3 | kind) + varint(payload)
    return varint(code << 3 | kind) + varint(len(payload)) + payload


def write_pose_network(file: Path, gains: np.ndarray, height: int = 384, width: int = 288) -> None:
    """An ONNX network in DWPose's shape that finds all 133 points at the brightest pixel, each with a gain of its score."""

    def text(code: int, value: str) -> bytes:
        return field(code, 2, value.encode())

    def node(kind: str, inputs: list[str], output: str, **numbers: int) -> bytes:
        out = b"".join(text(1, name) for name in inputs) + text(2, output) + text(4, kind)
        for name, number in numbers.items():
            out += field(
                5,
                2,
                text(1, name)
                + (field(8, 0, number) if name == "axes" else field(3, 0, number))
                + field(20, 0, 7 if name == "axes" else 2),
            )
        return field(1, 2, out)

    def constant(name: str, array: np.ndarray) -> bytes:
        dims = b"".join(field(1, 0, size) for size in array.shape)
        return field(5, 2, dims + field(2, 0, 1) + text(8, name) + field(9, 2, array.astype("<f4").tobytes()))

    def value(code: int, name: str, shape: tuple[int, ...]) -> bytes:
        dims = b"".join(field(1, 2, field(1, 0, size)) for size in shape)
        tensor = field(1, 0, 1) + field(2, 2, dims)
        return field(code, 2, text(1, name) + field(2, 2, field(1, 2, tensor)))

    spread = {}
    for name, size in (("wide", width), ("tall", height)):
        spread[name] = np.zeros((size, 2 * size))
        spread[name][np.arange(size), 2 * np.arange(size)] = 1
    graph = (
        node("ReduceMax", ["input"], "grey", axes=1, keepdims=0)
        + node("ReduceMax", ["grey"], "columns", axes=1, keepdims=1)
        + node("ReduceMax", ["grey"], "rows_", axes=2, keepdims=0)
        + node("Unsqueeze", ["rows_"], "rows", axes=1)
        + node("MatMul", ["columns", "wide"], "x")
        + node("MatMul", ["rows", "tall"], "y")
        + node("MatMul", ["gains", "x"], "simcc_x")
        + node("MatMul", ["gains", "y"], "simcc_y")
        + text(2, "tiny")
        + constant("gains", gains[:, None])
        + constant("wide", spread["wide"])
        + constant("tall", spread["tall"])
        + value(11, "input", (1, 3, height, width))
        + value(12, "simcc_x", (1, 133, 2 * width))
        + value(12, "simcc_y", (1, 133, 2 * height))
    )
    file.write_bytes(field(1, 0, 7) + field(7, 2, graph) + field(8, 2, text(1, "") + field(2, 0, 11)))
