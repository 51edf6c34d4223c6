"""What outputs say about themselves: to machines in the container, to people in a corner."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from media import packets, picture, write_clip
from PIL import Image

from portraitgen import __version__
from portraitgen.clip import ClipInfo, probe, read_frames, write_video
from portraitgen.editors import EditRequest
from portraitgen.provenance import EDITED, RENDERED, SOURCE_TYPE, marked, provenance, xmp, xmp_box

DAY = date(2026, 3, 14)
EDITS = [
    EditRequest("text", "make Ada Lovelace a bronze statue", engine="builtin"),
    EditRequest("style", picture=Path("/home/ada/secret.png"), engine="gatys"),
]
INFO = ClipInfo(192, 128, 6, Fraction(25), 6 / 25, False, 0, tuple(number / 25 for number in range(6)))


def shown_by_ffprobe(path: Path, *options: str) -> dict[str, str]:
    command = ["ffprobe", "-v", "error", "-show_format", "-of", "json", *options, str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {key.lower(): value for key, value in said["format"]["tags"].items()}


def written(path: Path, tags: dict[str, str] | None, channels: int = 3, **more: Any) -> Path:
    frames = [picture(number) for number in range(INFO.frame_count)]
    if channels == 4:
        frames = [np.dstack([frame, np.full(frame.shape[:2], 200, np.uint8)]) for frame in frames]
    write_video(path, frames, INFO, metadata=tags, **more)
    return path


def test_the_facts() -> None:
    tags = provenance(EDITS, DAY)
    assert tags["comment"] == f"AI-edited (PortraitGen {__version__}, 2026-03-14): text by builtin, style by gatys"
    assert tags[SOURCE_TYPE].endswith("/digitalsourcetype/compositeWithTrainedAlgorithmicMedia")
    facts = json.loads(tags["description"])
    assert facts["statement"] == EDITED
    assert facts["edits"] == [{"edit": "text", "engine": "builtin"}, {"edit": "style", "engine": "gatys"}]
    assert (facts["date"], facts["digitalSourceType"]) == ("2026-03-14", tags[SOURCE_TYPE])
    assert not any(word in str(tags) for word in ("Ada", "ada", "secret", "bronze"))


def test_the_instruction_only_if_asked() -> None:
    facts = json.loads(provenance(EDITS, DAY, with_text=True)["description"])
    assert facts["edits"][0]["text"] == "make Ada Lovelace a bronze statue"
    assert "secret" not in str(facts)


def test_a_clip_that_is_only_rendered_again_says_so() -> None:
    tags = provenance([], DAY)
    assert tags["comment"] == f"{RENDERED} (PortraitGen {__version__}, 2026-03-14)"
    assert json.loads(tags["description"])["edits"] == []
    assert tags[SOURCE_TYPE].endswith("/compositeSynthetic")


@pytest.mark.parametrize(("name", "channels"), [("out.mp4", 3), ("out.webm", 4)])
def test_ffprobe_shows_it(tmp_path: Path, name: str, channels: int) -> None:
    tags = provenance(EDITS, DAY)
    path = written(tmp_path / name, tags, channels)
    shown = shown_by_ffprobe(path)
    assert {key: shown[key] for key in ("comment", "description", "date")} == {
        key: tags[key] for key in ("comment", "description", "date")
    }
    assert name.endswith("mp4") or shown[SOURCE_TYPE] == tags[SOURCE_TYPE]


def test_mp4_says_the_source_type_as_xmp_and_keeps_its_index_in_front(tmp_path: Path) -> None:
    tags = provenance(EDITS, DAY)
    path, plain = written(tmp_path / "out.mp4", tags), written(tmp_path / "plain.mp4", None)
    packet = shown_by_ffprobe(path, "-export_xmp", "1")["xmp"]
    assert f'Iptc4xmpExt:DigitalSourceType="{tags[SOURCE_TYPE]}"' in packet
    assert f'xmp:CreatorTool="PortraitGen {__version__}"' in packet
    whole = path.read_bytes()
    assert whole.endswith(xmp_box(tags))
    assert whole.index(b"moov") < whole.index(b"mdat")
    assert packets(path, "video") == packets(plain, "video")
    assert np.array_equal(list(read_frames(path, probe(path))), list(read_frames(plain, probe(plain))))


def test_pictures_can_carry_it(tmp_path: Path) -> None:
    tags = provenance(EDITS, DAY)
    Image.fromarray(picture(1)).save(tmp_path / "view.jpg", xmp=xmp(tags))
    with Image.open(tmp_path / "view.jpg") as image:
        packet = ElementTree.fromstring(image.info["xmp"].decode())
    (facts,) = packet.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert facts.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"] == tags[SOURCE_TYPE]
    assert facts.attrib["{http://ns.adobe.com/xap/1.0/}MetadataDate"] == "2026-03-14"


def test_tags_of_the_source_are_left_behind(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", audio=["aac"])
    source = tmp_path / "source.mp4"
    private = (
        "title=Ada's kitchen",
        "artist=Ada",
        "location=+48.1+11.5/",
        "comment=my phone",
        "com.android.model=Phone",
    )
    said = [word for tag in private for word in ("-metadata", tag, "-metadata:s:a", tag)]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", plain, *said, "-c", "copy", "-movflags", "use_metadata_tags", source],
        check=True,
    )
    assert b"Ada" in source.read_bytes()
    info = probe(source)
    for name, tags in (("out.mp4", None), ("tagged.mp4", provenance(EDITS, DAY))):
        output = tmp_path / name
        write_video(output, read_frames(source, info), info, audio_from=source, metadata=tags)
        with av.open(str(output)) as container:
            assert len(container.streams.audio) == 1
        for word in (b"Ada", b"kitchen", b"48.1", b"Phone", b"phone", os.fsencode(tmp_path)):
            assert word not in output.read_bytes()


@pytest.mark.parametrize("size", [(1280, 720), (64, 64), (360, 640)])
def test_the_mark_is_small_legible_and_in_its_corner(size: tuple[int, int]) -> None:
    width, height = size
    frame = np.full((height, width, 3), 255, np.uint8)
    before = frame.copy()
    changed = (marked(frame) != before).any(-1)
    assert np.array_equal(frame, before), "the frame itself stays as it is"
    assert changed.any()
    rows, columns = np.nonzero(changed)
    assert rows.min() > height * 0.55
    assert width <= 64 or columns.min() > width * 0.5
    assert changed.mean() < (0.01 if width > 64 else 0.2)
    for level in (0, 255):
        shown = marked(np.full_like(frame, level)).astype(int)
        assert np.abs(shown - level).max() > 90


def test_the_mark_stands_by_itself_where_nothing_is() -> None:
    empty = np.zeros((128, 192, 4), np.uint8)
    shown = marked(empty)
    drawn = shown[..., 3] > 0
    assert 0 < drawn.mean() < 0.1
    assert shown[..., 3].max() > 150
    assert shown[drawn][:, :3].max() == 255
    full = np.dstack([picture(3), np.full((128, 192), 255, np.uint8)])
    assert (marked(full)[..., 3] == 255).all()
    assert np.array_equal(marked(full)[..., :3], marked(picture(3)))


def test_the_mark_survives_the_codec(tmp_path: Path) -> None:
    frames = [marked(picture(number, 320, 240)) for number in range(6)]
    info = ClipInfo(320, 240, 6, Fraction(25), 6 / 25, False, 0, INFO.timestamps)
    write_video(tmp_path / "out.mp4", frames, info)
    corner = next(read_frames(tmp_path / "out.mp4", info))[-40:, -110:].astype(int)
    assert np.abs(corner - frames[0][-40:, -110:]).mean() < 6
    assert np.abs(corner - picture(0, 320, 240)[-40:, -110:]).max() > 60
