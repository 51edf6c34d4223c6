"""From a sentence to a plan: which operation on which regions, what to keep, what was not understood.

The sentence is split into clauses; each clause may name regions, attributes (colour, material, look, …) or things that cannot be done.
A clause that lacks one of the two borrows it from its neighbour ("her lips and eyes green", "bronze skin and hair"). A clause that the
lexicon does not resolve is compared by meaning with the catalogue of examples; what stays unresolved is reported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import InputError
from . import catalogue, lexicon, meaning, tagging
from .catalogue import Operation
from .clauses import Clause, borrow, split
from .lexicon import EVERYTHING, FACE, PERSON, Entry

FETCH = "python -m portraitgen weights --fetch instruct-pix2pix"
ENABLE = f"For free-form edits fetch InstructPix2Pix with `{FETCH}` (it needs a GPU, or patience)."
SURE = 0.66  # cosine above which a clause without known words is taken to mean a catalogue example
TINTABLE = frozenset(
    ("hair", "brows", "lips", "eyes", "background", "teeth")
)  # where "gold" or "chocolate" is a colour
IMPLIED_REGION: Mapping[str, str] = {
    **{lexicon.join(name): "hair" for name in lexicon.HAIR_COLOURS},
    **dict.fromkeys(("greenscreen", "chromakey", "bluescreen"), "background"),
}
ORDER = ("character", "material", "colour", "effect", "adjustment", "mood", "look", "style")
COLOURLESS = frozenset(
    ("black and white", "noir", "sepia", "pencil", "charcoal", "ink")
)  # looks over which a named colour is laid


class CannotEdit(InputError):
    """The built-in editor cannot do this; the message says what was understood, what is nearest, and how to get more."""


@dataclass(frozen=True)
class Plan:
    """Operations in the order in which they are applied, and in plain English what was understood."""

    operations: tuple[Operation, ...]
    understood: str

    @property
    def regions(self) -> frozenset[str]:
        """Every region that some operation touches."""
        return frozenset(region for operation in self.operations for region in operation.regions)


@functools.lru_cache(maxsize=256)
def parse(instruction: str) -> Plan:
    """Turn an instruction into a plan.

    Raises InputError when it is empty, endless or has no words, and CannotEdit when no part of it can be done.
    """
    text = tagging.clean(instruction)
    tags = tagging.tag(text)
    if any(tag.text in tagging.NOTHING for tag in tags) and not any(tag.entries for tag in tags):
        raise InputError("The instruction asks for no change. Write what to change, such as 'give her blue hair'.")
    clauses = borrow(split(tags))
    kept = _kept(clauses)
    operations: list[Operation] = []
    missed: list[str] = []
    for clause in clauses:
        if not clause.keep:
            _resolve(clause, operations, missed)
    described = _describe(operations)
    operations = [_without(operation, kept) for operation in operations]
    operations = [operation for operation in operations if operation.regions]
    if not operations:
        raise _cannot(text, missed, described, kept)
    operations, overruled = _last_words(operations)
    missed += [f"{title} (said otherwise later)" for title in overruled if title in described]
    described = [title for title in described if title not in overruled]
    operations.sort(key=lambda operation: ORDER.index(operation.kind))
    if any(operation.kind == "look" and operation.name in COLOURLESS for operation in operations):
        operations.sort(
            key=lambda operation: _paints(operation) and len(operation.regions) < len(PERSON)
        )  # "but red lips"
    notes = [_join(described)]
    if kept:
        notes.append(f"{_name(kept)} kept")
    if missed:
        notes.append("not done: " + _join(missed))
    return Plan(tuple(operations), "; ".join(notes))


def _kept(clauses: Iterable[Clause]) -> tuple[str, ...]:
    """Regions that the sentence says to leave alone, in the order of EVERYTHING."""
    names: set[str] = set()
    for clause in clauses:
        if clause.keep and not clause.rest:
            hinted = [clause.hint] if clause.hint == "person" and not clause.unknown else []
            names.update(_expand(clause.regions or hinted))
    return tuple(region for region in EVERYTHING if region in names)


def _expand(names: Iterable[str]) -> tuple[str, ...]:
    wanted = {part for name in names for part in lexicon.REGION_SETS.get(name, (name,))}
    return tuple(region for region in EVERYTHING if region in wanted)


def _resolve(clause: Clause, operations: list[Operation], missed: list[str]) -> None:
    """Add the clause's operations, and what of it was not done."""
    if clause.remove and not clause.attributes:
        if clause.regions == ["background"]:
            operations.append(catalogue.colour(("background",), "white"))
            return
        clause.impossible.append(("removing things", clause.text))
    found = [] if _is_object(clause) else _operations(clause)
    if not found and (clause.unknown or clause.impossible or clause.regions) and not clause.impossible:
        choices = catalogue.examples()
        (best, score), *_ = meaning.nearest(clause.text, choices)
        if score >= SURE:
            found = list(parse(choices[best]).operations)
            operations.extend(found)
            return
    operations.extend(found)
    if found:
        missed.extend(f"'{words}' ({reason})" for reason, words in clause.impossible)
        if clause.unknown:
            missed.append(f"{_quoted(' '.join(clause.unknown))} (not understood)")
    elif clause.impossible and len(clause.unknown) < 2:
        missed.append(f"{_quoted(clause.text)} ({clause.impossible[0][0]})")
    elif clause.unknown or clause.impossible or clause.regions:
        missed.append(f"{_quoted(clause.text)} (not understood)")


