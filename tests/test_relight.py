from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor
from torchvision.utils import save_image

from portraitgen.body import LABELS
from portraitgen.editors import EditBatch, Editor
from portraitgen.editors.colour import to_linear, to_oklab, to_srgb
from portraitgen.editors.illumination import EXPOSURE, diffuse, luminance
from portraitgen.editors.relief import relief
from portraitgen.editors.relight import BuiltinRelight, roll_off
from portraitgen.editors.text import BuiltinLooks
from portraitgen.errors import InputError

SKIN = torch.tensor([0.30, 0.18, 0.13]).view(3, 1, 1)


def ball(
    light: tuple[float, float, float] = (0.0, 0.0, 1.0),
    *,
    height: int = 192,
    width: int = 192,
    shift: int = 0,
    nose: float = 0.0,
    strength: float = 1.0,
) -> EditBatch:
    """A ball of skin (a metre ahead, with a ``nose`` so many metres long) before a grey wall, lit from ``light`` and from everywhere."""
    radius, pitch = 0.4 * height, 0.25 / height  # pixels, metres per pixel
    y, x = torch.meshgrid(
        torch.arange(height) + 0.5 - height / 2, torch.arange(width) + 0.5 - width / 2 - shift, indexing="ij"
    )
    y, x = y / radius, x / radius
    inside = (x * x + y * y < 0.995).float()
    out = (1 - x * x - y * y).clamp_min(0).sqrt() + nose / (radius * pitch) * torch.exp(-(x * x + y * y) / 0.02)
    falls = torch.stack(torch.gradient(out * radius, dim=(1, 0)))
    normals = functional.normalize(torch.cat([-falls, torch.ones(1, height, width)]), dim=0)
    if not nose:
        normals = functional.normalize(torch.stack([x, y, out]), dim=0)
    direction = functional.normalize(torch.tensor(light), dim=0).view(3, 1, 1)
    shading = 0.55 + 0.6 * (normals * direction).sum(0).clamp_min(0)
    picture = to_srgb(torch.where(inside > 0, SKIN * shading, torch.tensor(0.2)))[None]
    nowhere = torch.full_like(picture, torch.nan)
    masked = inside > 0
    positions = torch.stack([x, y, -out]) * radius * pitch + torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    alpha = inside[None, None]
    return EditBatch(
        source=picture,
        rendered=picture,
        alpha=alpha,
        regions={"skin": alpha, "background": 1 - alpha},
        normals=(normals * torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1) * inside)[None],
        uv=torch.where(masked, torch.stack([x, y]) * 0.4 + 0.5, torch.nan)[None],
        positions=torch.where(masked, positions, torch.nan)[None],
        rest=nowhere,
        parts=torch.where(masked, 0, -1)[None, None],
        strength=strength,
    )


def stacked(*batches: EditBatch) -> EditBatch:
    layers = {
        field.name: torch.cat([getattr(batch, field.name) for batch in batches])
        for field in dataclasses.fields(EditBatch)
        if isinstance(getattr(batches[0], field.name), Tensor)
    }
    regions = {name: torch.cat([batch.regions[name] for batch in batches]) for name in batches[0].regions}
    return dataclasses.replace(batches[0], regions=regions, **layers)


def edit(text: str, batch: EditBatch) -> Tensor:
    return BuiltinRelight(text).edit(batch)


def tone(picture: Tensor, rows: slice, columns: slice) -> float:
    return float(luminance(to_linear(picture))[..., rows, columns].mean())


def hue(picture: Tensor) -> Tensor:
    """OKLab hue in degrees: 30 is a pink red, 60 orange, 100 yellow."""
    lab = to_oklab(picture)
    return torch.rad2deg(torch.atan2(lab[:, 2:], lab[:, 1:2]))


MIDDLE, LEFT, RIGHT = slice(80, 112), slice(40, 70), slice(122, 152)


