"""What an evaluation counts: a flat vector of sums that ranks add up, and the metrics that follow from it.

Everything a metric needs is a sum over rows, so memory does not grow with the rows, and any split over micro-batches
and ranks gives the same metrics. Each kind of tally has a file of its own; a task says which is its.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Losses


class Tally(Protocol):
    """Sums over rows."""

    vector: np.ndarray  # float64, to be added over ranks

    def add(self, losses: Losses, batch: MicroBatch, worst: Worst | None = None) -> None:
        """Count a micro-batch, by what its objective made of it; tell `worst` of the answers that are wrong."""

    def metrics(self) -> dict[str, float]:
        """The metrics by name."""

    def intervals(self) -> dict[str, float]:
        """Bounds of the 95 % confidence intervals, as <metric>-low and <metric>-high."""

    def decision(self) -> dict[str, Any]:
        """How outputs should become answers, by these rows (thresholds, say); plain JSON, empty: as usual."""

    def report(self) -> dict[str, Any] | None:
        """Details for people: `classes` (scores of each), `words` for what these are (see `Result.class_words`) and
        `confusion`; None where there are none."""
