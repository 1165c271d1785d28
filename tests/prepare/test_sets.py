"""Sets of spec.evaluation.sets are checked row by row like test rows, under their own fields and names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from finetune_trainer.stream.profile import Profile
from support.jobs import job_config
from support.models import mails, write_jsonl
from support.rows import HAM, SPAM, write_lines

GOOD = [HAM, SPAM]


def config(folder: Path, *, max_bad_rows: int = 0, **sets: str) -> Any:
    named = [{"name": name, "uri": f"{folder.as_uri()}/sets/{pattern}"} for name, pattern in sets.items()]
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "maxBadRows": max_bad_rows}
    return job_config(folder, data=data, evaluation={"sets": named})


@pytest.fixture
def mailbox(folder: Path) -> Path:
    """Training rows, and a good set."""
    write_jsonl(folder / "data" / "train.jsonl", mails(30, seed=1))
    write_jsonl(folder / "sets" / "good.jsonl", mails(7, seed=2))
    return folder


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "x", "label": "eggs"}', "class 'eggs' is not among the labels ('ham', 'spam')"),
        ('{"text": "x"}', "has no column 'label'"),
        ('{"text": null, "label": "ham"}', "column 'text'"),
        ('{"text": "x", "label": ["ham"]}', "holds a list; give the row one class"),
        ('{"text": "x", "label": ""}', "column 'label' is missing, null or empty"),
        ('{"text": "x", "label": "ham"', "not valid JSON"),
    ],
)
def test_a_bad_row_of_a_set_is_told_with_its_place(mailbox: Path, run: Any, line: str, says: str) -> None:
    write_lines(mailbox / "sets", "bad.jsonl", [*GOOD, line])
    error = run.refused(config(mailbox, good="good.jsonl", bad="bad.jsonl"))
    assert error.reason is Reason.INVALID_DATA
    assert "/sets/bad.jsonl:3: " in error.message
    assert says in error.message


@pytest.mark.parametrize(
    ("lines", "reason", "says"),
    [
        (None, Reason.DATA_NOT_FOUND, "no object matches"),
        ([], Reason.INVALID_DATA, "has no usable rows"),
        (["text,label"], Reason.INVALID_DATA, "has no usable rows"),
    ],
)
def test_a_set_without_rows_is_blamed_by_its_number(
    mailbox: Path, run: Any, lines: list[str] | None, reason: Reason, says: str
) -> None:
    if lines is not None:
        write_lines(mailbox / "sets", "empty.csv", lines)
    error = run.refused(config(mailbox, good="good.jsonl", fine="good.jsonl", empty="empty.csv"))
    assert (error.reason, error.field) == (reason, "spec.evaluation.sets[2].uri")
    assert says in error.message


def test_rows_that_were_learned_are_found_under_the_name_of_the_set(mailbox: Path, run: Any) -> None:
    write_jsonl(mailbox / "sets" / "old.jsonl", [*mails(3, seed=3), *mails(30, seed=1)[:2]])
    run(config(mailbox, old="old.jsonl"))
    (found,) = (f for f in run.reported.findings if f.kind == "Overlap")
    assert found.message.startswith("2 rows of set 'old' (40.0%) have a text that is in the training rows, too")
    assert found.file is not None
    assert (found.file.rpartition("/")[2], found.line) == ("old.jsonl", 4)


def test_bad_rows_of_sets_are_left_out_and_counted(mailbox: Path, run: Any) -> None:
    write_lines(mailbox / "sets", "bad.jsonl", [SPAM, '{"text": 3}', HAM])
    profile = run(config(mailbox, max_bad_rows=1, good="good.jsonl", bad="bad.jsonl"))
    assert profile.set_rows == {"set-good": 7, "set-bad": 2}
    assert run.reported.bad_rows == 1
    assert Profile.from_json(profile.to_json()) == profile


def test_sets_change_nothing_of_the_rows_order(mailbox: Path, run: Any) -> None:
    with_one, without = run(config(mailbox, good="good.jsonl")), run(config(mailbox))
    assert with_one.digest == without.digest
    assert with_one.data.manifest_digest != without.data.manifest_digest
    kept = {"digest", "labels", "columns", "label_counts", "resolved"}
    for field in dataclasses.fields(Profile):
        if field.name in kept:
            assert getattr(with_one, field.name) == getattr(without, field.name), field.name
