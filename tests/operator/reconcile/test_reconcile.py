"""One reconcile at a time: few writes, no second child, nothing left behind, and one job's trouble is its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fakecluster.api import Call
from fakecluster.driver import KEY, NAMESPACE, REF, SETTINGS, Driver, job
from fakecluster.node import COMPONENT, success
from finetune_api import KIND
from finetune_api.report import Report
from finetune_api.status import Progress
from finetune_operator.job import decide
from finetune_operator.job.policies import hidden_namespace
from finetune_operator.kube.errors import Conflict, Forbidden
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB
from finetune_operator.reconcile.loop import PLANNERS, Planner
from finetune_operator.store.memory import Received


async def test_reconciling_again_writes_nothing_and_the_echo_causes_no_work(driver: Driver) -> None:
    await driver.round()
    await driver.round()  # the Job that the first one made is seen now
    written = len(driver.api.writes())
    echo = driver.api.objects.get(REF)
    assert driver.store.put(FINETUNE_JOB, echo) == set()
    for _ in range(3):
        await driver.reconciler.reconcile(KEY)
    assert len(driver.api.writes()) == written


async def test_a_job_that_a_queue_manager_holds_from_the_start_is_looked_at_again(driver: Driver) -> None:
    """Kueue's webhook suspends it while it is made; no pod and no start follow that would tell of it."""

    def hold(call: Call) -> None:
        if call.verb == "create" and call.plural == "jobs":
            assert call.body
            call.body["spec"]["suspend"] = True
            call.body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"

    driver.api.faults.append(hold)
    await driver.relister.once()
    assert await driver.queue.get() == KEY
    await driver.reconciler.reconcile(KEY)
    driver.queue.done(KEY)
    assert driver.queue.depth == 1
    await driver.reconciler.reconcile(KEY)
    assert (driver.status()["phase"], driver.status()["reason"]) == ("Queued", "WaitingForQueue")


async def test_one_reconcile_writes_the_status_once(driver: Driver) -> None:
    for _ in range(12):
        before = len(driver.api.writes())
        await driver.round()
        statuses = [c for c in driver.api.writes()[before:] if c.subresource == "status"]
        assert len(statuses) <= 1
        driver.node.tick()
    assert driver.status()["phase"] == "Succeeded"
    assert len(driver.api.writes()) <= 20


async def test_a_view_that_missed_a_creation_makes_no_second_child(driver: Driver) -> None:
    """The watch is late: the store does not know of the Job that was made before."""
    await driver.round()
    made = [j["metadata"]["uid"] for j in driver.api.objects.list("jobs")]
    for uid in made:
        driver.store.drop(JOB, uid)
    await driver.reconciler.reconcile(KEY)
    assert [j["metadata"]["uid"] for j in driver.api.objects.list("jobs")] == made
    observed = driver.store.snapshot(KEY, driver.reconciler._plan_settings(), driver.now)
    assert observed
    assert [j.uid for j in observed.jobs] == made  # adopted: it is known again
    assert observed.conflicts == ()


async def test_events_of_a_job_without_pods_are_read_and_shown(driver: Driver) -> None:
    await driver.round()
    child = driver.api.objects.list("jobs")[0]["metadata"]
    words = 'pods "x" is forbidden: exceeded quota: team, requested: cpu=1'
    about = {"kind": "Job", "name": child["name"], "uid": child["uid"]}
    event = {"metadata": {"name": "e1"}, "involvedObject": about, "reason": "FailedCreate", "type": "Warning"}
    event |= {"message": words, "lastTimestamp": driver.api.objects.clock()}
    driver.api.objects.create("events", NAMESPACE, event)
    await driver.round(15)
    assert "exceeded quota" in driver.status()["message"]
    listed = [c for c in driver.api.calls if c.plural == "events" and c.verb == "list"]
    assert len(listed) == 1
    for _ in range(3):
        await driver.reconciler.reconcile(KEY)
    assert (
        len([c for c in driver.api.calls if c.plural == "events" and c.verb == "list"]) == 1
    )  # not again within ten seconds


async def test_a_deleted_job_leaves_neither_children_nor_series_behind(driver: Driver) -> None:
    for _ in range(4):
        await driver.round()
        driver.node.tick()
    assert driver.api.objects.list("pods", NAMESPACE, f"{COMPONENT}=worker")
    assert series(driver)
    driver.api.objects.delete(REF)
    await driver.relister.once()
    await driver.reconciler.reconcile(KEY)
    assert [ref for ref in driver.api.objects.all if ref[0] != "events"] == []
    assert series(driver) == []
    assert driver.store.size() == (0, 0)


def series(driver: Driver) -> list[Any]:
    return [
        s
        for family in driver.metrics.registry.collect()
        for s in family.samples
        if s.labels.get("name") == "spam-filter"
    ]


async def test_a_report_reaches_the_status_and_is_forgotten_once_the_job_has_ended(driver: Driver) -> None:
    driver.node.end = lambda pod: None
    for _ in range(6):
        await driver.round()
        driver.node.tick()
        for pod in driver.api.objects.list("pods", NAMESPACE, f"{COMPONENT}=prepare"):
            driver.node._ended(pod, success(pod))
    uid = driver.store.uid(KEY)
    assert uid
    worker = driver.api.objects.list("pods", NAMESPACE, f"{COMPONENT}=worker")[0]
    view = driver.store.pod(uid, worker["metadata"]["uid"])
    assert view
    report = Report.model_validate_json(
        f'{{"jobId": "{uid}", "attempt": 1, "sequence": 3, "time": 1, "stage": "training", '
        '"progress": {"step": 5, "totalSteps": 10, "percent": 50.0, "loss": 0.25}}'
    )
    driver.store.memory(uid).report_received(Received.of(report, view, driver.now))
    await driver.reconciler.reconcile(KEY)
    assert driver.status()["progress"]["step"] == 5
    assert driver.status()["phase"] == "Running"
    driver.node.end = success
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"
    assert driver.store.memory(uid).report is None


