"""The rows that are to be answered: each with all its own columns, bad ones found before anything is computed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form, one_form
from finetune_api.records import Fault
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.files import FileChecks
from finetune_trainer.prepare.rows.folder import scan_of
from finetune_trainer.prepare.rows.scan import peek_columns
from finetune_trainer.prepare.rows.survey import items
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.answers import input_problem
from finetune_trainer.tasks.base import Task

ADVICE = "Mend the rows, or leave them out with --max-bad-rows."
Row = dict[str, Any]


def check_columns(listing: Listing, task: Task, columns: Mapping[str, str], answer: str) -> Mapping[str, str]:
    """Those of the columns that the rows have: roles that are learned, and optional ones, may be left out.

    Raises JobError naming the nearest where one is missing, or where the answer's name is taken.
    """
    for info, kind in listing.objects[:20]:
        found = [one_form(name) for name in peek_columns(listing.store, info, kind)]
        if not found:
            continue
        learned = task.learned_columns(columns)
        file = listing.store.name(info.key)
        for role, column in columns.items():
            if column not in found and column not in learned and role not in task.optional:
                shown = ", ".join(map(repr, found[:20])) + (", …" if len(found) > 20 else "")
                near = difflib.get_close_matches(column, found, 1)
                raise JobError(
                    Reason.INVALID_DATA,
                    f"{file}: no column {column!r}, which the model takes for the {role}; its columns are {shown}",
                    hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Name the right one: --column {role}=NAME.",
                )
        if answer in found:
            raise JobError(
                Reason.INVALID_DATA,
                f"{file}: the rows have a column {answer!r} of their own",
                hint="Choose another name for the answers with --as NAME.",
            )
        return {role: column for role, column in columns.items() if column in found or column not in learned}
    return columns


def good_rows(
    listing: Listing,
    task: Task,
    columns: Mapping[str, str],
    bad: BadRows | None = None,
    files: FileChecks | None = None,
) -> Iterator[tuple[Row, Row]]:
    """The rows that can be answered, in their order, each as it is and with where its file lies; the others are told to
    `bad`. Raises JobError.
    """
    names = tuple(dict.fromkeys(columns.values()))
    for number, (info, kind) in enumerate(listing.objects):
        wanted = peek_columns(listing.store, info, kind) if kind.name == "parquet" else ()
        scan = scan_of(listing, number, wanted, labelled=False)
        for item in files.ahead(listing, scan) if files else items(scan):
            values = item.values
            kept = values if isinstance(values, Fault) else {**values, **in_form(values, names)}
            fault = kept if isinstance(kept, Fault) else _problem(kept, task, columns)
            if fault is None and item.opened is not None:
                fault = item.opened.fault
            if fault is None:
                assert not isinstance(kept, Fault)
                yield kept, {**kept, files.column: item.opened.value} if files and item.opened else kept
            elif bad is not None:
                bad.add("train", number, item.row, item.name, item.line, fault)


def _problem(row: Row, task: Task, columns: Mapping[str, str]) -> Fault | None:
    message = input_problem(task, row, columns)
    if message is not None:
        absent = next((c for role, c in columns.items() if c not in row and role not in task.optional), None)
        if absent is None:
            return Fault("InvalidRow", message)
        there = ", ".join(repr(name) for name in list(row)[:20]) or "none"
        return Fault("MissingColumn", f"has no column {absent!r}; its columns are {there}")
    try:
        json.dumps([row.get(column) for column in columns.values()], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return Fault("InvalidEncoding", "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text")
    except (ValueError, RecursionError):
        return Fault("InvalidRow", "is nested too deeply to be read; write it flat")
    message = task.check_tokens(row, columns)
    return None if message is None else Fault("InvalidRow", message)
