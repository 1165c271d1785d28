"""Absence is not evidence: whatever order the events of Jobs and pods come in, the same is decided and the same is
told.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from fakecluster.api import FakeApi
from fakecluster.driver import KEY, NAMESPACE, REF, Driver, job
from fakecluster.node import ATTEMPT, COMPONENT, Ending, Node, success
from fakecluster.objects import Object
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD
from finetune_operator.wiring import taker

KINDS = {"finetunejobs": FINETUNE_JOB, "jobs": JOB, "pods": POD}
STREAMS = ("finetunejobs", "jobs", "pods")


class Streams:
    """A cluster whose watches deliver when the test says so, each in its own order."""

    def __init__(self, end: Callable[[Object], Ending | None], **spec: Any) -> None:
        self.api = FakeApi()
        node = Node(self.api.objects)
        node.end = end
        self.driver = Driver(self.api, node)
        self.take = taker(self.driver.store, self.driver.queue, self.driver.relister, self.driver.metrics)
        self.waiting: dict[str, deque[tuple[str, Object]]] = {plural: deque() for plural in STREAMS}
        self._read = 0
        self.api.objects.create("finetunejobs", NAMESPACE, job(**spec))

    def gather(self) -> None:
        for _, plural, event, obj in self.api.objects.history[self._read :]:
            if plural in self.waiting:
                self.waiting[plural].append((event, obj))
        self._read = len(self.api.objects.history)

    def deliver(self, plural: str, most: int = 10**6) -> None:
        self.gather()
        queue = self.waiting[plural]
        for _ in range(min(most, len(queue))):
            event, obj = queue.popleft()
            self.take(KINDS[plural], {"type": event, "object": obj})

    async def reconcile(self) -> None:
        with contextlib.suppress(ApiError):  # the queue would bring it back
            await self.driver.reconciler.reconcile(KEY)

    def decisions(self) -> list[tuple[str, str, str | None]]:
        """What the operator made and deleted, in its order, less what it merely tried again."""
        found: dict[tuple[str, str, str | None], None] = {}
        for call in self.api.writes():
            if call.plural in ("jobs", "services", "configmaps"):
                name = call.body["metadata"]["name"] if call.verb == "create" else call.name
                found[call.verb, call.plural, name] = None
        return list(found)

    async def to_the_end(self, schedule: Callable[[int], tuple[str, ...]], change: Callable[[int], None]) -> None:
        """`schedule` names the streams that deliver in a round; the clock stands still, so that only the order
        differs.
        """
        quiet = 0
        for turn in range(400):
            change(turn)
            before = self.api.objects.version
            moved = self.driver.node.tick()
            for plural in schedule(turn):
                self.deliver(plural, 1 if schedule is not IN_ORDER else 10**6)
            await self.reconcile()
            self.gather()
            still = not moved and self.api.objects.version == before and not any(self.waiting.values())
            quiet = quiet + 1 if still else 0
            if quiet >= 3:
                return
        raise AssertionError(self.driver.picture())


def IN_ORDER(turn: int) -> tuple[str, ...]:
    return STREAMS


def shuffled(seed: int) -> Callable[[int], tuple[str, ...]]:
    """Each stream stands still for a while, now and then; and what it has comes one by one, in any interleaving."""
    dice = random.Random(seed)
    stalled = dict.fromkeys(STREAMS, 0)

    def schedule(turn: int) -> tuple[str, ...]:
        found = []
        for plural in STREAMS:
            if stalled[plural] > 0:
                stalled[plural] -= 1
                continue
            if dice.random() < 0.15:
                stalled[plural] = dice.randrange(1, 25)
                continue
            found += [plural] * dice.randrange(0, 4)
        dice.shuffle(found)
        return tuple(found)

    return schedule


def behind(plural: str) -> Callable[[int], tuple[str, ...]]:
    """One stream delivers only every 40th round, and then all it has."""
    return lambda turn: STREAMS * 3 if turn % 40 == 39 else tuple(p for p in STREAMS * 3 if p != plural)


def told(code: int) -> Callable[[Object], Ending | None]:
    """Workers of the first attempt end with this code, all others do their work."""

    def end(pod: Object) -> Ending | None:
        labels = pod["metadata"]["labels"]
        first = labels[COMPONENT] == "worker" and labels[ATTEMPT] == "1"
        return (
            Ending(code, "Error")
            if first and pod["metadata"]["name"].endswith("-1")
            else None
            if first
            else success(pod)
        )

    return end


def unprepared(pod: Object) -> Ending | None:
    return Ending(22, "Error")


def disrupted(pod: Object) -> Ending | None:
    labels = pod["metadata"]["labels"]
    return None if labels[COMPONENT] == "worker" and labels[ATTEMPT] == "1" else success(pod)


class Preemption:
    """The scheduler takes the place of a worker of the first attempt."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.done = streams, False

    def __call__(self, turn: int) -> None:
        objects = self.streams.api.objects
        workers = [p for p in objects.list("pods") if p["metadata"]["labels"][COMPONENT] == "worker"]
        if self.done or len(workers) < 2 or any(p["status"]["phase"] != "Running" for p in workers):
            return
        self.done = True
        ref = ("pods", NAMESPACE, workers[0]["metadata"]["name"])
        words = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "gone"}
        ended = {"name": "trainer", "state": {"terminated": {"exitCode": 143, "finishedAt": objects.clock()}}}
        objects.set_status(ref, phase="Failed", conditions=[words], containerStatuses=[ended])


