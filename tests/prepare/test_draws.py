"""Which part a row takes: by its content and class alone, with shares that are right to a row (random data)."""

from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from finetune_trainer.prepare.parts.contents import contents_of
from finetune_trainer.prepare.parts.draw import few, held_out, kept_for, quotas
from finetune_trainer.prepare.parts.folds import TooFew, folds_of
from finetune_trainer.stream.order import key_of

KEY = key_of("test")
SEEDS = range(40)


def random_rows(seed: int, *, copies: bool = False, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints and classes; classes of very different sizes. With copies, some of another class."""
    random = np.random.default_rng(seed)
    count, classes = int(random.integers(20, most)), int(random.integers(1, 9))
    prints = random.integers(1, 2**63, count).astype(np.uint64)
    if copies:
        prints = prints[random.integers(0, max(2, count // 3), count)]
    return prints, random.choice(classes, count, p=random.dirichlet(np.ones(classes)))


def draw(prints: np.ndarray, classes: np.ndarray, *fractions: float, pooled: bool = False) -> np.ndarray:
    """The part of each row: 0, or the place of the fraction that took it, from 1."""
    contents = contents_of(prints, classes, np.arange(len(prints)), KEY)
    free = ~kept_for(classes, contents, [(n,) for n in range(int(classes.max()) + 1)])
    found = np.zeros(len(prints), dtype=np.int64)
    for n, fraction in enumerate(fractions, 1):
        taken = held_out(contents, fraction, free, key_of("seats", n), pooled=pooled)
        found[contents.rows[contents.spread(taken)]] = n
        free &= ~taken
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_each_class_gives_its_share_to_within_a_row_and_keeps_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    prints, classes = random_rows(seed)
    fractions = random.uniform(0.01, 0.25, 2).tolist()
    parts = draw(prints, classes, *fractions)
    for name in np.unique(classes):
        counts = Counter(parts[classes == name].tolist())
        assert counts[0] >= 1
        for n, fraction in enumerate(fractions, 1):
            assert abs(counts[n] - fraction * counts.total()) < 1 + 1e-9
    if min(Counter(classes.tolist()).values()) >= 4:  # none is short of rows to give
        for n, fraction in enumerate(fractions, 1):
            assert abs((parts == n).sum() - fraction * len(parts)) <= 0.5 + 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_rows_are_on_one_side_and_each_class_keeps_one_to_learn_from(seed: int) -> None:
    prints, classes = random_rows(seed, copies=True)
    parts = draw(prints, classes, 0.2, 0.1)
    sides = defaultdict(set)
    for content, part in zip(prints.tolist(), parts.tolist(), strict=True):
        sides[content].add(part)
    assert all(len(found) == 1 for found in sides.values())
    assert set(classes[parts == 0].tolist()) == set(classes.tolist())
    largest = max(Counter(prints.tolist()).values())
    assert abs((parts == 1).sum() - 0.2 * len(parts)) <= (largest / 2 + 1) * (classes.max() + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_s_part_hangs_on_no_order(seed: int) -> None:
    prints, classes = random_rows(seed, copies=True)
    order = np.random.default_rng(seed).permutation(len(prints))
    values = prints % np.uint64(7)
    assert draw(prints[order], classes[order], 0.2, 0.1).tolist() == draw(prints, classes, 0.2, 0.1)[order].tolist()
    rows = np.arange(len(prints))
    for given in (None, values + np.uint64(1)):
        folds = _folds(prints, classes, 3, given)
        mixed = _folds(prints[order], classes[order], 3, None if given is None else given[order])
        if folds is not None:
            assert mixed is not None
            assert mixed.tolist() == folds[order].tolist()
    contents = contents_of(prints, classes, rows, KEY)
    mixed_contents = contents_of(prints[order], classes[order], rows, KEY)
    chosen, again = few(contents, classes, 2), order[few(mixed_contents, classes[order], 2)]
    assert sorted(prints[chosen].tolist()) == sorted(prints[again].tolist())


def test_a_row_that_comes_or_goes_hardly_changes_the_others() -> None:
    prints = np.random.default_rng(1).integers(1, 2**63, 1000).astype(np.uint64)
    classes = np.arange(1000) % 4
    before = draw(prints[:-10], classes[:-10], 0.1)
    assert (draw(prints, classes, 0.1)[:-10] != before).sum() <= 4


def test_shares_go_by_the_largest_remainder_and_spare_those_without_room() -> None:
    rows, room = np.array([19, 9, 2, 1]), np.array([18, 8, 1, 0])
    assert quotas(rows, room, 0.1, KEY).tolist() == [2, 1, 0, 0]  # 1.9, 0.9, 0.2, 0.1: 3.1 in all
    assert quotas(np.array([1, 1, 1, 17]), np.array([0, 0, 0, 16]), 0.5, KEY).tolist() == [0, 0, 0, 9]
    assert quotas(np.array([100]), np.array([99]), 0.29, KEY).tolist() == [29]
    alike = quotas(np.full(40, 5), np.full(40, 4), 0.1, KEY)
    assert alike.sum() == 20
    assert set(alike.tolist()) == {0, 1}
    assert sorted(np.flatnonzero(alike).tolist()) != list(range(20))  # none is always the first to give


def test_sets_of_classes_that_hardly_two_rows_share_are_drawn_from_together() -> None:
    prints = np.random.default_rng(3).integers(1, 2**63, 1500).astype(np.uint64)
    strata = np.concatenate([np.zeros(500, dtype=np.int64), 1 + np.arange(500) // 5, np.arange(101, 601)])
    contents = contents_of(prints, strata, np.arange(1500), KEY)
    for pooled in (True, False):
        taken = held_out(contents, 0.1, np.ones(1500, dtype=bool), KEY, pooled=pooled)
        parts = np.zeros(1500, dtype=bool)
        parts[contents.rows[contents.spread(taken)]] = True
        assert parts[:500].sum() == 50
        assert parts[500:].sum() == 100
        few_rows, lonely = parts[500:1000].sum(), parts[1000:].sum()
        assert (30 < lonely < 70) if pooled else (few_rows, lonely) == (100, 0)


def test_a_content_of_too_many_copies_stays_and_others_are_held_out() -> None:
    for content in range(1, 20):
        prints = np.array([content] * 60 + list(range(100, 140)), dtype=np.uint64)
        parts = draw(prints, np.zeros(100, dtype=np.int64), 0.1)
        assert (parts[:60].sum(), parts.sum()) == (0, 10)


def test_the_only_content_of_a_class_stays_to_be_learned() -> None:
    prints, classes = np.arange(1, 81).astype(np.uint64), np.array([0] * 40 + list(range(1, 41)))
    parts = draw(prints, classes, 0.25, 0.25)
    assert (parts[40:] == 0).all()
    assert [(parts[:40] == n).sum() for n in (1, 2)] == [10, 10]
    copies = draw(np.append(prints, 1), np.append(classes, 41), 0.25)  # class 41 is another name for a row of class 0
    assert copies[0] == copies[-1] == 0


@pytest.mark.parametrize("seed", range(10))
def test_so_many_different_rows_of_each_class_are_kept(seed: int) -> None:
    prints, classes = random_rows(seed, copies=True)
    rows = np.arange(len(prints))[5:]
    contents = contents_of(prints, classes, rows, KEY)
    chosen = few(contents, classes, 3)
    least = {content: min(classes[rows][prints[rows] == content].tolist()) for content in prints[rows].tolist()}
    wanted = Counter(least.values())
    assert Counter(classes[chosen].tolist()) == {name: min(3, n) for name, n in wanted.items()}
    assert len(set(prints[chosen].tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(rows.tolist())
    other = few(contents_of(prints, classes, rows, key_of("per class", 1)), classes, 3)
    assert len(chosen) == len(other)


# ---------------------------------------------------------------------- folds


def _folds(prints: np.ndarray, classes: np.ndarray, count: int, values: Any = None) -> np.ndarray | None:
    try:
        return folds_of(prints, classes, np.arange(len(prints)), count, KEY, values)
    except TooFew:
        return None


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_have_each_class_in_equal_shares(seed: int) -> None:
    prints, classes = random_rows(seed)
    for count in (2, 5, 20):
        folds = _folds(prints, classes, count)
        assert folds is not None
        for of_class in (np.bincount(folds[classes == name], minlength=count) for name in np.unique(classes)):
            assert of_class.max() - of_class.min() <= 1
        assert np.ptp(np.bincount(folds, minlength=count)) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_rows_and_rows_of_one_group_share_a_fold(seed: int) -> None:
    random = np.random.default_rng(seed)
    prints, classes = random_rows(seed, copies=True)
    values = random.integers(0, 2 * len(prints), len(prints)).astype(np.uint64)  # 0: no value
    values[random.random(len(prints)) < 0.2] = 0
    for given in (None, values):
        folds = _folds(prints, classes, 4, given)
        if folds is None:
            continue
        assert set(folds.tolist()) == {0, 1, 2, 3}
        for group in (prints, *([] if given is None else [given])):
            for value in set(group.tolist()) - {0}:
                assert len(set(folds[group == value].tolist())) == 1


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_joined_as_a_plain_search_joins_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = 60
    prints = random.integers(1, 50, count).astype(np.uint64)
    values = random.integers(0, 50, count).astype(np.uint64)
    component, before = np.arange(count), np.zeros(count)
    together = (prints[:, None] == prints) | ((values[:, None] == values) & (values != 0))
    while not np.array_equal(before, component):
        before, component = component, np.where(together, component, count).min(axis=1)
    with pytest.raises(TooFew) as caught:
        folds_of(prints, np.zeros(count, dtype=np.int64), np.arange(count), 10_000, KEY, values)
    assert caught.value.groups == len(set(component.tolist()))


def test_long_chains_of_groups_and_copies_are_one_group() -> None:
    n = np.arange(50_000)
    prints, values = (n // 2 + 1).astype(np.uint64), ((n + 1) // 2 + 1).astype(np.uint64)
    with pytest.raises(TooFew) as caught:
        folds_of(prints, np.zeros(len(n), dtype=np.int64), n, 2, KEY, values)
    assert caught.value.groups == 1


def test_groups_are_balanced_by_class_as_well_as_scikit_learn_does_it() -> None:
    ours, theirs = list[float](), list[float]()
    for seed in range(10):
        random = np.random.default_rng(seed)
        values = random.integers(1, 101, 3000).astype(np.uint64)
        classes = np.where(random.random(3000) < 0.8, random.integers(0, 3, 101)[values.astype(np.int64)], 2)
        folds = _folds(np.arange(1, 3001).astype(np.uint64), classes, 5, values)
        other = np.empty(3000, dtype=np.int64)
        for n, (_, test) in enumerate(StratifiedGroupKFold(5).split(classes, classes, values)):
            other[test] = n
        for found, unevenness in ((folds, ours), (other, theirs)):
            assert found is not None
            shares = [np.bincount(found[classes == name], minlength=5) / (classes == name).sum() for name in range(3)]
            unevenness.append(float(np.std(shares, axis=1).sum()))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


def test_a_million_rows_take_seconds_and_a_few_bytes_each() -> None:
    random = np.random.default_rng(0)
    count = 1_000_000
    prints = random.integers(1, 2**63, count).astype(np.uint64)
    prints[: count // 10] = prints[count // 10 : count // 5]
    classes = random.integers(0, 50, count)
    tracemalloc.start()
    parts = draw(prints, classes, 0.1, 0.1)
    folds = folds_of(prints, classes, np.flatnonzero(parts == 0), 10, KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.bincount(folds).min() > 79_000
    assert peak < 120 * count  # while they are drawn; one byte each is kept
    values = random.integers(0, count // 30, count // 10).astype(np.uint64)
    folds = folds_of(prints[: count // 10], classes, np.arange(count // 10), 10, KEY, values)
    assert np.ptp(np.bincount(folds)) < 100


def test_what_is_drawn_today_is_drawn_tomorrow() -> None:
    # If this fails, scores of earlier jobs no longer compare, and running jobs would train on what they are judged by.
    prints, classes = np.arange(1, 41).astype(np.uint64), np.arange(40) % 3
    contents = contents_of(prints, classes, np.arange(40), key_of("held out"))
    taken = held_out(contents, 0.25, np.ones(40, dtype=bool), key_of("seats", 2))
    assert sorted(contents.rows[contents.spread(taken)].tolist()) == PINNED_HELD_OUT
    assert few(contents_of(prints, classes, np.arange(40), key_of("per class", 7)), classes, 2).tolist() == PINNED_FEW
    assert folds_of(prints, classes, np.arange(40), 4, key_of("folds")).tolist() == PINNED_FOLDS


def test_contents_know_their_rows() -> None:
    prints, strata = np.array([5, 9, 5, 0, 9], dtype=np.uint64), np.array([2, 1, 0, 9, 1])
    found = contents_of(prints, strata, np.array([0, 1, 2, 4]), KEY)
    rows = {tuple(found.rows[found.of_row == n].tolist()): n for n in range(2)}
    assert [(found.strata[rows[each]], found.sizes[rows[each]]) for each in ((0, 2), (1, 4))] == [(0, 2), (1, 2)]
    assert found.keys.tolist() == sorted(found.keys.tolist())


PINNED_HELD_OUT = [6, 7, 9, 15, 16, 18, 20, 22, 23, 26]
PINNED_FEW = [9, 11, 25, 31, 32, 36]
PINNED_FOLDS = [
    1,
    1,
    2,
    2,
    3,
    1,
    1,
    2,
    3,
    1,
    0,
    0,
    3,
    3,
    1,
    1,
    1,
    3,
    0,
    0,
    0,
    2,
    0,
    1,
    0,
    2,
    2,
    0,
    1,
    3,
    2,
    2,
    2,
    3,
    3,
    0,
    3,
    2,
    3,
    0,
]
