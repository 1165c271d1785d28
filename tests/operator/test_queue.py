"""The work queue, in virtual time: keys wait once, run once at a time, and come back after failures."""

from __future__ import annotations

import asyncio

import pytest

from finetune_operator.queue import WorkQueue

pytestmark = [pytest.mark.looptime(start=0.0)]


async def test_a_key_added_many_times_waits_once() -> None:
    queue = WorkQueue[str]()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert queue.depth == 0


async def test_a_key_added_while_worked_on_comes_again_afterwards_and_never_at_once() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 10)
    queue.done(key)
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.done("a")
    assert queue.depth == 0


async def test_of_several_delays_of_a_key_the_earliest_counts() -> None:
    queue, loop = WorkQueue[str](), asyncio.get_running_loop()
    queue.add_after("a", 100)
    queue.add_after("a", 5)
    queue.add_after("a", 50)
    assert await queue.get() == "a"
    assert loop.time() == pytest.approx(5)
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 200)


async def test_delays_of_different_keys_fire_in_their_order() -> None:
    queue, loop = WorkQueue[str](), asyncio.get_running_loop()
    for key, delay in (("c", 3), ("a", 1), ("b", 2)):
        queue.add_after(key, delay)
    assert queue.delayed == 3
    seen = []
    for _ in range(3):
        seen.append((await queue.get(), round(loop.time())))
    assert seen == [("a", 1), ("b", 2), ("c", 3)]


async def test_back_off_doubles_up_to_its_bound_and_starts_anew_after_success() -> None:
    queue = WorkQueue[str](first=1, most=10, jitter=0)
    delays = []
    for _ in range(6):
        delays.append(queue.retry("a"))
        await queue.get()
        queue.done("a")
    assert delays == [1, 2, 4, 8, 10, 10]
    queue.forget("a")
    assert queue.retry("a") == 1


async def test_a_throttled_key_waits_at_least_as_long_as_the_server_asks() -> None:
    queue, loop = WorkQueue[str](first=1, jitter=0), asyncio.get_running_loop()
    assert queue.retry("a", at_least=30) == 30
    await queue.get()
    assert loop.time() == pytest.approx(30)


async def test_one_failing_key_does_not_delay_the_others() -> None:
    queue, loop = WorkQueue[str](), asyncio.get_running_loop()
    queue.add("a")
    await queue.get()
    queue.retry("a")
    queue.done("a")
    queue.add("b")
    assert await queue.get() == "b"
    assert loop.time() == 0


async def test_a_worker_cancelled_while_waiting_takes_no_key_with_it() -> None:
    queue = WorkQueue[str]()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


async def test_a_discarded_key_no_longer_comes() -> None:
    queue = WorkQueue[str]()
    queue.add_after("a", 5)
    queue.discard("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 100)


async def test_a_closed_queue_hands_out_nothing() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    queue.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 100)


async def test_the_age_of_the_oldest_waiting_key_is_told() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    await asyncio.sleep(7)
    queue.add("b")
    assert queue.oldest() == pytest.approx(7)
    queue.done(await queue.get())
    assert queue.oldest() == pytest.approx(0)
    assert queue.progressed == pytest.approx(7)
