"""What a data source holds: its objects as they were listed once, and a digest that changes with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.exits import JobError, Reason
from finetune_api.formats import Format
from finetune_api.status import Finding
from finetune_trainer.storage import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one source, sorted by key, with the store that reads them. `field`: what names it in the
    manifest.
    """

    role: str
    field: str
    uri: str
    store: ObjectStore
    objects: tuple[tuple[ObjectInfo, Format], ...]
    revision: str | None = None
    files: tuple[ObjectInfo, ...] = ()
    """Where the one object is a folder of files that are rows: these."""
    findings: tuple[Finding, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """column -> names of the numbers that it holds, as the data set's card says."""

    @property
    def digest(self) -> str:
        """Changes whenever an object is added, removed or rewritten."""
        facts = [self.uri, self.revision, [[i.key, i.size, i.etag, f.name] for i, f in self.objects]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def refuse_notes(chosen: Sequence[tuple[ObjectInfo, Format]], store: ObjectStore, field: str) -> None:
    """A text among tables is a note about them, rather than rows. Raises JobError."""
    note = next((info for info, kind in chosen if kind.name == "text"), None)
    if note is not None and any(kind.name != "text" for _, kind in chosen):
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{store.uri(note.key)} is plain text among objects of other formats",
            field=field,
            hint="Narrow what is named (as …/*.jsonl.zst), so that notes about the rows stay outside.",
        )
