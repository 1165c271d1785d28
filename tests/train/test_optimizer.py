"""The learning rate is the formula of its schedule at every step, and decay is for matrices only."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from finetune_api.tuning import Training
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for
from finetune_trainer.train.optimizer import adamw, rate_at
from support.attempts import Bench
from support.models import mails, write_jsonl

FALL = {
    "linear": [1 - k / 8 for k in range(8)],
    "cosine": [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)],
    "constant": [1.0] * 8,
}


@pytest.mark.parametrize("schedule", FALL)
def test_the_rate_rises_to_the_peak_and_falls_as_its_formula_says(schedule: str) -> None:
    rates = [rate_at(step, peak=2.0, total=10, warmup=2, schedule=schedule) for step in range(1, 11)]
    assert rates == pytest.approx([2 * r for r in (0.5, 1.0, *FALL[schedule])])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rate_at(1, peak=0.3, total=5, warmup=0, schedule="linear") == 0.3
    assert rate_at(1, peak=0.3, total=1, warmup=1, schedule="cosine") == 0.3
    assert rate_at(12, peak=0.3, total=10, warmup=0, schedule="linear") == 0.0


def test_a_run_uses_these_rates_and_no_others(bert: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1))
    training = {"maxSteps": 10, "globalBatchSize": 4, "learningRate": 1e-3, "schedule": "cosine", "warmupRatio": 0.2}
    bench = Bench(
        tmp_path, {"model": {"uri": bert.as_uri()}, "data": {"train": {"uri": train.as_uri()}}, "training": training}
    )
    bench.prepare()
    bench.attempt()
    rates = [event["learning_rate"] for event in bench.events("step")]
    assert rates == pytest.approx([1e-3 * r for r in (0.5, 1.0, *FALL["cosine"])])


def test_weight_decay_is_for_matrices_only(bert: Path) -> None:
    model = load_model(bert, task_for("text-classification").head, labels=("ham", "spam"), seed=0, pad_id=0)
    decayed, plain = adamw(model, Training(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() > 1 for p in decayed["params"])
    assert all(p.dim() <= 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_one_update_is_adamws_formula() -> None:
    model = torch.nn.Linear(3, 2)
    before, rate, decay = model.weight.detach().clone(), 0.1, 0.01
    optimizer = adamw(model, Training(weight_decay=decay))
    model.weight.grad, model.bias.grad = torch.full_like(model.weight, 0.5), torch.zeros(2)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    expected = before * (1 - rate * decay) - rate * 0.5 / (0.5 + 1e-8)
    assert torch.allclose(model.weight, expected, atol=1e-6)
