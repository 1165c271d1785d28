"""Small data sets in every format and compression, and profiles made from them by the real scan."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from finetune_api.run import RunConfig
from finetune_api.status import DataProfile, Resolved
from finetune_trainer.prepare.layout.held_out import copy_held_out
from finetune_trainer.prepare.layout.layout import lay_out
from finetune_trainer.prepare.parts.assign import assign
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.survey import survey
from finetune_trainer.storage import location
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.parts import digest_of, save_parts
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.sources.source import list_sources
from finetune_trainer.tasks.registry import task_for

ENDINGS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "parquet")

HAM, SPAM = '{"text": "the meeting", "label": "ham"}', '{"text": "free prize", "label": "spam"}'


def write_lines(folder: Path, name: str, texts: Sequence[str]) -> None:
    """Write the texts as the lines of folder/name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(text + "\n" for text in texts))


def rows_of(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows that name themselves; texts with quotes, commas and line breaks, as csv likes them least."""
    odd = ["plain {n}", "comma, {n}", 'a "quoted" {n}', "two\nlines {n}", "ümläut 漢字 {n}", "semi;colon {n}"]
    return [
        {"id": str(n), "text": odd[n % len(odd)].format(n=n), "label": "odd" if n % 2 else "even"}
        for n in range(start, start + count)
    ]


def encode(rows: Sequence[dict[str, Any]], ending: str, row_group: int = 64) -> bytes:
    """The rows in a format, by the ending of its name."""
    kind, _, compression = ending.partition(".")
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink, row_group_size=row_group)
        return sink.getvalue()
    if kind == "jsonl":
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif kind == "txt":
        data = "".join(row["text"] + "\n" for row in rows).encode()
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    return {"": bytes, "gz": gzip.compress, "zst": zstandard.compress}[compression](data)


def write(folder: Path, name: str, rows: Sequence[dict[str, Any]], row_group: int = 64) -> Path:
    """Write the rows to folder/name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rows, name.partition(".")[2], row_group))
    return path


def profiled(config: RunConfig, columns: dict[str, str] | None = None) -> tuple[DataManifest, Profile]:
    """Manifest and profile of the data alone: no model is needed."""
    columns = columns or {"text": "text", "label": "label"}
    out = location(config.output.uri, config.storage)
    bad_rows, task = BadRows(config.data.max_bad_rows), task_for(config.task)
    listings, seen = list_sources(config), {}
    for role, listing in listings.items():
        seen[role] = survey(listing, task, columns, None, bad_rows, None)
    if bad_rows.too_many:
        raise bad_rows.refusal()
    assigned = assign(config, task, seen["train"])
    parts = None if assigned is None else assigned.parts
    digest = None if parts is None else digest_of(parts)
    found = lay_out(config, out, listings, seen, columns, bad_rows.rows, digest)
    if parts is not None:
        save_parts(out, parts)
    resolved = Resolved(global_batch_size=config.training.global_batch_size or 8)
    return found.manifest, Profile(
        config.job.id,
        "basis",
        found.digest,
        DataProfile(),
        resolved,
        columns,
        bad=bad_rows.rows,
        order=found.order,
        held_out=copy_held_out(config, out, found.manifest, columns.values(), parts),
        parts=digest,
    )
