"""A status never exceeds 32 KiB, however much there is to say; what matters to its reader is always left."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api import status_budget
from finetune_api.base import parse
from finetune_api.crd import structural
from finetune_api.status import HISTORY_POINTS, Checkpoint, Failure, Phase, Point, Status
from finetune_api.status_budget import STATUS_BYTES, size, within_budget
from support.filled import filled
from support.strategies import json_of

SCHEMA = structural(Status, defaults=False)
# Words of code, names and times are ASCII whatever the job; all else may be in any script.
CODE = frozenset(
    "reason type status field pod digest manifestDigest metric kind resolved display startTime endTime completionTime"
    " lastReportTime lastTransitionTime time name reference modelRevision dataRevision architecture precision device"
    " progress loss best eta".split()
)


def full(letter: str) -> Status:
    """Every bound reached; texts for people are made of `letter`."""
    return parse(Status, filled(SCHEMA, letter, CODE))


def test_the_bounds_alone_would_be_too_much() -> None:
    assert size(full("x")) > STATUS_BYTES


@pytest.mark.parametrize("letter", ["x", "ж", "语", "🚂"])
def test_the_fullest_status_fits(letter: str) -> None:
    before = full(letter)
    after = within_budget(before)
    assert size(after) <= STATUS_BYTES
    assert within_budget(after) == after
    unchanged = (
        "phase",
        "reason",
        "failure",
        "progress",
        "best",
        "folds",
        "test",
        "evaluation",
        "resolved",
        "image",
        "output",
        "attempt",
        "restarts",
        "display",
    )
    assert all(getattr(before, name) == getattr(after, name) for name in unchanged)
    assert [(v.kind, v.warning) for v in after.verdicts or ()] == [(v.kind, v.warning) for v in before.verdicts or ()]
    assert [c.type for c in after.conditions] == [c.type for c in before.conditions]
    assert after.attempts[0] == before.attempts[0]
    assert after.checkpoints[0] == before.checkpoints[0]
    assert after.history[-1] == before.history[-1]


@given(json_of(SCHEMA))
def test_what_fits_is_left_alone(data: dict) -> None:
    status = parse(Status, data)
    assert within_budget(status) == status


@given(st.lists(st.sampled_from(["history", "attempts", "checkpoints", "conditions", "data", "failure"]), unique=True))
def test_any_part_may_be_full(parts: list[str]) -> None:
    wide = full("x")
    status = Status(phase=Phase.RUNNING, **{name: getattr(wide, name) for name in parts})
    assert size(within_budget(status)) <= STATUS_BYTES


def test_a_usual_long_run_loses_nothing() -> None:
    points = tuple(
        Point(step=1000 * i, loss=1 / (i + 3), metrics={"macro-f1": 0.9, "eval_loss": 0.1} if i % 8 == 0 else None)
        for i in range(HISTORY_POINTS)
    )
    checkpoints = tuple(
        Checkpoint(
            step=i,
            uri=f"s3://models/spam-filter/ckpt/0001/{i:08d}",
            bytes=1,
            digest="a" * 64,
            time="2026-01-31T12:00:00Z",
        )
        for i in range(4)
    )
    status = Status(phase=Phase.RUNNING, history=points, checkpoints=checkpoints)
    assert within_budget(status) is status


def test_thinned_history_keeps_its_ends_and_its_order() -> None:
    wide = full("x")
    after = within_budget(
        wide.model_copy(update={"history": tuple(p.model_copy(update={"step": i}) for i, p in enumerate(wide.history))})
    )
    steps = [point.step for point in after.history]
    assert (steps[0], steps[-1]) == (0, HISTORY_POINTS - 1)
    assert all(a < b for a, b in itertools.pairwise(steps))


def test_the_best_checkpoint_outlives_older_ones() -> None:
    wide = full("x")
    checkpoints = tuple(c.model_copy(update={"step": 100 - i, "best": i == 9}) for i, c in enumerate(wide.checkpoints))
    after = within_budget(
        wide.model_copy(
            update={"checkpoints": checkpoints, "attempts": (), "failure": Failure(reason="x", message="x")}
        )
    )
    steps = [c.step for c in after.checkpoints]
    assert len(steps) < len(checkpoints)
    assert {100, 91} <= set(steps)
    assert steps == sorted(steps, reverse=True)


def test_what_matters_stays_even_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_budget, "STATUS_BYTES", 0)
    before = full("x")
    after = within_budget(before)
    assert (after.phase, after.failure, after.best, after.output) == (
        before.phase,
        before.failure,
        before.best,
        before.output,
    )
    assert [len(part) for part in (after.history, after.checkpoints, after.attempts)] == [2, 1, 1]
