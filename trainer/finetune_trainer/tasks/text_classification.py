"""Text classification: a text (or a pair of texts) belongs to one of the classes.

Labels are compared as text in one Unicode form, so that 1 and "1", or true and "true", are the same class in every file
format. An empty text is a valid input; a missing one is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.forms import one_form
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.example import ClassExample, PlainExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.answers import FEW, by_name, logits, rounded, softmax
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Row, Task
from finetune_trainer.tasks.columns import missing, pick, text_problem

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["text-classification"]
USUAL = {role.name: role.usual for role in INFO.roles}


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


def classes(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The row's class in NFC; none if it has none that can be used."""
    found = label_text(row.get(columns["label"]))
    return () if found is None else (one_form(found),)


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    for role in ("text", "textPair"):
        if role in columns and (problem := text_problem(row, columns[role])):
            return problem
    if not any(name.strip() for name in classes(row, columns)):
        value = row.get(columns["label"])
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
    columns, labels = facts.columns, facts.labels
    pair = row[columns["textPair"]] if "textPair" in columns else None
    ids, type_ids, length = tokenizer.encode(row[columns["text"]], pair, max_length)
    (name,) = classes(row, columns)
    if name not in labels:  # of a profile that was made before names were brought to one form
        name = str(label_text(row[columns["label"]]))
    return (ClassExample(ids, type_ids, length, labels.index(name)),)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """The classes, in the order of the model's outputs."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def refusal(config: Mapping[str, Any], source: str) -> str | None:
    """XLNet pads on the left, and its classifier answers at the last position whatever stands there."""
    if config["model_type"] == "xlnet" and config.get("summary_type", "last") == "last":
        return "the model's classifier answers at the last position, which is padding in all rows but the longest"
    return None


def objective(facts: JobFacts) -> Objective:
    """Cross-entropy over the classes."""
    from finetune_trainer.objectives.cross_entropy import cross_entropy

    return cross_entropy(smoothing=facts.training.label_smoothing)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """The confusion matrix."""
    from finetune_trainer.evaluate.class_tally import ClassTally

    return ClassTally(tuple(facts.labels))


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{label, score, and scores of all classes where they are few}; scores add up to 1."""
    found = logits(model, [asked(row, facts, tokenizer, max_length) for row in rows], tokenizer.pad_id, max_length)
    return [_answer(softmax(scores), facts.labels) for scores in found]


def asked(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int) -> PlainExample:
    """What the model is given of a row."""
    columns = facts.columns
    pair = row[columns["textPair"]] if "textPair" in columns else None
    return PlainExample(*tokenizer.encode(row[columns["text"]], pair, max_length))


def _answer(shares: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    best = int(shares.argmax())
    scores = {"scores": by_name(labels, shares)} if len(labels) <= FEW else {}
    return {"label": labels[best], "score": rounded(shares[best]), **scores}


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The class of a text."""
    few = len(facts.labels) <= 20
    names = json.dumps(list(facts.labels), ensure_ascii=False) if few else "model.config.id2label"
    return [
        'inputs = tokenizer("some text", return_tensors="pt", truncation=True)',
        f"labels = {names}",
        "print(labels[model(**inputs).logits.argmax(-1).item()])",
    ]


HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"\w+ForSequenceClassification"),
    auto_class="AutoModelForSequenceClassification",
    peft_task="SEQ_CLS",
    is_new=INFO.new_head,
    config=config_of_head,
    refusal=refusal,
)

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
    predict=predict,
)
