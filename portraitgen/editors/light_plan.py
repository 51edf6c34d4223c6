"""From what clauses say about light to lamps with a place, a colour and a size."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ..errors import InputError
from .colour import to_linear
from .illumination import Colour, Light, blackbody
from .light_moods import MOODS, Lamp, Mood, Paint

ROLES = {  # angle, intensity, softness
    "rim": ((140.0, 25.0), 1.1, 0.15),
    "back": ((180.0, 30.0), 1.3, 0.25),
    "fill": ((35.0, 5.0), 0.30, 1.0),
    "side": ((-80.0, 12.0), 1.3, 0.2),
    "top": ((0.0, 75.0), 1.25, 0.3),
    "under": ((0.0, -60.0), 1.25, 0.25),
    "front": ((0.0, 15.0), 1.15, 0.3),
    "key": ((-45.0, 30.0), 1.3, 0.3),
}
SOFTNESS = {"soft": 0.75, "": 0.32, "hard": 0.02}
BRIGHTNESS = {"blinding": 1.5, "bright": 1.25, "": 1.0, "dim": 0.5}


@dataclass(frozen=True)
class Lighting:
    """The light that is wanted.

    Attributes:
        lights: the lamps, key light first.
        ambient: light from everywhere, linear RGB, where the clip's own averages 1.
        own: how much of the clip's own light stays, in [0, 1].
        contrast: of what stays of it.
        gain: what everything is multiplied by, linear RGB.
        backdrop: what the surroundings are multiplied by, linear RGB, or None to leave them alone.
        saturation: of all colours.
        caustics: whether ripples of light run over the person.
        understood: all this in plain English.
    """

    lights: tuple[Light, ...] = ()
    ambient: Colour = (0.0, 0.0, 0.0)
    own: float = 0.0
    contrast: float = 1.0
    gain: Colour = (1.0, 1.0, 1.0)
    backdrop: Colour | None = None
    saturation: float = 1.0
    caustics: bool = False
    understood: str = ""


@dataclass
class Clause:
    """What one clause says; empty where it says nothing.

    Attributes:
        text: what is left to read.
        across: -1 for the left of the picture, 1 for the right.
        up: 1 above, -1 below.
        depth: 1 in front, -1 behind.
        azimuth, elevation: exact angles in degrees, as in `light_moods`.
        dial: whether they were said as an hour on a dial.
        colours: each with its name, linear RGB.
        softness, brightness, role: keys of `SOFTNESS`, `BRIGHTNESS` and `ROLES`.
        moods: keys of `MOODS`.
        noun: whether it names light at all.
        both: whether it comes from both sides.
        rest: words that were not understood.
    """

    text: str
    across: int = 0
    up: float = 0.0
    depth: int = 0
    azimuth: float | None = None
    elevation: float | None = None
    dial: bool = False
    colours: list[tuple[str, Colour]] = field(default_factory=list)
    softness: str = ""
    brightness: str = ""
    role: str = ""
    moods: list[str] = field(default_factory=list)
    noun: bool = False
    both: bool = False
    rest: str = ""

    @property
    def placed(self) -> bool:
        return bool(self.across or self.up or self.depth or self.azimuth is not None or self.elevation is not None)

    @property
    def about_light(self) -> bool:
        return bool(self.placed or self.both or self.role or self.moods or self.noun)

    @property
    def says_something(self) -> bool:
        return bool(
            self.placed or self.both or self.role or self.moods or self.colours or self.softness or self.brightness
        )

    def take(self, pattern: str | re.Pattern[str]) -> re.Match[str] | None:
        """Find ``pattern`` (whole words) and cut it out of the text."""
        found = re.search(pattern if isinstance(pattern, re.Pattern) else rf"\b(?:{pattern})\b", self.text)
        if found:
            self.text = f"{self.text[: found.start()]} {self.text[found.end() :]}"
        return found


@functools.cache
def paint(value: Paint) -> Colour:
    """Linear RGB of a lamp's colour, in kelvin or hex; as bright to the eye as film makes it, never so pure that a channel goes out."""
    if isinstance(value, int):
        linear = blackbody(value)
    else:
        digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
        channels = torch.tensor([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        linear = tuple(to_linear(channels).tolist())
    top = max(*linear, 1e-3)
    grey = (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) / top
    red, green, blue = (0.965 * part / top / (0.55 + 0.45 * grey) + 0.035 for part in linear)
    return red, green, blue


def toward(azimuth: float, elevation: float) -> Colour:
    """The unit vector to a lamp at angles in degrees."""
    turn, lift = math.radians(azimuth), math.radians(elevation)
    return math.sin(turn) * math.cos(lift), -math.sin(lift), math.cos(turn) * math.cos(lift)


def lamp(angle: tuple[float, float], colour: Colour, intensity: float, softness: float) -> Light:
    direction = toward(*angle)
    return Light(direction, colour, intensity, softness, grazing=min(max(0.25 - 1.5 * direction[2], 0.0), 1.0))


def plan(clauses: Sequence[Clause], changes: Sequence[str]) -> Lighting:
    """The light of all ``clauses``, and of ``changes`` to it (brighter, warmer, …)."""
    clauses = [clause for clause in clauses if clause.says_something]
    times = list(dict.fromkeys(name for clause in clauses for name in clause.moods if MOODS[name].kind == "time"))
    if len(times) > 1 and "sunny day" in times and not {"night", "overcast"} & set(times):
        times.remove("sunny day")  # "the warm sun of golden hour"
        for clause in clauses:
            clause.moods = [name for name in clause.moods if name != "sunny day"]
    if len(times) > 1:
        raise InputError(f"It cannot be {times[0]} and {times[1]} at once. Choose one of them.")
    loose = [
        clause
        for clause in clauses
        if clause.colours and not (clause.placed or clause.role or clause.moods or clause.both)
    ]
    if len(loose) == 2:
        loose[0].across, loose[1].across = -1, 1
    named = [clause for clause in clauses if clause.moods]
    plain = [clause for clause in clauses if not clause.moods]
    lights: list[Light] = []
    said: list[str] = []
    for number, clause in enumerate(clauses):
        later = [other for other in clauses[number + 1 :] if other in plain and other.colours and other.placed]
        if clause.moods:
            if clause.colours and clause.placed and later:  # "neon: pink from the left, cyan from the right"
                found = _plain(clause)
            else:
                found = _named(clause, alone=len(named) == 1)
                if any(other.role in ("rim", "back") for other in clauses):
                    found = [light for light in found if light.direction[2] > -0.3] or found
            said.append(_describe(clause, found))
        else:
            found = _plain(clause, lights)
            said.append(_describe(clause, found))
        lights += found
    moods = [_mood(clause) for clause in named]
    lighting = Lighting(tuple(lights), _ambient(clauses, moods, lights), own=0.0 if clauses else 1.0)
    if moods:
        backdrops = [mood.backdrop for mood in moods if mood.backdrop is not None]
        mixed = tuple(sum(parts) / len(parts) for parts in zip(*backdrops, strict=True)) if backdrops else None
        lighting = replace(
            lighting,
            backdrop=mixed,
            saturation=min(mood.saturation for mood in moods),
            caustics=any(mood.caustics for mood in moods),
        )
    for change in changes:
        lighting = _changed(lighting, change)
    return replace(lighting, understood="; ".join([*dict.fromkeys(said), *changes]))


def _changed(lighting: Lighting, change: str) -> Lighting:
    factors = {
        "brighter": (1.5, 1.5, 1.5),
        "darker": (0.5, 0.5, 0.5),
        "warmer": (1.16, 1.0, 0.74),
        "cooler": (0.86, 1.0, 1.22),
    }
    if change in factors:
        red, green, blue = (a * b for a, b in zip(lighting.gain, factors[change], strict=True))
        backdrop = lighting.backdrop
        return replace(lighting, gain=(red, green, blue), backdrop=backdrop)
    more = change == "more contrast"
    red, green, blue = (part * (0.5 if more else 1.8) for part in lighting.ambient)
    return replace(lighting, contrast=1.9 if more else 0.25, ambient=(red, green, blue))


def _mood(clause: Clause) -> Mood:
    """The clause's mood; of a place and a pattern together, the place's colours on the pattern's lamps."""
    kinds = {MOODS[name].kind == "pattern": MOODS[name] for name in reversed(clause.moods)}
    if len(kinds) < 2:
        return MOODS[clause.moods[0]]
    pattern, place = kinds[True], kinds[False]
    colours = [paints for _, paints, *_ in place.lamps]
    lamps = tuple(
        (angle, colours[min(number, len(colours) - 1)], intensity, softness)
        for number, (angle, _, intensity, softness) in enumerate(pattern.lamps)
    )
    return place._replace(lamps=lamps or place.lamps, fill=(place.fill[0], max(place.fill[1], 0.6 * pattern.fill[1])))


def _named(clause: Clause, alone: bool) -> list[Light]:
    """The lamps of a mood, moved, painted, softened and dimmed as the clause says."""
    mood = _mood(clause)
    lamps: list[Lamp] = list(mood.lamps if alone else mood.lamps[:1])
    if not lamps:
        return []
    if clause.role in ("rim", "back") and not clause.placed:
        clause.depth = -1
    if clause.placed:
        lamps = _moved(lamps, clause)
        if len(clause.colours) == 1 and mood.kind != "pattern":  # one sign on that side, not one on each
            lamps = [lamps[0], *[other for other in lamps[1:] if abs(other[0][0]) > 100]]
    lights = []
    for number, (angle, colour, intensity, softness) in enumerate(lamps):
        tint = paint(colour)
        if clause.colours and (mood.kind != "pattern" or number == 0):
            tint = clause.colours[number % len(clause.colours)][1]
        size = {"soft": max(softness, 0.7), "": softness, "hard": min(softness, 0.04)}[clause.softness]
        lights.append(lamp(angle, tint, intensity * BRIGHTNESS[clause.brightness], size))
    return lights


def _moved(lamps: list[Lamp], clause: Clause) -> list[Lamp]:
    (azimuth, elevation), *rest = lamps[0]
    if clause.across and not (clause.up or clause.depth or clause.azimuth is not None or clause.elevation is not None):
        if azimuth * clause.across < 0:  # the same arrangement, mirrored
            lamps = [((-angle[0], angle[1]), *others) for angle, *others in lamps]  # type: ignore[misc]
            azimuth = -azimuth
        if abs(azimuth) < 35:
            azimuth, elevation = 55.0 * clause.across, max(min(elevation, 40.0), -25.0)
        return [((azimuth, elevation), *rest), *lamps[1:]]  # type: ignore[list-item]
    return [(_angle(clause), *rest), *[other for other in lamps[1:] if abs(other[0][0]) > 100]]  # type: ignore[list-item]


def _angle(clause: Clause, default: tuple[float, float] = (-42.0, 28.0)) -> tuple[float, float]:
    """Azimuth and elevation in degrees of what the clause says about the place."""
    if not clause.placed:
        return default
    side = clause.across
    up = max(-1.0, min(1.0, clause.up))
    azimuth = {-1: 140.0 if side else 180.0, 0: 70.0 - 22 * abs(up), 1: 30.0}[clause.depth] * (side or 1)
    if not side and clause.depth >= 0:
        azimuth = 0.0
    if clause.role in ("rim", "back") and side:
        azimuth = (125.0 if up <= 0 else 140.0) * side
    elevation = 12.0 if side else 15.0
    if clause.depth < 0 or clause.role in ("rim", "back"):
        elevation = 25.0
    if up:
        sideways = side or clause.depth
        elevation = up * ((48.0 if sideways else 72.0) if up > 0 else (42.0 if sideways else 60.0))
    if clause.role in ("rim", "back") and not side:
        azimuth = 180.0
    return (
        azimuth if clause.azimuth is None else clause.azimuth,
        elevation if clause.elevation is None else clause.elevation,
    )


def _plain(clause: Clause, before: Sequence[Light] = ()) -> list[Light]:
    """The lamps of a clause without a mood: one, or one for each of several colours."""
    angle, intensity, softness = ROLES.get(clause.role, (_angle(clause), 1.3, SOFTNESS[""]))
    if clause.placed:
        angle = _angle(clause)
        if clause.role in ("fill", "key") and clause.across and not clause.up:
            angle = (abs(ROLES[clause.role][0][0]) * clause.across, ROLES[clause.role][0][1])
    elif clause.role in ("fill", "rim") and before and before[0].direction[0] > 0.1:
        angle = (-angle[0], angle[1])  # opposite the key light
    if clause.softness:
        softness = SOFTNESS[clause.softness]
    intensity *= BRIGHTNESS[clause.brightness]
    white = paint(5600)
    colours = [colour for _, colour in clause.colours] or [white]
    if clause.both or (len(colours) > 1 and not clause.placed):
        colours = colours * 2 if len(colours) == 1 else colours
        side = 130.0 if clause.role in ("rim", "back") or clause.depth < 0 else 68.0
        angles = [(-side, 12.0), (side, 12.0), (0.0, 70.0), (180.0, 30.0)]
        share = 0.85 if len(colours) == 2 else 0.7
        return [lamp(at, colour, intensity * share, softness) for at, colour in zip(angles, colours, strict=False)]
    red, green, blue = (sum(parts) / len(parts) for parts in zip(*colours, strict=True))
    if not clause.placed and not clause.role:  # light without a place is mostly everywhere
        intensity *= 0.72
    return [lamp(angle, (red, green, blue), intensity, softness)]


def _ambient(clauses: Sequence[Clause], moods: Sequence[Mood], lights: Sequence[Light]) -> Colour:
    """Light from everywhere: the moods', or what a room throws back of the lamps."""
    if moods:
        fills = [(paint(colour), level) for colour, level in (mood.fill for mood in moods)]
        dim = min(BRIGHTNESS[clause.brightness] for clause in clauses) ** 0.5
        red, green, blue = (dim * sum(colour[i] * level for colour, level in fills) / len(fills) for i in range(3))
        tints = [colour for clause in clauses if clause.moods for _, colour in clause.colours]
        if tints:
            level = sum(part for _, part in fills) / len(fills)
            red, green, blue = (
                0.3 * part + 0.7 * level * sum(tint[i] for tint in tints) / len(tints)
                for i, part in enumerate((red, green, blue))
            )
        return red, green, blue
    if not lights:
        return 0.0, 0.0, 0.0
    total = sum(light.intensity for light in lights)
    soft = sum(light.softness * light.intensity for light in lights) / total
    everywhere = 0.24 if not any(clause.placed or clause.role or clause.both for clause in clauses) else 0.0
    behind = min(light.grazing for light in lights)
    level = (0.075 + 0.24 * soft) * min(total, 1.3) / 1.3 + everywhere + 0.10 * behind
    mean = [sum(light.colour[i] * light.intensity for light in lights) / total for i in range(3)]
    red, green, blue = (level * (0.25 + 0.75 * part) for part in mean)
    return red, green, blue


def backdrop(lighting: Lighting) -> Colour:
    """How bright and of what colour surroundings are in this light, linear RGB."""
    lamps = [sum(light.colour[i] * light.intensity * 0.4 for light in lighting.lights) for i in range(3)]
    red, green, blue = (
        lighting.gain[i] * (lighting.own + (1 - lighting.own) * (0.8 * lighting.ambient[i] + lamps[i]))
        for i in range(3)
    )
    return red, green, blue


def place_words(light: Light) -> str:
    """Where a lamp is, in words."""
    x, y, z = light.direction
    elevation = math.degrees(math.asin(max(-1.0, min(1.0, -y))))
    azimuth = math.degrees(math.atan2(x, z))
    side = "left" if x < 0 else "right"
    if elevation > 58:
        return "from above"
    if elevation < -50:
        return "from below"
    if abs(azimuth) > 158:
        return "from behind"
    if abs(azimuth) > 105:
        return f"from behind on the {side}"
    height = "upper " if elevation > 32 else "lower " if elevation < -18 else ""
    if abs(azimuth) < 18:
        return {"upper ": "from the front, high", "lower ": "from the front, low", "": "from the front"}[height]
    return f"from the {height}{side}"


def _describe(clause: Clause, lights: Sequence[Light]) -> str:
    """One clause's light in plain English."""
    words = [clause.brightness, clause.softness, *[name for name, _ in clause.colours]]
    adjectives = ", ".join(word for word in words if word)
    if clause.moods:
        name = " and ".join(clause.moods)
        name = name if re.search(r"(light|lights|glow|hour|day)$", name) else f"{name} light"
        place = f" {place_words(lights[0])}" if lights and clause.placed else ""
        return f"{adjectives} {name}{place}".strip()
    noun = f"{clause.role} light" if clause.role else "light"
    places = list(dict.fromkeys(place_words(light) for light in lights))
    placed = clause.placed or clause.both or clause.role or len(lights) > 1
    return f"{adjectives} {noun} {' and '.join(places) if placed else ''}".strip()
