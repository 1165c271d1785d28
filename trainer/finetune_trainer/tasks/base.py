"""The value types that tasks share: a row's encoding, and the task itself as a frozen set of functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.job import Columns
from finetune_trainer.model.head import HeadPolicy

IGNORE = -100
"""The label of a token that is not learned; torch's cross-entropy leaves it out."""

Row = Mapping[str, Any]


class Unlearnable(ValueError):
    """A row, good in itself, of which nothing can be learned; the message says why, and what to do.

    Such rows are counted.
    """


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model takes it.

    `labels` is the class's index, or one token id or IGNORE for each input token. `length` counts the tokens before
    they
    were cut to the maximum, `hidden` the turns of a chat that its template does not show whole, which are not learned.
    """

    input_ids: list[int]
    labels: int | list[int]
    type_ids: list[int] | None
    length: int
    hidden: int = 0

    @property
    def learned(self) -> int:
        """How many losses the row has: 1 for a class, else the predicted tokens (the first token is never
        predicted).
        """
        return 1 if isinstance(self.labels, int) else sum(label != IGNORE for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Task:
    """A task's functions.

    columns(found, wanted)                    role -> column, from the data's columns and spec.data.columns; JobError if
                                              one is missing
    label(row, columns)                       the row's class as text, None where the task has no classes
    check_row(row, columns, labels)           what is wrong with the row and what to do, or None. `labels` None: any
                                              class will do
    encode(row, columns, labels, tokenizer, max_length)   the Example; Unlearnable where nothing can be learned
    usual, beside                             role -> the names that its column usually has; other columns that often
                                              say something
    optional                                  roles whose column a row may lack
    head                                      what the task makes of the model's head
    """

    name: str
    columns: Callable[[Sequence[str], Columns | None], dict[str, str]]
    label: Callable[[Row, Mapping[str, str]], str | None]
    check_row: Callable[[Row, Mapping[str, str], Sequence[str] | None], str | None]
    encode: Callable[..., Example]
    usual: Mapping[str, Sequence[str]]
    head: HeadPolicy
    beside: Sequence[str] = ()
    optional: frozenset[str] = frozenset()


def pick(role: str, wanted: str | None, usual: Sequence[str], found: Sequence[str]) -> str | None:
    """The column of a role: the one wanted, which must exist, else the first usual name that does, else None."""
    if wanted is not None:
        if wanted not in found:
            raise missing(role, f"the data has no column {wanted!r}", found)
        return wanted
    return next((name for name in usual if name in found), None)


def missing(role: str, why: str, found: Sequence[str]) -> JobError:
    """The error for a column that is not there."""
    shown = ", ".join(repr(name) for name in list(found)[:20]) + (", …" if len(found) > 20 else "")
    return JobError(
        Reason.INVALID_DATA,
        f"{why}; its columns are {shown or '(none)'}",
        field=f"spec.data.columns.{role}",
        hint=f"Name the right column in spec.data.columns.{role}.",
    )


def learned_ends(examples: Iterable[Example], special: Container[int | None]) -> tuple[int, ...]:
    """The special tokens that were learned as the end of a turn or of a text, the most frequent first: what stops
    generation.
    """
    ends: Counter[int] = Counter()
    for example in examples:
        if isinstance(example.labels, list) and example.length == len(example.input_ids):
            following = [*example.labels[1:], IGNORE]
            ends.update(a for a, b in zip(example.labels, following, strict=True) if a in special and b == IGNORE)
    return tuple(token for token, _ in ends.most_common())


def with_name(row: Row, column: str, names: Sequence[str]) -> Row:
    """The row with the name of its class, where the column holds its number (as csv has it, too) and the data set has
    names for them.
    """
    value = row.get(column)
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value not in names and value.isascii() and value.isdecimal() and len(value) < 7:
        number = int(value)
    return {**row, column: names[number]} if 0 <= number < len(names) else row


def text_problem(row: Row, column: str) -> str | None:
    """What is wrong with a column that must hold text; None if nothing is."""
    if column not in row or row[column] is None:
        return f"column {column!r} is missing or null; give it a text, or leave the row out"
    if not isinstance(row[column], str):
        return f"column {column!r} holds {type(row[column]).__name__}, not text; write it as a string"
    return None
