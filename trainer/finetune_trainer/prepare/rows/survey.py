"""Look at every row of every source: is it usable, which class has it, what is its fingerprint; keep a sample for
lengths.

Labels and bad rows are exact (I8). Memory is a few bytes a row: fingerprints and classes in flat arrays, and a bounded
sample.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import random
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form, one_form
from finetune_api.records import Fault
from finetune_trainer.prepare.layout.copies import HeldOut
from finetune_trainer.prepare.layout.reblock import ROW_BYTES
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.scan import ObjectScan
from finetune_trainer.stream.blocks import to_bytes
from finetune_trainer.stream.manifest import DataObject, Source
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.base import Task
from finetune_trainer.tasks.columns import with_name

log = logging.getLogger(__name__)
SAMPLE_ROWS = 2_000
SAMPLE_BYTES = 12 << 20
LEAST_SAMPLE = 64
MOST_CLASSES = 1_000
MOST_CHARACTERS = 2 << 20
"""More text in one row is a file in the wrong place: hundreds of thousands of tokens, of which no model takes part."""
_NUMBER = re.compile("-?[0-9]{1,18}")
BAD = 0
"""Fingerprint of a row that cannot be used."""


@dataclass(slots=True)
class Surveyed:
    """What was seen of one source. prints, classes: one entry a row, bad ones included, over all objects in order."""

    source: Source
    prints: array[int] = field(default_factory=lambda: array("Q"))
    classes: array[int] = field(default_factory=lambda: array("H"))
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
    first_lines: list[int | None] = field(default_factory=list)
    """Line of each object's first row; None where rows and lines do not go together (blank lines, csv with line
    breaks).
    """

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.source.objects)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row of the sample and where it stands."""

    values: dict[str, Any]
    file: str
    line: int


class Sample:
    """A uniform sample without replacement, bounded in rows and bytes: the rows with the smallest random keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, int, Sampled]] = []
        self._limit = 1.0
        self._bytes = self._count = 0

    def offer(self, values: dict[str, Any], size: int, file: str, line: int) -> None:
        """Maybe keep the row."""
        key = self._random.random()
        self._count += 1
        if key >= self._limit:
            return
        heapq.heappush(self._heap, (-key, self._count, size, Sampled(values, file, line)))
        self._bytes += size
        while len(self._heap) > SAMPLE_ROWS or (self._bytes > SAMPLE_BYTES and len(self._heap) > LEAST_SAMPLE):
            key, _, size, _ = heapq.heappop(self._heap)
            self._limit = -key
            self._bytes -= size

    @property
    def rows(self) -> list[Sampled]:
        """The sample, in the order of the data."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[1])]


