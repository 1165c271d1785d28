"""Invariant I6: killing the operator before or after any of its writes ends in the same state, with no child made
twice, left over or lost.

A golden run of each workflow counts the operator's N writes. Then, for every k, the operator is killed before and after
write k and starts anew, knowing nothing: the cluster must end up the same, down to the pods that ran and the Events.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fakecluster.api import Call, FakeApi
from fakecluster.driver import NAMESPACE, Driver, Kill, Killed, job
from fakecluster.node import ATTEMPT, COMPONENT, Ending, Node, success
from fakecluster.objects import Object, Refusal
from finetune_operator.kube.errors import ApiError

REF = ("finetunejobs", NAMESPACE, "spam-filter")


@dataclass
class Workflow:
    """What happens to one job: its spec, how its pods end, and what a user or a fault does meanwhile (once each)."""

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    end: Callable[[Object], Ending | None] = success
    acts: tuple[
        tuple[str, Callable[[Driver], bool]], ...
    ] = ()  # each is tried every round until it says that it has acted


def outcome(pod: Object, code: int, reason: str) -> Ending:
    labels = pod["metadata"]["labels"]
    said = {
        "version": 1,
        "jobId": labels["finetune-operator.io/job-uid"],
        "attempt": int(labels[ATTEMPT]),
        "exitCode": code,
    }
    return Ending(code, "Error", json.dumps(said | {"problem": {"reason": reason, "message": "as planned"}}))


def ends(component: str, attempt: str, code: int, reason: str) -> Callable[[Object], Ending | None]:
    """The first pod of that component and attempt fails; all others succeed, after it has failed."""

    def end(pod: Object) -> Ending | None:
        labels = pod["metadata"]["labels"]
        if (labels[COMPONENT], labels[ATTEMPT]) == (component, attempt):
            return outcome(pod, code, reason) if pod["metadata"]["name"].endswith("-0") else None
        return success(pod)

    return end


def waits(pod: Object) -> Ending | None:
    """Workers of attempt 1 run on for ever."""
    labels = pod["metadata"]["labels"]
    return None if (labels[COMPONENT], labels[ATTEMPT]) == ("worker", "1") else success(pod)


def running_workers(driver: Driver) -> list[Object]:
    pods = driver.api.objects.list("pods", NAMESPACE, f"{COMPONENT}=worker")
    return [p for p in pods if p["status"].get("phase") == "Running"]


def suspend(driver: Driver) -> bool:
    if not running_workers(driver):
        return False
    driver.api.objects.merge(REF, {"spec": {"suspend": True}})
    return True


def resume(driver: Driver) -> bool:
    objects = driver.api.objects
    if driver.status().get("phase") != "Suspended" or not objects.get(REF)["spec"].get("suspend"):
        return False
    objects.merge(REF, {"spec": {"suspend": False}})
    return True


def delete_job(driver: Driver) -> bool:
    if not running_workers(driver):
        return False
    driver.api.objects.delete(REF)
    return True


def kill_pod(driver: Driver) -> bool:
    pods = running_workers(driver)
    if not pods or driver.status().get("phase") != "Starting":
        return False
    driver.api.objects.remove(("pods", NAMESPACE, pods[0]["metadata"]["name"]))
    return True


WORKFLOWS = [
    Workflow("success"),
    Workflow("retry after a lost peer", end=ends("worker", "1", 41, "PeerLost")),
    Workflow("user error in the prepare step", end=ends("prepare", "1", 21, "InvalidData")),
    Workflow("user error of a worker", end=ends("worker", "1", 30, "NonFiniteLoss")),
    Workflow("a deleted worker pod", end=waits, acts=(("kill", kill_pod),)),
    Workflow("suspend and resume", end=waits, acts=(("suspend", suspend), ("resume", resume))),
    Workflow("deletion while running", end=waits, acts=(("delete", delete_job),)),
    Workflow("time to live", spec={"ttlSecondsAfterFinished": 20}),
]


async def play(
    workflow: Workflow, *, kill: Kill | None = None, fault: Callable[[Call], None] | None = None
) -> tuple[dict[str, Any], int]:
    """Run the workflow to its end. Returns the final picture and the number of the operator's writes."""
    api = FakeApi()
    api.objects.create("finetunejobs", NAMESPACE, job(**workflow.spec))
    driver = Driver(api, Node(api.objects, end=workflow.end), kill=kill)
    if fault:
        api.faults.append(fault)
    todo, quiet = list(workflow.acts), 0
    for _ in range(80):
        before = api.objects.version
        try:
            await driver.round(20.0)
        except Killed:
            await driver.restart()
        except ApiError:
            assert fault, "nothing was to fail"
        driver.node.tick()
        if todo and todo[0][1](driver):
            todo.pop(0)
        quiet = quiet + 1 if api.objects.version == before else 0
        if quiet >= 4:
            break
    else:
        raise AssertionError(f"{workflow.name}: not settled\n{driver.picture()}")
    await driver.close()
    assert not todo, f"{workflow.name}: {todo[0][0]} never happened"
    return picture(driver), len(api.writes())