def _is_object(clause: Clause) -> bool:
    """Whether the attributes belong to a thing that is not in the picture: "a red hat", "a golden crown"."""
    plain = all(
        entry.kind.split("/")[0] in ("colour", "material", "adjustment", "shade") for entry, _ in clause.attributes
    )
    if clause.regions or clause.forced or not plain:
        return False
    coloured = any(entry.kind.startswith("colour") for entry, _ in clause.attributes)
    return any(reason == "adding objects" or coloured for reason, _ in clause.impossible) or (
        bool(clause.unknown) and coloured and not clause.hint
    )


def _operations(clause: Clause) -> list[Operation]:
    found: list[Operation] = []
    for entry, shade in clause.attributes:
        if shade == "pending":  # a shade that no colour followed: an adjustment
            entry = Entry(
                "adjustment", {"dark": "darker", "bright": "lighter", "light": "lighter"}.get(entry.name, "muted")
            )
        named = _expand(clause.regions)
        kind, name = entry
        if "/" in kind:
            kind, name = _colour_or(entry, named, clause)
        if kind == "colour":
            operation = catalogue.colour(_colour_regions(name, named, clause), name, shade)
            if found and found[-1].kind == "colour" and found[-1].regions == operation.regions:
                first = found.pop()
                parameters = {**first.parameters, "rgb2": operation.parameters["rgb"]}
                operation = Operation(first.regions, "colour", f"{first.name} and {operation.name}", parameters)
            found.append(operation)
        elif kind == "character":
            found.extend(catalogue.character(name, named))
        else:
            painted = any(other.kind.startswith("colour") for other, _ in clause.attributes)
            place = () if painted and kind in ("look", "style", "mood") else named  # "blue hair in a pencil sketch"
            found.append(Operation(_regions(kind, name, place, clause), kind, name, {}))
    found = _simplified(found, clause)
    unique: list[Operation] = []
    for operation in found:
        if operation not in unique:
            unique.append(operation)
    return unique


def _simplified(found: list[Operation], clause: Clause) -> list[Operation]:
    """Drop what a more exact word of the same clause says better."""
    drop: set[str] = set()
    if len({operation.name for operation in found if operation.kind == "material"}) > 1:
        drop.add("marble")  # "a gold statue"
    looks = {operation.name for operation in found if operation.kind in ("look", "style")}
    if len(looks) > 1:
        drop.add("film")  # "a Pixar movie"
    painted = "oil" in clause.words or "painting" in clause.words
    if not painted and clause.impossible:
        drop.add("oil")  # "face paint like a tiger"
    if any(operation.kind == "style" or (operation.kind == "look" and operation.name != "oil") for operation in found):
        drop.add("oil")  # "a Monet painting"
    elif not painted and any(operation.kind in ("colour", "material") for operation in found):
        drop.add("oil")  # "paint the wall yellow"
    return [operation for operation in found if operation.name not in drop]


