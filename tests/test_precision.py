"""Half precision: which cards compute in which, and what it changes; tried on the CPU, which has bfloat16 too."""

from __future__ import annotations

import contextlib

import pytest
import torch

from portraitgen import precision
from portraitgen.losses import PerceptualLoss
from portraitgen.precision import mixed
from portraitgen.renderer import NeuralRenderer


@pytest.mark.parametrize(
    ("brain", "capability", "training", "wanted"),
    [
        (True, (9, 0), True, torch.bfloat16),
        (True, (8, 6), False, torch.bfloat16),
        (False, (7, 5), True, None),
        (False, (7, 5), False, torch.float16),
        (False, (6, 1), False, None),
    ],
    ids=["H100 in training", "RTX 30 rendering", "T4 in training", "T4 rendering", "GTX 10 rendering"],
)
def test_a_card_computes_in_what_it_has(
    brain: bool,
    capability: tuple[int, int],
    training: bool,
    wanted: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: brain)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with contextlib.nullcontext() if training else torch.no_grad():
        assert precision._dtype(torch.device("cuda")) == wanted
        assert precision._dtype(torch.device("cpu")) is None


def test_a_cpu_computes_in_full() -> None:
    with mixed(torch.device("cpu")):
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_renderers_layers_run_in_half_and_its_picture_is_whole(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = NeuralRenderer(8, 8)
    torch.nn.init.normal_(network.leave.weight, std=0.05)
    features, alpha = torch.rand(1, 8, 32, 32), torch.rand(1, 1, 32, 32)
    seen: list[torch.dtype] = []
    network.middle.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full = network(features, alpha)
    monkeypatch.setattr(precision, "_dtype", lambda device: dtype)
    half = network(features, alpha)
    assert seen == [torch.float32, dtype]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=5e-3, rtol=0)
    network.forget()
    assert torch.equal(network(features, alpha), features[:, :3]), "what passes through is exact"


def test_a_perceptual_distance_in_half_is_the_same_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, picture = PerceptualLoss(), torch.rand(1, 3, 64, 64)
    values, slopes, seen = [], [], []
    network.network.stages[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # type: ignore[union-attr, index]
    for dtype in (None, torch.bfloat16):
        monkeypatch.setattr(precision, "_dtype", lambda device, dtype=dtype: dtype)
        blurred = torch.nn.functional.avg_pool2d(picture, 3, 1, 1).requires_grad_()
        distance = network(blurred, picture)
        distance.backward()
        assert blurred.grad is not None
        assert (distance.dtype, blurred.grad.dtype) == (torch.float32, torch.float32)
        values.append(float(distance.detach()))
        slopes.append(blurred.grad.flatten())
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert values[1] == pytest.approx(values[0], rel=0.02)
    assert torch.nn.functional.cosine_similarity(*slopes, dim=0) > 0.95
