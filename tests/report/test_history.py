"""The history stays within its bound over any number of steps, keeps evaluations, and goes on unchanged over a
resume.
"""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.report import Report, Stage
from finetune_api.status import HISTORY_POINTS
from finetune_trainer.report.history import History
from finetune_trainer.report.reporter import Reporter
from support.checkpoints import config


def run(history: History, steps: range, every: int) -> History:
    for step in steps:
        history.add(step, 1 / (step + 1), None)
        if step % every == 0:
            history.add(step, None, {"macro-f1": step / 10, "eval_loss": 0.5})
    return history


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4000), st.integers(1, 500))
def test_never_too_many_points_always_the_newest_and_evaluations_first(steps: int, every: int) -> None:
    points = run(History(), range(1, steps + 1), every).points()
    assert 1 <= len(points) <= HISTORY_POINTS
    assert [p.step for p in points] == sorted({p.step for p in points})
    assert points[-1].step == steps
    assert points[-1].loss == 1 / (steps + 1)
    evaluations = [p.step for p in points if p.metrics]
    if steps // every <= 63:
        assert evaluations == list(range(every, steps + 1, every))
    else:
        assert len(evaluations) >= 31
    if steps >= 300 and every > 200:
        assert len(points) > 40  # thinned, not emptied
    Report(job_id="x", attempt=1, sequence=1, time=1.0, stage=Stage.TRAINING, history=points)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 1500), st.integers(0, 1500), st.integers(1, 60))
def test_a_resumed_history_equals_the_uninterrupted_one(cut: int, more: int, every: int) -> None:
    """What the killed run did past the checkpoint leaves no trace: no step appears twice."""
    first = run(History(), range(1, cut + 1), every)
    saved = json.loads(json.dumps(first.to_json()))
    run(first, range(cut + 1, cut + 300), every)  # lost with the kill
    resumed = run(History.from_json(saved), range(cut + 1, cut + more + 1), every)
    assert resumed.points() == run(History(), range(1, cut + more + 1), every).points()


def test_points_are_spread_evenly() -> None:
    steps = [p.step for p in run(History(), range(1, 100_001), 10_000).points() if not p.metrics]
    gaps = {b - a for a, b in pairwise(steps)}
    assert max(gaps) <= 2 * 1024
    assert len(steps) > 50


def test_numbers_that_are_not_finite_are_left_out() -> None:
    history = History()
    history.add(1, float("nan"), {"macro-f1": float("inf")})
    history.add(2, 0.5, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert [(p.step, p.loss, p.metrics) for p in history.points()] == [(2, 0.5, {"a": 1.0, "b": 2.0})]


def test_the_reporter_cuts_its_history_back_to_the_checkpoint() -> None:
    reporter = Reporter(config("s3://models/out"))
    for step in range(1, 11):
        reporter.point(step, loss=1.0)
    saved = json.loads(json.dumps(reporter.history_state()))
    again = Reporter(config("s3://models/out", attempt=2))
    again.restore_history(saved)
    again.point(11, loss=0.5)
    assert [p.step for p in again.snapshot.history] == list(range(1, 12))
    assert again.close()
    assert reporter.close()
