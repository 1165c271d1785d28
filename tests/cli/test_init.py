"""`finetune init`: what it guesses from real files, what it says of it, and that its manifests are valid."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
import yaml
import zstandard
from pyarrow import parquet

from cli.conftest import Terminal
from finetune_api.base import parse
from finetune_api.job import Manifest
from finetune_api.run import StorageAccess
from finetune_cli.init.guess import guess
from finetune_cli.init.sample import sample
from finetune_cli.local.next_steps import after_success
from finetune_trainer.storage import open_store

MAILS = [
    {"id": i, "body": f"mail number {i} " * 9, "label": "spam" if i % 3 == 0 else "ham", "subject": f"s{i}"}
    for i in range(40)
]
CHATS = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]} for i in range(5)]
PAIRS = [{"instruction": f"do {i}", "output": f"done {i} times"} for i in range(9)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(terminal: Terminal, name: str, *options: str) -> tuple[dict[str, Any], str]:
    """The spec that was written for a data file, and what was said; the manifest is valid for a local run."""
    done = terminal.run("init", name, "-o", "made.yaml", *options)
    assert done.returncode == 0, done.stderr
    valid = terminal.run("validate", "--local", "made.yaml")
    assert valid.returncode == 0, valid.stdout
    return yaml.safe_load((terminal.folder / "made.yaml").read_text())["spec"], done.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mails.jsonl", jsonl(MAILS)),
        ("mails.jsonl.gz", gzip.compress(jsonl(MAILS))),
        ("mails.jsonl.zst", zstandard.compress(jsonl(MAILS))),
        ("mails", jsonl(MAILS)),
        (
            "mails.csv",
            (
                "id,body,label,subject\n"
                + "".join(f'{m["id"]},"{m["body"]}\n,",{m["label"]},{m["subject"]}\n' for m in MAILS)
            ).encode(),
        ),
        ("mails.jsonl", b"\xef\xbb\xbf\n" + jsonl(MAILS)),
        ("mails.json", json.dumps(MAILS).encode()),
        ("mails.ndjson.zstd", zstandard.compress(jsonl(MAILS))),
        (
            "mails.tsv",
            ("\n \nbody\tlabel\n" + "".join(f'"{m["body"]} ""x"""\t{m["label"]}\n \n' for m in MAILS)).encode(),
        ),
        ("mails.csv", ("body;label\n" + "".join(f"{m['body']};{m['label']}\n" for m in MAILS)).encode()),
    ],
)
def test_mails_are_for_classification(terminal: Terminal, name: str, content: bytes) -> None:
    (terminal.folder / name).write_bytes(content)
    spec, said = written(terminal, name)
    assert spec["task"] == "text-classification"
    assert spec["data"]["columns"] == {"text": "body", "label": "label"}
    assert spec["data"]["train"]["uri"] == f"file://{terminal.folder}/{name}"
    assert spec["data"].get("format") == (None if "." in name else "jsonl")
    assert "label holds the classes: 2 different values in 40 rows" in said
    assert "classes: ham (26), spam (14)" in said
    assert "finetune run made.yaml" in said


def test_parquet(terminal: Terminal) -> None:
    parquet.write_table(arrow.Table.from_pylist(MAILS), terminal.folder / "mails.parquet")
    spec, _ = written(terminal, "mails.parquet")
    assert spec["data"]["columns"] == {"text": "body", "label": "label"}


def test_chats_and_prompts_are_for_language_models(terminal: Terminal) -> None:
    (terminal.folder / "chats.jsonl").write_bytes(jsonl(CHATS))
    spec, said = written(terminal, "chats.jsonl")
    assert (spec["task"], spec["data"]["columns"]) == ("causal-lm", {"messages": "messages"})
    assert "messages holds chats" in said
    (terminal.folder / "pairs.jsonl").write_bytes(jsonl(PAIRS))
    spec, _ = written(terminal, "pairs.jsonl", "--force")
    assert spec["data"]["columns"] == {"prompt": "instruction", "completion": "output"}


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


