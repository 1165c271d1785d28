"""Classification of texts (or pairs of texts) that belong to any number of classes.

A row names its classes in a list, or has a column of 0 and 1 for each class. A row without a class is as good as any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.forms import one_form
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_api.values import listed_in
from finetune_trainer.batches.example import ClassesExample
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.answers import FEW, by_name, logits, sigmoid
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, Row, Sampling, Task, role_of
from finetune_trainer.tasks.class_weights import weights_beside
from finetune_trainer.tasks.columns import by_entry, missing, pick
from finetune_trainer.tasks.constants import Constant, each_by_itself
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

INFO = TASKS["multi-label-classification"]
USUAL = {role.name: role.usual for role in INFO.roles}
SWITCHES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""What a column of one class may hold, as lower-case text."""
EVEN = 0.5
UNDECIDED: Decision = {"thresholds": None}
"""Where no validation row chose any: each class counts from an even share."""


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles text, textPair if asked for, and labels, or labelColumns if asked for. Raises JobError naming the field."""
    w = wanted or Columns()
    texts = text_columns(INFO, found, w)
    if w.label_columns is not None:
        named = by_entry({"labelColumns": w.label_columns})
        return texts | {entry: str(pick(entry, name, (), found)) for entry, name in named.items()}
    labels = pick("labels", w.labels, USUAL["labels"], found)
    if labels is None:
        raise missing("labels", "no column has a usual name for a list of classes", found)
    return texts | {"labels": labels}


def known_classes(columns: Mapping[str, str]) -> tuple[str, ...]:
    """Columns of one class each are named like it."""
    return tuple(name for entry, name in columns.items() if role_of(entry) == "labelColumns")


def classes(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The row's classes in NFC, each once; none where they cannot be used."""
    if "labels" not in columns:
        return tuple(name for name in known_classes(columns) if _switch(row.get(name)))
    names = map(label_text, listed_in(row.get(columns["labels"])) or ())
    return tuple(dict.fromkeys(one_form(name) for name in names if name is not None))


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None."""
    if problem := texts_problem(row, columns):
        return problem
    if "labels" in columns:
        return _list_problem(row.get(columns["labels"]), columns["labels"])
    return next(filter(None, (_switch_problem(row.get(name), name) for name in known_classes(columns))), None)


def _list_problem(value: Any, column: str) -> str | None:
    names = listed_in(value)
    if names is None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return f"column {column!r} is missing, null or empty; write [] where the row has no class"
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            return f'column {column!r} holds no valid JSON list; write it as ["a", "b"]'
        what = f"{value[:40]!r}" if isinstance(value, str) else type(value).__name__
        return (
            f'column {column!r} holds {what}, not a list of classes; write ["a", "b"], or set spec.task:'
            " text-classification, where a row has one class"
        )
    for name in names:
        if (text := label_text(name)) is None or not text.strip():
            what = "null or empty" if name is None or isinstance(name, str) else f"{type(name).__name__}"
            return f"column {column!r} lists a class that is {what}; each must be a string, integer or boolean"
    return None


def _switch(value: Any) -> bool | None:
    """Whether a column of one class says that the row has it; None where it says neither."""
    if isinstance(value, str):
        return SWITCHES.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _switch_problem(value: Any, column: str) -> str | None:
    if _switch(value) is not None:
        return None
    if value is None or (isinstance(value, str) and not value.strip()):
        what = "is missing, null or empty"
    else:
        what = f"holds {value!r:.40}" if isinstance(value, str | int | float) else f"holds {type(value).__name__}"
    return f"column {column!r} {what}; write 1 or true where the row has this class, else 0 or false"


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> tuple[ClassesExample]:
    """Encode with the tokenizer's special tokens. The row has passed check_row."""
    having = [0] * len(facts.labels)
    for name in classes(row, facts.columns):
        having[facts.places[name]] = 1
    return (ClassesExample(*tokens(row, facts, tokenizer, max_length), having),)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """The classes, in the order of the model's outputs."""
    return {**named_outputs(labels), "problem_type": "multi_label_classification"}


