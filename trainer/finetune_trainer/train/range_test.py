"""The learning-rate range test (Smith 2017): steps at rates that rise exponentially, and the loss of each.

It trains the job's own model on its own rows, in the job's order, by its method and optimizer, as a run of its own; its
output is a place of its own, to which nothing is saved. It ends early where the loss has run away.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.rendezvous import join, meet
from finetune_trainer.storage import location
from finetune_trainer.train.prefetch import rank_batches
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.session import Session, open_session
from finetune_trainer.train.step import train_step

log = logging.getLogger(__name__)

LOWEST, SPAN = 1e-3, 1e6
"""The first rate, as a share of the rate that the job would take; the last one, as a multiple of the first."""
HIGHEST = 10.0
"""As spec.training.learningRate may be."""
RUN_AWAY = 4.0
"""Times the lowest loss so far: nothing is to be learned from what follows."""


def rates(rate: float, steps: int) -> list[float]:
    """Those of the steps, around the one that the job would take."""
    low = min(LOWEST * rate, HIGHEST / SPAN)
    return [low * SPAN ** (i / max(1, steps - 1)) for i in range(steps)]


def range_test(config: RunConfig, model: Path, started: float) -> dict[str, Any]:
    """Test the model of that folder in this process alone. `started`: when the process did (monotonic)."""
    progress = TrainingProgress(config, 0, None, started)
    try:
        peers = meet(RankInfo(), config.world, lambda: False)
        ranks = join(peers, config.world, config.training.precision)
        out = location(config.output.uri, config.storage)
        session = open_session(config, out, model, ranks, progress, lambda: False)
        return {"rate": session.resolved.learning_rate, "points": points(session)}
    finally:
        progress.close()


def points(s: Session) -> list[tuple[float, float]]:
    """(rate, mean loss of the step that was made at it), as far as the loss is worth knowing."""
    training, found = s.config.training, list[tuple[float, float]]()
    wanted = rates(s.resolved.learning_rate or 0.0, s.resolved.total_steps or 0)
    batches = rank_batches(s.data, s.round.split, s.state.cursor, s.progress, s.comparison)
    for step, (rate, (batch, _, _)) in enumerate(zip(wanted, batches, strict=False), 1):
        try:
            with s.phases.at(len(wanted)):  # all that the method trains in the end
                done = train_step(
                    s.strategy,
                    s.objective,
                    s.optimizer,
                    batch,
                    s.ranks,
                    step=step,
                    rate=rate,
                    max_norm=training.max_grad_norm,
                    seed=training.seed,
                    stop=s.stop,
                )
        except JobError as error:
            if error.reason is not Reason.NON_FINITE_LOSS:
                raise
            break
        assert done is not None
        if not math.isfinite(done.loss):
            continue  # nothing was learned from these rows
        found.append((rate, done.loss))
        log.info("rate %.3g: loss %.6g", rate, done.loss)
        if done.loss > RUN_AWAY * min(loss for _, loss in found):
            break
    return found
