"""Loss and metrics over the steps, never more points than the contract takes, whatever the number of steps.

Loss points are kept where the step is a multiple of a stride that doubles when room runs out; evaluation points go
first and are thinned only when they alone are too many. The newest point is always there. State is small JSON that
lives in the checkpoint, so a resumed run goes on with the history that it had at that step (I3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from finetune_api.status import HISTORY_POINTS, Point

_EVALUATIONS = 63
"""Most evaluation points; loss points share what is left of HISTORY_POINTS - 1, and the newest point has a place of its
own.
"""


class History:
    """Points by step; `points()` gives at most HISTORY_POINTS, in order."""

    def __init__(self) -> None:
        self._losses: dict[int, float] = {}
        self._evaluations: dict[int, dict[str, float]] = {}
        self._loss_stride = 1
        self._evaluation_stride = 1
        self._evaluated = 0  # evaluations seen, kept or not
        self._ordinals: dict[int, int] = {}
        self._newest: tuple[int, float | None, dict[str, float] | None] | None = None

    def add(self, step: int, loss: float | None, metrics: Mapping[str, float] | None) -> None:
        """Add what is known at `step`; a second call for the same step completes the first."""
        loss = loss if loss is not None and math.isfinite(loss) else None
        kept = dict([(k[:64], float(v)) for k, v in (metrics or {}).items() if math.isfinite(v)][:2]) or None
        if self._newest is not None and self._newest[0] == step:
            loss = loss if loss is not None else self._newest[1]
            kept = kept or self._newest[2]
        self._newest = (step, loss, kept)
        if kept:
            if step not in self._ordinals:
                self._ordinals[step] = self._evaluated
                self._evaluated += 1
            if self._ordinals[step] % self._evaluation_stride == 0:
                self._evaluations[step] = kept
        if loss is not None and (step % self._loss_stride == 0 or step in self._evaluations):
            self._losses[step] = loss
        self._thin()

    def points(self) -> tuple[Point, ...]:
        """The history, by step."""
        losses, evaluations = dict(self._losses), dict(self._evaluations)
        if self._newest is not None:
            step, loss, metrics = self._newest
            if loss is not None:
                losses[step] = loss
            if metrics is not None:
                evaluations[step] = metrics
        steps = sorted({*losses, *evaluations})
        assert len(steps) <= HISTORY_POINTS
        return tuple(Point(step=s, loss=losses.get(s), metrics=evaluations.get(s)) for s in steps)

    def to_json(self) -> dict[str, Any]:
        """All of the state, as JSON."""
        return {
            "losses": [[s, v] for s, v in self._losses.items()],
            "evaluations": [[s, v] for s, v in self._evaluations.items()],
            "ordinals": [[s, n] for s, n in self._ordinals.items()],
            "strides": [self._loss_stride, self._evaluation_stride],
            "evaluated": self._evaluated,
            "newest": list(self._newest) if self._newest else None,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        self = cls()
        self._losses = {int(s): v for s, v in state["losses"]}
        self._evaluations = {int(s): dict(v) for s, v in state["evaluations"]}
        self._ordinals = {int(s): n for s, n in state["ordinals"]}
        self._loss_stride, self._evaluation_stride = state["strides"]
        self._evaluated = state["evaluated"]
        self._newest = tuple(state["newest"]) if state["newest"] else None
        return self

    def _thin(self) -> None:
        while len(self._evaluations) > _EVALUATIONS:
            self._evaluation_stride *= 2
            self._ordinals = {s: n for s, n in self._ordinals.items() if n % self._evaluation_stride == 0}
            gone = [s for s in self._evaluations if s not in self._ordinals]
            for step in gone:
                del self._evaluations[step]
                if step % self._loss_stride:
                    self._losses.pop(step, None)
        while len({*self._losses, *self._evaluations}) > HISTORY_POINTS - 1:
            self._loss_stride *= 2
            self._losses = {
                s: v for s, v in self._losses.items() if s % self._loss_stride == 0 or s in self._evaluations
            }
