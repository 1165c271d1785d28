"""The training loop: batches with their cursor in, steps, evaluations and checkpoints out; readable on one screen.

Everything that the next step depends on is in `TrainState` and in a checkpoint (I3); stops are agreed on by all ranks
with the step; the run ends by completion (the output is committed), or by a JobError whose reason is the exit code.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_api.status import Best
from finetune_trainer.checkpoint.best import gain, is_better
from finetune_trainer.distributed.peers import Peers
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.rendezvous import join, meet
from finetune_trainer.evaluate.loop import Stopped
from finetune_trainer.failures.problems import PeerFailed, problem_for
from finetune_trainer.methods import method_for
from finetune_trainer.model import deferred_imports
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.fetch import fetch_model
from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train import skipped_rows
from finetune_trainer.train.finish import finish, judge, samples
from finetune_trainer.train.optimizer import rate_at
from finetune_trainer.train.prefetch import rank_batches
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.session import Session, open_session
from finetune_trainer.train.step import train_step

log = logging.getLogger(__name__)
DRAIN_SECONDS = 8.0
EVENTS = 4000
"""About so many step events are kept: the log travels with every checkpoint."""


def warm_up(config: RunConfig) -> Path:
    """Once a node, before the workers are forked: fetch the model, import its classes. The model's folder."""
    _, profile = load_profile(location(config.output.uri, config.storage))
    folder = fetch_model(config, revision=profile.model_revision)
    head = task_for(config.task).head
    modules = [architecture(read_config(folder), head).module, *method_for(config.method).packages]
    deferred_imports.import_modules(
        modules, deferred=config.world.device == "cpu" or not Path("/proc/driver/nvidia").exists()
    )
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    return folder


def train(
    config: RunConfig, info: RankInfo, model: Path, folder: Path, started: float, stop: Callable[[], bool]
) -> None:
    """One rank's whole attempt, with the model of that folder. Returns when the output is committed; raises JobError
    otherwise.

    `folder` takes the last snapshot, for the launcher; `started` is when the launcher began (monotonic).
    """
    out = location(config.output.uri, config.storage)
    progress = TrainingProgress(config, info.rank, folder / "snapshot.json", started)
    session: Session | None = None
    peers: Peers | None = None
    try:
        peers = meet(info, config.world, stop)
        ranks = join(peers, config.world, config.training.precision)
        log.info("rank %d of %d has joined", info.rank, info.size)
        session = open_session(config, out, model, ranks, progress, partial(_should_stop, peers, stop))
        loop(session)
        finish(session)
        peers.leave()
    except BaseException as error:
        own = problem_for(error, info.rank, [config.scratch])
        cause = peers.report_failure(own) if peers is not None else own
        progress.report(problem=cause)
        if session is not None:
            _save_what_waits(session)
        if cause == own:
            raise
        log.warning("rank %d ends since rank %s failed; it was at: %s", info.rank, cause.rank, own.message)
        raise PeerFailed(cause) from error
    finally:
        progress.close()
        if peers is not None and sys.exception() is not None:
            peers.linger()


def _should_stop(peers: Peers, stop: Callable[[], bool]) -> bool:
    """A signal came, or a peer has failed and nothing more can come of this rank's work."""
    return stop() or peers.failed


