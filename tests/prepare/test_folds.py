"""Folds: each class in its share, groups together, and what cannot be dealt."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.stream.parts import FIRST_FOLD, UNUSED, load_parts
from prepare.drawn import HELD, config, content, findings, folds_of, mails, split_contents
from support.rows import write


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
