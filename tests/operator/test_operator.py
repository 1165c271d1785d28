"""The whole operator with Kopf's watches, in one process with a fake cluster that also misbehaves."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from fakecluster.api import FakeApi
from fakecluster.driver import NAMESPACE, job
from fakecluster.node import COMPONENT, success
from fakecluster.objects import Object
from fakecluster.run import make, running, workers
from finetune_api.report import Report, Stage
from finetune_operator.kube.lease import LeaseLost

REF = ("finetunejobs", NAMESPACE, "spam-filter")
LEASE = ("leases", "system", "finetune-operator")


async def test_jobs_made_before_and_after_the_start_succeed_and_nothing_is_written_beside_what_the_plan_says(
    api: FakeApi, tmp_path: Path
) -> None:
    make(api)
    async with running(api, tmp_path) as run:
        await run.until(lambda: run.phase() == "Succeeded")
        make(api, "second")
        await run.until(lambda: run.phase("second") == "Succeeded")
        assert await run.get(run.ports[0], "/readyz") == (200, "ok\n")
        status, text = await run.get(run.ports[1], "/healthz")
        assert (status, "watchdog" in text) == (200, True)
    jobs = [c for c in api.writes() if c.plural == "finetunejobs"]
    assert {c.subresource for c in jobs} == {"status"}  # no annotation, no finalizer
    assert {c.plural for c in api.writes()} == {"finetunejobs", "configmaps", "services", "jobs", "events", "leases"}
    assert all("finalizers" not in o["metadata"] for o in api.objects.all.values())


async def test_a_stop_releases_the_lease_and_is_quick(api: FakeApi, tmp_path: Path) -> None:
    async with running(api, tmp_path) as run:
        await run.until(lambda: run.operator.lease.is_open)
        assert api.objects.get(LEASE)["spec"]["holderIdentity"] == "me"
        run.operator.stop()
        assert run.task
        await asyncio.wait_for(run.task, 10)
    assert api.objects.get(LEASE)["spec"]["holderIdentity"] == ""


async def test_an_operator_that_loses_its_lease_ends_and_writes_nothing_more(api: FakeApi, tmp_path: Path) -> None:
    async with running(api, tmp_path, lease_seconds=2.0) as run:
        await run.until(lambda: run.operator.lease.is_open)
        stolen = api.objects.get(LEASE)
        api.objects.replace(LEASE, stolen | {"spec": stolen["spec"] | {"holderIdentity": "other"}})
        with pytest.raises(LeaseLost):
            await run.until(lambda: False)
        written = len(api.writes())
        make(api)
        await asyncio.sleep(0.3)
        assert len(api.writes()) == written
        assert api.objects.get(LEASE)["spec"]["holderIdentity"] == "other"


async def test_a_report_over_https_reaches_the_status(api: FakeApi, tmp_path: Path) -> None:
    uid = make(api)["metadata"]["uid"]
    async with running(api, tmp_path) as run:
        run.node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
        await run.until(
            lambda: len(workers(api)) == 2 and run.operator.store.pod(uid, workers(api)[0]["metadata"]["uid"])
        )
        pod = workers(api)[0]["metadata"]
        extra = {
            "authentication.kubernetes.io/pod-name": [pod["name"]],
            "authentication.kubernetes.io/pod-uid": [pod["uid"]],
        }
        api.tokens["t"] = (uid, {"username": f"system:serviceaccount:{NAMESPACE}:default", "extra": extra})
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        url = f"https://localhost:{run.ports[2]}/v1/namespaces/{NAMESPACE}/jobs/spam-filter/report"
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": "Bearer t"}
        ) as session:
            report = Report(
                job_id=uid,
                attempt=1,
                sequence=1,
                time=1,
                stage=Stage.TRAINING,
                best={"step": 3, "metric": "loss", "value": 0.5},
            )  # type: ignore[arg-type]
            async with session.post(url, json=report.to_json()) as answer:
                assert answer.status == 200, await answer.text()
        await run.until(lambda: (api.objects.get(REF).get("status") or {}).get("best", {}).get("step") == 3)
        _, text = await run.get(run.ports[0], "/metrics")
        assert 'finetune_operator_reports_total{result="taken"} 1.0' in text
        api.objects.delete(REF)
        await run.until(lambda: run.operator.store.size()[0] == 0 and not run.operator.queue.active)
        _, text = await run.get(run.ports[0], "/metrics")
        assert 'name="spam-filter"' not in text


async def test_a_deletion_that_the_watch_never_reported_is_found_by_the_list(api: FakeApi, tmp_path: Path) -> None:
    make(api)
    async with running(api, tmp_path, relist_seconds=1.0) as run:
        run.node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
        await run.until(lambda: len(workers(api)) == 2)
        api.watch_fault = lambda event, obj: 0 if event == "DELETED" else 1
        api.objects.delete(REF)
        await run.until(lambda: run.operator.store.size() == (0, 0))


async def test_expired_watches_doubled_and_lost_events_change_nothing_in_the_end(api: FakeApi, tmp_path: Path) -> None:
    deliveries = [2, 0, 1, 1, 0, 2, 1]
    seen = 0

    def fault(event: str, obj: Object) -> int:
        nonlocal seen
        seen += 1
        return deliveries[seen % len(deliveries)]

    api.watch_fault = fault
    async with running(api, tmp_path, relist_seconds=1.0) as run:
        await run.until(lambda: run.operator.lease.is_open)
        for n in range(4):
            make(api, f"job-{n}")
            await asyncio.sleep(0.2)
            api.expire()
        await run.until(lambda: all(run.phase(f"job-{n}") == "Succeeded" for n in range(4)))
    assert sorted(run.node.started) == sorted(set(run.node.started))
    assert len(run.node.started) == 4 * 3


async def test_a_watch_that_hangs_turns_the_probe_red(api: FakeApi, tmp_path: Path) -> None:
    async with running(api, tmp_path, relist_seconds=1.0) as run:
        await run.until(lambda: run.operator.relister.synced.is_set() and run.operator.lease.is_open)
        await asyncio.sleep(0.5)
        api.hang()
        make(api)
        await run.until(lambda: run.operator.relister.silent)
        assert (await run.get(run.ports[1], "/healthz"))[0] == 500


async def test_without_the_crd_it_waits_and_starts_by_itself_once_it_is_there(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fakecluster.api import Call
    from fakecluster.objects import Refusal

    def missing(call: Call) -> None:
        if call.plural == "finetunejobs":
            raise Refusal(404, "NotFound", "the server could not find the requested resource")

    api.faults.append(missing)
    async with running(api, tmp_path) as run:
        await run.until(lambda: "install the CRD" in caplog.text)
        assert not run.operator.relister.synced.is_set()
        assert (await run.get(run.ports[1], "/healthz"))[0] == 200  # a long first list is no reason to start again
        assert (await run.get(run.ports[0], "/readyz"))[0] == 503
        api.faults.clear()
        make(api)
        await run.until(lambda: run.phase() == "Succeeded")


async def test_namespaced_it_sees_and_lists_its_namespaces_only(api: FakeApi, tmp_path: Path) -> None:
    make(api)
    api.objects.create("finetunejobs", "elsewhere", job())
    async with running(api, tmp_path, watch_namespaces=(NAMESPACE,)) as run:
        await run.until(lambda: run.phase() == "Succeeded")
    assert "status" not in api.objects.get(("finetunejobs", "elsewhere", "spam-filter"))
    assert {c.namespace for c in api.calls if c.verb in ("list", "watch")} <= {NAMESPACE}
