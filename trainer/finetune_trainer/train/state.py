"""What changes from step to step. All of it is in a checkpoint, and nothing else is (I3)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from finetune_api.status import Best
from finetune_trainer.checkpoint import Snapshot
from finetune_trainer.stream import Cursor
from finetune_trainer.stream.splits import SET

Before = dict[str, dict[str, dict[str, float]]]
"""What the result is compared with -> split -> figures."""
_STORED_NAMES = {"skipped_rows": "dropped"}
"""Fields that checkpoints hold under another name."""
_STORED_IF_ANY = ("decision", "best_decision", "intervals", "best_intervals", "before", "round")
"""Fields that most runs have nothing in."""


def _of_splits(before: Before) -> Before:
    """Without the sets, which may be others: the rows of the splits are the same where a checkpoint is taken over."""
    return {
        kind: {split: figures for split, figures in found.items() if not split.startswith(SET)}
        for kind, found in before.items()
    }


@dataclass
class TrainState:
    """The state of the run between two steps; JSON but for the tensors, which stay in the model and the optimizer."""

    step: int = 0
    round: int = 0  # the number of the one that is being made
    cursor: Cursor = field(default_factory=Cursor)
    best: Best | None = None
    best_evaluation: dict[str, float] | None = None  # all figures of that step
    best_decision: dict[str, Any] = field(default_factory=dict)  # and how outputs become answers then
    stale: int = 0  # evaluations without improvement, for early stopping
    evaluated: int = -1  # the last step that was evaluated
    evaluation: dict[str, float] | None = None
    decision: dict[str, Any] = field(default_factory=dict)  # how outputs become answers, by the last evaluation
    intervals: dict[str, float] = field(default_factory=dict)  # bounds of its figures
    best_intervals: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    learned: float = 0  # classes or tokens in this epoch
    skipped_rows: dict[str, int] = field(default_factory=dict)  # rows that nothing can be learned from, by split
    samples: list[dict[str, Any]] = field(default_factory=list)  # texts of the model before tuning
    before: Before = field(default_factory=dict)  # what the result is compared with
    attempts: list[dict[str, Any]] = field(default_factory=list)  # those before this one

    def meta(self) -> dict[str, Any]:
        """All but step and cursor as JSON."""
        plain = {
            _STORED_NAMES.get(f.name, f.name): getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("step", "cursor", "best") and (f.name not in _STORED_IF_ANY or getattr(self, f.name))
        }
        return plain | {"best": self.best and self.best.to_json()}

    def next_round(self) -> None:
        """The one that is being made is done: what counts within a round starts anew."""
        self.round, self.cursor, self.learned = self.round + 1, Cursor(), 0

    def handed_over(self) -> TrainState:
        """The state for another job, which trains on: what was judged, and whether that was enough, was the other
        job's.
        """
        return dataclasses.replace(
            self,
            best=None,
            best_evaluation=None,
            best_decision={},
            stale=0,
            evaluated=-1,
            evaluation=None,
            decision={},
            intervals={},
            best_intervals={},
            before=_of_splits(self.before),
            stopped_early=False,
            attempts=[],
        )

    @classmethod
    def restored(cls, snapshot: Snapshot) -> TrainState:
        """From a checkpoint."""
        meta = dict(snapshot.meta["run"])
        best = meta.pop("best")
        renamed = {name: meta.pop(stored) for name, stored in _STORED_NAMES.items() if stored in meta}
        return cls(
            step=snapshot.step,
            cursor=Cursor(**snapshot.cursor),
            best=Best.model_validate_json(json.dumps(best)) if best else None,
            **renamed,
            **meta,
        )
