"""Hands before the person: found, kept out of what is learned, told from what is behind them, and laid over the result."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hard_clips import acted
from rendered_hand import waving
from scipy import ndimage

from portraitgen import hand_layer, mattes, training_data
from portraitgen.clip import ClipInfo, write_gray, write_video
from portraitgen.crop import Crop
from portraitgen.errors import InputError
from portraitgen.frames import TrainingFrames
from portraitgen.hand_colours import Change, Recolouring
from portraitgen.hand_layer import body_beside_hands, hand_alpha, has_hands, with_hands
from portraitgen.hands import LAYER, HandFinder, Hands, palm_length
from portraitgen.mattes import BodyShown
from portraitgen.portrait import Portrait, Settings
from portraitgen.regions import CLOTHES, SKIN
from portraitgen.rendering import RenderedCrop

SIDE = 128


def open_hand(centre: tuple[float, float] = (64, 90), palm: float = 20.0) -> np.ndarray:
    """Joints ``[21, 2]`` of a hand with its fingers up, whose wrist is at ``centre``."""
    fingers = [np.array((-0.5, -0.5)), *(np.array((-0.4 + 0.27 * number, -1.0)) for number in range(4))]
    joints = [np.zeros(2)]
    for number, root in enumerate(fingers):
        along = np.array((-0.25, -0.25)) if number == 0 else np.array((0.0, -0.27))
        joints += [root + step * along for step in range(4)]
    return (np.array(joints) * palm + centre).astype(np.float32)


def hands_at(frames: list[int], points: list[np.ndarray], seen: list[bool] | None = None) -> Hands:
    """One gesture of a right hand."""
    count = len(frames)
    return Hands(
        np.array(frames),
        np.stack(points),
        np.zeros((count, 21, 3), np.float32),
        np.ones(count, bool) if seen is None else np.array(seen),
        np.zeros(count, int),
        np.ones(count, bool),
        SIDE,
    )


class FakeGraph:
    """Takes the place of MediaPipe's: sees the hands it was given for each frame, those in the left half as left ones."""

    def __init__(self, seen: list[list[np.ndarray]]) -> None:
        self.seen, self.closed = iter(seen), False

    def process(self, frame: np.ndarray) -> Any:
        found = next(self.seen)
        hands = [
            SimpleNamespace(landmark=[SimpleNamespace(x=x / SIDE, y=y / SIDE) for x, y in points]) for points in found
        ]
        world = [
            SimpleNamespace(landmark=[SimpleNamespace(x=x, y=y, z=0.01) for x, y in (points - points.mean(0)) / 1000])
            for points in found
        ]
        sides = ["Left" if points[0, 0] < SIDE / 2 else "Right" for points in found]
        names = [SimpleNamespace(classification=[SimpleNamespace(label=side)]) for side in sides]
        return SimpleNamespace(
            multi_hand_landmarks=hands or None, multi_hand_world_landmarks=world or None, multi_handedness=names or None
        )

    def close(self) -> None:
        self.closed = True


def followed(seen: list[list[np.ndarray]], rate: float = 25.0) -> Hands | None:
    finder = HandFinder(np.arange(len(seen)) / rate)
    finder.close()
    finder.graph = FakeGraph(seen)
    for number in range(len(seen)):
        finder.see(number, np.zeros((SIDE, SIDE, 3), np.uint8))
    return finder.found()


def test_a_gap_is_bridged_and_both_ends_are_carried_on() -> None:
    seen: list[list[np.ndarray]] = [[] for _ in range(60)]
    for frame in (*range(20, 26), *range(30, 36)):
        seen[frame] = [open_hand((64, 140 - 2 * frame))]
    hands = followed(seen)
    assert hands is not None
    assert hands.frames[hands.seen].tolist() == [*range(21, 26), *range(30, 35)]
    first, last = int(hands.frames[0]), int(hands.frames[-1])
    assert hands.frames.tolist() == list(range(first, last + 1))
    assert first in (5, 6), "0.6 seconds before"
    assert last in (49, 50), "and behind"
    wrists = hands.points[:, 0]
    np.testing.assert_allclose(wrists[:, 1], 140 - 2 * hands.frames, atol=0.01)
    np.testing.assert_allclose(hands.world, np.broadcast_to(hands.world[:1], hands.world.shape), atol=1e-5)
    assert not hands.right.any(), "MediaPipe's right hand is a left one"
    assert not hands.runs.any()
    assert np.isfinite(hands.points).all()


