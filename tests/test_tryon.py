"""The built-in try-on on bodies whose surface is known at every pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from portraitgen.body import LABELS
from portraitgen.editors import EditBatch
from portraitgen.editors.draping import SIDE, Registration
from portraitgen.editors.figure import NECK, SHOULDER
from portraitgen.editors.garment import read_garment
from portraitgen.editors.tryon import BuiltinTryOn

EXAMPLES = Path(__file__).parent.parent / "examples" / "garments"
SIZE = 256
OLD, SKIN, HAIR, WALL = (0.25, 0.35, 0.75), (0.80, 0.60, 0.50), (0.2, 0.12, 0.08), (0.75, 0.78, 0.75)
GARMENT = (0.16, 0.45, 0.25)
# turn (radians), pixels per metre, pixels to the right, pixels down: a person who leans, comes near and moves
POSES = ((0.0, 420.0, 0.0, 0.0), (0.14, 420.0, 12.0, 6.0), (-0.1, 480.0, -15.0, 4.0))


def pixel_of(rest: Tensor, pose: tuple[float, float, float, float]) -> Tensor:
    """Pixels (x, y) [N, 2] of points of the upright body [N, 2], metres."""
    turn, scale, right, down = pose
    rotation = torch.tensor([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], dtype=torch.float32)
    return scale * rest @ rotation + torch.tensor([SIZE / 2 + right, 0.48 * SIZE + down])


def person(poses: tuple = POSES, neckline: float = 0.03) -> EditBatch:
    """A flat person (a chest that is rounded in depth) in a plain top whose neckline is ``neckline`` metres below the neck's base."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    layers: dict[str, list[Tensor]] = {name: [] for name in ("rest", "parts", "normals", "skin", "hair", "clothes")}
    for turn, scale, right, down in poses:
        at = torch.stack([x - SIZE / 2 - right, y - 0.48 * SIZE - down], -1) / scale
        rotation = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], dtype=torch.float32)
        u, v = (at @ rotation).unbind(-1)
        face = (u / 0.075) ** 2 + ((v + 0.13) / 0.11) ** 2 < 1
        hair = ((u / 0.1) ** 2 + ((v + 0.15) / 0.14) ** 2 < 1) & ~face & (v < -0.08)
        hair |= (u > 0.07) & (u < 0.1) & (v > -0.2) & (v < 0.09)  # a strand before the shoulder
        neck = (u.abs() < 0.055) & (v > -0.08) & (v <= 0.0)
        torso = (u.abs() < 0.185) & (v > 0.25 * (u.abs() - 0.055).clamp_min(0))
        arms = (u.abs() >= 0.185) & (u.abs() < 0.26) & (v > 0.06)
        inside = face | neck | torso | arms
        part = torch.full_like(u, -1, dtype=torch.long)
        for name, mask in (("torso", torso), ("arms", arms), ("neck", neck), ("face", face)):
            part[mask] = LABELS.index(name)
        depth = -0.02 - 0.115 * (1 - (u / 0.19) ** 2).clamp_min(0).sqrt()
        layers["rest"].append(torch.where(inside, torch.stack([u, v, depth]), torch.nan))
        layers["parts"].append(part[None])
        layers["normals"].append(torch.stack([0 * u, 0 * u, -inside.float()]))
        top = (torso | arms) & (v > neckline * (1 - (u / 0.075) ** 2)) & ~hair
        layers["hair"].append(hair[None].float())
        layers["clothes"].append(top[None].float())
        layers["skin"].append((inside & ~top & ~hair)[None].float())
    stacked = {name: torch.stack(values) for name, values in layers.items()}
    regions = {name: stacked[name] for name in ("skin", "hair", "clothes")}
    alpha = sum(regions.values())
    regions["background"] = 1 - alpha
    colours = {"skin": SKIN, "hair": HAIR, "clothes": OLD, "background": WALL}
    source = sum(mask * torch.tensor(colours[name]).view(1, 3, 1, 1) for name, mask in regions.items())
    return EditBatch(
        source=source,
        rendered=source,
        alpha=alpha,
        regions=regions,
        normals=stacked["normals"],
        uv=torch.nan_to_num(stacked["rest"][:, :2], nan=torch.nan),
        positions=stacked["rest"],
        rest=stacked["rest"],
        parts=stacked["parts"],
    )


