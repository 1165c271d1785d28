"""The tasks that judge a text: each is trained, killed, resumed to the bit, exported, and loaded as its card says."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exits import Reason
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.models import mails, scored, tiny_bert, topics, write_jsonl

STEPS = 120
ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "text-classification": mails,
    "multi-label-classification": topics,
    "text-regression": scored,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "model")


def paired(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The second half of each text in a column of its own."""
    cut = [(row, row["text"].split()) for row in rows]
    return [
        {**row, "text": " ".join(words[: len(words) // 2]), "rest": " ".join(words[len(words) // 2 :])}
        for row, words in cut
    ]


def bench(folder: Path, base: Path, task: str) -> Bench:
    data = folder.parent / "data" / f"{task}.jsonl"  # one for all: the splits hang on the place
    train = data if data.exists() else write_jsonl(data, paired(ROWS[task](160, seed=4)))
    answer = {"text-classification": "label", "multi-label-classification": "labels", "text-regression": "score"}[task]
    training: dict[str, Any] = {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 3e-3}
    if task != "text-regression":
        training["classWeights"] = "balanced"
    found = Bench(
        folder,
        {
            "task": task,
            "model": {"uri": base.as_uri()},
            "data": {
                "train": {"uri": train.as_uri()},
                "validation": {"fraction": 0.2},
                "test": {"fraction": 0.2},
                "columns": {"text": "text", "textPair": "rest", answer: answer},
            },
            "method": {"type": "full"},
            "training": training,
            "evaluation": {"everySteps": 60},
            "checkpoints": {"everySteps": 30},
            "output": {"uri": (folder / "out").as_uri()},
        },
    )
    found.prepare()
    return found


@pytest.mark.parametrize("task", ROWS)
def test_a_killed_run_ends_as_if_nothing_had_been_and_its_output_answers(task: str, base: Path, tmp_path: Path) -> None:
    whole, broken = bench(tmp_path / "whole", base, task), bench(tmp_path / "broken", base, task)
    report = whole.attempt()
    calls = iter(range(10_000))
    assert broken.failing(1, stop=lambda: next(calls) > 150).reason is Reason.INTERRUPTED
    stopped = broken.snapshot(1).progress.step  # type: ignore[union-attr]
    assert 0 < stopped < STEPS
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events("step") == whole.events("step")
    assert broken.weights() == whole.weights()
    assert broken.metrics()["test"] == whole.metrics()["test"]
    losses = [event["loss"] for event in whole.events("step")]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert report.test
    assert set(task_for(task).info.metrics) <= set(report.test)

    out = whole.folder / "out"
    stored = json.loads((out / "task.json").read_text())
    if task == "multi-label-classification":
        thresholds = stored["decision"]["thresholds"]
        assert [entry["threshold"] for entry in whole.metrics()["classes"]] == thresholds
        assert set(thresholds) != {0.5}, thresholds
    assert_answers(task, out, ROWS[task](20, seed=9), stored)


def assert_answers(task: str, out: Path, rows: list[dict[str, Any]], stored: dict[str, Any]) -> None:
    """`predict` and the card's code say the same, and mostly the truth."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    t, facts = task_for(task), JobFacts({"text": "text"}, stored["labels"])
    assert t.predict is not None
    with torch.inference_mode():
        answers = t.predict(model, rows, facts, stored["decision"], load_tokenizer(out), stored["maxLength"])
    card = (out / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace('folder = "model"', f"folder = {str(out)!r}")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.replace('"some text"', repr(rows[0]["text"])), "card", "exec"), {})
    line = said.getvalue().strip().splitlines()[-1]
    if task == "text-regression":
        assert float(line) == pytest.approx(answers[0]["score"], abs=1e-4)
        assert sum(abs(a["score"] - row["score"]) for a, row in zip(answers, rows, strict=True)) / len(rows) < 1.0
    elif task == "multi-label-classification":
        assert line == repr(answers[0]["labels"])
        truth = [set(row["labels"]) for row in rows]
        assert sum(set(a["labels"]) == true for a, true in zip(answers, truth, strict=True)) > len(rows) / 5
    else:
        assert line == answers[0]["label"]
        assert sum(a["label"] == row["label"] for a, row in zip(answers, rows, strict=True)) > len(rows) * 0.7


def test_what_is_prepared_is_what_is_learned_from(base: Path, tmp_path: Path) -> None:
    """The counts that weigh the classes, and the spread of the numbers, are those of the training rows."""
    for task in ("multi-label-classification", "text-regression"):
        made = bench(tmp_path / task, base, task)
        config = made.config()
        _, profile = load_profile(location(config.output.uri, config.storage))
        facts = JobFacts.found(config, task_for(task), profile)
        assert facts.rows == profile.data.train_rows < 160
        if facts.labels:
            assert list(facts.labels) == ["ham", "short", "spam"]
            assert 0 < min(facts.label_counts) < facts.rows < sum(facts.label_counts) + facts.rows
        else:
            assert facts.spread is not None
            numbers = [row["score"] for row in scored(160, seed=4)]
            assert (facts.spread.low, facts.spread.high) == (min(numbers), max(numbers))
            assert facts.spread.mean == pytest.approx(sum(numbers) / 160)
