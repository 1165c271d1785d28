"""Run the frozen part of the model once a row, before the first step, where the job goes over its rows more than once.

The chunks of rows are dealt out to the processes of each node, which lie in its scratch folder and are mapped by all of
them; several nodes make their own. What is there already (after a kill) is used, what is torn or of another run is made
again. Where that cannot be done, or does not fit, the job runs without: one finding says so.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_trainer.batches.example import Example
from finetune_trainer.checkpoint import environment
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.failures import disk, memory
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.progress import TrainingProgress
from finetune_trainer.train.rounds import rounds_of
from finetune_trainer.trunk.chunk_file import DamagedChunk, check_storable
from finetune_trainer.trunk.cut import CannotCut, Cut, cut_of
from finetune_trainer.trunk.kept_example import KeptExample
from finetune_trainer.trunk.kept_rows import Kept, KeptPart, KeptRows, computed, digest_of, key_of, rows_of_chunk
from finetune_trainer.trunk.trial import ALL, Keeping, trial

log = logging.getLogger(__name__)

TRIED = 8
"""Examples by which a cut is judged."""
ROUND_SECONDS = 2.0
SHARE = 0.5
"""Of the free space in scratch that may be taken."""
RESERVE, COPIES = 1 << 30, 3
"""Bytes of a limited scratch volume that are left for the rest: so many, and so many times the model's files."""
FOLDER = "frozen-trunk"
EPOCH: dict[str, int | None] = {"train": 0, "validation": None}
"""In which a split's rows are encoded; None: they are judged."""
ROW_BYTES = 512
"""What is left of a row's examples, about."""


@dataclass(frozen=True)
class FrozenTrunk:
    """What came of it. `kept`: the rows of each split that are served by what was kept."""

    kept: Mapping[str, Kept] = field(default_factory=dict)
    note: str | None = None
    findings: tuple[Finding, ...] = ()


def keep_trunk(
    model: Any,
    folder: Path,
    data: TrainingData,
    steady: bool,
    ranks: Ranks,
    progress: TrainingProgress,
    stop: Callable[[], bool],
) -> FrozenTrunk:
    """`folder`: the model's. `steady`: all steps train the same, and all else rests. Collective.

    Raises JobError (Interrupted) on all ranks together if one is to stop.
    """
    splits = worth_keeping(data) if steady else []
    cut, training = cut_of(model, data.task.head) if splits else None, model.training
    if cut is None:
        return FrozenTrunk()
    model.eval()
    try:
        with progress.clock("frozen trunk"), torch.inference_mode(), ranks.autocast():
            found = _Filling(cut, folder, data, splits, ranks, stop).kept()
    finally:
        model.train(training)
    if not found.kept:
        cut.remove()
    return found


def worth_keeping(data: TrainingData) -> list[str]:
    """The splits whose rows pass through the model more than once, and the same each time; folds are parts of them."""
    rounds, found = rounds_of(data.config, data.profile), []
    last = rounds[-1]
    again = len(rounds) > 1 or last.steps > last.steps_per_epoch
    if again and not data.task.varies(data.facts):
        found.append("train")
    if data.rows_in("validation") and last.steps > (data.profile.resolved.evaluate_every_steps or 1):
        found.append("validation")
    return found


