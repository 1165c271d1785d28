"""One class a row: true and predicted classes counted, and how well the scores rank."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate import score_bins
from finetune_trainer.evaluate.intervals import bootstrap_macro_f1, wilson
from finetune_trainer.evaluate.score_bins import BINS, MOST_CLASSES, auroc, average_precision, mean_where_defined
from finetune_trainer.evaluate.scores import class_scores, macro_f1, mcc, weighted_f1
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

CERTAIN, UNLIKELY = "certain", "unlikely"
"""Rows that are taken for another class, by how likely that is held to be, and by how unlikely the true one."""
COUNTED = ("loss", "accuracy", "macro-f1", "weighted-f1", "mcc")
RANKED = (*COUNTED, "auroc", "average-precision")


class ClassTally:
    """Sum of losses; confusion matrix [true, predicted]; of each class the rows without and with it by its score.

    Of more than MOST_CLASSES classes only the true, the predicted and the right ones are counted.
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        n = len(labels)
        self.few = n <= MOST_CLASSES
        self.vector = np.zeros(1 + (n * n + 2 * n * BINS if self.few else 3 * n))

    @classmethod
    def of(cls, labels: tuple[str, ...], confusion: np.ndarray, loss: float = 0.0) -> Self:
        """From counts, for tests and tools."""
        tally = cls(labels)
        tally.vector[0] = loss
        tally.vector[1 : 1 + confusion.size] = confusion.reshape(-1)
        return tally

    @property
    def confusion(self) -> np.ndarray:
        """Counts [true class, predicted class], where the classes are few."""
        assert self.few
        n = len(self.labels)
        return self.vector[1 : 1 + n * n].reshape(n, n)

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each class: rows that are right, that belong to it, that are taken for it."""
        if self.few:
            return self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        hits, true, predicted = self.vector[1:].reshape(3, len(self.labels))
        return hits, true, predicted

    @property
    def ranked(self) -> np.ndarray:
        """[2, classes, BINS]: rows without and with each class by its score, where the classes are few."""
        n = len(self.labels)
        return self.vector[1 + n * n :].reshape(2, n, BINS)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [rows, classes], labels [rows]."""
        assert losses.outputs is not None
        n, true, predicted = len(self.labels), batch.labels, losses.outputs.argmax(-1)
        self.vector[0] += float(losses.sums.double().sum())
        if worst is not None:
            _tell(worst, losses.outputs, batch)
        if not self.few:
            parts = (true[true == predicted], true, predicted)
            self.vector[1:] += np.concatenate([_counted(part, n) for part in parts])
            return
        self.vector[1 : 1 + n * n] += _counted(true * n + predicted, n * n)
        bins = score_bins.bins_of(log_odds(losses.outputs))
        self.vector[1 + n * n :] += score_bins.count(bins, F.one_hot(true, n))

    def metrics(self) -> dict[str, float]:
        """loss, accuracy, macro-f1, weighted-f1, mcc; auroc (one class against the rest) and average-precision in the
        mean over classes, where these are few.
        """
        hits, true, predicted = self.counts
        rows = true.sum()
        if not rows:
            return dict.fromkeys(RANKED if self.few else COUNTED, math.nan)
        found = {
            "loss": float(self.vector[0] / rows),
            "accuracy": float(hits.sum() / rows),
            "macro-f1": macro_f1(hits, true, predicted),
            "weighted-f1": weighted_f1(hits, true, predicted),
            "mcc": mcc(hits, true, predicted),
        }
        if self.few:
            found["auroc"] = mean_where_defined(auroc(*self.ranked), 0.5)
            found["average-precision"] = mean_where_defined(average_precision(*self.ranked), 0.0)
        return found

    def intervals(self) -> dict[str, float]:
        """Accuracy by Wilson's interval; macro-f1 by a bootstrap over rows, where the classes are few."""
        hits, true, _ = self.counts
        low, high = wilson(hits.sum(), true.sum())
        found = {"accuracy-low": low, "accuracy-high": high}
        if self.few:
            found["macro-f1-low"], found["macro-f1-high"] = bootstrap_macro_f1(self.confusion)
        return found

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, Any]:
        """Scores by class and the confusion matrix."""
        found: dict[str, Any] = {"classes": class_scores(*self.counts, self.labels), "labels": list(self.labels)}
        if self.few:
            return {**found, "confusion": self.confusion.astype(int).tolist()}
        more = f"With more than {MOST_CLASSES} classes neither which is taken for which is kept, nor how scores rank;"
        return {**found, "notes": [f"{more} macro-f1 has no interval then."]}


def _tell(worst: Worst, outputs: torch.Tensor, batch: MicroBatch) -> None:
    """Values: the class that a row is taken for, its share and that of the true one."""
    scores = outputs.double().log_softmax(-1)
    best, said = scores.max(-1)
    own = scores.gather(1, batch.labels[:, None])[:, 0]
    each = zip(batch.examples, batch.labels.tolist(), said.tolist(), best.tolist(), own.tolist(), strict=True)
    for example, true, taken, likely, unlikely in each:
        if taken != true:
            row, values = worst.row_of(example), (taken, math.exp(likely), math.exp(unlikely))
            worst.take(CERTAIN, row, likely, -unlikely, values)
            worst.take(UNLIKELY, row, -unlikely, likely, values)


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Of each class against all others, from scores [rows, classes]: log p/(1 - p), without a loss near 0 and 1."""
    scores = logits.double()
    shares = scores.softmax(-1)
    away = 1 - shares
    top = shares.argmax(-1, keepdim=True)
    away.scatter_(-1, top, shares.scatter(-1, top, 0.0).sum(-1, keepdim=True))  # 1 - p loses all digits near 1
    return scores.log_softmax(-1) - away.log()


def _counted(values: torch.Tensor, size: int) -> np.ndarray:
    return torch.bincount(values, minlength=size).double().cpu().numpy()