def loop(s: Session) -> None:
    """Train to the last step, or until the metric no longer improves. Collective."""
    t, resolved, state = s.config.training, s.resolved, s.state
    total = resolved.total_steps or 0
    if state.step == 0:
        state.samples = s.ranks.from_first(lambda: samples(s))
    skipped_rows.report(s)
    if evaluate_if_due(s):  # the evaluation of the step that we resumed from was interrupted
        s.save(metrics=state.evaluation)
    saved_at = time.monotonic()
    s.progress.stage(Stage.TRAINING)
    if not finished(s):
        for batch, rows, cursor in rank_batches(s, state.cursor):
            step = state.step + 1
            rate = rate_at(
                step,
                peak=resolved.learning_rate or 0.0,
                total=total,
                warmup=resolved.warmup_steps or 0,
                schedule=t.schedule,
            )
            with s.progress.clock("train"):
                done = train_step(
                    s.strategy,
                    s.task.objective(),
                    s.optimizer,
                    batch,
                    s.ranks,
                    step=step,
                    rate=rate,
                    max_norm=t.max_grad_norm,
                    seed=t.seed,
                    stop=s.stop,
                )
            if done is None:
                interrupted(s)
            epoch = state.cursor.epoch
            state.step, state.cursor = step, cursor
            skipped_rows.trained(s, done.learned, done.empty, epoch)
            s.progress.stepped(state, done, rate, resolved, rows)
            if step % max(1, total // EVENTS) == 0:
                s.events.add(
                    "step", step, loss=done.loss, learning_rate=rate, grad_norm=done.norm, rows=rows, tokens=done.tokens
                )
            improved = evaluate_if_due(s)
            if improved or checkpoint_is_due(s, saved_at):
                s.save(metrics=state.evaluation if state.evaluated == step else None)
                saved_at = time.monotonic()
            if finished(s):
                break
    s.save(metrics=state.evaluation if state.evaluated == state.step else None, wait=True)


def finished(s: Session) -> bool:
    """Whether the last step is made."""
    return s.state.stopped_early or s.state.step >= (s.resolved.total_steps or 0)


def checkpoint_is_due(s: Session, saved_at: float) -> bool:
    """By steps or by minutes, or since one was missed. The ranks may differ, which does no harm: only rank 0 writes."""
    rule = s.config.checkpoints
    if s.checkpoints.missed:
        return True
    if rule.every_steps is not None:
        return s.state.step % rule.every_steps == 0
    return time.monotonic() - saved_at >= 60.0 * (rule.every_minutes or 10.0)


def evaluate_if_due(s: Session) -> bool:
    """Judge on the validation rows after every so many steps and after the last.

    Whether it is the best so far and to be kept.
    """
    state, every = s.state, s.resolved.evaluate_every_steps or 1
    if (
        state.step == 0
        or state.evaluated == state.step
        or not s.rows_in("validation")
        or not (state.step % every == 0 or finished(s))
    ):
        return False
    s.progress.stage(Stage.EVALUATING)
    try:
        with s.progress.clock("evaluate"):
            found = judge(s, "validation").metrics()
    except Stopped:
        interrupted(s)
    state.evaluated, state.evaluation = state.step, found
    metric = s.resolved.metric or "loss"
    improved = is_better(found, state.best_evaluation, metric)
    rule = s.config.evaluation.early_stopping
    state.stale = (
        0 if gain(found, state.best_evaluation, metric) > (rule.min_delta if rule else 0.0) else state.stale + 1
    )
    state.stopped_early = rule is not None and state.stale >= rule.patience
    if improved:
        state.best, state.best_evaluation = Best(step=state.step, metric=metric, value=found[metric]), found
    s.events.add("evaluation", state.step, **found)
    s.progress.evaluated(state, metric)
    s.progress.stage(Stage.TRAINING)
    return improved and s.config.checkpoints.keep_best


def interrupted(s: Session) -> NoReturn:
    """All ranks agreed to stop: the state of the last whole step is saved, and the run ends resumably."""
    s.progress.stage(Stage.SAVING)
    s.save(wait=True)
    raise JobError(
        Reason.INTERRUPTED,
        f"the run was told to stop after step {s.state.step}; the checkpoint of that step is committed",
    )


def _save_what_waits(s: Session) -> None:
    """Let an upload that is under way end, for what it saves is good; but not for long."""
    import threading

    thread = threading.Thread(target=lambda: _quietly(s.checkpoints.close), daemon=True)
    thread.start()
    thread.join(DRAIN_SECONDS)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        log.warning("while leaving: %s", error)