def _colour_or(entry: Entry, named: tuple[str, ...], clause: Clause) -> tuple[str, str]:
    """Decide between the two meanings of a word like gold (material), tan (adjustment) or snow (mood), all of them colours too."""
    colour, other = entry.name.split("/")
    kind = entry.kind.split("/")[1]
    if kind == "adjustment":
        return ("colour", colour) if named and not set(named) <= set(FACE) else (kind, other)
    if kind == "mood":
        return ("colour", colour) if named else (kind, other)
    if not clause.forced and named and (set(named) <= TINTABLE or (other == "chocolate" and "hair" not in named)):
        return "colour", colour
    return kind, other


def _colour_regions(name: str, named: tuple[str, ...], clause: Clause) -> tuple[str, ...]:
    if named and name in IMPLIED_REGION and not set(named) & {"hair", "brows", "background"}:
        return (IMPLIED_REGION[name],)
    if named:
        return ("skin",) if set(named) == set(FACE) else named
    if name in IMPLIED_REGION:
        return (IMPLIED_REGION[name],)
    return {"person": ("skin",), "clothes": ("clothes",)}.get(clause.hint, EVERYTHING)


def _regions(kind: str, name: str, named: tuple[str, ...], clause: Clause) -> tuple[str, ...]:
    """Where an attribute goes when the clause says so, or by default."""
    if named:
        return FACE if kind == "material" and named == ("skin",) else named
    if clause.hint == "clothes":
        return ("clothes",)
    if kind == "material":
        return EVERYTHING if clause.hint == "everything" else PERSON
    if kind == "adjustment":
        if name in ("tanned", "pale", "smooth"):
            return ("skin",)
        return PERSON if clause.hint == "person" else EVERYTHING
    return PERSON if clause.only and clause.hint == "person" else EVERYTHING


def _last_words(operations: list[Operation]) -> tuple[list[Operation], list[str]]:
    """The operations less the colours that a later colour of the same regions replaces, and these in words."""
    last = {operation.regions: place for place, operation in enumerate(operations) if _paints(operation)}
    lost = [op for place, op in enumerate(operations) if _paints(op) and last[op.regions] != place]
    return [operation for operation in operations if operation not in lost], _describe(lost)


def _paints(operation: Operation) -> bool:
    return operation.kind == "colour" and "character" not in operation.parameters


def _without(operation: Operation, kept: tuple[str, ...]) -> Operation:
    regions = tuple(region for region in operation.regions if region not in kept)
    return Operation(regions, operation.kind, operation.name, operation.parameters)


def _describe(operations: list[Operation]) -> list[str]:
    """The operations in words; those of a character as one."""
    regions: dict[str, set[str]] = {}
    for operation in operations:
        name = operation.parameters.get("character")
        words = (
            f"{name} (approximated by colour and shading)" if name else catalogue.title(operation.kind, operation.name)
        )
        regions.setdefault(words, set()).update(operation.regions)
    return [
        f"{words} on {_name(tuple(part for part in EVERYTHING if part in touched))}"
        for words, touched in regions.items()
    ]


def _name(regions: tuple[str, ...]) -> str:
    """Regions in words: the whole picture, the whole person, or a list in which the parts of the face are "skin"."""
    if set(regions) == set(EVERYTHING):
        return "the whole picture"
    if set(regions) == set(PERSON):
        return "the whole person"
    names = list(regions)
    if set(FACE) <= set(names):
        names = [name for name in names if name == "skin" or name not in FACE]
    return _join(names)


def _join(parts: Iterable[str]) -> str:
    *most, last = dict.fromkeys(parts)
    return f"{', '.join(most)} and {last}" if most else last


def _quoted(text: str) -> str:
    """The person's own words, at most 80 letters of them."""
    return f"'{text if len(text) <= 80 else text[:79] + '…'}'"


def _cannot(text: str, missed: list[str], described: list[str], kept: tuple[str, ...]) -> CannotEdit:
    if described:
        understood = f"I understood {_join(described)}, but all of that is to be kept"
    elif missed:
        understood = f"The built-in editor cannot do this: {_join(missed)}"
    elif kept:
        understood = f"I understood only what to keep ({_name(kept)}), not what to change"
    else:
        understood = f"I found nothing to change in {_quoted(text)}"
    choices = catalogue.examples()
    near = [choices[index] for index, _ in meaning.nearest(text, choices)[:3]]
    return CannotEdit(f"{understood}. The nearest things it can do: {'; '.join(near)}. {ENABLE}")
