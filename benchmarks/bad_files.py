"""The files of `bad_inputs`: each function writes one into a folder and returns its path."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import hard_clips
import media
import numpy as np
import torch
from PIL import Image

from portraitgen.clip import probe
from portraitgen.crop import Crop
from portraitgen.portrait import Portrait, Settings

LEGS = ((180, 40), (332, 40), (350, 470), (280, 470), (258, 210), (254, 210), (232, 470), (162, 470))


def empty(folder: Path) -> Path:
    return written(folder / "empty.mp4", b"")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def text_as_clip(folder: Path) -> Path:
    return written(folder / "letter.mp4", b"Dear Sir or Madam, this is a letter.\n" * 50)


def playlist(folder: Path) -> Path:
    return written(folder / "list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")


def cut_clip(folder: Path) -> Path:
    return written(folder / "cut.mp4", hard_clips.EXAMPLE.read_bytes()[:2000])


def clip(folder: Path) -> Path:
    """Nothing is wrong with this one but that it shows nobody."""
    return media.write_clip(folder / "clip.mp4")


def one_frame(folder: Path) -> Path:
    return media.write_clip(folder / "frame.mp4", count=1)


def still(folder: Path) -> Path:
    return picture(folder / "still.jpg")


def still_as_clip(folder: Path) -> Path:
    return picture(folder / "still.jpg").rename(folder / "still.mp4")


def sound_only(folder: Path) -> Path:
    source, target = media.write_clip(folder / "with_picture.mp4", audio=["aac"], count=25), folder / "sound.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-vn", "-c", "copy", target], check=True)
    source.unlink()
    return target


def two_minutes(folder: Path) -> Path:
    return media.write_clip(folder / "long.mp4", count=240, rate=2, size=(96, 64))


def wide_clip(folder: Path) -> Path:
    return media.write_clip(folder / "wide.mkv", codec="ffv1", size=(10000, 64), count=3)


def tiny_clip(folder: Path) -> Path:
    return media.write_clip(folder / "tiny.mkv", codec="ffv1", size=(16, 16), draw=plain, count=5)


def plain(number: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 10 * number, np.uint8)


def fast_clip(folder: Path) -> Path:
    return media.write_clip(folder / "fast.mkv", rate=500, count=40, size=(64, 64), draw=plain)


def no_face(folder: Path) -> Path:
    return media.write_clip(folder / "patches.mp4", count=6)


def faces(folder: Path) -> Path:
    return hard_clips.written(folder / "faces.mp4", list(hard_clips.acted()[0][:4]))


def face_leaves(folder: Path) -> Path:
    return hard_clips.written(folder / "leaves.mp4", list(hard_clips.acted()[0][:5]) + [hard_clips.backdrop()] * 10)


def other_person(folder: Path) -> Path:
    own, other = list(hard_clips.acted()[0]), hard_clips.other_person()
    return hard_clips.written(folder / "two.mp4", other[:4] + own[:4] + other[4:8])


def picture(path: Path, size: tuple[int, int] = (320, 240)) -> Path:
    Image.fromarray(noise(size)).save(path)
    return path


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Soft coloured patches, [H, W, 3] uint8."""
    small = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def one_pixel(folder: Path) -> Path:
    return picture(folder / "pixel.png", (1, 1))


def huge_picture(folder: Path) -> Path:
    path = folder / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    return path


def cut_picture(folder: Path) -> Path:
    path = picture(folder / "cut.png")
    return written(path, path.read_bytes()[:9000])


def drawing(folder: Path) -> Path:
    return written(folder / "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>')


def grey(folder: Path) -> Path:
    path = folder / "grey.png"
    Image.fromarray(noise((320, 240))).convert("L").save(path)
    return path


def cmyk(folder: Path) -> Path:
    path = folder / "print.jpg"
    Image.fromarray(noise((320, 240))).convert("CMYK").save(path)
    return path


def animation(folder: Path) -> Path:
    path = folder / "moving.gif"
    first, *rest = (Image.fromarray(noise((320, 240), seed)) for seed in range(4))
    first.save(path, save_all=True, append_images=rest)
    return path


def trousers(folder: Path) -> Path:
    wall = cv2.fillPoly(np.full((512, 512, 3), 235, np.uint8), [np.array(LEGS)], (40, 50, 90))
    Image.fromarray(wall).save(folder / "trousers.png")
    return folder / "trousers.png"


def landscape(folder: Path) -> Path:
    return picture(folder / "landscape.png", (640, 480))


def blank(folder: Path) -> Path:
    Image.new("RGB", (512, 512), (240, 240, 240)).save(folder / "blank.png")
    return folder / "blank.png"


def half_portrait(folder: Path) -> Path:
    """A portrait folder as it is after the first stage."""
    source, directory = clip(folder), folder / "portrait"
    directory.mkdir()
    source.rename(directory / "source.mp4")
    settings = Settings("0" * 64, "preview", "anny", 0.0, None, 0)
    own = Portrait(directory, settings, "source.mp4", probe(directory / "source.mp4"), Crop(0, 0, 128, 256))
    own.finish("clip", 1.0)
    return directory


def portrait(folder: Path) -> Path:
    """A portrait folder that says it is finished, without its tensors."""
    return altered(
        folder, lambda facts: facts | {"stages": dict.fromkeys(("clip", "tracking", "matting", "reconstruction"), 1.0)}
    )


def early_avatar(folder: Path) -> Path:
    directory = portrait(folder)
    Portrait.load(directory).save_tensors("avatar.safetensors", {"nodes": torch.zeros(12, 128, 2)})
    return directory


def later_portrait(folder: Path) -> Path:
    return altered(folder, lambda facts: facts | {"version": 99})


def bare_facts(folder: Path) -> Path:
    return altered(folder, lambda facts: {"version": facts["version"]})


def cut_facts(folder: Path) -> Path:
    directory = half_portrait(folder)
    written(directory / "portrait.json", (directory / "portrait.json").read_bytes()[:100])
    return directory


def altered(folder: Path, change: Callable[[dict], dict]) -> Path:
    directory = half_portrait(folder)
    path = directory / "portrait.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return directory
