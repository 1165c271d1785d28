"""The stream: global batches in the global order, each with the cursor behind it; and a split's rows in file order.

The rows of global batch t depend on what was profiled, the seed and the batch size alone (I2): every rank computes the
same
order and takes rows[rank::world] of each batch. Resuming computes the place from the cursor and reads from there (I4).
The
next window is read in the background while one is in use, so at most two are held (and only one where one holds
everything);
both are bounded in bytes, however large the blocks are. What was held out by a fraction is read from the job's own
copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form
from finetune_api.records import Fault, parse_json
from finetune_api.run import RunConfig
from finetune_trainer.storage import ObjectStore, location
from finetune_trainer.stream import order
from finetune_trainer.stream.blocks import RowGroup, block_rows
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.sources.source import open_source
from finetune_trainer.stream.splits import SplitBlock, copied_blocks, interval_of, split_blocks, usable_span

READERS = 4
PIECE_BYTES = 16 << 20
"""So much of a row group at a time is held where rows are read in file order."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the stream stands: `step` batches were made; the next begins at `row` of epoch `epoch`'s order."""

    step: int = 0
    epoch: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A global batch as one rank sees it: its own rows, and the split's row numbers of all of them."""

    rows: list[dict[str, Any]]
    indices: list[int]
    epoch: int
    step: int  # counts from 1: the optimizer step that this batch makes

    @property
    def size(self) -> int:
        """Rows of the whole global batch."""
        return len(self.indices)


