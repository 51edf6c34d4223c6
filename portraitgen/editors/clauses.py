"""Clauses: what each part of a sentence names (regions, attributes, negations, impossible things), and what it borrows."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import lexicon, tagging
from .lexicon import Entry
from .tagging import Tag

ATTRIBUTES = ("colour", "adjustment", "material", "look", "style", "mood", "character")


@dataclass
class Clause:
    """What one clause says; ``joiner`` is the word before it."""

    joiner: str = ""
    words: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    hint: str = ""  # "person", "everything", "it" or "clothes": where it points when it names no region
    attributes: list[tuple[Entry, str]] = field(default_factory=list)  # with the shade (dark, light, …) or ""
    keep: str = ""  # the word that negates the clause
    only: bool = False
    rest: bool = False
    remove: bool = False
    forced: bool = False  # "statue", "made of": a metal is the material, not the colour
    impossible: list[tuple[str, str]] = field(default_factory=list)  # what it would take, the words
    unknown: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def split(tags: list[Tag]) -> list[Clause]:
    """Split at joiners and negations, and sort each clause's words by their meaning."""
    clauses = [Clause()]
    for place, tag in enumerate(tags):
        word, current = tag.text, clauses[-1]
        if word in tagging.JOINERS:
            if current.words:
                clauses.append(Clause(word))
            elif word not in ",;.!?:":
                current.joiner = word
            continue
        if word in tagging.KEEP:
            if current.words and not current.keep and (current.regions or current.attributes or current.hint):
                current = Clause(word)
                clauses.append(current)
            if current.keep not in tagging.EXCEPT:
                current.keep = word
            current.words.append(word)
            continue
        current.words.append(word)
        if word in tagging.STAY:
            current.keep = current.keep or word
        elif word in tagging.ONLY:
            current.only = True
        elif word in tagging.REST:
            current.rest = True
        elif word in tagging.REMOVE:
            current.remove = True
        elif word in tagging.IT:
            current.hint = current.hint or "it"
        elif word in tagging.WEAR:
            current.hint = "clothes"
        else:
            current.forced |= any(part in lexicon.FORCE_MATERIAL for part in word.split())
            _sort(tag, tags[place + 1 : place + 3], current)
    return [clause for clause in clauses if clause.words]


def _sort(tag: Tag, following: list[Tag], clause: Clause) -> None:
    """Put one tag into its place in the clause."""
    meanings = {entry.kind: entry for entry in tag.entries}
    colour_next = any(entry.kind == "colour" for other in following[:1] for entry in other.entries) or (
        len(following) > 1
        and any(entry.kind == "shade" for entry in following[0].entries)
        and any(entry.kind == "colour" for entry in following[1].entries)
    )
    if not meanings:
        if not tag.known:
            clause.unknown.append(tag.text)
    elif "region" in meanings:
        name = meanings["region"].name
        if name in lexicon.WEAK_REGIONS:
            clause.hint = name if clause.hint != "clothes" else clause.hint
        elif name not in clause.regions:
            clause.regions.append(name)
    elif "shade" in meanings and colour_next:
        clause.attributes.append((meanings["shade"], "pending"))
    elif "impossible" in meanings and not meanings.keys() & set(ATTRIBUTES):
        clause.impossible.append((meanings["impossible"].name, tag.text))
    elif "colour" in meanings and meanings.keys() & {"material", "adjustment", "mood"}:
        other = next(meanings[kind] for kind in ("material", "adjustment", "mood") if kind in meanings)
        clause.attributes.append(
            (Entry(f"colour/{other.kind}", f"{meanings['colour'].name}/{other.name}"), _shade(clause))
        )
    else:
        kind = next((kind for kind in ATTRIBUTES if kind in meanings), "")
        if kind == "colour":
            clause.attributes.append((meanings["colour"], _shade(clause)))
        elif kind:
            clause.attributes.append((meanings[kind], ""))


def _shade(clause: Clause) -> str:
    """Take the shades that wait at the end of the clause's attributes."""
    shades = []
    while clause.attributes and clause.attributes[-1][1] == "pending":
        shades.append(clause.attributes.pop()[0].name)
    return "+".join(reversed(shades))


def borrow(clauses: list[Clause]) -> list[Clause]:
    """Let clauses without attribute or without region take it from their neighbour."""
    result: list[Clause] = []
    corrected = False
    for clause in clauses:
        before = result[-1] if result else None
        if before and clause.words and set(clause.words) <= tagging.CORRECTION:
            corrected = True  # "blue, no wait, green"
            continue
        if corrected and before and clause.attributes:
            corrected = False
            if not clause.regions or clause.regions == before.regions:
                before.attributes, before.unknown = clause.attributes, []
                continue
        bare = bool(clause.regions) and not clause.attributes and not clause.impossible and not clause.remove
        if (
            before
            and clause.keep
            and before.regions
            and not before.attributes
            and clause.attributes
            and not clause.regions
        ):
            before.keep = clause.keep  # "her hair not blue"
            continue
        excepted = clause.keep in tagging.EXCEPT or (
            clause.joiner == "but" and before is not None and before.hint == "everything"
        )
        if excepted and clause.attributes and clause.regions and before and not before.attributes:
            before.attributes, clause.attributes = clause.attributes, []  # "everything except the hair blue"
            clause.keep = clause.keep or "but"
        elif before and bare and not clause.keep and not clause.unknown:
            if before.keep or (clause.joiner == "but" and (before.attributes or before.hint == "everything")):
                clause.keep = clause.keep or before.keep or "but"  # "keep hair and skin", "everything but the hair"
            elif before.attributes and not before.regions:
                before.regions = clause.regions  # "bronze, skin"
                before.only |= clause.only
                continue
            elif before.attributes and not clause.only:
                clause.attributes = list(before.attributes)  # "bronze skin and hair"
                clause.forced = before.forced
            elif before.attributes:
                before.regions = clause.regions  # "bronze skin and clothes, only the skin"
                continue
        elif (
            before
            and not before.keep
            and not clause.keep
            and not before.attributes
            and not before.impossible
            and not before.remove
        ):
            if (
                before.regions
                and (clause.attributes or before.only or clause.unknown)
                and clause.joiner not in (".", "!", "?", ";")
            ):
                clause.regions = [
                    *before.regions,
                    *(region for region in clause.regions if region not in before.regions),
                ]
                clause.only |= before.only  # "her hair and eyes green"
                result.pop()
        elif before and not clause.keep and not before.keep and clause.joiner in ("and", ",", "&"):
            if _only_colours(before) and clause.regions and clause.attributes:
                clause.attributes = [*before.attributes, *clause.attributes]  # "red and blue hair"
                result.pop()
            elif (
                _only_colours(clause)
                and before.regions
                and all(entry.kind.startswith("colour") for entry, _ in before.attributes)
            ):
                before.attributes = [*before.attributes, *clause.attributes]  # "hair red and blue"
                continue
        result.append(clause)
    return result


def _only_colours(clause: Clause) -> bool:
    """Whether a clause says nothing but colours."""
    colours = [entry for entry, _ in clause.attributes if entry.kind.startswith("colour")]
    others = clause.regions or clause.hint or clause.unknown or clause.impossible
    return bool(colours) and len(colours) == len(clause.attributes) and not others
