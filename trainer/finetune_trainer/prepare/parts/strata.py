"""Strata: what every part has its share of. Sets of classes that rows have, or ranges of the number to be learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_trainer.prepare.rows.survey import SourceSurvey
from finetune_trainer.tasks.base import Task

_RANGES = 10
"""Ranges of a number to be learned, of equally many rows; fewer where a part would have no row of each."""


@dataclass(frozen=True, slots=True)
class Strata:
    """Of each row its stratum, whatever the order of the rows; of each stratum its classes, as places in `names`.

    Without classes all strata have one and the same, of no name.
    """

    numbers: np.ndarray
    """int64 (rows,); of bad rows any."""
    classes: list[tuple[int, ...]]
    names: list[str]
    pooled: bool
    """Whether many strata may have hardly a row, as sets of classes do."""


def strata_of(task: Task, seen: SourceSurvey, share: float) -> Strata:
    """`share`: the smallest share of the rows that a part takes."""
    if task.number is not None:
        values = np.frombuffer(seen.numbers, dtype=np.float64)
        ranges = max(1, min(_RANGES, int(share * seen.usable)))
        edges = np.quantile(values[~np.isnan(values)], np.arange(1, ranges) / ranges)
        return Strata(np.searchsorted(edges, values, side="right"), [(0,)] * ranges, [], False)
    if not task.info.labels:
        return Strata(np.zeros(len(seen.prints), dtype=np.int64), [(0,)], [], False)
    names = sorted(seen.label_counts)
    places = {name: n for n, name in enumerate(names)}
    ordered = sorted(seen.class_sets)
    table = np.empty(len(ordered), dtype=np.int64)
    table[[seen.class_sets[found] for found in ordered]] = np.arange(len(ordered))
    sets = [tuple(places[name] for name in found) for found in ordered]
    return Strata(table[np.frombuffer(seen.classes, dtype=np.uint32)], sets, names, not task.info.exclusive)
