"""From a data URI to its objects: patterns and folders on S3 and on disk, files of a split on the hub.

Nothing is guessed in silence: an object whose name says no format is an error, and a pattern that matches nothing names
what lies nearest. What begins with '_' or '.', at any depth below what the URI spells out, is no data: writers and
tools keep their markers, logs and unfinished parts there.
"""

from __future__ import annotations

from finetune_api.exits import JobError, Reason
from finetune_api.formats import Format, format_of
from finetune_api.run import RunConfig
from finetune_api.sources import EvaluationSet, HeldOutSource, TrainSource
from finetune_api.tasks import TASKS
from finetune_trainer.storage import ObjectInfo, ObjectStore, blaming, open_store
from finetune_trainer.stream.sources.folders import as_object, is_folder, without_files
from finetune_trainer.stream.sources.globs import fixed_prefix, has_glob, matcher, spelt_out
from finetune_trainer.stream.sources.listing import Listing, refuse_notes
from finetune_trainer.stream.sources.nearest import nearest
from finetune_trainer.stream.sources.tables import table_findings
from finetune_trainer.stream.splits import SET

_HIDDEN = ("_", ".")


def open_source(config: RunConfig, role: str, revision: str | None) -> ObjectStore:
    """The store that a source's objects are read from. `revision`: the commit that the prepare step pinned (hf://).

    Faults are ridden out for longer than in the prepare step, but not for so long that the other ranks give this one
    up.
    """
    _, source = sources_of(config)[role]
    assert source.uri is not None
    if source.uri.startswith("hf://"):
        from finetune_trainer.stream.sources.hub_store import HubStore

        return HubStore(source.uri, revision or source.revision, config.hub, granted=revision is not None)
    return open_store(source.uri, config.storage, patience=0.75 * config.world.timeout_seconds)[0]


Source = TrainSource | HeldOutSource | EvaluationSet


def sources_of(config: RunConfig) -> dict[str, tuple[str, Source]]:
    """Role -> the field of the manifest that describes a source, and what it says: the training rows, those splits that
    have objects of their own, and the sets of spec.evaluation.sets.
    """
    data = config.data
    given: dict[str, Source | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {role: (f"spec.data.{role}", source) for role, source in given.items() if source and source.uri}
    for n, each in enumerate(config.evaluation.sets or ()):
        found[f"{SET}{each.name}"] = (f"spec.evaluation.sets[{n}]", each)
    return found


def list_sources(config: RunConfig) -> dict[str, Listing]:
    """All sources by role. Raises JobError."""
    found = {}
    for role, (place, _) in sources_of(config).items():
        with blaming(f"{place}.uri"):
            found[role] = list_source(config, role)
    return found


def list_source(config: RunConfig, role: str) -> Listing:
    """List a source. Raises JobError: DataNotFound, InvalidConfig, and what storage raises."""
    place, source = sources_of(config)[role]
    field = f"{place}.uri"
    assert source.uri is not None
    if source.uri.startswith("hf://"):
        from finetune_trainer.stream.sources.hub_splits import list_hub

        return list_hub(config, role, place, source.uri, source.revision, source.split or _usual_split(role))
    store, pattern = open_store(source.uri, config.storage)
    ours = open_store(config.output.uri, config.storage)[1].rstrip("/") + "/"
    same_store = config.output.uri.split("/", 3)[:3] == source.uri.split("/", 3)[:3]
    found = _matching(store, pattern)
    noted = table_findings(store, pattern, found, field)
    seen = [info for info in found if not _hidden(info.key, pattern)]
    hidden, found = len(found) - len(seen), seen
    if same_store and not pattern.startswith(ours):
        found = [info for info in found if not info.key.startswith(ours)]  # what the job itself writes is no data
    if TASKS[config.task].reads_files:
        if is_folder([info.key for info in found], config.data.format):
            root = as_object(found, spelt_out(pattern))
            return Listing(role, field, source.uri, store, (root,), files=tuple(found), findings=noted)
        found = without_files(found, config.data.format)
    chosen = [(info, _format(info, config, source.uri, store)) for info in found]
    refuse_notes(chosen, store, "spec.data.format")
    if not chosen:
        raise _nothing(store, pattern, source.uri, field, hidden)
    return Listing(role, field, source.uri, store, tuple(chosen), findings=noted)


def _usual_split(role: str) -> str:
    return "test" if role.startswith(SET) else role


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


def _hidden(key: str, pattern: str) -> bool:
    """Whether the key is of a hidden or temporary file or folder that the pattern does not ask for by name."""
    spelt = spelt_out(pattern)
    if key == pattern or any(part.startswith(_HIDDEN) for part in pattern[len(spelt) :].split("/")):
        return False
    return any(part.startswith(_HIDDEN) for part in key[len(spelt) :].split("/"))


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
                "Narrow the URI (as …/*.jsonl.zst), or set spec.data.format to jsonl, csv, text or parquet (parquet has"
                " its own compression)."
                + (" Images are known by their names: .jpg, .png, …" if TASKS[config.task].reads_files else "")
            ),
        )
    return found


def _nothing(store: ObjectStore, pattern: str, uri: str, field: str, hidden: int) -> JobError:
    if hidden:
        return JobError(
            Reason.DATA_NOT_FOUND,
            f"all {hidden} objects that match {uri} are hidden or temporary: their names, or their folders', begin with"
            " '_' or '.'",
            field=field,
            hint="Name such an object or folder in full if it is meant.",
        )
    near = nearest(store, pattern)
    seen = f"; nearest: {', '.join(near)}" if near else "; the place is empty"
    return JobError(Reason.DATA_NOT_FOUND, f"no object matches {uri}{seen}", field=field)
