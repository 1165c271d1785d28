"""A model learns to find answers, to give none, and to do the same after it was loaded again by plain transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import Reason
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.question_answering import TASK
from support.attempts import Bench
from support.models import questions, tiny_bert, write_jsonl

STEPS = 90
Make = Callable[..., Bench]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_bert(folder / "model", hidden=32, dropout=0.05)
    write_jsonl(
        folder / "train.jsonl", [*questions(240, seed=1, words=(6, 20)), *questions(40, seed=2, words=(40, 60))]
    )
    return folder


@pytest.fixture(scope="module")
def make(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    tmp_path = tmp_path_factory.mktemp("benches")

    def bench(name: str, **spec: Any) -> Bench:
        plain: dict[str, Any] = {
            "task": "question-answering",
            "model": {"uri": (inputs / "model").as_uri()},
            "data": {
                "train": {"uri": (inputs / "train.jsonl").as_uri()},
                "validation": {"fraction": 0.15},
                "test": {"fraction": 0.15},
            },
            "training": {
                "maxSteps": STEPS,
                "globalBatchSize": 16,
                "microBatchSize": 8,
                "learningRate": 1e-2,
                "maxLength": 48,
            },
            "evaluation": {"everySteps": 30},
            "checkpoints": {"everySteps": 30},
            "output": {"uri": (tmp_path / name / "out").as_uri()},
        }
        found = Bench(tmp_path / name, plain | spec)
        found.prepare()
        return found

    return bench


@pytest.fixture(scope="module")
def whole(make: Make) -> Bench:
    """A run that nobody disturbed."""
    bench = make("whole", method={"type": "full"})
    bench.attempt()
    return bench


def test_it_learns_is_judged_exported_and_answers_the_same_again(whole: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForQuestionAnswering

    bench, report = whole, whole.snapshot()
    losses = [event["loss"] for event in bench.events("step")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert report.test is not None
    assert report.test["answer-f1"] > 0.8
    assert report.test["answer-f1-low"] < report.test["answer-f1"] < report.test["answer-f1-high"]
    out = bench.folder / "out"
    said = json.loads((out / "task.json").read_text())
    threshold = said["decision"]["noAnswerThreshold"]
    assert isinstance(threshold, float)
    assert said["settings"] == {"maxAnswerTokens": 30}
    (table,) = bench.metrics()["tables"]
    assert [row[0] for row in table["rows"]] == ["rows with an answer", "rows without an answer"]

    page, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    for text in ("<h3>Reference</h3>", "what is the offer?", "(no answer)", "rows without an answer"):
        assert text in page
    assert "| rows without an answer |" in card

    model = AutoModelForQuestionAnswering.from_pretrained(out).eval()
    facts = JobFacts(said["columns"], settings=TASK.defaults)
    rows = questions(24, seed=9, words=(5, 60))
    assert TASK.predict is not None
    with torch.inference_mode():
        given = TASK.predict(model, rows, facts, said["decision"], load_tokenizer(out), said["maxLength"])
    right = [(row["answers"]["text"] or [""])[0] for row in rows]
    assert sum(answer["answer"] == text for answer, text in zip(given, right, strict=True)) >= 16
    assert any(answer["answer"] == "" for answer in given)
    for row, answer in list(zip(rows, given, strict=True))[:6]:
        assert _by_the_card(card, out, row, monkeypatch) == (answer["answer"] or "(no answer)")


def _by_the_card(card: str, folder: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the card's code prints for a row."""
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    code = code.replace('folder = "model"', f"folder = {str(folder)!r}")
    code = re.sub(r"question, context = .*", f"question, context = {row['question']!r}, {row['context']!r}", code)
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text: printed.append(text))
    exec(compile(code, "card", "exec"), {})
    monkeypatch.undo()
    return printed[-1]


def test_adapters_are_trained_with_the_new_head_and_load_in_peft(make: Make) -> None:
    from peft import AutoPeftModelForQuestionAnswering

    found = make("lora", method={"type": "lora"})
    found.attempt()
    losses = [event["loss"] for event in found.events("step")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    out = found.folder / "out"
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["task_type"], {*config["modules_to_save"]}) == ("QUESTION_ANS", {"qa_outputs"})
    model = AutoPeftModelForQuestionAnswering.from_pretrained(out).eval()
    said = json.loads((out / "task.json").read_text())
    with torch.inference_mode():
        assert TASK.predict is not None
        given = TASK.predict(
            model,
            questions(12, seed=3),
            JobFacts(said["columns"], settings=TASK.defaults),
            said["decision"],
            load_tokenizer(out),
            said["maxLength"],
        )
    assert len({answer["answer"] for answer in given}) > 1


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been(make: Make, whole: Bench) -> None:
    broken = make("broken", method={"type": "full"})
    calls = iter(range(10_000))
    assert broken.failing(1, stop=lambda: next(calls) > 170).reason is Reason.INTERRUPTED
    stopped = broken.snapshot(1).progress.step  # type: ignore[union-attr]
    assert 0 < stopped < STEPS
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events() == whole.events()
    assert broken.weights() == whole.weights()
    assert broken.metrics()["test"] == whole.metrics()["test"]
    task = [(bench.folder / "out" / "task.json").read_text() for bench in (whole, broken)]
    assert task[0] == task[1]


def test_without_validation_rows_no_threshold_is_chosen_on_the_test_rows(make: Make, inputs: Path) -> None:
    data = {"train": {"uri": (inputs / "train.jsonl").as_uri()}, "test": {"fraction": 0.15}}
    training = {"maxSteps": 2, "globalBatchSize": 8, "maxLength": 48}
    bench = make("tested", data=data, training=training, evaluation={})
    bench.attempt()
    assert json.loads((bench.folder / "out" / "task.json").read_text())["decision"] == {"noAnswerThreshold": 0.0}
