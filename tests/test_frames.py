from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_body import toy_parameters

from portraitgen.frames import TrainingFrames
from portraitgen.keyframes import diverse_frames, evenly_spaced


@pytest.fixture
def data() -> TrainingFrames:
    size = 64
    ramp = torch.arange(size, dtype=torch.uint8)
    images = torch.stack(
        [ramp.repeat(size, 1), ramp[:, None].repeat(1, size), torch.full((size, size), 9, dtype=torch.uint8)]
    )
    K = torch.tensor([[100.0, 0, 32], [0, 100.0, 32], [0, 0, 1]])
    alphas = torch.full((3, 1, size, size), 255, dtype=torch.uint8)
    return TrainingFrames(
        torch.tensor([4, 7, 9]),
        images.repeat(3, 1, 1, 1),
        alphas,
        K,
        torch.full((3, 2), 40.0),
        torch.ones(3, size, size, dtype=torch.bool),
    )


def test_a_window_and_its_intrinsics_agree(data: TrainingFrames) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        batch = data.windows(torch.tensor([0, 2]), 24, generator)
        assert batch.frames.tolist() == [4, 9]
        assert batch.image.shape == (2, 3, 24, 24)
        # The picture holds its own coordinates: the first pixel says where the window lies.
        left, top = (batch.image[:, i, 0, 0] * 255 for i in (0, 1))
        torch.testing.assert_close(batch.Ks[:, 0, 2], 32 - left)
        torch.testing.assert_close(batch.Ks[:, 1, 2], 32 - top)


def test_windows_never_leave_the_picture_and_are_capped(data: TrainingFrames) -> None:
    assert data.windows(torch.tensor([1]), 500, np.random.default_rng(0)).image.shape == (1, 3, 64, 64)


def test_windows_leave_no_corner_of_the_person_out(data: TrainingFrames) -> None:
    size, side = data.size, data.size // 2
    data.alphas[:, :, : size // 3, : size // 2] = 0
    data.heads[:] = torch.tensor([0.75 * size, 0.25 * size])
    visits, generator = np.zeros((size, size)), np.random.default_rng(0)
    for _ in range(400):
        Ks = data.windows(torch.tensor([0]), side, generator).Ks[0]
        left, top = (int(data.K[i, 2] - Ks[i, 2]) for i in (0, 1))
        visits[top : top + side, left : left + side] += 1
    person = data.alphas[0, 0].numpy() > 0
    assert visits[person].min() > 10


def test_a_frame_without_anybody_has_windows_too(data: TrainingFrames) -> None:
    data.alphas[:] = 0
    assert data.windows(torch.tensor([0, 1]), 16, np.random.default_rng(0)).image.shape == (2, 3, 16, 16)


def test_shrunken_frames_keep_the_colour_at_the_mattes_edge(data: TrainingFrames) -> None:
    data.alphas[:, :, :, ::2] = 0
    data.images[:, :, :, ::2] = 255
    batch = data.whole(torch.tensor([0]), 2)
    torch.testing.assert_close(batch.image[0, 2], torch.full((32, 32), 9 / 255), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.alpha, torch.full((1, 1, 32, 32), 0.5))
    assert batch.Ks[0, 0, 0] == 50
    assert batch.Ks[0, 0, 2] == 16


def test_diverse_frames_hold_the_extremes() -> None:
    parameters = toy_parameters(40)
    parameters.expression[:] = 0
    turns = parameters.rotations[:, 0, 1]
    chosen = diverse_frames(parameters, torch.arange(40), 3)
    assert int(turns.argmax()) in chosen.tolist()
    assert int(turns.argmin()) in chosen.tolist()
    assert chosen.tolist() == sorted(set(chosen.tolist()))


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (5, 5), (100, 12)])
def test_never_more_frames_than_there_are(count: int, wanted: int) -> None:
    assert len(diverse_frames(toy_parameters(20), torch.arange(0, 12), count)) == wanted


def test_evenly_spaced_frames_include_both_ends() -> None:
    assert evenly_spaced(torch.arange(10, 20), 3).tolist() == [10, 14, 19]
    assert evenly_spaced(torch.arange(3), 5).tolist() == [0, 1, 2]
