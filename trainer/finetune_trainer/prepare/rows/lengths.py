"""Lengths of the sampled rows in tokens, before any cut.

Lengths are estimated: tokenising everything takes minutes for a million rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_trainer.batches.example import Example
from finetune_trainer.model.processor import Processor
from finetune_trainer.prepare.rows.sample import SampledRow
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn, Task
from finetune_trainer.tasks.ends import learned_ends

UNCUT = 1 << 30


@dataclass(frozen=True, slots=True)
class Measured:
    """Lengths in tokens of the sampled rows before any cut, 0 where even the whole row has nothing to learn."""

    rows: Sequence[SampledRow]
    lengths: np.ndarray
    troubles: Mapping[int, str]
    hidden: Mapping[int, int]
    """row -> parts of it that are not learned."""
    ends: tuple[int, ...]
    """Tokens that are learned as the end of a turn or a text, the most frequent first."""

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def quantile(self, share: float) -> int:
        """The smallest length that so many rows do not exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf")) if len(self.lengths) else 0


def measure(rows: Sequence[SampledRow], task: Task, facts: JobFacts, tokenizer: Processor) -> Measured:
    """Encode the sample without cutting."""
    lengths = np.zeros(len(rows), dtype=np.int64)
    troubles: dict[int, str] = {}
    hidden: dict[int, int] = {}

    def examples() -> Iterator[Example]:
        for n, row in enumerate(rows):
            try:
                encoded = task.encode(row.values, facts, tokenizer, UNCUT, Draw(row=n))
            except NothingToLearn as error:
                troubles[n] = str(error)
                continue
            lengths[n] = max(example.full_length for example in encoded)
            if parts := sum(example.hidden for example in encoded):
                hidden[n] = parts
            yield from encoded

    ends = learned_ends(examples(), tokenizer.special_ids)
    return Measured(rows, lengths, troubles, hidden, ends)
