"""One class a row of many: the confusion matrix, and how often the true class is among the likeliest few."""

from __future__ import annotations

import math

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.class_tally import ClassTally
from finetune_trainer.evaluate.intervals import wilson
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

TOP = 5


class TopTally:
    """A ClassTally, and the rows whose class is among the TOP likeliest; of equal scores the first ones count."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._classes = ClassTally(labels)
        self.vector = np.zeros(self._classes.vector.size + 1)
        self._classes.vector = self.vector[:-1]  # a view: ranks add up the whole

    @property
    def rows(self) -> float:
        """How many were counted."""
        return float(self._classes.counts[1].sum())

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [rows, classes], labels [rows]."""
        self._classes.add(losses, batch, worst)
        assert losses.outputs is not None
        likeliest = losses.outputs.sort(dim=-1, descending=True, stable=True).indices[:, :TOP]
        self.vector[-1] += int((likeliest == batch.labels[:, None]).any(-1).sum())

    def metrics(self) -> dict[str, float]:
        """loss, accuracy and macro-f1 as a ClassTally has them, and top-5-accuracy."""
        found = self._classes.metrics()
        kept = {name: found[name] for name in ("loss", "accuracy", "macro-f1")}
        return {**kept, f"top-{TOP}-accuracy": self.vector[-1] / self.rows if self.rows else math.nan}

    def intervals(self) -> dict[str, float]:
        """Those of a ClassTally, and Wilson's."""
        low, high = wilson(self.vector[-1], self.rows)
        name = f"top-{TOP}-accuracy"
        return {**self._classes.intervals(), f"{name}-low": low, f"{name}-high": high}

    def decision(self) -> dict[str, object]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, object]:
        """As a ClassTally's."""
        return self._classes.report()