def test_what_a_prompt_is_about_and_what_a_chat_may_call_is_not_left_out(terminal: Terminal) -> None:
    alpaca = [{**row, "input": "" if n % 2 else f"about {n}"} for n, row in enumerate(PAIRS)]
    (terminal.folder / "alpaca.jsonl").write_bytes(jsonl(alpaca))
    spec, said = written(terminal, "alpaca.jsonl")
    assert spec["data"]["columns"] == {"prompt": "instruction", "context": "input", "completion": "output"}
    assert "input is what instruction is about" in said
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    calling = [{"messages": [*row["messages"], call], "tools": "[]"} for row in CHATS]
    (terminal.folder / "calls.jsonl").write_bytes(jsonl(calling))
    spec, _ = written(terminal, "calls.jsonl", "--force")
    assert spec["data"]["columns"] == {"messages": "messages", "tools": "tools"}


def test_columns_with_odd_names_and_what_the_user_knows_better(terminal: Terminal) -> None:
    rows = [{"der Text: #1": f"wort {i} " * 5, "yes": f"x {i} " * 3, "kind": i % 2} for i in range(20)]
    (terminal.folder / "d.jsonl").write_bytes(jsonl(rows))
    spec, _ = written(terminal, "d.jsonl")
    assert spec["data"]["columns"] == {"text": "der Text: #1", "label": "kind"}
    spec, _ = written(
        terminal, "d.jsonl", "--force", "--text", "yes", "--label", "kind", "--name", "mine", "--model", "file:///m"
    )
    assert spec["data"]["columns"] == {"text": "yes", "label": "kind"}
    assert spec["model"]["uri"] == "file:///m"


def test_pairs_of_texts(terminal: Terminal) -> None:
    rows = [{"premise": f"a {i}", "hypothesis": f"b {i}", "label": i % 3} for i in range(30)]
    (terminal.folder / "nli.jsonl").write_bytes(jsonl(rows))
    assert written(terminal, "nli.jsonl")[0]["data"]["columns"] == {
        "text": "premise",
        "textPair": "hypothesis",
        "label": "label",
    }


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


def test_the_manifest_goes_to_stdout_without_o(terminal: Terminal) -> None:
    (terminal.folder / "m.jsonl").write_bytes(jsonl(MAILS))
    done = terminal.run("init", "m.jsonl")
    assert yaml.safe_load(done.stdout)["kind"] == "FineTuneJob"
    assert terminal.run("validate", "--local", "-", stdin=done.stdout).returncode == 0


