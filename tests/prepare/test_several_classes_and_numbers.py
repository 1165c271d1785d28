"""Rows of several classes, rows with a number: what is taken, and what is said of what cannot be."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.exits import Reason
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.survey import survey
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.stream.sources.source import list_source
from finetune_trainer.tasks.registry import task_for
from support.jobs import job_config
from support.models import scored, topics, write_jsonl
from support.rows import encode, write_lines

SEVERAL, NUMBERS = "multi-label-classification", "text-regression"
TOXIC = [{"text": f"row {n}", "toxic": n % 2, "rude": int(n % 3 == 0), "other": n} for n in range(60)]


def config(folder: Path, task: str, *, name: str = "*", spec: dict[str, Any] | None = None, **data: Any) -> Any:
    train = {"train": {"uri": f"{folder.as_uri()}/data/{name}"}}
    return job_config(folder, task=task, data=train | data, **(spec or {}))


@pytest.mark.parametrize(
    ("task", "bad", "says"),
    [
        (SEVERAL, '"a"', "column 'labels' holds 'a', not a list of classes"),
        (SEVERAL, '"a"', "set spec.task: text-classification, where a row has one class"),
        (SEVERAL, "7", "holds int, not a list of classes"),
        (SEVERAL, "null", "is missing, null or empty; write [] where the row has no class"),
        (SEVERAL, '" "', "is missing, null or empty"),
        (SEVERAL, "\"['a', 'b']\"", 'holds no valid JSON list; write it as ["a", "b"]'),
        (SEVERAL, '["a", null]', "lists a class that is null or empty"),
        (SEVERAL, '["a", " "]', "lists a class that is null or empty"),
        (SEVERAL, '["a", ["b"]]', "lists a class that is list"),
        (SEVERAL, '["a", 0.5]', "lists a class that is float"),
        (SEVERAL, '{"a": 1}', "holds dict, not a list of classes"),
        (NUMBERS, '"good"', "column 'labels' holds 'good', not a finite number"),
        (NUMBERS, '"3,5"', "write decimals with a point"),
        (NUMBERS, "null", "is missing, null or empty; give the row a number"),
        (NUMBERS, "true", "holds True, not a finite number"),
        (NUMBERS, "[1]", "holds list, not a finite number"),
        (NUMBERS, '"nan"', "not a finite number"),
        (NUMBERS, "1e400", "not a finite number"),
        (NUMBERS, "1e12", "and 1e+09 is the most; write it in a larger unit"),
        ("text-classification", '["a", "b"]', "set spec.task: multi-label-classification"),
        ("text-classification", json.dumps('["a", "b"]'), "set spec.task: multi-label-classification"),
    ],
)
def test_a_bad_row_says_what_to_write(folder: Path, run: Any, task: str, bad: str, says: str) -> None:
    good = {SEVERAL: ["[]", '["a"]', '["b", "a"]'], NUMBERS: ["1", "2.5", '"-3"']}.get(task, ['"a"', '"b"', "true"])
    write_lines(folder / "data", "a.jsonl", [f'{{"text": "x", "labels": {each}}}' for each in (*good, bad)])
    role = {SEVERAL: "labels", NUMBERS: "score"}.get(task, "label")
    error = run.refused(config(folder, task, columns={"text": "text", role: "labels"}))
    assert error.reason is Reason.INVALID_DATA
    assert "/data/a.jsonl:4: " in error.message
    assert says in error.message


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_list_of_classes_is_read_in_every_format(folder: Path, run: Any, ending: str) -> None:
    rows = topics(60, seed=1)
    for row in rows if ending == "csv" else ():
        row["labels"] = json.dumps(row["labels"])
    (folder / "data" / f"a.{ending}").write_bytes(encode(rows, ending))
    profile = run(config(folder, SEVERAL))
    assert profile.labels == ("ham", "short", "spam")
    assert profile.columns == {"text": "text", "labels": "labels"}
    named = [json.loads(row["labels"]) if ending == "csv" else row["labels"] for row in rows]
    assert profile.label_counts == tuple(sum(name in each for each in named) for name in profile.labels)
    assert profile.data.bad_rows == 0


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_columns_of_one_class_each_are_read_in_every_format(folder: Path, run: Any, ending: str) -> None:
    (folder / "data" / f"a.{ending}").write_bytes(encode(TOXIC, ending))
    profile = run(config(folder, SEVERAL, columns={"text": "text", "labelColumns": ["toxic", "rude"]}))
    assert profile.labels == ("toxic", "rude"), "in the order in which they are named"
    assert profile.label_counts == (30, 20)
    assert profile.resolved.columns == {"text": "text", "labelColumns": "toxic, rude"}
    assert not [f for f in profile.data.findings if f.kind in ("Contradiction", "Duplicates", "AmbiguousColumns")]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2, "column 'rude' holds 2; write 1 or true"),
        ("yes", "column 'rude' holds 'yes'; write 1 or true where the row has this class, else 0 or false"),
        (None, "column 'rude' is missing, null or empty"),
        ([1], "column 'rude' holds list"),
    ],
)
def test_a_column_of_one_class_holds_0_or_1(folder: Path, run: Any, value: Any, says: str) -> None:
    said: tuple[tuple[Any, Any], ...] = ((0, 1), ("1", "false"), (True, 0.0))
    good = [{"text": "x", "toxic": toxic, "rude": rude} for toxic, rude in said]
    write_jsonl(folder / "data" / "a.jsonl", [*good, {"text": "x", "toxic": 0, "rude": value}])
    error = run.refused(config(folder, SEVERAL, columns={"text": "text", "labelColumns": ["toxic", "rude"]}))
    assert "/data/a.jsonl:4: " in error.message
    assert says in error.message
    assert "1 bad row" in error.message


def test_a_column_that_is_not_there_is_named_with_the_nearest(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", TOXIC)
    error = run.refused(config(folder, SEVERAL, columns={"text": "text", "labelColumns": ["toxic", "rud"]}))
    assert error.field == "spec.data.columns.labelColumns[1]"
    assert error.hint.startswith("Did you mean 'rude'?")
    error = run.refused(config(folder, SEVERAL))
    assert error.field == "spec.data.columns.labels"
    assert "list of classes" in error.message
    assert "score" in run.refused(config(folder, NUMBERS)).field


def test_rows_without_any_class_or_with_one_number_have_nothing_to_tell_apart(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.jsonl", ['{"text": "x", "labels": [], "score": 3}'] * 9)
    error = run.refused(config(folder, SEVERAL))
    assert (error.reason, error.field) == (Reason.INVALID_DATA, "spec.data.columns.labels")
    assert "none of the 9 usable rows has a class" in error.message
    error = run.refused(config(folder, NUMBERS))
    assert (error.reason, error.field) == (Reason.INVALID_DATA, "spec.data.columns.score")
    assert "all 9 usable rows have the number 3 (column 'score')" in error.message


def test_equal_texts_with_other_answers_are_copies(folder: Path, run: Any) -> None:
    rows = topics(40, seed=2)
    write_jsonl(folder / "data" / "a.jsonl", [*rows, {**rows[0], "labels": ["ham", "spam", "short"]}])
    found = {f.kind: f.count for f in run(config(folder, SEVERAL)).data.findings}
    assert (found["Duplicates"], found["Contradiction"]) == (1, 1)
    rows = scored(40, seed=2)
    write_jsonl(folder / "data" / "b.jsonl", [*rows, {**rows[0], "score": 4.99}])
    spec = {"output": {"uri": (folder / "out2").as_uri()}, "job_id": "other"}
    found = {f.kind: f.count for f in run(config(folder, NUMBERS, name="b.jsonl", spec=spec)).data.findings}
    assert found["Duplicates"] == 1


def test_many_classes_are_learned_where_each_has_rows(folder: Path, run: Any) -> None:
    rows = [json.dumps({"text": f"t{n}", "label": f"class {n % 1100}"}) for n in range(2400)]
    write_lines(folder / "data", "a.jsonl", rows)
    asked = {"evaluation": {"metric": "auroc"}}
    error = run.refused(config(folder, "text-classification", spec=asked, validation={"fraction": 0.2}))
    assert (error.reason, error.field) == (Reason.INVALID_CONFIG, "spec.evaluation.metric")
    assert "auroc has no meaning for 1100 classes; there are loss, accuracy, macro-f1" in error.message
    profile = run(config(folder, "text-classification"))
    assert profile.data.label_count == len(profile.labels) == 1100


def test_the_mean_of_the_numbers_is_that_of_the_training_rows(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", scored(40, seed=2))
    wanted = config(folder, NUMBERS, validation={"fraction": 0.3})
    profile = run(wanted)
    manifest, _ = load_profile(location(wanted.output.uri, wanted.storage))
    with Stream(wanted, manifest, profile) as stream:
        numbers = [row["score"] for row in stream.rows()]
    assert len(numbers) < 40
    assert profile.spread.learned == pytest.approx(np.mean(numbers))


def test_combinations_of_classes_take_little_memory_even_if_no_two_rows_have_the_same(tmp_path: Path) -> None:
    draws, count = random.Random(1), 20_000
    names = [f"a class with a name of some length {n}" for n in range(200)]
    rows = [{"text": f"row {n}", "labels": draws.sample(names, 10)} for n in range(count)]
    write_jsonl(tmp_path / "data" / "a.jsonl", rows)
    listing, columns = list_source(config(tmp_path, SEVERAL), "train"), {"text": "text", "labels": "labels"}
    tracemalloc.start()
    try:
        found = survey(listing, task_for(SEVERAL), columns, None, BadRows(0), None)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.class_sets) == count + 1
    assert held / count < 400, "with names of its own each row holds 1.2 kB"
