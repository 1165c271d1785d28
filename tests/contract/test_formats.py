"""Which format an object has by its name, and what its first bytes say that it is."""

from __future__ import annotations

import pytest

from finetune_api.formats import Format, format_of, holds_rows, is_image, kind_of


@pytest.mark.parametrize(
    ("key", "wanted", "expected"),
    [
        ("a/b.jsonl", "auto", Format("jsonl")),
        ("a/B.NDJSON.GZ", "auto", Format("jsonl", "gz")),
        ("a.json.zst", "auto", Format("jsonl", "zst")),
        ("a.csv.zstd", "auto", Format("csv", "zst")),
        ("a.tsv", "auto", Format("csv")),
        ("a.parquet", "auto", Format("parquet")),
        ("a.parquet.gz", "auto", None),
        ("a.txt", "auto", Format("text")),
        ("a.TXT.gz", "auto", Format("text", "gz")),
        ("a.md", "auto", None),
        ("a.txt.gz", "csv", Format("csv", "gz")),
        ("a.jsonl/part-1", "auto", None),
    ],
)
def test_the_name_says_the_format(key: str, wanted: str, expected: Format | None) -> None:
    assert format_of(key, wanted) == expected


def test_a_text_may_be_a_note_beside_the_rows() -> None:
    assert [key for key in ("a.csv", "a.parquet", "a.txt", "a.txt.gz", "a.jpg") if holds_rows(key)] == [
        "a.csv",
        "a.parquet",
    ]


def test_what_can_be_read_in_parts() -> None:
    assert Format("jsonl").splittable
    assert Format("csv").splittable
    assert Format("text").splittable
    assert not Format("csv", "gz").splittable
    assert not Format("parquet").splittable


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"", ""),
        (b'{"a": 1}', ""),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x50\x2a\x4d\x18", "zstd"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PAR1", "parquet"),
        (b"PARE\x00\x00", "encrypted parquet"),
        (b"PARENT,CHILD", ""),
        (b"BZh91AY&SY\x01\x02", "bzip2"),
        (b"ORCID,name", ""),
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", "HTML or XML, as of an error page"),
        (b"\xff\xfea\x00", "text in UTF-16"),
        (b"{\x00a\x00}\x00", "text in UTF-16"),
        (b"abcdefgh\x00", "binary data"),
    ],
)
def test_the_first_bytes_say_what_it_is(start: bytes, expected: str) -> None:
    assert kind_of(start) == expected


def test_an_image_is_known_by_its_name() -> None:
    assert [name for name in ("a/B.JPEG", "c.png", "d.webp", "e.jpg.txt", "png") if is_image(name)] == [
        "a/B.JPEG",
        "c.png",
        "d.webp",
    ]
