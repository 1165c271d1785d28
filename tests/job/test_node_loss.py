"""A node goes: told as soon as Kubernetes marks its pods, and left behind when Kubernetes gives them up, however
long their grace period. The pods themselves never say another word, and their Job would wait for them for ever."""

from __future__ import annotations

import pytest

from fakecluster.planning import Cluster
from finetune_api.exits import Reason
from finetune_api.status import Progress
from finetune_operator.plan import names
from finetune_operator.plan.views.pod import PodView


def running(replicas: int = 2, **fields: dict[str, str]) -> Cluster:
    c = Cluster({"workers": {"replicas": replicas}}, **fields)  # type: ignore[arg-type]
    c.prepare()
    for job in c.jobs(names.WORKER):
        job["spec"]["suspend"] = False
    c.train(20, resumed_from_step=0, checkpoints=(c.checkpoint(15),))
    assert c.report
    assert c.report.progress
    c.report = c.report.model_copy(update={"progress": c.report.progress.model_copy(update={"eta_seconds": 28.0})})
    c.reconcile()
    assert c.phase == "Running"
    return c


def numbers(c: Cluster) -> list[str]:
    return [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.WORKER)]


def progress(c: Cluster) -> Progress:
    assert c.status.progress
    return c.status.progress


def test_a_silent_node_is_told_at_once_and_no_end_is_promised() -> None:
    c = running()
    assert progress(c).eta_seconds == 28
    c.silence(c.pod(1))
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Restarting", Reason.NODE_LOST)
    assert "node-1" in (c.status.message or "")
    assert c.status.display
    assert c.status.display.eta is None
    assert progress(c).eta_seconds is None
    assert c.status.attempts[0].reason is None, "it may come back"
    assert c.notes.count("NodeSilent") == 1
    c.wait(1000)
    c.reconcile()
    assert numbers(c) == ["1"], "Kubernetes' taint decides, not a clock of ours"
    assert not [x for x in c.status.conditions if x.type == "ReportsDegraded" and x.status == "True"], "not the network"
    c.start(c.pod(1))  # it is back
    c.reconcile()
    assert c.phase == "Running"
    assert progress(c).eta_seconds == 28


@pytest.mark.parametrize("replicas", [1, 2])
def test_when_every_pod_is_lost_the_next_attempt_is_made_at_once(replicas: int) -> None:
    c = running(replicas)
    old = c.jobs(names.WORKER)[0]["metadata"]["name"]
    pods = [c.pod(i) for i in range(replicas)]
    c.silence(*pods)
    c.reconcile()
    c.give_up(*pods)
    c.control()
    c.reconcile()
    assert numbers(c) == ["2"]
    assert ("Job", old) in c.deleted
    assert ("Service", old) in c.deleted
    lost = c.status.attempts[-1]
    assert (lost.reason, lost.end_time is None, lost.pod) == (Reason.NODE_LOST, False, pods[0]["metadata"]["name"])
    assert "node-1" in (lost.message or "")
    c.train(25, resumed_from_step=15)
    assert (c.phase, c.status.attempt, c.status.restarts) == ("Running", 2, 1)
    assert c.status.attempts[-1].lost_steps == 5


def test_a_checkpoint_beyond_the_last_step_that_was_told_says_how_far_the_attempt_came() -> None:
    c = running(1)
    told = c.status.attempts[0].last_step
    assert told == 20
    c.silence(c.pod(0))
    c.reconcile()
    c.give_up(c.pod(0))
    c.control()
    c.reconcile()
    c.train(35, resumed_from_step=30)
    now, lost = c.status.attempts
    assert (now.from_step, lost.last_step, lost.lost_steps) == (30, 30, 0)


def test_the_peers_of_a_lost_pod_are_told_to_leave_and_not_waited_for_longer() -> None:
    c = running()
    c.silence(c.pod(1))
    c.give_up(c.pod(1))
    c.control()
    c.reconcile()
    assert numbers(c) == [], "deleting the Job tells worker 0 to stop"
    assert (c.phase, c.status.reason) == ("Restarting", Reason.NODE_LOST)
    alive = c.pod(0)
    c.exit(alive, 41)
    c.reconcile()
    assert numbers(c) == ["2"]
    assert c.status.attempts[-1].reason == Reason.NODE_LOST


def test_the_restart_costs_nothing_of_the_budget() -> None:
    c = Cluster({"workers": {"replicas": 1}, "restartPolicy": {"maxRestarts": 0}})
    c.prepare()
    for attempt in range(1, 5):
        c.train(20, resumed_from_step=0)
        c.silence(c.pod(0))
        c.give_up(c.pod(0))
        c.reconcile()
        c.wait(60)
        c.reconcile()
        assert numbers(c) == [str(attempt + 1)]


def test_a_job_under_a_queue_is_left_behind_too() -> None:
    c = running(labels={names.QUEUE: "gpus"})
    c.silence(c.pod(0), c.pod(1))
    c.give_up(c.pod(0), c.pod(1))
    c.reconcile()
    assert numbers(c) == ["2"], "the old one would keep its share of the queue"
    assert c.status.attempts[-1].reason == Reason.NODE_LOST


def test_a_pod_that_never_started_there_is_not_waited_for() -> None:
    c = Cluster({"workers": {"replicas": 1}})
    c.prepare()
    c.control()
    pod = c.pod(0)
    pod["spec"]["nodeName"] = "node-2"
    pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    c.reconcile()
    c.give_up(pod)
    c.reconcile()
    assert numbers(c) == ["2"]


def test_a_pod_that_leaves_a_tainted_node_in_order_has_its_grace_period() -> None:
    c = running(1)
    pod = c.pod(0)
    pod["status"]["conditions"] += [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"}]
    c.give_up(pod)
    c.control()
    c.reconcile()
    c.wait(100)
    c.reconcile()
    assert numbers(c) == ["1"], "it writes its checkpoint"
    c.exit(pod, 40)
    c.control()
    c.reconcile()
    assert "2" in numbers(c)
    assert c.status.attempts[-1].reason == Reason.NODE_LOST


def test_a_pod_that_is_not_ready_by_a_gate_is_heard_of() -> None:
    c = running(1)
    pod = c.pod(0)
    c.silence(pod)
    pod["status"]["conditions"][-1]["reason"] = "ReadinessGatesNotReady"
    view = PodView.from_object(pod)
    assert view
    assert view.silent is None


def test_the_prepare_pod_is_left_behind_too() -> None:
    c = Cluster()
    pod = c.check()
    c.silence(pod)
    c.reconcile()
    assert (c.phase, c.status.reason) == ("Restarting", Reason.NODE_LOST)
    assert "checkpoint" not in (c.status.message or "")
    c.give_up(pod)
    c.reconcile()
    assert [j["metadata"]["labels"][names.ATTEMPT] for j in c.jobs(names.PREPARE)] == ["2"]
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.exit(c.pod(0, names.PREPARE), 0)
    c.control()
    c.reconcile()
    assert c.phase == "Queued"


def test_suspended_while_a_node_is_lost_it_rests_at_once() -> None:
    c = running(1)
    c.silence(c.pod(0))
    c.job["spec"]["suspend"] = True
    c.reconcile()
    assert c.phase != "Suspended"
    c.give_up(c.pod(0))
    c.reconcile()
    assert c.phase == "Suspended"