class _Filling:
    """`trouble`: why this rank cannot keep anything."""

    def __init__(
        self, cut: Cut, folder: Path, data: TrainingData, splits: list[str], ranks: Ranks, stop: Callable[[], bool]
    ) -> None:
        self._cut, self._model_folder, self._data, self._splits = cut, folder, data, splits
        self._ranks, self._stop = ranks, stop
        self._sharing = max(1, data.config.world.processes_per_worker)
        self._trouble = ""

    def kept(self) -> FrozenTrunk:
        """Try the cut, make what is lacking, map it. Collective."""
        tried: list[tuple[Keeping, int]] = []
        if not self._done_by_all(self._try(tried)):
            return self._without()
        keeping, room = tried[0]
        folder, key = self._place(keeping)
        size = rows_of_chunk(self._data.max_length)
        kept = {split: KeptRows(folder, split, key, self._data.rows_in(split), size) for split in self._splits}
        if not self._done_by_all(self._make(kept, keeping, room)):
            if self._ranks.local_rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
            return self._without()
        for rows in kept.values():
            rows.open()
        self._ranks.sum([0.0])  # all have mapped them
        count, taken = sum(rows.row_count for rows in kept.values()), sum(rows.bytes for rows in kept.values())
        note = f"cached, {count} rows, {max(1, taken >> 20)} MiB"
        log.info("frozen trunk: %s", note)
        return FrozenTrunk({**kept, **self._folds(kept.get("train"))}, note)

    def _folds(self, train: KeptRows | None) -> dict[str, KeptPart]:
        """The splits of the rounds of folds, as parts of the training rows."""
        found: dict[str, KeptPart] = {}
        rounds = rounds_of(self._data.config, self._data.profile)
        if train is None or len(rounds) == 1:
            return found
        places = self._places("train")
        for split in (split for each in rounds[:-1] for split in (each.split, each.judged) if split):
            found[split] = KeptPart(train, np.searchsorted(places, self._places(split)))
        return found

    def _places(self, split: str) -> np.ndarray:
        """Of the split's rows in their source, in order."""
        with self._data.stream(split) as stream:
            return stream.positions(np.arange(self._data.rows_in(split)))

    def _without(self) -> FrozenTrunk:
        why = self._trouble or "another process could not keep what it gives"
        message = f"The frozen part of the model is computed again in each pass over the rows: {why}."
        log.warning("%s", message)
        return FrozenTrunk(findings=(Finding(kind="FrozenTrunkNotCached", message=message),))

    def _done_by_all(self, work: Iterator[None]) -> bool:
        """Do the work in rounds of a few seconds, between which the ranks agree on whether to go on; whether all could
        do theirs. Raises JobError (Interrupted). Collective.
        """
        while True:
            done = self._round(work)
            state = [float(self._stop()), float(not done), float(bool(self._trouble))]
            stopping, unfinished, troubled = self._ranks.sum(state)
            if stopping:
                message = "the run was told to stop while the frozen part of the model was computed"
                raise JobError(Reason.INTERRUPTED, message)
            if troubled or not unfinished:
                return not troubled

    def _round(self, work: Iterator[None]) -> bool:
        deadline = time.monotonic() + ROUND_SECONDS
        try:
            for _ in work:
                if time.monotonic() > deadline or self._stop():
                    return False
        except CannotCut as error:
            self._trouble = str(error)
        except Exception as error:
            if disk.is_full(error):
                self._trouble = f"what it gives found no space in {self._data.config.scratch}"
            elif memory.ran_out(error):
                self._trouble = "it did not fit into the memory"
            else:
                raise
        return True

    def _try(self, tried: list[tuple[Keeping, int]]) -> Iterator[None]:
        """Find out what is to be kept, and the bytes that it may take."""
        data, split = self._data, self._splits[0]
        with data.stream(split) as stream:
            rows = stream.selected(lambda number: number < 4 * TRIED)
            encoded = data.encoded(rows, EPOCH[split])
            examples = list(itertools.islice(itertools.chain.from_iterable(encoded), TRIED))
        if not examples:
            raise CannotCut("nothing can be learned of its first rows")
        yield
        objective = data.task.objective(data.facts.judging)
        keeping, kept = trial(self._cut, objective, examples, data.tokenizer.pad_id, data.max_length)
        try:
            check_storable(kept)
        except DamagedChunk as error:
            raise CannotCut(f"what is left of its rows cannot be stored: {error}") from None
        tried.append((keeping, space(data, self._bytes(keeping, kept))))

    def _bytes(self, keeping: Keeping, kept: list[KeptExample]) -> int:
        """About how many all chunks take."""
        data = self._data.profile.data
        held = sum(state.nbytes for example in kept for state in example.states if state is not None) / len(kept)
        if keeping.narrow == ALL and any(keeping.by_token):
            mean = data.tokens_per_epoch / data.train_rows if data.tokens_per_epoch else self._data.max_length
            held *= mean / (sum(example.length for example in kept) / len(kept))
        return int(sum(self._data.rows_in(split) for split in self._splits) * (held + ROW_BYTES))

    def _make(self, kept: Mapping[str, KeptRows], keeping: Keeping, room: int) -> Iterator[None]:
        """This rank's chunks, as far as they are not there."""
        data, written = self._data, 0
        for split, rows in kept.items():
            lacking = set[int]()
            for chunk in range(self._ranks.local_rank, rows.chunks, self._sharing):
                if rows.lacks(chunk):
                    lacking.add(chunk)
                yield
            if not lacking:
                continue
            for chunk, encoded in self._chunks(split, lacking, rows.rows_of_chunk):
                found: list[list[KeptExample]] = []
                yield from computed(
                    self._cut,
                    keeping,
                    encoded,
                    size=data.micro_batch_size,
                    pad_id=data.tokenizer.pad_id,
                    max_length=data.max_length,
                    found=found,
                )
                written += rows.write(chunk, found)
                if written > room // self._sharing:
                    raise CannotCut(f"what it gives takes more than the {room >> 20} MiB that it may in scratch")

    def _chunks(self, split: str, wanted: set[int], size: int) -> Iterator[tuple[int, list[Sequence[Example]]]]:
        """(number of the chunk, the examples of each of its rows)."""
        with self._data.stream(split) as stream:
            rows = stream.selected(lambda number: number // size in wanted)
            for chunk, group in itertools.groupby(rows, lambda numbered: numbered[0] // size):
                yield chunk, list(self._data.encoded(group, EPOCH[split]))

    def _place(self, keeping: Keeping) -> tuple[Path, str]:
        """Where the chunks lie, and the key of all that they depend on. What lay there for another key is deleted."""
        data, config, profile = self._data, self._data.config, self._data.profile
        settings = config.task_settings
        key = key_of(
            {
                "weights": digest_of(self._cut.model),
                "files": _digest_of_files(self._model_folder),
                "depth": self._cut.depth,
                "keeping": [keeping.ways, keeping.by_token, keeping.alone],
                "task": [config.task, settings and settings.to_json(), profile.labels, config.training.seed],
                "rows": [profile.digest, profile.label_names, profile.now],
                "maxLength": data.max_length,
                "precision": self._ranks.precision,
                "environment": environment(
                    world_size=0,
                    threads=torch.get_num_threads(),
                    micro_batch=data.micro_batch_size,
                    device=self._ranks.device.type,
                ),
            }
        )
        folder = Path(config.scratch) / FOLDER / key[:16]
        if self._ranks.local_rank == 0 and folder.parent.exists():
            for other in folder.parent.iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder, key


def space(data: TrainingData, needed: int) -> int:
    """Bytes that may be taken in scratch. Raises CannotCut where they are not enough."""
    scratch = data.config.scratch
    room = int(SHARE * (shutil.disk_usage(scratch).free + _taken(Path(scratch) / FOLDER)))
    if data.config.scratch_bytes is not None:
        model = data.profile.resolved.model_bytes or 0
        room = min(room, int(SHARE * max(0, data.config.scratch_bytes - RESERVE - COPIES * model)))
    if needed > room:
        message = f"what it gives would take about {needed >> 20} MiB in scratch, where {room >> 20} MiB may be taken"
        raise CannotCut(message)
    return room


def _taken(folder: Path) -> int:
    """Bytes of the chunks of an earlier attempt."""
    return sum(path.stat().st_size for path in folder.glob("*/*.chunk"))


def _digest_of_files(folder: Path) -> str:
    """Of what makes inputs of rows: all but the weights."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".safetensors":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
