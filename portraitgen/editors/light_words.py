"""From a sentence to lamps: direction, colour, softness, brightness, several lights, times of day and named moods.

A sentence is split into clauses, each of which may describe one lamp; what a clause leaves open it takes from its neighbours
("soft, warm light from the left", "red from the left and blue from the right"). Left and right are those of the picture unless the
words say whose.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import replace

from ..errors import InputError
from . import lexicon, tagging
from .illumination import Colour
from .languages import check_language
from .light_moods import BRIGHT, CHANGES, LAMP_COLOURS, MOODS, OPPOSITES, SOFT, WARMTH
from .light_plan import Clause, Lighting, backdrop, paint, plan

MAX_LENGTH = 400
EXAMPLE = "Describe the light, as in 'warm, soft light from the left'"

DARK = "Choose a colour that shines, or write 'darker' for less light."

# Words that make a clause one about light.
NOUNS = r"lights?|lighting|lit|relit|relight|illuminat\w*|glow\w*|lamps?|beams?|bulbs?|shine|shining|shines|rays?|gel|gels|leds?"
ROLES = {
    "rim": r"rim(?: light\w*)?|edge light\w*|kicker|hair light|accent light",
    "back": r"back ?light(?:s|ing)?|back ?lit|lit from behind",
    "fill": r"fill(?: light)?",
    "side": r"side ?light(?:s|ing)?|side ?lit",
    "top": r"top ?light(?:s|ing)?|top ?lit|down ?lights?",
    "under": r"under ?light(?:s|ing)?|under ?lit|up ?light(?:s|ing)?|foot ?lights?",
    "front": r"front ?light(?:s|ing)?|front ?lit",
    "key": r"key(?: light)?|main light",
}
ADVERBS = re.compile(
    r"\b(?:right|just|straight|directly) (?=above|behind|below|under|over|overhead|in front|in the middle)"
)
BENEATH = re.compile(r"\b(?:under|beneath|below) (?=(?:an?|some|the) (?!chin|face|sea|water|head))")  # "under a lamp"
OWN = re.compile(
    r"\b(?:his|her|their|my|its|persons?|subjects?|womans?|mans?|models?|girls?|guys?|stage)(?: own)? (left|right)\b"
)
PICTURE = re.compile(r"\b(?:camera|screen|picture|frame|viewers?|image|photo)(?: s)? (left|right)\b")
SHADOW = re.compile(
    r"\b(?:(?:shadows?|dark|darkness|shade) (?:on|over|to|at|in)(?: the)? (left|right)|(left|right) (?:side|half|cheek)?"
    r"(?: of (?:the|his|her|their) (?:face|picture))? ?(?:in (?:the )?(?:shadow|shade|dark)\w*|dark|shadowed|shaded))\b"
)
WHERE = {
    "left": r"left|leftwards?",
    "right": r"right|rightwards?",
    "above": r"above|overhead|top|up|upper|ceiling|sky|over|upwards?|down on|downwards?",
    "high": r"high|higher|raised",
    "below": r"below|under|underneath|beneath|bottom|lower|floor|ground|chin",
    "low": r"low",
    "behind": r"behind|back|rear",
    "front": r"front|frontal|head on|face on|straight on|camera",
}
ALL = re.compile(
    r"\b(?:(?:and |with |in |on |of |to )*(?:the )?(?:back ?ground|surroundings|(?<!dark )room|wall|"
    r"(?:whole|entire) (?:scene|picture|image|frame)|everything|environment)(?: too| as well| also)?)\b"
)
NOT_ALL = re.compile(
    r"\b(?:(?:but )?(?:not|without|except|keep(?:ing)?|leave|leaving|preserve|dont change|do not change)(?: relighting| changing)?"
    r"(?: (?:the|in|on))* (?:back ?ground|surroundings|room|scene)(?: (?:unchanged|as it is|alone|the same|as is))?"
    r"|(?:just|only) (?:the person|him|her|them|the face))\b"
)
FILLER = re.compile(
    r"\b(?:a|an|the|of|from|in|on|at|to|with|it|is|are|be|make|made|makes|give|add|put|please|him|her|his|she|he|them|their|my|me|this|that|as|if|by|"
    r"through|side|sides|hand|corner|angle|angled|coming|comes|falling|falls|placed|person|face|subject|man|woman|girl|scene|set|look|looks|looking|like|"
    r"style|effect|mood|time|colou?r|colou?red|tone|toned|tint|tinted|source|during|into|there|should|want|would|some|one|two|three|very|really|quite|more|"
    r"bit|slightly|picture|photo|image|clip|video|portrait|shadows?|shade|cast|half|other|another|opposite|turn|change|relight|sun|day|under|hit|hitting|"
    r"his|its|s|where|which|only|just|behind|own|lens|neutral|same|both|temperature|degrees?|o|clock|position|second|first|using|use|was|were|camera|so|"
    r"looks|then|for|nice|beautiful|pretty|realistic|cool|atmosphere|ambience|ambiance|vibe|feeling|type|kind|shot|photography)\b"
)


@functools.lru_cache(maxsize=256)
def parse_light(text: str) -> Lighting:
    """The light that ``text`` asks for. Raises InputError when there is none in it, too much text, or a contradiction."""
    line = _clean(text)
    wide, narrow = names_surroundings(line), bool(NOT_ALL.search(line))
    line = ALL.sub(" ", NOT_ALL.sub(" ", line))
    changes = _changes(line)
    for pattern in CHANGES.values():
        line = re.sub(rf"\b(?:{pattern})\b", " ", line)
    clauses = _merged([_read(part) for part in _split(line)])
    missed = [clause.rest for clause in clauses if clause.rest]
    clauses = [clause for clause in clauses if clause.about_light or (clause.colours and not clause.rest)]
    clauses = [clause for clause in clauses if clause.says_something]
    if not clauses and not changes:
        shown = text.strip() if len(text.strip()) < 60 else text.strip()[:57] + "…"
        raise InputError(f"There is no light in {' '.join(shown.split())!r}. {EXAMPLE}.")
    lighting = plan(clauses, changes)
    if wide and lighting.backdrop is None:
        lighting = replace(lighting, backdrop=backdrop(lighting))
    if narrow:
        lighting = replace(lighting, backdrop=None)
    notes = [lighting.understood]
    if lighting.backdrop is not None:
        level = sum(lighting.backdrop) / 3
        notes.append(f"{'dark' if level < 0.2 else 'dim' if level < 0.6 else 'matching'} surroundings")
    if missed:
        notes.append("not understood: " + ", ".join(f"'{words}'" for words in missed))
    return replace(lighting, understood="; ".join(note for note in notes if note))


def names_surroundings(line: str) -> bool:
    """Whether words in lower case ask for light on what is behind the person as well."""
    return bool(ALL.search(line)) and not NOT_ALL.search(line)


def _clean(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"The light is not described. {EXAMPLE}.")
    if len(text) > MAX_LENGTH:
        raise InputError(f"The description of the light has {len(text)} characters. Write at most {MAX_LENGTH}.")
    if re.search(r"</?[A-Za-z!][^>]*>|[{}\\]", text):
        raise InputError(f"The description of the light has markup in it. {EXAMPLE}.")
    line = tagging.plain(text)
    if not any(character.isalnum() for character in line):
        raise InputError(f"The description of the light has no words. {EXAMPLE}.")
    try:
        check_language(line)
    except InputError:
        raise InputError(f"The built-in relighting reads English only. {EXAMPLE}.") from None
    line = line.lower()
    for pattern, replacement in tagging.SPELLING:
        line = pattern.sub(replacement, line)
    return re.sub(r"[-_'’\"“”()\[\]!?*]", " ", line).replace("colour ed", "coloured")


def _changes(line: str) -> list[str]:
    changes = [name for name, pattern in CHANGES.items() if re.search(rf"\b(?:{pattern})\b", line)]
    for one, other in OPPOSITES:
        if one in changes and other in changes:
            raise InputError(f"The light cannot be {one} and {other} at once. Choose one of them.")
    return changes


def _split(line: str) -> list[str]:
    line = re.sub(r"(\d)[.,](?=\d{3}\b)", r"\1", line)  # 3,200 K
    line = re.sub(r"\b(black) and (white)\b", "", line)
    parts = re.split(
        r"\s*(?:[,;:.+&/]|\band\b|\bbut\b|\bplus\b|\bwith\b|\bwhile\b|\bthen\b|\balso\b)\s*", _joined(line)
    )
    return [part for part in (part.strip() for part in parts) if part]


def _joined(line: str) -> str:
    """Names that hold a joiner, without it."""
    for name in sorted(
        (words for mood in MOODS.values() for words in mood.words.split("|") if " and " in words), key=len
    ):
        line = re.sub(rf"\b{name}\b", name.replace(" and ", " "), line)
    return line


@functools.cache
def _mood_words() -> tuple[tuple[str, str], ...]:
    """Every phrase that names a mood, longest first, with the mood."""
    pairs = [(words.replace(" and ", " "), name) for name, mood in MOODS.items() for words in mood.words.split("|")]
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def _read(text: str) -> Clause:
    """Sort the words of one clause."""
    clause = Clause(BENEATH.sub("", ADVERBS.sub("", text)))
    if re.search(r"\b(?:no|not|without|dont|never|avoid)\b", clause.text) and not re.search(r"\bshadow", clause.text):
        raise InputError(f"'{text}' says what the light is not. {EXAMPLE}.")
    clause.both = bool(clause.take(r"(?:from )?(?:both|two|either) sides?|left right"))
    _read_moods(clause, several=True)
    _read_place(clause)
    _read_colours(clause)
    for role, pattern in ROLES.items():
        if not clause.role and clause.take(pattern):
            clause.role = role
            clause.noun = True
    _read_moods(clause, several=False)
    for words, pattern in SOFT.items():
        if clause.take(pattern):
            if clause.softness and clause.softness != words:
                raise InputError("One light cannot be soft and hard at once. Choose one of them.")
            clause.softness = words
    for words, pattern in BRIGHT.items():
        if clause.take(pattern):
            if clause.brightness and (clause.brightness == "dim") != (words == "dim"):
                raise InputError("One light cannot be bright and dim at once. Choose one of them.")
            clause.brightness = clause.brightness or words
    _read_where(clause)
    while clause.take(NOUNS):
        clause.noun = True
    clause.rest = " ".join(FILLER.sub(" ", clause.text).split())
    return clause


def _read_moods(clause: Clause, several: bool) -> None:
    """Moods whose names have ``several`` words, before those words are taken for something else, or only one."""
    for words, name in _mood_words():
        if (" " in words) == several and name not in clause.moods and clause.take(rf"{words}(?: light(?:s|ing)?)?"):
            clause.moods.append(name)


def _read_place(clause: Clause) -> None:
    """Places that say whose left they mean, angles and clock positions."""
    shadow = clause.take(SHADOW)
    if shadow:
        clause.across = 1 if (shadow[1] or shadow[2]) == "left" else -1
    own = clause.take(OWN)
    if own:
        clause.across = 1 if own[1] == "left" else -1
    seen = clause.take(PICTURE)
    if seen:
        clause.across = -1 if seen[1] == "left" else 1
    clock = clause.take(r"(\d{1,2}) ?o ?clock")
    if clock:
        hour = int(clock[1])
        if not 1 <= hour <= 12:
            raise InputError(f"There is no {hour} o'clock on a dial. Use 1 to 12, 12 being above the person.")
        turn = math.radians(30 * hour)
        clause.azimuth = math.degrees(math.atan2(1.5 * math.sin(turn), 1.0))
        clause.elevation = 52 * math.cos(turn)
        clause.dial = True
    for found in iter(
        lambda: clause.take(r"(\d{1,4}) ?(?:°|degrees?|deg)(?: (above|below|up|down|high|elevation))?"), None
    ):
        angle = int(found[1])
        if angle > 360:
            raise InputError(f"An angle of {angle} degrees goes round more than once. Use 0 to 360.")
        if found[2] in ("above", "up", "high", "elevation"):
            clause.elevation = float(min(angle, 90))
        elif found[2]:
            clause.elevation = -float(min(angle, 90))
        else:
            clause.azimuth = float(angle)
    clause.text = re.sub(r"°", " ", clause.text)


def _read_where(clause: Clause) -> None:
    values = {name: bool(clause.take(pattern)) for name, pattern in WHERE.items()}
    for pattern in WHERE.values():  # said more than once
        while clause.take(pattern):
            pass
    if values["left"] and values["right"]:
        clause.both = True
    elif values["left"] or values["right"]:
        clause.across = clause.across or (-1 if values["left"] else 1)
    clause.up = clause.up or 1.0 * values["above"] + 0.7 * values["high"] - 1.0 * values["below"] - 0.3 * values["low"]
    clause.depth = values["front"] - values["behind"]
    if clause.take("side") and not clause.placed:
        clause.across = -1
    if clause.azimuth is not None and not clause.dial:
        turned = (clause.azimuth + 180) % 360 - 180
        clause.azimuth = abs(turned) * (clause.across or -1)  # an angle alone is on the left


def _read_colours(clause: Clause) -> None:
    for found in iter(lambda: clause.take(re.compile(r"#([0-9a-z]+)")), None):
        if not re.fullmatch(r"[0-9a-f]{3}|[0-9a-f]{6}", found[1]):
            raise InputError(f"#{found[1]} is not a colour. Write three or six hexadecimal digits, as in #ff8800.")
        if all(digit in "01" for digit in found[1][:: max(1, len(found[1]) // 3)]):
            raise InputError(f"Light cannot be #{found[1]}. {DARK}")
        clause.colours.append((f"#{found[1]}", paint(f"#{found[1]}")))
    for found in iter(lambda: clause.take(r"(\d{3,6}) ?(?:k|kelvins?)"), None):
        kelvin = int(found[1])
        if not 1000 <= kelvin <= 15000:
            raise InputError(f"A colour temperature of {kelvin} K is out of range. Use 1000 to 15000 K.")
        clause.colours.append((f"{kelvin} K", paint(kelvin)))
    for name, (pattern, value) in LAMP_COLOURS.items():
        if clause.take(pattern):
            clause.colours.append((name, paint(value)))
    clause.colours += _named_colour(clause)
    warmths = [(name, kelvin) for name, (pattern, kelvin) in WARMTH.items() if clause.take(pattern)]
    if {"warm", "cool"} <= {name for name, _ in warmths}:
        raise InputError(
            "One light cannot be warm and cool at once. Give each a side, as in 'warm from the left and cool from the right'."
        )
    if not clause.colours:
        clause.colours = [(name, paint(kelvin)) for name, kelvin in warmths[:1]]


def _named_colour(clause: Clause) -> list[tuple[str, Colour]]:
    """Colour names, the longest first."""
    found: list[tuple[str, Colour]] = []
    words = clause.text.split()
    kept: list[str] = []
    index = 0
    while index < len(words):
        step = next((n for n in (3, 2, 1) if n <= len(words) - index and _colour_name(words[index : index + n])), 0)
        if step:
            name = " ".join(words[index : index + step])
            value = _colour_name(words[index : index + step])
            if kept and kept[-1] == "light":  # "a light orange": a shade
                kept.pop()
            if value is not None and max(value) < 0.12:
                raise InputError(
                    f"Light cannot be {name}. Choose a colour that shines, or write 'dark' for less light."
                )
            if value is not None and name != "white":
                found.append((name, paint(_hex(value))))
            elif name == "white":
                found.append(("white", paint(5600)))
            index += step
        else:
            kept.append(words[index])
            index += 1
    clause.text = " ".join(kept)
    return found


def _colour_name(words: list[str]) -> Colour | None:
    joined = "".join(words)
    if joined in (
        "snow",
        "midnight",
        "light",
        "sky",
        "fire",
        "sun",
        "ash",
        "sand",
        "jet",
        "moss",
        "forest",
        "blonde",
        "dark",
    ):
        return None
    return lexicon.colours().get(joined)


def _hex(value: Colour) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in value)


def _merged(clauses: list[Clause]) -> list[Clause]:
    """Join clauses that describe the same lamp."""
    merged: list[Clause] = []
    for clause in clauses:
        last = merged[-1] if merged else None
        if last is None or (clause.rest and not clause.about_light and not clause.colours):
            merged.append(clause)
            continue
        adjective = not (clause.placed or clause.role or clause.moods or clause.both)
        open_end = not (last.placed or last.role or last.both) and not last.rest
        clashing = (clause.colours and last.colours) or (clause.moods and last.moods)
        same_kind = clause.placed and not (clause.colours or clause.role or clause.moods or clause.noun)
        if adjective and (clause.colours and last.colours):
            merged.append(clause)
        elif adjective or (open_end and not clashing) or (same_kind and last.placed and _fits(last, clause)):
            _join(last, clause)
        elif same_kind:
            merged.append(_like(last, clause))
        else:
            merged.append(clause)
    return merged


def _fits(one: Clause, other: Clause) -> bool:
    """Whether two places are one ("from the left and above") and not two ("left and right")."""
    axes = ("across", "up", "depth", "azimuth", "elevation")
    return not any(getattr(one, axis) and getattr(other, axis) for axis in axes)


def _join(last: Clause, clause: Clause) -> None:
    for name in ("across", "up", "depth", "azimuth", "elevation", "role"):
        setattr(last, name, getattr(last, name) or getattr(clause, name))
    for name, words in (("softness", "soft and hard"), ("brightness", "bright and dim")):
        one, other = getattr(last, name), getattr(clause, name)
        clash = {one, other} == {"soft", "hard"} or ("dim" in (one, other) and one and other and one != other)
        if clash:
            raise InputError(f"One light cannot be {words} at once. Choose one of them.")
        setattr(last, name, one or other)
    last.colours += clause.colours
    last.moods += clause.moods
    last.noun |= clause.noun
    last.both |= clause.both
    last.rest = f"{last.rest} {clause.rest}".strip()


def _like(last: Clause, clause: Clause) -> Clause:
    return replace(
        clause,
        colours=clause.colours or list(last.colours),
        softness=clause.softness or last.softness,
        brightness=clause.brightness or last.brightness,
    )
