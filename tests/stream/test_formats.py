"""Every format and compression gives the same rows with the right lines, and what changes or breaks under way is
noticed.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from finetune_api.exits import JobError, Reason
from finetune_api.formats import Format, format_of
from finetune_api.records import Fault
from finetune_api.run import RunConfig
from finetune_trainer.prepare.layout.reblock import reblock
from finetune_trainer.prepare.rows.scan import ObjectScan, peek_columns
from finetune_trainer.storage import location
from finetune_trainer.stream import Cursor, Stream, sweep_cache
from finetune_trainer.stream.formats.decompress import DamagedStream, plain_reader
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile
from finetune_trainer.stream.sources.source import list_source
from support.jobs import job_config
from support.rows import ENDINGS, encode, profiled, rows_of, write

PLAIN: dict[str, Any] = {"task": "masked-lm"}


def stream_texts(config: RunConfig, manifest: DataManifest, profile: Profile) -> list[str]:
    with Stream(config, manifest, profile) as stream:
        return [row["text"] for row in stream.rows()]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_formats_and_compressions_give_the_same_rows(put: Any, ending: str) -> None:
    rows = rows_of(200)
    put(f"data/a.{ending}", encode(rows[:130], ending))
    put(f"data/b.{ending}", encode(rows[130:], ending))
    config = put.config(training={"globalBatchSize": 32})
    manifest, profile = profiled(config)
    assert stream_texts(config, manifest, profile) == [row["text"] for row in rows]
    with Stream(config, manifest, profile) as stream:
        batch, _ = next(stream.batches(Cursor()))
        assert batch.rows == [{"text": rows[n]["text"], "label": rows[n]["label"]} for n in batch.indices]
    if ending == "parquet":
        assert [block.rows for block in manifest.sources["train"].objects[0].blocks] == [64, 64, 2]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_object_that_changes_after_the_scan_is_noticed(put: Any, ending: str) -> None:
    put(f"data/a.{ending}", encode(rows_of(50), ending))
    config = put.config()
    manifest, profile = profiled(config)
    put(f"data/a.{ending}", encode(rows_of(50, 1), ending))
    with pytest.raises(JobError) as caught:
        stream_texts(config, manifest, profile)
    assert caught.value.reason == Reason.DATA_CHANGED
    assert f"data/a.{ending}" in caught.value.message
    put.out("").delete([f"data/a.{ending}"])
    with pytest.raises(JobError, match="was deleted") as caught:
        stream_texts(config, manifest, profile)
    assert caught.value.reason == Reason.DATA_CHANGED


def test_a_checksum_finds_what_the_tag_does_not(put: Any) -> None:
    put("data/a.jsonl", encode(rows_of(50), "jsonl"))
    config = put.config()
    manifest, profile = profiled(config)
    put("data/a.jsonl", encode(rows_of(50), "jsonl").replace(b"plain 0", b"plain O"))
    plain = manifest.to_json()
    info = put.out("").head("data/a.jsonl")
    plain["sources"]["train"]["objects"][0]["etag"] = info.etag
    with pytest.raises(JobError, match="checksum") as caught:
        stream_texts(config, DataManifest.from_json(plain), profile)
    assert caught.value.reason == Reason.DATA_CHANGED


# ---------------------------------------------------------------------- lines


def scan(
    folder: Path, name: str, data: bytes, columns: tuple[str, ...] = ("text", "label")
) -> list[tuple[int, int, Any]]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    place = location(folder.as_uri(), job_config(folder).storage)
    info = place.store.head(f"{place.prefix}{name}")
    kind = format_of(name)
    assert info is not None
    assert kind is not None
    return list(ObjectScan(place.store, info, kind, columns))


def test_lines_are_exact_with_blanks_and_faults_between(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"text": "1"}\n\n  \n{"text": 4}\r\nnot json\n[1]\n\xff\n{"text": "8"}'
    found = scan(tmp_path, "a.jsonl", data)
    assert [(row, line) for row, line, _ in found] == [(0, 1), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8)]
    assert found[0][2] == {"text": "1"}
    assert found[5][2] == {"text": "8"}
    assert [found[n][2].kind for n in (2, 3, 4)] == ["InvalidJson", "InvalidJson", "InvalidEncoding"]


def test_each_line_of_a_text_that_holds_something_is_a_row(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbftext\n\n \t\r\n  two, "three" \r\ntext\n\xff\n\x0cfour\xe2\x80\xa8five'
    found = scan(tmp_path, "a.txt", data, ("text",))
    texts = [(line, values["text"]) for _, line, values in found if not isinstance(values, Fault)]
    assert texts == [(1, "text"), (4, '  two, "three" '), (5, "text"), (7, "\x0cfour\u2028five")]
    assert [(line, values.kind) for _, line, values in found if isinstance(values, Fault)] == [(6, "InvalidEncoding")]


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "txt.zst"])
def test_texts_are_streamed_in_every_compression(put: Any, ending: str) -> None:
    rows = [row for row in rows_of(60) if "\n" not in row["text"]]
    put(f"data/a.{ending}", encode(rows, ending))
    config = put.config(**PLAIN)
    manifest, profile = profiled(config, {"text": "text"})
    assert stream_texts(config, manifest, profile) == [row["text"] for row in rows]


def test_csv_records_may_span_lines_and_name_their_first(tmp_path: Path) -> None:
    data = b'text,label\n"two\nlines",a\n\nplain,b\n"three\n\nlines",c\nshort\n"q""uote",d\n"open'
    found = scan(tmp_path, "a.csv", data)
    assert [
        (line, values if isinstance(values, Fault) else values["text"])
        for _, line, values in found
        if not isinstance(values, Fault)
    ] == [(2, "two\nlines"), (5, "plain"), (6, "three\n\nlines"), (10, 'q"uote')]
    assert [(line, values.kind) for _, line, values in found if isinstance(values, Fault)] == [
        (9, "InvalidCsv"),
        (11, "InvalidCsv"),
    ]


@pytest.mark.parametrize(
    ("name", "header"), [("a.csv", "text;label"), ("a.tsv", "text\tlabel"), ("a.csv", "text\tlabel")]
)
def test_other_delimiters_are_seen_in_the_header(tmp_path: Path, name: str, header: str) -> None:
    delimiter = header[4]
    found = scan(tmp_path, name, f"{header}\nx, y{delimiter}a\n".encode())
    assert found == [(0, 2, {"text": "x, y", "label": "a"})]


def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ending in ("jsonl", "csv", "txt"):
        rows = rows_of(300) if ending != "txt" else [row for row in rows_of(360) if "\n" not in row["text"]]
        for size in (1, 100, 1000, 1 << 20):
            monkeypatch.setattr("finetune_trainer.prepare.rows.scan.BLOCK_BYTES", size)
            folder = tmp_path / f"{ending}-{size}"
            write(folder / "data", f"a.{ending}", rows)
            config = job_config(folder, **(PLAIN if ending == "txt" else {}))
            manifest, profile = profiled(config, {"text": "text"} if ending == "txt" else None)
            blocks = manifest.sources["train"].objects[0].blocks
            assert len(blocks) == 300 if size == 1 else len(blocks) >= 1
            assert stream_texts(config, manifest, profile) == [row["text"] for row in rows]


def test_bad_rows_are_left_out_of_every_split(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in rows_of(100)]
    for n in (0, 17, 99):
        lines[n] = "broken"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(lines))
    config = job_config(
        tmp_path,
        data={"train": {"uri": f"{tmp_path.as_uri()}/data/*"}, "maxBadRows": 3, "validation": {"fraction": 0.3}},
    )
    manifest, profile = profiled(config)
    assert profile.bad == {"train": {0: (0, 17, 99)}}
    texts = stream_texts(config, manifest, profile)
    with Stream(config, manifest, profile, "validation") as stream:
        texts += [row["text"] for row in stream.rows()]
    assert sorted(texts) == sorted(row["text"] for n, row in enumerate(rows_of(100)) if n not in (0, 17, 99))


# ---------------------------------------------------------------------- compressed streams


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_members_in_a_row_are_one_stream_and_a_missing_end_is_an_error(kind: str) -> None:
    import io

    text = random.Random(1).randbytes(300_000).hex().encode()
    pack = gzip.compress if kind == "gz" else zstandard.compress
    packed = pack(text[:1000]) + pack(b"") + pack(text[1000:])
    plain, counted = plain_reader(io.BytesIO(packed), kind)  # type: ignore[arg-type]
    assert plain.read() == text
    assert counted.count == len(packed)
    for cut in (len(packed) - 1, len(packed) // 2, 5):
        plain, _ = plain_reader(io.BytesIO(packed[:cut]), kind)  # type: ignore[arg-type]
        with pytest.raises(DamagedStream):
            plain.read()
    plain, _ = plain_reader(io.BytesIO(b"not compressed at all"), kind)  # type: ignore[arg-type]
    with pytest.raises(DamagedStream):
        plain.read()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_damaged_object_is_named_with_the_line_it_breaks_at(tmp_path: Path, name: str) -> None:
    whole = encode([{"text": random.Random(n).randbytes(99).hex()} for n in range(500)], name.partition(".")[2])
    with pytest.raises(JobError, match=rf"{name}:\d+: the (gzip|zstd) stream is damaged") as caught:
        scan(tmp_path, name, whole[: len(whole) // 2])
    assert caught.value.reason == Reason.INVALID_DATA


@pytest.mark.parametrize("data", [b"", b"PAR1 but no more", b"{}\n" * 100])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(JobError, match=r"a.parquet:1: not a readable parquet file"):
        scan(tmp_path, "a.parquet", data)
    place = location(tmp_path.as_uri(), job_config(tmp_path).storage)
    info = place.store.head(f"{place.prefix}a.parquet")
    assert info is not None
    with pytest.raises(JobError, match=r"a.parquet:1: not a readable parquet file"):
        peek_columns(place.store, info, Format("parquet"))


# ---------------------------------------------------------------------- large compressed objects


@pytest.mark.parametrize("ending", ["jsonl.zst", "csv.gz"])
def test_large_compressed_objects_are_copied_in_small_blocks_and_swept(
    put: Any, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.rows.copies.BLOCK_BYTES", 2000)
    rows = rows_of(400)
    put(f"data/a.{ending}", encode(rows, ending))
    config = put.config(data={"validation": {"fraction": 0.2}})
    manifest, profile = profiled(config)
    before = stream_texts(config, manifest, profile)
    listing = list_source(config, "train")
    out = put.out()
    source, noted = reblock(
        manifest.sources["train"], "train", listing.store, out, ("text", "label"), full=0, largest=0
    )
    copied = DataManifest({"train": source})
    assert len(source.objects[0].blocks) > 8
    assert noted[0].kind == "Copied"
    put.out("").delete([f"data/a.{ending}"])  # only the copies are read from now on
    assert stream_texts(config, copied, profile) == before
    victim = f"prepare/blocks/{source.objects[0].blocks[0].cache}"
    out.put(victim, zstandard.compress(b"{}\n"))
    with pytest.raises(JobError, match="is not what the job wrote"):
        stream_texts(config, copied, profile)
    sweep_cache(out)
    assert [info.key for info in out.list()] == ["prepare/parts.zst"]  # which holds nothing of the rows
    with pytest.raises(JobError, match="was deleted"):
        stream_texts(config, copied, profile)


def test_too_much_to_copy_is_refused_with_the_way_out(put: Any) -> None:
    put("data/a.jsonl.gz", encode(rows_of(400), "jsonl.gz"))
    config = put.config()
    manifest, _ = profiled(config)
    store = list_source(config, "train").store
    with pytest.raises(JobError) as caught:
        reblock(manifest.sources["train"], "train", store, put.out(), ("text",), full=0, largest=0, most=1000)
    assert caught.value.reason == Reason.INVALID_DATA
    assert "parquet" in caught.value.hint
    source, noted = reblock(manifest.sources["train"], "train", store, put.out(), ("text",))
    assert source is manifest.sources["train"]
    assert noted == []
