"""The range test makes its steps at rates that rise exponentially, until the loss has run away, and saves nothing."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from finetune_api.exits import COMPLETE, EXITS, Reason
from finetune_trainer.launch.find_rate import find_rate
from finetune_trainer.launch.warm_up import warm_up
from finetune_trainer.train import range_test
from support.attempts import Bench
from support.models import mails, write_jsonl

STEPS = 40


@pytest.fixture
def bench(bert: Path, tmp_path: Path) -> Bench:
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1)).as_uri()
    training = {"maxSteps": STEPS, "globalBatchSize": 8, "learningRate": 1e-3}
    made = Bench(tmp_path, {"model": {"uri": bert.as_uri()}, "data": {"train": {"uri": train}}, "training": training})
    made.prepare()
    return made


def test_rates_rise_exponentially_around_the_one_in_force() -> None:
    found = range_test.rates(5e-5, 100)
    assert (found[0], found[-1]) == pytest.approx((5e-8, 5e-2))
    ratios = [b / a for a, b in pairwise(found)]
    assert ratios == pytest.approx([ratios[0]] * 99)
    assert range_test.rates(10.0, 20)[-1] == pytest.approx(10.0)


def test_the_points_are_those_of_the_steps_and_end_where_the_loss_runs_away(bench: Bench, tmp_path: Path) -> None:
    config = bench.config()
    Path(config.scratch).mkdir(exist_ok=True)
    assert find_rate(config, tmp_path / "points.json") == COMPLETE
    found = json.loads((tmp_path / "points.json").read_text())
    assert found["rate"] == 1e-3
    rates, losses = zip(*found["points"], strict=True)
    assert list(rates) == pytest.approx(range_test.rates(1e-3, STEPS)[: len(rates)])
    assert losses[0] == pytest.approx(0.69, abs=0.2)
    assert len(rates) == STEPS or losses[-1] > range_test.RUN_AWAY * min(losses)
    assert len(set(losses)) > 5
    out = tmp_path / "out"
    assert not list(out.rglob("*.safetensors"))
    assert not (out / "result.json").exists()
    again = range_test.range_test(config.model_copy(update={"attempt": 2}), warm_up(config), time.monotonic())
    assert [list(point) for point in again["points"]] == found["points"]


def test_a_method_that_compares_rows_is_tested_by_what_it_learns(bench: Bench, tmp_path: Path) -> None:
    bench.spec["method"] = {"type": "setfit"}
    bench.folder = tmp_path / "compared"
    bench.prepare()
    config = bench.config()
    Path(config.scratch).mkdir(exist_ok=True)
    found = range_test.range_test(config, warm_up(config), time.monotonic())
    losses = [loss for _, loss in found["points"]]
    assert 0.05 < losses[0] < 0.6, "half the squares of 1 and 0, missed: no cross-entropy of two classes"
    assert min(losses) < 0.5 * losses[0]


def test_what_fails_leaves_its_reason(bench: Bench, tmp_path: Path) -> None:
    config = bench.config()
    gone = config.model_copy(update={"model": config.model.model_copy(update={"uri": "file:///nowhere"})})
    assert find_rate(gone, tmp_path / "points.json") == EXITS[Reason.MODEL_NOT_FOUND].code
    assert json.loads((tmp_path / "termination").read_text())["problem"]["reason"] == "ModelNotFound"
    assert not (tmp_path / "points.json").exists()
