"""Rows by content: equal rows are one content, and contents stand in an order that hangs on nothing but themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_trainer.stream.order import mix


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of some rows, sorted by their keys; a stratum is what a draw takes the same share of everywhere."""

    rows: np.ndarray
    """int64 (rows,): positions of the rows, by content, and within one content in their own order."""
    of_row: np.ndarray
    """int64 (rows,): the content of each of `rows`."""
    keys: np.ndarray
    """uint64 (contents,): ascending. One key a fingerprint."""
    sizes: np.ndarray
    """int64 (contents,): how many rows have it."""
    strata: np.ndarray
    """int64 (contents,): the stratum; the least one where equal rows disagree."""

    def spread(self, values: np.ndarray) -> np.ndarray:
        """For each of `rows`, the value of its content."""
        found: np.ndarray = values[self.of_row]
        return found


def contents_of(prints: np.ndarray, strata: np.ndarray, rows: np.ndarray, key: int) -> Contents:
    """Of the rows at these positions, at least one. prints: uint64 fingerprints, strata: numbers, both of all rows.

    `key`: 128 bits; another one, another order of the contents.
    """
    keys = mix(prints[rows], key)
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    new = np.concatenate([[True], keys[1:] != keys[:-1]])
    first = np.flatnonzero(new)
    sizes = np.diff(np.append(first, len(rows)))
    least = np.minimum.reduceat(strata[rows].astype(np.int64), first)
    return Contents(rows, np.cumsum(new) - 1, keys[first], sizes, least)


def ranks(strata: np.ndarray) -> np.ndarray:
    """For each entry, how many of the same stratum stand before it."""
    order = np.argsort(strata, kind="stable")
    firsts = np.searchsorted(strata[order], strata[order], side="left")
    found = np.empty(len(strata), dtype=np.int64)
    found[order] = np.arange(len(strata)) - firsts
    return found
