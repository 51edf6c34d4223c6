"""What people film, from the clip to the rendered portrait: nothing breaks, and the portrait says what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hard_clips import SIDE, acted, backdrop, other_person, smeared, with_ball, with_glasses, with_hand, written
from media import frames_of
from quick import quicken
from rendered_hand import waving

from portraitgen import __main__ as command_line
from portraitgen import compositing, pipeline, reconstruction
from portraitgen.clip import probe, read_frames, read_gray
from portraitgen.errors import InputError
from portraitgen.free_view import head_pivot, orbit_viewmats
from portraitgen.mattes import load_screening, usable_frames
from portraitgen.portrait import Portrait
from portraitgen.reconstruction import load_fitted
from portraitgen.rendering import render_crops

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """The real code at a fraction of the preview's steps."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch, reconstruction.PRESETS, {"steps": 20, "window": 128}, views=3, frames=8, texel_pixels=6.0)
        yield


def reconstructed(folder: Path, frames: list[np.ndarray], **options: object) -> Portrait:
    """The portrait of a clip of these frames; all its numbers are finite and the person is cut out of every frame that shows one."""
    last = list(pipeline.reconstruct(written(folder / "clip.mp4", frames, **options), folder / "portrait"))[-1]
    portrait = Portrait.load(folder / "portrait")
    assert last.notes == tuple(portrait.notes)
    assert all(note in last.message for note in portrait.notes)
    tensors = portrait.load_tensors("avatar.safetensors")
    tensors |= {"K": portrait.load_tensors("tracking.safetensors")["K"]}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())
    screening = load_screening(portrait)
    alphas = np.stack(list(read_gray(portrait.path("alpha.mp4")))) / 255
    assert len(alphas) == len(frames)
    covered = alphas.mean((1, 2))
    assert (covered[screening.away] == 0).all()
    shown = covered[~screening.away]
    assert ((shown > 0.2) & (shown < 0.8)).all()
    assert (np.abs(shown - np.median(shown)) < 0.15).all()
    return portrait


def rendered(portrait: Portrait, output: Path, **options: str) -> np.ndarray:
    list(pipeline.render(portrait.directory, output, **options))  # type: ignore[arg-type]
    return frames_of(output).astype(float)


def quality(portrait: Portrait, output: Path) -> float:
    """PSNR in dB of what is learned from, over white, against the clip."""
    shown = rendered(portrait, output, view="crop", background="white")
    source = np.stack(list(read_frames(portrait.path("frames.mp4"), portrait.clip))).astype(float)
    error = ((shown - source) ** 2)[usable_frames(portrait).numpy()].mean()
    return float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Portrait, float]:
    """The person at exactly ten frames a second with nothing in the way, and its quality."""
    folder = tmp_path_factory.mktemp("easy")
    portrait = reconstructed(folder, list(acted()[0][:12]), rate=Fraction(10))
    return portrait, quality(portrait, folder / "white.mp4")


def test_ten_frames_a_second(easy: tuple[Portrait, float], tmp_path: Path) -> None:
    portrait, found = easy
    assert portrait.notes == []
    assert (portrait.clip.rate, portrait.clip.frame_count) == (10, 12)
    assert found > 19.5
    output = tmp_path / "out.mp4"
    list(pipeline.render(portrait.directory, output))
    assert (probe(output).rate, probe(output).frame_count) == (10, 12)


