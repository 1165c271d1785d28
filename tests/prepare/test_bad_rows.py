"""Bad rows are found before a worker is asked for: exact counts, file and line, the field to change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import EXITS, Reason
from finetune_api.report import Outcome, Report
from finetune_trainer.prepare import main
from support.jobs import job_config
from support.models import chats, mails, write_jsonl
from support.rows import HAM, SPAM, write_lines


@pytest.mark.parametrize(
    ("bad", "kind", "says"),
    [
        ("{not json", "InvalidJson", "not valid JSON"),
        ('{"text": "a\x01b"}', "InvalidJson", "Invalid control character at column 12"),
        ("[1, 2]", "InvalidJson", "array"),
        ('"text"', "InvalidJson", "holds a JSON string"),
        ('{"body": "x", "label": "ham"}', "MissingColumn", "no column 'text'; its columns are 'body', 'label'"),
        ('{"text": null, "label": "ham"}', "InvalidRow", "missing or null"),
        ('{"text": 5, "label": "ham"}', "InvalidRow", "int"),
        ('{"text": "x", "label": {}}', "InvalidRow", "dict"),
        ('{"text": "x", "label": " \\t"}', "InvalidRow", "missing, null or empty"),
        ('{"text": "half \\ud800", "label": "ham"}', "InvalidEncoding", "surrogate"),
        ('{"text": "x", "label": "half \\ud800"}', "InvalidEncoding", "surrogate"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(folder: Path, run: Any, bad: str, kind: str, says: str) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, SPAM] * 3)
    write_lines(folder / "data", "b.jsonl", [HAM, "", SPAM, bad, HAM, bad])
    error = run.refused(job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    file = f"{folder}/data/b.jsonl"
    assert error.message.startswith(f"{file}:4: ")
    assert says in error.message
    assert f"2 bad rows (2 {kind}), 0 allowed" in error.message


def test_rows_within_the_allowance_are_left_out_counted_and_found_again(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, "nonsense", SPAM, '{"text": "x"}', HAM, SPAM])
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "maxBadRows": 2}
    config = job_config(folder, data=data)
    profile = run(config)
    assert (profile.data.train_rows, profile.data.bad_rows) == (4, 2)
    assert profile.bad == {"train": {0: (1, 3)}}
    found = {f.kind: (f.count, f.line) for f in profile.data.findings}
    assert found["InvalidJson"] == (1, 2)
    assert found["MissingColumn"] == (1, 4)
    error = run.refused(
        job_config(folder, job_id="job-2", data=data | {"maxBadRows": 1}, output={"uri": (folder / "out2").as_uri()})
    )
    assert "2 bad rows (1 InvalidJson, 1 MissingColumn), 1 allowed; first MissingColumn at" in error.message


def test_a_refused_job_still_reports_the_first_few_bad_rows_of_each_kind(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, "nonsense", SPAM, '{"text": "x"}', *["nonsense"] * 5])
    write_lines(folder / "data", "b.jsonl", [])
    config = job_config(folder)
    assert main(config) == EXITS[Reason.INVALID_DATA].code
    last = Report.model_validate_json((folder / "reports.jsonl").read_text().splitlines()[-1])
    outcome = Outcome.model_validate_json((folder / "termination").read_bytes())
    assert last.problem is not None
    assert last.data is not None
    assert outcome.data == last.data
    assert (last.data.bad_rows, last.data.objects) == (7, 2)
    broken, missing, empty = last.data.findings
    assert (broken.kind, broken.count, broken.line) == ("InvalidJson", 6, 2)
    assert broken.file is not None
    assert broken.file.endswith("data/a.jsonl")
    assert broken.message.endswith("; also at a.jsonl:5, a.jsonl:6, a.jsonl:7, …")
    assert "Left out" not in broken.message
    assert (missing.kind, missing.count, missing.line) == ("MissingColumn", 1, 4)
    assert (empty.kind, empty.count) == ("EmptyObject", 1)
    assert empty.file is not None
    assert empty.file.endswith("data/b.jsonl")


def test_without_a_usable_row_the_findings_say_why(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", ["", "  "])
    assert "no usable rows" in run.refused(job_config(folder)).message
    assert [finding.kind for finding in run.reported.findings] == ["EmptyObject"]
    write_lines(folder / "data", "b.jsonl", ["nonsense"])
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "maxBadRows": 1}
    assert "no usable rows" in run.refused(job_config(folder, data=data)).message
    assert [(f.kind, f.line) for f in run.reported.findings] == [("InvalidJson", 1), ("EmptyObject", None)]


def test_a_set_of_nothing_but_bad_rows_is_given_up_early(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.rows.bad_rows.GIVE_UP_AFTER", 5)
    write_lines(folder / "data", "a.jsonl", ["nonsense"] * 50)
    assert "at least 5 bad rows" in run.refused(job_config(folder)).message
    assert run.reported.findings[0].count == 5


def test_a_wrong_column_names_those_that_are_there(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(20))
    error = run.refused(
        job_config(
            folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "columns": {"text": "texts", "label": "label"}}
        )
    )
    assert error.reason == Reason.INVALID_DATA
    assert error.field == "spec.data.columns.text"
    assert "'texts'" in error.message
    assert "its columns are 'text', 'label'" in error.message
    assert error.hint.startswith("Did you mean 'text'?")


def test_a_label_that_is_not_listed_is_named(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, SPAM, '{"text": "x", "label": "eggs"}'])
    error = run.refused(
        job_config(folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "labels": ["ham", "spam"]})
    )
    assert ":3: class 'eggs'" in error.message


def test_held_out_objects_may_not_have_classes_of_their_own(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "train.jsonl", [HAM, SPAM])
    write_lines(folder / "data", "test.jsonl", [HAM, '{"text": "x", "label": "eggs"}'])
    data = {
        "train": {"uri": f"{folder.as_uri()}/data/train.jsonl"},
        "test": {"uri": f"{folder.as_uri()}/data/test.jsonl"},
    }
    assert "test.jsonl:2: class 'eggs'" in run.refused(job_config(folder, data=data)).message


def test_one_class_alone_is_refused(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM] * 5)
    error = run.refused(job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    assert "'ham'" in error.message


def test_a_column_that_is_no_class_is_refused(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [json.dumps({"text": "x", "label": f"free text {n}"}) for n in range(1100)])
    error = run.refused(job_config(folder))
    assert error.field == "spec.data.columns.label"


@pytest.mark.parametrize("content", [[], [""], ["", "  "]])
def test_empty_objects_are_refused(folder: Path, run: Any, content: list[str]) -> None:
    write_lines(folder / "data", "a.jsonl", content)
    error = run.refused(job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    assert "no usable rows" in error.message


def test_a_share_without_rows_is_refused(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, SPAM])
    error = run.refused(
        job_config(folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "validation": {"fraction": 0.001}})
    )
    assert error.field == "spec.data.validation"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "content": "hi"}], "assistant"),
        ([{"role": "wizard", "content": "hi"}, {"role": "assistant", "content": "yo"}], "wizard"),
    ],
)
def test_chats_with_wrong_roles_are_named(
    folder: Path, llama: Path, run: Any, messages: list[dict[str, str]], says: str
) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", [*chats(3), {"messages": messages}])
    error = run.refused(job_config(folder, task="causal-lm"))
    assert "a.jsonl:4: " in error.message
    assert says in error.message
