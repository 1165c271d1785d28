"""How often somebody may do something: a token bucket for each key, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable

KEYS = 10_000
"""So many keys are kept; beyond that, those whose allowance is full again are dropped, since they say nothing."""


class RateLimit:
    """`burst` at once, and `rate` a second on the average, for each key."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: dict[str, tuple[float, float]] = {}  # what was left, and when

    def spend(self, key: str) -> bool:
        """Take one of the key's allowance. Returns False, and takes nothing, when it is used up."""
        now = self._clock()
        if len(self._left) > KEYS:
            self._left = {k: v for k, v in self._left.items() if self._now(v, now) < self._burst}
        left = self._now(self._left.get(key, (self._burst, now)), now)
        enough = left >= 1
        self._left[key] = (left - 1 if enough else left, now)
        return enough

    def _now(self, entry: tuple[float, float], now: float) -> float:
        return min(self._burst, entry[0] + (now - entry[1]) * self._rate)
