"""The rows of each split as the prepare step draws them: fractions, a few of each class, folds; and what it refuses."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from finetune_trainer.storage.file import FileStore
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.stream import manifest as manifest_module
from finetune_trainer.stream.parts import FIRST_FOLD, PARTS_KEY, TRAIN, UNUSED, load_parts
from finetune_trainer.stream.profile import PROFILE_KEY, Profile
from support.jobs import job_config
from support.models import write_jsonl
from support.rows import write

Row = dict[str, Any]
HELD = {"validation": {"fraction": 0.2}, "test": {"fraction": 0.1}}


def mails(count: int = 200) -> list[Row]:
    """Rows of three classes, 60, 30 and 10 in a hundred; each tenth text stands twice, once in other white space."""
    labels = ["ham"] * 6 + ["spam"] * 3 + ["news"]
    rows = [{"text": f"mail {n}", "label": labels[n % 10], "sender": f"s{n % 37}"} for n in range(count)]
    return rows + [row | {"text": row["text"].upper().replace(" ", "  ")} for row in rows[::10]]


def config(
    folder: Path, *, train: Row | None = None, evaluation: Row | None = None, task: str = "", **data: Any
) -> Any:
    spec: Row = {"task": task} if task else {}
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"} | (train or {})} | data
    return job_config(folder, data=data, evaluation=evaluation or {}, **spec)


def rows_of(job: RunConfig, split: str) -> list[Row]:
    manifest, profile = load_profile(location(job.output.uri, job.storage))
    with Stream(job, manifest, profile, split) as stream:
        return list(stream.rows())


def content(row: Row) -> str:
    return " ".join(row["text"].casefold().split())


def split_contents(job: RunConfig, *splits: str) -> dict[str, set[str]]:
    return {split: {content(row) for row in rows_of(job, split)} for split in splits}


def findings(profile: Profile) -> dict[str, str]:
    return {found.kind: found.message for found in profile.data.findings}


# ---------------------------------------------------------------------- fractions


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_each_class_is_held_out_in_its_share_and_copies_are_on_one_side(folder: Path, run: Any, ending: str) -> None:
    rows = mails()
    bad = [{"text": f"bad {n}", "label": "", "sender": ""} for n in range(3)]
    write(folder / "data", f"a.{ending}", [*bad[:2], *rows[:120]], row_group=50)
    write(folder / "data", f"b.{ending}", [*rows[120:], bad[2]], row_group=50)
    job = config(folder, maxBadRows=3, **HELD)
    profile = run(job)
    assert not {"Overlap", "UnjudgedLabel", "SingleRows"} & findings(profile).keys()
    found = {split: rows_of(job, split) for split in ("train", "validation", "test")}
    counts = {split: Counter(row["label"] for row in taken) for split, taken in found.items()}
    of_class = Counter(row["label"] for row in rows)
    for split, fraction in (("validation", 0.2), ("test", 0.1)):
        for label, total in of_class.items():
            assert abs(counts[split][label] - fraction * total) <= 2, (split, label)  # a pair may be one row too many
        assert getattr(profile.data, f"{split}_rows") == len(found[split])
    assert sum(map(len, found.values())) == len(rows)
    contents = [{content(row) for row in taken} for taken in found.values()]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 200
    parts = load_parts(location(job.output.uri, job.storage), profile.parts or "")
    assert np.flatnonzero(parts == UNUSED).tolist() == [0, 1, 223 - 1]


def test_the_same_rows_are_held_out_however_they_lie_in_objects_and_whatever_the_seed(folder: Path, run: Any) -> None:
    rows = mails()
    wanted: Any = None
    for n, cuts in enumerate([(), (7, 100, 101), (50,)]):
        for path in (folder / "data").iterdir():
            path.unlink()
        random.Random(n).shuffle(rows)
        edges = [0, *cuts, len(rows)]
        for k, (low, high) in enumerate(pairwise(edges)):
            write(folder / "data", f"{k}.{('jsonl', 'csv', 'parquet')[(n + k) % 3]}", rows[low:high])
        job = config(folder, **HELD)
        job = job.model_copy(
            update={
                "training": job.training.model_copy(update={"seed": n}),
                "output": job.output.model_copy(update={"uri": f"{folder.as_uri()}/out-{n}"}),
            }
        )
        run(job)
        found = split_contents(job, "validation", "test")
        wanted = wanted or found
        assert found == wanted


def test_held_out_rows_are_copied_from_their_blocks_alone(folder: Path, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(manifest_module, "BLOCK_BYTES", 300)
    monkeypatch.setattr("finetune_trainer.prepare.rows.scan.BLOCK_BYTES", 300)
    write(folder / "data", "a.jsonl", mails(400))
    job = config(folder, test={"fraction": 0.01})
    profile = run(job)
    manifest, _ = load_profile(location(job.output.uri, job.storage))
    blocks = manifest.sources["train"].objects[0].blocks
    parts = load_parts(location(job.output.uri, job.storage), profile.parts or "")
    with_rows = [block for block in blocks if (parts[block.row : block.row + block.rows] > TRAIN).any()]
    assert 0 < len(with_rows) < 0.3 * len(blocks)
    read: list[Any] = []
    get = FileStore.get
    monkeypatch.setattr(
        FileStore, "get", lambda self, key, **k: read.append((key, k.get("start"))) or get(self, key, **k)
    )
    (folder / "out/prepare/blocks").rename(folder / "gone")  # made anew
    assert run(job).digest == profile.digest
    assert [start for key, start in read if key.endswith("a.jsonl")] == [block.start for block in with_rows]


def test_a_class_of_one_text_stays_to_be_learned_and_is_told(folder: Path, run: Any) -> None:
    alone = {"rare": ["once", "ONCE", "once "], "alone": ["here"]}
    rows = [*mails(), *({"text": text, "label": name, "sender": ""} for name, texts in alone.items() for text in texts)]
    write(folder / "data", "a.jsonl", rows)
    job = config(folder, validation={"fraction": 0.5})
    found = findings(run(job))
    assert found["SingleRows"].startswith(
        "Classes 'alone', 'rare' have one distinct text each, which stays among the training rows"
    )
    assert "UnjudgedLabel" not in found
    assert sum(row["label"] in alone for row in rows_of(job, "train")) == 4


def test_copies_of_two_classes_are_on_one_side(folder: Path, run: Any) -> None:
    rows = [{"text": f"text {n % 50}", "label": "ab"[n % 3 % 2]} for n in range(150)]
    write(folder / "data", "a.jsonl", rows)
    job = config(folder, **HELD)
    run(job)
    found = split_contents(job, "train", "validation", "test")
    assert sum(map(len, found.values())) == 50
    assert all(found.values())


def test_only_objects_of_their_own_can_overlap(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", mails())
    write(folder / "own", "a.jsonl", mails()[:30])
    job = config(folder, validation={"fraction": 0.2}, test={"uri": f"{folder.as_uri()}/own/*"})
    learned = split_contents(job, "train")["train"] if run(job) else set()
    (found,) = (f for f in run(job).data.findings if f.kind == "Overlap")
    assert found.count == sum(content(row) in learned for row in mails()[:30])
    assert "test rows" in found.message


def test_a_fraction_that_holds_no_row_is_refused(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(9)])
    error = run.refused(config(folder, test={"fraction": 0.05}))
    assert (error.field, error.message) == ("spec.data.test", "the test share of 9 rows holds no row")
    assert "raise the fraction" in error.hint
    write(folder / "data", "a.jsonl", [{"text": label, "label": label} for label in "abcdef"])
    error = run.refused(config(folder, validation={"fraction": 0.5}))
    assert "the validation share of 6 rows holds no row" in error.message
    assert "each class keeps one to learn from" in error.hint


def test_rows_with_a_number_are_held_out_from_low_to_high(folder: Path, run: Any) -> None:
    rows = [{"text": f"row {n}", "score": float(n**2)} for n in range(400)]
    random.Random(0).shuffle(rows)
    write(folder / "data", "a.jsonl", rows)
    job = config(folder, task="text-regression", **HELD)
    run(job)
    for split, fraction in (("validation", 0.2), ("test", 0.1)):
        scores = np.sqrt([row["score"] for row in rows_of(job, split)])
        assert np.histogram(scores, bins=10, range=(0, 400))[0].tolist() == [int(40 * fraction)] * 10


def test_rows_of_several_classes_and_plain_texts_are_held_out_by_content(folder: Path, run: Any, llama: Path) -> None:
    rows = [
        {"text": f"t {n}", "labels": [c for c in "abcdefgh" if random.Random(f"{n}{c}").random() < 0.3]}
        for n in range(300)
    ]
    write_jsonl(folder / "data/a.jsonl", rows)
    job = config(folder, task="multi-label-classification", **HELD)
    run(job)
    for split, count in (("validation", 60), ("test", 30)):
        held = rows_of(job, split)
        assert abs(len(held) - count) <= 1
        for label in "abcdefgh":
            share = sum(label in row["labels"] for row in held) / len(held)
            assert abs(share - sum(label in row["labels"] for row in rows) / 300) < 0.15
    texts = [{"prompt": f"say {n}", "completion": "yes"} for n in range(50)] * 2
    write_jsonl(folder / "data/a.jsonl", texts)
    job = job_config(
        folder,
        task="causal-lm",
        model={"uri": llama.as_uri()},
        output={"uri": f"{folder.as_uri()}/texts"},
        data={"train": {"uri": f"{folder.as_uri()}/data/*"}, **HELD},
    )
    run(job)
    counts = {split: Counter(row["prompt"] for row in rows_of(job, split)) for split in ("train", "validation", "test")}
    assert [len(found) for found in counts.values()] == [35, 10, 5]
    assert all(n == 2 for found in counts.values() for n in found.values())


# ---------------------------------------------------------------------- a few of each class


def test_so_many_rows_of_each_class_are_learned_from_and_the_rest_is_left(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", mails())
    plain = config(folder, **HELD)
    run(plain)
    held = split_contents(plain, "validation", "test")
    digests, drawn = set(), []
    for seed in (None, 1):
        train = {"perClass": 12} | ({} if seed is None else {"seed": seed})
        job = config(folder, train=train, **HELD)
        job = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{folder.as_uri()}/few-{seed}"})})
        profile = run(job)
        rows = rows_of(job, "train")
        news = Counter(row["label"] for row in rows)["news"]
        assert Counter(row["label"] for row in rows) == {"ham": 12, "spam": 12, "news": news}
        assert news < 20
        assert len({content(row) for row in rows}) == profile.data.train_rows == len(rows)
        assert split_contents(job, "validation", "test") == held, "whatever is drawn of the others"
        found = findings(profile)
        left = 220 - profile.data.validation_rows - profile.data.test_rows
        drawn_of = f"data.train.perClass draws {len(rows)} of the {left} training rows."
        assert found["UnusedRows"] == f"{left - len(rows)} rows are left unused: {drawn_of}"
        if news < 12:
            assert f"fewer: 'news' ({news})" in found["FewRows"]
        assert profile.label_counts == tuple(
            Counter(row["label"] for row in rows)[name] for name in profile.labels or ()
        )
        digests.add(profile.digest)
        drawn.append({content(row) for row in rows})
    assert len(digests) == 2
    assert drawn[0] != drawn[1]


def test_a_class_with_fewer_rows_gives_all_of_them(folder: Path, run: Any) -> None:
    rows = [{"text": f"{label} {n}", "label": label} for label, count in (("a", 30), ("b", 3)) for n in range(count)]
    write(folder / "data", "a.jsonl", rows * 2)
    job = config(folder, train={"perClass": 8})
    found = findings(run(job))
    assert (
        "data.train.perClass asks for 8 rows of each class, and of these there are fewer: 'b' (3)." in found["FewRows"]
    )
    assert Counter(row["label"] for row in rows_of(job, "train")) == {"a": 8, "b": 3}
    assert "Duplicates" not in found


# ---------------------------------------------------------------------- folds


def folds_of(job: RunConfig, count: int) -> list[list[Row]]:
    folds = [rows_of(job, f"fold-{k}") for k in range(1, count + 1)]
    whole = rows_of(job, "train")
    for k, fold in enumerate(folds, 1):
        others = rows_of(job, f"train-but-{k}")
        assert len(others) + len(fold) == len(whole)
        assert others == [row for row in whole if row not in fold]
    assert all(folds)
    assert sorted(map(str, chain.from_iterable(folds))) == sorted(map(str, whole))
    return folds


def test_folds_have_each_class_in_its_share_beside_what_is_held_out(folder: Path, run: Any) -> None:
    rows = [row for row in mails(300) if row["text"].islower()]
    write(folder / "data", "a.jsonl", [{"text": None, "label": "ham"}, *rows])
    job = config(folder, evaluation={"folds": {"count": 5}}, maxBadRows=1, **HELD)
    profile = run(job)
    folds = folds_of(job, 5)
    counts = [Counter(row["label"] for row in fold) for fold in folds]
    for label in ("ham", "spam", "news"):
        assert max(c[label] for c in counts) - min(c[label] for c in counts) <= 1
    assert sum(map(len, folds)) == profile.data.train_rows == 210
    assert len(set().union(*split_contents(job, "train", "validation", "test").values())) == 300
    manifest, _ = load_profile(location(job.output.uri, job.storage))
    with Stream(job, manifest, profile, "fold-2") as stream:
        at = stream.positions(np.arange(stream.row_count))
    parts = load_parts(location(job.output.uri, job.storage), profile.parts or "")
    assert (parts[at] == FIRST_FOLD + 1).all()
    assert [rows[place - 1]["text"] for place in at] == [row["text"] for row in folds[1]]
    assert parts[0] == UNUSED


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_rows_of_one_group_share_a_fold_and_their_column_is_of_use(folder: Path, run: Any, ending: str) -> None:
    rows = [row | {"title": row["sender"]} for row in mails()]
    for row in rows[:7]:
        row["title"] = "" if ending == "csv" or row["text"] == "mail 0" else None
    write(folder / "data", f"a.{ending}", rows, row_group=50)
    job = config(folder, evaluation={"folds": {"count": 4, "groupBy": "title"}})
    found = findings(run(job))
    assert "'title'" not in found.get("UnusedColumns", "")
    assert found["UngroupedRows"].startswith(
        "7 rows have no value in column 'title': each stands for a group of its own"
    )
    folds = defaultdict(set)
    for k, fold in enumerate(folds_of(job, 4)):
        assert 30 < len(fold) < 80
        for row in fold:
            assert set(row) >= {"text", "label"}
            assert ending == "jsonl" or set(row) == {"text", "label"}, "the model sees nothing of the column"
            folds[content(row)].add(k)
    assert all(len(ks) == 1 for ks in folds.values())
    titles = {content(row): row["title"] for row in rows if row["title"]}
    by_title = defaultdict(set)
    for text, ks in folds.items():
        if text in titles:
            by_title[titles[text]] |= ks
    assert len(by_title) == 37
    assert all(len(ks) == 1 for ks in by_title.values())


@pytest.mark.parametrize(
    ("folds", "field", "says", "hint"),
    [
        ((4, "sendr"), "groupBy", "has no column 'sendr' to group folds by; its columns", "Did you mean 'sender'?"),
        ((4, "label"), "groupBy", "column 'label' holds what is to be learned", "or remove groupBy"),
        ((12, "kind"), "groupBy", "20 training rows make 2 groups by column 'kind'", "Ask for 2 folds at most"),
        ((4, "one"), "groupBy", "make 1 group by column 'one'", "by a column with more values"),
        ((11,), "count", "20 training rows with 10 different texts cannot be dealt into 11 folds", "Ask for 10 folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(
    folder: Path, run: Any, folds: tuple[Any, ...], field: str, says: str, hint: str
) -> None:
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "sender": n, "kind": n < 4, "one": 1} for n in range(10)]
    write(folder / "data", "a.jsonl", rows * 2)
    asked = dict(zip(("count", "groupBy"), folds, strict=False))
    error = run.refused(config(folder, evaluation={"folds": asked}))
    assert error.field == f"spec.evaluation.folds.{field}"
    assert says in error.message
    assert hint in error.hint


def test_uneven_folds_and_classes_that_some_lack_are_told(folder: Path, run: Any) -> None:
    rows = [{"text": f"t{n}", "label": "rare" if n < 2 else "ab"[n % 2], "of": max(0, n - 60)} for n in range(90)]
    write(folder / "data", "a.jsonl", rows)
    found = findings(run(config(folder, evaluation={"folds": {"count": 3, "groupBy": "of"}})))
    assert "The smallest fold has" in found["UnevenFolds"]
    assert "Class 'rare' is not in every fold" in found["UnjudgedLabel"]


# ---------------------------------------------------------------------- what is kept of it


def test_a_job_without_parts_keeps_its_digest_and_folds_change_it(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", mails())
    digests = []
    for n, evaluation in enumerate([{}, {"folds": {"count": 3}}, {"folds": {"count": 4}}]):
        job = config(folder, evaluation=evaluation)
        job = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{folder.as_uri()}/{n}"})})
        profile = run(job)
        assert (folder / str(n) / PARTS_KEY).exists() == (profile.parts is not None) == (n > 0)
        digests.append(profile.digest)
    assert len(set(digests)) == 3


@pytest.fixture
def prepared(folder: Path, run: Any) -> tuple[RunConfig, Profile]:
    write(folder / "data", "a.jsonl", mails())
    job = config(folder, **HELD)
    return job, run(job)


def test_parts_that_are_gone_are_made_anew_and_never_guessed(
    folder: Path, run: Any, prepared: tuple[RunConfig, Profile], monkeypatch: Any
) -> None:
    job, profile = prepared
    monkeypatch.setattr("finetune_trainer.stream.parts._loaded", {})
    for spoil, says in (
        (lambda path: path.write_bytes(b"x"), "is not what the job wrote there"),
        (lambda path: path.unlink(), "is gone"),
    ):
        spoil(folder / "out" / PARTS_KEY)
        with pytest.raises(JobError, match=says) as caught:
            rows_of(job, "train")
        assert caught.value.reason is Reason.DATA_CHANGED
        assert caught.value.hint
    again = run(job)
    assert (again.digest, again.parts) == (profile.digest, profile.parts)
    assert len(rows_of(job, "train")) == profile.data.train_rows


def test_a_profile_of_an_earlier_version_is_made_anew_unless_checkpoints_hang_on_it(
    folder: Path, run: Any, prepared: tuple[RunConfig, Profile]
) -> None:
    job, profile = prepared
    stored = json.loads((folder / "out" / PROFILE_KEY).read_text())
    earlier = json.dumps({name: value for name, value in stored.items() if name != "parts"} | {"digest": "0" * 64})
    (folder / "out" / PROFILE_KEY).write_text(earlier)
    assert run(job).parts == profile.parts
    (folder / "out" / PROFILE_KEY).write_text(earlier)
    (folder / "out/ckpt/1/10").mkdir(parents=True)
    (folder / "out/ckpt/1/10/MANIFEST.json").write_text("{}")
    error = run.refused(job)
    assert error.reason is Reason.CHECKPOINT_MISMATCH
    assert "prepared by an earlier version, which held out other rows" in error.message


def test_parts_are_read_once_a_process(folder: Path, prepared: tuple[RunConfig, Profile], monkeypatch: Any) -> None:
    job, profile = prepared
    monkeypatch.setattr("finetune_trainer.stream.parts._loaded", {})
    read: list[str] = []
    get = FileStore.get
    monkeypatch.setattr(FileStore, "get", lambda self, key, **k: read.append(key) or get(self, key, **k))
    for split in ("train", "validation", "test", "train"):
        rows_of(job, split)
    assert sum(key.endswith(PARTS_KEY) for key in read) == 1
    parts = load_parts(location(job.output.uri, job.storage), profile.parts or "")
    assert (parts.dtype, parts.nbytes) == (np.uint8, 220)
    with pytest.raises(ValueError, match="read-only"):
        parts[0] = 1
