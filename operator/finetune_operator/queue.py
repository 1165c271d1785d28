"""The keyed work queue: each key waits once, is worked on by one worker at a time, and comes back after failures.

A key added while it is being worked on comes again afterwards, so no change is lost (level-triggered). All delays,
back-off and requeue alike, live in one heap; for each key only the earliest counts. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """`first` and `most` bound the exponential back-off of a failing key, in seconds."""

    def __init__(self, *, first: float = 0.2, most: float = 60.0, jitter: float = 0.2) -> None:
        self._first, self._most, self._jitter = first, most, jitter
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}  # keys in _ready, and since when
        self._active: set[Key] = set()
        self._again: set[Key] = set()  # added while active
        self._heap: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}  # the heap entry that counts
        self._failures: dict[Key, int] = {}
        self._count = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.progressed = float("-inf")  # loop time at which a worker last finished with a key

    def add(self, key: Key) -> None:
        """Work on this key as soon as a worker is free."""
        if self._closed or key in self._since:
            return
        if key in self._active:
            self._again.add(key)
            return
        self._since[key] = asyncio.get_running_loop().time()
        self._ready.append(key)
        self._wake()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key in `seconds`, or earlier if it was to come earlier anyway."""
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if self._closed or self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))
        self._arm()

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """The key failed: it comes back after its back-off, which is returned in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._most, self._first * 2 ** min(failures, 32))
        delay = max(at_least, delay * (1 + self._jitter * random.random()))
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure starts with the shortest back-off."""
        self._failures.pop(key, None)

    def discard(self, key: Key) -> None:
        """The key is gone: no delay of it is kept."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._again.discard(key)

    def failures(self, key: Key) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key; the caller must call `done` with it. Raises asyncio.CancelledError only."""
        while not self._ready or self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # woken, but cancelled before taking the key: wake another
                else:
                    self._waiters.remove(waiter)
                raise
        key = self._ready.popleft()
        del self._since[key]
        self._active.add(key)
        if self._ready:
            self._wake()
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with this key."""
        self._active.discard(key)
        self.progressed = asyncio.get_running_loop().time()
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        if self._timer:
            self._timer.cancel()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    @property
    def active(self) -> int:
        """Keys being worked on."""
        return len(self._active)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def oldest(self) -> float:
        """Seconds that the longest-waiting key has waited for a worker; 0 when none waits."""
        if not self._ready:
            return 0.0
        return asyncio.get_running_loop().time() - self._since[self._ready[0]]

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # overtaken by an earlier entry, or discarded
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        while self._heap and (self._heap[0][0] <= now or self._due.get(self._heap[0][2]) != self._heap[0][0]):
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()