def survey(
    listing: Listing,
    task: Task,
    columns: Mapping[str, str],
    labels: Sequence[str] | None,
    bad_rows: BadRows,
    sample: Sample | None,
    held_out: HeldOut | None = None,
    label_names: Sequence[str] | None = None,
) -> Surveyed:
    """Read a source. `labels` None: any class will do; `label_names`: of the numbers in the label column. Raises
    JobError
    for what no allowance covers."""
    found = Surveyed(Source(listing.uri, (), listing.revision))
    names = tuple(dict.fromkeys(columns.values()))
    codes: dict[str, int] = {}
    objects: list[DataObject] = []
    for number, (info, kind) in enumerate(listing.objects):
        scan = ObjectScan(listing.store, info, kind, names)
        found.first_lines.append(None)
        for row, line, values in scan:
            if row == 0:
                found.first_lines[-1] = line
            elif line - row != found.first_lines[-1]:
                found.first_lines[-1] = None
            odd = isinstance(values, dict) and any(name not in values for name in names)
            if isinstance(values, dict) and odd:
                odd = bool(added := in_form(values, names).keys() - values.keys())
                values = {**values, **in_form(values, names)} if added else values
            if isinstance(values, dict):
                if scan.columns is None and not found.columns.issuperset(values):
                    found.columns.update(values)
                if label_names is not None:
                    values = dict(with_name(values, columns["label"], label_names))
            fault = values if isinstance(values, Fault) else _problem(values, task, columns, labels, scan.columns)
            if fault is None:
                assert isinstance(values, dict)
                kept = {name: values[name] for name in names if name in values}
                try:
                    text = fingerprint_text(kept, columns)
                    (task.label(kept, columns) or "").encode()
                    if len(text) > MOST_CHARACTERS:
                        fault = too_long(len(text))
                    digest = fingerprint(text)
                except UnicodeEncodeError:
                    fault = Fault(
                        "InvalidEncoding",
                        "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; write the character"
                        " whole",
                    )
                except RecursionError:
                    fault = Fault("InvalidRow", "is nested too deeply to be read; write it flat")
            if fault is not None:
                bad_rows.add(listing.role, number, row, scan.name, line, fault)
                found.prints.append(BAD)
                found.classes.append(0)
                continue
            if kind.name != "jsonl":
                scan.weigh(len(to_bytes(kept, names)) + ROW_BYTES)
            if held_out is not None:
                held_out.offer(number, row, line, kept)
            found.usable += 1
            if odd or _other_form(kept.get(columns.get("label", ""))):
                found.other_forms += 1
                found.first_other = found.first_other or (scan.name, line)
            found.prints.append(digest)
            found.classes.append(_class(task.label(kept, columns), codes, found, listing, columns))
            if not text.strip():
                found.empty_texts += 1
                found.first_empty = found.first_empty or (scan.name, line)
            if sample is not None:
                sample.offer(kept, len(text), scan.name, line)
        found.columns.update(scan.columns or ())
        objects.append(scan.result)
        whole_lines = tuple(block.size + ROW_BYTES * block.rows for block in scan.result.blocks)
        found.weights.append(whole_lines if kind.name == "jsonl" else scan.weights)
        log.info("read %s: %d rows", scan.name, scan.result.rows)
    found.source = Source(listing.uri, tuple(objects), listing.revision)
    return found


def _other_form(label: object) -> bool:
    return isinstance(label, str) and label != one_form(label)


def too_long(characters: int) -> Fault:
    """A row of more text than any model takes."""
    return Fault(
        "TooLong",
        f"holds {characters:,} characters of text, and {MOST_CHARACTERS:,} are allowed; split it into several rows",
    )


def _problem(
    values: dict[str, Any],
    task: Task,
    columns: Mapping[str, str],
    labels: Sequence[str] | None,
    found: Sequence[str] | None,
) -> Fault | None:
    message = task.check_row(values, columns, labels)
    if message is None:
        return None
    if message.startswith("class "):
        return Fault("UnknownLabel", message)
    absent = [name for role, name in columns.items() if role not in task.optional and name not in values]
    if absent:
        there = ", ".join(repr(name) for name in list(found or values)[:20]) or "none"
        return Fault("MissingColumn", f"has no column {absent[0]!r}; its columns are {there}")
    return Fault("InvalidRow", message)


def _class(
    name: str | None, codes: dict[str, int], found: Surveyed, listing: Listing, columns: Mapping[str, str]
) -> int:
    if name is None:
        return 0
    found.label_counts[name] += 1
    if name not in codes:
        codes[name] = len(codes) + 1
        if len(codes) > MOST_CLASSES:
            raise JobError(
                Reason.INVALID_DATA,
                f"column {columns['label']!r} has more than {MOST_CLASSES} values in {listing.uri}: it does not look"
                " like a class",
                field="spec.data.columns.label",
                hint="Name the column that holds the class in spec.data.columns.label.",
            )
    return codes[name]


def fingerprint_text(values: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """What makes a row the same as another: its inputs, not its class."""
    parts = [values.get(name) for role, name in columns.items() if role != "label"]
    return "\x1f".join(
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, ensure_ascii=False, default=str)
        for part in parts
    )


def fingerprint(text: str) -> int:
    """64 bits of the text after NFKC, case folding and collapsing white space; never BAD."""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    plain = " ".join(normal.casefold().split()).encode()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little") or 1


def sort_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Classes in order: by value if all are plain whole numbers, else as text."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
