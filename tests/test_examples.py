"""The stored examples: what is kept plays, belongs together, shows a face, and is what make_examples.py makes."""

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
from portraitgen.landmarks import detect_landmarks

FOLDER = Path(__file__).parent.parent / "examples"
ENTRIES = json.loads((FOLDER / "examples.json").read_text())
CLIPS = ("portrait", "upright", "wide")
RESULTS = [Path(entry["result"]).stem for entry in ENTRIES]
PAINTED = ("starry", "pencil", "watercolour")  # the detector takes no painted face for one


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
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


def face_in(frame: np.ndarray) -> np.ndarray | None:
    """FaceMesh points [478, 2] in pixels of the largest face in a picture, if there is one."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.4) as detector:
        found = detector.process(frame).multi_face_landmarks
    if not found:
        return None
    return np.array([(point.x, point.y) for point in found[0].landmark]) * frame.shape[1::-1]


def around_face(frame: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the face."""
    points = face_in(frame)
    assert points is not None
    (left, top), (right, bottom) = points.min(0).astype(int), points.max(0).astype(int)
    return slice(top, bottom), slice(left, right)


def test_entries_are_complete(maker: ModuleType) -> None:
    assert maker.entries() == ENTRIES
    assert tuple(maker.CLIPS) == CLIPS
    for entry in ENTRIES:
        assert {"name", "clip", "kind", "result", "source"} <= set(entry)
        assert entry.get("text") or (FOLDER / entry["picture"]).is_file()
        assert all(isinstance(value, str) and value for value in entry.values())
        assert "public domain" in entry["source"]
        assert (FOLDER / entry["clip"]).is_file()
        assert (FOLDER / entry["result"]).is_file()
        assert cv2.imread(str(FOLDER / entry["poster"])).shape == (144, 144, 3)
    assert {entry["kind"] for entry in ENTRIES} == {"text", "style", "tryon", "relight"}, "one for each tab"


def test_files_are_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert (FOLDER / "readme_picture.jpg").stat().st_size < 320_000
    picture = cv2.imread(str(FOLDER / "readme_picture.jpg"))
    assert picture.shape[:2] == (6 * 176, 5 * 176)  # clip, reconstruction and four edits at five moments


@pytest.mark.parametrize("name", CLIPS)
def test_clip_is_a_talking_head(maker: ModuleType, name: str) -> None:
    path, clip = FOLDER / f"{name}.mp4", maker.CLIPS[name]
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (*clip.window[2:], True)
    assert 3 <= info.duration <= 5
    assert info.rate == clip.performance.rate
    frames = list(read_frames(path, info))
    assert len(frames) == clip.performance.frame_count
    first = frames[0].astype(float)
    face = around_face(frames[0])
    moved = [np.abs(frame - first).mean(-1) for frame in frames[5:-5]]
    assert np.mean([difference[face].mean() for difference in moved]) > 4  # the head moves
    corner = max(difference[: face[0].start, : face[1].start // 2].mean() for difference in moved)
    # What is behind it moves only with a camera held by hand.
    assert (corner > 3) if any(clip.performance.sway) else (corner < 2)
    assert np.abs(frames[-1] - first).mean() < 4  # it ends as it begins, so that it can loop


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
    part = around_face(pairs[0][0])
    if entry["kind"] == "tryon":
        part = slice(int(0.8 * source.height), None), slice(source.width // 4, 3 * source.width // 4)
    for frame, other in pairs:
        changed = np.abs(frame.astype(float) - other).mean(-1)
        assert changed[part].mean() > 12  # the person is edited


@pytest.mark.parametrize("name", [*CLIPS, *(name for name in RESULTS if not any(word in name for word in PAINTED))])
def test_face_is_found(name: str) -> None:
    path = FOLDER / f"{name}.mp4"
    info = probe(path)
    assert detect_landmarks(read_frames(path, info), info).found.all()


@pytest.mark.parametrize("name", CLIPS)
def test_sound_is_the_melody(maker: ModuleType, name: str) -> None:
    performance = maker.CLIPS[name].performance
    melody = maker.sound(performance)
    assert len(melody) == performance.frame_count * maker.SOUND_RATE // performance.rate
    assert 0.3 < np.abs(melody).max() <= 1
    stored = sound(FOLDER / f"{name}.mp4")
    count = min(len(stored), len(melody))
    assert np.corrcoef(stored[:count], melody[:count])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("name", "closed", "opened", "pixels"), [("portrait", [8], [24], 5), ("wide", [0, 84, 90], [27, 47, 54], 2)]
)
def test_mouth_is_open_where_vowels_are_loud(name: str, closed: list[int], opened: list[int], pixels: float) -> None:
    """In the wide clip the person smiles with teeth where she is silent."""
    path = FOLDER / f"{name}.mp4"
    frames = list(read_frames(path, probe(path)))
    faces = {index: face_in(frames[index]) for index in closed + opened}
    gaps = {index: face[14, 1] - face[13, 1] for index, face in faces.items() if face is not None}
    assert np.mean([gaps[index] for index in opened]) > np.mean([gaps[index] for index in closed]) + pixels


@pytest.mark.parametrize("name", CLIPS)
def test_clip_is_made_by_the_script(maker: ModuleType, name: str) -> None:
    """The margin is for the codec, and for the tracker to improve by a pixel without the clip being made anew."""
    which = [0, 12, 45]
    path = FOLDER / f"{name}.mp4"
    stored = list(read_frames(path, probe(path)))
    for index, frame in zip(which, maker.frames(name, which), strict=True):
        assert frame.shape == stored[index].shape
        alike = [psnr(frame, other) for other in stored]
        assert alike[index] > (30 if index == 0 else 24), index
        assert alike[index] > max(alike) - 1, index


def test_same_frames_twice(maker: ModuleType) -> None:
    first, second = (next(iter(maker.frames("portrait", [20]))) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["portrait", "upright"])
def test_still_is_the_photo(maker: ModuleType, name: str) -> None:
    """The first frame is the photo itself: taking it apart into layers and putting them together changes little."""
    clip = maker.CLIPS[name]
    left, top, width, height = clip.window
    picture = maker.still(clip)[top : top + height, left : left + width]
    assert psnr(next(iter(maker.frames(name, [0]))), picture) > 28


def test_a_photo_goes_on_beyond_its_edge(maker: ModuleType) -> None:
    clip = maker.CLIPS["upright"]
    picture = maker.still(clip)
    assert picture.shape == (984, 984, 3)
    assert np.abs(picture[:, 0].astype(float) - picture[:, 40]).mean() < 2


def test_a_camera_held_by_hand_comes_back(maker: ModuleType) -> None:
    for clip in maker.CLIPS.values():
        way = clip.performance.camera()
        assert way.shape == (clip.performance.frame_count, 3)
        assert bool(way.any()) == any(clip.performance.sway)
        assert np.abs(way[-1] - way[0]).max() < 2
        assert np.abs(way).max() < 21, "the window stays within the photo"
