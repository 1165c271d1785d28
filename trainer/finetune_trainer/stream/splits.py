"""Which rows a split has: all of its own source, or the share of the training rows that a fixed hash of their place
gives.

Whatever the seed, the same rows are held out, so that scores of different seeds compare. Bad rows are in no split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.sources import Data
from finetune_trainer.stream.manifest import Block, DataManifest, Source
from finetune_trainer.stream.order import mix

_PLACE_KEY = 0x66696E6574756E65_6F70657261746F72  # fixed for ever: changing it changes what was held out
HELD_OUT = ("validation", "test")
FOLD, BUT_FOLD = "fold-", "train-but-"
"""Beginnings of the names of splits: with a number from 1, the rows of that fold, and all other training rows."""
SET = "set-"
"""Before the name of a set of spec.evaluation.sets, as the name of a split and of its source."""
_CHUNK = 1 << 18
"""Rows that are looked at together: a block may hold millions."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The part [low, high) of the unit interval that a split takes of its source's rows."""

    source: str
    low: float = 0.0
    high: float = 1.0

    @property
    def whole(self) -> bool:
        return self.low <= 0.0 and self.high >= 1.0

    def contains(self, number: int, rows: np.ndarray) -> np.ndarray:
        """For each of these rows of object `number`, whether the interval has it."""
        place = mix(rows.astype(np.uint64) | (np.uint64(number) << np.uint64(40)), _PLACE_KEY) >> np.uint64(11)
        at = place.astype(np.float64) / float(1 << 53)
        return (at >= self.low) & (at < self.high)


def part_of(split: str, data: Data) -> Interval | None:
    """Where a split's rows come from; None when the spec has no such split."""
    validation = (data.validation.fraction if data.validation else None) or 0.0
    test = (data.test.fraction if data.test else None) or 0.0
    if split == "train":
        return Interval("train", validation + test, 1.0)
    if split.startswith(SET):
        return Interval(split)
    held = data.validation if split == "validation" else data.test
    if held is None:
        return None
    if held.uri is not None:
        return Interval(split)
    low = 0.0 if split == "validation" else validation
    return Interval("train", low, low + (held.fraction or 0.0))


def rows_called(split: str) -> str:
    """What people call the rows of a split."""
    return f"rows of set {split.removeprefix(SET)!r}" if split.startswith(SET) else f"{split} rows"


def intervals_of(data: Data) -> dict[str, tuple[str, float, float] | None]:
    """split -> which part of which source it takes, as the order's digest holds it."""
    found = {split: part_of(split, data) for split in ("train", *HELD_OUT)}
    return {split: (part.source, part.low, part.high) if part else None for split, part in found.items()}


def usable(number: int, block: Block, bad: Sequence[int], interval: Interval) -> np.ndarray:
    """Rows of a block of object `number` that belong to the interval, as row numbers in the object; sorted."""
    return np.concatenate([*_usable(number, block, bad, interval), np.zeros(0, dtype=np.int64)])


def usable_span(number: int, block: Block, bad: Sequence[int], interval: Interval, low: int, high: int) -> np.ndarray:
    """Elements [low, high) of `usable`, without making all of it."""
    found: list[np.ndarray] = []
    for rows in _usable(number, block, bad, interval):
        found.append(rows[max(0, low) : max(0, high)])
        low, high = low - len(rows), high - len(rows)
        if high <= 0:
            break
    return np.concatenate(found)


def _usable(number: int, block: Block, bad: Sequence[int], interval: Interval) -> Iterator[np.ndarray]:
    wrong = np.asarray(bad, dtype=np.int64)
    end = block.row + block.rows
    for start in range(block.row, end, _CHUNK):
        rows = np.arange(start, min(end, start + _CHUNK), dtype=np.int64)
        if len(wrong):
            rows = rows[~np.isin(rows, wrong)]
        yield rows if interval.whole else rows[interval.contains(number, rows)]


@dataclass(frozen=True, slots=True)
class SplitBlock:
    """A block as a split sees it: `rows` usable ones, the first of which has the number `first` in the split."""

    number: int  # of the object
    block: Block
    rows: int
    first: int


def copied_blocks(blocks: Sequence[Block]) -> list[SplitBlock]:
    """Blocks of copies that hold the rows of one split and no other."""
    firsts = itertools.accumulate((block.rows for block in blocks), initial=0)
    return [SplitBlock(0, block, block.rows, first) for block, first in zip(blocks, firsts, strict=False)]


def split_blocks(
    manifest: DataManifest, bad: Mapping[str, Mapping[int, Sequence[int]]], interval: Interval
) -> list[SplitBlock]:
    """All blocks of the interval's source in file order. bad: source -> object number -> rows."""
    source: Source = manifest.sources[interval.source]
    found: list[SplitBlock] = []
    first = 0
    for number, item in enumerate(source.objects):
        wrong = bad.get(interval.source, {}).get(number, ())
        for block in item.blocks:
            rows = (
                block.rows
                if interval.whole and not len(wrong)
                else sum(map(len, _usable(number, block, wrong, interval)))
            )
            found.append(SplitBlock(number, block, rows, first))
            first += rows
    return found
