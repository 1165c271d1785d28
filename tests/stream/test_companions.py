"""Which rows a row is compared with: a pure function of classes and draw, balanced, and of all rows alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from finetune_trainer.stream.companions import Companions


def draw(*words: int) -> np.random.Generator:
    return np.random.default_rng(words)


def test_a_group_has_two_rows_of_each_of_two_classes_the_row_itself_first() -> None:
    classes = np.random.default_rng(0).integers(0, 5, 200)
    found = Companions(classes)
    for row in range(200):
        group = found.group(row, draw(1, row))
        assert group[0] == row
        assert len(set(group)) == 4
        own, near, far, other = (classes[r] for r in group)
        assert own == near != far == other
        assert group == found.group(row, draw(1, row)), "the same draw gives the same rows"
    assert [found.group(7, draw(1, e)) for e in range(9)] != [found.group(7, draw(2, e)) for e in range(9)]


def test_every_row_of_a_class_and_every_other_class_is_drawn_as_often() -> None:
    classes = [0] * 10 + [1] * 3 + [2] * 40
    found = Companions(classes)
    groups = [found.group(4, draw(0, e)) for e in range(9000)]
    near, far = Counter(g[1] for g in groups), Counter(r for g in groups for r in g[2:])
    assert set(near) == set(range(10)) - {4}
    assert min(near.values()) == pytest.approx(1000, rel=0.15)
    assert max(near.values()) == pytest.approx(1000, rel=0.15)
    assert set(far) == set(range(10, 53))
    rare = sum(far[r] for r in range(10, 13))
    assert rare == pytest.approx(9000, rel=0.05), "half of what is drawn, of a class of three"


def test_the_only_row_of_a_class_stands_in_for_a_second() -> None:
    found = Companions([0, 1, 1, 0, 2])
    own, near, far, other = found.group(4, draw(0))
    assert (own, near) == (4, 4)
    assert far != other
    partner = {found.group(1, draw(e))[2:] for e in range(50)}
    assert (4, 4) in partner


def test_rows_that_nothing_can_be_learned_from_are_in_no_group() -> None:
    found = Companions([0, -1, 0, 1, -1, 1])
    assert {r for row in (0, 2, 3, 5) for e in range(50) for r in found.group(row, draw(e, row))} == {0, 2, 3, 5}


def test_rows_of_one_class_alone_have_each_other() -> None:
    assert Companions([3, 3]).group(0, draw(0)) == (0, 1)
    assert Companions([3]).group(0, draw(0)) == (0, 0)


def test_memory_goes_by_the_rows() -> None:
    found = Companions(np.arange(1_000_000) % 3)
    assert len(set(found.group(999_999, draw(5)))) == 4