_Place = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""What a window holds, wherever it comes in the epoch: blocks, and the span of each."""


def _place(window: order.Window) -> _Place:
    return window.blocks, window.spans


@dataclass(frozen=True, slots=True)
class _Held:
    """A window in memory: rows by position, the positions in the order of the epoch, and the split's row numbers."""

    rows: list[bytes]
    numbers: np.ndarray


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
    ) -> None:
        """`limits` sets full, window and least of `order.windows`, for tests."""
        interval = interval_of(split, config.data)
        if interval is None:
            raise JobError(Reason.INVALID_CONFIG, f"the job has no {split} rows", field=f"spec.data.{split}")
        assert 0 <= rank < world
        self._source, self._interval, self._rank, self._world = manifest.sources[interval.source], interval, rank, world
        self._bad = profile.bad.get(interval.source, {})
        copies = profile.held_out.get(split)
        self._blocks: list[SplitBlock] = (
            copied_blocks(copies) if copies else split_blocks(manifest, profile.bad, interval)
        )
        self._columns = tuple(dict.fromkeys(profile.columns.values()))
        self._digest, self._limits = profile.digest, {"version": profile.order} | (limits or {})
        self._seed = config.training.seed if seed is None else seed
        self._batch = global_batch_size or profile.resolved.global_batch_size or 1
        self._out = location(config.output.uri, config.storage)
        self._config = config
        self._store: ObjectStore | None = None
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="stream")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="stream-window")
        self._held: dict[_Place, Future[_Held]] = {}
        self._groups: dict[int, RowGroup] = {}
        """Row groups that are being read, by block; of the thread that reads ahead."""

    @property
    def row_count(self) -> int:
        """Usable rows of the split."""
        return sum(block.rows for block in self._blocks)

    def batches(self, cursor: Cursor) -> Iterator[tuple[Batch, Cursor]]:
        """Batches without end from the cursor on, each with the cursor behind it.

        Raises JobError (DataChanged and storage's).
        """
        if not self.row_count:
            raise JobError(Reason.NOTHING_TO_LEARN, "the split has no usable rows", field="spec.data.train")
        step, epoch, row = cursor.step, cursor.epoch, cursor.row
        while True:
            for chunk, numbers in self._epoch(epoch, row):
                step += 1
                row += len(numbers)
                after = Cursor(step, epoch, row) if row < self.row_count else Cursor(step, epoch + 1, 0)
                yield Batch([self._parse(raw) for raw in chunk], [int(n) for n in numbers], epoch, step), after
            epoch, row = epoch + 1, 0

    def _epoch(self, epoch: int, row: int) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """This rank's rows and all row numbers of each batch of the epoch, from position `row` on."""
        plan = self._windows(epoch)
        waiting: list[tuple[_Held, np.ndarray]] = []  # windows (the rest of their order) that the batch draws from
        left = 0
        for n, window in enumerate(plan):
            if window.start + window.rows <= row:
                continue
            held = self._hold(window).result()
            following = plan[n + 1] if n + 1 < len(plan) else self._windows(epoch + 1)[0]
            self._forget(window, following)
            self._hold(following)
            positions = order.rows_of(held.numbers, self._digest, self._seed, epoch)[max(0, row - window.start) :]
            waiting.append((held, positions))
            left += len(positions)
            while left >= self._batch or (left and n == len(plan) - 1):
                drawn = min(self._batch, left)
                yield self._draw(waiting, drawn)
                left -= drawn

    def _draw(self, waiting: list[tuple[_Held, np.ndarray]], count: int) -> tuple[list[bytes], np.ndarray]:
        mine: list[bytes] = []
        numbers: list[np.ndarray] = []
        place = 0
        while count:
            held, positions = waiting[0]
            taken, rest = positions[:count], positions[count:]
            numbers.append(held.numbers[taken])
            mine.extend(held.rows[p] for i, p in enumerate(taken, place) if i % self._world == self._rank)
            place += len(taken)
            count -= len(taken)
            if len(rest):
                waiting[0] = (held, rest)
            else:
                waiting.pop(0)
        return mine, np.concatenate(numbers)

    def _windows(self, epoch: int) -> tuple[order.Window, ...]:
        sizes, rows = [b.block.size for b in self._blocks], [b.rows for b in self._blocks]
        return order.windows(sizes, rows, self._digest, self._seed, epoch, **self._limits)

    def _hold(self, window: order.Window) -> Future[_Held]:
        place = _place(window)
        if place not in self._held:
            self._held[place] = self._ahead.submit(self._load, place)
        return self._held[place]

    def _forget(self, *kept: order.Window) -> None:
        for place in set(self._held) - {_place(window) for window in kept}:
            del self._held[place]

    def _load(self, place: _Place) -> _Held:
        rows: list[bytes] = []
        numbers: list[np.ndarray] = []
        self._groups = {n: group for n, group in self._groups.items() if n in place[0]}
        for n, (low, high), loaded in zip(*place, self._pool.map(self._usable_rows, *place), strict=True):
            first = self._blocks[n].first
            rows.extend(loaded)
            numbers.append(np.arange(first + low, first + high, dtype=np.int64))
        return _Held(rows, np.concatenate(numbers))

    def _usable_rows(self, n: int, span: tuple[int, int]) -> list[bytes]:
        """Usable rows [low, high) of block n.

        Row groups are read on from the last span; others have no place to start in.
        """
        held, (low, high) = self._blocks[n], span
        block = held.block
        wanted = None
        if held.rows != block.rows:
            bad = self._bad.get(held.number, ())
            wanted = usable_span(held.number, block, bad, self._interval, low, high) - block.row
        item = self._source.objects[held.number]
        if item.format.name == "parquet" and block.cache is None and high - low < held.rows:
            if n not in self._groups:
                self._groups[n] = RowGroup(self._reader(), item, block, self._columns)
            start, end = (low, high) if wanted is None else (int(wanted[0]), int(wanted[-1]) + 1)
            rows = self._groups[n].rows(start, end)
            return rows if wanted is None else [rows[row - start] for row in wanted]
        rows = block_rows(self._reader(), item, block, self._columns, self._out)
        return rows[low:high] if wanted is None else [rows[row] for row in wanted]

    def _reader(self) -> ObjectStore:
        if self._store is None:
            self._store = open_source(self._config, self._interval.source, self._source.revision)
        return self._store

    def _parse(self, raw: bytes) -> dict[str, Any]:
        values = parse_json(raw)
        assert not isinstance(values, Fault), "a bad row was not on the list"
        return in_form(values, self._columns)

    def rows(self) -> Iterator[dict[str, Any]]:
        """This rank's rows of the split (number % world == rank) in file order; the next piece is read ahead."""
        pieces = list(self._pieces())
        ahead: list[Future[list[bytes]]] = []
        for place, (n, span) in enumerate(pieces):
            while len(ahead) < 2 and place + len(ahead) < len(pieces):
                ahead.append(self._ahead.submit(self._usable_rows, *pieces[place + len(ahead)]))
            for number, raw in enumerate(ahead.pop(0).result(), self._blocks[n].first + span[0]):
                if number % self._world == self._rank:
                    yield self._parse(raw)

    def _pieces(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """All blocks with rows, large row groups in parts."""
        for n, held in enumerate(self._blocks):
            item = self._source.objects[held.number]
            divisible = item.format.name == "parquet" and held.block.cache is None
            parts = min(held.rows, -(-held.block.size // PIECE_BYTES)) if divisible else 1
            edges = [held.rows * part // max(1, parts) for part in range(parts + 1)]
            yield from ((n, span) for span in pairwise(edges) if held.rows)

    def close(self) -> None:
        """Stop reading ahead; what is being read is not waited for."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._held.clear()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
