"""`finetune init`: what it guesses from real files, what it says of it, and that its manifests are valid."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import pyarrow as arrow
import pytest
import yaml
import zstandard
from pyarrow import parquet

from cli.conftest import Terminal
from cli.manifests import jsonl, written
from finetune_api.base import parse
from finetune_api.job import Manifest
from finetune_api.method import METHODS
from finetune_api.run import StorageAccess
from finetune_api.tasks import TASKS
from finetune_cli.local.next_steps import after_success
from finetune_trainer.storage import open_store

MAILS = [
    {"id": i, "body": f"mail number {i} " * 9, "label": "spam" if i % 3 == 0 else "ham", "subject": f"s{i}"}
    for i in range(40)
]
CHATS = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]} for i in range(5)]
PAIRS = [{"instruction": f"do {i}", "output": f"done {i} times"} for i in range(9)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mails.jsonl", jsonl(MAILS)),
        ("mails.jsonl.gz", gzip.compress(jsonl(MAILS), mtime=0)),
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


def test_every_method_that_suits_the_task_is_listed_and_no_other(terminal: Terminal) -> None:
    for name, rows in (("mails.jsonl", MAILS), ("pairs.jsonl", PAIRS)):
        (terminal.folder / name).write_bytes(jsonl(rows))
        text = terminal.run("init", name).stdout
        task = TASKS[yaml.safe_load(text)["spec"]["task"]]
        fit = {method.name: method.trains for method in METHODS.values() if method.fits(task)}
        listed = dict(re.findall(r"^    # ([a-z0-9-]+): (.*)$", text.partition("  training:")[0], re.MULTILINE))
        assert listed == fit
    assert "features" not in fit


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
        ("cut.jsonl.gz", gzip.compress(jsonl(MAILS), mtime=0)[:60], "cut.jsonl.gz: its compressed data is cut off"),
        (
            "more.jsonl.gz",
            gzip.compress(jsonl(MAILS), mtime=0) + b"more",
            "more.jsonl.gz: its compressed data is cut off or damaged",
        ),
        ("p.parquet", b"PAR1 nothing", "p.parquet: not a parquet file"),
        ("old.csv", b"a,b\r1,2\r", "old.csv:1: its lines end with carriage returns only"),
        ("open.csv", b'a,"b\n1,2\n', "open.csv:1: the quote opened in line 1 never closes"),
        ("twice.csv", b"a,b\n1,2\na,b\n", "twice.csv:3: repeats the header"),
        ("page.jsonl", b"<!DOCTYPE html>\n", "page.jsonl: the name says plain text, and the file holds HTML or XML"),
        (
            "packed.jsonl",
            gzip.compress(jsonl(MAILS), mtime=0),
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


def test_few_rows_of_each_class_are_compared(terminal: Terminal) -> None:
    for rows, per_class, method in ((MAILS, 14, "setfit"), (MAILS * 3, 42, "lora"), (MAILS[:9], 3, "lora")):
        (terminal.folder / "mails.jsonl").write_bytes(jsonl(rows))
        spec, said = written(terminal, "mails.jsonl", "--force")
        assert f"spam ({per_class})" in said
        assert spec["method"]["type"] == method
        assert ("folds" in spec.get("evaluation", {})) == (method == "setfit")
        assert ("test" in spec["data"]) == (method == "lora")


def test_the_lines_of_a_text_are_rows(terminal: Terminal) -> None:
    (terminal.folder / "texts.txt.gz").write_bytes(gzip.compress("\n\n".join(m["body"] for m in MAILS).encode()))
    spec, said = written(terminal, "texts.txt.gz")
    assert (spec["task"], spec["data"]["columns"]) == ("masked-lm", {"text": "text"})
    assert "format" not in spec["data"]
    assert "from 40 rows looked at" in said


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
    (terminal.folder / "mails.jsonl").write_bytes(jsonl(MAILS * 3))
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
