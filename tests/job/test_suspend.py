"""suspend: checkpoint, pods gone, nothing made; resume: the next attempt. And what the deadline makes of the rest."""

from __future__ import annotations

import pytest

from fakecluster.planning import Cluster, Crash
from finetune_api.exits import Reason
from finetune_operator.job.decide import plan
from finetune_operator.plan import names


def suspend(c: Cluster, value: bool = True) -> None:
    c.job["spec"]["suspend"] = value
    c.job["metadata"]["generation"] += 1
    c.reconcile()


def running() -> Cluster:
    c = Cluster()
    c.prepare()
    c.train(40, resumed_from_step=0)
    return c


def condition(c: Cluster, type_: str) -> str | None:
    return next((x.status for x in c.status.conditions if x.type == type_), None)


def test_pods_get_their_grace_period_and_the_phase_waits_for_them() -> None:
    c = running()
    suspend(c)
    assert not c.jobs(names.WORKER)
    assert all(
        "deletionTimestamp" in p["metadata"]
        for p in c.pods.values()
        if p["metadata"]["labels"][names.COMPONENT] == names.WORKER
    )
    assert c.phase != "Suspended"
    assert c.status.reason == "Suspending"
    c.sweep()
    c.reconcile()
    assert c.phase == "Suspended"
    assert condition(c, "Suspended") == "True"
    assert condition(c, "Running") == "False"
    c.wait(500)
    c.reconcile()
    assert not c.jobs(names.WORKER)
    assert not [n for k, n in c.objects if k in ("ConfigMap", "Service") and n.endswith("-1") and "-p1" not in n]
    assert c.notes[-1] == "Suspended"


def test_resume_makes_the_next_attempt_and_counts_no_restart() -> None:
    c = running()
    suspend(c)
    c.sweep()
    c.reconcile()
    c.wait(1000)
    suspend(c, False)
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["2"]
    assert c.status.suspended_seconds == 1000
    assert condition(c, "Suspended") == "False"
    c.train(41, resumed_from_step=40)
    status = c.status
    assert status.phase == "Running"
    assert (status.attempt, status.restarts) == (2, 0)
    assert status.attempts[1].reason == Reason.INTERRUPTED
    assert status.attempts[1].lost_steps == 0
    assert (
        c.objects["Job", c.jobs(names.WORKER)[0]["metadata"]["name"]]["metadata"]["annotations"][names.RESTARTS_USED]
        == "0"
    )
    c.finish()
    assert c.phase == "Succeeded"


def test_resume_waits_until_the_last_pod_of_before_is_gone() -> None:
    c = running()
    suspend(c)
    suspend(c, False)
    assert not c.jobs(names.WORKER), "the pods still write their checkpoint"
    assert c.status.attempts[0].end_time is None
    c.sweep()
    c.reconcile()
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["2"]
    c.reconcile()
    assert (c.status.attempts[1].reason, c.status.restarts) == (Reason.INTERRUPTED, 0)


def test_suspended_from_the_start_makes_nothing() -> None:
    c = Cluster({"suspend": True})
    c.reconcile()
    assert c.phase == "Suspended"
    assert not c.created
    suspend(c, False)
    assert [k for k, _ in c.created] == ["ConfigMap", "Job"]


def test_suspended_while_preparing() -> None:
    c = Cluster()
    c.reconcile()
    c.control()
    c.start(c.pod(0, names.PREPARE))
    suspend(c)
    assert not c.jobs()
    c.sweep()
    c.reconcile()
    assert c.phase == "Suspended"
    suspend(c, False)
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.exit(c.pod(0, names.PREPARE), 0)
    c.control()
    c.reconcile()
    assert c.jobs(names.WORKER)


def test_suspended_between_prepare_and_workers() -> None:
    c = Cluster()
    c.reconcile()
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.exit(c.pod(0, names.PREPARE), 0)
    c.control()
    suspend(c)
    assert c.phase == "Suspended"
    assert condition(c, "Validated") == "True"
    del c.objects["Job", c.jobs(names.PREPARE)[0]["metadata"]["name"]]
    c.pods.clear()
    suspend(c, False)
    assert c.jobs(names.WORKER)
    assert not c.jobs(names.PREPARE), "what has passed is not made again"


def test_a_job_that_completes_meanwhile_has_succeeded() -> None:
    c = running()
    for p in (c.pod(0), c.pod(1)):
        c.exit(p, 0)
    c.control()
    suspend(c)
    assert c.phase == "Succeeded"


def test_a_job_that_failed_meanwhile_rests_after_its_pods_ended() -> None:
    c = running()
    c.exit(c.pod(0), 44)
    c.control()
    suspend(c)
    assert len(c.jobs(names.WORKER)) == 1, "its own end is on the way"
    c.sweep(41)
    c.control()
    c.reconcile()
    assert c.phase == "Suspended"
    assert c.status.attempts[0].reason == Reason.INTERNAL_ERROR
    suspend(c, False)
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["1", "2"]


