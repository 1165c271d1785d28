"""Which objects a data URI names: patterns, folders and single files; what is no data; and formats by the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.formats import Format, format_of
from finetune_trainer.storage.file import FileStore
from finetune_trainer.stream.sources.globs import matcher
from finetune_trainer.stream.sources.source import list_source
from support.jobs import job_config
from support.rows import encode, rows_of, write


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("d/*.jsonl", ["d/a.jsonl"], ["d/x/a.jsonl", "d/a.jsonl.gz", "e/a.jsonl"]),
        ("d/**/*.jsonl", ["d/a.jsonl", "d/x/y/a.jsonl"], ["d/a.csv"]),
        ("d/**", ["d/a", "d/x/y"], ["e"]),
        ("d/?.csv", ["d/a.csv"], ["d/ab.csv", "d//.csv"]),
        ("d/a+(b).csv", ["d/a+(b).csv"], ["d/aab.csv"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [key for key in yes + no if matcher(pattern).match(key)] == yes


def test_formats_go_by_the_name_unless_told() -> None:
    assert format_of("x/a.jsonl.zst") == Format("jsonl", "zst")
    assert format_of("a.CSV.GZ") == Format("csv", "gz")
    assert format_of("a.parquet") == Format("parquet")
    assert format_of("a.parquet.gz") is None
    assert format_of("a.txt.zst") == Format("text", "zst")
    assert format_of("a.md") is None
    assert format_of("a.txt.gz", "jsonl") == Format("jsonl", "gz")
    assert format_of("part-0000", "csv") == Format("csv")


def test_globs_folders_and_single_objects_find_the_same(put: Any) -> None:
    for name in ("data/a.jsonl", "data/sub/b.jsonl", "data/_SUCCESS", "data/.hidden.jsonl", "out/events.jsonl"):
        put(name, encode(rows_of(3), "jsonl"))

    def keys(pattern: str) -> list[str]:
        return [info.key.rpartition("/data/")[2] for info, _ in list_source(put.config(pattern), "train").objects]

    assert keys("data/*.jsonl") == ["a.jsonl"]
    assert keys("data/**/*.jsonl") == ["a.jsonl", "sub/b.jsonl"]
    assert keys("data/") == keys("data") == keys("data/**") == ["a.jsonl", "sub/b.jsonl"]
    assert keys("data/a.jsonl") == ["a.jsonl"]


def test_hidden_and_temporary_files_and_folders_are_no_data_at_any_depth(put: Any) -> None:
    data = encode(rows_of(3), "jsonl")
    for name in (
        "a.jsonl",
        "sub/b.jsonl",
        "_temporary/0/c.jsonl",
        ".ipynb_checkpoints/a-checkpoint.jsonl",
        "sub/_tmp/d.jsonl",
        "sub/.git/x.jsonl",
        "_SUCCESS",
        "_own/e.jsonl",
    ):
        put(f"data/{name}", data)

    def keys(pattern: str) -> list[str]:
        return [info.key.rpartition("/data/")[2] for info, _ in list_source(put.config(pattern), "train").objects]

    assert keys("data") == keys("data/") == keys("data/**") == keys("data/**/*.jsonl") == ["a.jsonl", "sub/b.jsonl"]
    assert keys("data/*/*.jsonl") == ["sub/b.jsonl"]
    assert (
        keys("data/_own") == keys("data/_own/*") == keys("data/_own/e.jsonl") == keys("data/_o*/*") == ["_own/e.jsonl"]
    )
    with pytest.raises(JobError, match=r"all 1 objects .* are hidden or temporary") as caught:
        list_source(put.config("data/sub/*/d.jsonl"), "train")
    assert caught.value.reason == Reason.DATA_NOT_FOUND


@pytest.mark.parametrize(
    ("kind", "log", "rows"),
    [
        ("Delta", "_delta_log/00000000000000000000.json", "part-0.parquet"),
        ("Iceberg", "metadata/v1.metadata.json", "data/part-0.parquet"),
        ("Hudi", ".hoodie/hoodie.properties", "2026/part-0.parquet"),
    ],
)
def test_a_table_is_named_as_such(put: Any, kind: str, log: str, rows: str) -> None:
    put(f"data/mails/{log}", b'{"commitInfo":{}}')
    put(f"data/mails/{rows}", encode(rows_of(3), "parquet"))
    for pattern in ("data", "data/mails", "data/mails/**", "data/**"):
        with pytest.raises(JobError) as caught:
            list_source(put.config(pattern), "train")
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_DATA, "spec.data.train.uri")
        assert f"data/mails is a {kind} table" in caught.value.message.replace("mails/", "mails")
    folder = f"data/mails/{rows}".rpartition("/")[0]
    listing = list_source(put.config(f"{folder}/*.parquet"), "train")
    assert len(listing.objects) == 1
    assert [finding.kind for finding in listing.findings] == ["TableFiles"]
    assert f"is a {kind} table" in listing.findings[0].message


def test_credentials_need_reach_no_further_than_the_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data", "a.jsonl", rows_of(3))
    listed = FileStore.list

    def narrow(self: FileStore, prefix: str) -> Any:
        if not prefix.endswith("/data/"):
            raise JobError(Reason.ACCESS_DENIED, f"cannot list {prefix}")
        return listed(self, prefix)

    monkeypatch.setattr(FileStore, "list", narrow)
    assert len(list_source(job_config(tmp_path), "train").objects) == 1


def test_a_folder_of_ones_own_that_is_called_metadata_is_no_table(put: Any) -> None:
    put("data/metadata/a.jsonl", encode(rows_of(3), "jsonl"))
    assert len(list_source(put.config("data/**"), "train").objects) == 1
    assert list_source(put.config("data/metadata/*"), "train").findings == ()


def test_nothing_found_names_what_is_near(put: Any) -> None:
    put("data/mails-00.jsonl", b"{}")
    put("data/other.csv", b"a\n1\n")
    for pattern in ("data/mail-*.jsonl", "dat/mails-*.jsonl"):
        with pytest.raises(JobError) as caught:
            list_source(put.config(pattern), "train")
        assert caught.value.reason == Reason.DATA_NOT_FOUND
        assert caught.value.field == "spec.data.train.uri"
        assert "mails-00.jsonl" in caught.value.message


def test_an_unknown_ending_is_refused_with_the_way_out(put: Any) -> None:
    put("data/a.jsonl", b"{}")
    put("data/README.md", b"hello")
    with pytest.raises(JobError) as caught:
        list_source(put.config("data/*"), "train")
    assert caught.value.reason == Reason.INVALID_CONFIG
    assert caught.value.field == "spec.data.format"
    assert "README.md" in caught.value.message


def test_a_note_beside_the_rows_is_not_taken_for_rows(put: Any) -> None:
    put("data/a.jsonl", b"{}")
    put("data/notes.txt", b"bought in May")
    with pytest.raises(JobError, match=r"data/notes\.txt is plain text among objects") as caught:
        list_source(put.config("data/*"), "train")
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.data.format")
    assert "…/*.jsonl" in caught.value.hint
    (alone,) = list_source(put.config("data/*.txt"), "train").objects
    assert alone[1] == Format("text")
