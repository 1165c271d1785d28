"""Which column plays which role, from the spec and from what the data has; a misspelt name gets the nearest as hint."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Set
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.forms import one_form
from finetune_api.run import RunConfig
from finetune_api.sources import Columns
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.prepare.parts.folds import GROUP_BY
from finetune_trainer.prepare.rows.scan import peek_columns
from finetune_trainer.storage import blaming
from finetune_trainer.stream.formats.parquet import DamagedParquet, ParquetReader
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.base import Task, role_of
from finetune_trainer.tasks.columns import by_entry


def check_columns(config: RunConfig, task: Task, listing: Listing) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """role -> column, and the data set's names of the classes where the label column holds numbers. Raises JobError."""
    with blaming(listing.field):
        columns = _pick_columns(config, task, listing)
        named = None if task.known_classes(columns) else next(iter(task.class_columns(columns)), None)
        return columns, _label_names(config, task, listing, columns, named)


def _pick_columns(config: RunConfig, task: Task, listing: Listing) -> dict[str, str]:
    """The mapping, from the columns of the first object that has any."""
    for info, kind in listing.objects[:20]:
        found = [one_form(name) for name in peek_columns(listing.store, info, kind)]
        if found:
            try:
                return task.columns(found, _wanted(config))
            except JobError as error:
                asked = _as_asked(config).get((error.field or "").rpartition(".")[2])
                if kind.name == "csv":
                    error.hint += " The first line of a csv file must name its columns."
                if asked and (near := difflib.get_close_matches(asked, found, 1)):
                    error.hint = f"Did you mean {near[0]!r}? {error.hint}"
                raise
    # No readable row: the survey says where and why, under the names that were asked for.
    return _as_asked(config) or _first_roles(task)


def check_group_column(config: RunConfig, task: Task, columns: Mapping[str, str], listing: Listing) -> str | None:
    """The column that folds are grouped by; None where they are not. Raises JobError where it cannot be one."""
    folds = config.evaluation.folds
    if folds is None or folds.group_by is None:
        return None
    name = one_form(folds.group_by)
    if name in task.learned_columns(columns):
        raise JobError(
            Reason.INVALID_CONFIG,
            f"column {name!r} holds what is to be learned: each fold would have answers of its own",
            field=GROUP_BY,
            hint="Name a column that says which rows belong together, or remove groupBy.",
        )
    with blaming(listing.field):
        found = next(filter(None, (peek_columns(listing.store, *each) for each in listing.objects[:20])), None)
    forms = [one_form(other) for other in found or ()]
    if forms and name not in forms:
        near = difflib.get_close_matches(name, forms, 1)
        shown = ", ".join(map(repr, forms[:20])) + (", …" if len(forms) > 20 else "")
        raise JobError(
            Reason.INVALID_DATA,
            f"the data has no column {name!r} to group folds by; its columns are {shown}",
            field=GROUP_BY,
            hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Name the right column in {GROUP_BY}.",
        )
    return name


def _wanted(config: RunConfig) -> Columns | None:
    """spec.data.columns, its names in the form in which they are compared."""
    asked = config.data.columns
    if asked is None:
        return None
    return asked.model_copy(update={role: _in_form(given) for role, given in asked if given is not None})


def _in_form(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return one_form(given) if isinstance(given, str) else tuple(map(one_form, given))


def columns_left_out(
    config: RunConfig, task: Task, columns: Mapping[str, str], found: Set[str], rows: int, group: str | None = None
) -> list[Finding]:
    """Columns that could be meant for a role that another plays by its usual name, and others that often say something
    (I8). `group`: the one that folds are grouped by, which is of use.
    """
    wanted = config.data.columns.to_json() if config.data.columns else {}
    used = {*columns.values(), *(() if group is None else (group,))}
    noted: list[Finding] = []
    doubts = {
        role: [name for name in task.usual[role] if name in found - used]
        for role in map(role_of, columns)
        if role not in wanted
    }
    for role, others in doubts.items():
        if others:
            message = f"Column {columns[role]!r} is taken for the {role}, and {_named(others)} could be meant, too. "
            advice = f"Name the right one in spec.data.columns.{role}."
            noted.append(Finding(kind="AmbiguousColumns", count=rows, message=clip(message + advice, 384)))
    known = {name for others in doubts.values() for name in others}
    played = {role_of(entry) for entry in columns}
    missing = {name: role for role in task.usual if role not in played for name in task.usual[role]}
    usual = [*task.info.beside, *(name for name, role in missing.items() if not wanted or role in task.optional)]
    left = [name for name in dict.fromkeys(usual) if name in found - used - known]
    if left:
        named = next((missing[name] for name in left if missing.get(name) in task.optional), None)
        advice = (
            f"name it in spec.data.columns.{named}"
            if named
            else f"write what matters of it into {_named(list(columns.values()))}"
        )
        message = f"Left out: {_named(left)}. The model sees nothing of it; if it should, {advice}."
        noted.append(Finding(kind="UnusedColumns", count=rows, message=clip(message, 384)))
    return noted


def _named(names: list[str]) -> str:
    return ("column " if len(names) == 1 else "columns ") + ", ".join(repr(name) for name in names)


def _label_names(
    config: RunConfig, task: Task, listing: Listing, columns: Mapping[str, str], column: str | None
) -> tuple[str, ...] | None:
    """The data set's own names of the numbers in its label column, by its card or its parquet files; None if it has
    none.

    They do not count where spec.data.labels names other classes: the numbers themselves, for instance.
    """
    if column is None:
        return None
    names = tuple(map(one_form, listing.class_names.get(column) or _in_parquet(listing, column) or ()))
    asked = tuple(map(one_form, config.data.labels or ()))
    meant = not asked or not set(names).isdisjoint(task.naming.allowed(asked, columns))
    return names if names and len(set(names)) == len(names) and meant else None


def _in_parquet(listing: Listing, column: str) -> tuple[str, ...] | None:
    first = next(((info, kind) for info, kind in listing.objects if kind.name == "parquet"), None)
    if first is None:
        return None
    try:
        info = first[0]
        said = json.loads(
            ParquetReader(listing.store, info.key, info.size, info.etag).metadata.get(b"huggingface", b"{}")
        )
        kind = said["info"]["features"][column]
        names = kind.get("feature", kind)["names"]  # of a list, those of what it holds
        return tuple(names) if all(isinstance(name, str) and name for name in names) else None
    except (DamagedParquet, ValueError, KeyError, TypeError, AttributeError):
        return None


def _as_asked(config: RunConfig) -> dict[str, str]:
    wanted = _wanted(config)
    asked: dict[str, Any] = wanted.to_json() if wanted else {}
    return by_entry(asked)


def _first_roles(task: Task) -> dict[str, str]:
    """What a row of the task is usually made of."""
    return {role.name: role.usual[0] for role in task.info.alternatives[0] if not role.optional}