def test_a_cutaway_and_an_absence_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = list(acted()[0])
    frames = person[:7] + other_person()[:3] + person[7:11] + [backdrop()] * 2 + person[11:14]
    portrait = reconstructed(tmp_path, frames)
    away = np.array([7 <= number < 10 or 14 <= number < 16 for number in range(len(frames))])
    assert load_screening(portrait).away.tolist() == away.tolist()
    assert portrait.notes == [
        "5 frames (0.84 to 1.08 s, 1.68 to 1.80 s): another person or scene, left as in the clip."
    ]
    assert not np.isin(usable_frames(portrait).numpy(), np.flatnonzero(away)).any()
    source = np.stack(list(read_frames(portrait.source, portrait.clip))).astype(float)
    difference = np.abs(rendered(portrait, tmp_path / "frame.mp4") - source).mean((1, 2, 3))
    assert difference[away].max() < 2.5
    assert difference[~away].min() > difference[away].max()
    white = rendered(portrait, tmp_path / "white.mp4", view="crop", background="white")
    assert white[away].min() > 245
    assert white[~away].min() < 100

    capsys.readouterr()
    out = str(tmp_path / "portrait")
    assert command_line.main(["reconstruct", str(tmp_path / "clip.mp4"), "-o", out, "--json"]) == 0
    captured = capsys.readouterr()
    assert f"note: {portrait.notes[0]}\n" in captured.err
    assert set(json.loads(captured.out)) >= {"clip", "tracking"}


def test_what_hides_the_face_for_a_moment_is_not_learned_from(tmp_path: Path, easy: tuple[Portrait, float]) -> None:
    frames, faces = list(acted()[0][:16]), acted()[1]
    for number in (3, 4):
        frames[number] = with_hand(frames[number], faces[number])
    for number in (8, 9):
        frames[number] = smeared(frames[number])
    for number in (13, 14):
        frames[number] = with_ball(frames[number], faces[number])
    portrait = reconstructed(tmp_path, frames)
    assert sorted(set(range(16)) - set(usable_frames(portrait).tolist())) == [3, 4, 8, 9, 13, 14]
    assert [note.split(" ", 2)[2] for note in portrait.notes] == [
        "(0.96 to 1.08 s): blurred, rendered but not learned from.",
        "(0.36 to 0.48 s, 1.56 to 1.68 s): face covered, rendered but not learned from.",
    ]
    assert quality(portrait, tmp_path / "white.mp4") > easy[1] - 1.5


