"""FASHN VTON: network, sampler and the whole editor, with a tiny network of the real class and a pose network of four nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TINY, filled, write_try_on
from torch import Tensor

from portraitgen import weights
from portraitgen.body import LABELS
from portraitgen.editors import EditBatch
from portraitgen.editors.fashn import FashnTryOn, find_wearer, worn_area
from portraitgen.editors.fashn_model import TryOnTransformer, flow_times, load_transformer, sample
from portraitgen.editors.memory import release
from portraitgen.editors.surface import one_frame
from portraitgen.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

LAYOUT = Path(__file__).parent / "layouts" / "fashn_vton.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_try_on(folder)
    return folder


@pytest.fixture(scope="module")
def shirt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat-lay photo of a red T-shirt."""
    picture = np.full((300, 300, 3), 245, np.uint8)
    outline = [(110, 50), (130, 62), (170, 62), (190, 50), (250, 85), (232, 130), (202, 115)]
    outline += [(202, 255), (98, 255), (98, 115), (68, 130), (50, 85)]
    cv2.fillPoly(picture, [np.array(outline, np.int32)], (40, 30, 190), cv2.LINE_AA)
    file = tmp_path_factory.mktemp("garment") / "shirt.png"
    cv2.imwrite(str(file), picture)
    return file


@pytest.fixture(scope="module")
def editor(folder: Path, shirt: Path) -> Iterator[FashnTryOn]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "path", lambda name: folder / name)
        yield FashnTryOn(shirt, "cpu", steps=3, size=TINY)
    release()


