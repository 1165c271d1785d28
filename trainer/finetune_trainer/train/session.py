"""Everything that a worker's attempt works with, made once at its start: model, data, checkpoints, and the state of the
run, which goes on from the newest checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from finetune_api.run import RunConfig
from finetune_api.status import FINDINGS, Resolved
from finetune_trainer.checkpoint import Checkpointer, CheckpointRef, Snapshot, environment
from finetune_trainer.cpu import use_fast_kernels
from finetune_trainer.distributed.choose import strategy_for
from finetune_trainer.distributed.ranks import Ranks, check_same_weights
from finetune_trainer.distributed.strategy import GradientStrategy
from finetune_trainer.methods import Phases, apply_method, method_for, phases_of
from finetune_trainer.methods.modules import depths
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.head import learned_anew
from finetune_trainer.model.labels import knows_task
from finetune_trainer.model.load import load_model, parameter_counts, token_embeddings
from finetune_trainer.model.start import start_at
from finetune_trainer.model.units import answer_in_units
from finetune_trainer.objectives.base import Objective
from finetune_trainer.optimizers import optimizer_for
from finetune_trainer.optimizers.average import WeightAverage
from finetune_trainer.output import EventLog
from finetune_trainer.storage import Location
from finetune_trainer.stream import Profile, load_profile
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.embeddings import within_embeddings
from finetune_trainer.tasks.registry import task_of
from finetune_trainer.train.comparison import Comparison
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.evaluation import Evaluator
from finetune_trainer.train.fold_results import FoldResults
from finetune_trainer.train.frozen_trunk import keep_trunk
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.rounds import Round, rounds_of
from finetune_trainer.train.skipped_rows import SkippedRows
from finetune_trainer.train.state import TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """For the loop and the end of the run; parts get from it what they need. Rank 0 reports and writes; the others do
    the same steps silently.
    """

    config: RunConfig
    out: Location
    ranks: Ranks
    progress: TrainingProgress
    stop: Callable[[], bool]
    data: TrainingData
    resolved: Resolved
    model_folder: Path
    model: Any
    rounds: tuple[Round, ...]
    round_phases: tuple[Phases, ...]
    objective: Objective
    strategy: GradientStrategy
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    fresh: Mapping[str, torch.Tensor]
    """The trained weights as a round starts with them, as a checkpoint has them; none where there is one round only."""
    checkpoints: Checkpointer
    events: EventLog
    folds: FoldResults
    state: TrainState
    skipped_rows: SkippedRows
    evaluator: Evaluator
    compare: Callable[[str], Comparison] | None
    """(split) -> its rows, compared; None where rows are learned from one by one."""
    knows_task: bool
    """Whether the base had a trained head of the task."""

    @property
    def compares(self) -> bool:
        """Whether the result is compared with what it started from."""
        return self.config.evaluation.base is not False

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.ranks.rank == 0

    @property
    def round(self) -> Round:
        """The one that is being made."""
        return self.rounds[self.state.round]

    @property
    def phases(self) -> Phases:
        """What each of its steps trains."""
        return self.round_phases[self.state.round]

    @property
    def folds_wanted(self) -> int:
        """How many folds the job has."""
        return len(self.rounds) - 1

    def next_round(self) -> None:
        """Go on to it with model, mean and optimizer as they were at the job's start."""
        self.state.next_round()
        self.strategy.load_state(self.optimizer, self.fresh)
        if self.average is not None:
            self.average.load({})

    def snapshot(self) -> Snapshot:
        """All that the next step depends on, by reference: the checkpointer copies what it saves."""
        state = self.state
        tensors = self.strategy.state(self.optimizer) | (self.average.state() if self.average else {})
        meta = {"run": state.meta() | {"attempts": self.progress.attempts()}, "history": self.progress.history()}
        blobs = {"events": self.events.blob(), **self.folds.blobs()}
        return Snapshot(state.step, dataclasses.asdict(state.cursor), tensors, meta, blobs)

    @property
    def comparison(self) -> Comparison | None:
        """Of the rows that are learned from, where they are compared."""
        return self.compare(self.round.split) if self.compare else None

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Within, the model has the weights that are judged and may be the result. Collective."""
        with self.average.in_place() if self.average else nullcontext():
            self.fit_head()
            yield

    def fit_head(self) -> None:
        """Where the method leaves the head to be fitted: to the other weights as they are. Collective."""
        if self.comparison is not None:
            self.comparison.fit(self.model, self.ranks)

    def save(self, *, metrics: dict[str, float] | None = None, wait: bool = False, moved: bool = False) -> None:
        """Checkpoint the state; in the background unless `wait`. Only rank 0 writes: the state is the same on all.

        `moved`: it is no longer that of the checkpoint that this step may have.
        """
        if self.first:
            with self.progress.clock("checkpoint"):
                self.checkpoints.save(self.snapshot(), metrics=metrics, wait=wait, moved=moved)


def open_session(
    config: RunConfig, out: Location, folder: Path, ranks: Ranks, progress: TrainingProgress, stop: Callable[[], bool]
) -> Session:
    """Load everything (the model from `folder`), and go on from the newest checkpoint if there is one. Collective."""
    with progress.clock("load"):
        manifest, profile = load_profile(out)
        task = task_of(config)
        tokenizer = task.processor.load(folder, profile.moment)
        training, seed = config.training, config.training.seed
        model = load_model(
            folder, task.head, labels=profile.labels, seed=seed, pad_id=tokenizer.pad_id, dropout=training.dropout
        )
        if profile.spread is not None and not answer_in_units(
            model, folder, profile.spread.mean, profile.spread.deviation
        ):
            log.warning("the model's output layer was not found: numbers are learned in the units of the data")
        outputs = task.start(JobFacts.found(config, task, profile))
        if outputs is not None:
            start_at(model, outputs, read_config(folder), task.head, profile.labels or ())
        embeddings = token_embeddings(model)
        task = within_embeddings(task, tokenizer.beyond(embeddings), embeddings)
        knows = knows_task(read_config(folder), task.head, profile.labels) and not learned_anew(model)
        if config.training.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model = apply_method(model, config.method, task.head, seed).to(ranks.device)
        if ranks.device.type == "cpu":
            use_fast_kernels(model, ranks.precision)
        check_same_weights(model, ranks)
        rounds = rounds_of(config, profile)
        phases = phases_of(model, config.method, task.head, [(each.steps_per_epoch, each.steps) for each in rounds])
        total, trained = parameter_counts(model)
        resolved = profile.resolved.model_copy(
            update={
                "architecture": architecture(read_config(folder), task.head).class_name,
                "parameters": total,
                "trainable_parameters": trained,
                "precision": ranks.precision,
                "device": ranks.device.type,
            }
        )
        data = TrainingData(config, manifest, profile, task, tokenizer, ranks.rank, ranks.size)
        trunk = keep_trunk(model, folder, data, all(each.steady for each in phases), ranks, progress, stop)
        data = dataclasses.replace(data, kept=trunk.kept)
        resolved = resolved.model_copy(update={"frozen_trunk": trunk.note})
        findings = (*trunk.findings, *profile.data.findings)[:FINDINGS]
        profiled = profile.data.model_copy(update={"findings": findings})
        progress.report(resolved=resolved, data=profiled)
        deep = depths(model, task.head) if training.layer_decay else None
        optimizer, strategy = optimizer_for(model, training, deep), strategy_for(model, ranks)
        average = WeightAverage(model, training.ema_decay) if training.ema_decay else None
        fresh = {}
        if len(rounds) > 1:
            fresh = {name: tensor.clone() for name, tensor in strategy.state(optimizer).items()}
        checkpoints = _checkpointer(config, out, ranks, profile, resolved, progress, bool(trunk.kept))
        state, events, folds = _resume(checkpoints, strategy, optimizer, average, ranks, progress)
    lesson = method_for(config.method).lesson
    skipped_rows = SkippedRows(state, profiled, data.max_length, progress)
    return Session(
        config=config,
        out=out,
        ranks=ranks,
        progress=progress,
        stop=stop,
        data=data,
        resolved=resolved,
        model_folder=folder,
        model=model,
        rounds=rounds,
        round_phases=phases,
        objective=lesson.objective() if lesson else task.objective(data.facts),
        strategy=strategy,
        optimizer=optimizer,
        average=average,
        fresh=fresh,
        checkpoints=checkpoints,
        events=events,
        folds=folds,
        state=state,
        skipped_rows=skipped_rows,
        compare=lru_cache(1)(partial(Comparison, data, lesson)) if lesson else None,
        evaluator=Evaluator(model, ranks, data, skipped_rows, resolved.metric or "loss", stop),
        knows_task=knows,
    )


def _checkpointer(
    config: RunConfig,
    out: Location,
    ranks: Ranks,
    profile: Profile,
    resolved: Resolved,
    progress: TrainingProgress,
    cached: bool,
) -> Checkpointer:
    facts = environment(
        world_size=ranks.size,
        threads=torch.get_num_threads(),
        micro_batch=resolved.micro_batch_size or 0,
        device=ranks.device.type,
        frozen_trunk="cached" if cached else "computed",
    )
    identity = {
        "dataManifest": profile.digest,
        "globalBatchSize": resolved.global_batch_size,
        "folds": len(profile.fold_rows),
    }
    return Checkpointer(
        config,
        out,
        ranks.rank,
        facts=facts,
        identity=identity,
        on_commit=lambda listed: progress.report(checkpoints=listed),
    )


def _resume(
    checkpoints: Checkpointer,
    strategy: GradientStrategy,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    ranks: Ranks,
    progress: TrainingProgress,
) -> tuple[TrainState, EventLog, FoldResults]:
    """Rank 0 claims a generation, which fixes the checkpoint that all ranks go on from. Collective."""

    def claim() -> dict[str, Any] | None:
        found = checkpoints.claim(strategy.shapes()).resume
        return found.to_json() if found else None

    if ranks.rank != 0:
        checkpoints.read_ahead()
    chosen = ranks.from_first(claim)
    if chosen is None:
        return TrainState(), EventLog(), FoldResults()
    ref = CheckpointRef.from_json(chosen)
    snapshot = checkpoints.load(ref)
    strategy.load_state(optimizer, snapshot.tensors)
    if average is not None:
        average.load(snapshot.tensors)
    state = TrainState.restored(snapshot)
    if ref.generation is None:
        state = state.handed_over()
    log.info("going on from step %d, %s", state.step, ref.uri)
    progress.resumed(state, snapshot.meta["history"])
    return state, EventLog.restore(snapshot.blobs["events"]), FoldResults.restore(snapshot.blobs)
