"""What the built-in editor can do: operations, their names in plain English, the characters made of them, and one example of each."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import lexicon


@dataclass(frozen=True)
class Operation:
    """One step of a plan.

    Attributes:
        regions: names out of ``lexicon.EVERYTHING``, in that order.
        kind: colour, adjustment, material, look, style, mood or effect.
        name: which one, for example "bronze"; a style's is its number.
        parameters: for a colour ``rgb`` (sRGB in 0..1), optional ``rgb2`` (the other end of a gradient), ``amount`` (0..1) and ``whole``
            (the whole eye, not its iris alone).
    """

    regions: tuple[str, ...]
    kind: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def colour(regions: tuple[str, ...], name: str, shade: str = "", **parameters: Any) -> Operation:
    """A recolouring; ``name`` is a known colour or #rrggbb, ``shade`` some of dark, light, pale, bright joined with "+"."""
    if name.startswith("#"):
        red, green, blue = (int(name[place : place + 2], 16) / 255 for place in (1, 3, 5))
    else:
        red, green, blue = lexicon.colours()[lexicon.join(name)]
    for part in filter(None, shade.split("+")):
        red, green, blue = _shaded((red, green, blue), part)
    title = f"{shade.replace('+', ' ')} {_spaced(name)}".strip()
    return Operation(regions, "colour", title, {"rgb": (red, green, blue), **parameters})


def _shaded(rgb: tuple[float, float, float], shade: str) -> tuple[float, float, float]:
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    if shade == "dark":
        lightness *= 0.55
    elif shade == "light":
        lightness += (1 - lightness) * 0.4
    elif shade == "pale":
        lightness, saturation = lightness + (1 - lightness) * 0.55, saturation * 0.7
    else:
        lightness, saturation = lightness + (0.55 - lightness) * 0.5, min(1.0, saturation * 1.3 + 0.1)
    return colorsys.hls_to_rgb(hue, lightness, saturation if rgb[0] != rgb[1] or rgb[1] != rgb[2] else 0.0)


@functools.cache
def _spacings() -> Mapping[str, str]:
    names = {**lexicon.EXTRA_COLOURS, **lexicon.HAIR_COLOURS}
    return {lexicon.join(name): name for name in names}


def _spaced(name: str) -> str:
    """A colour's name as people write it: darkblue becomes dark blue."""
    if name in _spacings():
        return _spacings()[name]
    for prefix in ("dark", "light", "medium", "deep", "hot", "pale"):
        if name.startswith(prefix) and name[len(prefix) :] in lexicon.colours():
            return f"{prefix} {name[len(prefix) :]}"
    return name


def _effect(name: str, region: str = "skin") -> Operation:
    return Operation((region,), "effect", name)


def _adjust(regions: tuple[str, ...], name: str) -> Operation:
    return Operation(regions, "adjustment", name)


MAKE_UP = ("eye shadow", "blusher", "make-up", "gloss", "silver fox")