def test_an_operator_that_died_after_deleting_the_job_still_knows_why() -> None:
    c = running()
    c.job["spec"]["suspend"] = True
    c._delete("Job", c.jobs(names.WORKER)[0]["metadata"]["name"])
    c.sweep()
    c.reconcile()
    assert c.phase == "Suspended"
    suspend(c, False)
    c.reconcile()
    assert c.status.attempts[-1].reason == Reason.INTERRUPTED
    assert c.status.restarts == 0


def test_a_suspend_that_ended_before_its_job_was_deleted_leaves_the_attempt_at_work() -> None:
    c = running()
    c.crash_at = c.writes + 1  # after the status, before the first delete
    with pytest.raises(Crash):
        suspend(c)
    c.crash_at = None
    assert c.status.attempts[0].reason == Reason.INTERRUPTED
    suspend(c, False)
    assert (c.phase, c.status.attempts[0].reason) == ("Running", None)
    c.exit(c.pod(0), 44)
    c.control()
    c.sweep(41)
    c.control()
    c.reconcile()
    assert c.status.attempts[-1].reason == Reason.INTERNAL_ERROR, "its own end counts, not the suspend"
    assert c.status.restarts == 1


@pytest.mark.parametrize("deletes", [1, 2])
def test_a_suspend_taken_back_after_half_its_deletes_leaves_the_attempt_whole(deletes: int) -> None:
    c = running()
    c.crash_at = c.writes + 1 + deletes  # after the status, and so many deletes; the Job is to go last
    with pytest.raises(Crash):
        suspend(c)
    c.crash_at = None
    suspend(c, False)
    name = c.jobs(names.WORKER)[0]["metadata"]["name"]
    assert sorted(kind for kind, n in c.objects if n == name) == ["ConfigMap", "Job", "Service"]
    assert (c.phase, c.status.attempt, c.status.restarts) == ("Running", 1, 0)
    made = len(c.created)
    c.reconcile()
    assert len(c.created) == made, "once is enough"


def test_a_suspend_of_the_prepare_step_taken_back_half_way_leaves_it_whole() -> None:
    c = Cluster()
    c.reconcile()
    c.control()
    c.reconcile()
    c.crash_at = c.writes + 2  # after the status and the delete of the ConfigMap
    with pytest.raises(Crash):
        suspend(c)
    c.crash_at = None
    suspend(c, False)
    assert sorted(kind for kind, _ in c.objects) == ["ConfigMap", "Job"]
    c.start(c.pod(0, names.PREPARE))
    c.reconcile()
    assert c.phase == "Validating"


def test_an_operator_that_was_away_from_the_deletion_until_after_the_resume_counts_no_restart() -> None:
    c = running()
    c.job["spec"]["suspend"] = True
    c.job["metadata"]["generation"] += 1
    c.reconcile(1)  # the status and the deletes; what follows is not seen
    c.sweep()
    c.wait(100)
    suspend(c, False)
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)] == ["2"]
    assert (c.status.attempts[-1].reason, c.status.restarts) == (Reason.INTERRUPTED, 0)


def test_the_deadline_does_not_run_while_suspended() -> None:
    c = Cluster({"activeDeadlineSeconds": 1000})
    c.prepare()
    c.train(10)
    begun = c.now
    suspend(c)
    c.sweep()
    c.reconcile()
    c.wait(5000)
    c.reconcile()
    assert c.phase == "Suspended"
    suspend(c, False)
    assert c.last
    assert c.last.requeue_after is not None
    c.train(11)
    assert c.phase == "Running"
    c.wait(1000 - (begun - 1_800_000_000) + 1)
    c.reconcile()
    assert c.phase == "Failed"
    assert c.status.failure
    assert c.status.failure.reason == Reason.DEADLINE_EXCEEDED


def test_the_deadline_stops_the_pods_and_names_the_last_checkpoint() -> None:
    c = Cluster({"activeDeadlineSeconds": 60})
    c.prepare()
    c.train(10, checkpoints=())
    c.say(10, checkpoints=(c.checkpoint(10),))
    c.reconcile()
    c.wait(60)
    c.reconcile()
    assert c.phase == "Failed"
    assert c.status.failure
    assert "ckpt/1/10" in c.status.failure.hint
    assert not c.jobs(names.WORKER)
    c.sweep()
    c.reconcile()
    assert c.phase == "Failed"


def test_the_deadline_holds_for_the_prepare_step_too() -> None:
    c = Cluster({"activeDeadlineSeconds": 60})
    c.reconcile()
    c.control()
    c.wait(60)
    c.reconcile()
    assert c.phase == "Failed"
    assert not c.jobs()


def test_the_plan_wakes_up_for_the_deadline_and_the_time_to_live() -> None:
    c = Cluster({"activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 50})
    c.reconcile()
    assert plan(Cluster({"activeDeadlineSeconds": 600}).observed()).requeue_after == 600
    c.prepare()
    c.train(10)
    c.finish()
    assert c.phase == "Succeeded"
    assert c.reconcile().requeue_after == 50
    c.wait(49)
    c.reconcile()
    assert not c.gone
    c.wait(1)
    c.reconcile()
    assert c.gone


def test_without_a_time_to_live_a_finished_job_stays() -> None:
    c = running()
    c.finish()
    c.wait(10**7)
    c.reconcile()
    assert not c.gone
    assert len(c.pods) == 3
