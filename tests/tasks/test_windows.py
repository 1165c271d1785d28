"""Windows over a long row: everything is covered, and each position is answered where it has most context."""

from __future__ import annotations

import itertools
import random

import pytest

from finetune_trainer.tasks.windows import Window, windows


def context(window: Window, position: int) -> int:
    """Positions on the poorer side of this one."""
    return min(position - window.start, window.end - 1 - position)


def test_each_position_is_answered_once_in_a_window_that_sees_most_around_it() -> None:
    rng = random.Random(5)
    for _ in range(400):
        size = rng.randint(1, 40)
        overlap, length = rng.randrange(size), rng.randint(0, 300)
        found = windows(length, size, overlap)
        owners = [[w for w in found if w.first <= p < w.last] for p in range(length)]
        assert all(len(own) == 1 for own in owners)
        assert all(w.start <= w.first <= w.last <= w.end <= w.start + size for w in found)
        for earlier, later in itertools.pairwise(found):
            assert later.start > earlier.start
            assert earlier.end - later.start >= overlap, "neighbours share what was asked for"
        if length > size:
            assert {w.end - w.start for w in found} == {size}
            assert len(found) == -(-(length - overlap) // (size - overlap)), "no more than needed"
            for position, (own,) in enumerate(owners):
                inner = [w for w in found if w.start <= position < w.end]
                ends = {0, length - 1}
                if not ends & {own.start, own.end - 1}:  # at the row's ends there is no more context to be had
                    assert context(own, position) == max(context(w, position) for w in inner)


def test_a_row_that_fits_is_one_window() -> None:
    assert windows(7, 7, 3) == [Window(0, 7, 0, 7)]
    assert windows(0, 7, 3) == [Window(0, 0, 0, 0)]
    assert windows(9, 1 << 30, 1 << 28) == [Window(0, 9, 0, 9)]


@pytest.mark.parametrize(("size", "overlap"), [(4, 4), (4, 9), (4, -1), (0, 0)])
def test_windows_that_do_not_get_on_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="cannot overlap"):
        windows(10, size, overlap)
