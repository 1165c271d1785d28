"""Folds: rows dealt so that each fold has its share of every stratum, and what belongs together lies in one fold."""

from __future__ import annotations

import numpy as np

from finetune_trainer.prepare.parts.contents import Contents, contents_of

GROUP_BY = "spec.evaluation.folds.groupBy"
_GREEDY = 10_000
"""So many of the largest groups are placed one by one; the others are small beside them, and dealt."""


def dealt(strata: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """int64 (contents,): the fold of each, from 0: dealt in turn, stratum by stratum, large ones first.

    With distinct rows the folds' numbers of rows differ by one at most, in each stratum and in all; else by no more in
    a stratum than its most frequent content has.
    """
    order = np.lexsort((-sizes, strata))  # stable: by key where these are alike
    found = np.empty(len(strata), dtype=np.int64)
    found[order] = np.arange(len(order)) % count
    return found


def grouped(groups: np.ndarray, strata: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """int64 (groups,): the fold of each group, from 0. The others give for each content its group, stratum and rows.

    The largest group first, each is placed where its strata are fewest so far, by shares of their rows, and among
    equals where the fewest rows are: no fold stays empty while there is a group.
    """
    total = np.bincount(groups, weights=sizes).astype(np.int64)
    order = np.argsort(-total, kind="stable")
    pairs, of_pair = np.unique(groups * (strata.max() + 1) + strata, return_inverse=True)
    rows = np.bincount(of_pair, weights=sizes)
    group, stratum = np.divmod(pairs, strata.max() + 1)
    in_all = np.bincount(strata, weights=sizes)
    starts = np.searchsorted(group, np.arange(len(total) + 1))
    held = np.zeros((int(strata.max()) + 1, count))
    filled = np.zeros(count)
    found = np.empty(len(total), dtype=np.int64)
    for g in order[:_GREEDY].tolist():
        span = slice(starts[g], starts[g + 1])
        mine, share = stratum[span], rows[span] / in_all[stratum[span]] ** 2
        cost = share @ held[mine] + filled * (total[g] / total.sum() ** 2)
        fold = int(np.lexsort((filled, cost))[0])
        found[g] = fold
        held[mine, fold] += rows[span]
        filled[fold] += total[g]
    rest = order[_GREEDY:]
    if len(rest):
        found[rest] = dealt(stratum[starts[rest]], total[rest], count)
    return found


def joined(contents: Contents, values: np.ndarray) -> np.ndarray:
    """int64 (contents,): the group of each content: contents are together if rows of them share a value, or contents.

    values: uint64 of all rows, 0 where there is none: such a row is in no other's group but its equals'. The groups are
    numbered by the least key of their contents. (Connected components by FastSV, Zhang, Azad and Hu 2020.)
    """
    count = len(contents.keys)
    of_rows = values[contents.rows]
    named = np.flatnonzero(of_rows)
    _, value = np.unique(of_rows[named], return_inverse=True)
    left, right = contents.of_row[named], value + count
    parent = np.arange(count + (int(value.max()) + 1 if len(value) else 0))
    above = parent
    while True:
        changed = parent.copy()
        for a, b in ((left, right), (right, left)):
            np.minimum.at(changed, parent[a], above[b])
            np.minimum.at(changed, a, above[b])
        parent = np.minimum(changed, above)
        before, above = above, parent[parent]
        if np.array_equal(before, above) and np.array_equal(parent, above):
            break
    found: np.ndarray = np.unique(above[:count], return_inverse=True)[1]
    return found


def folds_of(
    prints: np.ndarray, strata: np.ndarray, rows: np.ndarray, count: int, key: int, values: np.ndarray | None = None
) -> np.ndarray:
    """int64: the fold of each of these rows, from 0. Raises TooFew.

    prints, strata, values: of all rows; `values` is what rows are grouped by, 0 where they have none.
    """
    contents = contents_of(prints, strata, rows, key)
    if values is None:
        groups, folds = len(contents.keys), dealt(contents.strata, contents.sizes, count)
    else:
        group = joined(contents, values)
        groups = int(group.max()) + 1
        folds = grouped(group, contents.strata, contents.sizes, count)[group]
    if groups < count:
        raise TooFew(groups)
    found = np.empty(len(prints), dtype=np.int64)
    found[contents.rows] = contents.spread(folds)
    taken: np.ndarray = found[rows]
    return taken


class TooFew(ValueError):
    """There are fewer groups than folds, or fewer contents; `groups` says how many."""

    def __init__(self, groups: int) -> None:
        super().__init__(f"{groups} groups")
        self.groups = groups
