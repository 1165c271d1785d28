"""Learned tokens: sums of losses and of tokens over rows, for the mean loss and the perplexity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.intervals import ratio_interval
from finetune_trainer.objectives.base import Losses


class TokenTally:
    """Sums over rows: loss l, tokens t, l², t², l·t, rows."""

    def __init__(self) -> None:
        self.vector = np.zeros(6)

    def add(self, losses: Losses, batch: MicroBatch) -> None:
        """Any number of losses a row."""
        sums, counts = (x.double().cpu().numpy() for x in (losses.sums, losses.counts))
        self.vector += [sums.sum(), counts.sum(), sums @ sums, counts @ counts, sums @ counts, (counts > 0).sum()]

    def metrics(self) -> dict[str, float]:
        """loss (nats a token) and perplexity."""
        loss, tokens = self.vector[:2]
        mean = float(loss / tokens) if tokens else math.nan
        return {"loss": mean, "perplexity": _exp(mean)}

    def intervals(self) -> dict[str, float]:
        """Bounds from the spread of rows: their tokens are not independent, rows are."""
        low, high = ratio_interval(*self.vector)
        return {"loss-low": low, "loss-high": high, "perplexity-low": _exp(low), "perplexity-high": _exp(high)}

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> None:
        """Nothing beyond the metrics."""


def _exp(x: float) -> float:
    return math.inf if x >= 700 else math.exp(x)  # nan stays nan
