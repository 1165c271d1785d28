"""Tags of words, in the schemes that are in use, and the entities that they mark.

IOB1, IOB2 (BIO), IOBES (BIOES, BMES) and BILOU are read by one rule, that of conlleval and seqeval: B begins an entity,
S (U, W) is a whole one, E (L) ends one, and I (M) goes on with one of its type, or begins one where there is none.
Inside, and in the model's outputs, all are BIO2: O, B-TYPE, I-TYPE. Tags without a prefix are plain (parts of speech)
and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE = "O"
NAMELESS = "ENTITY"
"""The type of tags that are B and I alone."""
_PREFIXED = re.compile(r"([BIESMLUW])-(.*)", re.DOTALL)
_BEGINS, _GOES_ON, _ENDS, _WHOLE = "B", "IM", "EL", "SUW"


@dataclass(frozen=True, slots=True)
class Span:
    """An entity: items `first` to `last` (exclusive) of a row, and its type."""

    first: int
    last: int
    kind: str


def parts(tag: str) -> tuple[str, str] | None:
    """The letter and the type of a tag with a prefix; None for O and for a plain tag."""
    found = _PREFIXED.fullmatch(tag)
    return (found[1], found[2]) if found else None


def is_plain(tags: Sequence[str]) -> bool | None:
    """Whether these are plain tags, not those of entities; None where all are O, which may be either."""
    others = set(tags) - {OUTSIDE}
    if not others:
        return None
    return not others <= {"B", "I"} and all(parts(tag) is None for tag in others)


def tags_problem(tags: Sequence[str]) -> str | None:
    """What is wrong with a row's tags, and what to do; None if nothing is."""
    if is_plain(tags) is not False or set(tags) <= {OUTSIDE, "B", "I"}:
        return None
    for number, tag in enumerate(tags):
        found = parts(tag)
        if found is None and tag != OUTSIDE:
            other = next(tag for tag in tags if parts(tag))
            return (
                f"tag {number} is {tag!r}, without a prefix, beside tags with one ({other!r}); write it as O, B-TYPE or"
                " I-TYPE (E-, S-, L-, U- are known, too)"
            )
        if found is not None and not found[1].strip():
            return f"tag {number} is {tag!r}, which names no type; write it as {found[0]}-TYPE"
    return None


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The entities that tags with prefixes mark, in their order."""
    found: list[Span] = []
    begin, kind = 0, None
    for place, tag in enumerate(tags):
        letter, type_ = parts(tag) or (("O", "") if tag == OUTSIDE else (tag, NAMELESS))
        goes_on = letter in _GOES_ON or letter in _ENDS
        if kind is not None and not (goes_on and type_ == kind):
            found.append(Span(begin, place, kind))
            kind = None
        if letter == OUTSIDE:
            continue
        if kind is None:
            begin, kind = place, type_
        if letter in _ENDS or letter in _WHOLE:
            found.append(Span(begin, place + 1, kind))
            kind = None
    if kind is not None:
        found.append(Span(begin, len(tags), kind))
    return found


def tags_of(spans: Sequence[Span], count: int) -> list[str]:
    """BIO2 tags of so many items, from spans that share none."""
    tags = [OUTSIDE] * count
    for span in spans:
        tags[span.first : span.last] = [f"B-{span.kind}"] + [f"I-{span.kind}"] * (span.last - span.first - 1)
    return tags


def outputs_for(types: Sequence[str]) -> tuple[str, ...]:
    """What a head puts out for these types: O first, then B and I of each."""
    return (OUTSIDE, *(f"{letter}-{kind}" for kind in types for letter in "BI"))


def types_of(labels: Sequence[str]) -> tuple[str, ...] | None:
    """The types that a head with these outputs tells apart, in order; None where its outputs are plain tags."""
    types = tuple(dict.fromkeys(found[1] for label in labels if (found := parts(label))))
    return types if types and set(labels) == set(outputs_for(types)) else None