def batch(count: int = 3, height: int = 64, width: int = 64, shift: int = 0, **changes: object) -> EditBatch:
    """A person: head above, neck, torso below, moved ``shift`` pixels to the right, in front of nothing."""
    generator = torch.Generator().manual_seed(1)
    source = torch.rand((count, 3, height, width), generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = x - shift
    head = ((x - width / 2) ** 2 + (y - 0.3 * height) ** 2).sqrt() < 0.2 * height
    neck = ((x - width / 2).abs() < 0.1 * width) & (y >= 0.5 * height) & (y < 0.6 * height)
    torso = ((x - width / 2).abs() < 0.4 * width) & (y >= 0.6 * height)
    parts = torch.full((height, width), -1)
    for name, mask in (("face", head), ("neck", neck), ("torso", torso)):
        parts[mask] = LABELS.index(name)

    def all_frames(values: Tensor) -> Tensor:
        return values.expand(count, *values.shape).clone()

    person = head | neck | torso
    rest = torch.stack([(x - width / 2) / width, (y - 0.55 * height) / height, torch.zeros(height, width)])
    skin = (head | neck).float()[None]
    made = EditBatch.of_background(source, seed=5)
    made = replace(
        made,
        alpha=all_frames(person.float()[None]),
        regions={"skin": all_frames(skin), "clothes": all_frames(torso.float()[None])},
        parts=all_frames(parts[None]),
        rest=all_frames(torch.where(person, rest, torch.nan)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_layout_is_that_of_the_published_code() -> None:
    """Names and shapes as recorded from the published code, which loads its file strictly."""
    recorded = json.loads(LAYOUT.read_text())
    expected = {}
    for name, shape in recorded["shapes"].items():
        for number in range(recorded["blocks"].get(name.split(".")[0], 1)):
            expected[name.replace("*", str(number))] = shape
    with torch.device("meta"):
        state = TryOnTransformer().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == expected


def test_the_network_computes_what_the_published_one_does(tmp_path: Path) -> None:
    """Velocities that the published code gives for the same weights and pictures, with and without conditions."""
    save_file(filled(TryOnTransformer(TINY).state_dict()), tmp_path / "model.safetensors")
    model = load_transformer(tmp_path / "model.safetensors", "cpu", TINY)

    def picture(code: int, channels: int) -> Tensor:
        wave = torch.sin(0.11 * (code + 1) * torch.arange(2 * channels * 96 * 72, dtype=torch.float64))
        return wave.float().view(2, channels, 96, 72)

    noisy, times = picture(0, 3), torch.tensor([0.3, 0.7])
    conditions = [picture(code, channels) for code, channels in ((1, 3), (2, 1), (3, 3), (4, 1))]
    with torch.no_grad():
        given = model(noisy, times, *conditions, torch.tensor([1, 1]))
        free = model(noisy, times, *(torch.zeros_like(one) for one in conditions), torch.tensor([0, 0]))
    assert given.std() == pytest.approx(0.974904, abs=1e-4)
    assert free.std() == pytest.approx(0.757839, abs=1e-4)
    expected = (
        *(0.7209, 0.1062, 0.7231, -0.4116, 0.8616, -0.3068, -1.4386, 1.3616, -1.3681, -1.245, 0.6507, -1.2337),
        *(0.2653, -1.141, 0.2243, 1.0001, -1.3761, 0.8889, 0.7215, 0.1737, 0.7227, -0.3916, 0.8135, -0.273),
        *(-1.3883, 1.387, -1.3308, -1.2416, 0.6502, -1.2153, 0.2369, -1.2225, 0.2041, 0.9781, -1.3277, 0.845),
    )
    assert given[:, :, 17::40, 11::30].flatten().tolist() == pytest.approx(expected, abs=2e-4)
    assert free[:, :, 17::40, 11::30].flatten()[:6].tolist() == pytest.approx(
        [0.37, 0.2507, 0.3948, -0.4645, 0.829, -0.4213], abs=2e-4
    )


def test_half_precision_hardly_changes_the_picture() -> None:
    """The path that a GPU takes, on the CPU: every layer in bfloat16, the flow itself in full precision."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = TryOnTransformer(TINY).eval()
        model.load_state_dict(filled(model.state_dict()))
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn((2, 3, 96, 72), generator=generator)
        conditions = [torch.rand((2, channels, 96, 72), generator=generator) for channels in (3, 1, 3, 1)]
        with torch.no_grad():
            found.append(sample(model.to(dtype), conditions, noise, 3, 1.5))
    assert found[1].dtype == torch.float32
    assert (found[0] - found[1]).abs().mean() < 0.02


def test_full_size_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = TryOnTransformer()
        noise, one = torch.empty(2, 3, 864, 576), torch.empty(2, 1, 864, 576)
        found = model(noise, torch.empty(2), noise, one, noise, one, torch.empty(2, dtype=torch.long))
    assert sum(value.numel() for value in model.state_dict().values()) == 971_814_240
    assert found.shape == noise.shape


def test_a_checkpoint_with_other_keys_is_refused(tmp_path: Path) -> None:
    state = filled(TryOnTransformer(TINY).state_dict())
    state["final_layer.weight"] = state.pop("final_layer.linear.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"final_layer\.linear\.weight"):
        load_transformer(tmp_path / "model.safetensors", "cpu", TINY)


def test_the_flow_arrives_at_what_the_model_believes_in() -> None:
    generator = torch.Generator().manual_seed(2)
    truth, noise = torch.rand((2, 2, 3, 96, 72), generator=generator) - 0.5
    calls: list[bool] = []

    def model(state: Tensor, time: Tensor, person: Tensor, *rest: Tensor) -> Tensor:
        calls.append(bool(person.any()))
        assert int(rest[-1][0]) == (1 if person.any() else 0)
        goal = truth if person.any() else truth + 1
        return (goal - state) / (1 - time[0])

    conditions = [torch.ones_like(noise)] * 4
    assert flow_times(5) == pytest.approx([0.0, 0.05284, 0.12949, 0.25077, 0.4716, 1.0], abs=1e-5)
    found = sample(model, conditions, noise, 5, 1.5)  # type: ignore[arg-type]
    assert torch.allclose(found, truth, atol=1e-5)  # the last step goes without guidance, straight to the goal
    assert calls == [True, False] * 4 + [True]


def test_an_edit_has_the_right_shape_and_range(editor: FashnTryOn) -> None:
    for count, height, width in ((3, 64, 64), (1, 48, 80), (2, 96, 64)):
        frames = batch(count, height, width)
        edited = editor.edit(frames)
        assert edited.shape == frames.source.shape
        assert edited.isfinite().all()
        assert edited.min() >= 0
        assert edited.max() <= 1
        assert (edited - frames.source).abs().max() > 0.05
    assert "red top" in editor.understood


def test_the_head_and_the_background_stay(editor: FashnTryOn) -> None:
    frames = batch()
    edited = editor.edit(frames)
    face = frames.parts == LABELS.index("face")
    face[:, :, 28:] = False  # within the feather of the neck
    for kept in (face, frames.alpha == 0):
        assert torch.equal(*(picture[kept.expand(-1, 3, -1, -1)] for picture in (edited, frames.source)))
    torso = (frames.parts == LABELS.index("torso")).expand(-1, 3, -1, -1)
    assert (edited - frames.source)[torso].abs().mean() > 0.05


def test_skin_is_replaced_only_where_it_changed() -> None:
    frames = batch(1, 128, 128)
    neck, torso, face = (frames.parts == LABELS.index(name) for name in ("neck", "torso", "face"))
    unchanged = worn_area(frames, frames.source)
    assert unchanged[torso].min() == 1
    assert unchanged[neck].max() == 0
    changed = worn_area(frames, 1 - frames.source.round())
    assert changed[neck].median() > 0.9
    assert changed[:, :, :48][face[:, :, :48]].max() == 0


def test_everything_it_is_given_matters(editor: FashnTryOn, shirt: Path, tmp_path: Path) -> None:
    plain = batch()
    before = editor.edit(plain)
    assert torch.equal(before, editor.edit(plain))
    for change in ({"source": plain.source.flip(-1)}, {"seed": 6}):
        assert (editor.edit(replace(plain, **change)) - before).abs().max() > 1e-3, change  # type: ignore[arg-type]
    assert torch.equal(editor.edit(replace(plain, rendered=plain.source.flip(-1))), before)
    assert torch.equal(editor.edit(replace(plain, strength=0.0)), plain.source)
    half = editor.edit(replace(plain, strength=0.5))
    assert torch.allclose(half, (plain.source + before) / 2, atol=1e-6)
    blue = tmp_path / "blue.png"
    cv2.imwrite(str(blue), cv2.imread(str(shirt))[..., ::-1])
    other = FashnTryOn(blue, "cpu", steps=3, size=TINY)
    assert "red" not in other.understood
    assert (other.edit(plain) - before).abs().max() > 1e-4
    for guidance, same in ((1.5, True), (4.0, False)):
        other = FashnTryOn(shirt, "cpu", steps=3, size=TINY, guidance=guidance)
        assert torch.equal(other.edit(plain), before) is same
    figures = []
    for row in (10, 50):
        dark = batch(1, source=torch.zeros(1, 3, 64, 64))
        dark.source[:, :, row, 40] = 1
        figures.append(editor._figure(dark))
        assert figures[-1][0, row, 40] > 0.5
    assert not torch.equal(*figures)


def test_a_frame_does_not_depend_on_its_neighbours(editor: FashnTryOn) -> None:
    whole = batch()
    edited = editor.edit(whole)
    for index in range(3):
        assert torch.allclose(edited[index : index + 1], editor.edit(one_frame(whole, index)), atol=1e-4)


def test_frames_without_the_person_stay(editor: FashnTryOn) -> None:
    nobody = EditBatch.of_background(torch.rand(2, 3, 64, 64))
    assert torch.equal(editor.edit(nobody), nobody.source)
    mixed = batch()
    mixed.alpha[1], mixed.regions["skin"][1], mixed.regions["clothes"][1] = 0, 0, 0
    edited = editor.edit(mixed)
    assert torch.equal(edited[1], mixed.source[1])
    assert not torch.equal(edited[2], mixed.source[2])


def test_the_noise_follows_the_torso(editor: FashnTryOn) -> None:
    noise = torch.randn(3, TINY.height, TINY.width)
    here, there = (editor._following(noise, one_frame(batch(1, 64, 64, shift), 0)) for shift in (0, 8))
    assert torch.equal(there, here.roll(9, dims=2))  # 8 pixels of 64 are 9 of 72
    assert not torch.equal(here, there)


def test_pictures_are_fitted_into_the_networks(editor: FashnTryOn) -> None:
    canvas = editor._canvas(torch.ones(1, 3, 64, 64), "bicubic")
    assert canvas.shape == (1, 3, 96, 72)
    assert torch.equal(canvas[0, 0, :, 40] > 0, torch.arange(96).sub(48).add(0.5).abs() < 36)
    assert torch.allclose(canvas.abs(), torch.ones(()), atol=1e-6)
    assert editor._window(96, 32) == (20, 0, 32, 96)


def test_a_worn_garment_is_told_from_its_wearer() -> None:
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    wearer = find_wearer(photo[:, :, 30:450])
    assert wearer is not None
    left, top, right, bottom = wearer.box
    assert left < 120 < 260 < right
    assert top < 60
    assert bottom > 400
    assert wearer.clothes.shape == (512, 420)
    assert not wearer.clothes[60:150, 170:220].any()  # her face
    assert wearer.clothes[330:420, 120:170].mean() > 0.9  # her suit
    assert not wearer.clothes[40:200, 300:].any()  # the wall behind her
    assert find_wearer(torch.ones(3, 200, 160)) is None
    small = torch.nn.functional.interpolate(photo[None], (96, 96), mode="area")[0]
    assert (found := find_wearer(small)) is None or found.clothes.shape == (96, 96)


def test_a_worn_photo_is_covered_and_its_pose_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skimage.data import astronaut

    monkeypatch.setattr(weights, "path", lambda name: folder / name)
    cv2.imwrite(str(tmp_path / "worn.png"), astronaut()[..., ::-1])
    editor = FashnTryOn(tmp_path / "worn.png", "cpu", size=TINY)
    assert editor.understood == "what the person in the photo wears"
    assert editor.garment_pose.max() > 0
    face = editor.garment[0, :, 12 + 12 : 12 + 18, 26:34]
    assert (face - (2 * 127 / 255 - 1)).abs().max() < 1e-4


def test_a_flat_photo_is_shown_whole(editor: FashnTryOn) -> None:
    assert editor.garment_pose.max() == -1
    assert (editor.garment[0, :, 14, 2:70] > 0.85).all()  # the light ground around the shirt


@pytest.mark.parametrize(("missing", "named"), [("fashn-vton", "fashn-vton"), ("dwpose", "dwpose")])
def test_missing_weights_are_one_sentence(
    missing: str, named: str, folder: Path, shirt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "path", lambda name: None if name == missing else folder / name)
    with pytest.raises(InputError, match=rf"weights --fetch {named}, or use the engine builtin"):
        FashnTryOn(shirt, "cpu")


def test_what_is_no_garment_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: folder / name)
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 230, np.uint8))
    for name, why in (("wall.png", "garment"), ("none.png", "no picture")):
        with pytest.raises(InputError, match=why):
            FashnTryOn(tmp_path / name, "cpu", size=TINY)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_cuda(folder: Path, shirt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "path", lambda name: folder / name)
    editor = FashnTryOn(shirt, "cuda", steps=3, size=TINY)
    model = load_transformer(folder / "fashn-vton" / "model.safetensors", "cuda", TINY)
    assert model.x_embedder.proj.weight.dtype == torch.bfloat16
    assert editor.edit(batch()).isfinite().all()
    release()
