"""What can be taken away from a portrait folder: a splat file that is what is rendered, views from all sides, the folder."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_fitting import make_fitted
from toy_body import ToyBody, toy_intrinsics, toy_parameters

from portraitgen import reconstruction
from portraitgen.clip import ClipInfo
from portraitgen.crop import Crop
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError
from portraitgen.export import PLY_FIELDS, VIEW_SIDE, write_ply, write_views, write_zip
from portraitgen.fitting import Fitted
from portraitgen.free_view import head_pivot
from portraitgen.portrait import Portrait, Settings
from portraitgen.progress import RECONSTRUCT_STAGES
from portraitgen.rasterization import rasterize
from portraitgen.reconstruction import save_fitted
from portraitgen.tracking import Tracking

FRAMES, SIZE = 8, 256


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Fitted]:
    """A portrait folder around a toy avatar with a pattern."""
    monkeypatch.setattr(reconstruction, "load_body", lambda name, device: ToyBody())
    fitted = make_fitted()
    u, v = fitted.avatar.uvs.T
    with torch.no_grad():
        fitted.avatar.features[:, :3] = torch.stack([u, v, 1 - u], 1) * 0.8 + 0.1
        fitted.avatar.quats.add_(0.3 * torch.randn(fitted.avatar.quats.shape, generator=torch.manual_seed(0)))
        fitted.avatar.opacity_logits.copy_(torch.linspace(-2, 4, len(fitted.avatar)))
    folder = tmp_path / "portrait"
    folder.mkdir()
    info = ClipInfo(SIZE, SIZE, FRAMES, Fraction(25), FRAMES / 25, False, 0, tuple(i / 25 for i in range(FRAMES)))
    settings = Settings("0" * 64, "preview", "anny", 0.0, None, 0)
    portrait = Portrait(
        folder, settings, "source.mp4", info, Crop(0, 0, SIZE, SIZE), dict.fromkeys(RECONSTRUCT_STAGES, 1.0)
    )
    portrait.save()
    (folder / "source.mp4").write_bytes(bytes(range(256)))
    nothing = torch.zeros(FRAMES)
    tracking = Tracking(toy_parameters(FRAMES), toy_intrinsics(SIZE), nothing, nothing.bool())
    portrait.save_tensors("tracking.safetensors", tracking.to_tensors())
    portrait.save_tensors("screening.safetensors", {"bars": torch.zeros(4, dtype=torch.int64)})
    save_fitted(portrait, fitted)
    return folder, fitted


def read_ply(path: Path) -> dict[str, np.ndarray]:
    """Columns of a binary PLY of floats, read as any viewer reads it: from its own header."""
    head, data = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[-1])
    names = [line.split()[-1] for line in lines if line.startswith("property float")]
    table = np.frombuffer(data, "<f4").reshape(count, len(names))
    return dict(zip(names, table.T, strict=True))


def test_the_splat_file_holds_the_gaussians_of_the_frame(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    folder, fitted = kept
    list(write_ply(folder, tmp_path / "a.ply", 3, device="cpu"))
    table = read_ply(tmp_path / "a.ply")
    assert tuple(table) == PLY_FIELDS

    def columns(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[name] for name in names], 1))

    pivot = head_pivot(fitted)
    K = toy_intrinsics(64)[None]
    arguments = (torch.eye(4)[None], K, 64, 64)
    with torch.no_grad():
        gaussians = fitted.avatar(fitted.mesh(torch.tensor([3])))
        wanted, _ = rasterize(
            gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features[:, :3],
            *arguments, backgrounds=None,
        )  # fmt: skip
        shown, _ = rasterize(
            (columns("x", "y", "z") + pivot)[None],
            columns("rot_0", "rot_1", "rot_2", "rot_3")[None],
            columns("scale_0", "scale_1", "scale_2").exp()[None],
            columns("opacity").sigmoid()[None, :, 0],
            columns("f_dc_0", "f_dc_1", "f_dc_2") * 0.28209479177387814 + 0.5,
            *arguments,
            backgrounds=None,
        )
    assert wanted.max() > 0.5
    torch.testing.assert_close(shown, wanted, atol=2e-3, rtol=0)
    assert np.allclose(np.linalg.norm(columns("rot_0", "rot_1", "rot_2", "rot_3"), axis=1), 1, atol=1e-5)


def test_a_frame_that_is_not_there_is_refused(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame 8"):
        list(write_ply(kept[0], tmp_path / "a.ply", FRAMES))
    assert not (tmp_path / "a.ply").exists()


def test_the_turntable_shows_other_sides_from_left_to_right(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    steps = list(write_views(kept[0], tmp_path / "strip.jpg", count=3, device="cpu"))
    assert list(dict.fromkeys(round(step.fraction, 2) for step in steps)) == [0.33, 0.67, 1.0]
    strip = cv2.imread(str(tmp_path / "strip.jpg")).astype(float)
    assert strip.shape == (VIEW_SIDE, 3 * VIEW_SIDE, 3)
    left, middle, right = np.split(strip, 3, axis=1)
    assert (middle[0, 0] > 250).all(), "over white"
    assert middle.min() < 150
    assert min(np.abs(left - middle).mean(), np.abs(right - middle).mean(), np.abs(left - right).mean()) > 1


def test_the_packed_folder_is_the_folder(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    folder, _ = kept
    (folder / ".half-written").write_text("x")
    list(write_zip(folder, tmp_path / "p.zip"))
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / "portrait"
    names = {path.name for path in folder.iterdir()} - {".half-written"}
    assert {path.name for path in unpacked.iterdir()} == names
    assert all((unpacked / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert Portrait.load(unpacked).clip.frame_count == FRAMES


def test_an_unfinished_portrait_is_not_packed(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    facts = json.loads((kept[0] / "portrait.json").read_text())
    facts["stages"].pop("reconstruction")
    (kept[0] / "portrait.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="stopped before"):
        list(write_zip(kept[0], tmp_path / "p.zip"))
    assert not (tmp_path / "p.zip").exists()


def test_all_that_is_taken_away_says_what_it_is(kept: tuple[Path, Fitted], tmp_path: Path) -> None:
    folder, _ = kept
    Portrait.load(folder).record_edit(EditRequest("text", "a secret wish", engine="builtin"))
    list(write_ply(folder, tmp_path / "a.ply", device="cpu"))
    list(write_views(folder, tmp_path / "strip.jpg", count=3, device="cpu"))
    list(write_zip(folder, tmp_path / "p.zip"))
    source_type = "digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    head = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)[0].decode("ascii").splitlines()
    comments = [line for line in head if line.startswith("comment ")]
    assert any(line.startswith("comment AI-edited (PortraitGen") and "text by builtin" in line for line in comments)
    assert any(line.endswith(source_type) for line in comments)
    with Image.open(tmp_path / "strip.jpg") as strip:
        packet = strip.info["xmp"].decode()
    assert source_type in packet
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        facts = json.loads(archive.read("provenance.json"))
    assert facts["statement"] == "AI-edited"
    assert facts["edits"] == [{"edit": "text", "engine": "builtin"}]
    assert not any("secret" in text for text in ("".join(comments), packet, json.dumps(facts)))
