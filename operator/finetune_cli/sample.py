"""The first rows of a data file, to guess from: jsonl, csv and parquet, plain, gzip or zstd.

It reads as little as it can, and only for guessing: what the trainer accepts is judged by the prepare step.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from finetune_cli.manifest import why_unreadable
from finetune_cli.terminal import Stop

Format = Literal["jsonl", "csv", "parquet"]
ROWS = 1000
_MAGIC = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows as dicts of JSON values (csv: texts), and whether the file's name tells its format to `format: auto`."""

    format: Format
    named: bool
    rows: list[dict[str, Any]]
    whole: bool  # all rows of the file are here


def sample(path: Path) -> Sample:
    """Read the first rows. Raises Stop naming the file and the line."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            file.seek(0)
            return _sample(path, file, head)
    except OSError as error:
        what = why_unreadable(error).replace("the manifest file in it", "one data file in it")
        raise Stop(f"{path}: {what}") from None
    except UnicodeDecodeError:
        raise Stop(f"{path}: is not UTF-8 text", hint="Save it as UTF-8.") from None
    except (EOFError, zlib.error):
        raise Stop(f"{path}: its compressed data is cut off or damaged", hint="Write the file again.") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # known by name: the package may be absent
            raise
        raise Stop(f"{path}: its compressed data is cut off or damaged", hint="Write the file again.") from None


def _sample(path: Path, file: IO[bytes], head: bytes) -> Sample:
    if not head:
        raise Stop(f"{path}: is empty", hint="Name a file with rows in it.")
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    named = named_format(path)
    if kind == "parquet" or (named == "parquet" and kind is None):
        rows, whole = _parquet(path)
        return Sample("parquet", named == "parquet", rows, whole)
    text = io.TextIOWrapper(_decompressed(path, file, kind), encoding="utf-8-sig", newline="")
    start: list[str] = []
    for line in text:
        start.append(line)
        if line.strip():
            break
    first = start[-1].lstrip()[:1] if start else ""
    lines = itertools.chain(start, text)
    format: Format = named or ("jsonl" if first in ("{", "[") else "csv")
    if format == "jsonl" and first == "[":
        raise Stop(f"{path}: is one JSON list", hint="Write one object a line instead: jq -c '.[]' FILE > FILE.jsonl")
    reader = _jsonl(path, lines) if format == "jsonl" else _csv(path, lines)
    rows = list(itertools.islice(reader, ROWS + 1))
    if not rows:
        raise Stop(f"{path}: holds no row", hint="Name a file with rows in it.")
    return Sample(format, named == format, rows[:ROWS], len(rows) <= ROWS)


def named_format(path: Path) -> Format | None:
    """The format that a name tells: .jsonl, .csv, .parquet, with .gz or .zst for the first two."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    known: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
    return known.get(suffixes[-1]) if suffixes else None


def _decompressed(path: Path, file: IO[bytes], kind: str | None) -> IO[bytes]:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if kind == "zstd":
        try:
            import zstandard
        except ImportError:
            raise Stop(f"{path}: is compressed with zstd", hint="pip install zstandard reads it.") from None
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)  # type: ignore[return-value]
    return file


def _jsonl(path: Path, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise Stop(f"{path}:{number}: not JSON: {what}", hint="Each line must be one JSON object.") from None
        if not isinstance(row, dict):
            raise Stop(
                f"{path}:{number}: is not a JSON object",
                hint='Each line must be one object, as {"text": …, "label": …}.',
            )
        yield row


def _csv(path: Path, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 27)
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            if None in row:
                raise Stop(
                    f"{path}:{reader.line_num}: has more fields than the header",
                    hint="Put fields that hold commas into quotes.",
                )
            yield row
    except csv.Error as error:
        raise Stop(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _parquet(path: Path) -> tuple[list[dict[str, Any]], bool]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise Stop(f"{path}: is a parquet file", hint="pip install pyarrow reads it.") from None
    try:
        with parquet.ParquetFile(path) as table:
            rows = next(table.iter_batches(batch_size=ROWS)).to_pylist() if table.metadata.num_rows else []
            whole = table.metadata.num_rows <= ROWS
    except (arrow.ArrowException, OSError) as error:
        raise Stop(f"{path}: not a parquet file: {' '.join(str(error).split())[:200]}") from None
    if not rows:
        raise Stop(f"{path}: holds no row", hint="Name a file with rows in it.")
    return rows, whole
