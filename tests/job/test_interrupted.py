"""Exit 40: a stop that something outside asked for costs nothing; one that nobody asked for counts, unless it
brought the job on."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.exits import Reason
from finetune_operator.job.attempt.causes import UNASKED
from finetune_operator.plan import names

STOPPED = 40


def started(replicas: int = 1, **spec: Any) -> Cluster:
    c = Cluster({"workers": {"replicas": replicas}, **spec})
    c.prepare()
    return c


def stop(c: Cluster, index: int = 0, step: int | None = None) -> None:
    """Pods come up, and the worker of this index stops by itself; the Job controller then ends the others."""
    c.train(None)
    if step is not None:
        c.say(step, resumed_from_step=step - 1, checkpoints=(c.checkpoint(step),))
        c.reconcile()
    c.wait(5)
    c.exit(c.pod(index), STOPPED)
    c.control()
    c.reconcile()
    c.wait(2)
    c.sweep(STOPPED)
    c.control()
    c.reconcile()
    c.wait(300)
    c.reconcile()


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_job_that_stops_by_itself_again_and_again_ends(replicas: int) -> None:
    c = started(replicas, restartPolicy={"maxRestarts": 3})
    for _ in range(10):
        if c.phase == "Failed":
            break
        stop(c)
    assert c.status.attempt == 4
    failure = c.status.failure
    assert failure is not None
    assert failure.reason == Reason.TOO_MANY_RESTARTS
    assert UNASKED in failure.message
    assert {a.reason for a in c.status.attempts} == {Reason.INTERRUPTED}


def test_the_prepare_step_too() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 2}})
    for _ in range(10):
        c.reconcile()
        c.control()
        if c.phase == "Failed":
            break
        c.start(c.pod(0, names.PREPARE))
        c.wait(5)
        c.exit(c.pod(0, names.PREPARE), STOPPED)
        c.control()
        c.control()
        c.reconcile()
        c.wait(300)
    assert c.status.failure is not None
    assert c.status.failure.reason == Reason.TOO_MANY_RESTARTS
    assert len(c.jobs(names.PREPARE)) <= 3


def test_progress_gives_the_budget_back() -> None:
    c = started(restartPolicy={"maxRestarts": 1})
    for step in range(1, 9):
        stop(c, step=step)
    assert c.phase != "Failed"


def deleted(c: Cluster) -> None:
    c.terminate(c.pod(1))


def evicted(c: Cluster) -> None:
    c.disrupt(c.pod(1), "EvictionByEvictionAPI")
    c.terminate(c.pod(1))


def shut_down(c: Cluster) -> None:
    c.pod(1)["status"]["reason"] = "Terminated"


@pytest.mark.parametrize("ask", [deleted, evicted, shut_down])
def test_a_stop_that_was_asked_of_any_worker_never_counts(ask: Any) -> None:
    c = started(2, restartPolicy={"maxRestarts": 1})
    for _ in range(5):
        c.train(None)
        ask(c)
        c.reconcile()
        c.wait(3)
        for index in (0, 1):  # the stop is told to all, and all leave after the same step
            c.exit(c.pod(index), STOPPED)
        c.reconcile()
        c.control()
        c.sweep(STOPPED)
        c.control()
        c.reconcile()
        c.wait(300)
        c.reconcile()
    assert c.phase != "Failed"
    assert c.status.attempt == 6
    assert not any(UNASKED in (a.message or "") for a in c.status.attempts)


def test_stops_without_progress_slow_down_whoever_asks() -> None:
    c = started(2)
    for _ in range(3):
        c.train(None)
        deleted(c)
        c.reconcile()
        c.wait(1)
        for index in (0, 1):
            c.exit(c.pod(index), STOPPED)
        c.reconcile()
        c.control()
        c.sweep(STOPPED)
        c.control()
        c.reconcile()
    assert c.status.attempt == 3
    assert c.phase == "Restarting"
    assert "waits" in (c.status.message or "")