def test_a_known_lamp_gives_the_analytic_picture() -> None:
    batch = ball((0.5, -0.3, 0.8))
    editor = BuiltinRelight("dim hard light from the left")
    edited = to_linear(editor.edit(batch))
    light = editor.lighting.lights[0]
    shape = relief(batch).smooth
    ambient = torch.tensor(editor.lighting.ambient).view(1, 3, 1, 1)
    expected = SKIN[None] * (
        ambient + EXPOSURE * light.intensity * diffuse(shape, light) * torch.tensor(light.colour).view(1, 3, 1, 1)
    )
    inner = functional.avg_pool2d(batch.alpha, 31, 1, 15) > 0.999
    ratio = (luminance(edited) / luminance(expected))[inner & (diffuse(shape, light) > 0.2)]
    assert float(ratio.median()) == pytest.approx(1, abs=0.15)
    assert float((ratio / ratio.median() - 1).abs().mean()) < 0.08
    both = torch.stack([luminance(edited)[inner], luminance(expected)[inner]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.985


def test_the_old_light_is_gone() -> None:
    one, other = (edit("hard light from the left", ball((side, 0.0, 0.5))) for side in (-1.0, 1.0))
    before = [tone(ball((side, 0.0, 0.5)).source, MIDDLE, LEFT) for side in (-1.0, 1.0)]
    after = [tone(picture, MIDDLE, LEFT) for picture in (one, other)]
    assert before[0] > 1.4 * before[1]
    assert after[0] == pytest.approx(after[1], rel=0.12)


def test_light_comes_from_where_it_is_said_to() -> None:
    batch = ball()
    left, right = edit("hard light from the left", batch), edit("hard light from the right", batch)
    assert tone(left, MIDDLE, LEFT) > 2.5 * tone(left, MIDDLE, RIGHT)
    assert tone(right, MIDDLE, RIGHT) > 2.5 * tone(right, MIDDLE, LEFT)
    assert tone(left, MIDDLE, LEFT) > 1.2 * tone(batch.source, MIDDLE, LEFT)  # lit, not only shaded
    above = edit("light from above", batch)
    assert tone(above, slice(30, 60), MIDDLE) > 2.5 * tone(above, slice(132, 162), MIDDLE)
    soft = edit("soft light from the left", batch)
    assert tone(soft, MIDDLE, RIGHT) > 2 * tone(left, MIDDLE, RIGHT)


def test_two_colours_stay_on_their_sides() -> None:
    edited = to_linear(edit("red from the left and blue from the right", ball()))
    left, right = edited[0, :, MIDDLE, LEFT].mean((1, 2)), edited[0, :, MIDDLE, RIGHT].mean((1, 2))
    assert left[0] > 4 * left[2]
    assert right[2] > 3 * right[0]


def test_a_nose_casts_a_shadow_away_from_the_lamp() -> None:
    batch = ball(nose=0.04)
    left = to_linear(edit("hard light from the left", batch))
    right = to_linear(edit("hard light from the right", batch)).flip(3)
    assert torch.allclose(left[..., 60:130, 60:130], right[..., 60:130, 60:130], atol=0.05)
    plain = to_linear(edit("hard light from the left", ball()))
    shadow = (luminance(left) / luminance(plain))[0, 0]
    assert float(shadow[94:98, 112:118].mean()) < 0.5
    assert float(shadow[94:98, 60:70].mean()) > 0.8
    assert float(shadow[50:56, 92:100].mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("editor", [BuiltinRelight("hard white light from the left"), BuiltinLooks("dramatic light")])
def test_a_fold_of_the_meshs_ear_leaves_no_black_hole_in_the_pictures(editor: Editor) -> None:
    batch = ball()
    fold = (slice(None), slice(None), slice(95, 98), slice(69, 72))  # pixels: a third of an ear's hollow at 512 rows
    normals, parts = batch.normals.clone(), batch.parts.clone()
    normals[fold] = functional.normalize(torch.tensor([1.0, 0.0, -0.2]), dim=0).view(1, 3, 1, 1)  # away from the lamp
    parts[:, :, 80:112, 56:84] = LABELS.index("ears")
    whole, folded = (
        luminance(to_linear(editor.edit(dataclasses.replace(batch, normals=n, parts=parts))))
        for n in (batch.normals, normals)
    )
    place = (0, 0, *fold[2:])
    assert float(folded[place].mean()) > 0.5 * float(whole[place].mean())


def test_a_lamp_behind_lights_the_edge_only() -> None:
    batch = ball()
    edited = edit("white rim light from the right", batch)
    source = tone(batch.source, MIDDLE, MIDDLE)
    assert tone(edited, MIDDLE, MIDDLE) < 0.6 * source
    edge = slice(164, 170)
    assert tone(edited, MIDDLE, edge) > 1.5 * tone(edited, MIDDLE, MIDDLE)
    assert tone(edited, MIDDLE, edge) > 2 * tone(edited, MIDDLE, slice(22, 28))


def test_strength_runs_from_exactly_the_source() -> None:
    half, full = (edit("hard light from the left", ball(strength=value)) for value in (0.5, 1.0))
    batch = ball(strength=0.0)
    assert torch.equal(edit("hard light from the left", batch), batch.source)
    between = (tone(full, MIDDLE, RIGHT), tone(half, MIDDLE, RIGHT), tone(batch.source, MIDDLE, RIGHT))
    assert between == tuple(sorted(between))


@pytest.mark.parametrize("text", ["hard light from the left", "sunset", "neon", "softer shadows"])
def test_frames_of_a_batch_do_not_touch_each_other(text: str) -> None:
    frames = ball((1.0, 0.0, 0.5)), ball((-1.0, 0.5, 0.2), shift=12), ball((0.0, -1.0, 0.4), nose=0.03)
    together = edit(text, stacked(*frames))
    for number, frame in enumerate(frames):
        assert torch.allclose(together[number], edit(text, frame)[0], atol=2e-3)


def test_the_shading_moves_with_the_person() -> None:
    still, moved = edit("hard light from the upper left", ball()), edit("hard light from the upper left", ball(shift=9))
    difference = (moved.roll(-9, 3) - still).abs()[..., 20:172, 20:172]
    assert float(difference.mean()) < 0.01
    assert float(difference.max()) < 0.2


@pytest.mark.parametrize(
    "text", ["light from the left", "sunset", "neon", "underwater", "film noir", "brighter", "flat light"]
)
@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 320)])
def test_every_shape_is_finite_and_in_range(text: str, height: int, width: int) -> None:
    batch = ball((0.4, -0.4, 0.7), height=height, width=width)
    edited = edit(text, batch)
    assert edited.shape == batch.source.shape
    assert bool(torch.isfinite(edited).all())
    assert float(edited.min()) >= 0
    assert float(edited.max()) <= 1


