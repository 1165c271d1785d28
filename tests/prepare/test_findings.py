"""What would learn nothing, or less than it seems: refused, or found and told with its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from finetune_trainer.prepare.checks import many_rows
from support.jobs import job_config
from support.models import chats, mails, write_jsonl
from support.rows import write_lines


def test_chats_of_which_nothing_is_left_are_refused(folder: Path, llama: Path, run: Any) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    rows = [
        {"messages": [{"role": "user", "content": "long question " * 10}, {"role": "assistant", "content": "no"}]}
    ] * 20
    write_jsonl(folder / "data" / "a.jsonl", rows)
    error = run.refused(job_config(folder, task="causal-lm", training={"maxLength": 32}))
    assert error.reason == Reason.NOTHING_TO_LEARN
    assert error.field == "spec.training.maxLength"
    write_jsonl(folder / "data" / "b.jsonl", chats(20))
    found = {f.kind: f for f in run(job_config(folder, task="causal-lm", training={"maxLength": 64})).data.findings}
    assert found["NothingToLearn"].count == 20
    assert found["NothingToLearn"].line == 1


def test_a_method_for_few_rows_says_so_where_there_are_many(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(60))
    monkeypatch.setattr(many_rows, "MANY", 59)
    for method, said in (("setfit", ["ManyRows"]), ("full", [])):
        found = [f for f in run(job_config(folder, method={"type": method})).data.findings if f.kind == "ManyRows"]
        assert [f.kind for f in found] == said
        assert all(f.count == 60 and "full, freeze or lora" in f.message for f in found)
    monkeypatch.setattr(many_rows, "MANY", 60)
    found = run(job_config(folder, method={"type": "setfit"})).data.findings
    assert "ManyRows" not in {f.kind for f in found}


def test_a_length_above_the_models_is_refused(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(20))
    error = run.refused(job_config(folder, training={"maxLength": 129}))
    assert error.reason == Reason.INVALID_CONFIG
    assert error.field == "spec.training.maxLength"
    assert "128" in error.message


def test_truncation_duplicates_overlap_contradictions_and_rare_classes_are_found(folder: Path, run: Any) -> None:
    rows = [{"text": f"meeting {n} " * (60 if n < 30 else 1), "label": "ham"} for n in range(200)]
    rows += [
        {"text": "Free  PRIZE", "label": "spam"},
        {"text": "free prize", "label": "ham"},
        {"text": "ＦＲＥＥ prize\n", "label": "spam"},
    ]
    write_jsonl(folder / "data" / "train.jsonl", rows)
    write_jsonl(
        folder / "data" / "test.jsonl", [{"text": "new text", "label": "ham"}, {"text": "FREE prize", "label": "spam"}]
    )
    base = folder.as_uri()
    data = {
        "train": {"uri": f"{base}/data/train.jsonl"},
        "test": {"uri": f"{base}/data/test.jsonl"},
        "labels": ["ham", "spam", "eggs"],
    }
    profile = run(job_config(folder, data=data, training={"maxLength": 32}))
    found = {f.kind: f for f in profile.data.findings}
    assert list(found) == [
        "Overlap",
        "Contradiction",
        "Truncated",
        "UnseenLabel",
        "Imbalance",
    ]  # five at most, the gravest first
    assert found["Overlap"].file is not None
    assert found["Overlap"].file.endswith("test.jsonl")
    assert (found["Overlap"].count, found["Overlap"].line) == (1, 2)
    assert found["Contradiction"].count >= 1
    assert found["Truncated"].count == 30
    assert profile.data.lengths is not None
    assert profile.data.lengths.truncated_fraction == pytest.approx(30 / 203, abs=1e-3)
    assert "eggs" in found["UnseenLabel"].message
    assert "'spam' has 2 of 203" in found["Imbalance"].message


def test_a_finding_has_the_right_line_or_none(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.csv", ["text,label", "one,ham", "two,spam", "one,ham"])
    assert [(f.kind, f.line) for f in run(job_config(folder)).data.findings] == [("Duplicates", 4)]
    write_lines(folder / "data", "a.csv", ["text,label", '"two', 'lines",ham', "two,spam", '"two', 'lines",ham'])
    assert [(f.kind, f.line) for f in run(job_config(folder)).data.findings] == [("Duplicates", None)]


def test_classes_that_differ_in_case_or_space_only_are_found(folder: Path, run: Any) -> None:
    write_lines(folder / "data", "a.csv", ["text,label", "one,ham", "two,Ham", "three,spam", "four, spam"])
    found = [f for f in run(job_config(folder)).data.findings if f.kind == "SimilarLabels"]
    assert [(f.count, f.message.partition(" differ")[0]) for f in found] == [(1, "Classes 'Ham' and 'ham'")]