async def test_an_error_of_our_own_in_one_job_stops_no_other(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.api.objects.create("finetunejobs", NAMESPACE, job("other", output={"uri": "s3://models/other"}))
    await driver.relister.once()
    plan = decide.plan

    def broken(observed: Any) -> Any:
        if observed.job.name == "spam-filter":
            raise AssertionError("as planned")
        return plan(observed)

    monkeypatch.setitem(PLANNERS, KIND, Planner(broken, hidden_namespace.plan))
    for _ in range(2):
        key = await driver.queue.get()
        await driver.reconciler.process(key)
        driver.queue.done(key)
    assert driver.api.objects.get(("finetunejobs", NAMESPACE, "other"))["status"]["phase"] == "Pending"
    assert driver.metrics.registry.get_sample_value("finetune_operator_reconcile_errors_total", {"cause": "bug"}) == 1


async def test_a_job_made_anew_by_the_same_name_never_gets_the_status_of_the_old_one(driver: Driver) -> None:
    """The watch is late: the store still holds the old one."""
    await driver.relister.once()
    driver.api.objects.delete(REF)
    second = driver.api.objects.create("finetunejobs", NAMESPACE, job())
    with pytest.raises(Conflict):
        await driver.reconciler.reconcile(KEY)
    assert "status" not in driver.api.objects.get(REF)
    assert driver.store.uid(KEY) == second["metadata"]["uid"]  # looked at again
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"


async def test_a_change_that_the_watch_has_not_told_yet_is_seen_before_the_status_is_written(driver: Driver) -> None:
    await driver.relister.once()
    driver.api.objects.merge(REF, {"spec": {"suspend": True}})
    with pytest.raises(Conflict):
        await driver.reconciler.reconcile(KEY)
    await driver.reconciler.reconcile(KEY)
    assert driver.status()["observedGeneration"] == 2


async def worker_job(driver: Driver) -> str:
    """Name of the workers' Job, with its pods at work for ever."""
    driver.node.end = lambda pod: success(pod) if pod["metadata"]["labels"][COMPONENT] == "prepare" else None
    await driver.settle()
    return next(
        j["metadata"]["name"] for j in driver.api.objects.list("jobs") if j["metadata"]["labels"][COMPONENT] == "worker"
    )


async def test_a_new_ca_of_the_report_server_reaches_workers_that_are_at_work(driver: Driver) -> None:
    name = await worker_job(driver)
    old = driver.api.objects.get(("jobs", NAMESPACE, name))["metadata"]["annotations"]
    driver.settings = dataclasses.replace(SETTINGS, report_ca="NEW")
    await driver.round()
    assert driver.api.objects.get(("configmaps", NAMESPACE, name))["data"]["ca.crt"] == "NEW"
    assert driver.api.objects.get(("jobs", NAMESPACE, name))["metadata"]["annotations"] != old
    written = len(driver.api.writes())
    await driver.round()
    assert len(driver.api.writes()) == written


async def test_a_patch_that_fails_never_keeps_the_status_from_being_written(driver: Driver) -> None:
    name = await worker_job(driver)
    annotations = driver.api.objects.get(("jobs", NAMESPACE, name))["metadata"]["annotations"]
    driver.settings = dataclasses.replace(SETTINGS, report_ca="NEW")
    driver.api.rights -= {("patch", "configmaps")}
    uid = driver.store.uid(KEY)
    assert uid
    pod = next(v for v in driver.store.snapshot(KEY, SETTINGS, driver.now).pods if v.component == "worker")  # type: ignore[union-attr]
    report = Report(
        job_id=uid, attempt=1, sequence=1, time=1, stage="training", progress=Progress(step=3, total_steps=10)
    )
    driver.store.memory(uid).report_received(Received.of(report, pod, driver.now))
    with pytest.raises(Forbidden):
        await driver.round()
    assert driver.status()["progress"]["step"] == 3
    unmarked = driver.api.objects.get(("jobs", NAMESPACE, name))["metadata"]["annotations"]
    assert unmarked == annotations  # so it is tried again
    driver.api.rights |= {("patch", "configmaps")}
    await driver.round()
    assert driver.api.objects.get(("configmaps", NAMESPACE, name))["data"]["ca.crt"] == "NEW"


async def test_a_job_that_was_deleted_is_gone_before_the_watch_says_so(driver: Driver) -> None:
    """Else a resume right after a suspend would take the attempt, whose Job still seems to be there, for one that goes
    on.
    """
    name = await worker_job(driver)
    driver.api.objects.merge(REF, {"spec": {"suspend": True}})
    await driver.relister.once()
    await driver.reconciler.reconcile(KEY)
    assert name not in {j["metadata"]["name"] for j in driver.api.objects.list("jobs")}
    observed = driver.store.snapshot(KEY, SETTINGS, driver.now)
    assert observed
    assert name not in {j.name for j in observed.jobs}
    assert driver.store.pod(observed.job.uid, observed.pods[-1].uid), "its pods still report their checkpoint"