def test_nobody_and_nothing() -> None:
    wall = ball().source
    nobody = EditBatch.of_background(wall)
    plain, sunset = BuiltinRelight("light from the left"), BuiltinRelight("sunset")
    assert not plain.edits_background
    assert torch.equal(plain.edit(nobody), wall)
    assert sunset.edits_background
    lit = sunset.edit(nobody)
    assert bool(torch.isfinite(lit).all())
    assert float(lit[:, 0].mean()) > 1.3 * float(lit[:, 2].mean())
    empty = stacked(ball())
    none = dataclasses.replace(
        empty,
        regions={name: mask[:0] for name, mask in empty.regions.items()},
        **{name: value[:0] for name, value in vars(empty).items() if isinstance(value, Tensor)},
    )
    assert sunset.edit(none).shape == (0, 3, 192, 192)
    hidden = dataclasses.replace(
        ball(), uv=nobody.uv, normals=nobody.normals, positions=nobody.positions, parts=nobody.parts, regions={}
    )
    assert bool(torch.isfinite(edit("hard light from the left", hidden)).all())


def test_the_background_is_brighter_on_the_lamps_side() -> None:
    wall = torch.full((1, 3, 128, 128), 0.6)
    lit = BuiltinRelight("light from the left, background too").edit(EditBatch.of_background(wall))
    assert float(lit[..., :40].mean()) > 1.1 * float(lit[..., 88:].mean())
    with_person = edit("red light from the left", ball())
    outside = ball().alpha.expand(-1, 3, -1, -1) == 0
    assert torch.allclose(with_person[outside], ball().source[outside], atol=1e-4)


def test_texture_survives_and_changes_of_light_are_gentle() -> None:
    batch = ball()
    y, x = torch.meshgrid(torch.arange(192.0), torch.arange(192.0), indexing="ij")
    textured = dataclasses.replace(
        batch, source=(batch.source * (1 + 0.06 * torch.sin(x * 1.1) * torch.sin(y * 1.3))).clamp(0, 1)
    )
    detail = [edit("soft light from the left", one) for one in (batch, textured)]
    kept = (
        ((detail[1] - detail[0])[..., MIDDLE, MIDDLE]).std()
        / (textured.source - batch.source)[..., MIDDLE, MIDDLE].std()
    )
    assert 0.7 < float(kept) < 2.5
    for text, sign in (("brighter", 1), ("darker", -1)):
        assert sign * (tone(edit(text, batch), MIDDLE, MIDDLE) - tone(batch.source, MIDDLE, MIDDLE)) > 0.02
    warm = edit("warmer", batch)[..., MIDDLE, MIDDLE].mean((0, 2, 3)) - batch.source[..., MIDDLE, MIDDLE].mean(
        (0, 2, 3)
    )
    assert float(warm[0]) > 0 > float(warm[2])


