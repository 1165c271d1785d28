"""The one loop: observe a resource, plan, apply, and say when to look again.

A reconcile may run at any time, any number of times, and after a crash between any two writes; it ends in the same
state (I6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from finetune_api import KIND
from finetune_operator.job import decide
from finetune_operator.job.observed import TERMINAL, Observed, PlanSettings
from finetune_operator.job.policies import hidden_namespace
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Fenced, Forbidden, NotFound, Throttled
from finetune_operator.metrics import Metrics
from finetune_operator.plan.plan import Plan
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.apply import Applier
from finetune_operator.reconcile.events import EventRecorder
from finetune_operator.reconcile.lookups import Lookups
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

log = logging.getLogger(__name__)

LOOKS, LOOK_SECONDS = 3, 1.0
"""Jobs that change while their pods are listed are looked up so often at once, and then again after so long."""


@dataclass(frozen=True, slots=True)
class Planner:
    """How resources of one kind are planned: from what is observed, or given why their namespace cannot be read."""

    plan: Callable[[Observed], Plan]
    hidden: Callable[[Observed, str], Plan]


PLANNERS: Mapping[str, Planner] = {KIND: Planner(plan=decide.plan, hidden=hidden_namespace.plan)}
"""By the kind of the key."""


async def _at_once() -> None: ...


class Reconciler:
    """Brings one resource at a time a step further. `plan_settings` and `clock` are asked anew each time.

    `opened` returns once writes may be made, and `fence` raises Fenced where a namespace may not be written to;
    `why_hidden` says why a namespace cannot be read, or None where it can.
    """

    def __init__(
        self,
        store: Store,
        client: KubeClient,
        queue: WorkQueue[Key],
        metrics: Metrics,
        *,
        plan_settings: Callable[[], PlanSettings],
        clock: Callable[[], float] = time.time,
        planners: Mapping[str, Planner] = PLANNERS,
        opened: Callable[[], Awaitable[None]] = _at_once,
        why_hidden: Callable[[str], str | None] = lambda namespace: None,
        fence: Callable[[str], object] = lambda namespace: None,
    ) -> None:
        self._store, self._queue, self._metrics = store, queue, metrics
        self._plan_settings, self._clock, self._planners, self._opened = plan_settings, clock, planners, opened
        self._why_hidden, self._fence = why_hidden, fence
        self._lookups = Lookups(store, client, clock)
        self._applier = Applier(store, client, queue, EventRecorder(client, clock), clock)

    async def work(self) -> None:
        """Take keys from the queue for ever. No error of one resource stops the others.

        While nothing may be written no key is taken. After each key everything else has its turn, the lease's renewal
        first of all: a key that needs no request would otherwise give it none.
        """
        while True:
            await self._opened()
            key = await self._queue.get()
            try:
                await self.process(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)

    async def process(self, key: Key) -> None:
        """One reconcile with its error handling: the key comes back with back-off."""
        started = time.perf_counter()
        outcome, extra = "ok", {"job": str(key)}
        try:
            await self.reconcile(key)
            self._queue.forget(key)
        except Fenced as error:
            outcome = "fenced"  # all that is due comes again as soon as writes may be made
            log.debug("Not written: %s", error, extra=extra)
        except Throttled as error:
            outcome = "throttled"
            self._queue.retry(key, error.retry_after)
        except ApiError as error:
            outcome = type(error).__name__.lower()
            delay = self._queue.retry(key)
            log.warning("Reconcile failed, again in %.1f s: %s", delay, error, extra=extra)
        except Exception:
            outcome = "bug"
            delay = self._queue.retry(key)
            log.exception("Reconcile failed by an error of the operator's own, again in %.1f s", delay, extra=extra)
        finally:
            self._metrics.reconciled(outcome, time.perf_counter() - started)

    async def reconcile(self, key: Key) -> None:
        """Observe, plan, apply. Raises ApiError or Fenced when something was not written."""
        observed = self._observe(key)
        if observed is None:
            self._queue.discard(key)
            self._metrics.forget(key)
            return
        self._fence(key.namespace)  # what could not be written need not be planned
        planner, why_hidden = self._planners[key.kind], self._why_hidden(key.namespace)
        if why_hidden is not None:
            with contextlib.suppress(Forbidden, NotFound):  # most likely it may not be written either
                await self._apply(key, observed, planner.hidden(observed, why_hidden))
            return
        planned = await self._plan(key, observed, planner.plan)
        if planned is not None:
            await self._apply(key, *planned)

    def _observe(self, key: Key) -> Observed | None:
        return self._store.snapshot(key, self._plan_settings(), self._clock())

    async def _plan(
        self, key: Key, observed: Observed, plan_of: Callable[[Observed], Plan]
    ) -> tuple[Observed, Plan] | None:
        """A plan that has all it asked for, with what it was made from; None where the key comes again instead."""
        plan = plan_of(observed)
        for _ in range(LOOKS):
            if not plan.look_up:
                break
            await self._lookups.look_up(key, observed.job, plan.look_up)
            again = self._observe(key)
            if again is None:  # deleted meanwhile
                self._queue.add(key)
                return None
            observed, plan = again, plan_of(again)
        if plan.look_up:  # it changes faster than it can be looked at
            self._queue.add_after(key, LOOK_SECONDS)
            return None
        if await self._lookups.read_events(key, plan.read_events):
            observed = self._observe(key) or observed
            plan = plan_of(observed)
        return observed, plan

    async def _apply(self, key: Key, observed: Observed, plan: Plan) -> None:
        """Make the writes, and say when to look again."""
        job, memory = observed.job, self._store.memory(observed.job.uid)
        if plan.delete_self:
            await self._applier.delete_self(job)
            return
        applied = await self._applier.apply(key, job, plan)
        if self._store.uid(key) == job.uid:  # it may have been deleted while that was written
            self._metrics.observe(key, plan.status, self._clock())
        if plan.status.phase in TERMINAL:
            memory.job_finished()
        if applied.news:
            self._queue.add(key)  # planned again with what was just learnt
        else:
            waits = [plan.requeue_after, memory.setback.until and memory.setback.until - self._clock()]
            if found := [wait for wait in waits if wait is not None]:
                self._queue.add_after(key, max(0.0, min(found)))
        if applied.failed:
            raise applied.failed  # and so comes back with back-off