def test_what_is_seen_for_a_moment_only_is_no_hand() -> None:
    seen: list[list[np.ndarray]] = [[] for _ in range(30)]
    seen[10] = seen[11] = [open_hand()]
    assert followed(seen) is None
    assert followed([[] for _ in range(30)]) is None


def test_two_hands_are_two_even_where_they_swap_places_in_the_list() -> None:
    left, right = open_hand((30, 90)), open_hand((100, 90))
    seen = [[left, right] if number % 2 else [right, left] for number in range(12)]
    hands = followed(seen)
    assert hands is not None
    assert len(hands) == 24
    for frame in range(12):
        assert sorted(hands.points[hands.frames == frame][:, 0, 0].tolist()) == [30, 100]
    for run in (0, 1):
        mine = hands.runs == run
        assert hands.frames[mine].tolist() == list(range(12)), "gesture by gesture"
        assert len(set(hands.right[mine].tolist())) == 1
    assert sorted(hands.right[[0, 12]].tolist()) == [False, True]


def test_a_hand_that_appears_elsewhere_is_another_one() -> None:
    seen = [[open_hand((20, 60))]] * 8 + [[open_hand((110, 110))]] * 8
    hands = followed(seen)
    assert hands is not None
    crossing = hands.points[np.isin(hands.frames, range(6, 10)) & hands.seen][:, 0]
    assert {tuple(place) for place in crossing.tolist()} == {(20, 60), (110, 110)}, "nothing in between"


def test_one_hand_that_is_followed_as_two_is_one() -> None:
    first, second = open_hand((60, 90)), open_hand((64, 88))
    hands = followed([[first, second]] * 12)
    assert hands is not None
    assert hands.frames.tolist() == list(range(12))
    early, late = [[first]] * 10 + [[]] * 10, [[]] * 10 + [[open_hand((100, 60))]] + [[open_hand((62, 90))]] * 9
    hands = followed([a + b for a, b in zip(early, late, strict=True)])
    assert hands is not None
    assert len(set(hands.frames.tolist())) == 20
    lost = followed([[first]] * 10 + [[]] * 10)
    assert lost is not None
    assert len(lost) == 20, "carried on where nobody else shows it"


@pytest.mark.parametrize("palm", [4.0, 12.0, 40.0])
def test_what_a_hand_may_hide_holds_what_it_is(palm: float) -> None:
    hands = hands_at([3, 3], [open_hand((64, 80), palm)] * 2, [True, False])
    around, outline, core = hands.around(3), hands.outline(3), hands.core(3)
    assert core.any()
    assert not (core & ~outline).any()
    assert not (outline & ~around).any()
    assert not hands.around(2).any()
    below = min(SIDE - 1, round(80 + 2 * palm))
    assert around[below, 64], "the arm"
    unseen = hands_at([3], [open_hand()], [False])
    assert not unseen.core(3).any(), "of a hand that is only carried on nothing is sure"
    assert unseen.around(3).any()


