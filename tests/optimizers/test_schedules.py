"""The learning rate is the formula of its schedule at every step, and a run uses no other."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from finetune_api.schedules import SCHEDULES, rate_at
from support.attempts import Bench
from support.models import mails, write_jsonl

HALF = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
FALL = {
    "linear": [1 - k / 8 for k in range(8)],
    "cosine": [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)],
    "constant": [1.0] * 8,
    "inverse-sqrt": [math.sqrt(2 / (2 + k)) for k in range(8)],
    "wsd": [1.0] * 5 + [3 / 3, 2 / 3, 1 / 3],  # a third of the ten steps
    "cosine-restarts": HALF + HALF,
}
SETTINGS = {"wsd": {"decay_ratio": 0.3}, "cosine-restarts": {"cycles": 2}}


def test_every_schedule_has_its_formula_here() -> None:
    assert set(FALL) == set(SCHEDULES)


@pytest.mark.parametrize("schedule", FALL)
def test_the_rate_rises_to_the_peak_and_falls_as_its_formula_says(schedule: str) -> None:
    more = SETTINGS.get(schedule, {})
    rates = [rate_at(step, peak=2.0, total=10, warmup=2, schedule=schedule, **more) for step in range(1, 11)]
    assert rates == pytest.approx([2 * r for r in (0.5, 1.0, *FALL[schedule])])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak(schedule: str) -> None:
    assert rate_at(1, peak=0.3, total=5, warmup=0, schedule=schedule) == 0.3
    assert rate_at(1, peak=0.3, total=1, warmup=1, schedule=schedule) == 0.3
    assert rate_at(1, peak=0.3, total=1, warmup=0, schedule=schedule) == 0.3


def test_behind_the_last_step_those_that_fall_to_zero_stay_there() -> None:
    behind = {name: rate_at(12, peak=0.3, total=10, warmup=0, schedule=name) for name in SCHEDULES}
    assert {name for name, rate in behind.items() if rate == 0.0} == {"linear", "cosine", "wsd", "cosine-restarts"}


def test_a_fall_longer_than_what_the_warm_up_left_takes_all_of_it() -> None:
    rates = [rate_at(s, peak=1.0, total=10, warmup=5, schedule="wsd", decay_ratio=1.0) for s in range(1, 11)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_restarts_begin_at_the_peak_whatever_the_numbers() -> None:
    """Whole numbers decide: a third of nine steps is never rounded to just before a restart."""
    for steps in range(3, 60, 3):
        for first in (1, 1 + steps // 3, 1 + 2 * steps // 3):
            assert rate_at(first, peak=1.0, total=steps, warmup=0, schedule="cosine-restarts") == 1.0


def test_a_run_uses_these_rates_and_no_others(bert: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1))
    training = {"maxSteps": 10, "globalBatchSize": 4, "learningRate": 1e-3, "warmupRatio": 0.2}
    training |= {"schedule": "cosine-restarts", "scheduleCycles": 2}
    bench = Bench(
        tmp_path, {"model": {"uri": bert.as_uri()}, "data": {"train": {"uri": train.as_uri()}}, "training": training}
    )
    bench.prepare()
    bench.attempt()
    rates = [event["learning_rate"] for event in bench.events("step")]
    assert rates == pytest.approx([1e-3 * r for r in (0.5, 1.0, *FALL["cosine-restarts"])])
    assert "cosine-restarts" in (tmp_path / "out" / "README.md").read_text()
