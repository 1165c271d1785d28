"""One number a row: how far off the predictions are, and how well they go with the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.intervals import Z, ratio_interval
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

OFF = "off"
"""Rows by how far off their number is."""
BINS = 512
"""Predictions and truths are ranked in so many bins each."""
INSIDE = 400
"""Bins over the range of the training rows, which the others lie beyond on both sides."""
DRAWN = 32
"""Bins a side of what the report draws."""


class RegressionTally:
    """Sums over rows: loss, rows, |e|, e², e⁴ of the errors e, p, t, p², t², pt of predictions and truths from `middle`
    on; then counts [prediction, truth] in bins. `low` and `high` bound the training rows' numbers.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = low, high
        self.width = (high - low) / INSIDE or 1.0
        self.start = (low + high) / 2 - self.width * BINS / 2
        self.middle = (low + high) / 2
        self.vector = np.zeros(10 + BINS * BINS)

    @property
    def joint(self) -> np.ndarray:
        """Rows [bin of the prediction, bin of the truth]."""
        return self.vector[10:].reshape(BINS, BINS)

    def bins_of(self, values: np.ndarray) -> np.ndarray:
        """Values in the middle of neighbouring bins differ by `width`; those beyond the last bin count as in it."""
        return np.clip(np.floor((values - self.start) / self.width), 0, BINS - 1).astype(np.int64)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [rows, 1], labels [rows]."""
        assert losses.outputs is not None
        predicted, true = (_plain(values) for values in (losses.outputs.squeeze(1), batch.labels))
        e, p, t = predicted - true, predicted - self.middle, true - self.middle
        loss = float(losses.sums.double().sum())
        sums = [np.abs(e).sum(), e @ e, (e**2) @ (e**2), p.sum(), t.sum(), p @ p, t @ t, p @ t]
        self.vector[:10] += [loss, len(e), *sums]
        if worst is not None:
            for example, missed, said in zip(batch.examples, np.abs(e).tolist(), predicted.tolist(), strict=True):
                if missed > 0:
                    worst.take(OFF, worst.row_of(example), missed, 0.0, (said,))
        np.add.at(self.vector, 10 + self.bins_of(predicted) * BINS + self.bins_of(true), 1)

    def metrics(self) -> dict[str, float]:
        """loss (the mean square, in the objective's unit), rmse, mae, pearson, spearman."""
        loss, rows, absolute, squares = self.vector[:4]
        if not rows:
            return dict.fromkeys(("loss", "rmse", "mae", "pearson", "spearman"), math.nan)
        return {
            "loss": float(loss / rows),
            "rmse": float(math.sqrt(squares / rows)),
            "mae": float(absolute / rows),
            "pearson": self._pearson(),
            "spearman": spearman(self.joint),
        }

    def _pearson(self) -> float:
        rows, (p, t, pp, tt, pt) = self.vector[1], self.vector[5:10]
        return correlation(rows, p, t, pp, tt, pt)

    def intervals(self) -> dict[str, float]:
        """rmse and mae by the spread of the errors, pearson by Fisher's z (1921)."""
        _, rows, absolute, squares, fourths = self.vector[:5]
        low, high = ratio_interval(squares, rows, fourths, rows, squares, rows)
        mae_low, mae_high = ratio_interval(absolute, rows, squares, rows, absolute, rows)
        r = min(max(self._pearson(), -1 + 1e-12), 1 - 1e-12)
        half = Z / math.sqrt(rows - 3) if rows > 3 else math.inf
        return {
            "rmse-low": math.sqrt(max(0.0, low)),
            "rmse-high": math.sqrt(max(0.0, high)),
            "mae-low": max(0.0, mae_low),
            "mae-high": mae_high,
            "pearson-low": math.tanh(math.atanh(r) - half),
            "pearson-high": math.tanh(math.atanh(r) + half),
        }

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> dict[str, Any]:
        """`pairs`: predictions and truths in few bins, over the range in which there are any."""
        seen = self.joint.nonzero()
        if not len(seen[0]):
            return {}
        first, last = int(min(map(np.min, seen))), int(max(map(np.max, seen))) + 1
        edges = np.linspace(first, last, min(DRAWN, last - first) + 1).astype(int)
        counts = np.add.reduceat(np.add.reduceat(self.joint, edges[:-1], 0), edges[:-1], 1)  # nothing lies beyond
        bounds = [self.start + self.width * float(edge) for edge in edges]
        return {"pairs": {"bounds": bounds, "counts": counts.astype(int).tolist()}}


def spearman(joint: np.ndarray) -> float:
    """The correlation of ranks, ties at their mean rank, from counts [prediction, truth]; 0 where either is always the
    same.
    """
    by_p, by_t = joint.sum(1), joint.sum(0)
    p, t = _ranks(by_p), _ranks(by_t)
    return correlation(joint.sum(), by_p @ p, by_t @ t, by_p @ p**2, by_t @ t**2, float(p @ joint @ t))


def _ranks(counts: np.ndarray) -> np.ndarray:
    """The mean rank of each bin's rows, from the middle on."""
    ranks = np.cumsum(counts) - counts + (counts + 1) / 2
    return np.asarray(ranks - (counts.sum() + 1) / 2)


def correlation(rows: float, p: float, t: float, pp: float, tt: float, pt: float) -> float:
    """Pearson's, from sums; 0 where either is always the same, for then nothing goes with anything."""
    if not rows:
        return 0.0
    p_spread, t_spread = pp - p * p / rows, tt - t * t / rows
    if p_spread <= 1e-14 * pp or t_spread <= 1e-14 * tt:
        return 0.0
    return float(min(1.0, max(-1.0, (pt - p * t / rows) / math.sqrt(p_spread * t_spread))))


def _plain(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu().numpy())