def test_a_hand_that_stops_before_it_has_left_the_picture_is_not_lost() -> None:
    """It was going down when it was seen last, and is carried on to where nothing of it would show."""
    hands = hands_at([0, 1], [open_hand((64, 110)), open_hand((64, 190))], [True, False])
    there = hands_at([1], [open_hand((64, 145))]).outline(1)
    assert there.sum() > 100, "its fingertips show"
    assert not hands.outline(1).any()
    assert not (there & ~hands.around(1, anywhere=True)).any()
    assert hands.around(1).sum() < 0.5 * hands.around(1, anywhere=True).sum(), "what is learned from is not cut for it"
    assert (hands.outline(1, anywhere=True) & there).sum() > 0.8 * there.sum()
    body = np.full((SIDE, SIDE, 3), 0.2, np.float32)
    frame = np.where(there[..., None], np.float32(0.7), body)
    everywhere = np.ones((SIDE, SIDE), np.float32)
    found = hand_alpha(hands, 1, frame, everywhere, RenderedCrop(body, everywhere), body) > 0.5
    assert (found & there).sum() > 0.9 * (found | there).sum()


def test_hands_are_stored_and_read() -> None:
    hands = hands_at([1, 2], [open_hand()] * 2, [True, False])
    back = Hands.from_tensors(hands.to_tensors())
    assert back.size == SIDE
    for name in ("frames", "points", "world", "seen", "runs", "right"):
        np.testing.assert_array_equal(getattr(back, name), getattr(hands, name))
    assert palm_length(open_hand(palm=20.0)) == pytest.approx(20.8, rel=0.05)


def looked_at(frames: list[np.ndarray]) -> Hands | None:
    """What MediaPipe finds in frames of which there are eight a second."""
    finder = HandFinder(np.arange(len(frames)) * 0.12)
    for number, frame in enumerate(frames):
        finder.see(number, frame)
    finder.close()
    return finder.found()


@pytest.fixture(scope="module")
def gesture() -> tuple[list[np.ndarray], np.ndarray, Hands]:
    """A person who waves, with the coverage of the hand and what is found of it."""
    frames, truth = waving(list(acted()[0]))
    hands = looked_at(frames)
    assert hands is not None
    return frames, truth, hands


def test_a_waving_hand_is_found_where_it_is(gesture: tuple[list[np.ndarray], np.ndarray, Hands]) -> None:
    _, truth, hands = gesture
    seen = sorted(set(hands.frames[hands.seen].tolist()))
    assert len(seen) >= 12
    for number in seen[:-2]:
        there = truth[number] > 0.5
        assert (hands.around(number) & there).sum() > 0.97 * there.sum()
        assert (hands.core(number) & ~there).sum() < 0.08 * hands.core(number).sum()
    assert np.mean([hands.around(number).mean() for number in seen]) < 0.3, "the face is learned from"
    shown = np.flatnonzero(truth.sum((1, 2)) > 0.01 * truth[0].size)
    assert np.isin(shown, hands.frames).mean() > 0.9


def test_nobodys_hands_are_found_in_a_clip_without() -> None:
    assert looked_at(list(acted()[0])) is None


def test_a_hand_is_told_from_what_is_behind_it(gesture: tuple[list[np.ndarray], np.ndarray, Hands]) -> None:
    frames, truth, hands = gesture
    clean = acted()[0]
    everywhere = np.ones(truth[0].shape, np.float32)
    for number in sorted(set(hands.frames[hands.seen].tolist()))[2:-2:3]:
        behind = clean[number].astype(np.float32) / 255
        behind = np.clip(behind + 0.02 * np.random.default_rng(number).standard_normal(behind.shape), 0, 1)
        behind[:40] = 0  # what the avatar gets wrong far from the hand is none
        body = RenderedCrop(behind, everywhere)
        alpha = hand_alpha(hands, number, frames[number].astype(np.float32) / 255, everywhere, body, behind)
        there = truth[number] > 0.5
        found = alpha > 0.5
        assert (found & there).sum() / (found | there).sum() > 0.85
        result = alpha[..., None] * frames[number] / 255.0 + (1 - alpha[..., None]) * clean[number] / 255.0
        assert np.abs(result - frames[number] / 255.0).mean(2)[40:].max() < 0.35, "no part of it is lost"
        assert not alpha[:40].any()


