from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from portraitgen.clip import ClipInfo
from portraitgen.crop import Crop
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.portrait import Portrait, Settings
from portraitgen.reconstruction import load_fitted


@pytest.fixture
def portrait(tmp_path: Path) -> Portrait:
    info = ClipInfo(64, 48, 3, Fraction(30000, 1001), 0.1, True, 0, (0.0, 0.0333, 0.0667))
    settings = Settings("abc", "preview", "anny", 0.2, None, 7)
    folder = tmp_path / "porträt 1"
    folder.mkdir()
    return Portrait(folder, settings, "source.mp4", info, Crop(1, 2, 40, 256))


def test_facts_survive_the_disk(portrait: Portrait, tmp_path: Path) -> None:
    portrait.finish("clip", 1.25)
    portrait.notes = ["3 frames are blurred."]
    picture = tmp_path / "starry night.PNG"
    picture.write_bytes(b"a picture")
    bronze = EditRequest("text", "bronze", engine="builtin", strength=0.5, seed=3)
    portrait.record_edit(bronze)
    portrait.record_edit(EditRequest("style", picture=picture, keep_colors=True))
    picture.unlink()
    again = Portrait.load(portrait.directory)
    first, second = again.edit_requests()
    assert first == bronze
    assert second.keep_colors
    assert second.picture is not None
    assert second.picture.read_bytes() == b"a picture"
    assert again == portrait
    assert again.stages == {"clip": 1.25}


def test_tensors_survive_the_disk_without_pickle(portrait: Portrait) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    portrait.save_tensors("t.safetensors", tensors)
    again = portrait.load_tensors("t.safetensors")
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"version": null}'])
def test_a_folder_that_is_no_portrait_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "portrait.json").write_text(content)
    with pytest.raises(InputError, match=r"not a portrait folder|format"):
        Portrait.load(tmp_path)


def test_a_newer_format_is_refused(portrait: Portrait) -> None:
    portrait.save()
    path = portrait.path("portrait.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(InputError, match="format 99"):
        Portrait.load(portrait.directory)


def test_a_broken_tensor_file_is_named(portrait: Portrait) -> None:
    portrait.path("t.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"t\.safetensors is missing or broken"):
        portrait.load_tensors("t.safetensors")


def test_an_avatar_of_another_version_is_named(portrait: Portrait) -> None:
    portrait.finish("reconstruction", 1.0)
    portrait.save_tensors("avatar.safetensors", {"nodes": torch.zeros(2)})
    with pytest.raises(InputError, match="another version"):
        load_fitted(portrait, torch.device("cpu"))


def test_copies_appear_whole_and_leave_out_what_is_not_wanted(portrait: Portrait, tmp_path: Path) -> None:
    portrait.save()
    portrait.path("avatar.safetensors").write_bytes(b"1")
    portrait.path("alpha.mp4").write_bytes(b"2")
    copy = portrait.copy_to(tmp_path / "copy", without=("avatar.safetensors",))
    assert sorted(p.name for p in copy.directory.iterdir()) == ["alpha.mp4", "portrait.json"]
    with pytest.raises(InputError, match="not empty"):
        portrait.copy_to(tmp_path / "copy", without=())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("lost", ["settings", "clip", "crop", "stages", "source_name"])
def test_facts_that_miss_a_part_are_no_portrait(portrait: Portrait, lost: str) -> None:
    portrait.save()
    facts = json.loads(portrait.path("portrait.json").read_text())
    del facts[lost]
    portrait.path("portrait.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="is not a portrait folder"):
        Portrait.load(portrait.directory)


def test_held_out_frames_are_the_last_ones(portrait: Portrait) -> None:
    assert portrait.trained_frames == 2


def test_an_unfinished_portrait_says_so(portrait: Portrait) -> None:
    with pytest.raises(InputError, match="stopped before its reconstruction stage"):
        portrait.require("reconstruction")
