"""Tokens that the tokenizer knows and the model has no embedding of: a row that holds one is bad, and never an index
error.

Such tokens are mostly ones that somebody added (an image's place in a text model, a pad token); as long as none occurs
the model is as good as any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.batches.example import Example, TextExample
from finetune_trainer.model.facts import FIELD
from finetune_trainer.tasks.base import Row, Task


def within_embeddings(task: Task, beyond: Mapping[str, int], embeddings: int) -> Task:
    """The task, but rows are bad that hold one of the tokens `beyond` (token -> id) the model's embeddings."""
    if not beyond:
        return task

    def check_tokens(row: Row, columns: Mapping[str, str]) -> str | None:
        for column in dict.fromkeys(columns.values()):
            for text in _texts(row.get(column)):
                for token, number in beyond.items():
                    if token in text:
                        return (
                            f"column {column!r} holds {token!r}, which the tokenizer takes for token {number}, and the"
                            f" model has embeddings for 0 to {embeddings - 1} only; reword it, or leave the row out"
                        )
        return None

    def encode(row: Row, *arguments: Any) -> Sequence[Example]:
        examples = task.encode(row, *arguments)
        texts = (example for example in examples if isinstance(example, TextExample))
        worst = max((token for text in texts for token in text.input_ids), default=0)
        if worst >= embeddings:
            raise JobError(
                Reason.UNSUPPORTED_MODEL,
                f"rows hold token {worst}, which the tokenizer or its chat template puts there, and the model has"
                f" embeddings for 0 to {embeddings - 1} only",
                field=FIELD,
                hint="Use the tokenizer that the model was made with, or resize the model's embeddings.",
            )
        return examples

    return dataclasses.replace(task, check_tokens=check_tokens, encode=encode)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
