"""One class a row: the confusion matrix, and the metrics that follow from it."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.intervals import bootstrap_macro_f1, wilson
from finetune_trainer.evaluate.scores import accuracy, class_scores, macro_f1
from finetune_trainer.objectives.base import Losses


class ClassTally:
    """Confusion matrix [true, predicted], sum of losses, rows."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        n = len(labels)
        self.vector = np.zeros(n * n + 1)

    @classmethod
    def of(cls, labels: tuple[str, ...], confusion: np.ndarray, loss: float = 0.0) -> Self:
        """From counts, for tests and tools."""
        tally = cls(labels)
        tally.vector = np.append(confusion.reshape(-1).astype(float), loss)
        return tally

    @property
    def confusion(self) -> np.ndarray:
        """Counts [true class, predicted class]."""
        n = len(self.labels)
        return self.vector[:-1].reshape(n, n)

    def add(self, losses: Losses, batch: MicroBatch) -> None:
        """outputs [rows, classes], labels [rows]."""
        assert losses.outputs is not None
        cells = batch.labels * len(self.labels) + losses.outputs.argmax(-1)
        self.vector[:-1] += torch.bincount(cells, minlength=self.vector.size - 1).double().cpu().numpy()
        self.vector[-1] += float(losses.sums.double().sum())

    def metrics(self) -> dict[str, float]:
        """loss, accuracy, macro-f1."""
        rows = self.confusion.sum()
        return {
            "loss": float(self.vector[-1] / rows) if rows else math.nan,
            "accuracy": accuracy(self.confusion),
            "macro-f1": macro_f1(self.confusion),
        }

    def intervals(self) -> dict[str, float]:
        """Accuracy by Wilson's interval, macro-f1 by a bootstrap over rows."""
        rows = self.confusion.sum()
        accuracy_low, accuracy_high = wilson(self.confusion.trace(), rows)
        f1_low, f1_high = bootstrap_macro_f1(self.confusion)
        return {
            "accuracy-low": accuracy_low,
            "accuracy-high": accuracy_high,
            "macro-f1-low": f1_low,
            "macro-f1-high": f1_high,
        }

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, Any]:
        """Scores by class and the confusion matrix."""
        return {
            "classes": class_scores(self.confusion, self.labels),
            "confusion": self.confusion.astype(int).tolist(),
            "labels": list(self.labels),
        }
