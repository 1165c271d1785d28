"""What a task is: one frozen value with all that the trainer does for it; each stands in a file beside this one.

The half that reads rows needs no torch, since the prepare step checks every row with it; the half that computes is
imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_api.sources import Columns
from finetune_api.tasks import TaskInfo
from finetune_trainer.batches.example import Example
from finetune_trainer.model.head import HeadPolicy

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.objectives.base import Objective

Row = Mapping[str, Any]


class NothingToLearn(ValueError):
    """A row, good in itself, of which nothing can be learned; the message says why, and what to do.

    Such rows are counted.
    """


@dataclass(frozen=True, slots=True)
class Omission:
    """What encoding left out of some rows, by their numbers; `message` may show {share} and {split}."""

    kind: str
    rows: Sequence[int]
    message: str


def _nothing(*arguments: Any) -> Sequence[Omission]:
    """For tasks whose encoding leaves nothing out."""
    return ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task's values and functions; `columns` in their arguments are role -> column."""

    info: TaskInfo
    """Its row of the contract's table."""
    head: HeadPolicy
    """What it makes of the model's head."""
    columns: Callable[[Sequence[str], Columns | None], dict[str, str]]
    """(found, wanted) -> role -> column, from the data's columns and spec.data.columns; JobError if one is missing."""
    label: Callable[[Row, Mapping[str, str]], str | None]
    """(row, columns) -> the row's class as text; None where the task has no classes."""
    check_row: Callable[[Row, Mapping[str, str]], str | None]
    """(row, columns) -> what is wrong with the row and what to do, or None."""
    encode: Callable[..., Sequence[Example]]
    """(row, columns, labels, tokenizer, max_length) -> its examples; NothingToLearn where nothing can be learned."""
    objective: Callable[[], Objective]
    """What training minimises."""
    tally: Callable[[Sequence[str]], Tally]
    """(labels) -> an empty tally for an evaluation."""
    usage: Callable[[Sequence[str]], list[str]]
    """(labels) -> Python that tries `model` and `tokenizer`, for the model card."""
    check_tokens: Callable[[Row, Mapping[str, str]], str | None] = lambda row, columns: None
    """(row, columns) -> what is wrong with the tokens of a row that has passed check_row, or None; see `embeddings`."""
    samples: Callable[..., list[dict[str, str]]] | None = None
    """(model, rows, columns, tokenizer, *, ends, max_length, stop) -> what the model writes to a few rows, for the
    report; None where it writes nothing."""
    omissions: Callable[..., Sequence[Omission]] = _nothing
    """(rows, hidden, columns, tokenizer) -> what encoding leaves out of a sample, from number -> row and number -> how
    many parts are hidden."""

    @property
    def usual(self) -> dict[str, tuple[str, ...]]:
        """Role -> the names that its column usually has."""
        return {role.name: role.usual for role in self.info.roles}

    @property
    def optional(self) -> frozenset[str]:
        """Roles whose column a row may lack."""
        return frozenset(role.name for role in self.info.roles if role.optional)
