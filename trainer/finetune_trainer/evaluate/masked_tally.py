"""Hidden tokens: their losses, as of any learned tokens, and how many were guessed right."""

from __future__ import annotations

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.intervals import ratio_interval
from finetune_trainer.evaluate.token_tally import TokenTally, tell_surprising
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses


class MaskedTally(TokenTally):
    """Sums over rows: those of a TokenTally; then right guesses h, h², h·t."""

    def __init__(self) -> None:
        self.vector = np.zeros(9)

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """outputs [rows]: right guesses."""
        assert losses.outputs is not None
        right, counts = (x.double().cpu().numpy() for x in (losses.outputs, losses.counts))
        self.vector += [*self.sums(losses), right.sum(), right @ right, right @ counts]
        tell_surprising(worst, losses, batch)

    def metrics(self) -> dict[str, float]:
        """loss (nats a token), perplexity, and accuracy (of tokens)."""
        tokens, right = self.vector[1], self.vector[6]
        return {**super().metrics(), "accuracy": float(right / tokens) if tokens else float("nan")}

    def intervals(self) -> dict[str, float]:
        """Bounds from the spread of rows."""
        _, tokens, _, squares, _, rows, right, right_squares, both = self.vector
        low, high = ratio_interval(right, tokens, right_squares, squares, both, rows)
        return {**super().intervals(), "accuracy-low": max(0.0, low), "accuracy-high": min(1.0, high)}
