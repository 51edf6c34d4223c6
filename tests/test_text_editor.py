from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from torch import Tensor

from portraitgen.editors import EditBatch, materials, surface
from portraitgen.editors.colour import blend, from_oklab, to_oklab
from portraitgen.editors.instructions import CannotEdit
from portraitgen.editors.lexicon import CHARACTERS, LOOKS, MATERIALS, MOODS, PERSON
from portraitgen.editors.text import BuiltinLooks
from portraitgen.errors import InputError

SIZE = 160


def portrait(shift: tuple[int, int] = (0, 0), strength: float = 1.0) -> EditBatch:
    """A drawn head and shoulders with exact masks, normals and UVs, moved by ``shift`` pixels against a background that stays."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5 - shift[1], torch.arange(SIZE) + 0.5 - shift[0], indexing="ij")
    x, y = (x - SIZE / 2) / SIZE, (y - SIZE / 2) / SIZE

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> Tensor:
        return (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1).float()

    head, face = ellipse(0, -0.10, 0.25, 0.32), ellipse(0, -0.04, 0.19, 0.25)
    chest = ellipse(0, 0.48, 0.42, 0.24)
    eyes = ellipse(-0.08, -0.08, 0.035, 0.018) + ellipse(0.08, -0.08, 0.035, 0.018)
    brows = ellipse(-0.08, -0.125, 0.045, 0.012) + ellipse(0.08, -0.125, 0.045, 0.012)
    lips = ellipse(0, 0.10, 0.06, 0.025)
    regions = {"eyes": eyes, "brows": brows, "lips": lips}
    regions["skin"] = (face - eyes - brows - lips).clamp_min(0)
    regions["hair"] = (head - face).clamp_min(0)
    regions["clothes"] = (chest - head).clamp_min(0)
    alpha = torch.stack(list(regions.values())).sum(0).clamp(0, 1)
    colours = {"eyes": (0.3, 0.4, 0.5), "brows": (0.15, 0.1, 0.08), "lips": (0.7, 0.35, 0.35), "skin": (0.85, 0.65,
        0.55), "hair": (0.16, 0.11, 0.08),
               "clothes": (0.35, 0.4, 0.5)}  # fmt: skip
    waves = 1 + 0.10 * torch.sin(90 * x + 20 * y) + 0.06 * torch.sin(50 * y) - 0.25 * x
    still_y, still_x = torch.meshgrid(torch.linspace(0, 1, SIZE), torch.linspace(0, 1, SIZE), indexing="ij")
    picture = torch.stack([0.35 + 0.2 * still_x, 0.45 + 0.1 * still_y, 0.4 + 0.1 * still_x]) * (1 - alpha)
    for name, mask in regions.items():
        picture = picture + torch.tensor(colours[name]).view(3, 1, 1) * waves * mask
    depth = (1 - ((x / 0.25) ** 2 + ((y + 0.10) / 0.32) ** 2)).clamp_min(0.05).sqrt()
    normals = torch.nn.functional.normalize(torch.stack([x / 0.25, (y + 0.10) / 0.32, -depth]), dim=0) * head
    uv = torch.where(head.bool(), torch.stack([0.5 + 0.5 * x, 0.5 + 0.5 * y]), torch.nan)
    soft = {name: mask[None, None] for name, mask in regions.items()} | {"background": 1 - alpha[None, None]}
    source = picture.clamp(0, 1)[None]
    nowhere = torch.full_like(source, torch.nan)
    parts = torch.full((1, 1, SIZE, SIZE), -1)
    return EditBatch(
        source, source, alpha[None, None], soft, normals[None], uv[None], nowhere, nowhere, parts, strength
    )


def edit(instruction: str, shift: tuple[int, int] = (0, 0), strength: float = 1.0) -> Tensor:
    return BuiltinLooks(instruction).edit(portrait(shift, strength))


def change(edited: Tensor, mask: Tensor) -> float:
    difference = (edited - portrait().source).abs().mean(1, keepdim=True) * mask
    return float(difference.sum() / mask.sum())


def phrase(kind: str, name: str) -> str:
    return {"material": f"a {name} statue", "mood": name, "character": name}.get(kind, name)


EVERY = (
    [("material", name) for name in MATERIALS]
    + [("look", name) for name in LOOKS]
    + [("mood", name) for name in MOODS]
    + [("character", name) for name in CHARACTERS]
    + [("style", f"painting style {number}") for number in (0, 7, 19)]
)


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[name for _, name in EVERY])
def test_every_look_is_sound_and_follows_the_person(kind: str, name: str) -> None:
    batch = portrait()
    first = edit(phrase(kind, name))
    assert first.shape == batch.source.shape
    assert torch.isfinite(first).all()
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, edit(phrase(kind, name)))
    assert float((first - batch.source).abs().max()) > 0.01
    if kind == "style":  # a network with strided layers: not bound to the pixel grid
        return
    # moved by four pixels, the picture of the person is the same, four pixels on: textures hang on the person, not on the screen
    moved = edit(phrase(kind, name), (8, 4))
    inside = surface.blur(batch.alpha, 4.0)[..., 20 : SIZE - 36, 20 : SIZE - 20] > 0.97
    here = first[..., 20 : SIZE - 36, 20 : SIZE - 20]
    there = moved[..., 24 : SIZE - 32, 28 : SIZE - 12]
    assert float(((here - there).abs().mean(1, keepdim=True) * inside).sum() / inside.sum()) < 0.02


@pytest.mark.parametrize(
    ("instruction", "touched"),
    [
        ("blue hair", {"hair"}),
        ("platinum blonde hair", {"hair"}),
        ("red lips and green eyes", {"lips", "eyes"}),
        ("a red dress", {"clothes"}),
        ("make the background dark blue", {"background"}),
        ("bronze skin", {"skin", "eyes", "brows", "lips"}),
        ("marble, but keep the hair and the clothes", {"skin", "eyes", "brows", "lips"}),
        ("pencil sketch, don't touch the face", {"hair", "clothes", "background"}),
        ("darker hair", {"hair"}),
        ("blur the background", {"background"}),
        ("zombie skin", {"skin"}),
        ("smooth skin", {"skin"}),
    ],
)
def test_only_the_regions_asked_for_change(instruction: str, touched: set[str]) -> None:
    batch = portrait()
    edited = edit(instruction)
    for name, mask in batch.regions.items():
        if name in touched:
            assert change(edited, mask) > (0.0001 if "blur" in instruction or "smooth" in instruction else 0.01), name
        else:
            assert change(edited, mask) < 1e-5, name


@pytest.mark.parametrize(
    "instruction", ["blue hair", "a bronze statue", "oil painting", "sunset", "van gogh", "clown", "lego"]
)
def test_strength(instruction: str) -> None:
    batch = portrait()
    assert torch.equal(edit(instruction, strength=0.0), batch.source)
    changes = [change(edit(instruction, strength=value), batch.alpha) for value in (0.1, 0.4, 0.7, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_dark_hair_becomes_the_colour_and_keeps_its_strands() -> None:
    batch = portrait()
    hair = batch.regions["hair"] > 0
    for colour, light in (("platinum blonde", 0.78), ("blue", 0.38), ("white", 0.85)):
        edited = to_oklab(edit(f"{colour} hair"))[:, :1][hair]
        assert edited.mean() > light
        assert edited.std() > 0.5 * to_oklab(batch.source)[:, :1][hair].std()
    blue = edit("blue hair").permute(0, 2, 3, 1)[hair[:, 0]]
    assert (blue[:, 2] > blue[:, 0] + 0.2).float().mean() > 0.95


def test_metal_flattens_paint_but_keeps_features() -> None:
    """Hair and skin are one metal, yet brows and lips stay visible."""
    batch = portrait()
    light = to_oklab(edit("a bronze statue"))[:, :1]
    source = to_oklab(batch.source)[:, :1]
    hair, skin, brows = (batch.regions[name] > 0 for name in ("hair", "skin", "brows"))
    assert (light[skin].mean() - light[hair].mean()).abs() < 0.4 * (source[skin].mean() - source[hair].mean())
    assert light[brows].mean() < light[skin].mean() - 0.03


def test_two_colours_and_rainbow_vary_over_the_hair() -> None:
    hair = portrait().regions["hair"][:, 0] > 0
    hues = torch.atan2(*to_oklab(edit("rainbow hair")).permute(0, 2, 3, 1)[hair][:, 1:].unbind(1))
    assert hues.std() > 0.8
    halves = to_oklab(edit("red and blue hair"))[0, 2]
    mask = portrait().regions["hair"][0, 0] > 0
    upper, lower = mask.clone(), mask.clone()
    upper[SIZE // 3 :], lower[: SIZE // 3] = False, False
    assert halves[upper].mean() > halves[lower].mean() + 0.05


@pytest.mark.parametrize("look", ["black and white", "pencil sketch"])
def test_a_named_colour_lies_over_a_look_without_colours(look: str) -> None:
    edited = to_oklab(edit(f"{look} but red lips"))[:, 1:].square().sum(1, keepdim=True).sqrt()
    regions = portrait().regions
    assert float(edited[regions["lips"] > 0].mean()) > 0.12
    assert float(edited[regions["skin"] > 0].mean()) < 0.03


def test_empty_picture_without_a_person() -> None:
    """The clean plate goes through the same editor: no person, no mesh, no regions."""
    picture = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    for instruction in (
        "pencil sketch",
        "lego",
        "mosaic",
        "sunset",
        "oil painting",
        "blue background",
        "bronze statue",
        "clown",
        "neon",
    ):
        edited = BuiltinLooks(instruction).edit(EditBatch.of_background(picture))
        assert torch.isfinite(edited).all()
        assert torch.equal(edited, picture) == (instruction in ("bronze statue", "clown"))


def test_frames_of_a_batch_do_not_touch_each_other() -> None:
    single = portrait()
    other = portrait((8, 4))
    layers = {
        name: torch.cat([value, getattr(other, name)])
        for name, value in vars(single).items()
        if isinstance(value, Tensor)
    }
    regions = {name: torch.cat([mask, other.regions[name]]) for name, mask in single.regions.items()}
    both = dataclasses.replace(single, regions=regions, **layers)
    for instruction in ("bronze statue", "comic", "zombie", "film", "van gogh"):
        together = BuiltinLooks(instruction).edit(both)
        assert torch.allclose(together[:1], edit(instruction), atol=1e-4)


def test_two_threads() -> None:
    expected = edit("van gogh")
    results: list[Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(edit("van gogh"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(result, expected, atol=1e-4) for result in results)
    assert len(results) == 2


def test_says_whether_the_background_changes() -> None:
    assert BuiltinLooks("pencil sketch").edits_background
    assert not BuiltinLooks("pencil sketch but keep the background").edits_background
    assert not BuiltinLooks("bronze statue").edits_background


def test_errors() -> None:
    for instruction in ("", "!!!", "x" * 600):
        with pytest.raises(InputError):
            edit(instruction)
    with pytest.raises(CannotEdit):
        edit("add glasses")
    batch = portrait()
    bald = dataclasses.replace(batch, regions={name: mask for name, mask in batch.regions.items() if name != "hair"})
    with pytest.raises(CannotEdit, match="shows no hair"):
        BuiltinLooks("blue hair").edit(bald)


def test_oklab() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_oklab(to_oklab(image)), image, atol=2e-3)
    red = to_oklab(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    assert red.tolist() == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-4)  # Ottosson's reference value
    vivid = torch.tensor([0.7, 0.4, 0.3]).view(1, 3, 1, 1)
    assert to_oklab(from_oklab(vivid))[0, 0] == pytest.approx(
        0.7, abs=0.02
    )  # out of gamut: chroma gives way, not lightness
    grey, white = torch.full((1, 3, 1, 1), 0.2), torch.ones(1, 3, 1, 1)
    middle = to_oklab(blend(grey, white, 0.5))[:, 0]
    assert float(middle) == pytest.approx(float((to_oklab(grey) + to_oklab(white))[:, 0] / 2), abs=1e-3)


def test_masks_of_large_sets_have_no_seam() -> None:
    batch = portrait()
    assert torch.allclose(surface.region_mask(batch, PERSON), batch.alpha)
    assert float(surface.region_mask(batch, ("background", *PERSON)).min()) == 1


METALS = ("bronze", "copper", "gold", "silver", "chrome", "iron")


@pytest.mark.parametrize("name", METALS)
def test_features_stay_drawn_in_metal(name: str) -> None:
    """Brows, lips and the hair's outline are how a face is read: beside skin, most of their contrast stays."""
    batch = portrait()
    before, after = to_oklab(batch.source)[:, :1], to_oklab(edit(f"a {name} statue"))[:, :1]
    skin = batch.regions["skin"]
    kept = {}
    for feature in ("brows", "lips", "hair"):
        mask = batch.regions[feature]
        beside = torch.nn.functional.max_pool2d(mask, 17, 1, 8) * skin
        within = torch.nn.functional.max_pool2d(skin, 17, 1, 8) * mask
        old, new = (
            float((light * beside).sum() / beside.sum() - (light * within).sum() / within.sum())
            for light in (before, after)
        )
        kept[feature] = new / old
    assert min(kept.values()) > 0.45, kept


