"""Texts and a number."""

from __future__ import annotations

import math

from finetune_api.tasks import usual_names
from finetune_api.values import number_in
from finetune_cli.init.guesses.base import Guess, Rows, few
from finetune_cli.init.guesses.classification import LABELS, class_columns, texts_as_roles

SCORES = usual_names("score")


def scores(rows: Rows, names: list[str]) -> Guess | None:
    """A column of numbers of many values, beside texts: one with a usual name, or with fractions. Whole numbers of few
    values are classes, and so is a column that is named so.
    """
    numbers = {name: values for name in names if (values := _numbers(rows, name)) and not few(rows, name)}
    named = [name for wanted in SCORES for name in numbers if name.lower() == wanted]
    broken = [name for name, values in numbers.items() if any(value % 1 for value in values)]
    likely = [name for name in class_columns(rows, names) if few(rows, name) and name.lower() in LABELS]
    texts = texts_as_roles(rows, [name for name in names if name not in numbers])
    if likely or not texts or not (named or broken):
        return None
    score, values = (named or broken)[0], numbers[(named or broken)[0]]
    reasons = (
        f"{score} holds numbers from {min(values):g} to {max(values):g}",
        f"{' and '.join(texts.values())} hold{'s' if len(texts) == 1 else ''} the texts",
    )
    return Guess({**texts, "score": score}, reasons)


def _numbers(rows: Rows, name: str) -> list[float]:
    """The column's numbers; none where one is missing, is something else, or is not finite."""
    found = [number_in(row.get(name)) for row in rows]
    return found if all(map(math.isfinite, found)) else []
