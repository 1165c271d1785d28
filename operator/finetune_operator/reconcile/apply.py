"""Makes a plan's writes, in the order that plan.py states, and puts every answer straight into the store.

What makes them safe to repeat (I6): children have deterministic names and are made by POST, so a stale view meets a 409
and never makes a second one; deletes and patches carry UIDs; the status is written once, only if it differs, and only
onto the version that was planned from. An object of our name that is not ours is never touched, only shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.status import Status
from finetune_operator.job.observed import Refusal, Resource
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, KINDS, SERVICE, Kind, Object
from finetune_operator.plan.plan import Create, Delete, Patch, Plan
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.events import EventRecorder
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

log = logging.getLogger(__name__)


class Foreign(Exception):
    """An object of a name that we need is not this job's; the message says whose it is."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the writes have taught: whether to plan again at once, and the patch that failed."""

    news: bool
    failed: ApiError | None


class Applier:
    """Writes the plans of jobs; the queue gets the keys that its answers change."""

    def __init__(
        self, store: Store, client: KubeClient, queue: WorkQueue[Key], events: EventRecorder, clock: Callable[[], float]
    ) -> None:
        self._store, self._client, self._queue, self._events, self._clock = store, client, queue, events, clock

    async def apply(self, key: Key, job: Resource, plan: Plan) -> Applied:
        """Notes, creates, patches, status, deletes. Raises ApiError or Fenced where all else has to wait."""
        memory = self._store.memory(job.uid)
        for note in plan.notes:
            await self._events.record(job, note)
        news = False
        if not memory.setback.holds(job.generation, plan.create, self._clock()):
            conflicts, refusals = await self._create_all(key, job, plan.create)
            news = memory.creates_done(job.generation, plan.create, conflicts, refusals, self._clock())
        failed = await self._patch_all(key, job, plan.patch)
        if plan.status != job.status:
            await self._write_status(job, plan.status)
            memory.status_written(self._clock())
        for delete in plan.delete:
            await self._delete(job, delete)
        return Applied(news, failed)

    async def delete_self(self, job: Resource) -> None:
        """Delete the FineTuneJob, whose time to live is over."""
        await self._client.delete(FINETUNE_JOB, job.namespace, job.name, uid=job.uid)

    # ------------------------------------------------------------ status

    async def _write_status(self, job: Resource, status: Status) -> None:
        """Only onto the version that was planned from.

        Raises Conflict or NotFound, with the store brought up to date.
        """
        try:
            answer = await self._client.apply_status(
                job.namespace, job.name, self._store.version(job.uid), status.to_json()
            )
        except (Conflict, NotFound):
            await self._fetch_again(job)
            raise
        self._enqueue(self._store.put(FINETUNE_JOB, answer))

    async def _fetch_again(self, job: Resource) -> None:
        """The job has changed, and the watch is late: fetch it."""
        try:
            self._enqueue(self._store.put(FINETUNE_JOB, await self._client.get(FINETUNE_JOB, job.namespace, job.name)))
        except NotFound:
            self._enqueue(self._store.drop(FINETUNE_JOB, job.uid))

    # ------------------------------------------------------------ children

    async def _create_all(
        self, key: Key, job: Resource, creates: tuple[Create, ...]
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
                    log.warning("Not made: %s", error, extra={"job": str(key)})
                    return (str(error),), ()
            except (Forbidden, Invalid) as error:
                log.warning("%s %s was refused: %s", create.kind, create.name, error, extra={"job": str(key)})
                return (), (Refusal(create.kind, create.name, error.code, error.message[:1024]),)
            if kind is SERVICE:
                self._store.put(kind, answer)
            if kind is JOB:
                changed = self._store.put(kind, answer)
                if (answer.get("spec") or {}).get("suspend"):  # held: nothing more of it may come for hours
                    self._enqueue(changed)
        return (), ()

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
            log.info("%s %s was not patched: %s", patch.kind, patch.name, error, extra={"job": str(key)})
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
        if kind in (JOB, SERVICE):
            self._enqueue(self._store.drop(kind, uid))  # should it linger, the watch brings it back

    async def _ours(self, kind: Kind, job: Resource, name: str) -> Object:
        """The object of that name, which this very job controls. Raises Foreign, or NotFound."""
        found = await self._client.get(kind, job.namespace, name)
        owner = next((r for r in found["metadata"].get("ownerReferences") or () if r.get("controller")), None)
        if owner and owner.get("uid") == job.uid:
            return found
        whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "is not controlled by this job"
        raise Foreign(f"{kind.kind} {name} exists and {whose}")

    def _enqueue(self, keys: set[Key]) -> None:
        for key in keys:
            self._queue.add(key)
