"""Answers found in texts: exact match and F1 of the best answer over all windows of a row, and when to give none.

A row is answered with nothing where the score of "no answer" is above that of its best span by more than a threshold.
The scores under every threshold of a grid follow from sums: rows are counted by their margin (the one score less the
other) in bins between the grid's points, once for the case that they are answered and once for the case that they are
not. So a threshold of the grid is chosen, and judged, exactly, and memory does not grow with the rows: beside the sums
only rows of which windows are still to come are held. Under a threshold that was chosen before, rows are counted by it
alone, in the first bin or the last, so that sums under different ones add up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.best_answer import Gathered
from finetune_trainer.evaluate.intervals import ratio_interval, wilson
from finetune_trainer.evaluate.squad import scores
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

GRID = np.arange(-32 * 16, 32 * 16 + 1) / 16
"""The thresholds: every 1/16 from -32 to 32, in units of logits."""
NEVER = len(GRID)
"""The place of a threshold above all margins, at which every row is answered."""
BINS = len(GRID) + 1
FIRST = 0
"""The bin of rows that are answered, under a threshold that was chosen before; the others are in the last one."""
HAS, HAS_NONE = 0, 1
"""Rows with a right answer, and rows without."""
ROWS, EXACT, F1, F1_SQUARED, RIGHT_WITHOUT = range(5)
"""What is summed over the rows of a bin: the rows; exact match, F1 and its square if they are answered; and how many
are right if they are not (there exact match and F1 are the same)."""
WRONG_ANSWER = "wrong"
"""Rows by the F1 of their answer, among equals by its score."""
CHOOSE = "choose"
"""In the place of a threshold: the rows that are counted choose it."""


class AnswerTally:
    """Sum of losses, their weight, and [HAS or HAS_NONE, what, bin of the margin]."""

    def __init__(self, most: int, threshold: float | str | None = CHOOSE) -> None:
        """`most`: tokens of an answer. `threshold`: a point of the grid, None (every row is answered), or CHOOSE."""
        self.threshold = threshold
        self.vector = np.zeros(2 + 2 * 5 * BINS)
        self._gathered = Gathered(most)

    @property
    def sums(self) -> np.ndarray:
        """A view of the vector, [2, 5, BINS]."""
        return self.vector[2:].reshape(2, 5, BINS)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """Any windows of any rows; the examples of the batch say which."""
        self.vector[:2] += [float(losses.sums.double().sum()), float(losses.counts.double().sum())]
        for asked, best in self._gathered.add(losses, batch):
            text, margin = asked.context[best.start : best.end], best.null - best.score
            self.count(margin, text, asked.answers)
            if worst is not None and self.threshold != CHOOSE:
                none = self.threshold is not None and margin > float(self.threshold)
                f1 = scores("" if none else text, asked.answers)[1]
                if f1 < 1:
                    start, end, score = (-1, -1, best.null) if none else (best.start, best.end, best.score)
                    worst.take(WRONG_ANSWER, asked.key, 1 - f1, score, (start, end, score))

    def count(self, margin: float, text: str, right: tuple[str, ...]) -> None:
        """A row: how far "no answer" is above its best span, that span's text, and the right answers."""
        exact, f1 = scores(text, right)
        place = int(np.searchsorted(GRID, margin))  # GRID[place - 1] < margin <= GRID[place]
        if self.threshold != CHOOSE:
            place = FIRST if place <= self.place else NEVER
        self.sums[HAS if right else HAS_NONE, :, place] += [1, exact, f1, f1 * f1, scores("", right)[0]]

    def _at(self, place: int, sums: np.ndarray | None = None) -> np.ndarray:
        """[..., (rows, exact match, F1, F1 squared, answered)] under a threshold, from sums [..., 5, BINS]."""
        sums = self.sums if sums is None else sums
        answered, left = sums[..., : place + 1].sum(-1), sums[..., place + 1 :].sum(-1)
        without = left[..., RIGHT_WITHOUT]
        rows = answered[..., ROWS] + left[..., ROWS]
        scored = [answered[..., what] + without for what in (EXACT, F1, F1_SQUARED)]
        return np.stack([rows, *scored, answered[..., ROWS]], -1)

    @property
    def place(self) -> int:
        """Of the threshold in force on the grid."""
        if self.threshold is None:
            return NEVER
        if self.threshold == CHOOSE:
            return self._best()
        return int(np.abs(GRID - float(self.threshold)).argmin())

    @property
    def _last_answered(self) -> int:
        """The last bin whose rows are answered."""
        return self.place if self.threshold == CHOOSE else FIRST

    def _best(self) -> int:
        """Where F1 is highest, then exact match, then nearest to 0. Without a row that has no answer: NEVER."""
        if not self.sums[HAS_NONE, ROWS].sum():
            return NEVER
        sums = self.sums.sum(0)
        gains = np.cumsum(sums - sums[RIGHT_WITHOUT], -1).round(9)
        key = (-np.abs(np.append(GRID, np.inf)), gains[EXACT], gains[F1])
        return int(np.lexsort(key)[-1])

    def metrics(self) -> dict[str, float]:
        """loss, answer-f1, exact-match."""
        assert not self._gathered.open, "windows of a row are missing"
        loss, weight = self.vector[:2]
        rows, exact, f1 = self._at(self._last_answered).sum(0)[:3]
        return {
            "loss": float(loss / weight) if weight else math.nan,
            "answer-f1": float(f1 / rows) if rows else math.nan,
            "exact-match": float(exact / rows) if rows else math.nan,
        }

    def intervals(self) -> dict[str, float]:
        """Of exact match by Wilson's interval, of F1 from the spread of the rows."""
        rows, exact, f1, squared, _ = self._at(self._last_answered).sum(0)
        low, high = ratio_interval(f1, rows, squared, rows, f1, rows)
        exact_low, exact_high = wilson(exact, rows)
        return {
            "answer-f1-low": max(0.0, low),
            "answer-f1-high": min(1.0, high),
            "exact-match-low": exact_low,
            "exact-match-high": exact_high,
        }

    def decision(self) -> dict[str, Any]:
        """The threshold in force; None where every row is answered."""
        place = self.place
        return {"noAnswerThreshold": None if place == NEVER else float(GRID[place])}

    def report(self) -> dict[str, Any]:
        """Rows with and rows without a right answer apart."""
        parts = self._at(self._last_answered)
        names = ("rows with an answer", "rows without an answer")
        rows = [
            (name, f"{int(rows):,}", f"{exact / rows:.3f}", f"{f1 / rows:.3f}", f"{answered / rows:.1%}")
            for name, (rows, exact, f1, _, answered) in zip(names, parts, strict=True)
            if rows
        ]
        head = ("", "rows", "exact match", "F1", "answered")
        return {"tables": [{"title": "Answers", "head": head, "rows": rows}]}
