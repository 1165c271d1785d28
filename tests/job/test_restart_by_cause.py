"""What follows when an attempt ends, by its cause: the next attempt, or the end of the job."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import Cluster
from finetune_api.exits import BY_CODE, EXITS, Reason, Retry
from finetune_api.report import Problem, Stage
from finetune_operator.job.attempt.causes import UNASKED
from finetune_operator.plan import names


def started(**spec: Any) -> Cluster:
    c = Cluster(spec)
    c.prepare()
    c.train(20, resumed_from_step=0, checkpoints=())
    return c


def fail(c: Cluster, code: int, index: int = 0, **fields: Any) -> None:
    """A worker fails; the Job controller stops the others, which then lose their peer."""
    c.exit(c.pod(index), code, **fields)
    c.control()
    c.reconcile()
    c.wait(2)
    for p in c.pods.values():
        if p["status"]["phase"] == "Running":
            c.exit(p, 41)
    c.control()
    c.reconcile()


@pytest.mark.parametrize("code", [code for code, row in BY_CODE.items() if row.retry is Retry.NEVER])
def test_a_users_mistake_ends_the_job_at_once(code: int) -> None:
    c = started()
    problem = Problem(reason=BY_CODE[code].reason, message="said by rank 3", hint="do this", field="spec.data", rank=3)
    c.exit(c.pod(1), code, problem=problem)
    c.reconcile()
    status = c.status
    assert status.phase == "Failed"
    assert status.failure is not None
    assert status.failure.model_dump(by_alias=False) == {
        "reason": BY_CODE[code].reason,
        "message": "said by rank 3",
        "hint": "do this",
        "field": "spec.data",
        "rank": 3,
        "exit_code": code,
    }
    assert len(c.jobs(names.WORKER)) == 1
    c.control()
    c.sweep()
    c.control()
    c.wait(1000)
    c.reconcile()
    assert c.status == status, "a finished job's status never changes again"
    assert ("Job", c.jobs(names.WORKER)[0]["metadata"]["name"]) not in c.deleted, "it stays for its logs"


@pytest.mark.parametrize("code", [code for code, row in BY_CODE.items() if row.retry is not Retry.NEVER])
def test_what_is_not_the_users_mistake_is_tried_again_at_once(code: int) -> None:
    c = started()
    fail(c, code, 1)
    assert len(c.jobs(names.WORKER)) == 2
    assert c.phase == "Restarting"
    c.train(20, resumed_from_step=15)
    status = c.status
    assert status.phase == "Running"
    assert (status.attempt, status.restarts) == (2, 1)
    assert status.attempts[1].reason == BY_CODE[code].reason
    assert status.attempts[1].exit_code == code
    assert status.attempts[1].lost_steps == 5
    assert c.notes.count("Restarting") == 1


def test_peer_lost_never_wins() -> None:
    c = started(workers={"replicas": 3})
    c.exit(c.pod(0), 41)
    c.wait(3)
    c.exit(c.pod(2), 139, outcome=False)
    c.wait(3)
    c.exit(c.pod(1), 41)
    c.control()
    c.control()
    c.reconcile()
    assert c.status.attempts[-1].reason == Reason.CRASHED
    assert c.status.attempts[-1].pod == c.pods[c.status.attempts[-1].pod or ""]["metadata"]["name"]


def test_the_first_to_fail_wins_and_in_the_same_second_what_will_not_heal() -> None:
    c = started(workers={"replicas": 3})
    c.exit(c.pod(2), 42)
    c.wait(3)
    c.exit(c.pod(0), 44)
    c.control()
    c.reconcile()
    assert c.status.attempts[0].reason == Reason.STORAGE_UNAVAILABLE
    c = started(workers={"replicas": 3})
    c.exit(c.pod(0), 44)
    c.exit(c.pod(2), 29)
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.reason == Reason.NOTHING_TO_LEARN


def test_a_force_deleted_pod_that_nobody_saw_end() -> None:
    c = started()
    del c.pods[c.pod(1)["metadata"]["name"]]
    c.jobs(names.WORKER)[0]["status"]["failed"] = 1
    c.control()
    c.reconcile()
    assert c.phase == "Restarting"
    assert c.status.attempts[0].reason == Reason.POD_DELETED
    assert len(c.jobs(names.WORKER)) == 1, "worker 0 still runs"
    c.sweep(41)
    c.control()
    c.reconcile()
    assert len(c.jobs(names.WORKER)) == 2
    c.reconcile()
    assert c.status.attempts[1].reason == Reason.POD_DELETED


def test_a_lost_connection_stays_peer_lost_though_the_other_pod_is_cleared_away() -> None:
    c = started()
    c.exit(c.pod(1), 41)
    c.control()
    c.reconcile()
    assert c.status.attempts[0].reason == Reason.PEER_LOST
    c.sweep(40)
    c.control()
    c.reconcile()
    c.reconcile()
    assert c.status.attempts[1].reason == Reason.PEER_LOST


def test_what_was_seen_of_a_pod_is_kept_when_the_pod_is_gone() -> None:
    c = started()
    victim = c.pod(1)
    c.disrupt(victim, "PreemptionByScheduler", "preempting to accommodate a higher priority pod")
    c.terminate(victim)
    c.exit(victim, 40)
    c.control()
    c.reconcile()
    c.sweep()
    c.control()
    c.reconcile()
    entry = next(a for a in c.status.attempts if a.number == 1)
    assert entry.reason == Reason.PREEMPTED
    assert "higher priority" in (entry.message or "")


def test_a_deleted_job_is_made_again_as_the_next_attempt() -> None:
    c = started()
    name = c.jobs(names.WORKER)[0]["metadata"]["name"]
    c._delete("Job", name)
    c.reconcile()
    assert not c.jobs(names.WORKER), "its pods are still there"
    c.sweep()
    c.reconcile()
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["2"]
    assert c.status.attempts[-1].reason == Reason.POD_DELETED


def test_attempts_never_overlap_but_a_lost_node_does_not_block_for_ever() -> None:
    c = started()
    c.exit(c.pod(0), 44)
    c.control()  # worker 1 is told to stop, and its node is gone
    c.reconcile()
    assert len(c.jobs(names.WORKER)) == 1
    c.wait(120 + 59)
    found = c.reconcile()
    assert len(c.jobs(names.WORKER)) == 1
    assert found.requeue_after is not None
    assert found.requeue_after <= 1
    c.wait(1)
    c.reconcile()
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["2"]


def test_the_problem_reported_by_rank_0_serves_where_the_last_word_is_missing() -> None:
    c = started()
    c.say(20, problem=Problem(reason=Reason.NON_FINITE_LOSS, message="the loss is NaN at step 21", rank=0))
    c.exit(c.pod(0), 30, outcome=False)
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.message == "the loss is NaN at step 21"
    assert c.status.failure.hint == EXITS[Reason.NON_FINITE_LOSS].hint


def test_the_last_word_of_another_job_or_attempt_is_not_believed() -> None:
    c = started()
    c.exit(c.pod(0), 21, problem=Problem(reason=Reason.INVALID_DATA, message="mine"))
    state = c.pod(0)["status"]["containerStatuses"][0]["state"]["terminated"]
    state["message"] = state["message"].replace('"attempt":1', '"attempt":7')
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.message != "mine"


def test_old_attempts_are_cleared_away_but_the_last_two() -> None:
    c = started()
    for step in (30, 40, 50):
        c.say(step, resumed_from_step=0, checkpoints=(c.checkpoint(step),))
        fail(c, 44)
        c.train(step)
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["3", "4"]
    left = {(k, n) for k, n in c.objects if n.endswith(("-1", "-2"))}
    assert not left


def test_late_reports_of_an_older_attempt_are_ignored() -> None:
    c = started()
    c.say(33)
    late = c.report
    fail(c, 44)
    c.train(25, resumed_from_step=20)
    c.report = late
    c.reconcile()
    assert c.status.progress
    assert c.status.progress.step == 25


def test_a_report_of_the_end_is_no_success() -> None:
    c = started()
    c.say(100, stage=Stage.FINISHED)
    c.reconcile()
    assert c.phase == "Evaluating"


def test_a_problem_of_another_reason_than_the_exit_code_is_not_believed() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.train()
    c.exit(c.pod(), 44, problem=Problem(reason=Reason.INVALID_DATA, message="not so", place="a.py:1"))
    c.control()
    c.control()
    c.reconcile()
    entry = c.status.attempts[-1]
    assert (entry.reason, entry.place) == (BY_CODE[44].reason, None)
    assert "not so" not in (entry.message or "")


def test_a_last_word_that_is_no_json_says_nothing() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.train()
    c.exit(c.pod(), 44)
    c.pod()["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = '{"jobId": '
    c.control()
    c.control()
    c.reconcile()
    assert c.status.attempts[-1].reason == BY_CODE[44].reason


def fail_job(c: Cluster, reason: str) -> None:
    """The Job controller gives the workers' Job up, and its pods are gone."""
    job = c.jobs(names.WORKER)[-1]
    job["status"]["conditions"] = [
        {"type": type_, "status": "True", "reason": reason, "message": "as set by an admission webhook"}
        for type_ in ("FailureTarget", "Failed")
    ]


