"""The one loop: look at everything known of a job, ask `plan` what to do, do it, and write the status once if it
differs.

It may run at any time, any number of times, and after a crash between any two writes; it ends in the same state (I6).
What
makes that so: children have deterministic names and are made by POST, so a stale view meets a 409 and never makes a
second
one; deletes and patches carry UIDs; the answer to each of our writes goes straight into the store. An object of our
name
that is not ours is never touched, only shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from finetune_api import API_VERSION, KIND
from finetune_api.status import Status
from finetune_api.times import rfc3339
from finetune_operator.job import decide
from finetune_operator.job.observed import TERMINAL, Observed, PlanSettings, Refusal, Resource
from finetune_operator.job.policies import hidden_namespace
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Conflict, Fenced, Forbidden, Invalid, NotFound, Throttled
from finetune_operator.kube.kinds import EVENT, FINETUNE_JOB, JOB, KINDS, POD, SERVICE, Kind, Object
from finetune_operator.metrics import Metrics
from finetune_operator.plan import names
from finetune_operator.plan.names import MANAGER
from finetune_operator.plan.plan import Create, Delete, Note, Patch, Plan
from finetune_operator.plan.views.event import EventView
from finetune_operator.queue import WorkQueue
from finetune_operator.store.key import Key
from finetune_operator.store.memory import Setback
from finetune_operator.store.store import Store, uid_of

log = logging.getLogger(__name__)

EVENTS_SECONDS = 10.0
"""Events of a child are read again after so long."""
EVENTS = 20
"""So many of a child's newest Events are kept."""
REFUSED_SECONDS, REFUSED_LONGEST = 30.0, 300.0
"""What could not be made is tried again after so long, each time twice as long, up to the longest."""


LOOKS, LOOK_SECONDS = 3, 1.0
"""Jobs that change while their pods are listed are looked up so often at once, and then again after so long."""


@dataclass(frozen=True, slots=True)
class Planner:
    """How resources of one kind are planned: from what is observed, or told why their namespace cannot be read."""

    plan: Callable[[Observed], Plan]
    hidden: Callable[[Observed, str], Plan]


PLANNERS: Mapping[str, Planner] = {KIND: Planner(plan=decide.plan, hidden=hidden_namespace.plan)}
"""By the kind of the key."""


class Foreign(Exception):
    """An object of a name that we need is not this job's; the message says whose it is."""


async def _at_once() -> None: ...


