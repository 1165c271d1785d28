"""The training loop: batches with their cursor in, steps, evaluations and checkpoints out; readable on one screen.

Everything that the next step depends on is in `TrainState` and in a checkpoint (I3); stops are agreed on by all ranks
with the step; the loop ends with its last step saved, or by a JobError whose reason is the exit code.
"""

from __future__ import annotations

import time
from typing import NoReturn

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_api.schedules import rate_at
from finetune_trainer.evaluate.loop import Stopped
from finetune_trainer.train import evaluation
from finetune_trainer.train.before import bounds, judge_base, judge_beside
from finetune_trainer.train.folds import end_fold, tell_folds
from finetune_trainer.train.openings import tell_openings, tell_trained
from finetune_trainer.train.prefetch import rank_batches
from finetune_trainer.train.samples import write_samples
from finetune_trainer.train.session import Session
from finetune_trainer.train.step import train_step

EVENTS = 4000
"""About so many step events are kept: the log travels with every checkpoint."""


def loop(s: Session) -> None:
    """Train all rounds to their ends; the last one perhaps only until the metric no longer improves. Collective."""
    state = s.state
    if state.step == 0:
        state.samples = s.ranks.from_first(
            lambda: write_samples(s.model, s.data, s.ranks, s.stop, s.data.task.undecided)
        )
        try:
            judge_base(s)
        except Stopped:
            interrupted(s)
    s.skipped_rows.report()
    tell_folds(s)
    if evaluate_if_due(s):  # the evaluation of the step that we resumed from was interrupted
        s.save(metrics=state.evaluation)
    train(s)
    while s.round.judged is not None:
        try:
            end_fold(s)
        except Stopped:
            interrupted(s)
        train(s)
    s.save(metrics=state.evaluation if state.evaluated == state.step else None, wait=True)


def train(s: Session) -> None:
    """The steps of the round that are still to be made. Collective."""
    training, resolved, state, part = s.config.training, s.resolved, s.state, s.round
    saved_at = time.monotonic()
    s.progress.stage(Stage.TRAINING)
    tell_trained(s, state.step + 1)
    if not finished(s):
        for rank_batch, rows, cursor in rank_batches(s.data, part.split, state.cursor, s.progress, s.comparison):
            step = state.step + 1
            within = part.step(step)
            rate = rate_at(
                within,
                peak=resolved.learning_rate or 0.0,
                total=part.steps,
                warmup=part.warmup,
                schedule=training.schedule,
                decay_ratio=training.decay_ratio,
                cycles=training.schedule_cycles,
            )
            with s.progress.clock("train"), s.phases.at(within):
                done = train_step(
                    s.strategy,
                    s.objective,
                    s.optimizer,
                    rank_batch,
                    s.ranks,
                    step=step,
                    rate=rate,
                    max_norm=training.max_grad_norm,
                    seed=training.seed,
                    stop=s.stop,
                    noise=within,
                )
            if done is None:
                interrupted(s)
            if s.average is not None:
                s.average.update(within)
            epoch = state.cursor.epoch
            state.step, state.cursor = step, cursor
            s.skipped_rows.add_step(done.learned, done.empty, epoch_before=epoch)
            tell_openings(s, step)
            s.progress.stepped(step, done, rate, resolved, rows, epoch=part.epoch(step), part=part.name)
            if step % max(1, (resolved.total_steps or 0) // EVENTS) == 0:
                of = {} if part.fold is None else {"fold": part.fold}
                made = {"loss": done.loss, "learning_rate": rate, "grad_norm": done.norm}
                s.events.add("step", step, **of, **made, rows=rows, tokens=done.tokens)
            improved = evaluate_if_due(s)
            if finished(s) and part.judged is not None:
                break  # saved once the fold is judged: a step has one checkpoint
            if improved or checkpoint_is_due(s, saved_at):
                s.save(metrics=state.evaluation if state.evaluated == step else None)
                saved_at = time.monotonic()
            if finished(s):
                break


def finished(s: Session) -> bool:
    """Whether the last step of the round is made."""
    return s.state.stopped_early or s.round.step(s.state.step) >= s.round.steps


def checkpoint_is_due(s: Session, saved_at: float) -> bool:
    """By steps or by minutes, or since one was missed. The ranks may differ, which does no harm: only rank 0 writes."""
    rule = s.config.checkpoints
    if s.checkpoints.missed:
        return True
    if rule.every_steps is not None:
        return s.state.step % rule.every_steps == 0
    return time.monotonic() - saved_at >= 60.0 * (rule.every_minutes or 10.0)


def evaluate_if_due(s: Session) -> bool:
    """Judge on the validation rows, in the last round. Whether it is the best so far and to be kept. Collective."""
    state, metric = s.state, s.evaluator.metric
    every = s.resolved.evaluate_every_steps or 1
    if s.round.judged is not None or not s.data.rows_in("validation"):
        return False
    if not evaluation.is_due(state, s.round.step(state.step), every, last=finished(s)):
        return False
    s.progress.stage(Stage.EVALUATING)
    try:
        with s.progress.clock("evaluate"), s.judged_weights():
            tally = judge_beside(s, "validation", {})
    except Stopped:
        interrupted(s)
    metrics = tally.metrics()
    rule = s.config.evaluation.early_stopping
    improved = evaluation.take_metrics(state, metrics, tally.decision(), metric, rule, bounds(tally))
    s.events.add("evaluation", state.step, **metrics)
    s.progress.evaluated(state, metric)
    s.progress.stage(Stage.TRAINING)
    kept = s.config.checkpoints
    if kept.average_best and s.checkpoints.among_best(metrics):
        s.save(metrics=metrics, wait=True)  # at once: the next one of the best would take the place of one that waits
    return improved and kept.keep_best


def interrupted(s: Session) -> NoReturn:
    """All ranks agreed to stop: the state of the last whole step is saved, and the run ends resumably."""
    s.progress.stage(Stage.SAVING)
    s.save(wait=True)
    raise JobError(
        Reason.INTERRUPTED,
        f"the run was told to stop after step {s.state.step}; the checkpoint of that step is committed",
    )
