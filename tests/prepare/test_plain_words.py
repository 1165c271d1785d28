"""Files as people have them: read where their meaning is plain, else told in plain words where and what to do (I8,
I9).
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import zstandard

from finetune_api.exits import Reason
from finetune_api.formats import kind_of
from finetune_api.records import MOST_BYTES, Unreadable, array_records, bounded_lines
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from support.jobs import job_config
from support.rows import HAM, SPAM

NFD = unicodedata.normalize("NFD", "café")
NFC = "café"


def put(folder: Path, name: str, data: bytes, **spec: Any) -> Any:
    (folder / "data" / name).write_bytes(data)
    data_spec = {"train": {"uri": f"{folder.as_uri()}/data/*"}} | spec
    return job_config(folder, data=data_spec)


@pytest.mark.parametrize(
    ("name", "data", "place", "says"),
    [
        ("a.csv", b"text,label\rfree,spam\rmeeting,ham\r", "a.csv:1", "carriage returns only"),
        ("a.jsonl", f"{HAM}\r{SPAM}\r".encode(), "a.jsonl:1", "carriage returns only"),
        ("a.csv", b"text,label\none,ham\nt\rwo,spam\n", "a.csv:3", "a carriage return stands outside quotes"),
        ("a.csv", b'text,"label\nfree prize,spam\nmeeting,ham\n', "a.csv:1", "the quote opened in line 1 never closes"),
        ("a.csv", b'\n\ntext,"label\nfree prize,spam\n', "a.csv:3", "the quote opened in line 3 never closes"),
        (
            "a.csv",
            b'text,"label' + b"\nfree prize,spam" * 30 + b'"\nx,ham\n',
            "a.csv:1",
            "a column of [0-9,]+ characters",
        ),
        ("a.csv", b"text,label\xff\nx,ham\n", "a.csv:1", "header is not valid UTF-8"),
        (
            "a.tsv",
            b'text\tlabel\n"Hello" he said\tham\nfree\tspam\n',
            "a.tsv:2",
            r"not valid tsv \(csv with tabs\): text follows a closing quote",
        ),
        ("a.csv", b'text,label\n"a \\"free\\" prize",spam\nx,ham\n', "a.csv:2", "a backslash escapes nothing"),
        ("a.csv", b'text,label\nx,ham\n"open', "a.csv:3", "never closed"),
        ("a.jsonl", b'{\n "text": "a",\n "label": "b"\n}\n' * 2, "a.jsonl:1", "one whole object a line, which jq -c"),
        ("a.jsonl", f"{HAM} {SPAM}\n".encode(), "a.jsonl:1", "more than one value; write one object a line"),
        (
            "a.jsonl",
            b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>\n",
            "a.jsonl:1",
            "HTML or XML, as of an error page",
        ),
        ("a.csv", b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>\n', "a.csv:1", "HTML or XML"),
        ("a.parquet", b"<html>404</html>", "a.parquet:1", "HTML or XML"),
        ("a.parquet", gzip.compress(b"x", mtime=0), "a.parquet:1", "says parquet, and the object holds gzip"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a.parquet:1",
            "a pointer of Git LFS",
        ),
        ("a.csv", b"PK\x03\x04rest", "a.csv:1", "a zip archive"),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(HAM.encode(), mtime=0), mtime=0),
            "a.jsonl.gz:1",
            "should hold jsonl, and holds gzip",
        ),
        ("a.csv.zst", zstandard.compress(b"PAR1...."), "a.csv.zst:1", "should hold csv, and holds parquet"),
        ("a.csv", "text,label\nx,ham\n".encode("utf-16-le"), "a.csv:1", "text in UTF-16"),
        ("a.json", f"[{HAM}, {SPAM}".encode(), "a.json:2", "the JSON array does not end"),
        ("a.json", f"[{HAM} {SPAM}]".encode(), "a.json:1", "row 1 of the JSON array is followed by '{'"),
        ("a.json", f"[{HAM}]\n{SPAM}\n".encode(), "a.json:1", "more follows behind the JSON array of 1 rows"),
        ("a.json", f"[{HAM}, nonsense]".encode(), "a.json:2", "row 2 of the JSON array is not valid JSON"),
        ("a.json", f"[{HAM}, 5, {SPAM}]".encode(), "a.json:2", "holds a JSON number, not an object"),
    ],
)
def test_what_cannot_be_read_is_told_by_place_and_kind(
    folder: Path, run: Any, name: str, data: bytes, place: str, says: str
) -> None:
    error = run.refused(put(folder, name, data))
    assert error.reason == Reason.INVALID_DATA
    assert f"/data/{place}: " in error.message
    assert re.search(says, error.message), error.message
    assert "free prize" not in error.message  # no message holds the data


def test_columns_whose_names_begin_as_other_formats_do_are_columns(folder: Path, run: Any) -> None:
    for n, name in enumerate(("ORCID", "PARENT", "BZhang")):
        put(folder, f"{n}.csv", f"{name},text,label\n1,free,spam\n2,lunch,ham\n".encode())
    assert run(put(folder, "a.jsonl", f"{HAM}\n{SPAM}\n".encode())).data.train_rows == 8
    assert kind_of(b"ORC\x0a\x03\x00") == "ORC"
    assert kind_of(b"BZh91AY&SY\x00\x01") == "bzip2"


def test_a_header_repeated_in_the_middle_is_a_bad_row(folder: Path, run: Any) -> None:
    data = b"text,label\nfree,spam\nmeeting,ham\ntext,label\nlunch,ham\n"
    error = run.refused(put(folder, "a.csv", data))
    assert "a.csv:4: repeats the header" in error.message
    profile = run(put(folder, "a.csv", data, maxBadRows=1))
    assert profile.labels == ("ham", "spam")
    assert [(f.kind, f.line, f.count) for f in profile.data.findings] == [("RepeatedHeader", 4, 1)]


def test_blank_lines_and_lines_of_white_space_are_no_rows_in_any_format(folder: Path, run: Any) -> None:
    put(folder, "a.csv", b"\n  \ntext,label\nfree,spam\n   \n\t\nmeeting,ham\n\n")
    put(folder, "b.tsv", b"\r\ntext\tlabel\r\nfree\tspam\r\n \t \r\n  \r\n")
    profile = run(put(folder, "c.jsonl", f"\n{HAM}\n   \n\t\n".encode(), maxBadRows=1))
    assert (profile.data.train_rows, profile.data.bad_rows) == (4, 0)


def test_rows_that_an_earlier_version_counted_stay_rows(folder: Path, run: Any) -> None:
    put(folder, "a.csv", b"text,label\nfree,spam\n   \nmeeting,ham\n")
    import dataclasses

    config = job_config(folder)
    run(config)
    manifest, profile = load_profile(location(config.output.uri, config.storage))
    item = manifest.sources["train"].objects[0]
    block = dataclasses.replace(item.blocks[0], rows=3)
    objects = (dataclasses.replace(item, blocks=(block,)),)
    source = dataclasses.replace(manifest.sources["train"], objects=objects)
    earlier = dataclasses.replace(manifest, sources={"train": source})
    with Stream(config, earlier, dataclasses.replace(profile, bad={"train": {0: (1,)}})) as stream:
        assert [row["text"] for row in stream.rows()] == ["free", "meeting"]


# ---------------------------------------------------------------------- Unicode forms


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_names_that_look_alike_are_one(folder: Path, run: Any, name: str) -> None:
    rows = [{NFD: f"text {n}", "label": (NFC, NFD, "thé")[n % 3]} for n in range(9)]
    from support.rows import encode

    (folder / "data" / "z.jsonl").write_text(json.dumps({NFC: "text", "label": NFC}) + "\n")
    config = put(folder, name, encode(rows, name.partition(".")[2]), columns={"text": NFC, "label": "label"})
    profile = run(config)
    assert profile.labels == (NFC, "thé")
    assert profile.columns == {"text": NFC, "label": "label"}
    found = {f.kind: f for f in profile.data.findings}
    assert found["UnicodeForm"].count == 9
    assert found["UnicodeForm"].line == (2 if name == "a.csv" else 1)
    with Stream(config, *load_profile(location(config.output.uri, config.storage))) as stream:
        assert [row[NFC] for row in stream.rows()] == [row[NFD] for row in rows] + ["text"]
    asked = put(
        folder, name, encode(rows, name.partition(".")[2]), columns={"text": NFD, "label": "label"}, labels=["thé", NFD]
    )
    assert run(asked).labels == ("thé", NFC)


def test_two_forms_of_one_name_are_refused_where_one_is_meant(folder: Path, run: Any) -> None:
    error = run.refused(put(folder, "a.csv", f"text,{NFC},{NFD}\nx,a,b\n".encode()))
    assert "names column" in error.message
    error = run.refused(put(folder, "a.csv", f"text,label\nx,{NFC}\ny,b\n".encode(), labels=[NFC, NFD]))
    assert (error.reason, error.field) == (Reason.INVALID_CONFIG, "spec.data.labels")


# ---------------------------------------------------------------------- JSON arrays, and records without end


@pytest.mark.parametrize("ending", ["json", "json.gz", "json.zst"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_element_by_element(folder: Path, run: Any, ending: str, indent: int | None) -> None:
    rows = [
        {"text": f'n° {n}, "quoted" \\ [brackets]', "label": "ab"[n % 2], "more": {"n": [n, {}]}} for n in range(3000)
    ]
    plain = ("\ufeff \n" + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n").encode()
    pack = {"json": bytes, "json.gz": gzip.compress, "json.zst": zstandard.compress}[ending]
    config = put(folder, f"a.{ending}", pack(plain), validation={"fraction": 0.1})
    profile = run(config)
    assert profile.data.train_rows + profile.data.validation_rows == 3000
    found: list[str] = []
    manifest, profile = load_profile(location(config.output.uri, config.storage))
    for split in ("train", "validation"):
        with Stream(config, manifest, profile, split) as stream:
            found += [row["text"] for row in stream.rows()]
    assert sorted(found) == sorted(row["text"] for row in rows)


def test_an_empty_array_has_no_rows(folder: Path, run: Any) -> None:
    put(folder, "b.json", b" [ \n ] ")
    assert run(put(folder, "a.jsonl", f"{HAM}\n{SPAM}\n".encode())).data.train_rows == 2


class Endless:
    """A source that counts what was taken of it."""

    def __init__(self, start: bytes, more: bytes) -> None:
        self.start, self.more, self.taken = start, more, 0

    def _give(self, size: int) -> bytes:
        head = self.start[self.taken :]
        offset = max(0, self.taken - len(self.start)) % len(self.more)
        self.taken += size
        return (head + (self.more * (size // len(self.more) + 2))[offset:])[:size]

    def readline(self, size: int) -> bytes:
        return self._give(size)

    def readable(self) -> bool:
        return True

    read = read1 = _give
    closed = False
    writable = seekable = lambda self: False
    flush = close = lambda self: None


def test_no_record_is_held_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_api.records.MOST_BYTES", 1 << 18)
    line = Endless(b'{"text": "', b"word ")
    with pytest.raises(Unreadable, match="the line holds more than"):
        list(bounded_lines(line))  # type: ignore[arg-type]
    assert line.taken <= (1 << 18) + 1
    element = Endless(b'[{"text": "', b"word ")
    with pytest.raises(Unreadable, match="row 1 of the JSON array holds more"):
        list(array_records(element))  # type: ignore[arg-type]
    assert element.taken <= 4 << 18
    rows = Endless(b"[", b'{"text": "' + b"w" * 1000 + b'", "label": "a"},')
    held = 0
    for count, record in enumerate(array_records(rows)):  # type: ignore[arg-type]
        held = max(held, len(record.raw))
        if count > 5000:
            break
    assert held < 2000  # of more than 5 MiB in one line
    assert MOST_BYTES >= 1 << 20


def test_an_unclosed_quote_is_given_up_before_the_object_is_held(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_api.records.MOST_BYTES", 1000)
    error = run.refused(
        put(folder, "a.csv", b'text,label\nok,ham\n"never closed' + b",spam\nmore" * 500, maxBadRows=10)
    )
    assert "a.csv:3: a quote that opens in this record is not closed within" in error.message


# ---------------------------------------------------------------------- every split is looked at


def test_held_out_objects_are_measured_as_training_rows_are(folder: Path, llama: Path, run: Any) -> None:
    import shutil

    from support.models import chats, write_jsonl

    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    write_jsonl(folder / "train.jsonl", chats(30))
    long = [{"messages": [{"role": "user", "content": "long question " * 40}, {"role": "assistant", "content": "no"}]}]
    write_jsonl(folder / "validation.jsonl", long * 5)
    data = {name: {"uri": f"{folder.as_uri()}/{name}.jsonl"} for name in ("train", "validation")}
    config = job_config(folder, task="causal-lm", data=data, training={"maxLength": 64})
    error = run.refused(config)
    assert error.reason == Reason.NOTHING_TO_LEARN
    assert "validation.jsonl:1" in error.message
    write_jsonl(folder / "validation.jsonl", [*long, *chats(3)])
    found = {f.kind: f for f in run(config).data.findings}
    assert found["NothingToLearn"].file is not None
    assert found["NothingToLearn"].file.endswith("validation.jsonl")
