"""Text classification: a text (or a pair of texts) belongs to one of the classes.

Labels are compared as text in one Unicode form, so that 1 and "1", or true and "true", are the same class in every file
format. An empty text is a valid input; a missing one is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.forms import one_form
from finetune_api.job import Columns
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import Example, Row, Task, missing, pick, text_problem

USUAL = {
    "text": ("text", "sentence", "body", "content", "document"),
    "label": ("label", "labels", "class", "category", "target"),
    "textPair": (),
}
BESIDE = (
    "sentence1",
    "sentence2",
    "question1",
    "question2",
    "premise",
    "hypothesis",
    "text_a",
    "text_b",
    "text_pair",
    "context",
    "question",
)


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles text, label and, only if asked for, textPair. Raises JobError naming the field."""
    w = wanted or Columns()
    text, label = pick("text", w.text, USUAL["text"], found), pick("label", w.label, USUAL["label"], found)
    if text is None:
        raise missing("text", "no column has a usual name for the text", found)
    if label is None:
        raise missing("label", "no column has a usual name for the class", found)
    pair = pick("textPair", w.text_pair, (), found)
    return {"text": text, "label": label} | ({"textPair": pair} if pair else {})


def label_text(value: Any) -> str | None:
    """A class as text: strings as they are, integers, booleans as JSON writes them; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | str) and value != "":
        return str(value)
    return None


def label(row: Row, columns: Mapping[str, str]) -> str | None:
    """The row's class in NFC, or None if it has none that can be used."""
    found = label_text(row.get(columns["label"]))
    return None if found is None else one_form(found)


def check_row(row: Row, columns: Mapping[str, str], labels: Sequence[str] | None = None) -> str | None:
    """What is wrong with the row, or None."""
    for role in ("text", "textPair"):
        if role in columns and (problem := text_problem(row, columns[role])):
            return problem
    found = label(row, columns)
    if found is None or not found.strip():
        value = row.get(columns["label"])
        what = (
            "is missing, null or empty"
            if value is None or (isinstance(value, str) and not value.strip())
            else f"holds {type(value).__name__}, not a string, integer or boolean"
        )
        return f"column {columns['label']!r} {what}; give the row one class"
    if labels is not None and found not in labels:
        shown = ", ".join(repr(name) for name in list(labels)[:10])
        return f"class {found!r} is not among the labels ({shown}); correct it, or add it to spec.data.labels"
    return None


def encode(
    row: Row, columns: Mapping[str, str], labels: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> Example:
    """Encode with the tokenizer's special tokens; the longest text of a pair is cut first.

    The row has passed check_row.
    """
    pair = row[columns["textPair"]] if "textPair" in columns else None
    ids, type_ids, length = tokenizer.encode(row[columns["text"]], pair, max_length)
    name = label(row, columns)
    assert name is not None
    if name not in labels:  # of a profile that was made before names were brought to one form
        name = str(label_text(row[columns["label"]]))
    return Example(ids, labels.index(name), type_ids, length)


HEAD = HeadPolicy(is_new=True, peft_task="SEQ_CLS")

TASK = Task("text-classification", columns, label, check_row, encode, USUAL, HEAD, BESIDE)
