"""`finetune predict` against a trainer that does as told: what it is given, what a user sees, what is written."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Terminal
from finetune_api.exits import EXITS, Reason

ANSWERS: list[dict[str, Any]] = [
    {"id": 1, "text": "free prize", "prediction": {"label": "spam", "score": 0.9, "scores": {"spam": 0.9}}},
    {"id": 2, "text": 'lunch,\n"now"', "new": None, "prediction": {"label": "hé", "score": 0.8, "ok": True}},
]
FINDING = {"kind": "InvalidJson", "count": 2, "file": "rows.jsonl", "line": 3, "message": "Left out: not valid JSON"}
SAID = [
    {"stage": "loading the model", "task": "text-classification", "total": 2},
    {"stage": "done", "task": "text-classification", "rows": 2, "total": 2, "findings": [FINDING]},
]
GOOD = {"step": "predict", "said": SAID, "answers": ANSWERS}


@pytest.fixture
def place(terminal: Terminal) -> Terminal:
    (terminal.folder / "my model").mkdir()
    (terminal.folder / "rows.jsonl").write_text("{}\n")
    return terminal


def test_answers_go_to_the_standard_output_and_nothing_else_does(place: Terminal) -> None:
    done = place.run("predict", "my model", "rows.jsonl", script=[GOOD])
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == ANSWERS
    assert "text-classification: loading the model" in done.stderr
    assert "text-classification: done: 2 of 2 rows" in done.stderr
    assert "rows.jsonl:3: Left out: not valid JSON (2 rows)" in done.stderr


def test_the_trainer_is_told_all_that_the_user_says(place: Terminal) -> None:
    options = ("--column", "text=body", "--as", "mine", "--max-bad-rows", "7", "--device", "cpu", "--format", "csv")
    place.run("predict", "my model", "rows.jsonl", *options, script=[GOOD])
    reach = ("--endpoint", "http://127.0.0.1:9", "--region", "eu-west-3", "--no-path-style")
    place.run("predict", "s3://b/out", "s3://b/*.jsonl", *reach, script=[GOOD, GOOD])
    here, away = (seen["config"] for seen in place.seen())
    assert here["output"] == f"file://{place.folder}/my%20model"
    assert here["rows"] == f"file://{place.folder}/rows.jsonl"
    assert (here["columns"], here["answer"], here["maxBadRows"]) == ({"text": "body"}, "mine", 7)
    assert (here["device"], here["format"]) == ("cpu", "csv")
    assert here["threads"] == len(os.sched_getaffinity(0))
    assert (away["output"], away["rows"]) == ("s3://b/out", "s3://b/*.jsonl")
    assert away["storage"] == {"endpoint": "http://127.0.0.1:9", "region": "eu-west-3", "pathStyle": False}
    assert "pathStyle" not in here["storage"], "left to the endpoint"
    assert not Path(here["scratch"]).exists(), "nothing is left behind"


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_table_has_a_column_for_each_part_of_an_answer(place: Terminal, name: str, mark: str) -> None:
    done = place.run("predict", "my model", "rows.jsonl", "-o", name, script=[GOOD])
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    with (place.folder / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=mark))
    assert rows[0] == {
        "id": "1",
        "text": "free prize",
        "prediction.label": "spam",
        "prediction.score": "0.9",
        "prediction.scores": '{"spam": 0.9}',
        "new": "",
        "prediction.ok": "",
    }
    assert (rows[1]["text"], rows[1]["prediction.label"], rows[1]["prediction.ok"]) == ('lunch,\n"now"', "hé", "true")


def test_a_file_is_replaced_only_where_that_is_asked_for(place: Terminal) -> None:
    target = place.folder / "a.jsonl"
    target.write_text("mine")
    done = place.run("predict", "my model", "rows.jsonl", "-o", "a.jsonl", script=[GOOD])
    assert (done.returncode, target.read_text()) == (1, "mine")
    assert "--force replaces it" in done.stderr
    failed = {"step": "predict", "said": [], "exit": 3}
    place.run("predict", "my model", "rows.jsonl", "-o", "a.jsonl", "--force", script=[failed])
    assert target.read_text() == "mine", "a failure leaves it as it is"
    done = place.run("predict", "my model", "rows.jsonl", "-o", "a.jsonl", "--force", script=[failed, GOOD])
    assert [json.loads(line) for line in target.read_text().splitlines()] == ANSWERS
    assert {path.name for path in place.folder.iterdir() if "part" in path.name} == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "rows.jsonl"), "nowhere: no such folder"),
        (("rows.jsonl", "rows.jsonl"), "rows.jsonl: is a file"),
        (("my model", "none.jsonl"), "none.jsonl: no such file"),
        (("my model", "rows.jsonl", "-o", "a.txt"), "a.txt: the name tells no format"),
        (("my model", "rows.jsonl", "-o", "no/a.csv"), "no is no folder"),
        (("my model", "rows.jsonl", "--column", "text"), "--column text: is no ROLE=NAME"),
    ],
)
def test_what_is_wrong_before_anything_is_started(place: Terminal, arguments: tuple[str, ...], words: str) -> None:
    done = place.run("predict", *arguments, script=[])
    assert done.returncode == 1
    assert words in done.stderr
    assert place.seen() == []


def test_a_failure_is_told_in_the_trainers_words_or_by_its_log(place: Terminal) -> None:
    problem = {"reason": "InvalidData", "message": "rows.jsonl:2: is no text", "hint": "Mend it."}
    code = EXITS[Reason.INVALID_DATA].code
    done = place.run("predict", "my model", "rows.jsonl", script=[{"said": [{"problem": problem}], "exit": code}])
    assert done.returncode == code
    assert "InvalidData: rows.jsonl:2: is no text\n  Mend it." in done.stderr
    assert done.stdout == ""
    done = place.run("predict", "my model", "rows.jsonl", script=[GOOD, {"exit": 9}])
    assert done.returncode == 9
    assert "the trainer left with exit code 9" in done.stderr


def test_ctrl_c_ends_it_and_writes_nothing(place: Terminal) -> None:
    process = place.start("predict", "my model", "rows.jsonl", "-o", "a.jsonl", script=[{"endless": True}])
    assert process.stderr is not None
    assert "answering: 1 of 9 rows" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130
    assert "nothing was written" in said
    assert not (place.folder / "a.jsonl").exists()
    (seen,) = place.seen()
    with pytest.raises(ProcessLookupError):
        os.kill(seen["pid"], 0)
