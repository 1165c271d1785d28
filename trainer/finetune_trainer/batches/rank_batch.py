"""A rank's part of a global batch, laid out and ready for the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.batches.example import Example
from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.batches.micro_batch import MicroBatch


@dataclass(frozen=True, slots=True)
class RankBatch:
    """Its micro-batches, how many losses and tokens they hold, and rows with nothing to learn (they weigh nothing)."""

    batches: Sequence[MicroBatch]
    learned: float
    tokens: int
    empty: int = 0


def lay_out(rows: Sequence[Sequence[Example]], size: int, pad_id: int, max_length: int) -> RankBatch:
    """From the examples of each row, none where nothing of it can be learned."""
    examples = [example for row in rows for example in row]
    return RankBatch(
        list(micro_batches(examples, size, pad_id, max_length)),
        learned=sum(example.losses for example in examples),
        tokens=sum(example.tokens for example in examples),
        empty=sum(not row for row in rows),
    )
