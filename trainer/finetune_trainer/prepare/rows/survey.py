"""Read every row of a source: is it usable, which class has it, what is its fingerprint; keep a sample of them.

Labels and bad rows are exact (I8). Memory is a few bytes a row: fingerprints and classes in flat arrays, and a bounded
sample; of rows of several classes each combination is held once.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form, one_form
from finetune_api.records import Fault
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.files import FileChecks, Item
from finetune_trainer.prepare.rows.fingerprint import UNUSABLE, fingerprint, fingerprint_text, group_print
from finetune_trainer.prepare.rows.folder import FolderScan, scan_of
from finetune_trainer.prepare.rows.sample import Sample
from finetune_trainer.prepare.rows.scan import ROW_BYTES, ObjectScan
from finetune_trainer.storage import ObjectInfo
from finetune_trainer.stream.blocks import to_bytes
from finetune_trainer.stream.manifest import DataObject, Source
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.base import Task
from finetune_trainer.tasks.columns import with_name

log = logging.getLogger(__name__)
MOST_CLASSES = 10_000
MOST_CHARACTERS = 2 << 20
"""More text in one row is a file in the wrong place: hundreds of thousands of tokens, of which no model takes part."""


@dataclass(slots=True)
class SourceSurvey:
    """What was seen of one source. prints, classes: one entry a row, bad ones included, over all objects in order.

    An entry of `classes` is a place in `class_sets`; the first of these, without a class, is that of bad rows, too.
    """

    source: Source
    name: Callable[[str], str]
    """(key) -> the object as messages name it."""
    prints: array[int] = field(default_factory=lambda: array("Q"))
    classes: array[int] = field(default_factory=lambda: array("I"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    """The number to be learned of each row, nan of bad rows; empty where the task has none."""
    groups: array[int] = field(default_factory=lambda: array("Q"))
    """64 bits of the value that rows are grouped by, UNUSABLE where there is none; empty where they are not."""
    first_ungrouped: tuple[str, int] | None = None
    """The first usable row without a value to be grouped by."""
    class_sets: dict[tuple[str, ...], int] = field(default_factory=lambda: {(): 0})
    """The classes of a row, sorted -> their number in `classes`."""
    label_counts: Counter[str] = field(default_factory=Counter)
    empty_texts: int = 0
    first_empty: tuple[str, int] | None = None
    other_forms: int = 0
    """Rows that name a column or their class in another Unicode form than NFC."""
    first_other: tuple[str, int] | None = None
    usable: int = 0
    columns: set[str] = field(default_factory=set)
    """All columns that were seen, used or not."""
    weights: list[tuple[int, ...]] = field(default_factory=list)
    """Of each object, the bytes that each of its blocks takes in memory."""
    files: Sequence[ObjectInfo] = ()
    """Where the rows are files of a folder: these."""
    first_lines: list[int | None] = field(default_factory=list)
    """Line of each object's first row; None where rows and lines do not go together (blank lines, csv with line
    breaks).
    """

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.source.objects)

    def note_line(self, row: int, line: int) -> None:
        """Where row `row` of the newest object stands."""
        if row == 0:
            self.first_lines[-1] = line
        elif line - row != self.first_lines[-1]:
            self.first_lines[-1] = None


def survey(
    listing: Listing,
    task: Task,
    columns: Mapping[str, str],
    labels: Sequence[str] | None,
    bad_rows: BadRows,
    sample: Sample | None,
    label_names: Sequence[str] | None = None,
    files: FileChecks | None = None,
    group: str | None = None,
) -> SourceSurvey:
    """Read a source. `labels` None: any class will do; `label_names`: of the numbers in the label column. Raises
    JobError for what no allowance covers. `files`: opens what rows stand for; `group`: a column that rows are grouped
    by, whatever role it plays.
    """
    found = SourceSurvey(Source(listing.uri, (), listing.revision), listing.store.name, files=listing.files)
    names = tuple(dict.fromkeys(columns.values()))
    of_classes, no_input = task.class_columns(columns), task.no_input(columns)
    known = None if labels is None else dict.fromkeys(labels)
    objects: list[DataObject] = []
    for number, (_, kind) in enumerate(listing.objects):
        scan = scan_of(listing, number, names if group is None else (*names, group))
        table = None
        found.first_lines.append(None)
        for item in files.ahead(listing, scan) if files else items(scan):
            row, line, values = item.row, item.line, item.values
            found.note_line(row, line)
            kept, odd, text, digest = dict[str, Any](), False, "", UNUSABLE
            if isinstance(values, Fault):
                fault: Fault | None = values
            else:
                values, odd = _in_form(values, names)
                if scan.columns is None and not found.columns.issuperset(values):
                    found.columns.update(values)
                if label_names is not None:
                    for name in of_classes:
                        values = dict(with_name(values, name, label_names))
                fault = row_problem(values, task, columns, known, scan.columns)
                if fault is None:
                    kept = {name: values[name] for name in names if name in values}
                    if files is None or item.opened is None:
                        fault, text, digest = _fingerprinted(kept, task, columns, no_input)
                    elif (fault := item.opened.fault) is None:
                        kept[files.column] = item.opened.value
                        text, digest = task.info.unit, item.opened.digest
            if files and item.opened and item.opened.elsewhere and table is None:
                table = files.table(listing.role, number)
                for earlier in range(row):  # bad ones: no row with a file came before
                    table.add(b"null", earlier + 1)
            if fault is not None:
                bad_rows.add(listing.role, number, row, item.name, line, fault)
                found.prints.append(UNUSABLE)
                found.classes.append(0)
                if table is not None:
                    table.add(b"null", line)
                if task.number is not None:
                    found.numbers.append(math.nan)
                if group is not None:
                    found.groups.append(UNUSABLE)
                continue
            if files is not None:
                files.note(item)
            if table is not None:
                table.add(to_bytes(kept, names), line)
            elif kind.name != "jsonl":
                scan.weigh(len(to_bytes(kept, names)) + ROW_BYTES, item.block)
            found.usable += 1
            if odd or any(_other_form(kept.get(name)) for name in of_classes):
                found.other_forms += 1
                found.first_other = found.first_other or (item.name, line)
            found.prints.append(digest)
            found.classes.append(_class_set(task, kept, found, listing, columns))
            if group is not None:
                _note_group(found, group, item)
            if task.number is not None:
                found.numbers.append(task.number(kept, columns))
            if not text.strip():
                found.empty_texts += 1
                found.first_empty = found.first_empty or (item.name, line)
            if sample is not None:
                size = item.opened.size if item.opened and table is None else len(text)
                sample.offer(kept, size, item.name, line)
        found.columns.update(scan.columns or ())
        result = scan.result if table is None else dataclasses.replace(scan.result, blocks=table.done())
        objects.append(result)
        whole_lines = tuple(block.size + ROW_BYTES * block.rows for block in result.blocks)
        found.weights.append(whole_lines if kind.name == "jsonl" or table is not None else scan.weights)
        log.info("read %s: %d rows", result.key, result.rows)
    found.source = Source(listing.uri, tuple(objects), listing.revision)
    return found


def items(scan: ObjectScan | FolderScan) -> Iterator[Item]:
    """Rows that stand for themselves."""
    for row, line, values in scan:
        yield Item(row, line, values, scan.name, scan.block)


def _note_group(found: SourceSurvey, column: str, item: Item) -> None:
    """The value that a usable row is grouped by."""
    assert not isinstance(item.values, Fault)
    digest = group_print(in_form(item.values, (column,)).get(column))
    found.groups.append(digest)
    if digest == UNUSABLE:
        found.first_ungrouped = found.first_ungrouped or (item.name, item.line)


def _in_form(values: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The row with the wanted columns under the names that are looked for, and whether it names one in another form."""
    if all(name in values for name in names):
        return values, False
    wanted = in_form(values, names)
    odd = bool(wanted.keys() - values.keys())
    return ({**values, **wanted} if odd else values), odd


