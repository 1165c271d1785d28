"""Copies of the rows that fractions hold out, made once it is known which these are: else every evaluation would read
the whole training set again.

Only blocks that hold such rows are read, one after the other. The copies hold the same rows in the same order as the
set itself, so scores do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finetune_api.run import RunConfig
from finetune_trainer.prepare.rows.copies import BlockWriter
from finetune_trainer.storage import Location
from finetune_trainer.stream.blocks import to_bytes
from finetune_trainer.stream.manifest import Block, DataManifest
from finetune_trainer.stream.parts import TEST, VALIDATION
from finetune_trainer.stream.split_reader import PartReader
from finetune_trainer.stream.splits import Part, SplitRows, part_of

_PARTS = {"validation": VALIDATION, "test": TEST}


def copy_held_out(
    config: RunConfig, out: Location, manifest: DataManifest, columns: Iterable[str], parts: np.ndarray | None
) -> dict[str, tuple[Block, ...]]:
    """split -> blocks with its rows, of splits that take a fraction. `parts`: of all rows of the training source."""
    splits = {split: part_of(split, config.data) for split in _PARTS}
    held = {_PARTS[split]: split for split, part in splits.items() if part is not None and part.source == "train"}
    if not held or parts is None:
        return {}
    source, columns = manifest.sources["train"], tuple(dict.fromkeys(columns))
    rows = SplitRows(source, Part("train", frozenset(held)), {}, parts)
    reader = PartReader(config, source, "train", columns, rows)
    writers = {part: BlockWriter(out, f"held-out-{split}") for part, split in held.items()}
    for n, (low, high) in reader.pieces():
        reader.release_all_but([n])
        of_split = reader.blocks[n]
        first, block = reader.before[of_split.number], of_split.block
        places = rows.within(of_split.number, block, low, high)
        for row, part, raw in zip(
            places.tolist(), parts[first + places].tolist(), reader.read(n, (low, high)), strict=True
        ):
            writers[part].add(to_bytes(reader.parse(raw), columns), block.line + row - block.row)
    return {split: writers[part].done() for part, split in held.items()}
