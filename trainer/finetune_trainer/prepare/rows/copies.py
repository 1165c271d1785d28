"""Copies of rows below the output's prefix, in blocks that can be read one by one; swept when the job has succeeded.

Held-out rows are copied while the training rows are read: else every evaluation would read the whole training set
again. The copies hold the same rows in the same order as the set itself, so scores do not depend on them.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from finetune_api.sources import Data
from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import CACHE, to_bytes
from finetune_trainer.stream.manifest import BLOCK_BYTES, Block
from finetune_trainer.stream.splits import HELD_OUT, Interval, part_of

_CHUNK = 4096


class BlockWriter:
    """Writes rows one after the other as blocks of about BLOCK_BYTES, named after `name`; the first has the number
    `row`.
    """

    def __init__(self, out: Location, name: str, row: int = 0) -> None:
        self._out, self._name, self._row = out, name, row
        self._blocks: list[Block] = []
        self._rows: list[bytes] = []
        self._line, self._size = 1, 0

    def add(self, raw: bytes, line: int) -> None:
        """A row as JSON."""
        if self._rows and self._size + len(raw) > BLOCK_BYTES:
            self._write()
        if not self._rows:
            self._line = line
        self._rows.append(raw)
        self._size += len(raw) + 1

    def done(self) -> tuple[Block, ...]:
        """All blocks, once there are no more rows."""
        if self._rows:
            self._write()
        return tuple(self._blocks)

    def _write(self) -> None:
        import zstandard

        data = zstandard.compress(b"".join(row + b"\n" for row in self._rows), 3)
        key = f"{self._name}-{len(self._blocks):06}.jsonl.zst"
        self._out.put(f"{CACHE}{key}", data)
        self._blocks.append(
            Block(0, len(data), self._row, len(self._rows), self._line, self._size, zlib.crc32(data), key)
        )
        self._row += len(self._rows)
        self._rows, self._size = [], 0


class HeldOutCopies:
    """Copies of what `fraction` holds out, made while the training rows go by."""

    def __init__(self, data: Data, out: Location) -> None:
        intervals = {split: part_of(split, data) for split in HELD_OUT}
        self._intervals: dict[str, Interval] = {
            s: interval for s, interval in intervals.items() if interval and interval.source == "train"
        }
        self._writers = {split: BlockWriter(out, f"held-out-{split}") for split in self._intervals}
        self._chunk: tuple[int, int] | None = None
        self._taken: dict[str, np.ndarray] = {}

    def offer(self, number: int, row: int, line: int, values: dict[str, Any]) -> None:
        """A usable row of the training source: row `row` of object `number`, its wanted columns."""
        if not self._intervals:
            return
        if self._chunk != (number, row // _CHUNK):
            self._chunk = (number, row // _CHUNK)
            rows = np.arange(row - row % _CHUNK, row - row % _CHUNK + _CHUNK, dtype=np.int64)
            self._taken = {split: interval.contains(number, rows) for split, interval in self._intervals.items()}
        for split, taken in self._taken.items():
            if taken[row % _CHUNK]:
                self._writers[split].add(to_bytes(values, list(values)), line)

    def done(self) -> dict[str, tuple[Block, ...]]:
        """split -> its blocks."""
        return {split: writer.done() for split, writer in self._writers.items()}
