"""Evaluations of the model in training: when one is due, over all ranks, and what follows: the best, early stopping."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.status import Best
from finetune_api.tuning import EarlyStopping
from finetune_trainer.batches.example import Example
from finetune_trainer.checkpoint.best import gain, is_better
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.evaluate.beside import Beside
from finetune_trainer.evaluate.loop import evaluate
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.evaluate.worst import Worst
from finetune_trainer.objectives.base import Objective
from finetune_trainer.objectives.constant import constantly
from finetune_trainer.stream.splits import rows_called
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.skipped_rows import SkippedRows
from finetune_trainer.train.state import TrainState

NONE: Decision = {}


@dataclass(frozen=True)
class Evaluator:
    """Judges the model on the rows of a split. `metric` is the one that chooses."""

    model: Any
    ranks: Ranks
    data: TrainingData
    skipped_rows: SkippedRows
    metric: str
    stop: Callable[[], bool]

    def judge(
        self,
        split: str,
        step: int,
        decision: Decision = NONE,
        *,
        strict: bool = True,
        constant: Tally | None = None,
        worst: Worst | None = None,
        most: int | None = None,
    ) -> Tally:
        """Over all ranks. `decision`: how outputs become answers; `strict`: a loss that is no number is an error;
        `constant`: counts the constant answer on the same rows; `worst` keeps this rank's worst answers; `most`: a
        fixed draw of so many rows only. Collective.

        Raises Stopped, NothingToLearn or NonFiniteLoss on all ranks together.
        """
        data, empty = self.data, 0

        def examples() -> Iterator[Example]:
            nonlocal empty
            for number, encoded in encodings:
                empty += not encoded
                if worst is not None:
                    worst.expect(number, [example.told for example in encoded])
                yield from encoded

        objective = data.task.objective(data.facts.judging)
        tally = data.task.tally(data.facts, decision)
        beside = self._beside(tally, constant, objective)
        with contextlib.closing(data.judged(split, most)) as encodings:
            evaluate(
                self.model,
                examples(),
                objective,
                beside or tally,
                self.ranks,
                size=data.micro_batch_size,
                pad_id=data.tokenizer.pad_id,
                max_length=data.max_length,
                stop=self.stop,
                worst=worst,
            )
        if beside is not None:
            beside.add_up(self.ranks)
        if most is None:
            self.skipped_rows.add_evaluation(split, data.rows_in(split), int(self.ranks.sum([empty])[0]))
        if strict:
            check_finite(tally.metrics(), self.metric, split, step)
        return tally

    def constant_tally(self) -> Tally | None:
        """An empty one for the constant answer; None where the task has none."""
        data = self.data
        return None if data.constant is None else data.task.tally(data.facts, data.constant.decision)

    def _beside(self, tally: Tally, constant: Tally | None, objective: Objective) -> Beside | None:
        if constant is None or self.data.constant is None:
            return None
        return Beside(
            tally, constant, constantly(objective, self.data.constant.outputs, tokens=self.data.constant.tokens)
        )


def check_finite(metrics: dict[str, float], metric: str, split: str, step: int) -> None:
    """A model whose loss, or whose metric that chooses, is no number cannot be judged, nor be the best.

    Raises NonFiniteLoss.
    """
    for name in ("loss", metric):
        if not math.isfinite(metrics[name]):
            also = "" if name == "loss" else f", at a loss of {metrics['loss']:.6g}"
            raise JobError(
                Reason.NON_FINITE_LOSS,
                f"the {name} on the {rows_called(split)} became {metrics[name]} at step {step}{also}",
            )


def is_due(state: TrainState, step: int, every: int, *, last: bool) -> bool:
    """After every so many steps of the round, of which `step` are made, and after the last; once for each step."""
    return step > 0 and state.evaluated != state.step and (step % every == 0 or last)


def take_metrics(
    state: TrainState,
    metrics: dict[str, float],
    decision: Decision,
    metric: str,
    rule: EarlyStopping | None,
    intervals: dict[str, float] | None = None,
) -> bool:
    """Note this step's evaluation; whether it is the best so far. Without a gain for too long the run stops early."""
    state.evaluated, state.evaluation, state.decision = state.step, metrics, dict(decision)
    state.intervals = intervals or {}
    improved = is_better(metrics, state.best_evaluation, metric)
    enough = gain(metrics, state.best_evaluation, metric) > (rule.min_delta if rule else 0.0)
    state.stale = 0 if enough else state.stale + 1
    state.stopped_early = rule is not None and state.stale >= rule.patience
    if improved:
        state.best, state.best_evaluation = Best(step=state.step, metric=metric, value=metrics[metric]), metrics
        state.best_decision, state.best_intervals = state.decision, state.intervals
    return improved
