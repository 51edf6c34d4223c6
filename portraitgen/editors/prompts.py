"""What a person types, made fit for a text encoder."""

from __future__ import annotations

import re
import unicodedata

from ..errors import InputError

MAX_CHARACTERS = 2000  # several times what any encoder here reads
_MARKUP = re.compile(r"<\|[^<>|]{0,40}\|>|</?[A-Za-z!][^<>]{0,200}>")  # the encoders' own control words, and HTML


def clean_prompt(text: str) -> str:
    """The words of ``text`` on one line, at most `MAX_CHARACTERS`: without control characters, markup and runs of spaces.

    Control words such as ``<|endoftext|>`` would be obeyed, not read, and end the instruction where they stand. Every script is kept.

    Raises InputError if no letter or digit is left.
    """
    text = unicodedata.normalize("NFC", text[: 4 * MAX_CHARACTERS])
    text = _MARKUP.sub(" ", text)
    # Cc: control, Cs: half of a pair, Co and Cn: no character; Cf joins the letters of some scripts, and so stays
    text = "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") else letter for letter in text)
    text = " ".join(text.split())[:MAX_CHARACTERS].strip()
    if not any(letter.isalnum() for letter in text):
        raise InputError("The instruction holds no words. Write what to change, such as 'give him red hair'.")
    return text


def is_foreign(text: str) -> bool:
    """Whether most letters are of no Latin script, which encoders trained on English captions hardly read."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum("LATIN" not in unicodedata.name(letter, "") for letter in letters) * 2 > len(letters)


def say_understood(text: str, read: str | None) -> str:
    """What a model makes of ``text``, of which it reads only ``read`` if that is not None."""
    said = "the instruction as it is" if read is None else f"the instruction as far as “… {read[-40:].strip()}”"
    return f"{said}, though this model was taught English" if is_foreign(text) else said
