"""Which rows a split has: all of its own source, or the share of the training rows that a fixed hash of their place gives.

Whatever the seed, the same rows are held out, so that scores of different seeds compare. Bad rows are in no split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.job import Data
from finetune_trainer.stream.manifest import Block, Manifest, Source
from finetune_trainer.stream.order import mix

_PLACE_KEY = 0x66696E6574756E65_6F70657261746F72  # fixed for ever: changing it changes what was held out
HELD_OUT = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Share:
    """The part [low, high) of the unit interval that a split takes of its source's rows."""

    source: str
    low: float = 0.0
    high: float = 1.0

    @property
    def whole(self) -> bool:
        return self.low <= 0.0 and self.high >= 1.0


def share_of(split: str, data: Data) -> Share | None:
    """Where a split's rows come from; None when the spec has no such split."""
    validation = (data.validation.fraction if data.validation else None) or 0.0
    test = (data.test.fraction if data.test else None) or 0.0
    if split == "train":
        return Share("train", validation + test, 1.0)
    held = data.validation if split == "validation" else data.test
    if held is None:
        return None
    if held.uri is not None:
        return Share(split)
    low = 0.0 if split == "validation" else validation
    return Share("train", low, low + (held.fraction or 0.0))


def usable(number: int, block: Block, bad: Sequence[int], share: Share) -> np.ndarray:
    """Rows of a block of object `number` that belong to the share, as row numbers in the object; sorted."""
    rows = np.arange(block.row, block.row + block.rows, dtype=np.int64)
    if len(bad):
        rows = rows[~np.isin(rows, np.asarray(bad, dtype=np.int64))]
    if share.whole or not len(rows):
        return rows
    place = mix(rows.astype(np.uint64) | (np.uint64(number) << np.uint64(40)), _PLACE_KEY) >> np.uint64(11)
    at = place.astype(np.float64) / float(1 << 53)
    return rows[(at >= share.low) & (at < share.high)]


@dataclass(frozen=True, slots=True)
class SplitBlock:
    """A block as a split sees it: `rows` usable ones, the first of which has the number `first` in the split."""

    number: int  # of the object
    block: Block
    rows: int
    first: int


def split_blocks(manifest: Manifest, bad: Mapping[str, Mapping[int, Sequence[int]]], share: Share) -> list[SplitBlock]:
    """All blocks of the share's source in file order. bad: source -> object number -> rows."""
    source: Source = manifest.sources[share.source]
    found: list[SplitBlock] = []
    first = 0
    for number, item in enumerate(source.objects):
        wrong = bad.get(share.source, {}).get(number, ())
        for block in item.blocks:
            rows = block.rows if share.whole and not len(wrong) else len(usable(number, block, wrong, share))
            found.append(SplitBlock(number, block, rows, first))
            first += rows
    return found
