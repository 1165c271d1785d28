"""Rows that a fraction holds out: in each class's share, drawn by content, whatever the files."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.storage import location
from finetune_trainer.storage.file import FileStore
from finetune_trainer.stream import load_profile
from finetune_trainer.stream import manifest as manifest_module
from finetune_trainer.stream.parts import TRAIN, UNUSED, load_parts
from prepare.drawn import HELD, config, content, findings, mails, rows_of, split_contents
from support.jobs import job_config
from support.models import write_jsonl
from support.rows import write


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
