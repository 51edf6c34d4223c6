"""Which frames are learned from, on the example with things drawn over it, and the sentences about the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hard_clips import acted, smeared, with_ball, with_glasses, with_hand

from portraitgen.screening import (
    FaceMeter,
    Screening,
    describe,
    describe_beyond,
    find_away,
    reaches_beyond,
    runs,
    screen,
)

COUNT = 20
TIMES = np.arange(COUNT) / 10
NONE = np.zeros(COUNT, bool)


def mask(*frames: int) -> np.ndarray:
    out = NONE.copy()
    out[list(frames)] = True
    return out


def measured(change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None, *which: int) -> FaceMeter:
    """A meter that has seen the example with some frames changed."""
    frames, faces = acted()
    meter = FaceMeter(faces[:COUNT])
    for number in range(COUNT):
        changed = change is not None and number in which
        meter.see(number, change(frames[number], faces[number]) if changed else frames[number])
    return meter


def judged(meter: FaceMeter, bridged: np.ndarray = NONE, error: np.ndarray | None = None) -> Screening:
    return screen(bridged, np.full(COUNT, 0.02) if error is None else error, NONE, TIMES, meter)


def test_a_good_clip_is_used_whole() -> None:
    screening = judged(measured())
    assert screening.usable.all()
    assert describe(screening, TIMES) == []


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (with_ball, "covered", "face covered"),
        (with_hand, "covered", "face covered"),
        (lambda frame, face: smeared(frame), "blurred", "blurred"),
        (lambda frame, face: smeared(frame, 9), "blurred", "blurred"),
    ],
)
def test_what_hides_the_face_is_not_learned_from(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray], field: str, words: str
) -> None:
    screening = judged(measured(change, 4, 5, 6, 12))
    assert getattr(screening, field).tolist() == mask(4, 5, 6, 12).tolist()
    assert screening.usable.tolist() == (~mask(4, 5, 6, 12)).tolist()
    notes = describe(screening, TIMES)
    assert len(notes) == 1
    assert notes[0].startswith("4 frames (0.40 to 0.60 s, 1.20 s): ")
    assert words in notes[0]


def test_glasses_worn_throughout_and_a_soft_clip_are_no_fault() -> None:
    assert judged(measured(with_glasses, *range(COUNT))).usable.all()
    assert judged(measured(lambda frame, face: smeared(frame), *range(COUNT))).usable.all()


def test_a_change_of_light_is_no_fault() -> None:
    assert judged(measured(lambda frame, face: (frame * 0.6).astype(np.uint8), 3, 4, 5)).usable.all()


def test_a_frame_that_is_tracked_badly_is_left_out() -> None:
    error = np.full(COUNT, 0.02)
    error[[7, 8]] = 0.09
    screening = judged(measured(), error=error)
    assert screening.doubtful.tolist() == mask(7, 8).tolist()
    assert "tracked badly" in describe(screening, TIMES)[0]
    assert judged(measured(), error=error * 0.3).usable.all(), "small errors are no reason"


def test_some_frames_are_always_used() -> None:
    frames, faces = acted()
    faces = faces[:COUNT].copy()
    faces[::2] += 300  # outside the picture
    meter = FaceMeter(faces)
    for number in range(COUNT):
        meter.see(number, frames[number])
    error = np.linspace(0.02, 0.4, COUNT)
    error[:11] = 0.02
    assert judged(meter, error=error).usable.sum() >= COUNT / 4
    nothing = judged(FaceMeter(np.full((COUNT, 478, 2), np.nan)), bridged=mask(*range(COUNT)))
    assert not nothing.usable.any()


def test_short_gaps_are_bridged_and_long_ones_left_alone() -> None:
    bridged = mask(2, 3, *range(8, 15))
    away = find_away(bridged, NONE, TIMES)
    assert away.tolist() == mask(*range(8, 15)).tolist()
    assert find_away(bridged, mask(2, 3), TIMES).tolist() == bridged.tolist()
    screening = screen(bridged, np.where(bridged, np.nan, 0.02), mask(8, 9), TIMES, measured())
    assert (screening.usable == ~bridged).all()
    notes = " ".join(describe(screening, TIMES))
    assert "2 frames (0.80 to 0.90 s): another person or scene, left as in the clip" in notes
    assert "5 frames (1.00 to 1.40 s): no face for long, left as in the clip" in notes
    assert "2 frames (0.20 to 0.30 s): no clear face, the pose is carried over" in notes


def test_a_screening_survives_the_disk_and_many_stretches_are_summed_up() -> None:
    screening = screen(mask(*range(0, COUNT, 2)), np.full(COUNT, 0.02), NONE, TIMES, measured())
    again = Screening.from_tensors(screening.to_tensors())
    assert again.usable.tolist() == screening.usable.tolist()
    assert describe(screening, TIMES)[0].startswith("10 frames (1.40 s, 1.60 s, 1.80 s and 7 times more)")
    assert [run.tolist() for run in runs(mask(1, 2, 5))] == [[1, 2], [5]]
    assert runs(NONE) == []


def test_a_person_cut_off_at_the_side_of_the_square_is_named() -> None:
    empty, whole, cut = np.zeros((3, 100, 100), np.uint8)
    whole[40:, 20:80] = 255
    cut[40:, :80] = 255
    alphas = [empty, whole, cut, cut, *[whole] * 16]
    beyond = reaches_beyond(iter(alphas), (True, True))
    assert beyond.nonzero()[0].tolist() == [2, 3]
    assert not reaches_beyond(iter(alphas), (False, True)).any(), "where the frame ends there too nothing is left out"
    assert reaches_beyond((alpha[:, ::-1] for alpha in alphas), (False, True)).sum() == 2
    (said,) = describe_beyond(beyond, np.arange(20) / 10)
    assert said.startswith("2 frames (0.20 to 0.30 s): the person reaches beyond the square")
    assert describe_beyond(beyond & (np.arange(20) < 0), np.arange(20) / 10) == []
