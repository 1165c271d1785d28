"""The operator before a full cluster: its start with thousands of stored jobs, and the time after an API server's
outage.

    make bench NAME=many_jobs                       # 10,000 finished jobs, then 1,500 that end during 14 s without an
                                                    API server
    make bench NAME=many_jobs ARGS="--stored 1000"

Every stored job has its two Jobs and three pods still there, and a status with a full history. The operator is a
process of its own; the fake API server is this one, on 127.0.0.1. One JSON line: seconds until the operator is ready,
and until Kopf has listed everything as well; the largest gap between two renewals of the lease; memory in MiB, now and
at its highest; and for the outage, seconds from its end to the first renewal and to the last status written.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from operator_process import cpu, operator, peak, rss, until

from fakecluster.api import FakeApi
from fakecluster.planning import Cluster
from finetune_api.status import Point

UID = "0a1b2c3d"
"""How the model job's UID begins, and with it the names of its children."""
PLURALS = {"Job": "jobs", "Pod": "pods", "Service": "services", "ConfigMap": "configmaps"}
HISTORY = tuple(Point(step=s * 50, loss=round(2 / (s + 1), 4)) for s in range(128))


class Api(FakeApi):
    """Notes each renewal of the lease, and can be away: every connection is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.renewed = False, list[float]()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            assert request.transport
            request.transport.abort()
            return web.Response(status=500)
        if request.method == "PUT" and "/leases/" in request.path:
            self.renewed.append(time.monotonic())
        return await super()._handle(request)

    def gap(self, since: float) -> float:
        """The longest time without a renewal, from `since` till now."""
        times = [since, *(t for t in self.renewed if t > since), time.monotonic()]
        return max(b - a for a, b in itertools.pairwise(times))


def model(finished: bool) -> Cluster:
    """One job with its children, as it trains or has ended."""
    cluster = Cluster({"workers": {"replicas": 2}})
    cluster.now = time.time() - 900
    cluster.prepare()
    cluster.train(10, resumed_from_step=0)
    cluster.say(6400, total=10000, resumed_from_step=0, history=HISTORY)
    cluster.reconcile()
    return end(cluster) if finished else cluster


def end(cluster: Cluster) -> Cluster:
    """All its pods have done their work."""
    cluster.finish()
    for _ in range(3):
        cluster.wait(20)
        cluster.reconcile()
    assert cluster.phase == "Succeeded", cluster.phase
    return cluster


def bodies(cluster: Cluster) -> list[tuple[str, str]]:
    """Plural and JSON text of all objects, the job first."""
    found = [("finetunejobs", cluster.job)]
    found += [(PLURALS[kind], obj) for (kind, _), obj in cluster.objects.items()]
    found += [("pods", pod) for pod in cluster.pods.values()]
    return [(plural, json.dumps(obj)) for plural, obj in found]


def copy(api: Api, cluster: Cluster, first: int, count: int) -> None:
    """Store the job so many times under other names."""
    texts = bodies(cluster)
    uids = [json.loads(text)["metadata"]["uid"] for _, text in texts[1:]]
    for n in range(first, first + count):
        for plural, text in texts:
            text = text.replace(UID, f"{n:08x}").replace("spam-filter", f"job-{n}")
            for k, uid in enumerate(uids):
                text = text.replace(uid, f"{n:08x}-{k}")
            obj = json.loads(text)
            obj["metadata"]["namespace"] = "team"
            api.objects._store((plural, "team", obj["metadata"]["name"]), obj, "ADDED")


def end_all(api: Api, ended: Cluster, first: int, count: int) -> None:
    """As the Job controller and the kubelets would: all pods of these jobs have done their work."""
    texts = [(plural, text) for plural, text in bodies(ended) if plural in ("jobs", "pods")]
    for n in range(first, first + count):
        for plural, text in texts:
            obj = json.loads(text.replace(UID, f"{n:08x}").replace("spam-filter", f"job-{n}"))
            api.objects.set_status((plural, "team", obj["metadata"]["name"]), **obj["status"])


async def ready(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def until_ready(port: int) -> None:
    while not await ready(port):  # noqa: ASYNC110 - the condition lies in another process
        await asyncio.sleep(0.2)


def phases(api: Api, first: int, count: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for n in range(first, first + count):
        phase = str((api.objects.get(("finetunejobs", "team", f"job-{n}")).get("status") or {}).get("phase"))
        found[phase] = found.get(phase, 0) + 1
    return found


async def start(stored: int) -> dict[str, Any]:
    """The operator starts before so many finished jobs."""
    async with Api().running() as api:
        assert isinstance(api, Api)
        finished = model(finished=True)
        finished.objects = {
            ref: obj for ref, obj in finished.objects.items() if ref[0] != "Service"
        }  # deleted when it ended
        copy(api, finished, 0, stored)
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            async with operator(api, Path(folder)) as (process, ports):
                await asyncio.wait_for(until_ready(ports[0]), 300)
                synced = time.monotonic() - began
                held = api.renewed[0] if api.renewed else time.monotonic()
                spent, memory = cpu(process.pid), rss(process.pid)
                await until(lambda: any(c.verb == "watch" and c.plural == "pods" for c in api.calls), 900)
                watching = time.monotonic() - began
                await asyncio.sleep(20)
                written = sum(1 for c in api.writes() if c.plural != "leases")
                return {
                    "stored_jobs": stored,
                    "synced_seconds": round(synced, 1),
                    "synced_cpu_seconds": round(spent, 1),
                    "synced_rss_mib": round(memory, 1),
                    "watching_seconds": round(watching, 1),
                    "cpu_seconds": round(cpu(process.pid), 1),
                    "largest_renewal_gap_seconds": round(api.gap(held), 2),
                    "writes": written,
                    "rss_mib": round(rss(process.pid), 1),
                    "peak_rss_mib": round(peak(process.pid), 1),
                }


async def outage(count: int, seconds: float) -> dict[str, Any]:
    """So many jobs train, and all end while the API server is away."""
    async with Api().running() as api:
        assert isinstance(api, Api)
        trains = model(finished=False)
        copy(api, trains, 0, count)
        ended = end(trains)
        with tempfile.TemporaryDirectory() as folder:
            async with operator(api, Path(folder)) as (process, ports):
                await asyncio.wait_for(until_ready(ports[0]), 300)
                await until(lambda: any(c.verb == "watch" and c.plural == "pods" for c in api.calls))
                await asyncio.sleep(10)
                api.down = True
                api.end_watches()
                gone = time.monotonic()
                end_all(api, ended, 0, count)
                await asyncio.sleep(max(0.0, gone + seconds - time.monotonic()))
                back = time.monotonic()
                away, spent, asked = back - gone, cpu(process.pid), len(api.calls)
                api.down = False
                await until(lambda: api.renewed[-1] > back)
                renewed = api.renewed[-1] - back
                with contextlib.suppress(TimeoutError):  # what is missing is seen in the phases
                    await until(lambda: phases(api, 0, count) == {"Succeeded": count}, 200)
                return {
                    "dirty_jobs": count,
                    "outage_seconds": round(away, 1),
                    "renewed_after_seconds": round(renewed, 2),
                    "all_written_after_seconds": round(time.monotonic() - back, 1),
                    "cpu_seconds_after": round(cpu(process.pid) - spent, 1),
                    "requests_after": len(api.calls) - asked,
                    "phases": phases(api, 0, count),
                    "largest_renewal_gap_after_seconds": round(api.gap(back + renewed), 2),
                    "peak_rss_mib": round(peak(process.pid), 1),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--dirty", type=int, default=1_500)
    parser.add_argument("--outage", type=float, default=14.0)
    options = parser.parse_args()
    begun = asyncio.run(start(options.stored)) if options.stored else {}
    away = asyncio.run(outage(options.dirty, options.outage)) if options.dirty else {}
    targets = {"synced_seconds": 30, "largest_renewal_gap_seconds": 10, "rss_mib": 300, "all_written_after_seconds": 30}
    print(json.dumps({"benchmark": "many_jobs", "start": begun, "outage": away, "targets": targets}))


if __name__ == "__main__":
    main()