def _fingerprinted(
    kept: Mapping[str, Any], task: Task, columns: Mapping[str, str], no_input: Sequence[str]
) -> tuple[Fault | None, str, int]:
    """What is wrong with a row's text as such, else the text and its fingerprint."""
    try:
        text = fingerprint_text(kept, columns, no_input)
        "".join(task.classes(kept, columns)).encode()
        digest = fingerprint(text)
    except UnicodeEncodeError:
        message = "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; write the character whole"
        return Fault("InvalidEncoding", message), "", UNUSABLE
    except RecursionError:
        return Fault("InvalidRow", "is nested too deeply to be read; write it flat"), "", UNUSABLE
    return (too_long(len(text)) if len(text) > MOST_CHARACTERS else None), text, digest


def _other_form(label: object) -> bool:
    if isinstance(label, list):
        return any(map(_other_form, label))
    return isinstance(label, str) and label != one_form(label)


def too_long(characters: int) -> Fault:
    """A row of more text than any model takes."""
    return Fault(
        "TooLong",
        f"holds {characters:,} characters of text, and {MOST_CHARACTERS:,} are allowed; split it into several rows",
    )


def row_problem(
    values: dict[str, Any],
    task: Task,
    columns: Mapping[str, str],
    labels: Collection[str] | None,
    found: Sequence[str] | None,
) -> Fault | None:
    """What makes a row a bad one: its columns, its class, then its tokens. `found`: the columns that the data has."""
    message = task.check_row(values, columns)
    if message is None:
        if labels is not None and (fault := _unknown_label(task.classes(values, columns), labels)):
            return fault
        message = task.check_tokens(values, columns)
        return None if message is None else Fault("InvalidRow", message)
    absent = [name for entry, name in columns.items() if entry not in task.optional and name not in values]
    if absent:
        there = ", ".join(repr(name) for name in list(found or values)[:20]) or "none"
        return Fault("MissingColumn", f"has no column {absent[0]!r}; its columns are {there}")
    return Fault("InvalidRow", message)


def _unknown_label(names: Sequence[str], labels: Collection[str]) -> Fault | None:
    name = next((name for name in names if name not in labels), None)
    if name is None:
        return None
    shown = ", ".join(repr(label) for label in list(labels)[:10])
    return Fault(
        "UnknownLabel", f"class {name!r} is not among the labels ({shown}); correct it, or add it to spec.data.labels"
    )


def no_classes(task: Task, columns: Mapping[str, str], why: str) -> JobError:
    """The column of the classes has too many values: `why`."""
    entry = next(entry for entry, name in columns.items() if name in task.class_columns(columns))
    return JobError(
        Reason.INVALID_DATA,
        f"column {columns[entry]!r} has {why}: it does not look like a class",
        field=f"spec.data.columns.{entry}",
        hint=f"Name the column that holds the class in spec.data.columns.{entry}.",
    )


def _class_set(
    task: Task, row: Mapping[str, Any], found: SourceSurvey, listing: Listing, columns: Mapping[str, str]
) -> int:
    """The number of the row's classes, which are counted."""
    names = tuple(map(sys.intern, sorted(task.classes(row, columns))))  # many rows may have sets of their own
    found.label_counts.update(names)
    if len(found.label_counts) > MOST_CLASSES:
        raise no_classes(task, columns, f"more than {MOST_CLASSES:,} values in {listing.uri}")
    return found.class_sets.setdefault(names, len(found.class_sets))
