"""The first look at a clip: a face, the crop that the pipeline will choose, few frames decoded to pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from portraitgen.clip import ClipInfo, probe, read_frames, write_video
from portraitgen.crop import choose_crop
from portraitgen.errors import InputError
from portraitgen.inspection import MOMENTS, inspect, sample_frames
from portraitgen.landmarks import detect_landmarks

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"


def write(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    times = tuple(i / 25 for i in range(len(frames)))
    info = ClipInfo(width, height, len(frames), Fraction(25), len(frames) / 25, False, 0, times)
    write_video(path, frames, info)
    return path


def test_the_look_agrees_with_the_pipeline() -> None:
    info = probe(CLIP, max_seconds=1.5)
    found = inspect(CLIP, info)
    assert found.info == info
    assert (found.seen, found.moments) == (MOMENTS, MOMENTS)
    landmarks = detect_landmarks(read_frames(CLIP, info), info)
    crop = choose_crop(info, landmarks.head_boxes, landmarks.shoulder_boxes)
    ours = np.array([found.crop.left, found.crop.top, found.crop.side])
    assert np.abs(ours - (crop.left, crop.top, crop.side)).max() < 0.06 * crop.side


def test_a_face_in_a_large_frame_is_marked_and_its_surroundings_are_dark(tmp_path: Path) -> None:
    small = [frame for frame, _ in zip(read_frames(CLIP, probe(CLIP)), range(12), strict=False)]
    frames = []
    for frame in small:
        wide = np.full((720, 1600, 3), 120, np.uint8)
        wide[100:612, 900:1412] = frame
        frames.append(wide)
    path = write(tmp_path / "wide.mp4", frames)
    found = inspect(path, probe(path))
    assert found.seen == MOMENTS
    assert found.crop.left > 500
    assert max(found.picture.shape) == 640
    column, row = (np.array([found.crop.left + found.crop.side / 2, found.crop.top + 12]) * 0.4).astype(int)
    assert found.picture[5, 5].mean() < 70 < found.picture[max(row, 5), column].mean()


def test_a_clip_without_a_face_gets_a_remedy(tmp_path: Path) -> None:
    frames = [np.full((240, 320, 3), 10 * i, np.uint8) for i in range(12)]
    path = write(tmp_path / "empty.mp4", frames)
    with pytest.raises(InputError, match=r"moments looked at show no face\. Use a clip"):
        inspect(path, probe(path))


def test_moments_are_spread_over_the_part_that_is_used(tmp_path: Path) -> None:
    frames = [np.full((64, 64, 3), 4 * i, np.uint8) for i in range(50)]
    path = write(tmp_path / "grey.mp4", frames)
    moments = list(sample_frames(path, probe(path, max_seconds=1.0), 5))
    times = [time for time, _ in moments]
    assert len(moments) == 5
    assert times == sorted(times)
    assert times[0] < 0.25
    assert 0.75 < times[-1] < 1
    for time, frame in moments:
        assert abs(frame.mean() - 4 * round(time * 25)) < 6


def test_a_clip_of_two_frames_is_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path / "two.mp4", [np.full((64, 64, 3), 40 * i, np.uint8) for i in range(2)])
    assert 1 <= len(list(sample_frames(path, probe(path), 5))) <= 2
