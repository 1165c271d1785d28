"""Objects that are not what their names say, are cut off, or swallow rows: refused by file and line, over file:// and
S3.
"""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from finetune_api.exits import Reason
from support.jobs import job_config
from support.models import mails
from support.rows import HAM, SPAM, encode
from support.s3 import S3Server

ROWS = mails(2000)
PLAIN = encode(ROWS, "jsonl")
ZSTD = zstandard.compress(PLAIN)
FEW = f"{HAM}\n{SPAM}\n".encode()


def table(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def put(folder: Path, name: str, data: bytes, **spec: Any) -> Any:
    (folder / "data" / name).write_bytes(data)
    data_spec = {"train": {"uri": f"{folder.as_uri()}/data/*"}} | spec
    return job_config(folder, data=data_spec)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(PLAIN, mtime=0)[:-2000],
            r"a\.jsonl\.gz:\d{4}: the gzip stream is damaged here: it ends in the middle",
        ),
        ("a.jsonl.gz", gzip.compress(FEW, mtime=0) + b"more", r"a\.jsonl\.gz:3: the gzip stream is damaged"),
        ("a.jsonl.zst", ZSTD[:-100], r"a\.jsonl\.zst:\d+: the zstd stream is damaged here: it ends in the middle"),
        ("a.jsonl.zst", ZSTD + ZSTD[:-100], r"a\.jsonl\.zst:[23]\d{3}: the zstd stream is damaged"),
        ("a.jsonl.zst", PLAIN, "the name says zstd, and the object holds something else"),
        ("a.jsonl", ZSTD, "the name says plain jsonl, and the object holds zstd"),
        ("a.csv", gzip.compress(b"text,label\n", mtime=0), "the name says plain csv, and the object holds gzip"),
        ("a.jsonl", table(text=["a"], label=["b"]), "the name says plain jsonl, and the object holds parquet"),
        ("a.jsonl", FEW.decode().encode("utf-16"), "text in UTF-16"),
        ("a.parquet", b"", "not a readable parquet file"),
        (
            "a.csv",
            b'text,label\nok,ham\n"never closed,spam\nswallowed,ham\nalso,spam\n',
            r"a\.csv:3: a quote .* never closed: all up to line 5",
        ),
    ],
)
def test_a_damaged_object_is_refused_however_many_bad_rows_are_allowed(
    folder: Path, run: Any, name: str, data: bytes, says: str
) -> None:
    error = run.refused(put(folder, name, data, maxBadRows=1000))
    assert (error.reason, error.field) == (Reason.INVALID_DATA, "spec.data.train.uri")
    assert "maxBadRows" not in error.hint
    assert re.search(says, error.message), error.message


def test_what_only_looks_odd_is_read(folder: Path, run: Any) -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    put(folder, "a.jsonl.zst", skippable + zstandard.compress(FEW))
    put(folder, "b.jsonl", b"\xef\xbb\xbf" + FEW.replace(b"\n", b"\r\n"))
    put(folder, "c.csv", b'\xef\xbb\xbftext,label\r\n"two\r\nlines, a ""quote""",ham\r\nx,spam\r\n')
    put(folder, "d.parquet", table(text=["a", "b"], label=["ham", "spam"]))
    put(folder, "e.csv", b'"text";label\none, two;ham\n')
    profile = run(put(folder, "f.jsonl.gz", b""))
    assert profile.data.train_rows == 2 + 2 + 2 + 2 + 1
    assert profile.labels == ("ham", "spam")
    assert [(f.kind, f.count) for f in profile.data.findings if f.kind == "EmptyObject"] == [("EmptyObject", 1)]


def test_a_quoted_delimiter_in_the_header_does_not_decide(folder: Path, run: Any) -> None:
    config = put(
        folder, "a.csv", b'"text, long";label\na;ham\nb;spam\n', columns={"text": "text, long", "label": "label"}
    )
    assert run(config).data.train_rows == 2


def test_a_csv_without_a_header_is_told_what_its_first_line_is(folder: Path, run: Any) -> None:
    error = run.refused(put(folder, "a.csv", b"hello there,ham\nfree,spam\n"))
    assert error.field == "spec.data.columns.text"
    assert "'hello there'" in error.message
    assert "first line of a csv file must name its columns" in error.hint


def test_a_later_parquet_object_without_the_column_tells_those_it_has(folder: Path, run: Any) -> None:
    put(folder, "a.parquet", table(text=["a", "b"], label=["x", "y"]))
    error = run.refused(put(folder, "b.parquet", table(body=["a", "b"], label=["x", "y"])))
    assert "b.parquet:1: has no column 'text'; its columns are 'body', 'label'" in error.message


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"text": [1, 2], "label": ["x", "y"]}, "column 'text' holds int"),
        ({"text": [b"a", b"b"], "label": ["x", "y"]}, "column 'text' holds bytes"),
        ({"text": ["a", "b"], "label": [["x"], ["y"]]}, "column 'label' holds a list"),
        ({"text": ["a", "b"], "label": [0.5, 1.5]}, "column 'label' holds float"),
        ({"text": ["a", None], "label": ["x", "y"]}, "b.parquet:2: column 'text' is missing or null"),
    ],
)
def test_columns_of_the_wrong_type_are_named(folder: Path, run: Any, columns: dict[str, Any], says: str) -> None:
    assert says in run.refused(put(folder, "b.parquet", table(**columns))).message


def test_a_row_of_megabytes_is_a_bad_row(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.rows.survey.MOST_CHARACTERS", 1000)
    row = b'{"text": "' + b"word " * 201 + b'", "label": "ham"}\n'
    error = run.refused(put(folder, "a.jsonl", FEW + row))
    assert "a.jsonl:3: holds 1,005 characters of text, and 1,000 are allowed" in error.message
    assert run(put(folder, "a.jsonl", FEW + row, maxBadRows=1)).bad == {"train": {0: (2,)}}


def test_over_s3_damage_is_named_by_key_and_line(
    folder: Path, s3_server: S3Server, s3_credentials: None, run: Any
) -> None:
    bucket = s3_server.bucket()
    s3_server.client.put_object(Bucket=bucket, Key="in/a.jsonl.zst", Body=ZSTD[:-100])
    data = {"train": {"uri": f"s3://{bucket}/in/*"}}
    error = run.refused(job_config(folder, storage=s3_server.access, data=data))
    assert re.match(r"in/a\.jsonl\.zst:\d+: the zstd stream is damaged", error.message)
    s3_server.client.put_object(Bucket=bucket, Key="in/a.jsonl.zst", Body=zstandard.compress(FEW + b"\xff\xfe\n"))
    assert error.field == "spec.data.train.uri"
    error = run.refused(job_config(folder, storage=s3_server.access, data=data))
    assert "in/a.jsonl.zst:3: the line is not valid UTF-8" in error.message
