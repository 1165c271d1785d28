"""A task is one value and one row: one that stands in this folder alone is prepared, trained, resumed and exported."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import finetune_api.tasks
from finetune_api.exits import Reason
from finetune_api.run import RunConfig
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses
from finetune_trainer.tasks import registry
from support.attempts import Bench
from support.models import HAM, tiny_bert, write_jsonl
from tasks import word_count

STEPS = 40


@dataclass
class OwnBench(Bench):
    """The contract knows its own tasks only, so the name is put in behind its check."""

    def config(self, attempt: int = 1) -> RunConfig:
        return super().config(attempt).model_copy(update={"task": word_count.INFO.name})


Make = Callable[..., OwnBench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A bench with the task known to it, a model, and texts of 2 to 20 words."""
    monkeypatch.setitem(finetune_api.tasks.TASKS, word_count.INFO.name, word_count.INFO)  # type: ignore[misc]
    monkeypatch.setitem(registry.TASKS, word_count.INFO.name, word_count.TASK)
    base = tiny_bert(tmp_path / "base")
    rng = random.Random(3)
    rows = [{"text": " ".join(rng.choices(HAM, k=rng.randint(2, 20)))} for _ in range(120)] + [{"text": " "}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)

    def bench(name: str, **spec: Any) -> OwnBench:
        data = {"train": {"uri": train.as_uri()}, "validation": {"fraction": 0.1}, "test": {"fraction": 0.1}}
        training = {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 3e-3}
        output = {"uri": (tmp_path / name / "out").as_uri()}
        plain: dict[str, Any] = {"model": {"uri": base.as_uri()}, "data": data, "training": training, "output": output}
        found = OwnBench(tmp_path / name, plain | {"checkpoints": {"everySteps": 10}} | spec)
        found.prepare()
        return found

    return bench


@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
def test_it_trains_and_is_exported(make: Make, method: str) -> None:
    bench = make(method, method={"type": method})
    report = bench.attempt()
    losses = [event["loss"] for event in bench.events("step")]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < sum(losses[:5])
    assert bench.metrics()["test"]["loss"] == report.test["loss"]  # type: ignore[index]
    card = (bench.folder / "out" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card
    assert "print(10 * model(" in card


def test_what_is_exported_is_loaded_by_the_class_that_its_card_names(make: Make) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bench = make("loaded", method={"type": "full"})
    bench.attempt()
    out = bench.folder / "out"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    with torch.inference_mode():
        tens = float(model.eval()(**tokenizer("meeting report lunch", return_tensors="pt")).logits)
    assert 0.1 < tens < 2.5, "a number of words, not the score of a class"


def test_a_batch_counts_rows_however_many_examples_they_give(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counting(model: Any, batch: MicroBatch) -> Losses:
        if model.training:
            seen.append(batch.rows)
        return word_count.squared_error(model, batch)

    task = dataclasses.replace(word_count.TASK, objective=lambda facts: counting)
    bench = make("two", method={"type": "full"}, training={"maxSteps": 1, "globalBatchSize": 8, "microBatchSize": 4})
    monkeypatch.setitem(registry.TASKS, word_count.INFO.name, task)
    bench.attempt()
    assert bench.events("step")[0]["rows"] == 8
    assert seen[:3] == [4, 4, 4]
    assert sum(seen) in (14, 16), "two examples each; the row without a word, if it is among the eight, has none"


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been(make: Make) -> None:
    whole = make("whole", method={"type": "full"})
    whole.attempt()
    broken = make("broken", method={"type": "full"})
    calls = iter(range(10_000))
    assert broken.failing(1, stop=lambda: next(calls) > 60).reason is Reason.INTERRUPTED
    stopped = broken.snapshot(1).progress.step  # type: ignore[union-attr]
    assert 0 < stopped < STEPS
    assert broken.attempt(2).resumed_from_step == stopped
    assert broken.events("step") == whole.events("step")
    assert broken.weights() == whole.weights()
