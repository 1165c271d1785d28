"""What the API server refuses, and names that somebody else has: shown to the user, tried again, never taken by
force.
"""

from __future__ import annotations

import itertools
import math

import pytest

from fakecluster.api import Call
from fakecluster.driver import KEY, NAMESPACE, REF, Driver
from fakecluster.objects import Refusal
from finetune_operator.kube.errors import Unauthorized
from finetune_operator.store.memory import REFUSED_LONGEST, REFUSED_SECONDS


def conditions(driver: Driver) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in driver.status().get("conditions") or ()}


def refuse(driver: Driver, plural: str, code: int, message: str) -> None:
    def fault(call: Call) -> None:
        if call.verb == "create" and call.plural == plural:
            raise Refusal(code, "Forbidden" if code == 403 else "Invalid", message)

    driver.api.faults.append(fault)


async def test_credentials_that_are_not_accepted_for_a_moment_are_no_refusal_of_the_job(driver: Driver) -> None:
    def reject(call: Call) -> None:
        if call.verb == "create" and call.plural == "configmaps":
            raise Refusal(401, "Unauthorized", "Unauthorized")

    driver.api.faults.append(reject)
    with pytest.raises(Unauthorized):
        await driver.round()
    assert "AdmissionDenied" not in str(driver.status())
    assert driver.store.memory(driver.store.uid(KEY) or "").refusals == ()
    driver.api.faults.clear()
    await driver.round()
    assert driver.api.objects.list("jobs")


async def test_an_object_of_our_name_that_is_somebody_elses_is_shown_and_never_touched(driver: Driver) -> None:
    uid = driver.api.objects.get(REF)["metadata"]["uid"]
    name = f"ft-spam-filter-{uid[:8]}-p1"
    foreign = driver.api.objects.create("configmaps", NAMESPACE, {"metadata": {"name": name}, "data": {"mine": "yes"}})
    await driver.round()
    await driver.reconciler.reconcile(KEY)  # the conflict itself asked for this
    assert conditions(driver)["NameConflict"] == ("True", "NameConflict")
    assert name in driver.status()["message"]
    assert driver.api.objects.get(("configmaps", NAMESPACE, name)) == foreign
    assert driver.api.objects.list("jobs") == []
    driver.api.objects.remove(("configmaps", NAMESPACE, name))
    await driver.round(REFUSED_SECONDS)
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"
    assert conditions(driver)["NameConflict"][0] == "False"


async def test_a_conflict_is_planned_again_at_once_and_then_only_now_and_then(driver: Driver) -> None:
    uid = driver.api.objects.get(REF)["metadata"]["uid"]
    driver.api.objects.create("configmaps", NAMESPACE, {"metadata": {"name": f"ft-spam-filter-{uid[:8]}-p1"}})
    await driver.relister.once()
    assert await driver.queue.get() == KEY
    await driver.reconciler.process(KEY)
    driver.queue.done(KEY)
    assert driver.queue.depth == 1
    assert await driver.queue.get() == KEY
    await driver.reconciler.process(KEY)
    driver.queue.done(KEY)
    assert (driver.queue.depth, driver.queue.delayed) == (0, 1)


async def test_a_quota_that_refuses_the_job_object_is_shown_and_healed(driver: Driver) -> None:
    refuse(driver, "jobs", 403, "exceeded quota: count/jobs.batch=1")
    await driver.round()
    await driver.reconciler.reconcile(KEY)
    assert "exceeded quota" in driver.status()["message"]
    assert driver.status()["phase"] == "Pending"
    driver.api.faults.clear()
    await driver.round(REFUSED_SECONDS)
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"


async def test_what_a_quota_refuses_is_asked_for_ever_less_often_and_at_once_after_a_change_of_the_spec(
    driver: Driver,
) -> None:
    refuse(driver, "jobs", 403, "exceeded quota: count/jobs.batch=1")

    def asked() -> int:
        return len([c for c in driver.api.calls if c.verb == "create" and c.plural == "jobs"])

    await driver.relister.once()
    tries = []
    for second in range(0, 3600, 10):
        before = asked()
        await driver.reconciler.reconcile(KEY)
        tries += [second] * (asked() - before)
        driver.now += 10
    assert tries[:5] == [0, 30, 90, 210, 450]
    assert {b - a for a, b in itertools.pairwise(tries[4:])} == {REFUSED_LONGEST}
    assert "exceeded quota" in driver.status()["message"]

    driver.now = math.floor(driver.now) + 1.0
    driver.api.objects.merge(REF, {"spec": {"ttlSecondsAfterFinished": 60}})
    await driver.relister.once()
    before = asked()
    await driver.reconciler.reconcile(KEY)
    assert asked() == before + 1


async def test_events_that_cannot_be_read_never_keep_the_status_from_being_written(driver: Driver) -> None:
    await driver.round()
    tried = []

    def forbid(call: Call) -> None:
        if call.plural == "events" and call.verb == "list":
            tried.append(call)
            raise Refusal(403, "Forbidden", "events is forbidden")

    driver.api.faults.append(forbid)
    await driver.round(15)  # the Job has no pods: its Events are wanted
    assert len(tried) == 1
    driver.api.objects.merge(REF, {"spec": {"suspend": True}})
    await driver.round(15)
    await driver.round(15)
    assert driver.status()["phase"] == "Suspended"


async def test_a_child_that_the_api_server_finds_invalid_fails_the_job_with_its_words(driver: Driver) -> None:
    refuse(driver, "jobs", 422, "spec.template.spec.containers[0].resources: Invalid value")
    await driver.round()
    await driver.reconciler.reconcile(KEY)
    assert driver.status()["phase"] == "Failed"
    assert "containers[0].resources" in driver.status()["failure"]["message"]


@pytest.mark.parametrize(("code", "outcome"), [(500, "unavailable"), (429, "throttled"), (409, "conflict")])
async def test_a_failed_reconcile_comes_back_and_is_counted(driver: Driver, code: int, outcome: str) -> None:
    def fault(call: Call) -> None:
        if call.subresource == "status":
            raise Refusal(code, "AsPlanned", "for the test", retry_after=7)

    await driver.relister.once()
    await driver.queue.get()
    driver.api.faults.append(fault)
    await driver.reconciler.process(KEY)
    driver.queue.done(KEY)
    assert driver.queue.delayed == 1
    assert driver.queue.failures(KEY) == 1
    assert driver.metrics.registry.get_sample_value("finetune_operator_reconcile_errors_total", {"cause": outcome}) == 1
