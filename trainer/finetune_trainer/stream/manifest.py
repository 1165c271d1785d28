"""The data manifest: every object with its tag, and every block with its place, rows and checksum.

Made once by the prepare step, so that no rank lists anything; its digest is the first word of the order of the rows
(I2). A row's number counts the rows of its object from 0 (blank lines are no rows); line numbers are for people.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from finetune_api.formats import Format

MANIFEST_VERSION = 1
BLOCK_BYTES = 8 << 20
"""Blocks of uncompressed text are cut at this size; compressed objects and row groups are as large as they are."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are read together.

    start, end: bytes of the object (jsonl, csv), or the number of the row group and the next (parquet). `size`: bytes
    once decompressed. `crc`: CRC-32 of the stored bytes, 0 for parquet. `cache`: name in the job's cache if it was
    copied there.
    """

    start: int
    end: int
    row: int
    rows: int
    line: int
    size: int
    crc: int
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class DataObject:
    """One object of a source. `header`, `delimiter`: of csv."""

    key: str
    size: int
    etag: str
    format: Format
    blocks: tuple[Block, ...]
    header: tuple[str, ...] | None = None
    delimiter: str = ","

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Source:
    """What one URI of the spec stood for. `revision`: commit of an hf:// data set."""

    uri: str
    objects: tuple[DataObject, ...]
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class DataManifest:
    """All sources by role: train, and validation and test where they are objects of their own."""

    sources: dict[str, Source]

    @property
    def digest(self) -> str:
        """SHA-256 over everything."""
        return hashlib.sha256(_canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; blocks as lists."""
        sources = {}
        for role, source in sorted(self.sources.items()):
            objects = []
            for item in source.objects:
                plain = asdict(item)
                plain["blocks"] = [list(asdict(block).values()) for block in item.blocks]
                objects.append(plain)
            sources[role] = {"uri": source.uri, "revision": source.revision, "objects": objects}
        return {"version": MANIFEST_VERSION, "sources": sources}

    @staticmethod
    def from_json(data: dict[str, Any]) -> DataManifest:
        """The inverse of to_json. Raises ValueError for another version."""
        if data.get("version") != MANIFEST_VERSION:
            raise ValueError(f"data manifest of version {data.get('version')}, not {MANIFEST_VERSION}")
        sources = {}
        for role, source in data["sources"].items():
            objects = tuple(
                DataObject(
                    key=item["key"],
                    size=item["size"],
                    etag=item["etag"],
                    format=Format(**item["format"]),
                    blocks=tuple(Block(*block) for block in item["blocks"]),
                    header=None if item["header"] is None else tuple(item["header"]),
                    delimiter=item["delimiter"],
                )
                for item in source["objects"]
            )
            sources[role] = Source(source["uri"], objects, source["revision"])
        return DataManifest(sources)


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
