"""Entities found whole: precision, recall and F1 over all and by type, and the share of words with the right tag.

An entity is right if its words and its type are (conlleval, Tjong Kim Sang 2002); figures equal those of seqeval in its
default mode, with 0 where it divides by nothing. A row is counted when all of its windows have been seen, so that what
is kept besides the sums are the answers to rows of which some are still to come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import eq
from typing import Any

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.tagged import TaggedExample, TaggedRow
from finetune_trainer.evaluate.intervals import ratio_interval
from finetune_trainer.evaluate.tag_tally import WRONG, answers_by_example, ratio
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

Found = Callable[[Sequence[int]], set[tuple[int, int, int]]]
"""Numbers of outputs, one a unit -> entities: first unit, last unit (exclusive), number of the type."""


class EntityTally:
    """Sums: of each type right, true and found entities; loss, losses; of rows the squares and products of `_row`."""

    def __init__(self, types: Sequence[str], found: Found) -> None:
        self.types = tuple(types)
        self._found = found
        self._waiting: dict[int, tuple[TaggedRow, dict[int, tuple[list[int], int]]]] = {}
        self.vector = np.zeros(3 * len(self.types) + 2 + 1 + 5 + 25)

    @property
    def _by_type(self) -> np.ndarray:
        """[right, true, found] by type."""
        return self.vector[: 3 * len(self.types)].reshape(3, -1)

    @property
    def _rows(self) -> tuple[float, np.ndarray, np.ndarray]:
        """How many there are, the sums of their five figures, and those of the figures' products."""
        rest = self.vector[3 * len(self.types) + 2 :]
        return float(rest[0]), rest[1:6], rest[6:].reshape(5, 5)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [losses, outputs], by examples and positions."""
        assert losses.outputs is not None
        sums = self.vector[3 * len(self.types) :]
        sums[:2] += [float(losses.sums.double().sum()), float(losses.counts.sum())]
        for example, answers in answers_by_example(losses.outputs, batch):
            wrong = self._take(example, answers)
            if worst is not None and wrong:
                worst.take(WRONG, worst.row_of(example), wrong)

    def _take(self, example: TaggedExample, answers: list[int]) -> int:
        """How many entities of the row are wrong or missed; 0 while windows of it are to come."""
        row = example.row
        _, parts = self._waiting.setdefault(id(row), (row, {}))
        parts[example.first] = (answers, sum(map(eq, answers, example.learned)))
        if len(parts) == row.parts:
            del self._waiting[id(row)]
            whole = [number for _, (numbers, _) in sorted(parts.items()) for number in numbers]
            return self._count(row, whole, sum(hits for _, hits in parts.values()))
        return 0

    def _count(self, row: TaggedRow, answers: list[int], hits: int) -> int:
        true, found = set(row.spans), self._found(answers)
        figures = np.zeros((3, len(self.types)))
        for place, entities in enumerate((true & found, true, found)):
            for _, _, kind in entities:
                figures[place, kind] += 1
        for kind in row.lost_spans:
            figures[1, kind] += 1
        self._by_type[:] += figures
        own = np.array([*figures.sum(1), hits, row.units + len(row.lost_tags)])
        rest = self.vector[3 * len(self.types) + 2 :]
        rest[0] += 1
        rest[1:6] += own
        rest[6:] += np.outer(own, own).reshape(-1)
        return len(true ^ found) + len(row.lost_spans)

    def metrics(self) -> dict[str, float]:
        """loss, f1, precision and recall of entities, macro-f1 over types that occur, accuracy of words."""
        loss, losses = self.vector[3 * len(self.types) :][:2]
        _, (right, true, found, hits, words), _ = self._rows
        by_type = self._by_type
        seen = by_type[1] + by_type[2] > 0
        return {
            "loss": float(loss / losses) if losses else math.nan,
            "f1": ratio(2 * right, true + found),
            "precision": ratio(right, found),
            "recall": ratio(right, true),
            "macro-f1": float(self._f1()[seen].mean()) if seen.any() else 0.0,
            "accuracy": float(hits / words) if words else math.nan,
        }

    def intervals(self) -> dict[str, float]:
        """Bounds from the spread of rows: the words of a row are not independent, rows are."""
        rows, sums, products = self._rows
        of = {"f1": ([2, 0, 0, 0, 0], [0, 1, 1, 0, 0]), "precision": ([1, 0, 0, 0, 0], [0, 0, 1, 0, 0])}
        of |= {"recall": ([1, 0, 0, 0, 0], [0, 1, 0, 0, 0]), "accuracy": ([0, 0, 0, 1, 0], [0, 0, 0, 0, 1])}
        bounds: dict[str, float] = {}
        for name, (above, below) in of.items():
            y, x = np.array(above), np.array(below)
            low, high = ratio_interval(y @ sums, x @ sums, y @ products @ y, x @ products @ x, y @ products @ x, rows)
            whole = math.isnan(low)
            bounds |= {f"{name}-low": 0.0 if whole else max(0.0, low), f"{name}-high": 1.0 if whole else min(1.0, high)}
        return bounds

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, Any]:
        """Scores by type."""
        right, true, found = self._by_type
        return {
            "words": ("Entities", "type", "entities"),
            "classes": [
                {"label": name, "precision": ratio(r, p), "recall": ratio(r, t), "f1": float(f), "support": int(t)}
                for name, r, t, p, f in zip(self.types, right, true, found, self._f1(), strict=True)
            ],
        }

    def _f1(self) -> np.ndarray:
        right, true, found = self._by_type
        return np.divide(2 * right, true + found, out=np.zeros(len(self.types)), where=true + found > 0)