@functools.cache
def _characters() -> Mapping[str, tuple[Operation, ...]]:
    hair, skin, lips, eyes, brows = ("hair",), ("skin",), ("lips",), ("eyes",), ("brows",)
    return {
        "zombie": (
            colour(skin, "#7f8f6c", amount=0.85), colour(lips, "#4a4048", amount=0.8), colour(eyes, "#d9d6a8",
                whole=True, amount=0.85),
            colour(("teeth",), "#b3a05a", amount=0.7), _effect("decay"), _effect("dark eye sockets"), _adjust(hair,
                "muted"), _adjust(("clothes",), "muted"),
        ),
        "vampire": (
            colour(skin, "#dcd6da", amount=0.75), colour(lips, "#8a0a18", amount=0.95), colour(eyes, "#c41212",
                amount=0.95),
            _effect("dark eye sockets"), colour(hair, "#0d0c10", amount=0.9), colour(brows, "#16121a", amount=0.5),
        ),
        "clown": (
            colour(skin, "#f4f1ee", amount=0.88), _effect("clown mouth"), colour(lips, "#d0101c"),
                _effect("clown eyes"), _effect("red nose"),
            Operation(hair, "colour", "orange red", {"rgb": (0.95, 0.27, 0.05)}),
        ),
        "joker": (
            colour(skin, "#efece8", amount=0.88), _effect("clown mouth"), colour(lips, "#b00d18"),
                _effect("dark eye sockets"),
            colour(hair, "#3c8a3a"), colour(brows, "#2f4a2c", amount=0.7), colour(("clothes",), "#4b1d78"),
        ),
        "ghost": (
            colour(skin, "#cfdce6", amount=0.85), colour(hair, "#e2ebf2", amount=0.85), colour(lips, "#9fb0c0", amount=0.85),
            colour(brows, "#c0ccd8", amount=0.85), colour(("clothes",), "#c9d6e2", amount=0.85),
            colour(eyes, "#dff2ff", whole=True, amount=0.8), _effect("pale glow"),
        ),
        "alien": (colour(skin, "#6fae4a"), colour(lips, "#4d7f38"), colour(eyes, "#101512", whole=True, amount=0.8),
            colour(brows, "#3c5c2a", amount=0.8)),
        "hulk": (colour(skin, "#4f9140"), colour(lips, "#3f7434"), colour(hair, "#12180f"), colour(brows, "#1c2a18", amount=0.55),
            colour(("clothes",), "#5a2a86")),
        "blue alien": (colour(skin, "#3f78c8"), colour(lips, "#34509c"), colour(eyes, "#e8c530"), colour(brows,
            "#1d2f62", amount=0.8)),
        "devil": (colour(skin, "#b01a12"), colour(lips, "#4e0606"), colour(eyes, "#f2c014", whole=True),
            _effect("dark eye sockets"), colour(hair, "#120a0a")),
        "mime": (colour(skin, "#f6f4f2", amount=0.9), colour(lips, "#b80f1e"), _effect("eye shadow")),
        "goth": (colour(skin, "#ded8da", amount=0.6), colour(lips, "#150a12"), _effect("eye shadow"), colour(hair,
            "#0b0a0e"), colour(("clothes",), "#121114")),
        "elf": (colour(skin, "#f3e2d6", amount=0.5), colour(hair, "#ece4cf"), colour(brows, "#a08a66", amount=0.7),
            colour(eyes, "#58b8d8"),
            _effect("pale glow")),
        "simpsons": (colour(skin, "#fbd02c", amount=1.0), colour(lips, "#c9962a", amount=0.6), colour(brows, "#3a2a16", amount=0.7),
            Operation(lexicon.EVERYTHING, "look", "cartoon")),
        "silver fox": (colour(hair, "#b4b7bb"), colour(brows, "#8e9094", amount=0.8)),
        "rainbow": (Operation(hair, "colour", "rainbow", {"rgb": (0.9, 0.2, 0.3), "rainbow": True}),),
        "eye shadow": (_effect("eye shadow"),),
        "blusher": (_effect("rosy cheeks"),),
        "make-up": (_effect("eye shadow"), _effect("rosy cheeks"), colour(lips, "#b5122a", amount=0.85)),
        "gloss": (_effect("gloss", "lips"),),
    }  # fmt: skip


def character(name: str, named: tuple[str, ...]) -> list[Operation]:
    """The operations of a character or make-up; with named regions only what it does there (a rainbow goes anywhere)."""
    operations = list(_characters()[name])
    if name == "rainbow":
        return [Operation(named or ("hair",), "colour", "rainbow", operations[0].parameters)]
    here = [operation for operation in operations if set(operation.regions) & set(named)] or operations
    if name in MAKE_UP and not any(operation.name.startswith("#") for operation in here):
        return here
    return [Operation(one.regions, one.kind, one.name, {**one.parameters, "character": name}) for one in here]


def title(kind: str, name: str) -> str:
    """An operation in plain English."""
    if kind == "style":
        return f"painting style {name} ({lexicon.STYLES[int(name)][0]})"
    if kind == "colour" and "#" in name:
        return f"the colour {name}"
    return {"mood": f"{name} light" if not name.endswith("light") else name}.get(kind, name)


