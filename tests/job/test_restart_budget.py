"""The restart budget counts restarts in a row without a newer checkpoint; preemptions and evictions never touch it."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.exits import Reason
from finetune_api.report import Problem
from finetune_api.status import Failure
from finetune_operator.job.attempt import restart
from finetune_operator.job.attempt.causes import Cause
from finetune_operator.plan import names

LOST = Cause(Reason.PEER_LOST, "lost")


def after(cause: Cause = LOST, **fields: Any) -> restart.Restart | Failure:
    return restart.after(cause, **{"used": 0, "progress": False, "fruitless": 1, "max_restarts": 2} | fields)


def test_the_budget() -> None:
    assert after() == restart.Restart(1, 0.0)
    assert after(used=1, fruitless=2) == restart.Restart(2, 0.0)
    spent = after(used=2, fruitless=3)
    assert isinstance(spent, Failure)
    assert spent.reason == Reason.TOO_MANY_RESTARTS
    assert "PeerLost" in spent.message


def test_progress_gives_the_budget_back_but_zero_stays_zero() -> None:
    assert after(used=2, progress=True) == restart.Restart(1, 0.0)
    assert isinstance(after(progress=True, max_restarts=0), Failure)


def test_what_is_not_the_jobs_doing_never_counts() -> None:
    assert after(Cause(Reason.PREEMPTED, "p"), used=2, max_restarts=2) == restart.Restart(2, 0.0)
    assert after(Cause(Reason.EVICTED, "e"), max_restarts=0) == restart.Restart(0, 0.0)


@pytest.mark.parametrize(("fruitless", "delay"), [(1, 0), (2, 0), (3, 10), (4, 20), (5, 40), (8, 300), (5000, 300)])
def test_crash_loops_slow_down(fruitless: int, delay: float) -> None:
    assert restart.delay(fruitless) == delay


def crash(c: Cluster, code: int = 44, problem: Problem | None = None) -> None:
    c.control()
    c.start(*(p for p in c.pods.values() if p["status"]["phase"] == "Pending"))
    c.reconcile()
    c.wait(1)
    for pod in c.pods.values():
        if pod["status"]["phase"] == "Running":
            c.exit(pod, code, problem=problem)
    c.control()
    c.control()
    c.reconcile()


def attempts(c: Cluster) -> int:
    return max(int(j["metadata"]["labels"][names.ATTEMPT]) for j in c.jobs(names.WORKER))


def test_a_crash_loop_ends_with_the_last_cause_quoted() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 3}})
    c.prepare()
    crash(c)
    assert attempts(c) == 2
    crash(c)
    assert attempts(c) == 3
    crash(c)
    assert attempts(c) == 3, "from the third on it waits"
    assert c.phase == "Restarting"
    c.wait(10)
    c.reconcile()
    assert attempts(c) == 4
    crash(c)
    status = c.status
    assert status.phase == "Failed"
    assert status.failure
    assert status.failure.reason == Reason.TOO_MANY_RESTARTS
    assert "InternalError" in status.failure.message
    assert status.restarts == 3


def test_checkpoints_keep_a_job_going_for_ever() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 1}})
    c.prepare()
    for step in range(10, 90, 10):
        c.train(step, resumed_from_step=step - 10, checkpoints=(c.checkpoint(step),))
        crash(c)
        assert c.phase == "Restarting", step
    assert c.status.attempt == 9
    c.train(80, resumed_from_step=80, checkpoints=(c.checkpoint(80),))
    crash(c)
    assert c.phase == "Failed", "two in a row without a newer checkpoint"


def test_evictions_do_not_count_among_crashes() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 1}})
    c.prepare()
    crash(c)
    for _ in range(6):
        c.control()
        pods = [p for p in c.pods.values() if p["status"]["phase"] == "Pending"]
        c.start(*pods)
        c.reconcile()
        for pod in pods:
            c.disrupt(pod, "TerminationByKubelet")
            c.exit(pod, 137, outcome=False)
        c.control()
        c.control()
        c.reconcile()
        c.wait(300)
        c.reconcile()
    assert c.status.phase == "Restarting"
    crash(c)
    assert c.phase == "Failed"


def test_no_restart_at_all_where_none_is_allowed() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 0}})
    c.prepare()
    c.train(10, resumed_from_step=0, checkpoints=(c.checkpoint(10),))
    crash(c)
    assert c.phase == "Failed"
    assert attempts(c) == 1


def test_planning_again_after_the_end_of_an_attempt_decides_the_same() -> None:
    """The create may be lost after the status was written: the budget must not be used twice."""
    c = Cluster({"restartPolicy": {"maxRestarts": 5}})
    c.prepare()
    crash(c)
    name = c.jobs(names.WORKER)[-1]["metadata"]["name"]
    assert c.objects["Job", name]["metadata"]["annotations"][names.RESTARTS_USED] == "1"
    for kind in ("Job", "Service", "ConfigMap"):
        del c.objects[kind, name]
    c.job["status"]["attempts"] = [a for a in c.job["status"]["attempts"] if a["number"] == 1]
    c.job["status"]["attempt"] = 1
    c.reconcile()
    assert c.objects["Job", name]["metadata"]["annotations"][names.RESTARTS_USED] == "1"


def unexpected(place: str | None) -> Problem:
    return Problem(
        reason=Reason.INTERNAL_ERROR, message="KeyError: 'x' (in a.py:3)", hint="report it", rank=1, place=place
    )


def test_the_same_unexpected_error_at_the_same_place_twice_in_a_row_ends_the_job() -> None:
    c = Cluster()
    c.prepare()
    crash(c, problem=unexpected("KeyError@aaa"))
    assert c.status.attempts[-1].place == "KeyError@aaa"
    assert attempts(c) == 2
    crash(c, problem=unexpected("KeyError@aaa"))
    status = c.status
    assert (status.phase, attempts(c)) == ("Failed", 2)
    assert status.failure
    assert (status.failure.reason, status.failure.rank) == (Reason.INTERNAL_ERROR, 1)
    assert "KeyError: 'x' (in a.py:3)" in status.failure.message
    assert "two tries in a row" in status.failure.message


@pytest.mark.parametrize("between", [unexpected("KeyError@bbb"), unexpected(None), None])
def test_another_end_in_between_begins_the_count_again(between: Problem | None) -> None:
    c = Cluster()
    c.prepare()
    for problem in (unexpected("KeyError@aaa"), between, unexpected("KeyError@aaa")):
        crash(c, problem=problem)
        c.wait(300)
        c.reconcile()
    assert (c.phase, attempts(c)) == ("Restarting", 4)


def test_an_unexpected_error_that_lets_the_job_come_further_is_tried_again() -> None:
    c = Cluster()
    c.prepare()
    for step in (10, 20, 30):
        c.train(step, resumed_from_step=step - 10, checkpoints=(c.checkpoint(step),))
        crash(c, problem=unexpected("KeyError@aaa"))
        assert c.phase == "Restarting", step
    c.train(30, resumed_from_step=30, checkpoints=(c.checkpoint(30),))
    crash(c, problem=unexpected("KeyError@aaa"))
    assert c.phase == "Failed"


def test_a_users_mistake_is_never_tried_again() -> None:
    failed = after(Cause(Reason.INVALID_DATA, "no rows"))
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.message) == (Reason.INVALID_DATA, "no rows")


def test_an_attempt_waits_for_a_pod_of_an_earlier_one() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    crash(c)
    assert c.status.attempt == 2
    left = c.pod()
    assert left["metadata"]["labels"][names.ATTEMPT] == "1"
    c.train(None)
    c.exit(c.pod(), 44)
    c.control()
    c.control()
    c.start(left)  # it was called ended, and runs
    c.terminate(left, 100)
    c.reconcile()
    assert (c.status.attempt, c.phase) == (2, "Restarting")
    assert f"waiting for pod {left['metadata']['name']} of attempt 1 to leave" in (c.status.message or "")
    c.sweep()
    c.reconcile()
    assert c.status.attempt == 3
