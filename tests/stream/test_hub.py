"""hf:// data sets over real HTTP: the split's files at a pinned commit, read in ranges, with errors a user can act
on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import HubAccess, RunConfig
from finetune_api.sources import HeldOutSource
from finetune_trainer.stream import Cursor, Stream
from finetune_trainer.stream.sources.source import list_source
from support.hub import Hub
from support.jobs import job_config
from support.rows import ENDINGS, encode, profiled, rows_of


def config_for(hub: Hub, folder: Path, **train: Any) -> RunConfig:
    data = {"train": {"uri": "hf://lab/mails"} | train}
    return job_config(folder, hub=HubAccess(endpoint=hub.endpoint), data=data)


def keys(config: RunConfig, role: str = "train") -> list[str]:
    return [info.key for info, _ in list_source(config, role).objects]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_data_set_streams_like_any_other(
    hub: Hub, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.stream.sources.hub_store._RANGE", 1000)  # several ranges each
    rows = rows_of(120)
    hub.add(
        "datasets",
        "lab/mails",
        {
            f"train-0.{ending}": encode(rows[:70], ending),
            f"train-1.{ending}": encode(rows[70:], ending),
            "README.md": b"#",
        },
    )
    config = config_for(hub, tmp_path)
    manifest, profile = profiled(config)
    with Stream(config, manifest, profile) as stream:
        assert [row["text"] for row in stream.rows()] == [row["text"] for row in rows]
        batch, _ = next(stream.batches(Cursor()))
        assert [row["text"] for row in batch.rows] == [rows[n]["text"] for n in batch.indices]


def test_held_out_rows_of_a_data_set_are_copied_at_the_pinned_commit(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "lab/mails", {"train.parquet": encode(rows_of(120), "parquet")})
    plain = config_for(hub, tmp_path)
    config = plain.model_copy(update={"data": plain.data.model_copy(update={"test": HeldOutSource(fraction=0.1)})})
    manifest, profile = profiled(config)
    hub.add("datasets", "lab/mails", {"train.parquet": encode(rows_of(90, 500), "parquet")})
    found = {}
    for split in ("train", "test"):
        with Stream(config, manifest, profile, split) as stream:
            found[split] = [row["text"] for row in stream.rows()]
    assert len(found["test"]) == 12
    assert sorted(found["train"] + found["test"]) == sorted(row["text"] for row in rows_of(120))


def test_the_commit_is_pinned_although_the_branch_moves_on(hub: Hub, tmp_path: Path) -> None:
    first = hub.add("datasets", "lab/mails", {"train.jsonl": encode(rows_of(30), "jsonl")})
    config = config_for(hub, tmp_path)
    manifest, profile = profiled(config)
    assert manifest.sources["train"].revision == first
    second = hub.add("datasets", "lab/mails", {"train.jsonl": encode(rows_of(30, 500), "jsonl")})
    assert second != first
    with Stream(config, manifest, profile) as stream:
        assert [row["text"] for row in stream.rows()] == [row["text"] for row in rows_of(30)]
    assert list_source(config, "train").revision == second
    assert list_source(config_for(hub, tmp_path, revision=first), "train").revision == first


SHARDED = ("data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (SHARDED, "train", SHARDED[1:]),
        (SHARDED, "test", SHARDED[:1]),
        (("test/a.csv", "train/a.csv", "train/b.csv"), "train", ("train/a.csv", "train/b.csv")),
        (("dev.jsonl", "training_set.jsonl"), "validation", ("dev.jsonl",)),
        (("dev.jsonl", "training_set.jsonl"), "train", ("training_set.jsonl",)),
        (("a.jsonl", "b.jsonl"), "train", ("a.jsonl", "b.jsonl")),
    ],
)
def test_splits_go_by_the_names_of_files(
    hub: Hub, tmp_path: Path, names: tuple[str, ...], split: str, found: tuple[str, ...]
) -> None:
    hub.add("datasets", "lab/mails", dict.fromkeys(names, b"x") | {"dataset_infos.json": b"{}", "README.md": b""})
    assert keys(config_for(hub, tmp_path, split=split)) == list(found)


def test_the_card_says_which_files_a_split_has(hub: Hub, tmp_path: Path) -> None:
    names = ["en/one.jsonl", "en/two.jsonl", "de/one.jsonl"]
    card = {
        "configs": [
            {
                "config_name": "en",
                "default": True,
                "data_files": [{"split": "train", "path": "en/o*.jsonl"}, {"split": "test", "path": ["en/two.jsonl"]}],
            },
            {"config_name": "de", "data_files": "de/*.jsonl"},
        ]
    }
    hub.add("datasets", "lab/mails", dict.fromkeys(names, b"x"), card=card)
    assert keys(config_for(hub, tmp_path)) == ["en/one.jsonl"]
    assert keys(config_for(hub, tmp_path, split="test")) == ["en/two.jsonl"]
    assert keys(config_for(hub, tmp_path, split="de/train")) == ["de/one.jsonl"]
    with pytest.raises(JobError, match="no configuration 'dee'; there are en, de") as caught:
        keys(config_for(hub, tmp_path, split="dee/train"))
    assert "de/train" in caught.value.hint
    del card["configs"][0]["default"]
    hub.add("datasets", "lab/mails", dict.fromkeys(names, b"x"), card=card)
    with pytest.raises(JobError, match="several configurations") as caught:
        keys(config_for(hub, tmp_path))
    assert "en/train" in caught.value.hint


def test_a_card_that_leads_elsewhere_or_nowhere_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "lab/other", {"train.jsonl": b"x"})
    elsewhere = {"configs": [{"config_name": "default", "data_files": "hf://datasets/lab/other/train.jsonl"}]}
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x"}, card=elsewhere)
    with pytest.raises(JobError, match="outside the data set: hf://datasets/lab/other") as caught:
        keys(config_for(hub, tmp_path))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_DATA, "spec.data.train.uri")
    nonsense = {"configs": [{"config_name": "default", "data_files": [{"path": "train.jsonl"}]}]}
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x"}, card=nonsense)
    with pytest.raises(JobError, match="card of hf://lab/mails cannot be understood"):
        keys(config_for(hub, tmp_path))


@pytest.mark.parametrize("path", ["https://elsewhere.example/train.jsonl", "../../train.jsonl", "/etc/hostname"])
def test_a_card_cannot_lead_out_of_the_data_set(hub: Hub, tmp_path: Path, path: str) -> None:
    card = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": path}]}]}
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x", "../../evil.jsonl": b"x"}, card=card)
    with pytest.raises(JobError, match=r"outside the data set|no files for split") as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.reason in (Reason.INVALID_DATA, Reason.DATA_NOT_FOUND)


@pytest.mark.parametrize("status", [503, 403])
def test_a_card_that_cannot_be_read_now_is_not_taken_for_none(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    card = {"configs": [{"config_name": "default", "data_files": "b.jsonl"}]}
    hub.add("datasets", "lab/mails", {"a.jsonl": b"x", "b.jsonl": b"x"}, card=card)
    assert keys(config_for(hub, tmp_path)) == ["b.jsonl"]
    monkeypatch.setattr("finetune_trainer.stream.sources.hub_store._RETRIED", ())
    hub.failing = {"README.md": status}
    with pytest.raises(JobError) as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.reason == (Reason.ACCESS_DENIED if status == 403 else Reason.STORAGE_UNAVAILABLE)


def test_no_script_no_local_folder_and_no_file_of_another_kind_takes_the_place(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab" / "mails").mkdir(parents=True)
    (tmp_path / "lab" / "mails" / "train.jsonl").write_text("local")
    monkeypatch.chdir(tmp_path)
    script = b"raise SystemExit('run')"
    commit = hub.add("datasets", "lab/mails", {"mails.py": script, "train.jsonl": b"x", "train.png": b""})
    listing = list_source(config_for(hub, tmp_path), "train")
    assert [info.key for info, _ in listing.objects] == ["train.jsonl"]
    assert listing.store.get("train.jsonl") == b"x"
    assert not any(path.endswith("mails.py") for _, path, _ in hub.requests)
    assert all(path.endswith("/lab/mails") or commit in path for _, path, _ in hub.requests)
    assert len(hub.requests) == 2  # the description, and the file that was asked for
    hub.add("datasets", "lab/mails", {"mails.py": script})
    with pytest.raises(JobError, match=r"no files for split 'train'; its files are mails.py") as caught:
        keys(config_for(hub, tmp_path))
    assert "refs/convert/parquet" in caught.value.hint
    hub.add("datasets", "lab/mails", {"train.txt": b"one\n", "test.txt": b"two\n"})
    assert keys(config_for(hub, tmp_path)) == ["train.txt"]
    files = {"train/a.jsonl": b"{}\n", "train/notes.txt": b"bought in May\n"}
    hub.add("datasets", "lab/mails", files)
    assert keys(config_for(hub, tmp_path)) == ["train/a.jsonl"]
    card = b"---\nconfigs:\n- config_name: default\n  data_files: 'train/*'\n---\n"
    hub.add("datasets", "lab/mails", files | {"README.md": card})
    with pytest.raises(JobError, match=r"train/notes.txt is plain text among objects of other formats") as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.field == "spec.data.train.split"
    hub.add("datasets", "lab/mails", {"train.xml": b"<one/>"})
    with pytest.raises(JobError, match=r"train.xml is of split 'train'") as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.field == "spec.data.train.split"


def test_what_is_not_there_is_said_with_what_is(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x"})
    with pytest.raises(JobError, match=r"split 'test'; its splits are train ") as caught:
        keys(config_for(hub, tmp_path, split="test"))
    assert caught.value.reason == Reason.DATA_NOT_FOUND
    assert caught.value.field == "spec.data.train.split"
    with pytest.raises(JobError, match="no revision 'v9'"):
        keys(config_for(hub, tmp_path, revision="v9"))
    with pytest.raises(JobError, match="no data set lab/nothing") as caught:
        keys(config_for(hub, tmp_path, uri="hf://lab/nothing"))
    assert caught.value.reason == Reason.DATA_NOT_FOUND
    assert caught.value.field == "spec.data.train.uri"


def test_private_sets_want_the_token_and_gated_ones_say_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x"}, token="hf_secret-token")
    with pytest.raises(JobError) as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.reason == Reason.DATA_NOT_FOUND
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret-token")
    assert keys(config_for(hub, tmp_path)) == ["train.jsonl"]
    hub.add("datasets", "lab/mails", {"train.jsonl": b"x"}, gated=True)
    with pytest.raises(JobError) as caught:
        keys(config_for(hub, tmp_path))
    assert caught.value.reason == Reason.ACCESS_DENIED
    assert "secret-token" not in str(caught.value)


def test_short_outages_are_ridden_out(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "lab/mails", {"train.jsonl": encode(rows_of(10), "jsonl")})
    config = config_for(hub, tmp_path)
    store = list_source(config, "train").store
    hub.fail_next = 1
    assert store.get("train.jsonl", start=0, end=9) == encode(rows_of(10), "jsonl")[:9]


def test_a_hub_that_is_not_there_is_storage_unavailable(tmp_path: Path, hub: Hub) -> None:
    from support.control_plane import free_ports

    config = config_for(hub, tmp_path).model_copy(
        update={"hub": HubAccess(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")}
    )
    with pytest.raises(JobError) as caught:
        keys(config)
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
