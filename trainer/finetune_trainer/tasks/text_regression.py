"""Text regression: a text (or a pair of texts) has a number: how good a review is, how alike two sentences are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_api.values import number_in
from finetune_trainer.batches.example import NumberExample
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.answers import logits, rounded
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, Row, Sampling, Task
from finetune_trainer.tasks.columns import missing, pick
from finetune_trainer.tasks.constants import Constant
from finetune_trainer.tasks.texts import (
    asked,
    named_outputs,
    text_columns,
    text_head,
    texts_problem,
    tokens,
    whole_text,
)

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["text-regression"]
USUAL = {role.name: role.usual for role in INFO.roles}
LARGEST = 1e9
"""Numbers beyond it lose digits in single precision that their writer meant."""


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles text, score and, only if asked for, textPair. Raises JobError naming the field."""
    w = wanted or Columns()
    texts, score = text_columns(INFO, found, w), pick("score", w.score, USUAL["score"], found)
    if score is None:
        raise missing("score", "no column has a usual name for a number to predict", found)
    return texts | {"score": score}


def classes(row: Row, columns: Mapping[str, str]) -> tuple[()]:
    """Numbers are no classes."""
    return ()


def number(row: Row, columns: Mapping[str, str]) -> float:
    """The row's number; nan where it has none that can be used."""
    return number_in(row.get(columns["score"]))


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    if problem := texts_problem(row, columns):
        return problem
    column, value = columns["score"], row.get(columns["score"])
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"column {column!r} is missing, null or empty; give the row a number, or leave it out"
    found = number(row, columns)
    if math.isfinite(found):
        if abs(found) <= LARGEST:
            return None
        return f"column {column!r} holds {found:g}, and {LARGEST:g} is the most; write it in a larger unit"
    if isinstance(value, str) and "," in value:
        return f"column {column!r} holds {value[:40]!r}, not a number; write decimals with a point, thousands plainly"
    what = repr(value)[:40] if isinstance(value, str | float | int) else type(value).__name__
    return f"column {column!r} holds {what}, not a finite number; give the row a number, or leave it out"


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> tuple[NumberExample]:
    """Encode with the tokenizer's special tokens. The row has passed check_row."""
    return (NumberExample(*tokens(row, facts, tokenizer, max_length), number(row, facts.columns)),)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """One output."""
    return {**named_outputs(("score",)), "problem_type": "regression"}


def objective(facts: JobFacts) -> Objective:
    """The square of the error, in units of the training rows' deviation."""
    from finetune_trainer.objectives.squared_error import squared_error

    return squared_error((facts.spread and facts.spread.deviation) or 1.0)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Errors, and how predictions go with the truth."""
    from finetune_trainer.evaluate.regression_tally import RegressionTally

    return RegressionTally(facts.spread.low, facts.spread.high) if facts.spread else RegressionTally()


def constant(facts: JobFacts) -> Constant | None:
    """The mean of the training rows."""
    if facts.spread is None:
        return None
    mean = facts.spread.mean if facts.spread.learned is None else facts.spread.learned
    return Constant(f"always {mean:.4g}, the mean", [mean])


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{score}: the number."""
    found = logits(model, [asked(row, facts, tokenizer, max_length) for row in rows], tokenizer.pad_id, max_length)
    return [answer(scores, facts, decision) for scores in found]


def answer(scores: np.ndarray, facts: JobFacts, decision: Decision) -> dict[str, Any]:
    """As `predict` has it. scores: [1]."""
    return {"score": rounded(scores[0])}


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Rows whose number is far off."""
    found = []
    for row, each in zip(rows, kept, strict=True):
        true, (said,) = number(row, given.facts.columns), each.values
        text = whole_text(row, given.facts.columns)
        found.append(Mistake(text, f"{true:g}", f"{said:.6g}", {"off by": said - true}))
    return found


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The number of a text."""
    return [
        'inputs = tokenizer("some text", return_tensors="pt", truncation=True)',
        "print(model(**inputs).logits.item())",
    ]


TASK = Task(
    info=INFO,
    head=text_head(INFO, config_of_head),
    columns=columns,
    classes=classes,
    number=number,
    check_row=check_row,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    constant=constant,
    predict=predict,
    answer=answer,
    mistakes=Mistakes({"off": "Furthest off"}, mistakes),
)
