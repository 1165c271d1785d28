"""`finetune init` knows the rows of each task: questions on texts, several classes, numbers, entities, images."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

from cli.conftest import Terminal
from cli.manifests import jsonl, written
from finetune_cli.init.guess import guess
from finetune_cli.init.sample import sample

ASKED = [
    {
        "id": n,
        "question": f"what is {n}?",
        "context": f"{n} is {n} times one",
        "answers": {"text": ["one"], "answer_start": [9]},
    }
    for n in range(12)
]


def test_questions_on_texts(terminal: Terminal) -> None:
    (terminal.folder / "squad.jsonl").write_bytes(
        jsonl([*ASKED, {**ASKED[0], "answers": {"text": [], "answer_start": []}}])
    )
    spec, said = written(terminal, "squad.jsonl")
    assert spec["task"] == "question-answering"
    assert spec["data"]["columns"] == {"question": "question", "context": "context", "answers": "answers"}
    assert "question asks of context" in said
    flat = [
        {"query": r["question"], "passage": r["context"], "answer": "one" if n % 3 else None, "answer_start": 9}
        for n, r in enumerate(ASKED)
    ]
    (terminal.folder / "flat.jsonl").write_bytes(jsonl([{**row, "is_impossible": not row["answer"]} for row in flat]))
    spec, said = written(terminal, "flat.jsonl", "--force")
    assert spec["task"] == "question-answering"
    assert spec["data"]["columns"] == {
        "question": "query",
        "context": "passage",
        "answer": "answer",
        "answerStart": "answer_start",
        "unanswerable": "is_impossible",
    }
    free = [
        {"question": r["question"], "context": r["context"], "answer": f"it must be {n}"} for n, r in enumerate(ASKED)
    ]
    (terminal.folder / "free.jsonl").write_bytes(jsonl(free))
    spec, _ = written(terminal, "free.jsonl", "--force")
    assert spec["task"] == "causal-lm", "answers in words of their own are written, not found"


def test_squads_nested_file_is_no_rows(terminal: Terminal) -> None:
    nested = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}
    (terminal.folder / "dev.json").write_text(json.dumps(nested))
    done = terminal.run("init", "dev.json")
    assert done.returncode == 1
    assert "SQuAD's nested file" in done.stderr
    assert "jq -c '.data[].paragraphs[]" in done.stderr


TOPICS = [{"text": f"{w} word {w} " * 4, "tags": ["a", "b", "c"][: w % 4]} for w in range(40)]
TOXIC = [{"id": n, "comment": f"{n} words {n} " * 5, "toxic": n % 2, "rude": int(n % 5 == 0)} for n in range(40)]
REVIEWS = [{"id": n, "review": f"{n} words {n} " * 5, "score": round(1 + n * 0.07, 2)} for n in range(40)]


@pytest.mark.parametrize(
    ("rows", "task", "columns", "said"),
    [
        (TOPICS, "multi-label-classification", {"text": "text", "labels": "tags"}, "lists of classes: 3 different"),
        (
            TOXIC,
            "multi-label-classification",
            {"text": "comment", "labelColumns": ["toxic", "rude"]},
            "toxic, rude are a class each",
        ),
        (
            [{**row, "rude": bool(row["rude"]), "toxic": row["toxic"] == 1} for row in TOXIC],
            "multi-label-classification",
            {"text": "comment", "labelColumns": ["toxic", "rude"]},
            "classes: toxic (20), rude (8)",
        ),
        ([{**row, "label": row["toxic"]} for row in TOXIC], "text-classification", None, "label holds the classes"),
        (REVIEWS, "text-regression", {"text": "review", "score": "score"}, "score holds numbers from 1 to 3.73"),
        (
            [{"sentence1": r["review"], "sentence2": r["review"], "similarity": r["id"] * 3} for r in REVIEWS],
            "text-regression",
            {"text": "sentence1", "textPair": "sentence2", "score": "similarity"},
            "similarity holds numbers from 0 to 117",
        ),
        (
            [{"review": r["review"], "stars": r["id"] % 5} for r in REVIEWS],
            "text-classification",
            {"text": "review", "label": "stars"},
            "stars holds the classes: 5 different",
        ),
        (
            [{**row, "label": "good" if row["id"] % 2 else "bad"} for row in REVIEWS],
            "text-classification",
            {"text": "review", "label": "label"},
            "label holds the classes",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_several_classes_and_numbers(
    tmp_path: Path, rows: list[dict[str, Any]], task: str, columns: dict[str, Any] | None, said: str, ending: str
) -> None:
    content = jsonl(rows)
    if ending == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, [*rows[0]])
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        content = text.getvalue().encode()
    (tmp_path / f"rows.{ending}").write_bytes(content)
    found = guess(sample(tmp_path / f"rows.{ending}").rows)
    assert found.task.name == task
    plain = {role: name if isinstance(name, str) else list(name) for role, name in found.columns.items()}
    assert columns is None or plain == columns
    classes = ", ".join(f"{name} ({count})" for name, count in found.classes.items())
    assert said in "; ".join((*found.reasons, f"classes: {classes}"))


def test_columns_of_one_class_each_are_written_as_a_list(terminal: Terminal) -> None:
    (terminal.folder / "d.jsonl").write_bytes(jsonl(TOXIC))
    spec, said = written(terminal, "d.jsonl")
    assert spec["data"]["columns"] == {"text": "comment", "labelColumns": ["toxic", "rude"]}
    assert "classes: toxic (20), rude (8)" in said


WORDS = [{"id": n, "tokens": ["Ann", "sees", "Bonn"], "ner_tags": ["B-PER", "O", "B-LOC"]} for n in range(9)]
MARKED = [{"text": f"Ann sees {n}", "entities": [{"start": 0, "end": 3, "label": "PER"}]} for n in range(9)]
TRIPLES = [{"body": f"{n} Ann", "marks": [[2, 5, "PER"]], "kind": "a"} for n in range(9)]
SENTENCES = [{"words": ["it", "runs"], "upos": [3, 4]} for _ in range(9)]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (WORDS, {"tokens": "tokens", "tags": "ner_tags"}, "classes: B-PER (9), O (9), B-LOC (9)"),
        (
            MARKED,
            {"text": "text", "spans": "entities"},
            "entities holds start, end and label of what is marked in text",
        ),
        (TRIPLES, {"text": "body", "spans": "marks"}, "classes: PER (9)"),
        (SENTENCES, {"tokens": "words", "tags": "upos"}, "upos holds a tag for each of them"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_words_with_tags_and_texts_with_spans_are_for_entities(
    terminal: Terminal, rows: list[dict[str, Any]], columns: dict[str, str], said: str, ending: str
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({n: json.dumps(v) if isinstance(v, list) else v for n, v in row.items()} for row in rows)
    (terminal.folder / f"names.{ending}").write_bytes(jsonl(rows) if ending == "jsonl" else text.getvalue().encode())
    spec, told = written(terminal, f"names.{ending}")
    assert (spec["task"], spec["data"]["columns"]) == ("token-classification", columns)
    assert said in told


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"a {n}", "label": "xy"[n % 2], "tokens": ["a"]} for n in range(9)],
        [{"text": f"a {n}", "label": "xy"[n % 2], "tokens": ["a"], "tags": ["x"] * (n % 2)} for n in range(9)],
        [{"text": f"a {n}", "label": "xy"[n % 2], "spans": []} for n in range(9)],
        [{"text": f"a {n}", "label": "xy"[n % 2], "spans": "[{"} for n in range(9)],
    ],
)
def test_rows_that_only_look_like_entities_are_not_taken_for_them(
    terminal: Terminal, rows: list[dict[str, Any]]
) -> None:
    (terminal.folder / "rows.jsonl").write_bytes(jsonl(rows))
    assert written(terminal, "rows.jsonl")[0]["task"] == "text-classification"


def test_a_folder_of_images_and_a_table_that_names_them(terminal: Terminal) -> None:
    for name in ("rose", "tulip"):
        (terminal.folder / "flowers" / name).mkdir(parents=True)
        for n in range(6):
            (terminal.folder / "flowers" / name / f"{n}.JPG").write_bytes(b"")
    spec, said = written(terminal, "flowers")
    assert (spec["task"], spec["data"]["columns"]) == ("image-classification", {"image": "image", "label": "label"})
    assert spec["data"]["train"]["uri"].endswith("/flowers")
    assert "classes: rose (6), tulip (6)" in said
    rows = [{"id": n, "photo": f"a/{n}.png", "kind": "ab"[n % 2], "text": f"words {n}"} for n in range(12)]
    (terminal.folder / "rows.jsonl").write_bytes(jsonl(rows))
    spec, said = written(terminal, "rows.jsonl", "--force")
    assert (spec["task"], spec["data"]["columns"]) == ("image-classification", {"image": "photo", "label": "kind"})
    assert "photo names images" in said
    rows = [{"picture": "data:image/png;base64,iVBORw0KGgo=", "kind": n % 2} for n in range(12)]
    (terminal.folder / "held.jsonl").write_bytes(jsonl(rows))
    assert written(terminal, "held.jsonl", "--force")[0]["data"]["columns"] == {"image": "picture", "label": "kind"}
    table = arrow.Table.from_pylist([{"image": {"bytes": b"x", "path": None}, "label": n % 2} for n in range(12)])
    parquet.write_table(table, terminal.folder / "rows.parquet")
    assert written(terminal, "rows.parquet", "--force")[0]["data"]["columns"] == {"image": "image", "label": "label"}
    (terminal.folder / "empty").mkdir()
    assert terminal.run("init", "empty").returncode != 0
