"""The best answer of a row, over all its windows in whatever order they come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.span_example import Asked, SpanExample
from finetune_trainer.evaluate.best_span import best_spans
from finetune_trainer.objectives.base import Losses


@dataclass(slots=True)
class Best:
    """Of the windows seen so far: the lowest score of "no answer", and the best span's score and characters.

    As the reference scripts for SQuAD 2.0 have it: a row has no answer only where no window has one.
    """

    seen: int = 0
    null: float = math.inf
    score: float = -math.inf
    start: int = 0
    end: int = 0


class Gathered:
    """Rows of which windows are still to come; the others are given out, so that memory does not grow with the rows."""

    def __init__(self, most: int) -> None:
        """`most`: tokens of an answer."""
        self.most = most
        self.open: dict[int, Best] = {}

    def add(self, losses: Losses, batch: MicroBatch) -> Iterator[tuple[Asked, Best]]:
        """Count windows; the rows that are whole with them. outputs are the logits [windows, 2, tokens]."""
        assert losses.outputs is not None
        windows = [example for example in batch.examples if isinstance(example, SpanExample)]
        nulls = np.array([window.null for window in windows])
        found = best_spans(losses.outputs.double().cpu().numpy(), nulls, self.most)
        for i, window in enumerate(windows):
            row = self.open.setdefault(window.asked.key, Best())
            row.seen += 1
            row.null = min(row.null, float(found.null[i]))
            if found.score[i] > row.score:
                row.score = float(found.score[i])
                row.start, row.end = window.text(int(found.start[i]), int(found.end[i]))
            if row.seen == window.asked.windows:
                yield window.asked, self.open.pop(window.asked.key)
