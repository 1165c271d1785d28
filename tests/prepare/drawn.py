"""Jobs on mails whose rows are drawn, and the rows that their splits have."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.stream.profile import Profile
from support.jobs import job_config

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
