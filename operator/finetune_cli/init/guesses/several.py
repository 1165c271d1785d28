"""Texts of which each has any number of classes: in a list, or in columns of 0 and 1."""

from __future__ import annotations

from typing import Any

from finetune_api.tasks import usual_names
from finetune_api.values import listed_in
from finetune_cli.init.guesses.base import MOST_CLASSES, Guess, Rows
from finetune_cli.init.guesses.classification import texts_as_roles

LONGEST = 64
"""Characters of a class's name, at most; longer ones are texts."""
SWITCHES = ({"0", "1"}, {"0.0", "1.0"}, {"false", "true"})
CLASS = usual_names("label")
"""Who has a column of such a name, has its class there."""
TOKENS = usual_names("tokens")


def several(rows: Rows, names: list[str]) -> Guess | None:
    """A column of lists of short strings, or several columns of 0 and 1, beside texts."""
    lists = {name: [_listed(row.get(name)) for row in rows] for name in names}
    found = [name for name, values in lists.items() if all(value is not None for value in values) and any(values)]
    texts = texts_as_roles(rows, [name for name in names if name not in found])
    if not texts:
        return None
    # Two lists side by side are tokens and their tags; beside a class a list is something else.
    if len(found) == 1 and found[0].lower() not in TOKENS and not _has_class(rows, names):
        (name,) = found
        classes = [each for value in lists[name] for each in value or ()]
        if len(set(classes)) <= min(MOST_CLASSES, len(classes) - 1):
            counts = {each: classes.count(each) for each in dict.fromkeys(classes)}
            reason = f"{name} holds lists of classes: {len(counts)} different ones"
            return Guess({**texts, "labels": name}, (reason, _said(texts)), _sorted(counts))
    switches = [name for name in names if _is_switch(rows, name)]
    if len(switches) > 1 and not any(name.lower() in CLASS for name in names):
        counts = {name: sum(str(row[name]).lower() in ("1", "1.0", "true") for row in rows) for name in switches}
        reason = f"{', '.join(switches[:5])}{', …' if len(switches) > 5 else ''} are a class each: 0 or 1 in all rows"
        return Guess({**texts, "labelColumns": tuple(switches)}, (reason, _said(texts)), _sorted(counts))
    return None


def _has_class(rows: Rows, names: list[str]) -> bool:
    """Whether a column of a class's usual name holds one value a row."""
    return any(
        name.lower() in CLASS and all(isinstance(row.get(name), str | int) and not _listed(row[name]) for row in rows)
        for name in names
    )


def _said(texts: dict[str, str]) -> str:
    return f"{' and '.join(texts.values())} hold{'s' if len(texts) == 1 else ''} the texts"


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _listed(value: Any) -> list[str] | None:
    """A list of short strings, which csv has as JSON text; None for anything else."""
    found = listed_in(value)
    short = found is not None and all(isinstance(each, str) and 0 < len(each) <= LONGEST for each in found)
    return found if short else None


def _is_switch(rows: Rows, name: str) -> bool:
    values = {str(row.get(name)).strip().lower() for row in rows}
    return len(values) == 2 and values in SWITCHES
