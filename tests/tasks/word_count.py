"""A task that stands here alone: a model learns how many words a text has. One row and one value, as any task's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_api.sources import Columns
from finetune_api.tasks import Role, TaskInfo
from finetune_trainer.batches.example import PlainExample, TextExample
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.objectives.base import Losses
from finetune_trainer.tasks.answers import logits
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn, Row, Task
from finetune_trainer.tasks.columns import missing, pick, text_problem

INFO = TaskInfo(
    name="word-count",
    kind="counting",
    alternatives=((Role("text", usual=("text",)),),),
    beside=(),
    labels=False,
    new_head=True,
    metrics=("loss",),
    default_metric="loss",
    learning_rate=1e-3,
    default_max_length=64,
    pipeline_tag="text-classification",
    example_model="hf://nowhere/nothing",
    example_call="('one two')",
)


@dataclass(frozen=True, slots=True)
class CountExample(TextExample):
    """A text and its number of words, in tens."""

    count: float

    @property
    def losses(self) -> int:
        return 1

    def labels(self, width: int) -> float:
        return self.count


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    text = pick("text", wanted and wanted.text, ("text",), found)
    if text is None:
        raise missing("text", "no column has a usual name for the text", found)
    return {"text": text}


def classes(row: Row, columns: Mapping[str, str]) -> tuple[()]:
    return ()


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    return text_problem(row, columns["text"])


def encode(row: Row, facts: JobFacts, tokenizer: Tokenizer, max_length: int, draw: Draw) -> list[CountExample]:
    """Two examples of a row: its text, and the first half of it."""
    words = row[facts.columns["text"]].split()
    if not words:
        raise NothingToLearn("the text has no words; write some")
    found = []
    for part in (words, words[: len(words) // 2]):
        ids, types, length = tokenizer.encode(" ".join(part), None, max_length)
        found.append(CountExample(ids, types, length, len(part) / 10))
    return found


def squared_error(model: Any, batch: MicroBatch) -> Losses:
    outputs = model(**batch.inputs).logits[:, 0]
    sums = (outputs.float() - batch.labels) ** 2
    return Losses(sums, sums.new_ones(len(sums)), outputs)


class ErrorTally:
    """Sum of squared errors, examples."""

    def __init__(self) -> None:
        self.vector = np.zeros(2)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        self.vector += [float(losses.sums.double().sum()), batch.rows]

    def metrics(self) -> dict[str, float]:
        return {"loss": float(self.vector[0] / self.vector[1])}

    def intervals(self) -> dict[str, float]:
        return {}

    def decision(self) -> dict[str, Any]:
        return {}

    def report(self) -> None:
        return None


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Any, tokenizer: Tokenizer, max_length: int
) -> list[dict[str, Any]]:
    texts = [PlainExample(*tokenizer.encode(row[facts.columns["text"]], None, max_length)) for row in rows]
    return [{"words": 10 * float(found[0])} for found in logits(model, texts, tokenizer.pad_id, max_length)]


TASK = Task(
    info=INFO,
    head=HeadPolicy(
        serves=INFO.name,
        class_name=re.compile(r"\w+ForSequenceClassification"),
        auto_class="AutoModelForSequenceClassification",
        peft_task="SEQ_CLS",
        is_new=True,
        config=lambda labels: {"num_labels": 1, "problem_type": "regression"},
    ),
    columns=columns,
    classes=classes,
    check_row=check_row,
    encode=encode,
    objective=lambda facts: squared_error,
    tally=lambda facts, decision: ErrorTally(),
    predict=predict,
    usage=lambda facts, decision: ['print(10 * model(**tokenizer("some text", return_tensors="pt")).logits.item())'],
)
