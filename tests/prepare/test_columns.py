"""Columns: which plays which role, what is said of those left out, and how classes get their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from finetune_api.run import HubAccess
from finetune_api.status import Finding
from finetune_trainer.batches.example import IGNORE
from support.hub import Hub
from support.jobs import job_config
from support.models import mails, write_jsonl
from support.rows import encode, write_lines


@pytest.fixture
def language(folder: Path, llama: Path) -> Path:
    """The folder with a decoder in it."""
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    return folder


def said(profile: Any, *kinds: str) -> dict[str, Finding]:
    return {f.kind: f for f in profile.data.findings if f.kind in kinds}


ALPACA = [{"instruction": f"say {n}", "input": "" if n % 2 else f"loudly {n}", "output": f"{n}"} for n in range(40)]
COLUMNS = ("UnusedColumns", "AmbiguousColumns")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_instructions_with_inputs_are_understood_in_every_format(language: Path, run: Any, ending: str) -> None:
    (language / "data" / f"a.{ending}").write_bytes(encode(ALPACA, ending))
    profile = run(job_config(language, task="causal-lm"))
    assert profile.columns == {"prompt": "instruction", "context": "input", "completion": "output"}
    assert profile.resolved.columns == profile.columns
    assert said(profile, *COLUMNS) == {}
    assert profile.data.bad_rows == 0


def test_the_input_stands_behind_the_instruction_and_is_not_learned() -> None:
    from finetune_trainer.tasks.completion import prompt_of

    columns = {"prompt": "instruction", "context": "input", "completion": "output"}
    assert prompt_of(ALPACA[0], columns) == "say 0\n\nloudly 0"
    for nothing in ({"input": ""}, {"input": None}, {}, {"input": " "}):
        assert prompt_of({"instruction": "say 0", "output": "0", **nothing}, columns) == "say 0"


def test_an_input_of_another_kind_is_a_bad_row(language: Path, run: Any) -> None:
    write_jsonl(language / "data" / "a.jsonl", [*ALPACA, {**ALPACA[0], "input": 3}])
    assert "column 'input' holds int, not text" in run.refused(job_config(language, task="causal-lm")).message


def test_who_names_prompt_and_completion_is_told_of_the_context(language: Path, run: Any) -> None:
    write_jsonl(language / "data" / "a.jsonl", ALPACA)
    named = {"prompt": "instruction", "completion": "output"}
    data = {"train": {"uri": f"{language.as_uri()}/data/*"}, "columns": named}
    profile = run(job_config(language, task="causal-lm", data=data))
    assert profile.columns == named
    found = said(profile, *COLUMNS)["UnusedColumns"]
    assert found.message.startswith("Left out: column 'input'.")
    assert "spec.data.columns.context" in found.message
    assert found.count == 40


def test_other_columns_of_a_chat_are_said_to_be_left_out_wherever_they_occur(language: Path, run: Any) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows: list[dict[str, Any]] = [{"messages": chat, "id": n} for n in range(150)]
    rows[120]["system"] = "be kind"
    write_jsonl(language / "data" / "a.jsonl", rows)
    found = said(run(job_config(language, task="causal-lm")), *COLUMNS)
    assert list(found) == ["UnusedColumns"]
    assert found["UnusedColumns"].message.startswith("Left out: column 'system'.")


def test_tools_are_taken_by_their_usual_name_and_said_where_the_template_hides_them(language: Path, run: Any) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write_jsonl(language / "data" / "a.jsonl", [{"messages": chat, "tools": '[{"name": "f"}]'}] * 20)
    profile = run(job_config(language, task="causal-lm"))
    assert profile.columns == {"messages": "messages", "tools": "tools"}
    assert said(profile, "HiddenTools")["HiddenTools"].count == 20


def test_where_several_columns_could_be_meant_it_is_said_unless_one_was_named(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.csv", ["text,body,label", *(f"t{n},b{n},{n % 2}" for n in range(40))])
    found = said(run(job_config(folder)), *COLUMNS)
    assert list(found) == ["AmbiguousColumns"]
    assert (
        "Column 'text' is taken for the text, and column 'body' could be meant, too."
        in found["AmbiguousColumns"].message
    )
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "columns": {"text": "body", "label": "label"}}
    assert said(run(job_config(folder, data=data)), *COLUMNS) == {}


def test_a_pair_of_which_one_half_is_left_out_is_said(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.csv", ["text,hypothesis,label", *(f"t{n},h{n},{n % 2}" for n in range(40))])
    assert "'hypothesis'" in said(run(job_config(folder)), *COLUMNS)["UnusedColumns"].message


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["--1", "2"], ("--1", "2")),
        (["10", "9", "-3"], ("-3", "9", "10")),
        (["1", "01"], ("01", "1")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["9" * 5000, "1"], ("1", "9" * 5000)),
    ],
)
def test_labels_are_texts_unless_all_are_plain_numbers(labels: list[str], order: tuple[str, ...]) -> None:
    from finetune_trainer.prepare.checks.labels import sort_labels

    assert sort_labels(labels) == order


def test_hidden_turns_of_every_source_are_counted(language: Path, run: Any) -> None:
    settings = json.loads((language / "model" / "tokenizer_config.json").read_text())
    shown = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    last_only = f"{{% for m in messages if m['role'] != 'assistant' or m == messages[-1] %}}{shown}{{% endfor %}}"
    (language / "model" / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": last_only, "eos_token": "<|endoftext|>"})
    )
    long = [{"role": r, "content": f"{r} {n}"} for n in range(3) for r in ("user", "assistant")]
    write_jsonl(language / "data" / "train.jsonl", [{"messages": long[:2]}] * 10)
    write_jsonl(language / "data" / "test.jsonl", [{"messages": long}] * 10)
    base = language.as_uri()
    data = {"train": {"uri": f"{base}/data/train.jsonl"}, "test": {"uri": f"{base}/data/test.jsonl"}}
    profile = run(job_config(language, task="causal-lm", data=data, training={"maxLength": 200}))
    found = said(profile, "HiddenTurns")["HiddenTurns"]
    assert found.message.startswith("In 100.0% of the test rows looked at")
    assert (found.count, found.line, (found.file or "").rpartition("/")[2]) == (10, 1, "test.jsonl")
    assert profile.ends == (2,), "<|im_end|>, whatever the tokenizer calls its end of text"


def test_a_class_that_a_held_out_split_lacks_is_said(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "train.csv", ["text,label", *(f"t{n},{n % 3}" for n in range(60))])
    write_lines(folder / "data", "test.csv", ["text,label", *(f"u{n},{n % 2}" for n in range(20))])
    base = folder.as_uri()
    data = {"train": {"uri": f"{base}/data/train.csv"}, "test": {"uri": f"{base}/data/test.csv"}}
    found = said(run(job_config(folder, data=data)), "UnjudgedLabel")["UnjudgedLabel"]
    assert found.message.startswith("No test row has the class '2'")


NAMES = ["sport", "world", "unseen"]
NUMBERED = [{"text": f"t {n}", "label": n % 2} for n in range(40)]


def features(names: list[str]) -> dict[str, Any]:
    return {
        "info": {
            "features": {
                "text": {"dtype": "string", "_type": "Value"},
                "label": {"names": names, "_type": "ClassLabel"},
            }
        }
    }


def parquet(path: Path, names: list[str]) -> None:
    table = pyarrow.Table.from_pylist(NUMBERED)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features(names))}), path)


def test_numbers_get_the_names_that_the_data_set_has_for_them(folder: Path, run: Any) -> None:
    parquet(folder / "data" / "a.parquet", NAMES)
    profile = run(job_config(folder))
    assert profile.labels == tuple(NAMES)
    assert profile.label_names == tuple(NAMES)
    assert "'unseen'" in said(profile, "UnseenLabel")["UnseenLabel"].message
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "labels": ["0", "1"]}
    asked = run(job_config(folder, data=data))
    assert (asked.labels, asked.label_names) == (("0", "1"), None)
    data["labels"] = ["world", "sport"]
    assert run(job_config(folder, data=data)).labels == ("world", "sport")


def test_a_number_without_a_name_is_a_bad_row(folder: Path, run: Any) -> None:
    parquet(folder / "data" / "a.parquet", NAMES[:1])
    assert "class '1' is not among the labels ('sport')" in run.refused(job_config(folder)).message


CARD = b"""---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': sport
          '1': world
