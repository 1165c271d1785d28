"""The stream: global batches in the global order, each with the cursor behind it; and a split's rows in file order.

The rows of global batch t depend on what was profiled, the seed and the batch size alone (I2): every rank computes the
same order and takes rows[rank::world] of each batch. Resuming computes the place from the cursor and reads from there
(I4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.stream import draw, order
from finetune_trainer.stream.batch import Batch, Cursor
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.split_reader import Place, SplitReader
from finetune_trainer.stream.windows import LoadedWindow, WindowLoader

AHEAD = 2
"""Pieces that are read ahead where rows are read in file order."""

Waiting = deque[tuple[LoadedWindow, np.ndarray]]
"""Windows that the next batch draws from, each with the rest of its order."""


class Stream:
    """One split of a job's data, for one rank."""

    def __init__(
        self,
        config: RunConfig,
        manifest: DataManifest,
        profile: Profile,
        split: str = "train",
        *,
        rank: int = 0,
        world: int = 1,
        global_batch_size: int | None = None,
        seed: int | None = None,
        limits: dict[str, int] | None = None,
        unread: bool = False,
    ) -> None:
        """`unread`: only the numbers of rows are wanted; batches come without rows, and nothing is read for them.

        `limits` sets full, window and least of `order.windows`, for tests.
        """
        assert 0 <= rank < world
        self._reader = SplitReader(config, manifest, profile, split)
        self._loader = WindowLoader(self._reader, unread)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="stream-ahead")
        self._rank, self._world = rank, world
        self._digest, self._limits = profile.digest, {"version": profile.order} | (limits or {})
        self._seed = config.training.seed if seed is None else seed
        self._batch = global_batch_size or profile.resolved.global_batch_size or 1

    @property
    def row_count(self) -> int:
        """Usable rows of the split."""
        return self._reader.row_count

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where the split's rows of these numbers stand among all rows of their source, bad ones counted; int64."""
        return self._reader.positions(numbers)

    def windows(self, epoch: int) -> tuple[order.Window, ...]:
        """The windows of an epoch, in order."""
        blocks = self._reader.blocks
        sizes, rows = [b.block.size for b in blocks], [b.rows for b in blocks]
        return order.windows(sizes, rows, self._digest, self._seed, epoch, **self._limits)

    def batches(self, cursor: Cursor) -> Iterator[tuple[Batch, Cursor]]:
        """Batches without end from the cursor on, each with the cursor behind it.

        Raises JobError (DataChanged and storage's).
        """
        if not self.row_count:
            raise JobError(Reason.NOTHING_TO_LEARN, "the split has no usable rows", field="spec.data.train")
        step, epoch, row = cursor.step, cursor.epoch, cursor.row
        while True:
            for mine, numbers in self._epoch(epoch, row):
                step += 1
                row += len(numbers)
                after = Cursor(step, epoch, row) if row < self.row_count else Cursor(step, epoch + 1, 0)
                rows = [self._reader.parse(raw) for raw in mine]
                yield Batch(rows, [int(n) for n in numbers], epoch, step), after
            epoch, row = epoch + 1, 0

    def _epoch(self, epoch: int, row: int) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """This rank's rows and all row numbers of each batch of the epoch, from position `row` on."""
        plan = self.windows(epoch)
        waiting: Waiting = deque()
        left = 0
        for n, window in enumerate(plan):
            if window.start + window.rows <= row:
                continue
            loaded = self._loader.load(window).result()
            following = plan[n + 1] if n + 1 < len(plan) else self.windows(epoch + 1)[0]
            self._loader.release_all_but(window, following)
            self._loader.load(following)
            positions = order.rows_of(loaded.numbers, self._digest, self._seed, epoch)[max(0, row - window.start) :]
            waiting.append((loaded, positions))
            left += len(positions)
            while left >= self._batch or (left and n == len(plan) - 1):
                drawn = min(self._batch, left)
                yield self._draw(waiting, drawn)
                left -= drawn

    def _draw(self, waiting: Waiting, count: int) -> tuple[list[bytes], np.ndarray]:
        """The next `count` rows: this rank's own, and the numbers of all."""
        mine: list[bytes] = []
        numbers: list[np.ndarray] = []
        place = 0
        while count:
            loaded, positions = waiting.popleft()
            taken, rest = positions[:count], positions[count:]
            numbers.append(loaded.numbers[taken])
            if loaded.rows:
                mine.extend(loaded.rows[p] for i, p in enumerate(taken, place) if i % self._world == self._rank)
            place += len(taken)
            count -= len(taken)
            if len(rest):
                waiting.appendleft((loaded, rest))
        return mine, np.concatenate(numbers)

    def rows(self) -> Iterator[dict[str, Any]]:
        """This rank's rows of the split (number % world == rank) in file order; the next piece is read ahead."""
        for _, row in self.numbered():
            yield row

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same, each with its number."""
        return self.selected(lambda number: number % self._world == self._rank)

    def selected(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of the rows of the split with wanted numbers, in file order; the next piece is read ahead."""
        firsts = [block.first for block in self._reader.blocks]
        pieces = [
            (n, (low, high))
            for n, (low, high) in self._reader.pieces()
            if any(map(wanted, range(firsts[n] + low, firsts[n] + high)))
        ]
        ahead: deque[Future[list[bytes]]] = deque()
        for place, (n, span) in enumerate(pieces):
            while len(ahead) < AHEAD and place + len(ahead) < len(pieces):
                ahead.append(self._ahead.submit(self._reader.read, *pieces[place + len(ahead)]))
            for number, raw in enumerate(ahead.popleft().result(), firsts[n] + span[0]):
                if wanted(number):
                    yield number, self._reader.parse(raw)

    def rows_at(self, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
        """The split's rows of these numbers, whatever rank's they are."""
        return self._reader.rows_at(numbers)

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Where the split's rows of these numbers stand in their source."""
        return self._reader.places(numbers)

    def drawn(self, most: int, seed: int = draw.SEED) -> Iterator[tuple[int, dict[str, Any]]]:
        """This rank's part of a fixed draw of `most` rows, each with its number, in file order."""
        for number, raw in draw.drawn(self._reader, most, seed):
            if number % self._world == self._rank:
                yield number, self._reader.parse(raw)

    def close(self) -> None:
        """Stop reading ahead; what is being read is not waited for."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._loader.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
