"""Kueue: the Job is made suspended, stays through admission and preemption, and its suspend field is never written
again."""

from __future__ import annotations

from typing import Any

from fakecluster.planning import Cluster
from finetune_api.exits import Reason
from finetune_api.times import rfc3339
from finetune_operator.job.observed import report_order
from finetune_operator.plan import names
from finetune_operator.plan.plan import Plan
from finetune_operator.plan.views.event import EventView
from finetune_operator.plan.views.pod import PodView


def queued() -> Cluster:
    c = Cluster(labels={names.QUEUE: "gpus"})
    c.prepare()
    c.control()
    c.reconcile()
    return c


def the_job(c: Cluster) -> dict[str, Any]:
    (job,) = c.jobs(names.WORKER)
    return job


def admit(c: Cluster) -> None:
    the_job(c)["spec"]["suspend"] = False
    the_job(c)["status"]["startTime"] = rfc3339(c.now)


def preempt(c: Cluster) -> None:
    the_job(c)["spec"]["suspend"] = True
    the_job(c)["status"].pop("startTime", None)


def writes_suspend(made: Plan) -> bool:
    return any("suspend" in str(p.body) for p in made.patch)


def test_waiting_for_the_queue() -> None:
    c = queued()
    assert (c.phase, c.status.reason) == ("Queued", "WaitingForQueue")
    assert "gpus" in (c.status.message or "")
    c.wait(10_000)
    found = c.reconcile()
    assert not found.read_events, "it has no pods, as it should"
    assert c.phase == "Queued"


def test_preempted_and_admitted_again_it_is_the_same_attempt() -> None:
    c = queued()
    admit(c)
    c.train(20, resumed_from_step=0)
    assert c.phase == "Running"
    old = c.pod(0)
    c.wait(60)
    preempt(c)
    c.control()
    assert not writes_suspend(c.reconcile())
    assert c.phase == "Queued"
    c.sweep()
    c.reconcile()
    c.wait(600)
    c.reconcile()
    assert c.phase == "Queued"
    admit(c)
    c.report = None
    c.train(21, resumed_from_step=20)
    status = c.status
    assert (status.phase, status.attempt, status.restarts) == ("Running", 1, 1)
    assert status.attempts[0].reason is None
    new = c.pod(0)
    assert c.report
    again = c.report.model_copy(update={"sequence": 0})
    views = [PodView.from_object(p) for p in (old, new)]
    assert views[0] is not None
    assert views[1] is not None
    assert report_order(views[1], again) > report_order(views[0], c.report.model_copy(update={"sequence": 99}))
    c.finish()
    assert c.phase == "Succeeded"


def test_pods_seen_to_leave_before_their_job_is_seen_suspended_are_no_failure() -> None:
    c = queued()
    admit(c)
    c.train(20, resumed_from_step=0)
    for pod in (c.pod(0), c.pod(1)):
        c.terminate(pod)
        c.exit(pod, 40)
    c.reconcile()  # the Job still looks admitted
    assert len(c.jobs(names.WORKER)) == 1
    assert c.status.attempts[0].reason is None
    preempt(c)
    c.reconcile()
    assert c.phase == "Queued"
    assert c.status.attempts[0].reason == Reason.PREEMPTED


def test_pods_of_before_the_last_admission_say_nothing() -> None:
    c = queued()
    admit(c)
    c.train(20, resumed_from_step=0)
    preempt(c)
    for pod in (c.pod(0), c.pod(1)):
        c.exit(
            pod, 137, reason="OOMKilled"
        )  # killed for staying too long; the Job controller has not cleared them away yet
    c.wait(600)
    admit(c)
    c.reconcile()
    assert c.phase == "Queued"
    assert c.status.attempts[0].reason is None


STOPPED = "Preempted to accommodate a workload (UID: x) due to prioritization in the ClusterQueue"


def taken_back(c: Cluster) -> Plan:
    """100 s of steps 1 to 20, then the queue takes the place back; what that leads to."""
    admit(c)
    c.train(20, resumed_from_step=0, seconds={"train": 100.0}, checkpoints=(c.checkpoint(15),))
    c.wait(100)
    preempt(c)
    c.control()
    return c.reconcile()


def preempted(c: Cluster) -> None:
    """The place is taken back, and for 600 s nothing is admitted."""
    found = taken_back(c)
    name = the_job(c)["metadata"]["name"]
    assert found.read_events == (name,)
    assert found.requeue_after is not None, "Kueue's words come later"
    c.events[name] = (
        EventView("Stopped", "of an earlier time", "Normal", 0.0),
        EventView("Stopped", STOPPED, "Normal", c.now),
    )
    c.wait(found.requeue_after)
    assert not c.reconcile().read_events
    c.sweep()
    c.wait(600)
    c.reconcile()


def test_a_preemption_by_the_queue_is_told() -> None:
    c = queued()
    preempted(c)
    status = c.status
    (told,) = status.attempts
    assert (told.number, told.reason, told.from_step, told.last_step) == (1, Reason.PREEMPTED, 0, 20)
    assert STOPPED in (told.message or "")
    assert "gpus" in (told.message or "")
    assert c.notes.count("Preempted") == 1
    assert (status.phase, status.reason) == ("Queued", "WaitingForQueue")
    assert "again" in (status.message or "")
    assert status.progress
    assert status.progress.eta_seconds is None

    admit(c)
    c.control()
    c.reconcile()
    assert c.status.attempts[0].from_step is None, "the last report is of before"
    c.train(16, resumed_from_step=15)
    now, before = c.status.attempts
    assert (now.number, now.reason, now.from_step, now.end_time) == (1, None, 15, None)
    assert before.lost_steps == 5
    assert before.model_copy(update={"lost_steps": None}) == told
    assert (c.status.attempt, c.status.restarts) == (1, 1)
    assert not {"Restarting"} & set(c.notes)

    c.exit(c.pod(0), 44)
    c.exit(c.pod(1), 41)
    c.control()
    c.control()
    c.reconcile()
    third, second, first = c.status.attempts
    assert [a.number for a in (third, second, first)] == [2, 1, 1]
    assert [a.reason for a in (second, first)] == [Reason.INTERNAL_ERROR, Reason.PREEMPTED]
    assert (c.status.attempt, c.status.restarts) == (2, 2)


