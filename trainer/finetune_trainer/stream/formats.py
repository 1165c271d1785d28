"""Which format and compression an object has: by its name, or as the spec says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatName = Literal["jsonl", "csv", "parquet"]
Compression = Literal["", "gz", "zst"]

_ENDINGS: dict[str, FormatName] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
}  # fmt: skip
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}


@dataclass(frozen=True, slots=True)
class Format:
    """How to read an object. `splittable`: any byte range that begins at a record can be read by itself."""

    name: FormatName
    compression: Compression = ""

    @property
    def splittable(self) -> bool:
        return self.name != "parquet" and not self.compression


def format_of(key: str, wanted: str = "auto") -> Format | None:
    """The format of an object by its name; `wanted` overrides the name's ending, the compression still goes by it.

    None when the name says nothing, and for compressed parquet, which nothing can read in parts.
    """
    name = key.rpartition("/")[2].lower()
    compression: Compression = ""
    for ending, kind in _COMPRESSIONS.items():
        if name.endswith(ending):
            name, compression = name.removesuffix(ending), kind
    found = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
    chosen: FormatName | None = found if wanted == "auto" else wanted  # type: ignore[assignment]
    if chosen is None or (chosen == "parquet" and compression):
        return None
    return Format(chosen, compression)