def opened(batch: EditBatch, width: float, height: float) -> tuple[EditBatch, torch.Tensor]:
    """The same with an open mouth of these half axes in pixels, and where it is."""
    y, x = torch.meshgrid(torch.arange(SIZE) - 0.62 * SIZE, torch.arange(SIZE) - 0.5 * SIZE, indexing="ij")
    mouth = ((x / width) ** 2 + (y / height) ** 2 < 1).float()[None, None]
    regions = {key: mask * (1 - mouth) for key, mask in batch.regions.items()} | {"mouth": mouth}
    source = torch.lerp(batch.source, torch.tensor([0.14, 0.05, 0.05]).view(1, 3, 1, 1).expand_as(batch.source), mouth)
    return dataclasses.replace(batch, source=source, regions=regions), mouth


@pytest.mark.parametrize("name", METALS)
def test_an_open_mouth_stays_dark_in_metal(name: str) -> None:
    batch, mouth = opened(portrait(), 14, 16)
    light = to_oklab(BuiltinLooks(f"a {name} statue").edit(batch))
    inside, around = (light[:, :1][mask > 0.5].median() for mask in (mouth, batch.regions["skin"]))
    assert float(inside) < 0.45 * float(around)


def test_no_patina_grows_within_the_mouth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        materials, "noise", lambda where, *_: torch.full_like(where[:, :1], 2.0)
    )  # all hollows weathered
    batch, mouth = opened(portrait(), 60, 40)
    green = to_oklab(BuiltinLooks("a bronze statue").edit(batch))[:, 1:2] < -0.01
    assert (green & (batch.alpha > 0.5) & (mouth < 0.5)).any()
    assert not (green & (mouth > 0.5)).any()
