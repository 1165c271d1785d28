"""Draws by content: a share of every stratum, or so many of each. Pure functions; no seed but where one is given.

Numbers of rows go by the largest remainder (Hamilton's method), so that with distinct rows each stratum gives within
one row of its share, and all together as near to it as whole rows allow.
"""

from __future__ import annotations

import numpy as np

from finetune_trainer.prepare.parts.contents import Contents, ranks
from finetune_trainer.stream.order import mix

_NEAR = 1e-9
"""Shares are floating-point numbers: 0.29 of 100 rows are 29."""


def quotas(rows: np.ndarray, room: np.ndarray, fraction: float, key: int) -> np.ndarray:
    """How many rows each stratum gives. rows: what each has; room: what it can give at most.

    `key` says whose turn it is among strata of the same remainder.
    """
    exact = fraction * rows
    given: np.ndarray = np.minimum(np.floor(exact + _NEAR).astype(np.int64), room)
    rest = np.where(given < room, exact - given, 0.0)
    seats = int(np.floor(fraction * rows.sum() + 0.5 + _NEAR)) - int(given.sum())
    wanting = np.flatnonzero(rest > _NEAR)
    order = np.lexsort((mix(wanting, key), -rest[wanting]))
    given[wanting[order[: max(0, seats)]]] += 1
    return given


def held_out(contents: Contents, fraction: float, free: np.ndarray, key: int, *, pooled: bool = False) -> np.ndarray:
    """bool (contents,): those that hold `fraction` of each stratum's rows, the first ones by key that fit.

    free: those that may be taken. A content of more rows than its stratum gives is passed over; of the others so many
    are taken that the number of rows comes nearest. pooled: strata too small to give a row of their own are drawn from
    together, as the sets of classes are that hardly two rows share.
    """
    strata = contents.strata
    rows = np.bincount(strata, weights=contents.sizes)
    if pooled:
        strata = np.where((fraction * rows < 1.0)[strata], len(rows), strata)
        rows = np.bincount(strata, weights=contents.sizes)
    room = np.bincount(strata, weights=contents.sizes * free, minlength=len(rows)).astype(np.int64)
    quota = quotas(rows.astype(np.int64), room, fraction, key)
    fits = np.flatnonzero(free & (contents.sizes <= quota[strata]))
    fits = fits[np.argsort(strata[fits], kind="stable")]
    sizes, of = contents.sizes[fits], strata[fits]
    total = np.cumsum(sizes)
    before = np.append(0, total)[np.searchsorted(of, of, side="left")]
    taken = np.zeros(len(strata), dtype=bool)
    taken[fits[2 * (total - before) - sizes < 2 * quota[of]]] = True
    return taken


def kept_for(classes: np.ndarray, contents: Contents, sets: list[tuple[int, ...]]) -> np.ndarray:
    """bool (contents,): one content of each class that is never held out, so that each can be learned: the last by key.

    classes: of all rows, the place of its classes in `sets`, which has the numbers of the classes.
    """
    last = np.full(len(sets), -1, dtype=np.int64)
    np.maximum.at(last, classes[contents.rows], contents.of_row)
    best: dict[int, int] = {}
    for names, content in zip(sets, last.tolist(), strict=True):
        for name in names if content >= 0 else ():
            best[name] = max(best.get(name, -1), content)
    kept = np.zeros(len(contents.keys), dtype=bool)
    kept[list(best.values())] = True
    return kept


def few(contents: Contents, strata: np.ndarray, count: int) -> np.ndarray:
    """Positions of one row of each of the first `count` contents by key of each stratum.

    strata: of all rows. Where equal rows disagree, the row is one of the content's own stratum.
    """
    place = np.arange(len(contents.rows))
    own = np.where(strata[contents.rows] == contents.spread(contents.strata), place, len(place))
    first = np.minimum.reduceat(own, np.searchsorted(contents.of_row, np.arange(len(contents.keys))))
    return np.sort(contents.rows[first[ranks(contents.strata) < count]])
