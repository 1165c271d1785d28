"""The cells of the matrix task x family x method, made from the contract's tables, and which of them stand for all."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from finetune_api.families import FAMILIES, Family
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
    """All that the tables claim; of methods that teach a random model little, one family of each kind a task."""
    return [
        Cell(task.name, family.model_type, method.name)
        for task in TASKS.values()
        for family in task.families
        for method in METHODS.values()
        if family in (_one_of_each_kind(method.families(task)) if method.slight else method.families(task))
    ]


def _one_of_each_kind(families: Iterable[Family]) -> list[Family]:
    return list({family.kind: family for family in reversed([*families])}.values())


def short(wanted: Iterable[Cell]) -> list[Cell]:
    """A few of them in which each task, each family and each method occurs.

    Greedy: the cell that brings most of what has not occurred; of equals the one whose pairs have occurred least, then
    whose names have.
    """
    left = list(wanted)
    missing = {name for cell in left for name in _names(cell)}
    seen: Counter[frozenset[str]] = Counter()
    chosen: list[Cell] = []

    def gain(cell: Cell) -> tuple[int, int, int]:
        names = _names(cell)
        pairs = sum(seen[frozenset(pair)] for pair in itertools.combinations(names, 2))
        return len(missing & names), -pairs, -sum(seen[frozenset({name})] for name in names)

    while missing:
        best = max(left, key=gain)
        chosen.append(best)
        missing -= _names(best)
        names = sorted(_names(best))
        seen.update(frozenset(part) for size in (1, 2) for part in itertools.combinations(names, size))
    return chosen


def _names(cell: Cell) -> set[str]:
    return {f"task {cell.task}", f"family {cell.family}", f"method {cell.method}"}


def refused() -> list[Cell]:
    """Those of methods that the task suits, and the family, and that do not fit both."""
    return [
        Cell(task.name, family.model_type, method.name)
        for task in TASKS.values()
        for family in task.families
        for method in METHODS.values()
        if method.fits(task) and not method.takes(task, family.model_type)
    ]


def unclaimed() -> list[tuple[str, str]]:
    """Tasks with families that have no class for them."""
    return [
        (task.name, model_type)
        for task in TASKS.values()
        for model_type, family in FAMILIES.items()
        if family not in task.families
    ]