---
"""


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_card_of_a_hub_set_names_its_classes(folder: Path, hub: Hub, run: Any, ending: str) -> None:
    hub.add("datasets", "lab/news", {f"train.{ending}": encode(NUMBERED, ending), "README.md": CARD})
    access = HubAccess(endpoint=hub.endpoint)
    profile = run(job_config(folder, hub=access, data={"train": {"uri": "hf://lab/news"}}))
    assert profile.labels == ("sport", "world")


def test_the_loop_learns_the_classes_by_their_names(folder: Path, run: Any) -> None:
    from finetune_trainer.tasks.columns import with_name

    assert with_name({"label": 1}, "label", NAMES) == {"label": "world"}
    assert with_name({"label": "1"}, "label", NAMES) == {"label": "world"}
    assert with_name({"label": "world"}, "label", NAMES) == {"label": "world"}
    assert with_name({"label": -1}, "label", NAMES) == {"label": -1}
    assert with_name({"label": True}, "label", NAMES) == {"label": True}
    assert with_name({"label": "0"}, "label", ["1", "0"]) == {"label": "0"}
    assert IGNORE < 0


def test_a_wrong_column_is_told_before_the_model_is_looked_at(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes take seconds to import."""
    monkeypatch.setattr(
        "finetune_trainer.prepare.pipeline.check_model_fits", lambda *_: pytest.fail("the model was built")
    )
    write_jsonl(folder / "data" / "a.jsonl", mails(4))
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "columns": {"text": "body"}}
    assert "'body'" in run.refused(job_config(folder, data=data)).message
