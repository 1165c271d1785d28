"""The lease: writes stop before it runs out, one operator takes over from a dead one, and the loser ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fakecluster.api import Call, Cut, FakeApi
from fakecluster.objects import Refusal
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Conflict, Fenced, Unavailable
from finetune_operator.kube.kinds import CONFIG_MAP
from finetune_operator.kube.lease import Lease, LeaseLost

REF = ("leases", "system", "finetune-operator")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """Two operators, a clock each: clocks of different machines need not agree."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.clocks = [Clock(), Clock()]
        self.clocks[1].now = 5_000_000.0
        self.kubes = [KubeClient(Access(api.url)) for _ in range(2)]
        self.leases = [
            Lease(kube, "system", "finetune-operator", name, seconds=15, clock=clock)
            for kube, name, clock in zip(self.kubes, ("first", "second"), self.clocks, strict=True)
        ]

    def passes(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now += seconds

    def holder(self) -> str:
        return str(self.api.objects.get(REF)["spec"]["holderIdentity"])


@pytest.fixture
async def pair(api: FakeApi) -> AsyncIterator[Pair]:
    pair = Pair(api)
    yield pair
    for kube in pair.kubes:
        await kube.close()


async def test_the_fence_is_closed_until_the_lease_is_held(pair: Pair) -> None:
    lease = pair.leases[0]
    with pytest.raises(Fenced):
        lease.fence()
    await lease.step()
    assert 0 < lease.fence() <= 10


async def test_writes_stop_before_the_lease_runs_out_and_go_on_once_it_is_renewed(pair: Pair) -> None:
    lease, kube = pair.leases[0], pair.kubes[0]
    kube.set_fence(lambda namespace: lease.fence())
    await lease.step()
    await kube.create(CONFIG_MAP, "team", {"metadata": {"name": "a"}})
    pair.passes(10.1)  # of 15 s: nobody else may hold it yet
    with pytest.raises(Fenced):
        await kube.create(CONFIG_MAP, "team", {"metadata": {"name": "b"}})
    assert ("configmaps", "team", "b") not in pair.api.objects.all
    await kube.get(CONFIG_MAP, "team", "a")  # reading is free
    await lease.step()
    await kube.create(CONFIG_MAP, "team", {"metadata": {"name": "b"}})


async def test_a_held_lease_is_not_taken_while_it_is_renewed(pair: Pair) -> None:
    await pair.leases[0].step()
    for _ in range(20):
        pair.passes(3)
        await pair.leases[0].step()
        await pair.leases[1].step()
        assert not pair.leases[1].is_open
    assert pair.holder() == "first"


async def test_a_lease_no_longer_renewed_is_taken_only_after_its_holders_fence_has_closed(pair: Pair) -> None:
    await pair.leases[0].step()
    waited = 0.0
    while pair.holder() == "first":
        await pair.leases[1].step()
        pair.passes(1)
        waited += 1
        if pair.leases[1].is_open:
            assert not pair.leases[0].is_open
        assert waited < 30
    assert waited >= 15
    with pytest.raises(LeaseLost):
        await pair.leases[0].step()
    assert not pair.leases[0].is_open


async def test_a_released_lease_is_taken_at_once(pair: Pair) -> None:
    await pair.leases[0].step()
    await pair.leases[0].release()
    assert not pair.leases[0].is_open
    await pair.leases[1].step()
    assert pair.leases[1].is_open


async def test_the_same_pod_started_again_does_not_wait(pair: Pair) -> None:
    await pair.leases[0].step()
    again = Lease(pair.kubes[0], "system", "finetune-operator", "first", seconds=15, clock=pair.clocks[0])
    await again.step()
    assert again.is_open


async def test_two_that_start_together_do_not_both_hold_it(pair: Pair) -> None:
    await pair.leases[0].step()
    await pair.leases[0].release()
    found = await pair.kubes[0].get(*_at())
    await pair.leases[1].step()
    pair.leases[0]._held = found  # it had read the free lease before the other took it
    with pytest.raises(LeaseLost):
        await pair.leases[0].step()
    assert pair.holder() == "second"


async def test_a_lost_answer_to_a_renewal_is_not_a_lost_lease(pair: Pair) -> None:
    lease = pair.leases[0]
    await lease.step()

    def cut(call: Call) -> None:
        if call.verb == "update":
            raise Cut(after=True)

    pair.api.faults.append(cut)
    with pytest.raises(
        (Unavailable, Conflict)
    ):  # aiohttp sends a PUT again when its connection broke, and meets its own write
        await lease.step()
    pair.api.faults.clear()
    pair.passes(3)
    await lease.step()  # meets the version of its own lost write
    assert lease.is_open


async def test_an_api_server_away_closes_the_fence_and_does_not_end_the_operator(pair: Pair) -> None:
    lease = pair.leases[0]
    await lease.step()

    def down(call: Call) -> None:
        raise Refusal(503, "ServiceUnavailable")

    pair.api.faults.append(down)
    for _ in range(10):
        pair.passes(3)
        with pytest.raises(Unavailable):
            await lease.step()
    assert not lease.is_open
    pair.api.faults.clear()
    await lease.step()
    assert lease.is_open


def _at() -> tuple[object, str, str]:
    from finetune_operator.kube.kinds import LEASE

    return LEASE, "system", "finetune-operator"
