"""What an evaluation counts: a flat vector of sums that ranks add up, and the metrics that follow from it.

Everything a metric needs is a sum over rows, so memory does not grow with the rows, and any split over micro-batches
and
ranks gives the same metrics. Classification keeps its confusion matrix; language models keep sums of losses and tokens.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, Self

import numpy as np
import torch

from finetune_api.job import TaskName
from finetune_trainer.batches.micro_batches import row_losses
from finetune_trainer.evaluate.intervals import bootstrap_macro_f1, ratio_interval, wilson
from finetune_trainer.evaluate.scores import accuracy, class_scores, macro_f1


class Tally(Protocol):
    """Sums over rows."""

    vector: np.ndarray  # float64, to be added over ranks

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a micro-batch."""

    def metrics(self) -> dict[str, float]:
        """The metrics by name."""

    def intervals(self) -> dict[str, float]:
        """Bounds of the 95 % confidence intervals, as <metric>-low and <metric>-high."""

    def report(self) -> dict[str, Any] | None:
        """Details for people: scores by class and the confusion matrix; None where there are none."""


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

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """logits [rows, classes], labels [rows]."""
        losses, _ = row_losses(logits, labels)
        cells = labels * len(self.labels) + logits.argmax(-1)
        self.vector[:-1] += torch.bincount(cells, minlength=self.vector.size - 1).double().cpu().numpy()
        self.vector[-1] += float(losses.double().sum())

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

    def report(self) -> dict[str, Any]:
        """Scores by class and the confusion matrix."""
        return {
            "classes": class_scores(self.confusion, self.labels),
            "confusion": self.confusion.astype(int).tolist(),
            "labels": list(self.labels),
        }


class LanguageTally:
    """Sums over rows: loss l, tokens t, l², t², l·t, rows."""

    def __init__(self) -> None:
        self.vector = np.zeros(6)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """logits [rows, tokens, words], labels [rows, tokens]."""
        losses, counts = (x.double().cpu().numpy() for x in row_losses(logits, labels))
        self.vector += [
            losses.sum(),
            counts.sum(),
            losses @ losses,
            counts @ counts,
            losses @ counts,
            (counts > 0).sum(),
        ]

    def metrics(self) -> dict[str, float]:
        """loss (nats a token) and perplexity."""
        loss, tokens = self.vector[:2]
        mean = float(loss / tokens) if tokens else math.nan
        return {"loss": mean, "perplexity": _exp(mean)}

    def intervals(self) -> dict[str, float]:
        """Bounds from the spread of rows: their tokens are not independent, rows are."""
        low, high = ratio_interval(*self.vector)
        return {"loss-low": low, "loss-high": high, "perplexity-low": _exp(low), "perplexity-high": _exp(high)}

    def report(self) -> None:
        """Nothing beyond the metrics."""


def _exp(x: float) -> float:
    return math.inf if x >= 700 else math.exp(x)  # nan stays nan


def tally_for(task: TaskName, labels: tuple[str, ...] | None) -> Tally:
    """An empty tally for the task."""
    if task == "text-classification":
        assert labels
        return ClassTally(labels)
    return LanguageTally()
