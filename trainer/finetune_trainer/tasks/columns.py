"""Which column of the data plays which role, and what may be wrong with what stands in it; for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.tasks.base import Row


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


def by_entry(asked: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Role -> column, from role -> column or columns: several are numbered, as labelColumns[0]."""
    found: dict[str, str] = {}
    for role, given in asked.items():
        found |= {role: given} if isinstance(given, str) else {f"{role}[{i}]": name for i, name in enumerate(given)}
    return found


def with_name(row: Row, column: str, names: Sequence[str]) -> Row:
    """The row with the name of its class, or the names of a list of them, where the column holds numbers (as csv has
    it, too) and the data set has names for them.
    """
    value = row.get(column)
    if isinstance(value, list):
        return {**row, column: [_name_of(each, names) for each in value]}
    named = _name_of(value, names)
    return row if named is value else {**row, column: named}


def _name_of(value: Any, names: Sequence[str]) -> Any:
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value not in names and value.isascii() and value.isdecimal() and len(value) < 7:
        number = int(value)
    return names[number] if 0 <= number < len(names) else value


def text_problem(row: Row, column: str) -> str | None:
    """What is wrong with a column that must hold text; None if nothing is."""
    if column not in row or row[column] is None:
        return f"column {column!r} is missing or null; give it a text, or leave the row out"
    if not isinstance(row[column], str):
        return f"column {column!r} holds {type(row[column]).__name__}, not text; write it as a string"
    return None
