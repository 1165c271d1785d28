"""Learned tokens: sums of losses and of tokens over rows, for the mean loss and the perplexity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.intervals import ratio_interval
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses

SURPRISING = "surprising"
"""Rows by their loss a token."""


class TokenTally:
    """Sums over rows: loss l, tokens t, l², t², l·t, rows."""

    def __init__(self) -> None:
        self.vector = np.zeros(6)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """Any number of losses a row."""
        self.vector += self.sums(losses)
        tell_surprising(worst, losses, batch)

    @staticmethod
    def sums(losses: Losses) -> list[float]:
        """What a micro-batch adds."""
        sums, counts = (x.double().cpu().numpy() for x in (losses.sums, losses.counts))
        return [sums.sum(), counts.sum(), sums @ sums, counts @ counts, sums @ counts, (counts > 0).sum()]

    def metrics(self) -> dict[str, float]:
        """loss (nats a token) and perplexity."""
        loss, tokens = self.vector[:2]
        mean = float(loss / tokens) if tokens else math.nan
        return {"loss": mean, "perplexity": perplexity(mean)}

    def intervals(self) -> dict[str, float]:
        """Bounds from the spread of rows: their tokens are not independent, rows are."""
        low, high = ratio_interval(*self.vector[:6])
        return {
            "loss-low": low,
            "loss-high": high,
            "perplexity-low": perplexity(low),
            "perplexity-high": perplexity(high),
        }

    def decision(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}

    def report(self) -> None:
        """Nothing beyond the metrics."""


def tell_surprising(worst: Worst | None, losses: Losses, batch: MicroBatch) -> None:
    """The loss a token of each row, over all of its examples."""
    if worst is not None:
        for example, loss, tokens in zip(batch.examples, losses.sums.tolist(), losses.counts.tolist(), strict=True):
            worst.add(SURPRISING, example, loss, float(tokens))


def perplexity(loss: float) -> float:
    """Of a mean loss in nats; infinite where it is too large for a number."""
    return math.inf if loss >= 700 else math.exp(loss)  # nan stays nan
