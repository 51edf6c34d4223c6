from __future__ import annotations

import math

import pytest

from portraitgen.editors.light_moods import MOODS
from portraitgen.editors.light_picture import colour_word
from portraitgen.editors.light_plan import Lighting, paint, place_words
from portraitgen.editors.light_words import MAX_LENGTH, parse_light
from portraitgen.errors import InputError

# what is said, which lamps that means, whether the surroundings are lit too
PHRASES = [
    ("warm, soft light from the left", "warm from the left", False),
    ("hard light from the right", "white from the right", False),
    ("light from her left", "white from the right", False),
    ("light from his right", "white from the left", False),
    ("light from camera left", "white from the left", False),
    ("shadow on the left side", "white from the right", False),
    ("from above", "white from above", False),
    ("light from below", "white from below", False),
    ("light from behind", "white from behind", False),
    ("light from the front", "white from the front", False),
    ("light from the left and above", "white from the upper left", False),
    ("light from the upper right", "white from the upper right", False),
    ("light from the lower left", "white from the lower left", False),
    ("low light from the left", "white from the left", False),
    ("light from 10 o'clock", "white from the left", False),
    ("light from 3 o'clock", "white from the right", False),
    ("light from 12 o'clock", "white from the front, high", False),
    ("light at 45 degrees", "white from the left", False),
    ("light at 45 degrees from the right", "white from the right", False),
    ("light from the right, 60 degrees above", "white from above", False),
    ("light right behind her", "white from behind", False),
    ("light on both sides", "white from the left; white from the right", False),
    ("left and right", "white from the left; white from the right", False),
    ("red from the left and blue from the right", "red from the left; blue from the right", False),
    ("red light from left, blue light from right, white from behind", "red from the left; blue from the right; white from behind", False),
    ("red and blue lights", "red from the left; blue from the right", False),
    ("purple and teal lights", "purple from the left; teal from the right", False),
    ("warm from the left, cool from the right", "warm from the left; cool from the right", False),
    ("#ff8800 light from the upper left", "orange from the upper left", False),
    ("#08f from the right", "blue from the right", False),
    ("3200K light from the left", "warm from the left", False),
    ("8,000 K light from the right", "cool from the right", False),
    ("light blue light from the left", "cool from the left", False),
    ("golden light from the left", "orange from the left", False),
    ("dark red glow from below", "red from below", False),
    ("bright green light", "green from the left", False),
    ("key light from the left, blue rim light from the right", "white from the left; blue from behind on the right", False),
    ("orange key from camera left with teal fill", "orange from the left; teal from the right", False),
    ("soft window light from camera right; strong orange rim from behind left",
        "white from the right; orange from behind on the left", False),
    ("rim light", "white from behind on the right", False),
    ("blue backlight", "blue from behind", False),
    ("backlit", "white from behind", False),
    ("side light", "white from the left", False),
    ("top light", "white from above", False),
    ("uplight", "white from below", False),
    ("dawn", "warm from the left; cool from behind on the right", True),
    ("noon", "white from above", True),
    ("golden hour", "orange from the left; orange from behind on the right", True),
    ("sunset", "orange from the left; orange from behind on the right", True),
    ("sunset from the right", "orange from the right; orange from behind on the left", True),
    ("backlit by a golden sunset", "orange from behind; orange from behind on the right", True),
    ("blue hour", "blue from the upper right; orange from behind on the left", True),
    ("at night", "blue from the upper left; blue from behind on the right", True),
    ("moonlight", "blue from the upper right; blue from behind on the left", True),
    ("moonlight from the left", "blue from the upper left; blue from behind on the right", True),
    ("overcast", "white from above", True),
    ("Rembrandt lighting", "white from the upper left", False),
    ("rembrandt from the right", "white from the upper right", False),
    ("butterfly lighting", "white from the front, high", False),
    ("split lighting from the right", "white from the right", False),
    ("loop lighting", "white from the left", False),
    ("cinematic", "warm from the left; blue from behind on the right", False),
    ("cinematic sunset", "orange from the left; orange from behind on the right", True),
    ("film noir", "white from the upper left; white from behind on the right", True),
    ("horror movie light", "tinted from below", True),
    ("neon", "pink from the left; blue from the right; pink from behind on the left; blue from behind on the right", True),
    ("neon: pink from the left and cyan from the right", "pink from the left; teal from the right", True),
    ("Put her under a red neon sign on the right", "red from the right; red from behind on the right; red from behind on the left", True),
    ("cyberpunk", "teal from the right; pink from the left; red from behind on the left", True),
    ("studio softbox from the right", "white from the right", False),
    ("candlelight", "orange from the lower left", True),
    ("candlelight from the left and moonlight from the right", "orange from the lower left; blue from the upper right", True),
    ("by the fire", "orange from the lower right; orange from behind on the left", True),
    ("underwater", "teal from above", True),
    ("stage spotlight", "white from the front, high", True),
    ("TV glow", "blue from the front", True),
    ("Christmas lights", "orange from the front; red from the left; green from the right; orange from behind on the right", True),
    ("lightning", "cool from the upper right; cool from behind on the left", True),
    ("make it look like golden hour with warm sun from behind her",
        "orange from the left; orange from behind on the right; warm from behind", True),
    ("flat light", "", False),
    ("the whole scene in blue light", "blue from the left", True),
    ("red light from the left, background too", "red from the left", True),
    ("sunset but not the background", "orange from the left; orange from behind on the right", False),
    ("relight only the person with sunset light", "orange from the left; orange from behind on the right", False),
]  # fmt: skip