def plain_top(path: Path, neckline: float = 40.0) -> Path:
    """A cut-out photo of a plain green top with long sleeves; its neckline is ``neckline`` pixels deep."""
    half = [(45, 60), (110, 85), (190, 330), (155, 342), (102, 175), (105, 440)]
    line = [(45 * np.cos(a), 60 + neckline * np.sin(a)) for a in np.linspace(np.pi, 0, 30)]
    outline = [(256 + x, y) for x, y in [*line, *half[1:]]] + [(256 - x, y) for x, y in reversed(half[1:])]
    mask = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(mask, [np.rint(np.array(outline)).astype(np.int32)], 255)
    colour = np.full((512, 512, 3), np.rint(np.array(GARMENT)[::-1] * 255), np.uint8)
    cv2.imwrite(str(path), np.dstack([colour, mask]))
    return path


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> BuiltinTryOn:
    return BuiltinTryOn(plain_top(tmp_path_factory.mktemp("garment") / "top.png"))


@pytest.fixture(scope="module")
def jumper() -> BuiltinTryOn:
    return BuiltinTryOn(EXAMPLES / "striped_jumper.png")


def masked(batch: EditBatch, name: str, margin: int = 3) -> Tensor:
    """Where a region is solid, ``margin`` pixels from its border, [B, 1, H, W] bool."""
    size = 2 * margin + 1
    return -torch.nn.functional.max_pool2d(-batch.regions[name], size, 1, margin) > 0.99


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_it_says_what_it_understood(top: BuiltinTryOn, jumper: BuiltinTryOn) -> None:
    assert top.understood == "a green top with long sleeves"
    assert "striped" in jumper.understood


def test_neckline_and_shoulders_lie_on_the_body(tmp_path: Path) -> None:
    garment = read_garment(plain_top(tmp_path / "top.png"))
    registration = Registration(garment)
    for side, sign in enumerate((-1, 1)):
        body = torch.tensor([[sign * NECK, -0.004, -0.05], [sign * 0.99 * SHOULDER, 0.05, -0.03]])
        found = registration.places(body.T.view(1, 3, 1, 2))[0, :, 0].T.numpy()
        metre = registration.scale
        assert np.linalg.norm(found[0] - garment.neck[side]) < 0.01 * metre
        assert np.linalg.norm(found[1] - garment.shoulders[side]) < 0.02 * metre
    below = torch.tensor([0.0, 0.30, -0.13]).view(1, 3, 1, 1)
    assert abs(float(registration.places(below)[0, 0]) - 256) < 0.01 * registration.scale


def test_the_side_of_the_chest_is_the_side_of_the_garment(tmp_path: Path) -> None:
    garment = read_garment(plain_top(tmp_path / "top.png"))
    side = torch.tensor([0.165, 0.17, -0.02]).view(1, 3, 1, 1)
    place = Registration(garment).places(side)[0, 0].item()
    assert abs(place - garment.armpits[1, 0]) < 0.1 * Registration(garment).scale * SIDE


def test_the_pattern_sits_still_on_the_body(jumper: BuiltinTryOn) -> None:
    """The same points of the body have the same colour in all poses, and the pattern has something to compare."""
    edited = jumper.edit(person())
    grid = torch.cartesian_prod(torch.linspace(-0.14, 0.04, 40), torch.linspace(0.09, 0.24, 30))
    seen = []
    for picture, pose in zip(edited, POSES, strict=True):
        where = pixel_of(grid, pose) / SIZE * 2 - 1
        smooth = cv2.GaussianBlur(picture.permute(1, 2, 0).numpy(), (0, 0), 1.2)
        smooth = torch.from_numpy(smooth).permute(2, 0, 1)[None]
        seen.append(torch.nn.functional.grid_sample(smooth, where[None, None], align_corners=False)[0, :, 0])
    assert seen[0].std() > 0.1
    for other in seen[1:]:
        assert correlation(seen[0], other) > 0.97
        assert (seen[0] - other).abs().mean() < 0.035


def test_coordinates_do_not_depend_on_what_else_is_in_the_batch(jumper: BuiltinTryOn) -> None:
    batch = person()
    alone = jumper.edit(person(POSES[:1]))
    together = jumper.edit(batch)
    assert (alone[0] - together[0]).abs().mean() < 0.01
    one, several = batch.rest[:1], batch.rest
    assert torch.equal(
        torch.nan_to_num(jumper.registration.places(one)), torch.nan_to_num(jumper.registration.places(several)[:1])
    )


def test_hair_face_and_background_stay(top: BuiltinTryOn) -> None:
    batch = person()
    edited = top.edit(batch)
    for name in ("hair", "background"):
        inside = masked(batch, name).expand_as(edited)
        assert (edited - batch.source)[inside].abs().max() < 0.02
    face = (batch.parts == LABELS.index("face")).float()
    face = (-torch.nn.functional.max_pool2d(-face, 9, 1, 4) > 0).expand_as(edited)
    assert (edited - batch.source)[face].abs().max() < 0.02


