"""Text classification: a text (or a pair of texts) belongs to one of the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.forms import one_form
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_api.values import listed_in
from finetune_trainer.batches.example import ClassExample
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.answers import another_class, logits, most_likely, softmax
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, Row, Sampling, Task
from finetune_trainer.tasks.class_weights import class_weights
from finetune_trainer.tasks.columns import missing, pick
from finetune_trainer.tasks.constants import most_frequent
from finetune_trainer.tasks.names import label_text
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

INFO = TASKS["text-classification"]
USUAL = {role.name: role.usual for role in INFO.roles}


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles text, label and, only if asked for, textPair. Raises JobError naming the field."""
    w = wanted or Columns()
    texts, label = text_columns(INFO, found, w), pick("label", w.label, USUAL["label"], found)
    if label is None:
        raise missing("label", "no column has a usual name for the class", found)
    return {"text": texts.pop("text"), "label": label} | texts


def classes(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The row's class in NFC; none if it has none that can be used."""
    found = label_text(row.get(columns["label"]))
    return () if found is None else (one_form(found),)


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    if problem := texts_problem(row, columns):
        return problem
    value = row.get(columns["label"])
    if listed_in(value) is not None:
        return (
            f"column {columns['label']!r} holds a list; give the row one class, or set spec.task:"
            " multi-label-classification, where a row has any number of them"
        )
    if not any(name.strip() for name in classes(row, columns)):
        what = (
            "is missing, null or empty"
            if value is None or (isinstance(value, str) and not value.strip())
            else f"holds {type(value).__name__}, not a string, integer or boolean"
        )
        return f"column {columns['label']!r} {what}; give the row one class"
    return None


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> tuple[ClassExample]:
    """Encode with the tokenizer's special tokens; the longest text of a pair is cut first.

    The row has passed check_row.
    """
    (name,) = classes(row, facts.columns)
    if name not in facts.places:  # of a profile that was made before names were brought to one form
        name = str(label_text(row[facts.columns["label"]]))
    return (ClassExample(*tokens(row, facts, tokenizer, max_length), facts.places[name]),)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """The classes, in the order of the model's outputs."""
    return {**named_outputs(labels), "problem_type": "single_label_classification"}


def objective(facts: JobFacts) -> Objective:
    """Cross-entropy over the classes."""
    from finetune_trainer.objectives.cross_entropy import cross_entropy

    return cross_entropy(weights=class_weights(facts), smoothing=facts.training.label_smoothing)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Counts of true and predicted classes, and how well the scores rank."""
    from finetune_trainer.evaluate.class_tally import ClassTally

    return ClassTally(tuple(facts.labels))


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{label, score, and scores of all classes where they are few}; scores add up to 1."""
    found = logits(model, [asked(row, facts, tokenizer, max_length) for row in rows], tokenizer.pad_id, max_length)
    return [answer(scores, facts, decision) for scores in found]


def answer(scores: np.ndarray, facts: JobFacts, decision: Decision) -> dict[str, Any]:
    """As `predict` has it. scores: [classes]."""
    return most_likely(softmax(scores), facts.labels)


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Rows that were taken for another class, with both classes and their shares."""
    columns, labels = given.facts.columns, given.facts.labels
    return [
        another_class(each, classes(row, columns)[0], labels, whole_text(row, columns))
        for row, each in zip(rows, kept, strict=True)
    ]


MISTAKES = {
    "certain": "Taken for another class with the highest certainty",
    "unlikely": "Given the smallest share of their own class (the highest loss)",
}


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The class of a text."""
    few = len(facts.labels) <= 20
    names = json.dumps(list(facts.labels), ensure_ascii=False) if few else "model.config.id2label"
    return [
        'inputs = tokenizer("some text", return_tensors="pt", truncation=True)',
        f"labels = {names}",
        "print(labels[model(**inputs).logits.argmax(-1).item()])",
    ]


HEAD = text_head(INFO, config_of_head)

TASK = Task(
    info=INFO,
    head=HEAD,
    columns=columns,
    classes=classes,
    check_row=check_row,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    constant=most_frequent,
    predict=predict,
    answer=answer,
    mistakes=Mistakes(MISTAKES, mistakes),
)
