"""Rows of questions through the prepare step: each bad one is named by file and line, with what to do; long rows are
taken in windows, and nobody is told that they are cut.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from support.jobs import job_config
from support.models import questions, write_jsonl

TASK = "question-answering"
GOOD = questions(24, seed=1)


def job(folder: Path, **spec: Any) -> Any:
    return job_config(folder, task=TASK, **spec)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (
            {"answers": {"text": ["lunch"], "answer_start": [2]}},
            "has the start 2, where 'meeting ' stands; it stands at 15, 13",
        ),
        ({"answers": {"text": ["cash"], "answer_start": [2]}}, "it stands nowhere in the context"),
        ({"answers": 3}, "column 'answers' holds int, not answers; write {"),
        ({"context": "  "}, "column 'context' is empty; give it a text"),
        ({"question": ""}, "column 'question' is empty; give it a text"),
        ({"question": None}, "column 'question' is missing or null"),
    ],
)
def test_a_bad_row_is_named_with_what_stands_there(folder: Path, run: Any, bad: Any, says: str) -> None:
    row = {"question": "what?", "context": "a meeting over lunch", "answers": []}
    write_jsonl(folder / "data" / "a.jsonl", [*GOOD, {**row, **bad}])
    error = run.refused(job(folder))
    assert error.reason == Reason.INVALID_DATA
    assert f"data/a.jsonl:{len(GOOD) + 1}: " in error.message
    assert says in error.message


def test_rows_are_compared_by_question_and_context(folder: Path, run: Any) -> None:
    other = {**GOOD[0], "answers": []}
    write_jsonl(folder / "data" / "a.jsonl", [*GOOD, other])
    found = {f.kind: f.count for f in run(job(folder)).data.findings}
    assert found["Duplicates"] == 1


def test_long_rows_are_windows_and_none_is_cut(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", [*GOOD, *questions(8, seed=2, words=(120, 160))])
    profile = run(job(folder, training={"maxLength": 64}))
    found = {f.kind: f for f in profile.data.findings}
    assert found["Windows"].count == 8
    assert "taken in several windows, so that nothing is cut" in found["Windows"].message
    assert "Truncated" not in found
    assert profile.data.lengths is not None
    assert profile.data.lengths.truncated_fraction == 0
    assert profile.data.tokens_per_epoch > 8 * 120, "all of the windows count"


def test_a_job_whose_questions_leave_no_room_is_refused_with_the_figures(folder: Path, run: Any) -> None:
    long = [{**row, "question": "will you win cash? " * 8} for row in questions(12, words=(30, 40))]
    write_jsonl(folder / "data" / "a.jsonl", long)
    error = run.refused(job(folder, training={"maxLength": 40}))
    assert error.reason == Reason.NOTHING_TO_LEARN
    assert "take 59 of the 40 tokens of a window, which leaves 0 for the context; raise spec.training" in error.message
    assert error.field == "spec.training.maxLength"
    strided = job(folder, training={"maxLength": 70}, questionAnswering={"stride": 20})
    assert "leaves 11 for the context, and windows are to share 20" in run.refused(strided).message


def test_csv_with_answers_as_json_text_or_in_columns_of_their_own(folder: Path, run: Any) -> None:
    def write(name: str, rows: list[dict[str, Any]]) -> None:
        with open(folder / "data" / name, "w", newline="") as file:
            lines = csv.DictWriter(file, [*rows[0]])
            lines.writeheader()
            lines.writerows(rows)

    write("a.csv", [{**row, "answers": json.dumps(row["answers"])} for row in GOOD])
    assert run(job(folder)).data.train_rows == len(GOOD)
    (folder / "data" / "a.csv").unlink()
    flat = [
        {"question": row["question"], "context": f"{row['context']} lunch lunch", "answer": n % 3 and "lunch"}
        for n, row in enumerate(GOOD)
    ]
    write("b.csv", [{**row, "answer": row["answer"] or ""} for row in flat])
    profile = run(job(folder, job_id="job-2", output={"uri": (folder / "out2").as_uri()}))
    assert profile.columns == {"question": "question", "context": "context", "answer": "answer"}
    guessed = next(f for f in profile.data.findings if f.kind == "GuessedStart")
    assert guessed.count == sum(bool(row["answer"]) for row in flat)
    assert "the first place is taken" in guessed.message


def test_squads_nested_file_is_refused_with_the_command_that_makes_rows_of_it(folder: Path, run: Any) -> None:
    nested = {"version": "v2.0", "data": [{"title": "x", "paragraphs": [{"context": "c", "qas": []}]}]}
    (folder / "data" / "train.json").write_text(json.dumps(nested))
    error = run.refused(job(folder))
    assert error.field == "spec.data.columns.question"
    assert "jq -c '.data[].paragraphs[]" in error.hint


def test_a_model_of_images_is_refused(folder: Path, run: Any) -> None:
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "layoutlmv3", "architectures": None}))
    write_jsonl(folder / "data" / "a.jsonl", GOOD)
    error = run.refused(job(folder))
    assert error.reason == Reason.UNSUPPORTED_MODEL
    assert "needs more than text" in error.message
