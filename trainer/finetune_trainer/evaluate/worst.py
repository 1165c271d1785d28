"""The rows that a model gets most wrong, kept while it is judged: a few of each kind, however many rows there are.

Equally wrong ones go by their number, so that the same rows are kept however they are cut into batches and ranks.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_trainer.batches.example import Example

if TYPE_CHECKING:  # it brings torch
    from finetune_trainer.distributed.ranks import Ranks

VALUES = 3
"""Numbers that are kept of an answer, at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the split that is judged, by its number. `wrong`: how far off the answer is, `then`: among equals; both
    say by what a kind goes. `values`: what the answer was, as the tally and the task have agreed.
    """

    kind: str
    wrong: float
    then: float
    row: int
    values: tuple[float, ...]


class Worst:
    """Takes the answers of one rank, in whatever order they come; tallies tell it of those that are wrong."""

    def __init__(self, kinds: Iterable[str], most: int) -> None:
        """`most`: rows that are kept of each kind; what a tally tells of another kind is not kept."""
        self.most = most
        self._kept: dict[str, list[tuple[float, float, int, tuple[float, ...]]]] = {kind: [] for kind in kinds}
        self._rows: dict[int, tuple[int, int]] = {}
        self._parts: dict[tuple[str, int], tuple[int, float, float]] = {}

    def expect(self, row: int, examples: Sequence[Example]) -> None:
        """These are all that comes of this row."""
        for example in examples:
            self._rows[id(example)] = (row, len(examples))

    def forget(self, examples: Sequence[Example]) -> None:
        """They have been judged."""
        for example in examples:
            del self._rows[id(example)]

    def row_of(self, example: Example) -> int:
        """The number of the row that it is of."""
        return self._rows[id(example)][0]

    def take(self, kind: str, row: int, wrong: float, then: float = 0.0, values: Sequence[float] = ()) -> None:
        """A row that has been judged as a whole; of figures that are no numbers nothing is kept."""
        kept = self._kept.get(kind)
        if kept is None or not math.isfinite(wrong) or not math.isfinite(then):
            return
        if len(kept) == self.most and wrong < kept[0][0]:
            return
        entry = (wrong, then, -row, tuple(values))
        if len(kept) < self.most:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)

    def add(self, kind: str, example: Example, wrong: float, weight: float | None = None) -> None:
        """A part of a row: when all of its parts have come, the row is as wrong as they are together; with weights, in
        the mean over these. What came to nothing is not wrong.
        """
        row, parts = self._rows[id(example)]
        seen, sums, weights = self._parts.pop((kind, row), (0, 0.0, 0.0))
        seen, sums, weights = seen + 1, sums + wrong, weights + (weight or 0.0)
        if seen < parts:
            self._parts[kind, row] = seen, sums, weights
            return
        total = sums if weight is None else sums / weights if weights else 0.0
        if total > 0:
            self.take(kind, row, total)

    def merged(self, ranks: Ranks) -> list[Kept]:
        """The worst over all ranks, kind by kind, the worst first; the same on every rank. Collective."""
        width = 4 + VALUES
        size = self.most * width
        own: list[float] = []
        for kept in self._kept.values():
            flat = [x for wrong, then, row, values in kept for x in (len(values), wrong, then, -row, *_padded(values))]
            own += [*flat, *[-1.0] * (size - len(flat))]
        slots = [0.0] * (len(own) * ranks.size)
        slots[ranks.rank * len(own) : (ranks.rank + 1) * len(own)] = own
        slots = ranks.sum(slots)
        found: list[Kept] = []
        for n, kind in enumerate(self._kept):
            of_kind: list[Kept] = []
            for rank in range(ranks.size):
                start = rank * len(own) + n * size
                for at in range(start, start + size, width):
                    count, wrong, then, row, *values = slots[at : at + width]
                    if count >= 0:
                        of_kind.append(Kept(kind, wrong, then, int(row), tuple(values[: int(count)])))
            of_kind.sort(key=lambda each: (-each.wrong, -each.then, each.row))
            found += of_kind[: self.most]
        return found


def _padded(values: tuple[float, ...]) -> list[float]:
    assert len(values) <= VALUES
    return [*values, *[0.0] * (VALUES - len(values))]
