"""Which format and compression an object has: by its name, or as the spec says; and what its first bytes say it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatChoice = Literal["auto", "jsonl", "csv", "parquet", "text"]
"""What the spec may say."""
FormatName = Literal["jsonl", "csv", "parquet", "text", "json-array", "files"]
Compression = Literal["", "gz", "zst"]

_ENDINGS: dict[str, FormatName] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}


@dataclass(frozen=True, slots=True)
class Format:
    """How to read an object. text: each line is a row. json-array: what is named jsonl, and turns out to be one array.
    files: a folder of files that are rows themselves.

    `splittable`: any byte range that begins at a record can be read by itself.
    """

    name: FormatName
    compression: Compression = ""

    @property
    def splittable(self) -> bool:
        return self.name in ("jsonl", "csv", "text") and not self.compression


def format_of(key: str, wanted: FormatChoice = "auto") -> Format | None:
    """The format of an object by its name; `wanted` overrides the name's ending, the compression still goes by it.

    None when the name says nothing, and for compressed parquet, which nothing can read in parts.
    """
    name = key.rpartition("/")[2].lower()
    compression: Compression = ""
    for ending, kind in _COMPRESSIONS.items():
        if name.endswith(ending):
            name, compression = name.removesuffix(ending), kind
    found = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
    chosen = found if wanted == "auto" else wanted
    if chosen is None or (chosen == "parquet" and compression):
        return None
    return Format(chosen, compression)


def holds_rows(key: str) -> bool:
    """Whether the name is that of a table: plain text may as well be a note that lies beside the data."""
    found = format_of(key)
    return found is not None and found.name != "text"


IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
"""Endings of images that are read."""


def is_image(key: str) -> bool:
    """Whether the name is an image's."""
    return key.lower().endswith(IMAGES)


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "parquet",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PK\x03\x04": "a zip archive (or a workbook of Excel)",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"ARROW1\0\0": "Arrow (Feather)",
    b"Obj\x01": "Avro",
    b"%PDF-": "PDF",
    b"SQLite format 3\x00": "SQLite",
    b"\x89HDF": "HDF5",
    b"\xd0\xcf\x11\xe0": "an old document of Office",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
_LETTERS = {b"BZh": "bzip2", b"ORC": "ORC", b"PARE": "encrypted parquet"}
"""These could begin a text as well (as the column ORCID): they tell where binary data follows."""
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<error")
LOOK_AT = 64
"""So many first bytes tell."""


def kind_of(start: bytes) -> str:
    """What an object that begins so is, in a few words; "" where nothing tells."""
    if start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5:
        return "zstd"  # a skippable frame, as pzstd writes it first
    magic = _MAGIC if min(start[:LOOK_AT], default=32) >= 9 else _MAGIC | _LETTERS
    found = next((kind for first, kind in magic.items() if start.startswith(first)), "")
    if not found and start.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower().startswith(_MARKUP):
        return "HTML or XML, as of an error page"
    if not found and b"\0" in start[:LOOK_AT]:
        return "text in UTF-16" if start[:LOOK_AT].count(0) * 3 >= len(start[:LOOK_AT]) else "binary data"
    return found