class Rest:
    """The user suspends the job when its workers run, and resumes it when they are gone."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.step = streams, 0

    def __call__(self, turn: int) -> None:
        objects = self.streams.api.objects
        ref = REF
        workers = [p for p in objects.list("pods") if p["metadata"]["labels"][COMPONENT] == "worker"]
        running = len(workers) == 2 and all(p["status"]["phase"] == "Running" for p in workers)
        status = objects.get(ref).get("status") or {}
        if self.step == 0 and running:
            objects.merge(ref, {"spec": {"suspend": True}})
            self.step = 1
        elif self.step == 1 and status.get("phase") == "Suspended":
            assert not workers, "it rests only when no pod is at work"
            objects.merge(ref, {"spec": {"suspend": False}})
            self.step = 2


def nothing(streams: Streams) -> Callable[[int], None]:
    return lambda turn: None


Walk = tuple[Callable[[Object], Ending | None], Callable[[Streams], Callable[[int], None]]]
WALKS: dict[str, Walk] = {
    "success": (success, nothing),
    "the user's fault": (told(29), nothing),
    "a crash, and another attempt": (told(44), nothing),
    "nothing to prepare": (unprepared, nothing),
    "preemption": (disrupted, Preemption),
    "suspend and resume": (disrupted, Rest),
}
SCHEDULES = [*(f"seed {n}" for n in range(8)), *(f"{plural} behind" for plural in STREAMS)]


@functools.cache
def in_order(name: str) -> tuple[list[Any], dict[str, Any]]:
    """What is decided and told where every event comes at once."""
    return asyncio.run(walked(name, IN_ORDER))


async def walked(name: str, schedule: Callable[[int], tuple[str, ...]]) -> tuple[list[Any], dict[str, Any]]:
    end, change = WALKS[name]
    streams = Streams(end)
    await streams.to_the_end(schedule, change(streams))
    await streams.driver.close()
    return streams.decisions(), streams.driver.status()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", WALKS)
def test_late_events_change_no_decision_and_no_word_of_the_end(name: str, schedule: str) -> None:
    made = shuffled(int(schedule.split()[1])) if schedule.startswith("seed") else behind(schedule.split()[0])
    decisions, status = asyncio.run(walked(name, made))
    expected, settled = in_order(name)
    assert decisions == expected
    for each in (status, settled):  # a suspend may be seen before or after a condition was last set
        for condition in each["conditions"]:
            condition.pop("observedGeneration", None)
    assert status == settled
