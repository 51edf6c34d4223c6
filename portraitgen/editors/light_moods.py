"""The words of light: named lights (times of day, weather, lamps, the patterns of portrait photographers) and what describes a lamp.

An angle is (azimuth, elevation) in degrees as the picture shows it: azimuth 0 is at the camera, -90 left of the picture, 180 behind the
person; elevation 90 is overhead. A colour is in kelvin or a hex string. A lamp is (angle, colour, intensity, softness).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Paint = int | str
Lamp = tuple[tuple[float, float], Paint, float, float]


class Mood(NamedTuple):
    """A named light.

    Attributes:
        words: how people call it, separated by bars, the plainest first.
        lamps: the key light first.
        fill: light from everywhere, colour and intensity.
        backdrop: what the surroundings are multiplied by, linear RGB; None leaves them alone unless the words ask.
        saturation: of all colours.
        kind: "time" for what excludes another time, "place" for a light with its surroundings, "pattern" for a placing of lamps.
        caustics: whether ripples of light run over everything.
    """

    words: str
    lamps: tuple[Lamp, ...]
    fill: tuple[Paint, float]
    backdrop: tuple[float, float, float] | None = None
    saturation: float = 1.0
    kind: str = "place"
    caustics: bool = False


MOODS: Mapping[str, Mood] = {
    "dawn": Mood("dawn|sunrise|daybreak|early morning|morning light|morning", (((-70, 8), 3300, 0.95, 0.45),
        ((110, 30), "#c3d0f2", 0.22, 0.8)), (5800, 0.26), (0.78, 0.68, 0.62), kind="time"),
    "noon": Mood("noon|midday|high noon|noon sun", (((15, 62), 5500, 1.30, 0.15),), (7500, 0.32), (1.10, 1.08, 1.0), 1.05,
        "time"),
    "sunny day": Mood("sunny|sunny day|sunlight|sunshine|daylight|bright day|direct sun|sun light|sun|summer", (((-40, 45),
        5000, 1.45, 0.08),), (8000, 0.30), (1.08, 1.05, 0.98), 1.08, "time"),
    "golden hour": Mood("golden hour|magic hour|golden sunlight|late sun|late afternoon|autumn|autumnal",
        (((-65, 14), 2900, 1.35, 0.30), ((140, 30), 2600, 0.8, 0.2)), ("#ffd6b0", 0.24), (1.0, 0.74, 0.48), 1.08, "time"),
    "sunset": Mood("sunset|sundown|setting sun|evening sun|evening light|evening", (((-72, 6), 2300, 1.45, 0.22), ((135, 20),
        2000, 0.6, 0.25)), (6800, 0.17), (0.92, 0.54, 0.31), 1.08, kind="time"),
    "blue hour": Mood("blue hour|dusk|twilight|after sunset", (((50, 50), "#6f9cff", 0.55, 0.9), ((-140, 15), 2600, 0.5,
        0.3)), ("#6a8cff", 0.26), (0.24, 0.34, 0.66), 0.85, "time"),
    "night": Mood("night|nighttime|night time|at night|midnight hour|nocturnal", (((-55, 45), "#7fa4ff", 0.50, 0.25), ((130,
        20), "#5f86ff", 0.35, 0.2)), ("#5070d0", 0.09), (0.07, 0.10, 0.22), 0.7, "time"),
    "moonlight": Mood("moonlight|moonlit|moon light|full moon|moonshine|moon|lunar", (((48, 42), "#8fb6ff", 0.80, 0.10),
        ((-140, 30), "#7fa8ff", 0.50, 0.15)), ("#4a70d8", 0.055), (0.07, 0.11, 0.25), 0.75),
    "overcast": Mood("overcast|cloudy|clouds|grey day|foggy|fog|misty|mist|rainy|rain|gloomy|hazy", (((0, 75), 6600, 0.45,
        1.0),), (6500, 0.55), (0.80, 0.84, 0.88), 0.75, "time"),
    "winter": Mood("winter|snow|snowy|wintry|wintery|arctic|icy|blizzard", (((-20, 60), 8000, 0.5, 0.9), ((0, -60), 8500,
        0.3, 1.0)), (8500, 0.48), (0.92, 1.0, 1.12), 0.8),
    "street light": Mood("street light|street lamp|streetlight|streetlamp|street lights|sodium|sodium light", (((20, 65),
        "#ffa245", 1.05, 0.15),), ("#40508a", 0.10), (0.22, 0.16, 0.12), 0.8),
    "window light": Mood("window light|light from a window|window|by the window|daylight window|north light|vermeer",
        (((-75, 15), 6000, 1.25, 0.62),), (6000, 0.16), kind="pattern"),
    "candlelight": Mood("candlelight|candle light|candlelit|candle lit|candles|candle|lantern|oil lamp", (((-22, -22), "#ffa552",
        1.25, 0.30),), ("#ff9a4a", 0.07), (0.16, 0.07, 0.03)),
    "firelight": Mood("firelight|fire light|campfire|camp fire|fireplace|by the fire|bonfire|torchlight|torch light|fire|"
        "flames|flame|lava|inferno|hell", (((18, -42), "#ff9440", 1.35, 0.45), ((-120, -15), "#ff7a30", 0.5, 0.3)), ("#ff8a40", 0.07),
        (0.20, 0.08, 0.03)),
    "underwater": Mood("underwater|under water|ocean|deep sea|submerged|under the sea|swimming pool|aquarium", (((5, 75),
        "#48d6e6", 0.9, 0.5),), ("#1f8fb0", 0.30), (0.05, 0.32, 0.42), 0.7, caustics=True),
    "neon": Mood("neon|neon lights|neon sign|neon signs|neon club|night club|nightclub|club lights|club|synthwave|vaporwave|"
        "80s", (((-68, 10), "#ff2fa8", 1.25, 0.25), ((68, 5), "#18c8ff", 1.15, 0.25), ((-140, 20), "#ff2fa8", 0.6, 0.2),
        ((140, 20), "#18c8ff", 0.6, 0.2)), ("#5a30b0", 0.12), (0.22, 0.08, 0.42), 0.9),
    "cyberpunk": Mood("cyberpunk|cyber punk|blade runner|bladerunner|tron|sci fi|scifi|science fiction|futuristic", (((62,
        25), "#10d8ff", 1.2, 0.15), ((-75, -5), "#ff1fb4", 1.1, 0.25), ((-140, 25), "#ff5a1f", 0.7, 0.15)), ("#2a3a9a",
        0.10), (0.08, 0.16, 0.34), 0.85),
    "disco": Mood("disco|party lights|party|disco lights|dance floor|rave|rainbow|multicoloured|multi coloured|colourful",
        (((-65, 20), "#ff2a5a", 1.1, 0.25), ((65, 15), "#2a6aff", 1.2, 0.25), ((0, 75), "#3cff7a", 0.6, 0.3), ((150, 25),
        "#ffd02a", 0.6, 0.2)), ("#7a3ac0", 0.10), (0.22, 0.10, 0.34), 0.95),
    "police lights": Mood("police lights|police light|police car|siren|emergency lights|ambulance", (((-75, 5), "#ff1420",
        1.4, 0.2), ((75, 5), "#1440ff", 1.5, 0.2)), ("#303a60", 0.10), (0.12, 0.08, 0.20), 0.8),
    "Christmas lights": Mood("christmas lights|christmas|fairy lights|christmas tree|xmas|xmas lights|string lights",
        (((0, 10), 2600, 0.55, 0.6), ((-72, 0), "#ff4030", 0.60, 0.40), ((72, 0), "#30c860", 0.42, 0.40), ((150, 30), 2300,
        0.6, 0.3)), (2600, 0.12), (0.36, 0.22, 0.12)),
    "TV glow": Mood("tv glow|television|tv|tv light|tv screen|glow of a screen|monitor|computer screen|laptop|screen glow|"
        "screen light|phone screen|phone|computer", (((-8, -18), "#82b4ff", 0.95, 0.55),), ("#4a62b0", 0.05), (0.09, 0.12,
        0.22), 0.85),
    "stage lights": Mood("stage lights|stage light|stage|concert|concert lights|theatre|theater|on stage", (((-25, 55), 3400,
        1.35, 0.08), ((140, 45), "#3a5aff", 1.1, 0.15), ((-140, 45), "#ff2a9a", 1.0, 0.15)), ("#40306a", 0.05), (0.12, 0.08,
        0.24)),
    "spotlight": Mood("spotlight|spot light|stage spotlight|spot|follow spot|interrogation", (((-14, 48), 4800, 1.40,
        0.08),), (5500, 0.06), (0.10, 0.10, 0.11)),
    "lightning": Mood("lightning|lightning flash|lightning strike|thunderstorm|storm|thunder", (((55, 50), 11000, 1.9, 0.0),
        ((-130, 35), 11000, 1.0, 0.1)), ("#6a86d8", 0.09), (0.26, 0.32, 0.50), 0.6),
    "horror": Mood("horror|horror movie|scary|creepy|spooky|haunted|halloween|campfire story|flashlight under the chin|"
        "flashlight under the face|torch under the chin|monster lighting|ghost story", (((8, -62), "#d8f0c4", 1.35, 0.10),),
        ("#5a7a80", 0.045), (0.10, 0.13, 0.13), 0.6),
    "film noir": Mood("film noir|noir|detective movie|1940s", (((-62, 35), 5500, 1.6, 0.02), ((145, 30), 5500, 0.7, 0.1)),
        (5500, 0.035), (0.28, 0.28, 0.29), 0.08),
    "matrix": Mood("matrix|the matrix|toxic|radioactive|alien", (((0, 60), "#5cff7a", 1.1, 0.3),), ("#2a8a48", 0.12), (0.08,
        0.28, 0.12), 0.6),
    "darkroom": Mood("darkroom|dark room|red alert|red alarm|submarine|alarm", (((-30, 50), "#ff1a10", 1.25, 0.4),),
        ("#ff2010", 0.12), (0.25, 0.02, 0.02), 0.6),
    "heavenly light": Mood("heavenly|heaven|divine|angelic|god rays|holy|halo", (((0, 75), 4800, 1.0, 0.5), ((180, 40),
        4300, 1.4, 0.5)), (5200, 0.42), (1.15, 1.08, 0.95)),
    "cinematic": Mood("cinematic|cinema|movie|film|hollywood|teal and orange|blockbuster", (((-58, 24), 4000, 1.3, 0.22),
        ((138, 28), "#3fa8d8", 0.95, 0.15)), ("#6fa0c8", 0.10), kind="pattern"),
    "dramatic": Mood("dramatic|low key|chiaroscuro|caravaggio|moody|baroque|intense contrast|high contrast", (((-68, 28),
        5000, 1.5, 0.12), ((150, 30), 5500, 0.35, 0.2)), (5200, 0.05), kind="pattern"),
    "Rembrandt": Mood("rembrandt|rembrandt light", (((-48, 42), 4700, 1.5, 0.14),), (4800, 0.08), kind="pattern"),
    "butterfly": Mood("butterfly|paramount|glamour|beauty dish|beauty|dietrich", (((0, 48), 5500, 1.3, 0.25),), (5500, 0.20),
        kind="pattern"),
    "split": Mood("split|split light|half lit|half light|half and half", (((-92, 4), 5500, 1.5, 0.10),), (5500, 0.035),
        kind="pattern"),
    "loop": Mood("loop|loop light", (((-32, 32), 5500, 1.3, 0.25),), (5500, 0.22), kind="pattern"),
    "clamshell": Mood("clamshell|clam shell", (((0, 38), 5500, 0.9, 0.6), ((0, -38), 5500, 0.45, 0.8)), (5500, 0.22),
        kind="pattern"),
    "studio": Mood("studio|studio light|studio lights|three point|3 point|three point light|portrait light|professional|"
        "headshot|flattering", (((-38, 28), 5400, 0.85, 0.55), ((50, 5), 5600, 0.25, 1.0), ((150, 35), 5600, 0.5, 0.3)),
        (5600, 0.26), kind="pattern"),
    "softbox": Mood("softbox|soft box|octabox|umbrella|large softbox", (((-45, 26), 5500, 1.15, 0.80),), (5500, 0.24),
        kind="pattern"),
    "ring light": Mood("ring light|ring flash|ringlight|influencer", (((0, 2), 5600, 0.95, 0.45),), (5600, 0.25),
        kind="pattern"),
    "high key": Mood("high key|bright and airy|airy", (((-20, 30), 5600, 0.75, 0.9),), (5700, 0.72), kind="pattern"),
    "flash": Mood("flash|camera flash|paparazzi|flash photo|on camera flash|snapshot|headlights|flashlight|torch", (((3, 8),
        5800, 1.5, 0.0),), (5500, 0.05), kind="pattern"),
    "flat light": Mood("flat|even|shadowless|ambient|no shadows|without shadows|without shadow|no shadow|uniform|all around|"
        "everywhere|all sides|every side|all directions", (), (5500, 1.0), kind="pattern"),
    "silhouette": Mood("silhouette|silhouetted|contre jour|eclipse", (((180, 20), 5200, 1.5, 0.2),), (5200, 0.03),
        kind="pattern"),
}  # fmt: skip

SOFT = {
    "soft": r"soft|softer|soften\w*|diffuse\w*|gentle|wide|broad|large|milky|smooth|softly|wrapping",
    "hard": r"hard|harsh|harder|harshly|sharp|crisp|direct|focused|narrow|undiffused|bare|pinpoint",
}
BRIGHT = {
    "blinding": r"blinding|extremely bright|glaring|very bright|very strong|intense|powerful",
    "bright": r"bright|strong|brightly|vivid|full",
    "dim": r"dim|faint|weak|subtle|slight|little|dimly|muted|low intensity|a bit of|touch of|hint of",
}
CHANGES = {
    "brighter": r"brighter|brighten\w*|lighter|lighten\w*|more light|more exposure|overexposed?|lit up|more brightness",
    "darker": r"darker|darken\w*|dimmer|less light|less exposure|underexposed?|less bright",
    "warmer": r"warmer|warm up|more warmth",
    "cooler": r"cooler|colder|cool down",
    "more contrast": r"more contrast|contrastier|harder shadows|deeper shadows|stronger shadows|darker shadows",
    "less contrast": r"less contrast|softer shadows|fewer shadows|less shadows?|lighter shadows|fill (?:in )?(?:the )?shadows|"
    r"soften (?:the )?shadows|remove (?:the )?shadows",
}
OPPOSITES = (("brighter", "darker"), ("warmer", "cooler"), ("more contrast", "less contrast"))
WARMTH: dict[str, tuple[str, int]] = {
    "warm": (r"(?:very )?warm|cosy|cozy|incandescent|tungsten|halogen", 3100),
    "cool": (r"cool|cold|icy blue|chilly|clinical", 8200),
    "white": (r"white|neutral|plain", 5600),
}
LAMP_COLOURS = {
    "ultraviolet": (r"black ?light|ultra ?violet|uv", "#5a1fff"),
    "fluorescent": (r"fluorescent|hospital|office", "#dcffe4"),
}
