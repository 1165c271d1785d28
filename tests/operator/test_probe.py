"""The watchdog: a probe that is green only while work is done. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from fakecluster.api import FakeApi
from fakecluster.driver import KEY, NAMESPACE, Driver, child, job
from finetune_operator.kube.kinds import JOB
from finetune_operator.probe import Stalled, Watchdog
from finetune_operator.wiring import taker

pytestmark = [pytest.mark.looptime(start=1000.0)]


def made() -> tuple[Driver, Watchdog]:
    driver = Driver(FakeApi())
    driver.api.objects.create("finetunejobs", NAMESPACE, job())
    return driver, Watchdog(driver.queue, driver.relister, stall=120, relist=300, leading=lambda: True)


async def test_it_is_green_while_work_is_done() -> None:
    driver, watchdog = made()
    for _ in range(20):
        await driver.relister.once()
        driver.queue.done(await driver.queue.get())
        await asyncio.sleep(100)
        watchdog.check()


async def test_workers_that_stand_still_are_noticed() -> None:
    driver, watchdog = made()
    await driver.relister.once()
    await asyncio.sleep(119)
    watchdog.check()
    await asyncio.sleep(2)
    with pytest.raises(Stalled, match="waited 121 s for a worker"):
        watchdog.check()


async def test_a_long_queue_that_moves_is_no_stall() -> None:
    driver, watchdog = made()
    for i in range(3):
        driver.queue.add(KEY._replace(name=str(i)))
    await asyncio.sleep(119)
    driver.queue.done(await driver.queue.get())
    await asyncio.sleep(100)
    watchdog.check()


async def test_a_standby_that_only_waits_for_the_lease_is_healthy() -> None:
    driver, _ = made()
    watchdog = Watchdog(driver.queue, driver.relister, stall=120, relist=300, leading=lambda: False)
    driver.queue.add(KEY._replace(name="x"))
    await asyncio.sleep(500)
    watchdog.check()


async def test_a_full_list_that_is_overdue_is_noticed() -> None:
    driver, watchdog = made()
    await driver.relister.once()
    driver.queue.done(await driver.queue.get())
    await asyncio.sleep(3 * 300 + 61)
    with pytest.raises(Stalled, match="full list was 961 s ago"):
        watchdog.check()


async def test_a_watch_that_delivers_nothing_while_the_list_finds_changes_is_noticed_and_forgiven_once_it_speaks() -> (
    None
):
    driver, watchdog = made()
    take = taker(driver.store, driver.queue, driver.relister, driver.metrics)
    await driver.relister.once()
    driver.queue.done(await driver.queue.get())
    await driver.relister.once()
    watchdog.check()  # nothing changed: a silent watch is a quiet one
    uid = driver.store.uid(KEY)
    assert uid
    body = child("Job", "", uid, uid="x", version=1)
    driver.api.objects.create("jobs", NAMESPACE, body)
    await driver.relister.once()
    with pytest.raises(Stalled, match="the watch of Job is silent"):
        watchdog.check()
    take(JOB, {"type": "MODIFIED", "object": driver.api.objects.get(("jobs", NAMESPACE, body["metadata"]["name"]))})
    watchdog.check()


async def test_a_watch_that_was_only_late_is_not_called_silent() -> None:
    driver, watchdog = made()
    take = taker(driver.store, driver.queue, driver.relister, driver.metrics)
    await driver.relister.once()
    driver.queue.done(await driver.queue.get())
    uid = driver.store.uid(KEY)
    assert uid
    body = child("Job", "", uid, uid="x", version=1)
    ref = ("jobs", NAMESPACE, body["metadata"]["name"])
    driver.api.objects.create("jobs", NAMESPACE, body)
    take(JOB, {"type": "ADDED", "object": driver.api.objects.get(ref)})
    driver.api.objects.set_status(ref, startTime="2026-01-01T00:00:00Z")
    await driver.relister.once()
    watchdog.check()
