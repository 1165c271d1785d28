"""What rank 0 reports while it trains: progress, rates, history and seconds by cause. The other ranks report nothing.

Figures are computed here and nowhere else, so that the loop stays free of them. The clock never changes what is
trained.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_api.status import Progress, Resolved
from finetune_trainer.report.reporter import Reporter
from finetune_trainer.train.state import TrainState
from finetune_trainer.train.step import Stepped

RATE_SECONDS = 60.0
"""Rates and the time to the end are means over the steps of so many seconds."""


class TrainingProgress:
    """Computes what the Reporter of rank 0 sends; other ranks have no Reporter and only keep the seconds."""

    def __init__(self, config: RunConfig, rank: int, snapshot: Path | None, started: float) -> None:
        self._reporter = Reporter(config, stage=Stage.LOADING, snapshot_file=snapshot) if rank == 0 else None
        self._attempt, self._interval = config.attempt, config.reporting.interval_seconds
        self._seconds: dict[str, float] = {"import": round(time.monotonic() - started, 3)}
        self._clocks: list[tuple[str, float]] = []
        self._recent: deque[tuple[float, int, int]] = deque()  # (end of the step, rows, tokens)
        self._losses: deque[tuple[float, float]] = deque()
        self._before: list[dict[str, Any]] = []
        self._from_step = 0
        self._step = 0

    def report(self, **fields: Any) -> None:
        """Fields of the contract's Report."""
        if self._reporter:
            self._reporter.update(**fields)

    def stage(self, stage: Stage) -> None:
        """What is being done now."""
        self.report(stage=stage, seconds=self.seconds())

    @contextlib.contextmanager
    def clock(self, cause: str) -> Iterator[None]:
        """Seconds that go into `cause`; a clock within another takes its seconds from the outer one."""
        self._tick()
        self._clocks.append((cause, time.monotonic()))
        try:
            yield
        finally:
            self._tick()
            self._clocks.pop()
            if self._clocks:
                self._clocks[-1] = (self._clocks[-1][0], time.monotonic())

    def _tick(self) -> None:
        if self._clocks:
            cause, since = self._clocks[-1]
            now = time.monotonic()
            self._seconds[cause] = self._seconds.get(cause, 0.0) + now - since
            self._clocks[-1] = (cause, now)

    def seconds(self) -> dict[str, float]:
        """Seconds by cause so far."""
        self._tick()
        return {cause: round(value, 3) for cause, value in self._seconds.items()}

    def stepped(
        self, step: int, done: Stepped, rate: float, resolved: Resolved, rows: int, *, epoch: float, part: str | None
    ) -> None:
        """A step was made; `epoch`, `part`: as the contract's Progress has them."""
        if not self._reporter:
            return
        now = time.monotonic()
        self._step = step
        self._recent.append((now, rows, done.tokens))
        while len(self._recent) > 2 and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()
        if done.learned:
            self._losses.append((now, done.loss))
        while len(self._losses) > 1 and self._losses[0][0] < now - self._interval:
            self._losses.popleft()
        total = resolved.total_steps or step
        span = now - self._recent[0][0]
        steps = len(self._recent) - 1
        per_second = [sum(entry[i] for entry in list(self._recent)[1:]) / span if span > 0 else None for i in (1, 2)]
        self._reporter.update(
            progress=Progress(
                step=step,
                total_steps=total,
                epoch=round(epoch, 4),
                percent=round(min(100.0, 100.0 * step / total), 2),
                part=part,
                loss=sum(loss for _, loss in self._losses) / len(self._losses) if self._losses else None,
                learning_rate=rate,
                grad_norm=done.norm,
                rows_per_second=per_second[0],
                tokens_per_second=per_second[1],
                eta_seconds=span / steps * (total - step) if steps else None,
            ),
            seconds=self.seconds(),
        )
        if done.learned:
            self._reporter.point(step, loss=done.loss)

    def evaluated(self, state: TrainState, metric: str) -> None:
        """The validation rows were judged."""
        if self._reporter and state.evaluation:
            shown = {metric: state.evaluation[metric], "eval_loss": state.evaluation["loss"]}
            self._reporter.point(state.step, metrics=shown)
            self._reporter.update(evaluation=state.evaluation, best=state.best, seconds=self.seconds())

    def judged_before(self, metrics: dict[str, float], metric: str) -> None:
        """The validation rows were judged before the first step."""
        shown = {name: metrics[key] for name, key in ((metric, metric), ("eval_loss", "loss"))}
        if self._reporter and all(map(math.isfinite, shown.values())):
            self._reporter.point(0, metrics=shown)

    def resumed(self, state: TrainState, history: dict[str, Any]) -> None:
        """The run goes on from a checkpoint."""
        self._from_step = self._step = state.step
        self._before = list(state.attempts)  # one may have the same number: a queue manager had stopped it
        if self._reporter:
            self._reporter.restore_history(history)
            fields: dict[str, Any] = {"resumed_from_step": state.step, "best": state.best}
            self._reporter.update(**fields, **({"evaluation": state.evaluation} if state.evaluation else {}))

    def history(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self._reporter.history_state() if self._reporter else {}

    def attempts(self) -> list[dict[str, Any]]:
        """This attempt and those before it, for the checkpoint and the report."""
        return [
            *self._before,
            {"number": self._attempt, "fromStep": self._from_step, "lastStep": self._step, "seconds": self.seconds()},
        ]

    @property
    def last_report(self) -> Any:
        """The latest Report; None but on rank 0."""
        return self._reporter.snapshot if self._reporter else None

    def close(self) -> None:
        """Send the last report."""
        if self._reporter:
            self._reporter.update(seconds=self.seconds())
            self._reporter.close()
