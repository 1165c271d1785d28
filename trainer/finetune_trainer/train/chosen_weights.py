"""Which weights a run leaves: those of its last step, of its best checkpoint, or the mean of the best ones (a soup,
Wortsman et al. 2022), where that is no worse than the best alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.checkpoint import CheckpointRef
from finetune_trainer.checkpoint.best import rank
from finetune_trainer.optimizers.average import PREFIX
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.before import figures
from finetune_trainer.train.session import Session


@dataclass(frozen=True, slots=True)
class Chosen:
    """`decision`: how the outputs of these weights become answers. `validation`: their figures on the validation rows,
    with bounds; empty without such rows. `note`: what came of averaging the best, if that was
    asked for; `averaged`: whether the weights are that average.
    """

    decision: Decision
    validation: Mapping[str, float]
    note: str | None = None
    averaged: bool = False


def take_best(s: Session) -> Chosen:
    """Put the weights that are to be the output into the model; all saves are committed first. Raises Stopped.

    Collective.
    """
    chosen = _chosen(s)
    s.fit_head()
    return chosen


def _chosen(s: Session) -> Chosen:
    if s.first:
        with s.progress.clock("checkpoint"):
            s.checkpoints.close()
    keep_best, state = s.config.checkpoints.keep_best, s.state
    best = _refs(s)[:1] if keep_best else []
    of_best = keep_best and state.best is not None
    decision = (state.best_decision if of_best else state.decision) or s.data.task.undecided
    evaluation, intervals = (
        (state.best_evaluation, state.best_intervals) if of_best else (state.evaluation, state.intervals)
    )
    tried = _averaged(s) if s.config.checkpoints.average_best else None
    if tried is not None and tried.averaged:
        return tried
    if best and (tried is not None or best[0].step != state.step):
        s.strategy.load_weights(_judged(s, best[0]))
    elif s.average is not None:
        s.average.exchange()
    return Chosen(decision, {**(evaluation or {}), **intervals}, tried.note if tried else None)


def _averaged(s: Session) -> Chosen | None:
    """Try the mean of the best: it lies in the model afterwards, whatever it is worth.

    None where there is nothing to average.
    """
    metric, state, refs = s.evaluator.metric, s.state, _refs(s)
    if len(refs) < 2 or state.best_evaluation is None:
        return None
    s.strategy.load_weights(_mean(s, refs))
    s.fit_head()
    with s.progress.clock("evaluate"):
        tally = s.evaluator.judge("validation", state.step)
    metrics, best = tally.metrics(), state.best_evaluation
    steps = ", ".join(str(step) for step in sorted(ref.step for ref in refs))
    told = f"{metric} {metrics[metric]:.4g}, of the best alone {best[metric]:.4g}, on the validation rows"
    own, theirs = rank(metrics, metric), rank(best, metric)
    if own is None or theirs is None or own < theirs:
        return Chosen({}, {}, f"The mean of the weights of steps {steps} was worse, so it is not the output: {told}.")
    return Chosen(
        tally.decision() or s.data.task.undecided,
        figures(tally),
        f"The weights are the mean of those of steps {steps}: {told}.",
        averaged=True,
    )


def _mean(s: Session, refs: list[CheckpointRef]) -> dict[str, torch.Tensor]:
    """Summed in double precision, one checkpoint in memory at a time."""
    first, *others = refs
    found = _judged(s, first)
    sums = {name: tensor.double() for name, tensor in found.items()}
    for ref in others:
        for name, tensor in _judged(s, ref).items():
            sums[name] += tensor
    return {name: (total / len(refs)).to(found[name].dtype) for name, total in sums.items()}


def _refs(s: Session) -> list[CheckpointRef]:
    """The best checkpoints, as many as are averaged, the best first; as rank 0 knows them."""

    def best() -> list[dict[str, Any]]:
        return [ref.to_json() for ref in s.checkpoints.best_ones()]

    return [CheckpointRef.from_json(ref) for ref in s.ranks.from_first(best)]


def _judged(s: Session, ref: CheckpointRef) -> dict[str, torch.Tensor]:
    """A checkpoint's weights, as model.<parameter>: those that were judged."""
    prefix = PREFIX if s.average is not None else "model."
    found = s.checkpoints.load(ref, only=prefix).tensors
    return {"model." + name.removeprefix(prefix): tensor for name, tensor in found.items()}