def objective(facts: JobFacts) -> Objective:
    """Each class against its absence."""
    from finetune_trainer.objectives.binary_cross_entropy import binary_cross_entropy

    return binary_cross_entropy(weights_beside(facts))


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """Hits of each class by the thresholds that were chosen, and how well the scores rank; the rows choose where none
    were chosen before.
    """
    from finetune_trainer.evaluate.multi_label_tally import CHOOSE, MultiLabelTally

    return MultiLabelTally(tuple(facts.labels), decision.get("thresholds", CHOOSE))


def constant(facts: JobFacts) -> Constant | None:
    """Each class by itself, from an even share."""
    return each_by_itself(facts, UNDECIDED)


def start(facts: JobFacts) -> Sequence[float] | None:
    """How often each class occurs: most are rare, and would be learned to be so first. Where they weigh as much as
    their absence, that is even.
    """
    found = None if facts.training.class_weights else constant(facts)
    return None if found is None else found.outputs


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    """{labels, and scores of these, or of all classes where they are few}; each score is a share by itself."""
    found = logits(model, [asked(row, facts, tokenizer, max_length) for row in rows], tokenizer.pad_id, max_length)
    return [answer(scores, facts, decision) for scores in found]


def answer(scores: np.ndarray, facts: JobFacts, decision: Decision) -> dict[str, Any]:
    """As `predict` has it. scores: [classes]."""
    labels, thresholds = facts.labels, decision.get("thresholds") or [EVEN] * len(facts.labels)
    shares = sigmoid(scores)
    said = [labels[i] for i, threshold in enumerate(thresholds) if shares[i] >= threshold]
    named, kept = by_name(labels, shares), set(said)
    shown = named if len(labels) <= FEW else {name: share for name, share in named.items() if name in kept}
    return {"labels": said, "scores": shown}


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Of each row the class that is furthest off, and its share."""
    found = []
    for row, each in zip(rows, kept, strict=True):
        label, share = each.values
        true = ", ".join(classes(row, given.facts.columns)) or "(none)"
        named = given.facts.labels[int(label)]
        said = named if each.kind == "invented" else f"not {named}"
        found.append(Mistake(whole_text(row, given.facts.columns), true, said, {"share": share}))
    return found


MISTAKES = {
    "invented": "Said to have a class that they do not have, by its share",
    "missed": "Not said to have a class that they have, by its share",
}


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The classes of a text, by the thresholds that were chosen on the validation rows."""
    few, thresholds = len(facts.labels) <= 20, decision.get("thresholds")
    names = json.dumps(list(facts.labels), ensure_ascii=False) if few else "list(model.config.id2label.values())"
    shares = json.dumps(thresholds) if thresholds else f"[{EVEN}] * {len(facts.labels)}"
    if thresholds and not few:
        shares = 'json.load(open(f"{folder}/task.json"))["decision"]["thresholds"]'
    return [
        *(["import json", ""] if thresholds and not few else []),
        f"labels = {names}",
        f"thresholds = {shares}" + ("  # chosen on the validation rows" if thresholds else ""),
        'inputs = tokenizer("some text", return_tensors="pt", truncation=True)',
        "shares = model(**inputs).logits.sigmoid()[0].tolist()",
        "print([label for label, share, least in zip(labels, shares, thresholds) if share >= least])",
    ]


TASK = Task(
    info=INFO,
    head=text_head(INFO, config_of_head),
    columns=columns,
    classes=classes,
    known_classes=known_classes,
    check_row=check_row,
    encode=encode,
    objective=objective,
    tally=tally,
    usage=usage,
    constant=constant,
    start=start,
    undecided=UNDECIDED,
    predict=predict,
    answer=answer,
    mistakes=Mistakes(MISTAKES, mistakes),
)
