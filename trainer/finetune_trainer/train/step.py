"""One optimizer step, exact over micro-batches and ranks: sums of losses, one reduction, one division, one update (I1).

What the ranks must agree on travels with the step's sums: whether one was told to stop or ran out of memory, and how
many rows could not be learned from. If one must stop, no rank updates: the state stays that of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from finetune_api.exits import JobError, Reason
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.batches.rank_batch import RankBatch
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.distributed.strategy import GradientStrategy
from finetune_trainer.failures import memory
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.objectives.base import Objective
from finetune_trainer.train.seeding import seed_micro_batch


@dataclass(frozen=True, slots=True)
class Stepped:
    """What the whole step came to, over all ranks. `loss` is the mean over what was learned; `norm` before clipping."""

    loss: float
    norm: float
    learned: float
    tokens: int
    empty: int


def train_step(
    strategy: GradientStrategy,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    rank_batch: RankBatch,
    ranks: Ranks,
    *,
    step: int,
    rate: float,
    max_norm: float,
    seed: int,
    stop: Callable[[], bool],
    noise: int | None = None,
) -> Stepped | None:
    """Make step number `step` (from 1). None: a rank was told to stop, and nothing changed. Collective.

    `noise`: by which number it is drawn; the step's where absent.

    Raises JobError on all ranks together: NonFiniteLoss, OutOfMemory. Nothing is reduced unless all ranks made their
    parts.
    """
    strategy.begin()
    total, done = 0.0, 0
    full: JobError | None = None
    for i, batch in enumerate(rank_batch.batches):
        if stop():
            break
        try:
            total += _micro_batch(
                strategy, objective, batch.to(ranks.device), ranks, seed, step if noise is None else noise, i
            )
        except Exception as error:
            if not memory.ran_out(error):
                raise
            full = _did_not_fit(step, error)
            break
        done += 1
    if full is not None:
        ranks.peers.report_failure(
            problem_for(full, ranks.rank)
        )  # in its own words; what follows makes sure that all stop here
    gave_up = stop() or (done < len(rank_batch.batches) and full is None)
    sums = [total, rank_batch.learned, rank_batch.tokens, rank_batch.empty, float(gave_up), float(full is not None)]
    loss, learned, tokens, empty, stopping, out = ranks.sum(sums)
    if full is not None:
        raise full
    if out:
        raise JobError(
            Reason.OUT_OF_MEMORY, f"step {step} did not fit into the memory of {out:.0f} of {ranks.size} processes"
        )
    if stopping:
        return None
    if not math.isfinite(loss):
        raise JobError(Reason.NON_FINITE_LOSS, f"the loss became {loss} at step {step}")
    if learned == 0:
        return Stepped(math.nan, 0.0, 0, int(tokens), int(empty))
    norm = strategy.reduce(learned)
    if not math.isfinite(norm):
        raise JobError(
            Reason.NON_FINITE_LOSS, f"the gradient became {norm} at step {step}, at a loss of {loss / learned:.6g}"
        )
    if 0 < max_norm < norm:
        strategy.clip(max_norm / norm)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
    optimizer.step()
    return Stepped(loss / learned, norm, learned, int(tokens), int(empty))


def _did_not_fit(step: int, error: Exception) -> JobError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return JobError(Reason.OUT_OF_MEMORY, f"step {step} did not fit into the memory: {said[0][:300]}")


def _micro_batch(
    strategy: GradientStrategy, objective: Objective, batch: MicroBatch, ranks: Ranks, seed: int, step: int, micro: int
) -> float:
    """Add one micro-batch's gradient; its sum of losses."""
    seed_micro_batch(seed, step, ranks.rank, micro)
    with ranks.autocast():
        loss = objective(strategy.model, batch).total
    strategy.backward(loss)
    return float(loss.detach())