def test_the_queues_words_are_still_looked_for_once_the_workers_are_admitted_again() -> None:
    c = queued()
    taken_back(c)
    c.wait(2)
    admit(c)
    c.control()
    found = c.reconcile()
    name = the_job(c)["metadata"]["name"]
    assert found.read_events == (name,)
    c.events[name] = (EventView("Stopped", STOPPED, "Normal", c.now - 2),)
    c.wait(found.requeue_after or 0.0)
    assert name not in c.reconcile().read_events
    now, before = c.status.attempts
    assert STOPPED in (before.message or "")
    assert (now.reason, now.end_time, now.message) == (None, None, None)
    c.events.clear()  # as after the operator's own restart
    c.reconcile()
    assert c.status.attempts[1].message == before.message


def test_only_the_time_without_a_place_is_time_in_the_queue() -> None:
    c = queued()
    preempted(c)
    admit(c)
    c.train(16, resumed_from_step=15, seconds={"train": 1.0})
    now, before = c.status.attempts
    assert before.seconds == {"queue": 1.0, "start": 0.0, "train": 100.0}
    assert now.seconds == {"queue": 612.0, "start": 0.0, "train": 1.0}
    assert now.start_time == before.end_time
    assert c.status.suspended_seconds == 613


def test_before_it_has_begun_there_is_nothing_to_preempt() -> None:
    c = queued()
    admit(c)
    c.control()
    c.reconcile()
    preempt(c)
    c.control()
    c.reconcile()
    assert c.status.attempts[0].reason is None
    assert "Preempted" not in c.notes


def test_suspended_by_the_user_while_the_queue_holds_it_the_next_attempt_follows() -> None:
    c = queued()
    preempted(c)
    c.job["spec"]["suspend"] = True
    c.reconcile()
    assert c.phase == "Suspended"
    c.job["spec"]["suspend"] = False
    c.reconcile()
    assert (c.phase, c.status.attempt) == ("Queued", 2)
    assert [a.reason for a in c.status.attempts] == [None, Reason.PREEMPTED]


def test_a_prepare_step_that_a_queue_holds_says_so() -> None:
    """Kueue gives a namespace's default queue to Jobs that name none."""
    c = Cluster({"activeDeadlineSeconds": 1000})
    c.reconcile()
    (job,) = c.jobs(names.PREPARE)
    job["metadata"]["labels"][names.QUEUE] = "default"
    job["spec"]["suspend"] = True
    for _ in range(2):
        c.reconcile()
        c.wait(5000)
    assert (c.phase, c.status.reason) == ("Queued", "WaitingForQueue")
    assert "queue default has not admitted the prepare step" in (c.status.message or "")
    job["spec"]["suspend"] = False
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.reconcile()
    assert c.phase == "Validating", "its time in the queue does not count against the deadline"


def test_a_users_mistake_counts_under_a_queue_too() -> None:
    c = queued()
    admit(c)
    c.train(20)
    c.exit(c.pod(0), 29)
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.reason == Reason.NOTHING_TO_LEARN


def test_a_failed_attempt_goes_back_into_the_queue() -> None:
    c = queued()
    admit(c)
    c.train(20, resumed_from_step=0)
    c.exit(c.pod(0), 44)
    c.exit(c.pod(1), 41)
    c.control()
    c.control()
    c.reconcile()
    second = max(c.jobs(names.WORKER), key=lambda j: j["metadata"]["name"])
    assert second["metadata"]["labels"][names.QUEUE] == "gpus"
    assert second["spec"]["suspend"] is True
    assert (c.phase, c.status.reason) == ("Queued", "WaitingForQueue")


def test_the_users_own_suspend_deletes_the_job_under_a_queue_too() -> None:
    c = queued()
    c.job["spec"]["suspend"] = True
    c.reconcile()
    assert c.phase == "Suspended"
    assert not c.jobs(names.WORKER)


def test_time_in_the_queue_does_not_count_against_the_deadline() -> None:
    c = queued()
    c.job["spec"]["activeDeadlineSeconds"] = 1000
    c.wait(5000)
    c.reconcile()
    assert c.phase == "Queued"
    admit(c)
    c.train(20, resumed_from_step=0)
    assert c.phase == "Running"
    assert c.status.suspended_seconds == 5001
    assert not {"Suspended", "Resumed"} & set(c.notes), "the user did nothing"
    preempt(c)
    c.control()
    c.sweep()
    c.reconcile()
    c.wait(5000)
    c.job["spec"]["suspend"] = True
    c.reconcile()
    assert (c.phase, c.notes[-1]) == ("Suspended", "Suspended")
    c.wait(5000)
    c.job["spec"]["suspend"] = False
    c.reconcile()
    assert c.phase == "Queued"
    admit(c)
    c.train(21, resumed_from_step=20)
    c.wait(999)
    c.reconcile()
    assert c.phase == "Failed"
