"""Whether this operator still does its work: what the liveness probe asks.

A process that answers HTTP proves nothing (operators have stood still behind green probes): this looks at work done.
Each check names what stands still; the kubelet then restarts us, and a start begins with a full list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from finetune_operator.queue import WorkQueue
from finetune_operator.relist import Relister
from finetune_operator.store.key import Key


class Stalled(Exception):
    """Something stands still; the message says what, and for how long."""


class Watchdog:
    """`stall` and `relist` in seconds; `leading` says whether work is ours to do."""

    def __init__(
        self, queue: WorkQueue[Key], relister: Relister, *, stall: float, relist: float, leading: Callable[[], bool]
    ) -> None:
        self._queue, self._relister = queue, relister
        self._stall, self._relist, self._leading = stall, relist, leading

    def check(self) -> dict[str, float]:
        """Figures for people. Raises Stalled."""
        now = asyncio.get_running_loop().time()
        waiting, idle = self._queue.oldest(), now - self._queue.progressed
        if self._leading() and waiting > self._stall and idle > self._stall:
            raise Stalled(f"a job has waited {waiting:.0f} s for a worker, and none has finished for {idle:.0f} s")
        last = self._relister.last
        age = now - last if last is not None else 0.0
        if age > 3 * self._relist + 60:
            raise Stalled(f"the last full list was {age:.0f} s ago")
        if self._relister.silent:
            raise Stalled(f"the watch of {', '.join(sorted(self._relister.silent))} is silent")
        return {"queue_oldest_seconds": round(waiting, 1), "relist_age_seconds": round(age, 1)}


def probe_app(watchdog: Watchdog) -> web.Application:
    """GET /healthz: 200 with figures, or 500 and what stands still.

    Answered from the start on, before the first list is through.
    """

    async def healthz(request: web.Request) -> web.Response:
        try:
            return web.json_response({"watchdog": watchdog.check()})
        except Stalled as stalled:
            return web.json_response({"watchdog": str(stalled)}, status=500)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz)])
    return app
