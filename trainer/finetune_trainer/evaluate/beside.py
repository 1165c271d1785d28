"""Two tallies filled in one pass over the rows: the model's, and that of an objective which needs no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses, Objective


class Beside:
    """As `tally`, and `other` counts the same micro-batches by `objective`; `add_up` brings its ranks together."""

    def __init__(self, tally: Tally, other: Tally, objective: Objective) -> None:
        self.tally, self.other, self.objective = tally, other, objective
        self.vector: np.ndarray = tally.vector

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """Both count."""
        self.tally.add(losses, batch, worst)
        self.other.add(self.objective(None, batch), batch)

    def add_up(self, ranks: Ranks) -> None:
        """The other's sums over all ranks. Collective."""
        self.other.vector[:] = ranks.sum(self.other.vector.tolist())

    def metrics(self) -> dict[str, float]:
        """The model's, as all that follows."""
        return self.tally.metrics()

    def intervals(self) -> dict[str, float]:
        return self.tally.intervals()

    def decision(self) -> dict[str, Any]:
        return self.tally.decision()

    def report(self) -> dict[str, Any] | None:
        return self.tally.report()
