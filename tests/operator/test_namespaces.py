"""Namespaced mode: one namespace that is gone or forbidden is nobody else's trouble, and comes back by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakecluster.api import FakeApi
from fakecluster.driver import NAMESPACE, Driver, job
from fakecluster.node import COMPONENT, success
from fakecluster.objects import Object, Refusal
from fakecluster.run import make, running
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Forbidden
from finetune_operator.kube.lease import Lease

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


# ------------------------------------------------------------------ two operators


async def test_of_two_operators_that_watch_the_same_one_stands_by_says_so_and_takes_over(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Lease(KubeClient(Access(api.url)), "system", "finetune-operator", "here/first")
    await first.step()
    renewing = asyncio.create_task(first.run())
    async with running(api, tmp_path, identity="there/second") as second:
        make(api, "one")
        await second.until(lambda: second.operator.lease.standing_by and second.operator.store.size()[0])
        assert await second.get(second.ports[0], "/readyz") == (
            503,
            "standing by: here/first works on all namespaces\n",
        )
        assert "Standing by: here/first holds the lease system/finetune-operator" in caplog.text
        _, text = await second.get(second.ports[0], "/metrics")
        assert 'finetune_operator_standing_by{namespace=""} 1.0' in text
        assert "finetune_operator_leading 0.0" in text
        assert {call.plural for call in api.writes()} == {"leases"}
        renewing.cancel()
        await first.release()
        await second.until(lambda: second.phase("one") == "Succeeded")
        assert (await second.get(second.ports[0], "/readyz"))[0] == 200
    await first._client.close()


async def test_operators_that_share_one_namespace_only_each_work_on_the_rest(api: FakeApi, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()

    def in_namespace(namespace: str) -> None:
        body = job("job", namespace, output={"uri": f"s3://out/{namespace}"})
        api.objects.create("finetunejobs", namespace, body)

    async with running(api, folders[0], identity="here/first", watch_namespaces=("a", "b")) as first:
        await first.until(lambda: first.operator.lease.is_open and not first.operator.lease.standing_by)
        assert {ref[1] for ref in api.objects.all if ref[0] == "leases"} == {"a", "b"}
        async with running(api, folders[1], identity="there/second", watch_namespaces=("b", "c")) as second:
            await second.until(lambda: second.operator.lease.is_open and second.operator.lease.standing_by)
            assert second.operator.lease.standing_by == {"b": "here/first"}
            for namespace in "abc":
                in_namespace(namespace)
            second.node = first.node
            await first.until(lambda: all(phase(api, namespace, "job") == "Succeeded" for namespace in "abc"))
            assert api.objects.get(("leases", "b", "finetune-operator"))["spec"]["holderIdentity"] == "here/first"
    assert sorted(first.node.started) == sorted(set(first.node.started))