def test_a_hand_that_is_found_where_it_was_is_not_believed(gesture: tuple[list[np.ndarray], np.ndarray, Hands]) -> None:
    frames, truth, hands = gesture
    number = int(hands.frames[hands.seen][6])
    stale = replace(hands, points=hands.points + np.array((0, -25), np.float32))
    body = RenderedCrop(acted()[0][number].astype(np.float32) / 255, np.ones(truth[0].shape, np.float32))
    frame = frames[number].astype(np.float32) / 255
    alpha = hand_alpha(stale, number, frame, body.alpha, body, body.color)
    assert ((alpha > 0.5) & (truth[number] < 0.01)).sum() < 0.2 * (stale.core(number) & (truth[number] < 0.01)).sum()


def test_the_scene_between_fingers_is_no_hand(gesture: tuple[list[np.ndarray], np.ndarray, Hands]) -> None:
    """Mattes are generous there, and the avatar has nothing to show."""
    _, _, hands = gesture
    number = int(hands.frames[hands.seen][6])
    plate = np.full((256, 256, 3), 0.6, np.float32)
    nobody = RenderedCrop(np.zeros((256, 256, 3), np.float32), np.zeros((256, 256), np.float32))
    alpha = hand_alpha(hands, number, plate, np.ones((256, 256), np.float32), nobody, plate)
    assert (alpha > 0.5).sum() <= 1.3 * hands.core(number).sum()


def skin() -> np.ndarray:
    """Colours of a face ``[4000, 3]``, as a clip shows them."""
    generator = np.random.default_rng(3)
    light = generator.uniform(0.3, 0.95, (4000, 1))
    return (light * (0.8, 0.6, 0.5) + 0.02 * generator.standard_normal((4000, 3))).clip(0, 1)


def test_the_same_colours_are_no_change() -> None:
    before = skin()
    assert Change.between(before, before + 0.01) is None
    assert Change.between(before[:50], 1 - before[:50]) is None, "too few to tell"


def test_bronze_is_as_dark_and_as_bright_as_on_the_face() -> None:
    """A metal's reflections have nothing to do with the clip's shading, but it has some."""
    before = skin()
    level = np.random.default_rng(5).beta(0.6, 1.2, len(before))[:, None]
    after = level * (1.0, 0.75, 0.4)
    change = Change.between(before, after)
    assert change is not None
    made = change(before[None].astype(np.float32))[0]
    assert made.std(0) == pytest.approx(after.std(0), rel=0.1)
    assert made.mean(0) == pytest.approx(after.mean(0), abs=0.02)
    dark, bright = change(np.array([[0.25, 0.19, 0.16], [0.75, 0.56, 0.47]], np.float32))
    assert bright.mean() > dark.mean() + 0.3
    for extreme in (0.0, 1.0):
        assert ((change(np.full((2, 3), extreme, np.float32)) >= 0) & (change(np.full((2, 3), extreme)) <= 1)).all()


def test_a_tint_keeps_what_differs_in_colour() -> None:
    """Under another light the lips are still redder than the rest."""
    before = skin()
    after = before * (0.6, 0.7, 1.0)
    change = Change.between(before, after)
    assert change is not None
    samples = before[::10].astype(np.float32)
    assert np.abs(change(samples) - samples * (0.6, 0.7, 1.0)).mean() < 0.01


def test_a_hand_in_harder_light_is_no_harsher_than_the_face() -> None:
    """A face in flat light, of which the edit makes much, and a hand with deep shadows."""
    before = 0.6 + (skin() - 0.6) * 0.2
    after = (skin() * (0.9, 0.8, 0.5)).clip(0, 1)
    hand = 0.55 + (skin()[::-1] - 0.6) * 1.2
    alone, both = Change.between(before, after), Change.between(before, after, hand)
    assert alone is not None
    assert both is not None
    shades = np.array([[0.68, 0.51, 0.42], [0.78, 0.58, 0.48]], np.float32)
    step = [float(np.diff(change(shades).mean(1))[0]) for change in (alone, both)]
    assert 0 < step[1] < 0.7 * step[0]


