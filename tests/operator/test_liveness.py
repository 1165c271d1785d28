"""The event loop is everybody's: no list, no pile of keys and no outage keeps the lease's renewal from its turn.

Counted in turns of the loop and in reconciles, not in seconds; where time matters it is virtual.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fakecluster.api import FakeApi
from fakecluster.certificates import self_signed
from fakecluster.driver import KEY, NAMESPACE, SETTINGS, SPEC, child
from fakecluster.objects import Object
from finetune_api import KIND
from finetune_operator.job.observed import Observed
from finetune_operator.job.policies import hidden_namespace
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Unavailable
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB
from finetune_operator.kube.lease import Lease
from finetune_operator.lifecycle import Operator
from finetune_operator.metrics import Metrics
from finetune_operator.plan.plan import Plan
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.loop import Planner, Reconciler
from finetune_operator.relist import Relister
from finetune_operator.settings import Settings
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

WORKERS = 8


def resource(
    version: int,
    *,
    name: str = "spam-filter",
    uid: str = "11111111-u",
    generation: int = 1,
    status: Object | None = None,
) -> Object:
    meta = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid,
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": meta, "spec": copy.deepcopy(SPEC), "status": status or {}}


class Turns:
    """How much is done between two turns of the event loop, at most."""

    def __init__(self, done: Callable[[], int]) -> None:
        self._done, self.most = done, 0

    async def _watch(self) -> None:
        before = self._done()
        while True:
            await asyncio.sleep(0)
            now = self._done()
            self.most, before = max(self.most, now - before), now

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        try:
            yield
            await asyncio.sleep(0)
        finally:
            task.cancel()


class Paper:
    """A client that lists what it is given, and counts; there is no server to wait for."""

    def __init__(self, jobs: list[Object]) -> None:
        self._pages = {FINETUNE_JOB.plural: jobs}

    def kube(self) -> KubeClient:
        kube = KubeClient(Access("http://paper"))

        async def send(verb: str, kind: Any, method: str, path: str, **_: Any) -> Object:
            return {"items": list(self._pages.get(kind.plural, ()))}

        kube._send = send  # type: ignore[method-assign]
        return kube


class Bench:
    """Workers on a queue; `plans` counts what they planned."""

    def __init__(self, jobs: list[Object], **options: Any) -> None:
        self.store, self.queue, self.metrics, self.plans = Store(), WorkQueue[Key](), Metrics(), list[str]()
        self.kube, self.now = Paper(jobs).kube(), 2_000_000_000.0
        self.relister = Relister(
            self.store, self.kube, self.queue, self.metrics, namespaces=(), seconds=300, clock=lambda: self.now
        )
        self.reconciler = Reconciler(
            self.store,
            self.kube,
            self.queue,
            self.metrics,
            plan_settings=lambda: SETTINGS,
            clock=lambda: self.now,
            planners={KIND: Planner(lambda observed: self.plan(observed), hidden_namespace.plan)},
            **options,
        )

    def plan(self, observed: Observed) -> Plan:
        self.plans.append(observed.job.name)
        return Plan(status=observed.job.status)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.reconciler.work()) for _ in range(WORKERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def idle(self) -> None:
        while self.queue.depth or self.queue.active:  # noqa: ASYNC110 - the queue has no event of its own
            await asyncio.sleep(0.01)


def jobs(count: int, **status: Any) -> list[Object]:
    found = [resource(i + 1, name=f"job-{i}", uid=f"{i:08x}-u", status=status) for i in range(count)]
    for each in found:
        each["spec"]["output"]["uri"] = f"s3://out/{each['metadata']['name']}"
    return found


FINISHED = {"phase": "Succeeded", "observedGeneration": 1, "completionTime": "2026-01-01T00:00:00Z"}


# ------------------------------------------------------------------ turns


async def test_everything_else_has_its_turn_after_each_key() -> None:
    bench = Bench(jobs(300))
    await bench.relister.once()
    turns = Turns(lambda: len(bench.plans))
    async with turns.counted(), bench.working():
        await bench.idle()
    assert len(bench.plans) == 300
    assert turns.most <= WORKERS


async def test_a_long_list_is_taken_in_by_pieces() -> None:
    bench = Bench(jobs(1000))
    turns = Turns(lambda: bench.store.size()[0])
    async with turns.counted():
        await bench.relister.once()
    assert bench.store.size()[0] == 1000
    assert turns.most <= 20


# ------------------------------------------------------------------ no work for what is finished


async def test_finished_jobs_make_no_work_at_the_start() -> None:
    bench = Bench([*jobs(50, **FINISHED), *[resource(90, name="runs", uid="runs-u", status={"phase": "Running"})]])
    await bench.relister.once()
    async with bench.working():
        await bench.idle()
    assert bench.plans == ["runs"]


@pytest.mark.looptime(start=0.0)
async def test_a_finished_job_is_woken_when_its_time_to_live_is_over() -> None:
    job = resource(1, status=FINISHED)
    job["spec"]["ttlSecondsAfterFinished"] = 3600
    bench = Bench([job])
    bench.now = 1767225600.0 + 600  # ten minutes after its end
    await bench.relister.once()
    async with bench.working():
        await asyncio.sleep(2999)
        assert bench.plans == []
        await asyncio.sleep(2)
    assert bench.plans == ["spam-filter"]


def _spec_changed(store: Store) -> None:
    store.put(FINETUNE_JOB, resource(2, status=FINISHED, generation=2))


def _still_at_work(store: Store) -> None:
    store.put(JOB, child("Job", "j1", "11111111-u", uid="j1", version=5))


def _too_many_kept(store: Store) -> None:
    for n in (1, 2, 3):
        ended = child("Job", f"j{n}", "11111111-u", uid=f"j{n}", version=5, attempt=n)
        ended["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
        store.put(JOB, ended)


@pytest.mark.parametrize("left", [_spec_changed, _still_at_work, _too_many_kept])
async def test_a_finished_job_with_something_left_to_do_is_worked_on(left: Callable[[Store], None]) -> None:
    bench = Bench([resource(1, status=FINISHED)])
    assert bench.store.due(KEY) is None
    await bench.relister.once()
    assert bench.queue.depth == 0
    left(bench.store)
    assert bench.store.due(KEY) == 0.0


def test_a_spec_and_an_unchanged_job_are_read_once(store: Store) -> None:
    def seen() -> Any:
        observed = store.snapshot(KEY, SETTINGS, 0)
        assert observed
        return observed.job

    first = seen()
    assert seen() is first
    store.put(FINETUNE_JOB, resource(2, status={"phase": "Running"}))
    assert seen().status.phase == "Running"
    assert seen().spec is first.spec
    changed = resource(3, generation=2)
    changed["spec"]["suspend"] = True
    store.put(FINETUNE_JOB, changed)
    assert seen().spec.suspend is True


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    store.put(FINETUNE_JOB, resource(1))
    return store


# ------------------------------------------------------------------ the fence


@pytest.mark.looptime(start=0.0)
async def test_while_the_fence_is_closed_nothing_is_tried_and_all_is_done_once_it_opens() -> None:
    loop, down = asyncio.get_running_loop(), [False]
    held: Object = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "me"}}

    async def send(verb: str, kind: Any, method: str, path: str, **_: Any) -> Object:
        if down[0]:
            raise Unavailable(0, "Unreachable", "away")
        return held

    leases = KubeClient(Access("http://paper"))
    leases._send = send  # type: ignore[method-assign]
    lease = Lease(leases, "system", "l", "me", clock=loop.time, on_open=lambda: bench.relister.enqueue())
    bench = Bench(jobs(200), opened=lease.opened)
    await bench.relister.once()
    renewing = asyncio.create_task(lease.run())
    written: list[str] = []

    def write(observed: Observed) -> Plan:
        bench.plans.append(observed.job.name)
        lease.fence()
        written.append(observed.job.name)
        return Plan(status=observed.job.status)

    bench.plan = write  # type: ignore[method-assign]
    async with bench.working():
        await bench.idle()
        down[0] = True
        await asyncio.sleep(20)
        assert not lease.is_open
        before = len(bench.plans)
        bench.relister.enqueue()
        await asyncio.sleep(600)
        assert len(bench.plans) - before <= WORKERS  # each worker meets the closed fence once
        down[0], back = False, loop.time()
        written.clear()
        await bench.idle()
        assert len(written) == 200
        assert loop.time() - back < 5
    renewing.cancel()


@pytest.mark.looptime(start=0.0)
@pytest.mark.parametrize(("takes", "fails", "gap"), [(2.0, False, 3.0), (0.0, False, 3.0), (0.5, True, 1.0)])
async def test_a_slow_renewal_does_not_delay_the_next_and_a_failed_one_is_soon_tried_again(
    takes: float, fails: bool, gap: float
) -> None:
    loop, sent = asyncio.get_running_loop(), list[float]()

    async def send(verb: str, kind: Any, method: str, path: str, **_: Any) -> Object:
        if verb == "update":
            sent.append(loop.time())
            await asyncio.sleep(takes)
            if fails and len(sent) > 1:
                raise Unavailable(0, "Unreachable", "away")
        return {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "me"}}

    kube = KubeClient(Access("http://paper"))
    kube._send = send  # type: ignore[method-assign]
    task = asyncio.create_task(Lease(kube, "system", "l", "me", clock=loop.time).run())
    await asyncio.sleep(30)
    task.cancel()
    assert [b - a for a, b in itertools.pairwise(sent[1:])] == pytest.approx([gap] * (len(sent) - 2))


class Hanging(FakeApi):
    """Answers for leases only."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "/leases" not in request.path:
            await asyncio.sleep(3600)
        return await super()._handle(request)


async def test_the_lease_is_renewed_though_every_other_connection_hangs(tmp_path: Path) -> None:
    self_signed(tmp_path, "reports")
    async with Hanging().running() as api:
        settings = Settings(
            trainer_image="t", report_url="https://x", report_cert_dir=tmp_path, lease_namespace="system", identity="me"
        )
        operator = Operator(settings, Access(api.url))
        waiting = [asyncio.create_task(operator.client.get(JOB, "team", f"j{n}")) for n in range(100)]
        await asyncio.sleep(0.2)  # more of them than the client has connections
        renewing = asyncio.create_task(operator.lease.run())
        await asyncio.wait_for(operator.lease.opened(), 5)
        renewing.cancel()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await operator.close()
