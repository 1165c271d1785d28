"""What a data source holds: its objects as they were listed once, and a digest that changes with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_api.formats import Format
from finetune_api.status import Finding
from finetune_trainer.storage import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one source, sorted by key, with the store that reads them."""

    role: str
    uri: str
    store: ObjectStore
    objects: tuple[tuple[ObjectInfo, Format], ...]
    revision: str | None = None
    files: tuple[ObjectInfo, ...] = ()
    """Where the one object is a folder of files that are rows: these."""
    findings: tuple[Finding, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """column -> names of the numbers that it holds, as the data set's card says."""

    @property
    def digest(self) -> str:
        """Changes whenever an object is added, removed or rewritten."""
        facts = [self.uri, self.revision, [[i.key, i.size, i.etag, f.name] for i, f in self.objects]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def field_of(role: str) -> str:
    """The manifest's field that names a source."""
    return f"spec.data.{role}.uri"