def test_a_deadline_that_somebody_set_on_the_job_is_named() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.train()
    fail_job(c, "DeadlineExceeded")
    c.pods.clear()
    c.reconcile()
    entry = c.status.attempts[-1]
    assert entry.reason == Reason.DEADLINE_EXCEEDED
    assert "as set by an admission webhook" in (entry.message or "")


def test_a_prepare_pod_that_is_gone_without_a_word_was_deleted() -> None:
    c = Cluster()
    c.check()
    c.pods.clear()
    job = c.jobs(names.PREPARE)[0]
    job["status"]["conditions"] = [
        {"type": type_, "status": "True", "reason": "BackoffLimitExceeded"} for type_ in ("FailureTarget", "Failed")
    ]
    c.reconcile(1)
    assert (c.phase, c.status.reason) == ("Restarting", "PodDeleted")
    assert "the prepare pod is gone" in (c.status.message or "")


def test_a_job_deleted_by_hand_while_its_pod_stops_is_a_stop_that_was_asked_for() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.train()
    c.jobs(names.WORKER)[0]["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    c.exit(c.pod(), 40)
    c.reconcile()
    entry = c.status.attempts[-1]
    assert entry.reason == Reason.INTERRUPTED
    assert not (entry.message or "").endswith(UNASKED)
