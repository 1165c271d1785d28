"""From a data URI to its objects: patterns and folders on S3 and on disk, files of a split on the hub.

Nothing is guessed in silence: an object whose name says no format is an error, and a pattern that matches nothing names
what
lies nearest. What begins with '_' or '.', at any depth below what the URI spells out, is no data: writers and tools
keep their
markers, logs and unfinished parts there. The folder of a table (Delta, Iceberg, Hudi) is refused: it holds rows that
are
deleted, or written twice.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence

from finetune_api.exits import JobError, Reason
from finetune_api.formats import Format, format_of
from finetune_api.job import HeldOutSource, TrainSource
from finetune_api.run import RunConfig
from finetune_api.status import Finding
from finetune_api.text import clip
from finetune_trainer.storage import ObjectInfo, ObjectStore, open_store
from finetune_trainer.stream.sources.globs import fixed_prefix, has_glob, matcher
from finetune_trainer.stream.sources.listing import Listing, field_of

_LOOK_AT = 2000
_HIDDEN = ("_", ".")
_LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi", "metadata": "Iceberg"}


def open_source(config: RunConfig, role: str, revision: str | None) -> ObjectStore:
    """The store that a source's objects are read from. `revision`: the commit that the prepare step pinned (hf://).

    Faults are ridden out for longer than in the prepare step, but not for so long that the other ranks give this one
    up.
    """
    source = source_of(config, role)
    assert source.uri is not None
    if source.uri.startswith("hf://"):
        from finetune_trainer.stream.sources.hub_store import HubStore

        return HubStore(source.uri, revision or source.revision, config.hub, granted=revision is not None)
    return open_store(source.uri, config.storage, patience=0.75 * config.world.timeout_seconds)[0]


def source_of(config: RunConfig, role: str) -> TrainSource | HeldOutSource:
    """The spec's source of a role."""
    source = {"train": config.data.train, "validation": config.data.validation, "test": config.data.test}[role]
    assert source is not None
    return source


def list_source(config: RunConfig, role: str) -> Listing:
    """List a source. Raises JobError: DataNotFound, InvalidConfig, and what storage raises."""
    source = source_of(config, role)
    assert source.uri is not None
    if source.uri.startswith("hf://"):
        from finetune_trainer.stream.sources.hub_splits import list_hub

        return list_hub(config, role, source.uri, source.revision, source.split or role)
    store, pattern = open_store(source.uri, config.storage)
    ours = open_store(config.output.uri, config.storage)[1].rstrip("/") + "/"
    same_store = config.output.uri.split("/", 3)[:3] == source.uri.split("/", 3)[:3]
    found = _matching(store, pattern)
    noted = _tables(store, pattern, found, source.uri, role)
    seen = [info for info in found if not _hidden(info.key, pattern)]
    hidden, found = len(found) - len(seen), seen
    if same_store and not pattern.startswith(ours):
        found = [info for info in found if not info.key.startswith(ours)]  # what the job itself writes is no data
    chosen = [(info, _format(info, config, source.uri, store)) for info in found]
    if not chosen:
        raise _nothing(store, pattern, source.uri, role, hidden)
    return Listing(role, source.uri, store, tuple(chosen), findings=noted)


def _matching(store: ObjectStore, pattern: str) -> list[ObjectInfo]:
    if has_glob(pattern):
        wanted = matcher(pattern)
        return [info for info in store.list(fixed_prefix(pattern)) if wanted.match(info.key) and _is_file(info)]
    if pattern and not pattern.endswith("/"):
        info = store.head(pattern)
        if info is not None:
            return [info]
        pattern += "/"
    return [info for info in store.list(pattern) if _is_file(info)]


def _spelt_out(pattern: str) -> str:
    """The folders that the pattern writes out before its first wildcard, with a slash at the end."""
    return pattern[: fixed_prefix(pattern).rfind("/") + 1] if has_glob(pattern) else f"{pattern.rstrip('/')}/"


def _hidden(key: str, pattern: str) -> bool:
    """Whether the key is of a hidden or temporary file or folder that the pattern does not ask for by name."""
    spelt = _spelt_out(pattern)
    if key == pattern or any(part.startswith(_HIDDEN) for part in pattern[len(spelt) :].split("/")):
        return False
    return any(part.startswith(_HIDDEN) for part in key[len(spelt) :].split("/"))


def _tables(store: ObjectStore, pattern: str, found: Sequence[ObjectInfo], uri: str, role: str) -> tuple[Finding, ...]:
    """A finding where files of a table format are named one by one. Raises JobError for the table's folder.

    Which files of a table hold rows that count, only its log says.
    """
    keys = [info.key for info in found]
    folder = _spelt_out(pattern)
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
            field=field_of(role),
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


def _is_file(info: ObjectInfo) -> bool:
    return not info.key.endswith("/")


def _format(info: ObjectInfo, config: RunConfig, uri: str, store: ObjectStore) -> Format:
    found = format_of(info.key, config.data.format)
    if found is None:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{store.uri(info.key)} matches {uri}, and its name says no format that can be read",
            field="spec.data.format",
            hint=(
                "Narrow the URI (as …/*.jsonl.zst), or set spec.data.format to jsonl, csv or parquet (parquet has its"
                " own compression)."
            ),
        )
    return found


def _nothing(store: ObjectStore, pattern: str, uri: str, role: str, hidden: int) -> JobError:
    if hidden:
        return JobError(
            Reason.DATA_NOT_FOUND,
            f"all {hidden} objects that match {uri} are hidden or temporary: their names, or their folders', begin with"
            " '_' or '.'",
            field=field_of(role),
            hint="Name such an object or folder in full if it is meant.",
        )
    near = nearest(store, pattern)
    seen = f"; nearest: {', '.join(near)}" if near else "; the place is empty"
    return JobError(Reason.DATA_NOT_FOUND, f"no object matches {uri}{seen}", field=field_of(role))


def nearest(store: ObjectStore, pattern: str, count: int = 3) -> list[str]:
    """Keys that are most like the pattern, from the closest prefix that has any."""
    prefix = fixed_prefix(pattern)
    while True:
        keys = [info.key for info in itertools.islice(_quietly(store, prefix), _LOOK_AT)]
        if keys or not prefix or (store.uri("").startswith("file") and prefix.count("/") < 2):
            break
        prefix = prefix.rstrip("/").rpartition("/")[0]
        prefix += "/" if prefix else ""
    return [store.uri(key) for key in difflib.get_close_matches(pattern, keys, count, cutoff=0.0)]


def _quietly(store: ObjectStore, prefix: str) -> Iterable[ObjectInfo]:
    if store.uri("").startswith("file") and not prefix:
        return ()
    return store.list(prefix)
