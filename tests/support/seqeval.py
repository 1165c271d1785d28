"""What seqeval 1.2 counts in its default mode, written from its documentation and conlleval's rules, for comparison.

An entity is (type, first, last inclusive). Letters that it knows: B, I, E, S, O.
"""

from __future__ import annotations

from collections.abc import Sequence

Entity = tuple[str, int, int]


def split(tag: str) -> tuple[str, str]:
    """Letter and type; a tag of one letter has the type _."""
    return tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"


def entities(sequences: Sequence[Sequence[str]]) -> list[Entity]:
    """Of all rows, with an O between any two."""
    flat = [tag for row in sequences for tag in (*row, "O")]
    found: list[Entity] = []
    before, type_before, begin = "O", "", 0
    for i, tag in enumerate([*flat, "O"]):
        letter, kind = split(tag)
        if ends(before, letter, type_before, kind):
            found.append((type_before, begin, i - 1))
        if starts(before, letter, type_before, kind):
            begin = i
        before, type_before = letter, kind
    return found


def ends(before: str, letter: str, type_before: str, kind: str) -> bool:
    """conlleval's endOfChunk."""
    pairs = {("B", "B"), ("B", "S"), ("B", "O"), ("I", "B"), ("I", "S"), ("I", "O")}
    return before in "ES" or (before, letter) in pairs or (before != "O" and type_before != kind)


def starts(before: str, letter: str, type_before: str, kind: str) -> bool:
    """conlleval's startOfChunk."""
    pairs = {("E", "E"), ("E", "I"), ("S", "E"), ("S", "I"), ("O", "E"), ("O", "I")}
    return letter in "BS" or (before, letter) in pairs or (letter != "O" and type_before != kind)


def scores(true: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """By type, and under "" over all: f1, precision, recall and support; 0 where nothing is divided by nothing.

    Over all also macro-f1, and accuracy of tags.
    """
    a, b = set(entities(true)), set(entities(found))
    types = {kind for kind, _, _ in a | b}
    by_type = {kind: three({e for e in a if e[0] == kind}, {e for e in b if e[0] == kind}) for kind in types}
    pairs = [(x, y) for row, own in zip(true, found, strict=True) for x, y in zip(row, own, strict=True)]
    over_all = three(a, b) | {
        "macro-f1": sum(score["f1"] for score in by_type.values()) / len(types) if types else 0.0,
        "accuracy": sum(x == y for x, y in pairs) / len(pairs),
    }
    return by_type | {"": over_all}


def three(a: set[Entity], b: set[Entity]) -> dict[str, float]:
    """Precision, recall, F1, and how many there are."""
    right = len(a & b)
    precision, recall = (right / len(x) if x else 0.0 for x in (b, a))
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": len(a)}
