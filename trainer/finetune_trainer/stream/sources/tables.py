"""Folders of table formats (Delta, Iceberg, Hudi): refused, since only a table's log says which of its rows count.

Read as plain files they would give rows that are deleted, or written twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.storage import ObjectInfo, ObjectStore
from finetune_trainer.stream.sources.globs import has_glob, spelt_out

_LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi", "metadata": "Iceberg"}


def table_findings(store: ObjectStore, pattern: str, found: Sequence[ObjectInfo], field: str) -> tuple[Finding, ...]:
    """A finding where files of a table format are named one by one. Raises JobError for the table's folder.

    Which files of a table hold rows that count, only its log says.
    """
    keys = [info.key for info in found]
    folder = spelt_out(pattern)
    if has_glob(pattern):  # the pattern may pass over the log that lies beside what it matches
        places = [folder, folder[: folder.rstrip("/").rfind("/") + 1]]
        keys += [key for at in places for log in _LOGS for key in _glance(store, f"{at}{log}/")]
    table = next((hit for key in keys if (hit := _table_of(key))), None)
    if table is None:
        return ()
    kind, place, log = table
    what = f"{store.uri(place)} is a {kind} table ({log}/ lies in it)"
    if any(key.startswith(f"{place}{log}/") for key in (info.key for info in found)):
        raise JobError(
            Reason.INVALID_DATA,
            f"{what}, which is not read as one: its files hold deleted and replaced rows, too",
            field=field,
            hint="Write the rows that count to plain parquet or jsonl files in a folder of their own, and name that.",
        )
    message = (
        f"{clip(what, 200)}: deleted and replaced rows are read as well. Write the rows that count to plain files, and"
        " name those."
    )
    return (Finding(kind="TableFiles", count=len(found), message=message[:384]),)


def _glance(store: ObjectStore, prefix: str) -> list[str]:
    """A few keys of a place that the user has not named: the credentials need not reach it."""
    try:
        return [info.key for info in itertools.islice(store.list(prefix), 20)]
    except JobError:
        return []


def _table_of(key: str) -> tuple[str, str, str] | None:
    """(kind, the table's folder, its log's name) of a key within a table's log."""
    parts = key.split("/")
    for n, part in enumerate(parts[:-1]):
        if part in _LOGS and (part != "metadata" or parts[-1].endswith(".metadata.json")):
            return _LOGS[part], "".join(f"{p}/" for p in parts[:n]), part
    return None