def test_a_file_is_never_replaced_unasked(terminal: Terminal) -> None:
    (terminal.folder / "m.jsonl").write_bytes(jsonl(MAILS))
    (terminal.folder / "mine.yaml").write_text("precious")
    done = terminal.run("init", "m.jsonl", "-o", "mine.yaml")
    assert done.returncode == 1
    assert done.stderr == "error: mine.yaml: is there already\n  --force replaces it.\n"
    assert (terminal.folder / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "none.jsonl: no such file"),
        ("e.jsonl", b"", "e.jsonl: is empty"),
        ("blank.jsonl", b"\n\n", "blank.jsonl: holds no row"),
        ("bad.jsonl", b'{"a": 1}\n{"a": \n', "bad.jsonl:2: not valid JSON: Expecting value"),
        ("nums.jsonl", b"1\n", "nums.jsonl:1: holds a JSON number, not an object"),
        ("list.json", b'[{"a": 1}, 5]', "list.json:2: holds a JSON number"),
        ("wide.csv", b"a,b\n1,2,3\n", "wide.csv:2: has 3 fields where the header has 2"),
        ("latin.csv", b"a,b\n\xe9,1\n", "latin.csv:2: the record is not valid UTF-8"),
        ("cut.jsonl.gz", gzip.compress(jsonl(MAILS))[:60], "cut.jsonl.gz: its compressed data is cut off"),
        (
            "more.jsonl.gz",
            gzip.compress(jsonl(MAILS)) + b"more",
            "more.jsonl.gz: its compressed data is cut off or damaged",
        ),
        ("p.parquet", b"PAR1 nothing", "p.parquet: not a parquet file"),
        ("old.csv", b"a,b\r1,2\r", "old.csv:1: its lines end with carriage returns only"),
        ("open.csv", b'a,"b\n1,2\n', "open.csv:1: the quote opened in line 1 never closes"),
        ("twice.csv", b"a,b\n1,2\na,b\n", "twice.csv:3: repeats the header"),
        ("page.jsonl", b"<!DOCTYPE html>\n", "page.jsonl: the name says plain text, and the file holds HTML or XML"),
        (
            "packed.jsonl",
            gzip.compress(jsonl(MAILS)),
            "packed.jsonl: the name says plain text, and the file holds gzip",
        ),
        ("one.jsonl", jsonl([{"a": "x" * i} for i in range(1, 9)]), "no column holds classes"),
        (
            "sharegpt.jsonl",
            jsonl([{"conversations": [{"from": "human", "value": "x"}]}]),
            "holds chats as from and value",
        ),
    ],
)
def test_files_that_cannot_be_used(terminal: Terminal, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        Path(terminal.folder / name).write_bytes(content)
    done = terminal.run("init", name)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("options", [(), ("--text", "body")])
def test_texts_without_classes_are_there_to_learn_their_language(terminal: Terminal, options: tuple[str, ...]) -> None:
    rows = [{"id": i, "body": m["body"] + str(i)} for i, m in enumerate(MAILS)]
    (terminal.folder / "texts.jsonl").write_bytes(jsonl(rows))
    spec, said = written(terminal, "texts.jsonl", *options)
    assert spec["task"] == "masked-lm"
    assert spec["data"]["columns"] == {"text": "body"}
    assert "no column holds classes" in said
    assert "--label" in said


@pytest.mark.parametrize("place", ["with space/mails.jsonl", "50% off/mails #1.jsonl", "größe\u00a0/mails%20.jsonl"])
def test_a_path_becomes_a_uri_that_means_the_same_path(terminal: Terminal, place: str) -> None:
    path = terminal.folder / place
    path.parent.mkdir()
    path.write_bytes(jsonl(MAILS))
    spec, _ = written(terminal, place)
    store, key = open_store(spec["data"]["train"]["uri"], StorageAccess())
    assert f"/{key}" == str(path)
    assert store.get(key) == path.read_bytes()
    assert open_store(spec["output"]["uri"], StorageAccess())[1].startswith(str(path.parent)[1:] + "/")


def test_a_path_that_would_be_read_as_a_pattern_is_refused(terminal: Terminal) -> None:
    (terminal.folder / "what?.jsonl").write_bytes(jsonl(MAILS))
    done = terminal.run("init", "what?.jsonl")
    assert done.returncode == 1
    assert "? stands for other characters in a data URI" in done.stderr
    assert "Rename the file" in done.stderr


def test_what_is_to_be_copied_is_quoted_for_a_shell(terminal: Terminal) -> None:
    (terminal.folder / "mails.jsonl").write_bytes(jsonl(MAILS))
    done = terminal.run("init", "mails.jsonl", "-o", "my job.yaml")
    assert "finetune run 'my job.yaml'" in done.stderr
    assert "vi 'my job.yaml'" in done.stderr


def test_the_next_steps_are_quoted_for_a_shell(terminal: Terminal) -> None:
    (terminal.folder / "mails.jsonl").write_bytes(jsonl(MAILS))
    made = yaml.safe_load(terminal.run("init", "mails.jsonl").stdout)
    folder = "/it's my $HOME/model"
    for merge in (True, False):
        made["spec"]["output"] = {"uri": f"file://{folder.replace(' ', '%20')}", "merge": merge}
        words = [shlex.split(command, comments=True) for _, command in after_success(parse(Manifest, made, local=True))]
        assert words[0] == ["xdg-open", f"{folder}/report.html"]
        if merge:
            assert words[1][:2] == ["python", "-c"]
            compile(words[1][2], "-c", "exec")
            assert f"{folder}/merged" in words[1][2].replace("\\'", "'")
        else:
            assert words[1] == ["less", f"{folder}/README.md"]
    made["spec"] |= {"task": "question-answering", "method": {"type": "full"}, "data": {"train": {"uri": "s3://d/x"}}}
    made["spec"]["output"] = {"uri": "file:///model"}
    command = dict(after_success(parse(Manifest, made, local=True)))["use the model"]
    assert shlex.split(command, comments=True) == ["less", "/model/README.md"], "transformers has no pipeline for it"


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
    table = arrow.Table.from_pylist([{"image": {"bytes": b"x", "path": None}, "label": n % 2} for n in range(12)])
    parquet.write_table(table, terminal.folder / "rows.parquet")
    assert written(terminal, "rows.parquet", "--force")[0]["data"]["columns"] == {"image": "image", "label": "label"}
    (terminal.folder / "empty").mkdir()
    assert terminal.run("init", "empty").returncode != 0
