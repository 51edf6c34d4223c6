"""What hands hide in nearly all frames, on a toy with a hand before its left half."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_alignment import SIZE, rendered

from portraitgen.free_view import usual_places
from portraitgen.hidden import smooth_hidden
from portraitgen.initialization import project

GREY = torch.tensor([0.5, 0.5, 0.5])


def test_specks_where_hands_hide_the_body_take_the_looks_of_what_is_around_them() -> None:
    fitted, data = rendered(4)
    avatar, generator = fitted.avatar, torch.Generator().manual_seed(0)
    with torch.no_grad():
        avatar.features[:, :3] = GREY + 0.2 * torch.randn(len(avatar), 3, generator=generator)
    covered = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    covered[:, : SIZE // 2] = True
    often = torch.ones(4, SIZE, SIZE, dtype=torch.bool)
    often[1:, covered] = False
    before = avatar.features.detach().clone()
    smooth_hidden(fitted, replace(data, inside=often))
    after = avatar.features.detach()
    xy = project(usual_places(fitted), data.K)[0]
    changed = (after != before).any(1)
    assert changed[xy[:, 0] > SIZE / 2 + 8].float().mean() < 0.02, "what is shown stays as it was learned"
    behind = changed & (xy[:, 0] < SIZE / 2 - 8)
    assert behind.sum() > 200
    assert (after[behind, :3] - GREY).abs().mean() < 0.4 * (before[behind, :3] - GREY).abs().mean()


@pytest.mark.parametrize(("frames", "changes"), [(4, True), (48, False)])
def test_a_quarter_of_many_frames_is_enough_to_know_it_by(frames: int, changes: bool) -> None:
    fitted, data = rendered(1)
    before = fitted.avatar.features.detach().clone()
    inside = torch.ones(frames, SIZE, SIZE, dtype=torch.bool)
    inside[frames // 4 :, :, : SIZE // 2] = False
    smooth_hidden(fitted, replace(data.select(torch.zeros(frames, dtype=torch.long)), inside=inside))
    changed = (fitted.avatar.features != before).any(1).float().mean()
    assert changed > 0.1 if changes else changed < 0.02


def test_without_hands_nothing_changes() -> None:
    fitted, data = rendered(3)
    before = fitted.avatar.features.detach().clone()
    bars = torch.ones(SIZE, SIZE, dtype=torch.bool)
    bars[:20] = False
    smooth_hidden(fitted, replace(data, inside=bars.expand(3, -1, -1)))
    assert torch.equal(fitted.avatar.features, before)


def test_a_hand_that_passes_hides_nothing_for_long() -> None:
    fitted, data = rendered(4)
    before = fitted.avatar.features.detach().clone()
    inside = torch.ones(4, SIZE, SIZE, dtype=torch.bool)
    inside[2, :, : SIZE // 2] = False
    smooth_hidden(fitted, replace(data, inside=inside))
    assert (fitted.avatar.features != before).any(1).float().mean() < 0.02
