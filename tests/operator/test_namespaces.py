"""Namespaced mode: one namespace that is gone or forbidden is nobody else's trouble, and comes back by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakecluster.api import FakeApi
from fakecluster.driver import NAMESPACE, Driver, job
from fakecluster.node import COMPONENT, success
from fakecluster.objects import Object, Refusal
from fakecluster.run import make, running
from finetune_operator.cluster import Forbidden

OTHER = "other"


def other(api: FakeApi, name: str) -> Object:
    return api.objects.create("finetunejobs", OTHER, job(name, OTHER, output={"uri": f"s3://out/{OTHER}/{name}"}))


def phase(api: FakeApi, namespace: str, name: str) -> str:
    found = api.objects.all.get(("finetunejobs", namespace, name)) or {}
    return str((found.get("status") or {}).get("phase"))


async def test_a_namespace_that_is_forbidden_or_gone_leaves_the_others_alone_and_comes_back(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.relist.HIDDEN_SECONDS", 0.5)
    api.forbidden.add(OTHER)
    other(api, "early")
    make(api, "first")
    async with running(api, tmp_path, watch_namespaces=(NAMESPACE, OTHER), relist_seconds=2.0) as run:
        await run.until(lambda: run.phase("first") == "Succeeded")
        assert "Namespace other cannot be read" in caplog.text
        assert phase(api, OTHER, "early") == "None"
        _, text = await run.get(run.ports[0], "/metrics")
        assert 'finetune_operator_namespace_hidden{namespace="other"} 1.0' in text
        assert (await run.get(run.ports[0], "/readyz"))[0] == 200
        api.forbidden.clear()
        await run.until(lambda: phase(api, OTHER, "early") == "Succeeded")
        other(api, "seen-by-the-watch")
        await run.until(lambda: phase(api, OTHER, "seen-by-the-watch") == "Succeeded")
        api.forbidden.add(OTHER)  # gone again, with its roles
        api.end_watches()
        await run.until(lambda: run.operator.relister.hidden)
        make(api, "second")
        await run.until(lambda: run.phase("second") == "Succeeded")
        assert (await run.get(run.ports[1], "/healthz"))[0] == 200
        _, text = await run.get(run.ports[0], "/metrics")
    assert caplog.text.count("Namespace other cannot be read") == 2


async def test_nothing_is_concluded_from_pods_that_may_not_be_seen_and_the_job_says_so(api: FakeApi) -> None:
    """Its FineTuneJobs may be read and written, its pods not: without them a running attempt would look lost."""
    driver = Driver(api, namespaces=(NAMESPACE, OTHER))
    driver.node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
    other(api, "runs")
    await driver.settle()
    pods, children = api.objects.list("pods", OTHER), api.objects.list("jobs", OTHER)

    def forbid(call: Any) -> None:
        if call.namespace == OTHER and call.plural == "pods":
            raise Refusal(403, "Forbidden", "pods is forbidden")

    def said() -> dict[str, Any] | None:
        found = api.objects.get(("finetunejobs", OTHER, "runs"))["status"]["conditions"]
        return next((c for c in found if c["type"] == "Watched"), None)

    api.faults.append(forbid)
    before = api.objects.get(("finetunejobs", OTHER, "runs"))["status"]
    await driver.settle(seconds=600)
    await driver.restart()
    await driver.settle(seconds=600)
    assert (api.objects.list("pods", OTHER), api.objects.list("jobs", OTHER)) == (pods, children)
    condition = said()
    assert condition
    assert (condition["status"], condition["reason"]) == ("False", "NamespaceHidden")
    assert "pods is forbidden" in condition["message"]
    after = api.objects.get(("finetunejobs", OTHER, "runs"))["status"]
    assert (after["phase"], after["attempt"]) == (before["phase"], before["attempt"])
    api.faults.clear()
    await driver.round()
    condition = said()
    assert condition
    assert condition["status"] == "True"


async def test_where_no_namespace_can_be_read_the_list_fails(api: FakeApi) -> None:
    driver = Driver(api, namespaces=(NAMESPACE, OTHER))
    api.forbidden |= {NAMESPACE, OTHER}
    with pytest.raises(Forbidden):
        await driver.relister.once()
    assert not driver.relister.synced.is_set()
    assert set(driver.relister.hidden) == {NAMESPACE, OTHER}