def test_a_hand_before_the_person_stays_and_is_not_learned(
    tmp_path: Path, easy: tuple[Portrait, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = acted()[0][:16]
    frames, hand = waving(list(clean))
    portrait = reconstructed(tmp_path, frames)
    assert [note.split(": ")[1] for note in portrait.notes] == [
        "hands, taken from the clip as they are, in the colours of an edit, also where the view is from the side."
    ]
    assert len(usable_frames(portrait)) == 16
    source = np.stack(list(read_frames(portrait.source, portrait.clip))).astype(float)
    result = rendered(portrait, tmp_path / "out.mp4")
    often = np.argsort(hand.sum((1, 2)))[-8:]
    there = np.stack([cv2.erode(mask, np.ones((5, 5))) for mask in hand[often]]) > 0.99
    assert np.abs(result - source)[often][there].mean() < 8, "as in the clip"
    bare = [crop.straight() for crop in render_crops(portrait, load_fitted(portrait, CPU), portrait.tracking().K)]
    small = np.stack([cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for x in bare])[often]
    behind, before = clean[often].astype(float) / 255, source[often] / 255
    apart = there & (np.abs(behind - before).mean(-1) > 0.1)
    assert np.abs(small - behind)[apart].mean() < 0.6 * np.abs(small - before)[apart].mean(), "the avatar has none"
    assert quality(portrait, tmp_path / "white.mp4") > easy[1] - 1.5
    turned = rendered(portrait, tmp_path / "turned.mp4", yaw=20.0)  # type: ignore[arg-type]
    monkeypatch.setattr(compositing, "has_hands", lambda portrait: False)
    bare = rendered(portrait, tmp_path / "bare.mp4", yaw=20.0)  # type: ignore[arg-type]
    differs = (np.abs(turned - bare).max(-1) > 30).mean((1, 2))
    assert (differs[often] > 0.3 * (hand[often] > 0.5).mean((1, 2))).all(), "it is seen from the side too"
    assert differs[hand.sum((1, 2)) == 0].max(initial=0) < 0.01


def test_glasses_and_an_uneven_rate(tmp_path: Path, easy: tuple[Portrait, float]) -> None:
    frames, faces = acted()
    times = np.cumsum([0, *((0.04, 0.25, 0.1, 0.04)[number % 4] for number in range(8))])
    worn = [with_glasses(frame, face) for frame, face in zip(frames[:9], faces[:9], strict=True)]
    portrait = reconstructed(tmp_path, worn, times=times.tolist())
    assert portrait.notes == []
    assert np.allclose(portrait.clip.timestamps, times, atol=1e-3)
    output = tmp_path / "out.mp4"
    list(pipeline.render(portrait.directory, output))
    assert np.allclose(probe(output).timestamps, times, atol=2e-3)
    assert quality(portrait, tmp_path / "white.mp4") > easy[1] - 1.5


def test_a_person_who_does_not_move_at_all(tmp_path: Path) -> None:
    portrait = reconstructed(tmp_path, [acted()[0][0]] * 6)
    assert portrait.notes == []
    pictures = rendered(portrait, tmp_path / "out.mp4", view="crop", background="white")
    assert np.abs(pictures - pictures[0]).mean() < 3, "what does not move is rendered without moving"


def test_a_camera_that_adjusts_itself(tmp_path: Path, easy: tuple[Portrait, float]) -> None:
    gains = 1 - 0.3 * np.sin(np.linspace(0, np.pi, 9))
    frames = [np.rint(frame * gain).astype(np.uint8) for frame, gain in zip(acted()[0], gains, strict=False)]
    portrait = reconstructed(tmp_path, frames)
    inside = [alpha > 0.9 * 255 for alpha in read_gray(portrait.path("alpha.mp4"))]  # the rim fades into the background
    pictures = rendered(portrait, tmp_path / "out.mp4", view="crop", background="#000000")
    source = read_frames(portrait.path("frames.mp4"), portrait.clip)
    brightness = [picture[person].mean() for picture, person in zip(pictures, inside, strict=True)]
    wanted = [frame[person].mean() for frame, person in zip(source, inside, strict=True)]
    assert brightness == pytest.approx(wanted, rel=0.05), "the person grows darker with the scene"
    assert quality(portrait, tmp_path / "white.mp4") > easy[1] - 1.5


def test_a_head_that_turns_to_a_profile(tmp_path: Path) -> None:
    yaw = np.array([0.0, 12, 24, 36, 48, 66, 72, 66, 48, 36, 24, 12, 0])  # at 60 a face is found by luck
    (tmp_path / "front").mkdir()
    front = reconstructed(tmp_path / "front", list(acted()[0][: len(yaw)]))
    fitted = load_fitted(front, torch.device("cpu"))
    K = front.load_tensors("tracking.safetensors")["K"]
    cameras = orbit_viewmats(head_pivot(fitted), yaw, np.zeros(len(yaw)))
    scene = cv2.resize(backdrop(), (front.crop.size,) * 2)
    turned = [
        cv2.resize(np.rint(255 * crop.color + (1 - crop.alpha[..., None]) * scene).astype(np.uint8), (SIDE, SIDE))
        for crop in render_crops(front, fitted, K, cameras)
    ]
    portrait = reconstructed(tmp_path, turned)
    assert portrait.notes == [
        "3 frames (0.60 to 0.84 s): no clear face, the pose is carried over from the frames around."
    ]
    tracking = portrait.tracking()
    assert tracking.bridged.tolist() == (yaw >= 60).tolist()
    assert tracking.landmark_error[~tracking.bridged].max() < 0.04
    turn = tracking.parameters.global_rotation[:, 1]
    assert turn.argmax() == yaw.argmax()
    assert turn.max() - turn[0] > 0.7, "it goes on turning where no face is found"


def test_a_face_that_is_mostly_missing_is_refused_with_the_time_and_the_remedy(tmp_path: Path) -> None:
    frames = list(acted()[0][:9]) + [backdrop()] * 12
    with pytest.raises(InputError, match=r"missing .* frame 10 \(1\.08 s\)\. .*trim.*--max-seconds 1\.08") as error:
        list(pipeline.reconstruct(written(tmp_path / "clip.mp4", frames), tmp_path / "portrait"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "portrait").exists()
    usable = list(acted()[0][:9])
    assert probe(tmp_path / "clip.mp4", max_seconds=1.08).frame_count == len(usable), "the remedy is right"
