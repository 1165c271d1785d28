"""The walk of a job from its first sight to its end, one step after the other."""

from __future__ import annotations

import dataclasses

from fakecluster.planning import Cluster
from finetune_api.report import Stage
from finetune_api.status import Best, DataProfile, OutputStatus, Resolved
from finetune_operator.job.decide import plan
from finetune_operator.plan import names
from finetune_operator.plan.plan import Delete
from finetune_operator.plan.views.service import ServiceView


def test_prepare_comes_first_and_alone() -> None:
    c = Cluster({"workers": {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}})
    c.reconcile()
    assert [k for k, _ in c.created] == ["ConfigMap", "Job"]
    (job,) = c.jobs()
    assert job["metadata"]["labels"][names.COMPONENT] == names.PREPARE
    assert job["spec"]["parallelism"] == 1
    assert "gpu" not in str(job["spec"]["template"]["spec"]["containers"][0]["resources"])
    assert c.phase == "Pending"
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.reconcile()
    assert c.phase == "Validating"
    assert not c.jobs(names.WORKER)


def test_a_container_that_ended_before_its_pod_did_sets_no_phase_back() -> None:
    """The kubelet says that a container has ended a second before it says so of the pod."""
    c = Cluster()
    pod = c.check()
    c.exit(pod, 0)
    pod["status"]["phase"] = "Running"
    c.reconcile()
    assert (c.phase, c.status.message) == ("Validating", "storage, credentials, model and data are being checked")
    pod["status"]["phase"] = "Succeeded"
    c.control()
    c.reconcile()
    c.control()
    workers = [c.pod(0), c.pod(1)]
    c.start(*workers)
    c.say(100, stage=Stage.FINISHED)
    c.reconcile()
    for worker in workers:
        c.exit(worker, 0)
        worker["status"]["phase"] = "Running"
    c.reconcile()
    assert c.phase == "Evaluating"


def test_the_whole_walk() -> None:
    c = Cluster()
    pod = c.check()
    profile = DataProfile(train_rows=100, objects=3, bad_rows=2)
    c.say(
        stage=Stage.PREPARING,
        component=names.PREPARE,
        data=profile,
        resolved=Resolved(total_steps=100, learning_rate=5e-5),
    )
    c.reconcile()
    c.exit(pod, 0)
    c.control()
    c.reconcile()
    status = c.status
    assert status.data == profile
    assert status.resolved == Resolved(total_steps=100, learning_rate=5e-5)
    assert {x.type: x.status for x in status.conditions}["Validated"] == "True"
    assert [k for k, _ in c.created] == ["ConfigMap", "Job", "ConfigMap", "Service", "Job"]
    assert c.phase == "Queued"

    c.control()
    c.reconcile()
    assert c.phase == "Queued"
    c.start(c.pod(0))
    c.reconcile()
    assert c.phase == "Queued"  # worker 1 has no node yet
    c.start(c.pod(1))
    c.reconcile()
    assert c.phase == "Starting"
    assert c.status.attempt == 1

    c.say(10, best=Best(step=10, metric="macro-f1", value=0.98123))
    c.reconcile()
    assert c.phase == "Running"
    shown = c.status.display
    assert shown is not None
    assert (shown.model, shown.progress, shown.loss, shown.best) == ("minilm", "10%", "0.500", "macro-f1=0.981")
    c.say(100, stage=Stage.TESTING)
    c.reconcile()
    assert c.phase == "Evaluating"
    c.say(
        100, stage=Stage.FINISHED, test={"macro-f1": 0.97}, output=OutputStatus(uri="s3://models/spam-filter", bytes=5)
    )
    c.finish()
    status = c.status
    assert status.phase == "Succeeded"
    assert status.output == OutputStatus(uri="s3://models/spam-filter", bytes=5)
    assert status.test == {"macro-f1": 0.97}
    assert status.completion_time is not None
    assert len(c.pods) == 3, "pods stay for their logs"
    assert c.notes == ["Validated", "Running", "Succeeded"]


def test_equal_observations_give_equal_plans_and_nothing_twice() -> None:
    c = Cluster()
    c.prepare()
    c.train()
    made = len(c.created)
    assert plan(c.observed()) == plan(c.observed())
    for _ in range(3):
        found = plan(c.observed())
        assert found.status == c.status
        assert not found.create
        assert not found.delete
        assert not found.notes
        c.apply(found)
        c.wait(3)
    assert len(c.created) == made


def test_success_needs_the_job_complete() -> None:
    c = Cluster()
    c.prepare()
    c.train()
    c.exit(c.pod(0), 0)
    c.control()
    c.reconcile()
    assert c.phase == "Running"
    c.exit(c.pod(1), 0)
    c.control()
    c.reconcile()
    assert c.phase == "Succeeded"


def test_the_last_word_serves_where_no_report_came() -> None:
    c = Cluster()
    c.prepare()
    c.train(step=None)
    c.exit(c.pod(1), 0, outcome=False)
    c.exit(c.pod(0), 0, step=100, test={"macro-f1": 0.9}, output=OutputStatus(uri="s3://models/spam-filter", bytes=7))
    c.control()
    c.reconcile()
    assert c.phase == "Succeeded"
    assert c.status.test == {"macro-f1": 0.9}
    assert c.status.output == OutputStatus(uri="s3://models/spam-filter", bytes=7)


def test_a_job_being_deleted_is_left_to_the_garbage_collector() -> None:
    c = Cluster()
    c.prepare()
    c.job["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    found = plan(c.observed())
    assert not found.create
    assert not found.delete
    assert found.status == c.status


def test_workers_that_never_reported_succeed_all_the_same() -> None:
    c = Cluster()
    c.prepare()
    c.train(None)
    assert c.status.progress is None
    for pod in c.pods.values():
        if pod["status"]["phase"] == "Running":
            c.exit(pod, 0, outcome=False)
    c.control()
    c.reconcile()
    assert (c.phase, c.status.progress) == ("Succeeded", None)


def test_the_service_of_an_attempt_goes_when_the_attempt_has_ended() -> None:
    c = Cluster()
    c.prepare()
    c.train()
    job = c.jobs(names.WORKER)[0]["metadata"]
    mine = ServiceView(job["name"], "team", "service-1", c.uid)
    running = dataclasses.replace(c.observed(), services=(mine,))
    assert plan(running).delete == ()
    c.finish()
    ended = dataclasses.replace(c.observed(), services=(mine,))
    assert plan(ended).delete == (Delete("Service", job["name"], "service-1"),)


def test_a_service_that_goes_with_its_attempt_is_deleted_once() -> None:
    c = Cluster({"workers": {"replicas": 1}, "restartPolicy": {"maxRestarts": 5}})
    c.prepare()
    for _ in range(3):
        c.train(None)
        c.exit(c.pod(), 44)
        c.control()
        c.control()
        c.wait(400)
        c.reconcile(1)
    observed = c.observed()
    oldest = min((j for j in observed.jobs if j.component == names.WORKER), key=lambda j: j.attempt)
    assert oldest.terminal
    made = plan(dataclasses.replace(observed, services=(ServiceView(oldest.name, "team", "s", c.uid),)))
    assert [d.name for d in made.delete if d.kind == "Service"].count(oldest.name) == 1
