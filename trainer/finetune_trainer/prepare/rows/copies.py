"""Copies of rows below the output's prefix, in blocks that can be read one by one; swept when the job has succeeded."""

from __future__ import annotations

import zlib

from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import CACHE
from finetune_trainer.stream.manifest import BLOCK_BYTES, Block


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