EXAMPLE_MOODS = {
    "night": "Make it night", "moonlight": "Put her in moonlight", "sunset": "Light it like a sunset",
        "golden hour": "Golden hour light",
    "candlelight": "Light her by candlelight", "sunny": "A sunny day", "overcast": "An overcast, foggy day",
        "winter": "A snowy winter day",
    "underwater": "Make it look underwater", "blue hour": "Twilight, blue hour",
        "red light": "Red light, like a darkroom",
    "green light": "Green light, like the Matrix", "purple light": "Purple disco light",
        "dramatic": "Dramatic lighting",
    "horror": "Make it a horror movie", "studio": "Soft studio light", "warm light": "Cosy warm light",
        "cool light": "Cool light",
}  # fmt: skip
EXAMPLE_LOOKS = {
    "blur": "Blur the background", "film": "Make it look like an old film", "poster": "Make it a flat poster",
        "blocks": "Turn him into Lego style",
    "3d cartoon": "Turn her into a Pixar character", "neon": "Cyberpunk neon lights",
        "thermal": "Seen by a thermal camera",
    "night vision": "Seen through night vision goggles", "hologram": "Turn him into a hologram",
        "negative": "Make it a photo negative",
    "dream": "Make it dreamy", "ink": "Make it a pen and ink drawing", "pencil": "Make it a pencil sketch",
        "oil": "Make it an oil painting",
    "sepia": "Make it a sepia old photograph", "noir": "Make it film noir",
}  # fmt: skip
EXAMPLE_COLOURS = (
    ("Give her blue hair", "blue hair"), ("Make the hair platinum blonde", "blonde hair"), ("Give him grey hair",
        "grey hair"),
    ("Rainbow hair", "rainbow hair"), ("Make her lips red", "red lipstick"), ("Make the eyes green", "green eyes"),
        ("Make his skin blue", "blue skin"),
    ("Tan the skin", "tanned skin"), ("Make her skin paler", "pale skin"), ("Put her in a red dress", "red clothes"),
    ("Give him a black jacket", "black clothes"), ("Make the background dark blue", "dark blue background"),
    ("Make the background white", "plain white background"), ("Make the background darker", "darker background"),
    ("Make everything more colourful", "vivid colours"), ("Make everything warmer", "warm colours"),
)  # fmt: skip


@functools.cache
def capabilities() -> tuple[Mapping[str, str], ...]:
    """Everything that the built-in editor can do, as ``name``, ``group`` and ``example`` (an instruction that does it)."""
    rows = [(name, "Colour", example) for example, name in EXAMPLE_COLOURS]
    for name in lexicon.MATERIALS:
        noun = "a glass sculpture" if name == "glass" else f"{'an' if name[0] in 'aeiou' else 'a'} {name} statue"
        rows.append((name, "Material", f"Turn her into {noun}"))
    for name in lexicon.LOOKS:
        rows.append(
            (
                name,
                "Look",
                EXAMPLE_LOOKS.get(name, f"Make it {name}" if name == "black and white" else f"Turn it into {name}"),
            )
        )
    rows.extend((name, "Light", EXAMPLE_MOODS[name]) for name in lexicon.MOODS)
    for name in lexicon.CHARACTERS:
        if name in MAKE_UP:
            example = {
                "blusher": "Give her rosy cheeks",
                "gloss": "Glossy lips",
                "silver fox": "Make him a silver fox",
            }.get(name, f"Give her {name}")
            rows.append((name, "Make-up", example))
        elif name != "rainbow":
            wording = {
                "alien": "an alien",
                "elf": "an elf",
                "hulk": "the Hulk",
                "simpsons": "one of the Simpsons",
                "blue alien": "a Smurf",
                "goth": "a goth",
            }.get(name, f"a {name}")
            rows.append((name, "Character", f"Turn him into {wording}"))
    painters = {
        19: "Van Gogh", 12: "Monet", 21: "Picasso", 5: "Munch", 10: "Rembrandt", 24: "Hokusai", 7: "Matisse",
            4: "Seurat", 11: "Klimt",
        23: "Turner", 3: "Kandinsky", 17: "Mondrian", 2: "Renoir", 13: "Gauguin", 22: "Cezanne",
    }  # fmt: skip
    for number, (name, _) in lexicon.STYLES.items():
        example = f"In the style of {painters[number]}" if number in painters else f"Painting style {number}"
        rows.append((f"style {number}: {name}", "Painting style", example))
    return tuple({"name": name, "group": group, "example": example} for name, group, example in rows)


@functools.cache
def examples() -> tuple[str, ...]:
    """One example instruction of each capability."""
    return tuple(row["example"] for row in capabilities())
