"""From an instruction to tagged words: spelling, slips of the fingers, phrases of several words, hex colours."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from ..errors import InputError
from .languages import check_language
from .lexicon import Entry, vocabulary
from .limits import FILLER, words
from .meaning import english_words

MAX_LENGTH = 500
LONGEST_PHRASE = 5  # words
MARKUP = re.compile(r"<[^<>]*>|[<>`]")
TOKEN = re.compile(r"#[0-9a-f]{3,8}\b|[^\W_]+|[,;.!?:&+/]")
SPELLING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\bgr[ae]y(ish)?\b"), "grey"),
    (re.compile(r"col(?:or|er|ur)(?!o)"), "colour"),
    (
        re.compile(r"\b(?:(red)d|(blu|purpl|whit)|(tan)n)ish\b"),
        lambda found: {"red": "red", "tan": "tan"}.get(found[1] or found[3], f"{found[2]}e"),
    ),
    (re.compile(r"\bmould"), "mold"),
    (re.compile(r"(\w)ize(d?)\b"), r"\1ise\2"),
    (re.compile(r"n['’`]t\b"), "nt"),
    (re.compile(r"['’`](s|m|re|ve|ll|d)\b"), " "),
)
# Words that structure a sentence; never corrected, never part of a phrase of one word.
KEEP = words(
    """
    not dont doesnt shouldnt never without except excluding keep keeping preserve preserving leave leaving
    retain retaining nor avoid besides unless spare protect maintain maintaining cannot cant
    """
)
EXCEPT = frozenset(["except", "excluding", "besides", "unless", "without"])
STAY = words(
    """
    unchanged stays stay remain remains untouched alone intact same unaltered unmodified unedited unaffected kept
    """
)
JOINERS = words(
    """
    and , ; . ! ? : & + / but with then while plus also
    """
)
ONLY = frozenset(["only", "just", "solely"])
REST = frozenset(["else", "rest", "otherwise", "other", "others"])
REMOVE = frozenset(["remove", "removing", "removed", "plain", "transparent", "hide"])
CORRECTION = frozenset(["no", "wait", "actually", "sorry", "rather", "instead", "mean", "i", "oops", "hmm"])
NOTHING = frozenset(["anything", "nothing"])
IT = frozenset(("it", "this", "that"))
WEAR = frozenset(["wearing", "wear", "wears", "dressed"])
STRUCTURE = KEEP | STAY | JOINERS | ONLY | REST | REMOVE | IT | WEAR


class Tag(NamedTuple):
    """A word or phrase with its meanings; none for a word of structure, for filler and for a word that is not known."""

    text: str
    entries: tuple[Entry, ...]
    known: bool


def plain(text: str) -> str:
    """The text on one line, without control characters and markup."""
    text = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFKC", text)
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    return " ".join(MARKUP.sub(" ", text).split())


def clean(instruction: str) -> str:
    """The instruction on one line, without control characters and markup.

    Raises InputError when there is nothing to read in it, too much, or another language than English.
    """
    if not isinstance(instruction, str):
        raise InputError("The instruction is not text. Write what to change, such as 'give her blue hair'.")
    text = plain(instruction)
    if not any(character.isalnum() for character in text):
        raise InputError("The instruction has no words. Write what to change, such as 'give her blue hair'.")
    if len(text) > MAX_LENGTH:
        raise InputError(f"The instruction has {len(text)} characters. Write at most {MAX_LENGTH}.")
    check_language(text)
    return text


def tokenise(text: str) -> list[str]:
    """Lower-case words, hex colours and punctuation, in British spelling, without accents."""
    text = "".join(
        character for character in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(character)
    )
    for pattern, replacement in SPELLING:
        text = pattern.sub(replacement, text)
    return TOKEN.findall(text)


def one_slip_apart(left: str, right: str) -> bool:
    """Whether one inserted, missing, wrong or swapped letter separates two words."""
    if left == right or abs(len(left) - len(right)) > 1:
        return False
    if len(left) > len(right):
        left, right = right, left
    start = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
    if len(left) < len(right):
        return left[start:] == right[start + 1 :]
    if left[start + 1 :] == right[start + 1 :]:
        return True
    swapped = left[start + 1 : start + 2] + left[start : start + 1]
    return swapped == right[start : start + 2] and left[start + 2 :] == right[start + 2 :]


@functools.lru_cache(maxsize=4096)
def correct(word: str) -> str:
    """The vocabulary's word that ``word`` was meant to be: itself, its singular, or one slip away when it is long and no English word."""
    known = vocabulary()
    if word in known or word in FILLER or word in STRUCTURE:
        return word
    endings = (("ies", "y"), ("es", ""), ("s", ""), ("ish", ""), ("y", ""), ("like", ""), ("ed", ""))
    for ending, replacement in endings:
        stem = word[: len(word) - len(ending)] + replacement
        if (
            word.endswith(ending)
            and len(stem) > 2
            and (stem in known or (stem in FILLER and ending in ("s", "es", "ed")))
        ):
            return stem
    if len(word) < 6 or word.isdigit() or word in english_words():
        return word
    candidates = [entry for entry in (*known, *FILLER, *STRUCTURE) if len(entry) >= 4 and one_slip_apart(word, entry)]
    # the first letter is seldom wrong, and swaps and omissions keep the letters
    return min(candidates, key=lambda entry: (entry[0] != word[0], sorted(entry) != sorted(word), entry), default=word)


def tag(text: str) -> list[Tag]:
    """Tags of a cleaned instruction, longest phrase first."""
    tokens = [token if token[0] == "#" or not token.isalnum() else correct(token) for token in tokenise(text)]
    index = vocabulary()
    tags: list[Tag] = []
    place = 0
    while place < len(tokens):
        for length in range(min(LONGEST_PHRASE, len(tokens) - place), 0, -1):
            group = tokens[place : place + length]
            phrase = "".join(group)
            if (length == 1 and phrase in STRUCTURE) or any(token in ",;.!?:&+/" for token in group):
                continue
            if phrase in index:
                tags.append(Tag(" ".join(group), index[phrase], True))
                break
        else:
            token = tokens[place]
            known = token in STRUCTURE or token in FILLER or token[0] == "#"
            tags.append(Tag(token, _hex(token), known))
            length = 1
        place += length
    return tags


def _hex(token: str) -> tuple[Entry, ...]:
    if token[0] != "#":
        return ()
    digits = token[1:]
    if len(digits) not in (3, 4, 6, 8):
        raise InputError(f"The colour {token} is not a hex colour. Write it like #1c4fe0.")
    return (Entry("colour", "#" + ("".join(2 * digit for digit in digits[:3]) if len(digits) < 6 else digits[:6])),)
