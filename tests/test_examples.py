"""The stored example: what is kept plays, belongs together, shows a face, and is what make_examples.py makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest

from portraitgen.clip import probe, read_frames

FOLDER = Path(__file__).parent.parent / "examples"
ENTRIES = json.loads((FOLDER / "examples.json").read_text())
CLIPS = sorted({FOLDER / entry["clip"] for entry in ENTRIES})
RESULTS = [FOLDER / entry["result"] for entry in ENTRIES]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    pytest.importorskip("skimage")
    sys.path.insert(0, str(FOLDER))
    try:
        import make_examples
    finally:
        sys.path.remove(str(FOLDER))
    return make_examples


def sound(path: Path) -> np.ndarray:
    """[samples] of the first sound track."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(first.astype(float) - second).mean()))


def test_entries_are_complete() -> None:
    assert ENTRIES
    for entry in ENTRIES:
        assert {"name", "clip", "kind", "result", "source"} <= set(entry)
        assert entry.get("text") or (FOLDER / entry["picture"]).is_file()
        assert all(isinstance(value, str) and value for value in entry.values())
        assert "public domain" in entry["source"]
        assert (FOLDER / entry["clip"]).is_file()
        assert (FOLDER / entry["result"]).is_file()
    assert {entry["kind"] for entry in ENTRIES} == {"text", "style", "tryon", "relight"}, "one for each tab"


def test_files_are_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert (FOLDER / "readme_picture.jpg").stat().st_size < 320_000
    picture = cv2.imread(str(FOLDER / "readme_picture.jpg"))
    assert picture.shape[:2] == (6 * 176, 5 * 176)  # clip, reconstruction and four edits at five moments


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.name)
def test_clip_is_a_talking_head(clip: Path) -> None:
    info = probe(clip)
    assert (info.width, info.height, info.has_audio) == (512, 512, True)
    assert 2.5 <= info.duration <= 3.5
    frames = list(read_frames(clip, info))
    assert len(frames) == info.frame_count
    first = frames[0].astype(float)
    moved = [np.abs(frame - first).mean(-1) for frame in frames[5:-5]]
    assert np.mean([difference[80:320, 130:390].mean() for difference in moved]) > 4  # the head moves
    assert max(difference[:120, :80].mean() for difference in moved) < 2  # what is behind it does not
    assert np.abs(frames[-1] - first).mean() < 3  # it ends as it begins, so that it can loop


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_result_belongs_to_clip(entry: dict[str, str]) -> None:
    clip, result = FOLDER / entry["clip"], FOLDER / entry["result"]
    source, edited = probe(clip), probe(result)
    for name in ("width", "height", "frame_count", "rate", "has_audio"):
        assert getattr(edited, name) == getattr(source, name), name
    assert np.allclose(edited.timestamps, source.timestamps, atol=1e-3)
    before, after = sound(clip), sound(result)
    count = min(len(before), len(after))
    assert count > 0.95 * len(before)
    assert np.corrcoef(before[:count], after[:count])[0, 1] > 0.95
    pairs = list(zip(read_frames(clip, source), read_frames(result, edited), strict=True))[::15]
    for frame, other in pairs:
        changed = np.abs(frame.astype(float) - other).mean(-1)
        part = changed[330:, 60:450] if "jumper" in result.name else changed[80:300, 150:370]
        assert part.mean() > 12  # the person is edited


# The detector takes no painted face for one.
@pytest.mark.parametrize(
    "path", CLIPS + [path for path in RESULTS if "starry" not in path.name], ids=lambda path: path.name
)
def test_face_is_found(path: Path) -> None:
    from mediapipe.python.solutions.face_mesh import FaceMesh

    info = probe(path)
    with FaceMesh(static_image_mode=True, min_detection_confidence=0.4) as detector:
        seen = [
            bool(detector.process(frame).multi_face_landmarks)
            for index, frame in enumerate(read_frames(path, info))
            if index % 5 == 0
        ]
    assert all(seen)


def test_sound_drives_the_mouth(maker: ModuleType) -> None:
    """The stored sound is the melody, and in the stored frames the mouth is open where vowels are loud."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    melody, clip = maker.sound(), CLIPS[0]
    assert len(melody) == maker.FRAME_COUNT * maker.SOUND_RATE // maker.RATE
    assert 0.3 < np.abs(melody).max() <= 1
    stored = sound(clip)
    count = min(len(stored), len(melody))
    assert np.corrcoef(stored[:count], melody[:count])[0, 1] > 0.9
    closed, opened = 8, 24  # the middle of an "m" and of an "a"
    info, gaps = probe(clip), {}
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as detector:
        for index, frame in enumerate(read_frames(clip, info)):
            if index in (closed, opened):
                points = detector.process(frame).multi_face_landmarks[0].landmark
                gaps[index] = (points[14].y - points[13].y) * info.height
    assert gaps[opened] > gaps[closed] + 5


def test_clip_is_made_by_the_script(maker: ModuleType) -> None:
    """The margin is for the codec, and for the tracker to improve by a pixel without the clip being made anew."""
    which = [0, 12, 45]
    stored = list(read_frames(CLIPS[0], probe(CLIPS[0])))
    for index, frame in zip(which, maker.frames(which), strict=True):
        assert frame.shape == stored[index].shape
        alike = [psnr(frame, other) for other in stored]
        assert alike[index] > (30 if index == 0 else 24), index
        assert alike[index] > max(alike) - 1, index


def test_same_frames_twice(maker: ModuleType) -> None:
    first, second = (next(iter(maker.frames([20]))) for _ in range(2))
    assert np.array_equal(first, second)


def test_still_is_the_photo(maker: ModuleType) -> None:
    """The first frame is the photo itself: taking it apart into layers and putting them together changes little."""
    frame = next(iter(maker.frames([0])))
    picture = maker.still()[: maker.SIZE, maker.LEFT : maker.LEFT + maker.SIZE]
    assert psnr(frame, picture) > 28
