"""Everything that the loop works with, made once at the start: model, optimizer, data, checkpoints, and the run's
state.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_api.run import RunConfig
from finetune_api.status import Resolved
from finetune_trainer.batches.example import Example
from finetune_trainer.checkpoint import Checkpointer, CheckpointRef, Snapshot, environment
from finetune_trainer.cpu import use_fast_kernels
from finetune_trainer.distributed.choose import strategy_for
from finetune_trainer.distributed.ranks import Ranks, check_same_weights
from finetune_trainer.distributed.strategy import GradientStrategy
from finetune_trainer.methods import apply_method
from finetune_trainer.model.facts import architecture, read_config
from finetune_trainer.model.load import load_model, parameter_counts
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.output import EventLog
from finetune_trainer.storage import Location
from finetune_trainer.stream import DataManifest, Profile, Stream, load_profile
from finetune_trainer.tasks.base import NothingToLearn, Task
from finetune_trainer.tasks.columns import with_name
from finetune_trainer.tasks.embeddings import within_embeddings
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train.optimizer import adamw
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.state import TrainState

log = logging.getLogger(__name__)


@dataclass
class Session:
    """What a process works with. Rank 0 reports and writes; the others do the same steps silently."""

    config: RunConfig
    out: Location
    ranks: Ranks
    progress: TrainingProgress
    stop: Callable[[], bool]
    manifest: DataManifest
    profile: Profile
    resolved: Resolved
    task: Task
    tokenizer: Tokenizer
    model_folder: Path
    model: Any
    strategy: GradientStrategy
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpointer
    events: EventLog
    state: TrainState

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.ranks.rank == 0

    @property
    def max_length(self) -> int:
        """Most tokens of a row."""
        assert self.resolved.max_length
        return self.resolved.max_length

    @property
    def micro_batch_size(self) -> int:
        """Most rows at once."""
        return self.resolved.micro_batch_size or 8

    def stream(self, split: str) -> Stream:
        """This rank's rows of a split."""
        return Stream(
            self.config, self.manifest, self.profile, split=split, rank=self.ranks.rank, world=self.ranks.size
        )

    def rows_in(self, split: str) -> int:
        """How many rows a split has, over all ranks."""
        data = self.profile.data
        return {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}[split]

    def encode(self, row: dict[str, Any]) -> Sequence[Example]:
        """The row as the model takes it; empty where nothing of it is left to learn."""
        try:
            if self.profile.label_names:
                row = dict(with_name(row, self.profile.columns["label"], self.profile.label_names))
            return self.task.encode(row, self.profile.columns, self.profile.labels, self.tokenizer, self.max_length)
        except NothingToLearn:
            return ()

    def snapshot(self) -> Snapshot:
        """All that the next step depends on, by reference: the checkpointer copies what it saves."""
        state = self.state
        tensors = self.strategy.state(self.optimizer)
        meta = {"run": state.meta() | {"attempts": self.progress.attempts()}, "history": self.progress.history()}
        return Snapshot(state.step, dataclasses.asdict(state.cursor), tensors, meta, {"events": self.events.blob()})

    def save(self, *, metrics: dict[str, float] | None = None, wait: bool = False) -> None:
        """Checkpoint the state; in the background unless `wait`. Only rank 0 writes: the state is the same on all."""
        if self.first:
            with self.progress.clock("checkpoint"):
                self.checkpoints.save(self.snapshot(), metrics=metrics, wait=wait)


def open_session(
    config: RunConfig, out: Location, folder: Path, ranks: Ranks, progress: TrainingProgress, stop: Callable[[], bool]
) -> Session:
    """Load everything (the model from `folder`), and go on from the newest checkpoint if there is one. Collective."""
    with progress.clock("load"):
        manifest, profile = load_profile(out)
        resolved = profile.resolved
        task = task_for(config.task)
        tokenizer = load_tokenizer(folder, profile.moment)
        seed = config.training.seed
        model = load_model(folder, task.head, labels=profile.labels, seed=seed, pad_id=tokenizer.pad_id)
        embeddings = len(model.get_input_embeddings().weight)
        task = within_embeddings(task, tokenizer.beyond(embeddings), embeddings)
        if config.training.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model = apply_method(model, config.method, task.head, seed).to(ranks.device)
        if ranks.device.type == "cpu":
            use_fast_kernels(model, ranks.precision)
        check_same_weights(model, ranks)
        total, trained = parameter_counts(model)
        resolved = resolved.model_copy(
            update={
                "architecture": architecture(read_config(folder), task.head).class_name,
                "parameters": total,
                "trainable_parameters": trained,
                "precision": ranks.precision,
                "device": ranks.device.type,
            }
        )
        progress.report(resolved=resolved, data=profile.data)
        optimizer = adamw(model, config.training)
        checkpoints = _checkpointer(config, out, ranks, profile, resolved, progress)
        session = Session(
            config,
            out,
            ranks,
            progress,
            stop,
            manifest,
            profile,
            resolved,
            task,
            tokenizer,
            folder,
            model,
            strategy_for(model, ranks),
            optimizer,
            checkpoints,
            EventLog(),
            TrainState(),
        )
        _resume(session)
    return session


def _checkpointer(
    config: RunConfig, out: Location, ranks: Ranks, profile: Profile, resolved: Resolved, progress: TrainingProgress
) -> Checkpointer:
    facts = environment(
        world_size=ranks.size,
        threads=torch.get_num_threads(),
        micro_batch=resolved.micro_batch_size or 0,
        device=ranks.device.type,
    )
    identity = {"dataManifest": profile.digest, "globalBatchSize": resolved.global_batch_size}
    return Checkpointer(
        config,
        out,
        ranks.rank,
        facts=facts,
        identity=identity,
        on_commit=lambda listed: progress.report(checkpoints=listed),
    )


def _resume(session: Session) -> None:
    """Rank 0 claims a generation, which fixes the checkpoint that all ranks go on from. Collective."""

    def claim() -> dict[str, Any] | None:
        found = session.checkpoints.claim(session.strategy.shapes()).resume
        return found.to_json() if found else None

    if not session.first:
        session.checkpoints.read_ahead()
    chosen = session.ranks.from_first(claim)
    if chosen is None:
        return
    ref = CheckpointRef.from_json(chosen)
    snapshot = session.checkpoints.load(ref)
    session.strategy.load_state(session.optimizer, snapshot.tensors)
    session.state = (
        TrainState.restored(snapshot) if ref.generation is not None else TrainState.restored(snapshot).handed_over()
    )
    log.info("going on from step %d, %s", session.state.step, ref.uri)
    session.events = EventLog.restore(snapshot.blobs["events"])
    session.progress.resumed(session.state, snapshot.meta["history"])


@contextmanager
def scratch_folder(config: RunConfig, name: str) -> Iterator[Path]:
    """An empty folder in scratch, gone afterwards."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=config.scratch))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
