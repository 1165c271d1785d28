"""What a plan asks for beyond the watches: Jobs with their pods as they are now, and the Events about a child."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from finetune_operator.job.observed import Resource
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, NotFound
from finetune_operator.kube.kinds import EVENT, JOB, POD
from finetune_operator.plan import names
from finetune_operator.plan.views.event import EventView
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store, uid_of

log = logging.getLogger(__name__)


class Lookups:
    """Asks the API server, and puts the answers into the store."""

    def __init__(self, store: Store, client: KubeClient, clock: Callable[[], float]) -> None:
        self._store, self._client, self._clock = store, client, clock

    async def look_up(self, key: Key, job: Resource, asked: Iterable[str]) -> None:
        """Fetch the Jobs of these names and list their pods: what the watches have not delivered yet.

        Raises ApiError.
        """
        for name in asked:
            if self._store.uid(key) != job.uid:
                return
            if self._store.begin_lookup(job.uid, name).job is None:
                with contextlib.suppress(NotFound):
                    self._store.put(JOB, await self._client.get(JOB, job.namespace, name))
            if self._store.uid(key) != job.uid:
                return
            look, seen = self._store.begin_lookup(job.uid, name), set()
            async for pod in self._client.list(POD, job.namespace, labels=_pods_of(job, name)):
                self._store.put(POD, pod)
                seen.add(uid_of(pod))
            if self._store.uid(key) == job.uid:
                self._store.end_lookup(job.uid, look, seen)

    async def read_events(self, key: Key, asked: Iterable[str]) -> bool:
        """Read the Events about these children, best effort: they only explain. Returns whether any were read."""
        uid = self._store.uid(key)
        if not uid:
            return False
        memory, read = self._store.memory(uid), False
        for name in asked:
            if not memory.ask_events(name, self._clock()):
                continue
            try:
                listed = self._client.list(EVENT, key.namespace, fields=f"involvedObject.name={name}")
                memory.events_read(name, [EventView.from_object(event) async for event in listed])
            except ApiError as error:
                log.warning("Events about %s were not read: %s", name, error, extra={"job": str(key)})
                continue
            read = True
        return read


def _pods_of(job: Resource, name: str) -> str:
    """Selects the pods of the Job of that name."""
    known = names.parse(name)
    assert known is not None, name
    labels = names.labels(job.name, job.uid, known[1], known[2])
    return ",".join(f"{key}={labels[key]}" for key in (names.JOB_UID, names.COMPONENT, names.ATTEMPT))
