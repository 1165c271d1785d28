"""A row longer than the model takes, cut into windows that overlap: every position stands in one, and is answered in
the one where it has most context. Nothing but lengths decides where a window begins: no label, no answer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Positions `start` to `end` (exclusive) of a row, of which `first` to `last` (exclusive) are this window's own.

    Own parts of neighbouring windows meet without a gap, so that each position is one window's own.
    """

    start: int
    end: int
    first: int
    last: int


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """The fewest windows of `size` positions that cover 0 to `length`, neighbours sharing `overlap` at least.

    They lie evenly, so that the last has as much context as the others; one window where the row fits. A position in
    the midst of two windows is the earlier one's. Raises ValueError where they could not get on: size <= overlap.
    """
    if length <= size:
        return [Window(0, length, 0, length)]
    if not 0 <= overlap < size:
        raise ValueError(f"windows of {size} cannot overlap by {overlap}")
    count = -(-(length - overlap) // (size - overlap))
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    # where the context to the left in the later window begins to be more than that to the right in the earlier one
    borders = [0, *((earlier + size + later + 1) // 2 for earlier, later in itertools.pairwise(starts)), length]
    return [Window(s, s + size, a, b) for s, a, b in zip(starts, borders, borders[1:], strict=False)]
