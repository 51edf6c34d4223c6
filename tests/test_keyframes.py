from __future__ import annotations

import torch

from portraitgen.body import BodyParameters, load_body
from portraitgen.keyframes import diverse_frames, evenly_spaced, training_frames

LONG, COUNT = 1500, 150


def swinging(frames: int) -> BodyParameters:
    """A person who slowly shakes the head."""
    parameters = BodyParameters.zeros(load_body(), frames)
    parameters.rotations[:, 0, 1] = 0.3 * torch.sin(torch.arange(frames) / 40)
    return parameters


def test_even_spacing_keeps_the_ends() -> None:
    assert evenly_spaced(torch.arange(3, 14), 3).tolist() == [3, 8, 13]
    assert evenly_spaced(torch.arange(4), 9).tolist() == [0, 1, 2, 3]


def test_key_frames_cover_the_poses_without_repeats() -> None:
    parameters = swinging(200)
    parameters.expression[70, 3] = 1.0
    chosen = diverse_frames(parameters, torch.arange(195), 6)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 6
    assert 70 in chosen
    assert chosen.max() < 195
    turn = parameters.rotations[chosen, 0, 1]
    assert turn.min() < -0.28
    assert turn.max() > 0.28


def test_a_still_person_gets_as_many_frames_spread_in_time() -> None:
    still = BodyParameters.zeros(load_body(), 100)
    chosen = diverse_frames(still, torch.arange(100), 5)
    assert len(set(chosen.tolist())) == 5
    assert (chosen[1:] - chosen[:-1]).max() <= 50
    assert {int(chosen[0]), int(chosen[-1])} <= {0, 99}
    assert len(set(training_frames(still, torch.arange(100), 30).tolist())) == 30


def test_training_frames_keep_their_spacing_and_catch_what_is_rare() -> None:
    parameters = swinging(LONG)
    moments = {301: 5, 707: 9, 1113: 14}  # shown for two frames each
    for frame, action in moments.items():
        parameters.expression[frame : frame + 2, action] = 0.9
    candidates = torch.arange(LONG)
    even, mixed = evenly_spaced(candidates, COUNT), training_frames(parameters, candidates, COUNT)
    assert mixed.tolist() == sorted(set(mixed.tolist()))
    assert len(mixed) == COUNT
    assert {0, LONG - 1} <= set(mixed.tolist())

    def longest_gap(frames: torch.Tensor) -> int:
        return int((frames[1:] - frames[:-1]).max())

    assert longest_gap(mixed) <= 1.6 * longest_gap(even)

    def caught(frames: torch.Tensor) -> int:
        return sum(bool(((frames == frame) | (frames == frame + 1)).any()) for frame in moments)

    assert caught(mixed) == len(moments)
    assert caught(even) < len(moments)


def test_frames_that_are_left_out_are_not_chosen() -> None:
    usable = torch.cat((torch.arange(0, 400), torch.arange(900, LONG)))
    chosen = training_frames(swinging(LONG), usable, COUNT)
    assert torch.isin(chosen, usable).all()
    assert len(chosen) == COUNT
