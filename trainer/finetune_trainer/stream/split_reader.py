"""Reads the usable rows of one split, block by block or a range of a block at a time, as JSON bytes.

What was held out by a fraction is read from the job's own copy, so that no evaluation reads the training rows again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form
from finetune_api.records import Fault, parse_json
from finetune_api.run import RunConfig
from finetune_trainer.storage import ObjectStore, location
from finetune_trainer.stream.blocks import RowGroup, block_rows
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.sources.source import open_source
from finetune_trainer.stream.splits import SplitBlock, copied_blocks, part_of, split_blocks, usable, usable_span

PIECE_BYTES = 16 << 20
"""So much of a row group at a time is held where rows are read in file order."""

Span = tuple[int, int]
"""[low, high) of a block's usable rows."""


class SplitReader:
    """The rows of a split. `blocks` are those of its source, or of its copy, in file order."""

    def __init__(self, config: RunConfig, manifest: DataManifest, profile: Profile, split: str) -> None:
        interval = part_of(split, config.data)
        if interval is None:
            raise JobError(Reason.INVALID_CONFIG, f"the job has no {split} rows", field=f"spec.data.{split}")
        self._config, self._interval, self._source = config, interval, manifest.sources[interval.source]
        self._bad = profile.bad.get(interval.source, {})
        self._columns = tuple(dict.fromkeys(profile.columns.values()))
        self._out = location(config.output.uri, config.storage)
        self._of_source = split_blocks(manifest, profile.bad, interval)
        copies = profile.held_out.get(split)
        self.blocks: list[SplitBlock] = copied_blocks(copies) if copies else self._of_source
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
            bad = self._bad.get(of_split.number, ())
            wanted = usable_span(of_split.number, block, bad, self._interval, low, high) - block.row
        item = self._source.objects[of_split.number]
        if self._is_row_group(of_split) and high - low < of_split.rows:
            if n not in self._groups:
                self._groups[n] = RowGroup(self._reader(), item, block, self._columns)
            start, end = (low, high) if wanted is None else (int(wanted[0]), int(wanted[-1]) + 1)
            rows = self._groups[n].rows(start, end)
            return rows if wanted is None else [rows[row - start] for row in wanted]
        rows = block_rows(self._reader(), item, block, self._columns, self._out)
        return rows[low:high] if wanted is None else [rows[row] for row in wanted]

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where the split's rows of these numbers stand among all rows of their source: what names a row in any split.

        Rows are counted over all objects in order, bad ones included; int64, as many as `numbers`.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        found = np.empty(len(wanted), dtype=np.int64)
        before = np.cumsum([0, *(item.rows for item in self._source.objects)])
        at = np.searchsorted([block.first for block in self._of_source], wanted, side="right") - 1
        for n in np.unique(at).tolist():
            here, block = at == n, self._of_source[n]
            rows = usable(block.number, block.block, self._bad.get(block.number, ()), self._interval)
            found[here] = before[block.number] + rows[wanted[here] - block.first]
        return found

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
            self._store = open_source(self._config, self._interval.source, self._source.revision)
        return self._store
