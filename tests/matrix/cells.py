"""The cells of the matrix task x family x method, made from the contract's tables, and which of them stand for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from finetune_api.method import METHODS
from finetune_api.tasks import TASKS


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One of them, by the names of the tables; `family` is a model type."""

    task: str
    family: str
    method: str

    def __str__(self) -> str:
        return f"{self.task}-{self.family}-{self.method}"


def cells() -> list[Cell]:
    """All that the tables claim."""
    return [
        Cell(task.name, family.model_type, method)
        for task in TASKS.values()
        for family in task.families
        for method in METHODS
    ]


def short(wanted: Iterable[Cell]) -> list[Cell]:
    """A few of them in which each family occurs, and each task with each method.

    Greedy: the cell that brings most of what has not occurred; of equals the one whose task and method have occurred
    least.
    """
    left = list(wanted)
    missing = {part for cell in left for part in _parts(cell)}
    seen: Counter[str] = Counter()
    chosen: list[Cell] = []
    while missing:
        best = max(left, key=lambda cell: (len(missing & _parts(cell)), -seen[cell.task] - seen[cell.method]))
        chosen.append(best)
        missing -= _parts(best)
        seen.update((best.task, best.method))
    return chosen


def _parts(cell: Cell) -> frozenset[tuple[str, str]]:
    return frozenset({("family", cell.family), (cell.task, cell.method)})