def test_clothes_are_replaced_everywhere(top: BuiltinTryOn) -> None:
    batch = person(neckline=0.01)
    edited = top.edit(batch)
    inside = masked(batch, "clothes")
    green = (edited[:, 1:2] > edited[:, 2:] * 1.2) & (edited[:, 1:2] > edited[:, :1] * 1.2)
    skin = edited[:, :1] > edited[:, 2:] * 1.15
    assert (green | skin)[inside].float().mean() > 0.995
    assert green[inside].float().mean() > 0.9


def test_folds_are_taken_over(top: BuiltinTryOn) -> None:
    batch = person(POSES[:1])
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    folds = 1 + 0.12 * torch.sin(2 * torch.pi * (x + 0.4 * y) / 28)
    mask = batch.regions["clothes"]
    folded = replace(batch, source=batch.source * (1 - mask + mask * folds))
    edited = top.edit(folded) / top.edit(batch).clamp_min(0.02)
    inside = masked(batch, "clothes", 8)[0, 0] & (y > 0.62 * SIZE)
    assert correlation(edited[0, 1][inside], folds[inside]) > 0.8
    assert edited[0, 1][inside].std() > 0.3 * folds[inside].std()


@pytest.mark.parametrize(
    "colours", [(OLD, (0.85, 0.2, 0.15)), ((0.1, 0.1, 0.1), (0.9, 0.9, 0.9))], ids=["hue", "light"]
)
def test_old_print_does_not_shine_through(top: BuiltinTryOn, colours: tuple) -> None:
    batch = person(POSES[:1])
    stripes = (torch.arange(SIZE) // 9 % 2).float().expand(SIZE, SIZE)
    first, second = (torch.tensor(colour).view(1, 3, 1, 1) for colour in colours)
    mask = batch.regions["clothes"]
    printed = replace(batch, source=batch.source * (1 - mask) + mask * torch.lerp(first, second, stripes))
    edited = top.edit(printed)
    inside = masked(batch, "clothes", 8)[0, 0]
    light = edited[0].mean(0)
    assert abs(correlation(light[inside], stripes[inside])) < 0.15
    assert light[inside].std() < 0.06


def test_edges_keep_nothing_of_the_old_colour(top: BuiltinTryOn) -> None:
    """Pixels at the silhouette are mixed of the wall and of red clothes; afterwards of the wall and the green top."""
    batch = person(POSES[:1])
    colours = {"skin": SKIN, "hair": HAIR, "clothes": (0.9, 0.05, 0.05), "background": WALL}
    soft = {
        name: torch.nn.functional.avg_pool2d(mask, 3, 1, 1, count_include_pad=False)
        for name, mask in batch.regions.items()
    }
    source = sum(mask * torch.tensor(colours[name]).view(1, 3, 1, 1) for name, mask in soft.items())
    edited = top.edit(replace(batch, source=source, regions=soft, alpha=1 - soft["background"]))[0]
    edge = (soft["clothes"] * soft["background"])[0, 0] > 0.05
    edge &= (torch.arange(SIZE) > 0.6 * SIZE)[:, None]
    assert int(edge.sum()) > 40
    redness = (edited[0] - edited[1:].amax(0))[edge]
    before = (source[0, 0] - source[0, 1:].amax(0))[edge]
    assert before.max() > 0.3
    assert redness.max() < 0.12


def test_a_hand_before_the_chest_stays_in_front(top: BuiltinTryOn) -> None:
    batch = person(POSES[:1])
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    hand = (((x - 120) ** 2 + (y - 225) ** 2) < 18**2).float()[None, None]
    regions = batch.regions | {"skin": batch.regions["skin"] + hand, "clothes": batch.regions["clothes"] * (1 - hand)}
    source = batch.source * (1 - hand) + hand * torch.tensor(SKIN).view(1, 3, 1, 1)
    edited = top.edit(replace(batch, regions=regions, source=source))
    inside = ((((x - 120) ** 2 + (y - 225) ** 2) < 14**2)[None, None]).expand_as(edited)
    assert (edited - source)[inside].abs().max() < 0.03


def test_a_lower_neckline_shows_skin_and_a_higher_one_covers_it(tmp_path: Path) -> None:
    deep, high = (BuiltinTryOn(plain_top(tmp_path / f"{depth}.png", depth)) for depth in (110.0, 20.0))
    below = pixel_of(torch.tensor([[0.0, 0.06]]), POSES[0]).round().long()[0]
    old_high, old_low = person(POSES[:1], neckline=0.0), person(POSES[:1], neckline=0.12)
    bared = deep.edit(old_high)[0, :, below[1], below[0]]
    assert (bared - torch.tensor(SKIN)).abs().max() < 0.1
    covered = high.edit(old_low)[0, :, below[1], below[0]]
    assert covered[1] > 1.2 * covered[0]


def test_hair_with_a_trace_of_skin_in_it_stays_hair(tmp_path: Path) -> None:
    batch = person(POSES[:1], neckline=0.0)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    lock = (((x - SIZE // 2).abs() < 10) & ((y - 150).abs() < 14)).float()[None, None]  # of hair, before the chest
    trace = 1e-3 * lock
    regions = {name: mask * (1 - lock) for name, mask in batch.regions.items()}
    regions |= {"hair": regions["hair"] + lock - trace, "skin": regions["skin"] + trace}
    source = torch.lerp(batch.source, torch.tensor(HAIR).view(1, 3, 1, 1).expand_as(batch.source), lock)
    low = BuiltinTryOn(plain_top(tmp_path / "low.png", 120.0))
    edited = low.edit(replace(batch, source=source, regions=regions))
    assert float((edited - source).abs().amax(1, keepdim=True)[lock > 0].max()) < 0.02


def test_a_patch_of_skin_that_was_taken_for_clothes_is_dressed(top: BuiltinTryOn) -> None:
    batch = person(POSES[:1], neckline=0.12)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    patch = ((x - 0.5 * SIZE) ** 2 + (y - 0.62 * SIZE) ** 2 < 4**2).float()[None, None] * batch.regions["skin"]
    assert patch.sum() > 40
    skin, clothes = batch.regions["skin"] - patch, batch.regions["clothes"] + patch
    alone = top.edit(batch)
    dressed = top.edit(replace(batch, regions=batch.regions | {"skin": skin, "clothes": clothes}))
    assert float((alone - torch.tensor(GARMENT).view(1, 3, 1, 1)).abs().amax(1, keepdim=True)[patch > 0].max()) < 0.2
    assert float((dressed - alone).abs().amax(1, keepdim=True)[patch > 0].max()) < 0.1


def test_strength(top: BuiltinTryOn) -> None:
    batch = person(POSES[:1])
    assert torch.equal(top.edit(replace(batch, strength=0.0)), batch.source)
    full, half = top.edit(batch), top.edit(replace(batch, strength=0.5))
    assert (half - (full + batch.source) / 2).abs().max() < 1e-5


def test_nobody_and_somebody_without_clothes(top: BuiltinTryOn) -> None:
    empty = EditBatch.of_background(torch.rand(2, 3, 64, 96))
    assert torch.equal(top.edit(empty), empty.source)
    batch = person(POSES[:1])
    untracked = replace(batch, rest=torch.full_like(batch.rest, torch.nan), parts=torch.full_like(batch.parts, -1))
    assert torch.equal(top.edit(untracked), batch.source)


@pytest.mark.parametrize(
    "name", ["striped_jumper", "denim_jacket", "red_dress", "white_shirt", "hoodie", "mannequin_tee"]
)
def test_examples_dress_the_person(name: str) -> None:
    batch = person(POSES[:2])
    edited = BuiltinTryOn(EXAMPLES / f"{name}.png").edit(batch)
    assert edited.shape == batch.source.shape
    assert torch.isfinite(edited).all()
    assert 0 <= edited.min() <= edited.max() <= 1
    inside = masked(batch, "clothes").expand_as(edited)
    old = (edited - torch.tensor(OLD).view(1, 3, 1, 1)).abs().amax(1, keepdim=True).expand_as(edited)
    assert (old[inside] > 0.1).float().mean() > 0.9


def test_bared_skin_is_as_uneven_as_the_neck(tmp_path: Path) -> None:
    """Not a flat tone: pores as on the neck, collar bones and the hollow between them; and they stay on the body."""
    deep = BuiltinTryOn(plain_top(tmp_path / "deep.png", 150.0))
    batch = person(POSES, neckline=0.0)
    grain = 0.03 * torch.randn(len(POSES), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    rough = replace(batch, source=(batch.source + grain * batch.regions["skin"]).clamp(0, 1))
    spread = []
    for source in (batch, rough):
        edited = deep.edit(source).mean(1, keepdim=True)
        fine = (edited - torch.nn.functional.avg_pool2d(edited, 5, 1, 2))[:1]
        x, y = pixel_of(torch.tensor([[-0.02, 0.05], [0.02, 0.09]]), POSES[0]).round().long().T.tolist()
        spread.append(float(fine[..., y[0] : y[1], x[0] : x[1]].std()))
    assert spread[1] > spread[0] + 0.004
    tones = []
    for pose, frame in zip(POSES, deep.edit(batch).mean(1), strict=True):
        spots = pixel_of(torch.tensor([[0.0, 0.052], [0.0, 0.085], [0.04, 0.0456], [0.04, 0.06]]), pose).round().long()
        tones.append([float(frame[y - 1 : y + 2, x - 1 : x + 2].mean()) for x, y in spots.tolist()])
    hollow, chest, bone, below = np.array(tones).T
    assert (hollow < chest - 0.02).all()
    assert (bone > below + 0.02).all()
