"""Which rows a row is compared with: a pure function of the rows' classes, the seed, the epoch and the row (I2, I3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEMBERS = 4
"""A row, one of its class, and two of another class: two pairs of one class and four of two."""


class Companions:
    """Of each row: drawn when asked for, so that memory goes by the rows, not by their pairs."""

    def __init__(self, classes: Sequence[int]) -> None:
        """`classes`: that of each row, by its number; negative where nothing can be learned from the row."""
        self._classes = np.asarray(classes)
        self._order = np.argsort(self._classes, kind="stable")
        self._known, self._starts = np.unique(self._classes[self._order], return_index=True)
        self._ends = np.append(self._starts[1:], len(self._order))
        keep = self._known >= 0
        self._known, self._starts, self._ends = self._known[keep], self._starts[keep], self._ends[keep]

    def group(self, row: int, draw: np.random.Generator) -> tuple[int, ...]:
        """Numbers of rows: `row`, one of its class, and two of another class that is drawn first, so that rare classes
        are met as often as frequent ones. Where a class has no second row the first stands in for it: dropout tells
        the two apart. Rows of the only class there is have each other alone.
        """
        own = int(np.searchsorted(self._known, self._classes[row]))
        near = (row, self._another(own, row, draw))
        if len(self._known) == 1:
            return near
        other = int(draw.integers(len(self._known) - 1))
        other += other >= own
        far = int(self._order[draw.integers(self._starts[other], self._ends[other])])
        return (*near, far, self._another(other, far, draw))

    def _another(self, place: int, row: int, draw: np.random.Generator) -> int:
        """A row of the class but this one, if it has others."""
        low, high = int(self._starts[place]), int(self._ends[place])
        if high - low == 1:
            return row
        found = int(self._order[draw.integers(low, high - 1)])
        return int(self._order[high - 1]) if found == row else found