def picture(driver: Driver) -> dict[str, Any]:
    """Everything that must not depend on when the operator was killed: times are left out."""
    objects = driver.api.objects.all
    jobs = [copy.deepcopy(o.get("status") or {}) for (plural, _, _), o in objects.items() if plural == "finetunejobs"]
    return {
        "objects": sorted(f"{plural}/{name}" for plural, _, name in objects if plural != "events"),
        "events": sorted(o["reason"] for (plural, _, _), o in objects.items() if plural == "events"),
        "pods that ran": sorted(driver.node.started),
        "status": [
            {
                "phase": s.get("phase"),
                "reason": s.get("reason"),
                "failure": (s.get("failure") or {}).get("reason"),
                "attempt": s.get("attempt"),
                "restarts": s.get("restarts"),
                "conditions": sorted((c["type"], c["status"], c["reason"]) for c in s.get("conditions") or ()),
                "attempts": [(a["number"], a.get("reason"), a.get("exitCode")) for a in s.get("attempts") or ()],
                "output": s.get("output"),
                "resolved": s.get("resolved"),
            }
            for s in jobs
        ],
    }


@functools.cache
def _golden() -> dict[str, tuple[dict[str, Any], int]]:
    return {}


async def golden(workflow: Workflow) -> tuple[dict[str, Any], int]:
    known = _golden()
    if workflow.name not in known:
        known[workflow.name] = await play(workflow)
    return known[workflow.name]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda w: w.name)
async def test_a_golden_run_ends_as_it_should(workflow: Workflow) -> None:
    final, writes = await golden(workflow)
    phases = {
        "success": "Succeeded",
        "retry after a lost peer": "Succeeded",
        "user error in the prepare step": "Failed",
        "user error of a worker": "Failed",
        "a deleted worker pod": "Succeeded",
        "suspend and resume": "Succeeded",
        "deletion while running": None,
        "time to live": None,
    }
    assert [s["phase"] for s in final["status"]] == ([phases[workflow.name]] if phases[workflow.name] else [])
    if phases[workflow.name] is None:
        assert final["objects"] == []
    assert 4 <= writes <= 40


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda w: w.name)
async def test_killed_at_any_write_it_ends_the_same(workflow: Workflow, after: bool) -> None:
    expected, writes = await golden(workflow)
    for k in range(1, writes + 1):
        kill = Kill(k, after)
        final, _ = await play(workflow, kill=kill)
        assert kill.done
        assert final == expected, f"{workflow.name}: killed {'after' if after else 'before'} write {k} of {writes}"


@pytest.mark.parametrize("code", [409, 429, 500])
@pytest.mark.parametrize("workflow", WORKFLOWS[:2] + WORKFLOWS[5:6], ids=lambda w: w.name)
async def test_any_write_refused_once_it_ends_the_same(workflow: Workflow, code: int) -> None:
    expected, writes = await golden(workflow)
    for k in range(writes):
        seen = [0]

        def fault(call: Call, k: int = k, seen: list[int] = seen) -> None:
            seen[0] += call.writes
            if (
                call.writes and seen[0] == k + 1 and (code, call.verb) != (409, "delete")
            ):  # that says: it is another object
                raise Refusal(code, "AsPlanned", "for the test", retry_after=1)

        final, _ = await play(workflow, fault=fault)
        assert set(final["events"]) <= set(expected["events"])
        final["events"] = expected["events"]  # Events are best effort: one that is refused is not made
        assert final == expected, f"{workflow.name}: write {k + 1} of {writes} answered {code}"
