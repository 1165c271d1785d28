"""The first rows of a data file, to guess from: jsonl, csv, text and parquet, plain, gzip or zstd.

It reads as little as it can, by the rules that the prepare step reads by (names, dialects, what a row is): what is
guessed here must hold there.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from finetune_api.formats import LOOK_AT, format_of, is_image, kind_of
from finetune_api.forms import one_form
from finetune_api.records import (
    CARRIAGE_RETURNS,
    Fault,
    Record,
    Unreadable,
    array_records,
    bounded_lines,
    csv_header,
    csv_records,
    is_array,
    is_repeated_header,
    json_records,
    parse_json,
    text_records,
)
from finetune_cli.manifest import why_unreadable
from finetune_cli.terminal import Stop

Format = Literal["jsonl", "csv", "parquet", "text"]
ROWS, FILES = 1000, 20_000
_PACKED = {"": "", "gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows as dicts of JSON values (csv: texts), and whether the file's name tells its format to `format: auto`."""

    format: Format
    named: bool
    rows: list[dict[str, Any]]
    whole: bool  # all rows of the file are here


def sample(path: Path) -> Sample:
    """Read the first rows; those of a folder of images for each class are its files. Raises Stop naming the file and
    the line.
    """
    if path.is_dir() and (rows := _folder(path)):
        return Sample("jsonl", True, rows, len(rows) < FILES)
    try:
        with path.open("rb") as file:
            return _sample(path, file)
    except Unreadable as error:
        raise Stop(f"{path}:{error.line}: {error.message}", hint=error.hint) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Stop(f"{path}: its compressed data is cut off or damaged", hint="Write the file again.") from None
    except OSError as error:
        what = why_unreadable(error).replace("the manifest file in it", "one data file in it")
        raise Stop(f"{path}: {what}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # known by name: the package may be absent
            raise
        raise Stop(f"{path}: its compressed data is cut off or damaged", hint="Write the file again.") from None


def _folder(path: Path) -> list[dict[str, Any]]:
    """Its images with the folders that they lie in; none where it holds other data."""
    found = (file for file in path.rglob("*") if is_image(file.name) and file.parent != path)
    seen = sorted(itertools.islice(found, FILES))
    return [{"image": file.relative_to(path).as_posix(), "label": file.parent.name} for file in seen]


def _sample(path: Path, file: io.BufferedReader) -> Sample:
    start = file.peek(LOOK_AT)
    if not start:
        raise Stop(f"{path}: is empty", hint="Name a file with rows in it.")
    named, is_ = format_of(path.name), kind_of(start)
    if (named and named.name == "parquet") or (named is None and is_ == "parquet"):
        _check(path, "parquet", is_ or "parquet")
        rows, whole = _parquet(path)
        return Sample("parquet", named is not None, rows, whole)
    as_text = named or format_of(path.name, "jsonl")
    assert as_text is not None
    _check(path, _PACKED[as_text.compression], is_)
    plain = _decompressed(path, file, as_text.compression)
    first = plain.peek(LOOK_AT)
    _check(path, "", kind_of(first))
    if b"\r" in first[:-1] and b"\n" not in first:
        raise Unreadable(1, CARRIAGE_RETURNS)
    array = is_array(first)
    looks: Format = "jsonl" if array or first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" else "csv"
    format: Format = looks if named is None else named.name if named.name in ("csv", "text") else "jsonl"
    reader = _rows(path, plain, format, array and format == "jsonl")
    rows = list(itertools.islice(reader, ROWS + 1))
    if not rows:
        raise Stop(f"{path}: holds no row", hint="Name a file with rows in it.")
    return Sample(format, named is not None, rows[:ROWS], len(rows) <= ROWS)


def _check(path: Path, said: str, is_: str) -> None:
    """The first bytes must be of the kind that the name says; else the prepare step would refuse them."""
    if said != is_:
        raise Stop(
            f"{path}: the name says {said or 'plain text'}, and the file holds {is_ or 'something else'}",
            hint="Give it the ending of what it is: .jsonl, .csv or .txt, also with .gz or .zst, or .parquet.",
        )


def _decompressed(path: Path, file: io.BufferedReader, compression: str) -> io.BufferedReader:
    if compression == "gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))  # type: ignore[arg-type]
    if compression == "zst":
        try:
            import zstandard
        except ImportError:
            raise Stop(f"{path}: is compressed with zstd", hint="pip install zstandard reads it.") from None
        return io.BufferedReader(
            zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(file, read_across_frames=True)
        )  # type: ignore[type-var]
    return file


def _rows(path: Path, plain: BinaryIO, format: Format, array: bool) -> Iterator[dict[str, Any]]:
    header: tuple[str, ...] = ()
    if format == "jsonl":
        records: Iterator[Record] = array_records(plain) if array else json_records(bounded_lines(plain))
    elif format == "text":
        records = text_records(bounded_lines(plain))
    else:
        lines = bounded_lines(plain)
        header, delimiter, taken = csv_header(lines)
        records = csv_records(lines, header, delimiter, 1 + len(taken))
    for record in records:
        if record.blank:
            continue
        values = parse_json(record.raw) if record.values is None else record.values
        if isinstance(values, dict) and header and is_repeated_header(values, header):
            values = Fault("RepeatedHeader", "repeats the header: files were joined with their headers")
        if isinstance(values, Fault):
            hint = "Each line must be one JSON object." if format == "jsonl" else "Mend the row."
            raise Stop(f"{path}:{record.line}: {values.message}", hint=hint)
        yield {one_form(name): value for name, value in values.items()}


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
    except (arrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        raise Stop(f"{path}: not a parquet file: {' '.join(str(error).split())[:200]}") from None
    if not rows:
        raise Stop(f"{path}: holds no row", hint="Name a file with rows in it.")
    return [{one_form(name): value for name, value in row.items()} for row in rows], whole
