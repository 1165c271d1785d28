"""A guess: which column plays which role, and why; and what several kinds of guesses ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.tasks import TaskInfo, task_reading

Rows = list[dict[str, Any]]
MOST_CLASSES = 256


@dataclass(frozen=True, slots=True)
class Guess:
    """What the data seems to be for."""

    columns: Mapping[str, str | tuple[str, ...]]  # role -> column, or columns of a role that several play
    reasons: tuple[str, ...]
    classes: dict[str, int] = field(default_factory=dict)  # class -> rows of the sample

    @property
    def task(self) -> TaskInfo:
        """The task whose rows are made of such columns."""
        return task_reading(self.columns)


Guesser = Callable[[Rows, list[str]], Guess | None]
"""(rows, names of their columns) -> what they are for, or None where they are nothing of the kind."""


def few(rows: Rows, name: str) -> bool:
    """Whether the values repeat as classes do."""
    distinct = {str(row.get(name)) for row in rows}
    return len(distinct) <= max(2, min(MOST_CLASSES, len(rows) // 4))