def test_skin_and_sleeves_change_apart() -> None:
    blue = Change(np.array([0.0, 1.0]), np.zeros((2, 3)), np.array([[0.0, 0, 0.5], [0, 0, 1.0]]), np.zeros((3, 3)))
    picture = np.full((40, 40, 3), 0.5, np.float32)
    sleeves = np.broadcast_to(np.arange(40) >= 20, (40, 40))
    made = Recolouring(blue, None)(picture, sleeves)
    np.testing.assert_allclose(made[20, 5], (0, 0, 0.75), atol=1e-3)
    np.testing.assert_allclose(made[20, 35], 0.5, atol=1e-3)
    made = Recolouring(None, blue)(picture, sleeves)
    np.testing.assert_allclose(made[20, 35], (0, 0, 0.75), atol=1e-3)


@pytest.fixture
def portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Portrait:
    """A portrait of six grey frames, all of them person, and a hand in the third to the fifth."""
    count = 6
    info = ClipInfo(SIDE, SIDE, count, Fraction(25), count / 25, False, 0, tuple(i / 25 for i in range(count)))
    frames = [np.full((SIDE, SIDE, 3), 40 * number, np.uint8) for number in range(count)]
    write_video(tmp_path / "source.mp4", iter(frames), info, audio_from=None)
    made = Portrait(
        tmp_path,
        Settings("0" * 64, "preview", "anny", 0.0, None, 0),
        "source.mp4",
        info,
        Crop(0, 0, SIDE, SIDE),
        {},
    )
    hands = hands_at([2, 3, 4], [open_hand()] * 3)
    made.save_tensors("hands.safetensors", hands.to_tensors())
    made.save_tensors("screening.safetensors", {"bars": torch.tensor([0, 8, 0, 0])})
    labels = np.full((SIDE, SIDE), SKIN, np.uint8)
    labels[60:] = CLOTHES  # the hand too, by mistake
    write_gray(made.path("regions.mp4"), iter([labels] * count), info)
    whole = np.full((SIDE, SIDE), 255, np.uint8)
    monkeypatch.setattr(hand_layer, "clean_crops", lambda portrait: ((frame, whole) for frame in frames))
    return made


