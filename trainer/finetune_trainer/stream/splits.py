"""Which rows a split has: all usable ones of its source, or those that were drawn for it by the prepare step.

What is drawn hangs on the rows' content alone, so the same rows are held out whatever the seed, and scores of different
seeds compare. Bad rows are in no split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.sources import Data
from finetune_trainer.stream.manifest import Block, Source
from finetune_trainer.stream.parts import FIRST_FOLD, MOST_FOLDS, TEST, TRAIN, VALIDATION

HELD_OUT = ("validation", "test")
FOLD, BUT_FOLD = "fold-", "train-but-"
"""Beginnings of the names of splits: with a number from 1, the rows of that fold, and all other training rows."""
SET = "set-"
"""Before the name of a set of spec.evaluation.sets, as the name of a split and of its source."""
_CHUNK = 1 << 18
"""Rows that are looked at together: a block may hold millions."""
_STEP = 1 << 14
"""Rows between two entries of the table that finds a row of a split by its number."""
_HELD = {"validation": VALIDATION, "test": TEST}
_LEARNED = frozenset({TRAIN, *range(FIRST_FOLD, FIRST_FOLD + MOST_FOLDS)})


@dataclass(frozen=True, slots=True)
class Part:
    """What a split takes of a source's rows: those whose part is one of `taken`, or all that are usable."""

    source: str
    taken: frozenset[int] | None = None

    @property
    def whole(self) -> bool:
        return self.taken is None

    def has(self, parts: np.ndarray) -> np.ndarray:
        """For each of these parts, whether the split has such rows."""
        table = np.zeros(256, dtype=bool)
        table[sorted(self.taken or ())] = True
        found: np.ndarray = table[parts]
        return found


def part_of(split: str, data: Data) -> Part | None:
    """Where a split's rows come from; None when the spec has no such split."""
    held = {"validation": data.validation, "test": data.test}
    fractions = [source for source in held.values() if source and source.fraction is not None]
    if split == "train":
        return Part("train", _LEARNED if fractions or data.train.per_class is not None else None)
    if split.startswith(SET):
        return Part(split)
    for beginning in (FOLD, BUT_FOLD):
        if split.startswith(beginning):
            fold = FIRST_FOLD + int(split.removeprefix(beginning)) - 1
            return Part("train", frozenset({fold}) if beginning == FOLD else _LEARNED - {fold})
    source = held[split]
    if source is None:
        return None
    return Part(split) if source.uri is not None else Part("train", frozenset({_HELD[split]}))


def rows_called(split: str) -> str:
    """What people call the rows of a split."""
    for beginning, words in ((SET, "rows of set {!r}"), (FOLD, "rows of fold {}"), (BUT_FOLD, "rows outside fold {}")):
        if split.startswith(beginning):
            return words.format(split.removeprefix(beginning))
    return f"{split} rows"


def taken_of(data: Data) -> dict[str, tuple[object, ...] | None]:
    """split -> what it takes of which source, as the order's digest holds it; what is drawn, the parts say."""
    found: dict[str, tuple[object, ...] | None] = {}
    for split in ("train", *HELD_OUT):
        part = part_of(split, data)
        if part is not None:
            found[split] = (part.source, 0.0, 1.0) if part.whole else (part.source, split)
        else:
            found[split] = None
    return found


class SplitRows:
    """The rows of one split by their places: in a block, and in the whole source."""

    def __init__(
        self, source: Source, part: Part, bad: Mapping[int, Sequence[int]], parts: np.ndarray | None = None
    ) -> None:
        """bad: number of an object -> its rows that are in no split; parts: of all rows of the source, where they were
        drawn.
        """
        assert part.whole or parts is not None
        self._part, self._bad, self._parts = part, bad, None if part.whole else parts
        self._firsts = [0, *itertools.accumulate(item.rows for item in source.objects)]
        self._counts: np.ndarray | None = None
        self._before: np.ndarray | None = None
        """Of each bad row, how many usable ones stand before it."""

    def count(self, number: int, block: Block) -> int:
        """How many of a block of object `number` belong to the split."""
        if self._parts is None and not self._bad.get(number):
            return block.rows
        return sum(map(len, self._chunks(number, block)))

    def within(self, number: int, block: Block, low: int = 0, high: int | None = None) -> np.ndarray:
        """Those of a block, from the `low`th up to the `high`th, as row numbers in the object; sorted."""
        high = block.rows if high is None else high
        found: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
        for rows in self._chunks(number, block):
            found.append(rows[max(0, low) : max(0, high)])
            low, high = low - len(rows), high - len(rows)
            if high <= 0:
                break
        return np.concatenate(found)

    def _chunks(self, number: int, block: Block) -> Iterator[np.ndarray]:
        wrong = np.asarray(self._bad.get(number, ()), dtype=np.int64)
        end = block.row + block.rows
        for start in range(block.row, end, _CHUNK):
            stop = min(end, start + _CHUNK)
            if self._parts is not None:
                first = self._firsts[number]
                yield start + np.flatnonzero(self._part.has(self._parts[first + start : first + stop]))
            else:
                rows = np.arange(start, stop, dtype=np.int64)
                yield rows[~np.isin(rows, wrong)] if len(wrong) else rows

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where rows stand in the whole source, by their numbers in the split; int64."""
        numbers = np.asarray(numbers, dtype=np.int64)
        if self._parts is None:
            if self._before is None:
                wrong = [np.asarray(rows, dtype=np.int64) + self._firsts[n] for n, rows in sorted(self._bad.items())]
                bad = np.concatenate([*wrong, np.zeros(0, dtype=np.int64)])
                self._before = bad - np.arange(len(bad))
            return numbers + np.searchsorted(self._before, numbers, side="right")
        if self._counts is None:
            steps = range(0, len(self._parts), _STEP)
            counts = [int(self._part.has(self._parts[start : start + _STEP]).sum()) for start in steps]
            self._counts = np.cumsum([0, *counts])
        found = np.empty(len(numbers), dtype=np.int64)
        at = np.searchsorted(self._counts, numbers, side="right") - 1
        for step in np.unique(at).tolist():
            here, start = at == step, step * _STEP
            rows = start + np.flatnonzero(self._part.has(self._parts[start : start + _STEP]))
            found[here] = rows[numbers[here] - self._counts[step]]
        return found


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


def split_blocks(source: Source, rows: SplitRows) -> list[SplitBlock]:
    """All blocks of a split's source in file order."""
    found: list[SplitBlock] = []
    first = 0
    for number, item in enumerate(source.objects):
        for block in item.blocks:
            count = rows.count(number, block)
            found.append(SplitBlock(number, block, count, first))
            first += count
    return found
