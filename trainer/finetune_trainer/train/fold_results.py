"""What the folds came to so far. All of it is in each checkpoint, in one blob: a line of JSON, then the sums.

The sums of all folds together are one vector, however many folds there are, since a tally is a sum over rows.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import zstandard

from finetune_api.metrics import LOSS
from finetune_api.status import FoldScores
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.tasks.base import Decision

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A fold: its rows, its metrics, how outputs became answers, and the objects with its rows' predictions."""

    rows: int
    metrics: Metrics
    decision: Decision
    predictions: tuple[str, ...] = ()


@dataclass
class FoldResults:
    """Those of the folds that are done, in their order; `pooled`: the sums over all their rows."""

    done: list[FoldResult] = field(default_factory=list)
    pooled: np.ndarray | None = None
    _blob: bytes = b""

    def add(self, tally: Tally, rows: int, decision: Decision, predictions: Sequence[str]) -> None:
        """The next fold was judged, with this tally."""
        self.done.append(FoldResult(rows, tally.metrics(), dict(decision), tuple(predictions)))
        self.pooled = tally.vector.copy() if self.pooled is None else self.pooled + tally.vector
        self._blob = b""

    def mean(self) -> Metrics:
        """Of each metric over the folds."""
        return {name: statistics.fmean(values) for name, values in self._columns().items()}

    def deviation(self) -> Metrics:
        """The sample standard deviation of each metric over the folds; empty before the second."""
        return {name: statistics.stdev(values) for name, values in self._columns().items() if len(values) > 1}

    def scores(self, count: int, metric: str) -> FoldScores:
        """For the status of a job of so many folds; `metric`: the one that chooses."""
        last = self.done[-1].metrics if self.done else {}
        found: dict[str, Any] = {"count": count, "done": len(self.done), "metric": metric}
        for name, values in (("last", last), ("mean", self.mean()), ("deviation", self.deviation())):
            found[name] = values.get(metric)
            if metric != LOSS:
                found["loss_deviation" if name == "deviation" else f"{name}_loss"] = values.get(LOSS)
        return FoldScores(**found)

    def _columns(self) -> dict[str, list[float]]:
        names = self.done[0].metrics if self.done else ()
        return {name: [fold.metrics[name] for fold in self.done] for name in names}

    def blobs(self) -> dict[str, bytes]:
        """For Snapshot.blobs; none before the first fold is done."""
        if self.pooled is not None and not self._blob:
            line = json.dumps([asdict(fold) for fold in self.done]).encode() + b"\n"
            self._blob = zstandard.ZstdCompressor(level=3).compress(line + self.pooled.tobytes())
        return {"folds": self._blob} if self._blob else {}

    @classmethod
    def restore(cls, blobs: dict[str, bytes]) -> Self:
        """Go on from a checkpoint's."""
        blob = blobs.get("folds")
        if blob is None:
            return cls()
        line, _, sums = zstandard.ZstdDecompressor().decompress(blob).partition(b"\n")
        done: list[dict[str, Any]] = json.loads(line)
        return cls(
            [FoldResult(**{**fold, "predictions": tuple(fold["predictions"])}) for fold in done],
            np.frombuffer(sums, dtype=np.float64),
            blob,
        )