class Reconciler:
    """Brings one job at a time a step further. `plan_settings` and `clock` are asked anew each time.

    `opened` returns once writes may be made, and `fence` raises Fenced where a namespace may not be written to;
    `why_hidden`
    says why a namespace cannot be read, or None where it can.
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
        self._store, self._client, self._queue, self._metrics = store, client, queue, metrics
        self._plan_settings, self._clock, self._planners, self._opened = plan_settings, clock, planners, opened
        self._why_hidden, self._fence = why_hidden, fence

    async def work(self) -> None:
        """Take keys from the queue for ever. No error of one job stops the others.

        While nothing may be written no key is taken. After each key everything else has its turn, the lease's renewal
        first of all: a key that needs no request would otherwise give it none.
        """
        while True:
            await self._opened()
            key = await self._queue.get()
            try:
                await self.attempt(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)

    async def attempt(self, key: Key) -> None:
        """One reconcile with its error handling: the key comes back with back-off."""
        started = time.perf_counter()
        outcome = "ok"
        try:
            await self.reconcile(key)
            self._queue.forget(key)
        except Fenced as error:
            outcome = "fenced"  # all that is due comes again as soon as writes may be made
            log.debug("Not written: %s", error, extra={"job": str(key)})
        except Throttled as error:
            outcome = "throttled"
            self._queue.retry(key, error.retry_after)
        except ApiError as error:
            outcome = type(error).__name__.lower()
            delay = self._queue.retry(key)
            log.warning("Reconcile failed, again in %.1f s: %s", delay, error, extra={"job": str(key)})
        except Exception:
            outcome = "bug"
            delay = self._queue.retry(key)
            log.exception(
                "Reconcile failed by an error of the operator's own, again in %.1f s", delay, extra={"job": str(key)}
            )
        finally:
            self._metrics.reconciled(outcome, time.perf_counter() - started)

    async def reconcile(self, key: Key) -> None:
        """Observe, plan, apply. Raises ApiError or Fenced when something was not written."""
        observed = self._store.snapshot(key, self._plan_settings(), self._clock())
        if observed is None:
            self._queue.discard(key)
            self._metrics.forget(key)
            return
        planner = self._planners[key.kind]
        self._fence(key.namespace)  # what could not be written need not be planned
        why = self._why_hidden(key.namespace)
        if why is not None:
            with contextlib.suppress(Forbidden, NotFound):  # most likely it may not be written either
                await self._apply(key, observed, planner.hidden(observed, why))
            return
        plan = planner.plan(observed)
        for _ in range(LOOKS):
            if not plan.look_up:
                break
            await self._look_up(key, observed.job, plan.look_up)
            observed = self._store.snapshot(key, self._plan_settings(), self._clock())
            if observed is None:  # deleted meanwhile
                self._queue.add(key)
                return
            plan = planner.plan(observed)
        if plan.look_up:  # it changes faster than it can be looked at
            self._queue.add_after(key, LOOK_SECONDS)
            return
        if await self._read_events(key, plan):
            observed = self._store.snapshot(key, self._plan_settings(), self._clock()) or observed
            plan = planner.plan(observed)
        await self._apply(key, observed, plan)

    async def _look_up(self, key: Key, job: Resource, asked: tuple[str, ...]) -> None:
        """Fetch the Jobs of these names and list their pods: what the watches have not delivered yet.

        Raises ApiError.
        """
        for name in asked:
            if self._store.uid(key) != job.uid:
                return
            if self._store.begin_look(job.uid, name).job is None:
                with contextlib.suppress(NotFound):
                    self._store.put(JOB, await self._client.get(JOB, job.namespace, name))
            if self._store.uid(key) != job.uid:
                return
            look, seen = self._store.begin_look(job.uid, name), set()
            async for pod in self._client.list(POD, job.namespace, labels=_pods_of(job, name)):
                self._store.put(POD, pod)
                seen.add(uid_of(pod))
            if self._store.uid(key) == job.uid:
                self._store.end_look(job.uid, look, seen)

    async def _apply(self, key: Key, observed: Observed, plan: Plan) -> None:
        """Make the plan's writes in the order that plan.py states; the status is written once, and only if it
        differs.
        """
        job, memory = observed.job, self._store.memory(observed.job.uid)
        if plan.delete_self:
            await self._client.delete(FINETUNE_JOB, job.namespace, job.name, uid=job.uid)
            return
        for note in plan.notes:
            await self._note(job, note)
        before = (memory.conflicts, memory.refusals)
        if not memory.setback.holds(job, plan.create, self._clock()):
            memory.conflicts, memory.refusals = await self._create_all(job, plan.create)
            memory.setback = self._setback(memory.setback, job, plan, failed=bool(memory.conflicts or memory.refusals))
        failed = await self._patch_all(key, job, plan.patch)
        if plan.status != job.status:
            await self._write_status(job, plan.status)
            memory.written = self._clock()
        for delete in plan.delete:
            await self._delete(job, delete)
        if self._store.uid(key) == job.uid:  # it may have been deleted while that was written
            self._metrics.observe(key, plan.status, self._clock())
        if plan.status.phase in TERMINAL:
            memory.report = None  # all of it is in the status now
            memory.events.clear()
        if (memory.conflicts, memory.refusals) != before:
            self._queue.add(key)  # planned again with what was just learnt
        else:
            waits = [plan.requeue_after, memory.setback.until and memory.setback.until - self._clock()]
            if found := [w for w in waits if w is not None]:
                self._queue.add_after(key, max(0.0, min(found)))
        if failed:
            raise failed  # and so comes back with back-off

    async def _write_status(self, job: Resource, status: Status) -> None:
        """Only onto the version that was planned from.

        Raises Conflict or NotFound, with the store brought up to date.
        """
        try:
            answer = await self._client.apply_status(
                job.namespace, job.name, self._store.version(job.uid), status.to_json()
            )
        except (Conflict, NotFound):
            await self._look_again(job)
            raise
        self._take(answer)

    async def _look_again(self, job: Resource) -> None:
        """The job has changed, and the watch is late: fetch it."""
        try:
            self._take(await self._client.get(FINETUNE_JOB, job.namespace, job.name))
        except NotFound:
            for key in self._store.drop(FINETUNE_JOB, job.uid):
                self._queue.add(key)

    def _take(self, obj: Object) -> None:
        for key in self._store.put(FINETUNE_JOB, obj):
            self._queue.add(key)

    # ------------------------------------------------------------ children

    async def _create_all(
        self, job: Resource, creates: tuple[Create, ...]
    ) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
        """Make what is missing, in order, up to the first that cannot be made. Returns conflicts and refusals."""
        for create in creates:
            kind = KINDS[create.kind]
            try:
                answer = await self._client.create(kind, job.namespace, dict(create.object))
            except Conflict:
                try:
                    answer = await self._ours(kind, job, create.name)
                except Foreign as error:
                    log.warning("Not made: %s", error, extra=_job(job))
                    return (str(error),), ()
            except (Forbidden, Invalid) as error:
                log.warning("%s %s was refused: %s", create.kind, create.name, error, extra=_job(job))
                return (), (Refusal(create.kind, create.name, error.code, error.message[:1024]),)
            if kind is SERVICE:
                self._store.put(kind, answer)
            if kind is JOB:
                changed = self._store.put(kind, answer)
                if (answer.get("spec") or {}).get("suspend"):  # held: nothing more of it may come for hours
                    for key in changed:
                        self._queue.add(key)
        return (), ()

    def _setback(self, before: Setback, job: Resource, plan: Plan, *, failed: bool) -> Setback:
        """When to try again what could not be made: a quota may stay full for days, so it is asked ever less often."""
        if not failed:
            return Setback()
        target = (job.generation, plan.create[0].name)
        times = before.times + 1 if before.target == target else 1
        return Setback(target, times, self._clock() + min(REFUSED_LONGEST, REFUSED_SECONDS * 2.0 ** (times - 1)))

    async def _ours(self, kind: Kind, job: Resource, name: str) -> Object:
        """The object of that name, which this very job controls. Raises Foreign, or NotFound."""
        found = await self._client.get(kind, job.namespace, name)
        owner = next((r for r in found["metadata"].get("ownerReferences") or () if r.get("controller")), None)
        if owner and owner.get("uid") == job.uid:
            return found
        whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "is not controlled by this job"
        raise Foreign(f"{kind.kind} {name} exists and {whose}")

    async def _patch_all(self, key: Key, job: Resource, patches: tuple[Patch, ...]) -> ApiError | None:
        """Patch in order, up to the first that fails; its error is returned, since it must not keep the status from
        being written.
        """
        try:
            for patch in patches:
                await self._patch(key, job, patch)
        except ApiError as error:
            return error
        return None

    async def _patch(self, key: Key, job: Resource, patch: Patch) -> None:
        kind = KINDS[patch.kind]
        try:
            uid = patch.uid or (await self._ours(kind, job, patch.name))["metadata"]["uid"]
            answer = await self._client.patch(kind, job.namespace, patch.name, dict(patch.body), uid=uid)
        except (NotFound, Conflict, Foreign) as error:  # gone or replaced meanwhile: planned again from what is there
            log.info("%s %s was not patched: %s", patch.kind, patch.name, error, extra=_job(job))
            self._queue.add_after(key, 1.0)
            return
        if kind is JOB:
            self._store.put(kind, answer)

    async def _delete(self, job: Resource, delete: Delete) -> None:
        kind = KINDS[delete.kind]
        try:
            uid = delete.uid or (await self._ours(kind, job, delete.name))["metadata"]["uid"]
        except (NotFound, Foreign):
            return
        await self._client.delete(kind, job.namespace, delete.name, uid=uid)
        for key in (
            self._store.drop(kind, uid) if kind in (JOB, SERVICE) else ()
        ):  # should it linger, the watch brings it back
            self._queue.add(key)

    # ------------------------------------------------------------ events

    async def _read_events(self, key: Key, plan: Plan) -> bool:
        """Read the Events that the plan asks for, best effort: they only explain. Returns whether any were read."""
        uid = self._store.uid(key)
        if not uid:
            return False
        memory, now, read = self._store.memory(uid), self._clock(), False
        for name in plan.read_events:
            if now - memory.events_read.get(name, float("-inf")) < EVENTS_SECONDS:
                continue
            memory.events_read[name] = now
            fields = f"involvedObject.name={name}"
            try:
                views = [EventView.from_object(e) async for e in self._client.list(EVENT, key.namespace, fields=fields)]
            except ApiError as error:
                log.warning("Events about %s were not read: %s", name, error, extra={"job": str(key)})
                continue
            memory.events[name] = tuple(sorted(views, key=lambda view: view.time)[-EVENTS:])
            read = True
        return read

    async def _note(self, job: Resource, note: Note) -> None:
        """An Event on the job, best effort.

        Its name follows from what it says: said again after a crash, it is still one.
        """
        digest = hashlib.sha256("\0".join((job.uid, note.type, note.reason, note.message)).encode()).hexdigest()[:16]
        now = rfc3339(self._clock())
        about = {"apiVersion": API_VERSION, "kind": KIND, "name": job.name, "namespace": job.namespace, "uid": job.uid}
        name = f"{job.name[:200].rstrip('.-')}.{digest}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": job.namespace},
            "involvedObject": about,
            "type": note.type,
            "reason": note.reason,
            "message": note.message[:1024],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": MANAGER,
        }
        try:
            await self._client.create(EVENT, job.namespace, body)
        except Conflict:
            await self._again(job, name, now)
        except ApiError as error:
            log.warning("Event %s was not written: %s", note.reason, error, extra=_job(job))

    async def _again(self, job: Resource, name: str, now: str) -> None:
        """The same Event was made before: it is moved to now."""
        try:
            await self._client.patch(EVENT, job.namespace, name, {"lastTimestamp": now})
        except ApiError as error:
            log.warning("Event %s was not renewed: %s", name, error, extra=_job(job))


def _pods_of(job: Resource, name: str) -> str:
    """Selects the pods of the Job of that name."""
    known = names.parse(name)
    assert known is not None, name
    labels = names.labels(job.name, job.uid, known[1], known[2])
    return ",".join(f"{key}={labels[key]}" for key in (names.JOB_UID, names.COMPONENT, names.ATTEMPT))


def _job(job: Resource) -> dict[str, str]:
    """For the log: whose line it is."""
    return {"job": f"{job.namespace}/{job.name}"}
