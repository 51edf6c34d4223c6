"""Cuts and people, on the example and a distorted copy of it that passes for somebody else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hard_clips import acted, backdrop, other_person, timed

from portraitgen import shots
from portraitgen.landmarks import detect_landmarks


def elsewhere(frames: list[np.ndarray]) -> str:
    """One character a frame: what `detect_landmarks` found; . the person, - no face, x elsewhere."""
    landmarks = detect_landmarks(iter(frames), timed(len(frames)))
    assert not landmarks.found[landmarks.elsewhere].any()
    marks = np.where(landmarks.elsewhere, "x", np.where(landmarks.found, ".", "-"))
    return "".join(marks)


def test_a_person_who_moves_makes_no_cut() -> None:
    palettes = [shots.palette(frame) for frame in acted()[0]]
    assert max(shots.difference(a, b) for a, b in itertools.pairwise(palettes)) < 0.3 * shots.SUSPICION
    assert shots.difference(palettes[3], palettes[3]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("turn", [100, 0])
def test_a_cutaway_to_somebody_else_is_left_out(turn: int) -> None:
    person, other = list(acted()[0]), other_person(turn)
    assert elsewhere(person[:7] + other[:4] + person[7:12]) == "." * 7 + "x" * 4 + "." * 5


def test_the_person_is_whoever_most_frames_show_in_all_their_shots() -> None:
    person, other = list(acted()[0]), other_person()
    assert elsewhere(other[:5] + person[:4] + other[5:6] + person[4:7]) == "x" * 5 + "." * 4 + "x" + "." * 3
    assert elsewhere(other[:5] + person[:4]) == "." * 5 + "x" * 4


def test_a_jump_within_one_persons_talk_is_no_other_person() -> None:
    person = list(acted()[0])
    assert elsewhere(person[:4] + person[14:20]) == "." * 10


def test_a_flash_is_no_other_person() -> None:
    person = list(acted()[0])
    bright = [np.clip(frame * 1.5 + 20, 0, 255).astype(np.uint8) for frame in person[4:7]]
    assert elsewhere(person[:4] + bright + person[7:12]) == "." * 12


def test_a_scene_without_a_face_is_elsewhere() -> None:
    person = list(acted()[0])
    assert elsewhere([backdrop()] * 3 + person[:6]) == "xxx" + "." * 6


def test_looks_ignore_what_is_out_of_the_picture() -> None:
    frames, faces = acted()
    whole = np.concatenate((faces[0], np.zeros((478, 1))), axis=1)
    low = shots.look(np.roll(frames[0], 128, axis=0), whole + np.array((0, 128, 0)))  # the clothes are below the frame
    assert np.isnan(low).any()
    assert shots.distance(low, shots.look(frames[0], whole)) < 0.2
    assert shots.elsewhere(np.zeros(3, int), np.full((3, 4), np.nan)).tolist() == [False] * 3