def test_highlights_roll_off_without_clipping() -> None:
    ramp = torch.linspace(0, 4, 200).view(1, 1, 1, -1) * torch.tensor([1.0, 0.7, 0.5]).view(1, 3, 1, 1)
    rolled = roll_off(ramp)
    assert float(rolled.max()) <= 1
    assert bool((rolled.diff(dim=3) >= -1e-4).all())
    assert torch.allclose(rolled[..., :30], ramp[..., :30], atol=1e-6)


def test_orange_light_that_rolls_off_goes_to_yellow_and_never_to_pink() -> None:
    ramp = torch.linspace(0.7, 4, 60).view(1, 1, 1, -1) * torch.tensor([1.0, 0.42, 0.18]).view(1, 3, 1, 1)
    before, after = (hue(to_srgb(picture)) for picture in (ramp[..., :1] * 0.8, roll_off(ramp)))
    assert bool((after >= before - 0.5).all())
    assert float(after[..., -1]) > float(before) + 8


@pytest.mark.parametrize("skin", [(0.30, 0.18, 0.13), (0.36, 0.186, 0.142), (0.47, 0.27, 0.234), (0.10, 0.055, 0.036)])
@pytest.mark.parametrize("text", ["sunset", "sunset from the upper right", "golden hour"])
def test_a_low_sun_makes_skin_golden_on_its_side_and_pink_on_none(text: str, skin: tuple[float, float, float]) -> None:
    batch = ball()
    person = batch.alpha > 0.5
    tinted = to_linear(batch.source) / SKIN * torch.tensor(skin).view(3, 1, 1)
    batch = dataclasses.replace(batch, source=torch.where(person, to_srgb(tinted), batch.source))
    edited = BuiltinRelight(text).edit(batch)
    inner = functional.avg_pool2d(batch.alpha, 15, 1, 7) > 0.999
    light = luminance(to_linear(edited))
    lit = inner & (light > torch.quantile(light[inner], 0.6))
    assert 45 < float(hue(edited)[lit].median()) < 80
    lab = to_oklab(edited)[:, 1:]
    magenta = inner & (lab[:, 1:] < 0.25 * lab[:, :1]) & (lab[:, :1] > 0.02)
    assert float(magenta.sum() / inner.sum()) < 0.03


def test_the_light_of_a_picture(tmp_path: Path) -> None:
    line = torch.linspace(1, 0.05, 160)
    path = tmp_path / "sunset.png"
    save_image(torch.stack([line, 0.5 * line, 0.15 * line])[:, None].expand(3, 120, 160), path)
    editor = BuiltinRelight("", path)
    assert "picture" in editor.understood
    assert "left" in editor.understood
    edited = to_linear(editor.edit(ball()))
    assert tone(editor.edit(ball()), MIDDLE, LEFT) > 1.5 * tone(editor.edit(ball()), MIDDLE, RIGHT)
    assert float(edited[0, 0, MIDDLE, LEFT].mean()) > 3 * float(edited[0, 2, MIDDLE, LEFT].mean())
    moved = BuiltinRelight("hard light from the right, background too", path)
    assert moved.lighting.lights[0].direction[0] > 0.5
    assert moved.edits_background
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(InputError):
        BuiltinRelight("", broken)
    with pytest.raises(InputError, match="no light in"):
        BuiltinRelight("give him red hair", path)


def test_words_without_light_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="no light in"):
        BuiltinRelight("give him red hair", None)
    editor = BuiltinRelight("warm, soft light from the left", None)
    assert (editor.name, editor.reads_render, editor.face_aware, editor.edits_background) == (
        "Built-in relighting",
        False,
        False,
        False,
    )
    assert editor.understood == "soft, warm light from the left"
    assert math.isclose(sum(part**2 for part in editor.lighting.lights[0].direction), 1)
