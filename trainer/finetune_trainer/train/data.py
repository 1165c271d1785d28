"""This rank's rows, split by split, and the examples that the task makes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from finetune_api.run import RunConfig
from finetune_trainer.batches.example import Example
from finetune_trainer.model.processor import Processor
from finetune_trainer.stream import DataManifest, Profile, Stream
from finetune_trainer.stream.files import Files
from finetune_trainer.tasks.base import Draw, JobFacts, NothingToLearn, Task
from finetune_trainer.tasks.columns import with_name
from finetune_trainer.tasks.constants import Constant
from finetune_trainer.train.rounds import split_rows
from finetune_trainer.trunk.kept_rows import Kept

OPENERS = 4
"""Files that are opened at once."""


@dataclass(frozen=True)
class TrainingData:
    """What the prepare step laid out, as one of `size` ranks reads it."""

    config: RunConfig
    manifest: DataManifest
    profile: Profile
    task: Task
    tokenizer: Processor
    rank: int
    size: int
    kept: Mapping[str, Kept] = field(default_factory=dict)
    """Of splits whose way through the frozen part of the model is behind them."""

    @property
    def max_length(self) -> int:
        """Most tokens of an example."""
        assert self.profile.resolved.max_length
        return self.profile.resolved.max_length

    @property
    def micro_batch_size(self) -> int:
        """Most examples at once."""
        return self.profile.resolved.micro_batch_size or 8

    def stream(self, split: str, *, unread: bool = False) -> Stream:
        """This rank's rows of a split; `unread`: their numbers alone."""
        config, rank, size = self.config, self.rank, self.size
        return Stream(config, self.manifest, self.profile, split, rank=rank, world=size, unread=unread)

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of spec.evaluation.sets, as splits."""
        return tuple(self.profile.set_rows)

    @property
    def result_split(self) -> str | None:
        """The rows that the result is judged by: those of the test, else of the validation; None without either."""
        return next((split for split in ("test", "validation") if self.rows_in(split)), None)

    @cached_property
    def constant(self) -> Constant | None:
        """The best answer that does not look at the row; None where the task has none."""
        return self.task.constant(self.facts)

    def rows_in(self, split: str) -> int:
        """How many rows a split has, over all ranks."""
        return split_rows(self.profile)[split]

    @cached_property
    def facts(self) -> JobFacts:
        """What the task's functions know of the job."""
        return JobFacts.found(self.config, self.task, self.profile)

    def encode(self, row: dict[str, Any], number: int = 0, epoch: int | None = None) -> Sequence[Example]:
        """The row as the model takes it; empty where nothing of it is left to learn.

        `number`: its own in the split. `epoch`: in which it is learned from; None: it is judged.
        """
        draw = Draw(self.config.training.seed, epoch, number)
        try:
            return self.task.encode(self.opened(self.named(row)), self.facts, self.tokenizer, self.max_length, draw)
        except NothingToLearn:
            return ()

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the data set's names of its classes, where it has numbers of them."""
        profile = self.profile
        for column in self.task.class_columns(profile.columns) if profile.label_names else ():
            row = dict(with_name(row, column, profile.label_names or ()))
        return row

    def encoded(
        self, rows: Iterable[tuple[int, dict[str, Any]]], epoch: int | None = None
    ) -> Iterator[Sequence[Example]]:
        """The examples of each (number, row), in their order; files are fetched and opened several at once."""
        if self._opener is None:
            for number, row in rows:
                yield self.encode(row, number, epoch)
            return
        waiting: deque[Future[Sequence[Example]]] = deque()
        try:
            for number, row in rows:
                waiting.append(self._opener.submit(self.encode, row, number, epoch))
                if len(waiting) > 2 * OPENERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def judged(self, split: str, most: int | None = None) -> Generator[tuple[int, Sequence[Example]]]:
        """(number, examples) of each of this rank's rows of a split, in file order, as they are judged. `most`: of a
        fixed draw of so many rows only.
        """
        kept = self.kept.get(split)
        if kept is not None and most is None:
            for number in range(self.rank, kept.row_count, self.size):
                yield number, kept.examples(number)
            return
        numbers: deque[int] = deque()

        def noted(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, row in rows:
                numbers.append(number)
                yield number, row

        with self.stream(split) as stream:
            for encoded in self.encoded(noted(stream.numbered() if most is None else stream.drawn(most))):
                yield numbers.popleft(), encoded

    def opened(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the content of the files that it stands for."""
        columns = self.profile.columns
        return {**row, **{columns[role]: self._files.content(row[columns[role]]) for role in self.task.file_roles}}

    @cached_property
    def _files(self) -> Files:
        return Files.of(self.config, self.manifest)

    @cached_property
    def _opener(self) -> ThreadPoolExecutor | None:
        """Made in the process that uses it. A tokenizer serves one thread at a time; what opens files serves many."""
        return ThreadPoolExecutor(OPENERS, thread_name_prefix="files") if self.task.file_roles else None
