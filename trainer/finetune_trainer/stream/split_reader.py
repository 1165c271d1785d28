"""Reads the usable rows of one split, block by block or a range of a block at a time, as JSON bytes.

What was held out by a fraction is read from the job's own copy, so that no evaluation reads the training rows again.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form
from finetune_api.records import Fault, parse_json
from finetune_api.run import RunConfig
from finetune_trainer.storage import ObjectStore, location
from finetune_trainer.stream.blocks import RowGroup, block_lines, block_rows
from finetune_trainer.stream.manifest import Block, DataManifest, Source
from finetune_trainer.stream.parts import drawn_otherwise, load_parts
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.sources.source import open_source
from finetune_trainer.stream.splits import SplitBlock, SplitRows, copied_blocks, part_of, split_blocks

LINE_BYTES = 64 << 20
"""So much of a source's objects is read, at most, to count lines."""
TEXTS = ("jsonl", "csv")
"""Formats whose rows have lines."""
PIECE_BYTES = 16 << 20
"""So much of a row group at a time is held where rows are read in file order."""

Span = tuple[int, int]
"""[low, high) of a block's usable rows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its object, its number there (from 1; bad rows count), its first line, where it has one and
    that was counted."""

    file: str
    row: int
    line: int | None


class PartReader:
    """Reads rows of a source. `blocks` are those of the source, or of copies of just these rows, in file order."""

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        role: str,
        columns: Iterable[str],
        rows: SplitRows,
        copies: Sequence[Block] = (),
    ) -> None:
        """`rows`: which ones; `columns`: what is handed on of them; `copies`: blocks that hold them and no others."""
        self._config, self._source, self._role, self._rows = config, source, role, rows
        self._columns = tuple(dict.fromkeys(columns))
        self._out = location(config.output.uri, config.storage)
        self.blocks: list[SplitBlock] = copied_blocks(copies) if copies else split_blocks(source, rows)
        self.before = [0, *itertools.accumulate(item.rows for item in source.objects)]
        """Of each object, how many rows of the source come before it."""
        self._store: ObjectStore | None = None
        self._groups: dict[int, RowGroup] = {}
        """Row groups that are being read on, by block."""

    @property
    def row_count(self) -> int:
        """Usable rows of the split."""
        return sum(block.rows for block in self.blocks)

    def read(self, n: int, span: Span) -> list[bytes]:
        """Usable rows [low, high) of block n.

        Row groups are read on from the last span; other blocks have no place to start in and are read whole.
        """
        of_split, (low, high) = self.blocks[n], span
        block = of_split.block
        wanted = None
        if of_split.rows != block.rows:
            wanted = self._rows.within(of_split.number, block, low, high) - block.row
        item = self._source.objects[of_split.number]
        start, end = (low, high) if wanted is None else (int(wanted[0]), int(wanted[-1]) + 1)
        if self._is_row_group(of_split) and (high - low < of_split.rows or 2 * (end - start) < block.rows):
            if n not in self._groups:
                self._groups[n] = RowGroup(self._reader(), item, block, self._columns)
            rows = self._groups[n].rows(start, end)
            return rows if wanted is None else [rows[row - start] for row in wanted]
        rows = block_rows(self._reader(), item, block, self._columns, self._out)
        return rows[low:high] if wanted is None else [rows[row] for row in wanted]

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where the rows of these numbers stand among all rows of the source: what names a row in any split.

        Rows are counted over all objects in order, bad ones included; int64, as many as `numbers`.
        """
        return self._rows.positions(numbers)

    def rows_at(self, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
        """The split's rows of these numbers; only the pieces that hold them are read."""
        wanted, found, at = sorted(set(numbers)), dict[int, dict[str, Any]](), 0
        for n, (low, high) in self.pieces():
            first, at = self.blocks[n].first, bisect_left(wanted, self.blocks[n].first + low)
            here = wanted[at : bisect_left(wanted, first + high)]
            rows = self.read(n, (low, high)) if here else []
            found |= {number: self.parse(rows[number - first - low]) for number in here}
        return found

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Where the split's rows of these numbers stand in their source, in this order.

        Lines are counted in the objects themselves, as far as these can be read and are not too large.
        """
        objects = self._source.objects
        positions = self.positions(np.array(numbers, dtype=np.int64))
        of = (np.searchsorted(self.before, positions, side="right") - 1).tolist()
        rows = [int(position - self.before[n]) for position, n in zip(positions, of, strict=True)]
        lines: dict[tuple[int, int], int] = {}
        left = LINE_BYTES
        blocks = {(n, row): self._block_at(n, row) for n, row in zip(of, rows, strict=True)}
        for n, block in dict.fromkeys((n, blocks[n, row]) for n, row in sorted(blocks)):
            item = objects[n]
            cost = block.end - block.start if item.format.splittable else item.size
            if item.format.name in TEXTS and cost <= left:
                left -= cost
                with suppress(JobError):  # what was held out has its copy, and the source may have changed since
                    found = block_lines(self._reader(), item, block)
                    lines |= {(n, block.row + i): line for i, line in enumerate(found)}
        return [
            Place(self._reader().uri(objects[n].key), row + 1, lines.get((n, row)))
            for n, row in zip(of, rows, strict=True)
        ]

    def _block_at(self, number: int, row: int) -> Block:
        blocks = self._source.objects[number].blocks
        return blocks[bisect_right([block.row for block in blocks], row) - 1]

    def release_all_but(self, blocks: Collection[int]) -> None:
        """Let go of row groups of other blocks."""
        self._groups = {n: group for n, group in self._groups.items() if n in blocks}

    def pieces(self) -> Iterator[tuple[int, Span]]:
        """All blocks with rows in file order, large row groups in parts."""
        for n, of_split in enumerate(self.blocks):
            divisible = self._is_row_group(of_split)
            parts = min(of_split.rows, -(-of_split.block.size // PIECE_BYTES)) if divisible else 1
            edges = [of_split.rows * part // max(1, parts) for part in range(parts + 1)]
            yield from ((n, span) for span in pairwise(edges) if of_split.rows)

    def parse(self, raw: bytes) -> dict[str, Any]:
        """A row's wanted columns."""
        values = parse_json(raw)
        assert not isinstance(values, Fault), "a bad row was not on the list"
        return in_form(values, self._columns)

    def _is_row_group(self, of_split: SplitBlock) -> bool:
        return self._source.objects[of_split.number].format.name == "parquet" and of_split.block.cache is None

    def _reader(self) -> ObjectStore:
        if self._store is None:
            self._store = open_source(self._config, self._role, self._source.revision)
        return self._store


class SplitReader(PartReader):
    """The rows of a split of a prepared job."""

    def __init__(self, config: RunConfig, manifest: DataManifest, profile: Profile, split: str) -> None:
        part = part_of(split, config.data)
        if part is None:
            raise JobError(Reason.INVALID_CONFIG, f"the job has no {split} rows", field=f"spec.data.{split}")
        parts = None
        if not part.whole:
            out = location(config.output.uri, config.storage)
            if profile.parts is None:
                raise drawn_otherwise(out)
            parts = load_parts(out, profile.parts)
        source = manifest.sources[part.source]
        rows = SplitRows(source, part, profile.bad.get(part.source, {}), parts)
        super().__init__(config, source, part.source, profile.columns.values(), rows, profile.held_out.get(split, ()))