def test_nothing_is_learned_where_a_hand_may_be(portrait: Portrait) -> None:
    hands = mattes.find_hands(portrait)
    assert hands is not None
    alphas = torch.full((2, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    alphas[..., :40] = 0
    shown = BodyShown(portrait)(torch.tensor([1, 3]), alphas).numpy()
    bar = np.arange(SIDE)[:, None] >= SIDE - 8
    assert np.array_equal(shown[0], np.broadcast_to(~bar, (SIDE, SIDE)))
    beside = np.arange(SIDE)[None] < 40
    assert np.array_equal(shown[1], ~bar & (~hands.around(3) | beside)), "where the matte sees nobody there is no hand"
    assert (hands.around(3) & beside).any()
    portrait.path("hands.safetensors").unlink()
    assert mattes.find_hands(portrait) is None
    assert np.array_equal(BodyShown(portrait)(torch.tensor([3]), alphas[:1])[0].numpy(), shown[0])


def test_what_hands_turn_out_to_leave_is_learned(portrait: Portrait, monkeypatch: pytest.MonkeyPatch) -> None:
    hands = mattes.find_hands(portrait)
    assert hands is not None
    frames = [np.full((SIDE, SIDE, 3), 40 * number, np.uint8) for number in range(6)]
    whole = np.full((SIDE, SIDE), 255, np.uint8)
    # The avatar has the grey of every frame, which shows a darker hand at first, and nothing later.
    bodies = {n: RenderedCrop(frames[n] / np.float32(255), np.ones((SIDE, SIDE), np.float32)) for n in (2, 4)}
    frames[2][hands.outline(2)] = 20
    monkeypatch.setattr(training_data, "clean_crops", lambda portrait: ((frame, whole) for frame in frames))
    monkeypatch.setattr(hand_layer, "clean_plate", lambda portrait: np.zeros((SIDE, SIDE, 3), np.uint8))
    monkeypatch.setattr(
        hand_layer,
        "render_crops",
        lambda portrait, fitted, K, only: (bodies[n] for n in np.flatnonzero(only).tolist()),
    )
    trained = torch.tensor([0, 2, 4])
    alphas = torch.full((3, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    images = torch.stack([torch.from_numpy(frames[n]).permute(2, 0, 1) for n in trained.tolist()])
    inside = BodyShown(portrait)(trained, alphas)
    data = TrainingFrames(trained, images, alphas, torch.eye(3), torch.zeros(3, 2), inside)
    fitted: Any = None
    told = dict(body_beside_hands(portrait, fitted, data))
    assert list(told) == [1, 2], "positions of the frames with a hand"
    bar = np.arange(SIDE)[:, None] >= SIDE - 8
    first = told[1].numpy()
    assert not first[hands.outline(2)].any()
    assert not first[ndimage.binary_dilation(hands.outline(2))].any(), "nor right beside it"
    assert (first | ~inside[1].numpy()).all(), "nothing is left out that was learned from before"
    assert first.sum() - inside[1].sum() > 0.4 * (hands.around(2) & ~bar).sum(), "the arm was nowhere"
    assert np.array_equal(told[2].numpy(), np.broadcast_to(~bar, (SIDE, SIDE))), (
        "where nothing differs there is no hand"
    )
    portrait.path("hands.safetensors").unlink()
    assert not list(body_beside_hands(portrait, fitted, data))


def test_hands_are_laid_over_the_render(portrait: Portrait) -> None:
    rendered = [
        RenderedCrop(np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)) for _ in range(6)
    ]
    assert not has_hands(portrait), "a portrait from before, or without hands"
    layer = np.zeros((6, SIDE, SIDE), np.uint8)
    layer[3, 30:60, 30:60] = 255
    layer[3, 60:90, 30:60] = 128
    layer[3, 75:, 62:67] = 255
    write_gray(portrait.path(LAYER), iter(layer), portrait.clip)
    assert has_hands(portrait)
    plain = list(with_hands(portrait, iter(rendered)))
    assert plain[2] is rendered[2]
    assert plain[3].color[45, 45] == pytest.approx([120 / 255] * 3, abs=0.01)
    assert plain[3].color[75, 45] == pytest.approx([60 / 255] * 3, abs=0.01), "premultiplied"
    assert plain[3].alpha[75, 45] == pytest.approx(0.5, abs=0.01)
    assert not plain[3].alpha[100, 45]
    red = Change(np.array([0.0, 1.0]), np.zeros((2, 3)), np.array([[1.0, 0, 0]] * 2), np.zeros((3, 3)))
    changed = list(with_hands(portrait, iter(rendered), Recolouring(red, None)))
    turned = list(
        with_hands(portrait, iter(rendered), relief=lambda number, color, alpha: (color[:, ::-1], alpha[:, ::-1]))
    )
    assert turned[3].color[45, SIDE - 46] == pytest.approx([120 / 255] * 3, abs=0.01), "as another camera sees it"
    assert not turned[3].alpha[45, 45]
    assert changed[3].color[45, 45] == pytest.approx([1, 0, 0], abs=0.01)
    assert changed[3].color[80, 64] == pytest.approx([1, 0, 0], abs=0.01), "the palm"
    assert changed[3].color[110, 64] == pytest.approx([120 / 255] * 3, abs=0.01), "the sleeve"


def test_hands_of_another_version_say_what_to_do(portrait: Portrait) -> None:
    stored = portrait.load_tensors("hands.safetensors")
    del stored["world"]
    portrait.save_tensors("hands.safetensors", stored)
    with pytest.raises(InputError, match="Reconstruct the clip again"):
        mattes.find_hands(portrait)