def lamps(lighting: Lighting) -> str:
    return "; ".join(f"{colour_word(light.colour)} {place_words(light)}" for light in lighting.lights)


@pytest.mark.parametrize(("text", "expected", "surroundings"), PHRASES, ids=[row[0] for row in PHRASES])
def test_phrases(text: str, expected: str, surroundings: bool) -> None:
    lighting = parse_light(text)
    assert lamps(lighting) == expected
    assert (lighting.backdrop is not None) == surroundings
    assert lighting.understood
    assert "not understood" not in lighting.understood


@pytest.mark.parametrize("name", MOODS)
def test_every_mood_is_known_by_its_names(name: str) -> None:
    for words in MOODS[name].words.split("|"):
        lighting = parse_light(words)
        assert name in lighting.understood
        assert "not understood" not in lighting.understood
    for light in parse_light(name).lights:
        assert math.dist(light.direction, (0, 0, 0)) == pytest.approx(1)
        assert all(part > 0 for part in light.colour)


def test_softness_brightness_and_fill() -> None:
    soft, plain, hard = (parse_light(f"{word} light from the left").lights[0] for word in ("soft", "white", "hard"))
    assert soft.softness > plain.softness > hard.softness
    bright, dim = (parse_light(f"{word} light from the left").lights[0] for word in ("bright", "dim"))
    assert bright.intensity > plain.intensity > dim.intensity
    assert parse_light("soft light from the left").ambient[0] > 2 * parse_light("hard light from the left").ambient[0]
    assert parse_light("key light from the left with fill").lights[1].direction[0] > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("light at 90 degrees", (-1, 0, 0)), ("light from the right at 30 degrees", (0.5, 0, 0.87)),
     ("light from the left, 45 degrees above", (-0.66, -0.71, 0.24)), ("light from the right at 135 degrees", (0.71, 0, -0.71))],
)  # fmt: skip
def test_exact_angles(text: str, expected: tuple[float, float, float]) -> None:
    direction = parse_light(text).lights[0].direction
    flat = (direction[0], 0.0 if "above" not in text else direction[1], direction[2])
    length = math.dist(flat, (0, 0, 0))
    assert tuple(part / length for part in flat) == pytest.approx(expected, abs=0.02)


def test_changes_keep_the_light_that_is_there() -> None:
    brighter, darker, warmer = (parse_light(text) for text in ("brighter", "make it darker", "a bit warmer"))
    assert brighter.own == darker.own == warmer.own == 1
    assert not brighter.lights
    assert brighter.gain[1] > 1 > darker.gain[1]
    assert warmer.gain[0] > warmer.gain[2]
    assert parse_light("softer shadows").contrast < 1 < parse_light("more contrast").contrast
    both = parse_light("sunset, but darker")
    assert both.own == 0
    assert both.gain[0] < 1
    assert parse_light("make the whole scene darker").backdrop == pytest.approx((0.5, 0.5, 0.5))


def test_what_is_not_light_is_reported_beside_what_is() -> None:
    lighting = parse_light("give him red hair and sunset light")
    assert lamps(lighting) == lamps(parse_light("sunset"))
    assert lighting.understood.endswith("not understood: 'hair'")


def test_colours_shine() -> None:
    for name in ("#000080", "#400000", "#ffffff", "#00ff00", 1500, 12000):
        colour = paint(name)
        assert max(colour) >= 0.9
        assert min(colour) > 0.03


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not described"),
        ("   ", "not described"),
        ("?!…", "no words"),
        ("give him red hair", "no light in"),
        ("a light blue shirt", "no light in"),
        ("light brown eyes", "no light in"),
        ("turn her into a statue", "no light in"),
        ("light", "no light in"),
        ("lumière rouge venant de gauche", "no light in"),
        ("左からの暖かい光", "reads English only"),
        ("ضوء دافئ من اليسار", "reads English only"),
        ("brighter and darker", "brighter and darker at once"),
        ("warmer but cooler", "warmer and cooler at once"),
        ("soft hard light from the left", "soft and hard at once"),
        ("soft light from the left, hard", "soft and hard at once"),
        ("bright dim light", "bright and dim at once"),
        ("warm cool light from above", "warm and cool at once"),
        ("sunset at noon", "sunset and noon at once"),
        ("sunny night", "at once"),
        ("#zz12 light", "not a colour"),
        ("#ff88 light from the left", "not a colour"),
        ("99999K light", "out of range"),
        ("500 kelvin light", "out of range"),
        ("black from the left", "cannot be black"),
        ("#000 light", "cannot be #000"),
        ("light from 400 degrees", "more than once"),
        ("light from 14 o'clock", "on a dial"),
        ("light but not from the left", "what the light is not"),
        ("<b>red</b> light", "markup"),
        ("red light <script>alert(1)</script>", "markup"),
        ("{{red}} light", "markup"),
        ("red light " * 60, f"at most {MAX_LENGTH}"),
    ],
)
def test_bad_words_are_one_sentence_and_what_to_do(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse_light(text)
    message = str(caught.value)
    assert message.count(". ") <= 1
    assert message.endswith(".")
    assert "\n" not in message


def test_control_characters_are_only_space() -> None:
    assert lamps(parse_light("red\u0000 light\u202e from\tthe\nleft")) == "red from the left"


def test_examples_in_messages_work() -> None:
    with pytest.raises(InputError) as caught:
        parse_light("give him red hair")
    assert parse_light(str(caught.value).split("as in '")[1].rstrip(".").rstrip("'")).lights
