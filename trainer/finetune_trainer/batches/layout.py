"""Which rows of a rank's part of a global batch share a micro-batch.

Only the layout: the rows of a global batch never hang on it (I2), nor does its gradient (I1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune_trainer.batches.collate import collate
from finetune_trainer.batches.example import Example
from finetune_trainer.batches.micro_batch import MicroBatch


def micro_batches(examples: Sequence[Example], size: int, pad_id: int, max_length: int) -> Iterator[MicroBatch]:
    """At most `size` rows each, by length, collated one at a time."""
    for group in by_length(examples, size):
        yield collate(group, pad_id, max_length)


def by_length(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """At most `size` examples each, longest first (so that memory fails early, if at all); equal lengths keep their
    order.
    """
    order = order_by_length(examples)
    for start in range(0, len(order), size):
        yield [examples[i] for i in order[start : start + size]]


def order_by_length(examples: Sequence[Example]) -> list[int]:
    """The examples' places, the longest first."""
    return sorted(range(len(examples)), key=lambda i: -examples[i].rank)
