"""What is called the best, what is kept and what is exported are the same weights, whatever interrupts the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exits import JobError, Reason
from finetune_trainer.checkpoint.best import gain, is_better
from finetune_trainer.train import evaluation
from finetune_trainer.train.evaluation import check_finite
from support.attempts import Bench, Flag
from support.models import mails, write_jsonl

EVALUATIONS = 5
Make = Callable[..., Bench]


@pytest.fixture
def overfitting(tmp_path: Path, bert: Path) -> Make:
    """Sixteen mails learned by heart: the validation rows, which say the opposite, are judged worse with every step."""

    other = [row | {"label": "ham" if row["label"] == "spam" else "spam"} for row in mails(40, seed=4)]
    train = write_jsonl(tmp_path / "train.jsonl", mails(16, seed=3))
    held_out = write_jsonl(tmp_path / "held-out.jsonl", other)

    def make(name: str, evaluations: int = EVALUATIONS, **evaluation: Any) -> Bench:
        bench = Bench(
            tmp_path / name,
            {
                "model": {"uri": bert.as_uri()},
                "data": {"train": {"uri": train.as_uri()}, "validation": {"uri": held_out.as_uri()}},
                "training": {
                    "maxSteps": evaluations * 4,
                    "globalBatchSize": 8,
                    "learningRate": 3e-3,
                    "schedule": "constant",
                    "warmupRatio": 0.0,
                },
                "evaluation": {"everySteps": 4, "metric": "loss", **evaluation},
                "checkpoints": {"everySteps": 100, "keepLast": 1},
            },
        )
        bench.prepare()
        return bench

    return make


def stop_in_evaluation(monkeypatch: pytest.MonkeyPatch, number: int) -> Flag:
    """A flag that goes up in the midst of this attempt's evaluation of that number, from 0."""
    flag, real, left = Flag(), evaluation.evaluate, [number]

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        flag.up = left[0] == 0
        left[0] -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return flag


def test_the_best_checkpoint_is_exported_and_not_the_last(overfitting: Make) -> None:
    bench = overfitting("best")
    report = bench.attempt()
    judged = bench.events("evaluation")
    assert [e["step"] for e in judged] == [4, 8, 12, 16, 20]
    best = min(judged, key=lambda e: e["loss"])
    assert best["step"] < 20, "the case shows nothing"
    assert report.best is not None
    assert (report.best.step, report.best.value) == (best["step"], best["loss"])
    assert [c.step for c in report.checkpoints if c.best] == [best["step"]]
    last = overfitting("last")
    last.spec["checkpoints"]["keepBest"] = False
    last.attempt()
    kept, end = (load_file(b.folder / "out" / "model.safetensors") for b in (bench, last))
    assert any(not torch.equal(kept[name], end[name]) for name in kept)


def test_stops_in_every_evaluation_lose_neither_the_best_nor_its_weights(
    overfitting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = overfitting("whole")
    expected = whole.attempt()
    bench = overfitting("stopped")
    for number in range(1, EVALUATIONS + 1):  # the attempts after the first begin with the evaluation that was stopped
        with monkeypatch.context() as patch:
            error = bench.failing(number, stop_in_evaluation(patch, min(number - 1, 1)))
        assert error.reason is Reason.INTERRUPTED
        assert f"step {4 * number};" in error.message
    found = bench.attempt(EVALUATIONS + 1)
    assert found.best == expected.best
    assert bench.events() == whole.events()
    assert bench.weights() == whole.weights()
    assert [c.step for c in found.checkpoints if c.best] == [c.step for c in expected.checkpoints if c.best]


def test_early_stopping_ends_after_patience_evaluations_without_a_gain(overfitting: Make) -> None:
    most = 4 * EVALUATIONS  # the order of the rows, and with it the course of the loss, goes with the folder's name
    bench = overfitting("early", most, earlyStopping={"patience": 2})
    report = bench.attempt()
    losses = [e["loss"] for e in bench.events("evaluation")]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < most
    assert report.progress is not None
    assert report.progress.step == 4 * len(losses)
    assert "no longer improved" in (bench.folder / "out" / "report.html").read_text()


def test_a_gain_below_min_delta_does_not_count_for_patience(overfitting: Make) -> None:
    bench = overfitting("delta", earlyStopping={"patience": 3, "minDelta": 1e6})
    bench.attempt()
    assert len(bench.events("evaluation")) == 4, "the first counts as a gain, three more as none"


def test_a_validation_loss_that_is_no_number_ends_the_run_with_its_reason(
    overfitting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, real = overfitting("nan"), evaluation.evaluate

    def poisoned(model: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            next(model.parameters()).fill_(math.nan)
        return real(model, *args, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate", poisoned)
    error = bench.failing()
    assert error.reason is Reason.NON_FINITE_LOSS
    assert error.message == "the loss on the validation rows became nan at step 4"
    assert bench.snapshot().best is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, 800.0])
def test_a_perplexity_beyond_all_numbers_is_refused(loss: float) -> None:
    perplexity = math.inf if loss == 800.0 else loss
    with pytest.raises(JobError) as caught:
        check_finite({"loss": loss, "perplexity": perplexity}, "perplexity", "validation", 7)
    assert caught.value.reason is Reason.NON_FINITE_LOSS
    assert ("the perplexity" in caught.value.message) == (loss == 800.0)


def test_ties_go_to_the_lower_loss_and_then_to_the_earlier() -> None:
    best = {"loss": 0.4, "macro-f1": 0.9}
    assert is_better({"loss": 0.3, "macro-f1": 0.9}, best, "macro-f1")
    assert not is_better({"loss": 0.4, "macro-f1": 0.9}, best, "macro-f1")
    assert not is_better({"loss": 0.1, "macro-f1": 0.8}, best, "macro-f1")
    assert is_better({"loss": 0.3}, {"loss": 0.4}, "loss")
    assert is_better(best, None, "macro-f1")
    assert not is_better({"loss": math.nan}, None, "loss")
    assert gain({"loss": 0.3, "macro-f1": 0.9}, best, "macro-f1") == 0.0
    assert gain({"loss": 0.1}, {"loss": 0.4}, "loss") == pytest.approx(0.3)


def test_a_job_that_resumes_from_one_that_stopped_early_trains_on(overfitting: Make) -> None:
    before = overfitting("before", evaluations=2 * EVALUATIONS, earlyStopping={"patience": 1})
    stopped = before.attempt()
    assert stopped.progress is not None
    step = stopped.progress.step
    assert step < EVALUATIONS * 8, "the case shows nothing"
    checkpoint = max(stopped.checkpoints, key=lambda c: c.step)
    after = overfitting("after", evaluations=2 * EVALUATIONS)
    after.spec["checkpoints"] = after.spec["checkpoints"] | {"resumeFrom": checkpoint.uri}
    report = after.attempt()
    assert report.resumed_from_step == checkpoint.step
    assert report.progress is not None
    assert report.progress.step == EVALUATIONS * 8
    judged = [(e["loss"], e["step"]) for e in after.events("evaluation") if e["step"] >= checkpoint.step]
    assert report.best is not None
    assert [c.step for c in report.checkpoints if c.best] == [report.best.step]
    assert report.best.step == min(judged)[1]
