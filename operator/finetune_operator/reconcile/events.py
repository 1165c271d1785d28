"""Events on a FineTuneJob, for `kubectl describe` and whoever watches them: best effort, they never stop a plan."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from finetune_api import API_VERSION, KIND
from finetune_api.times import rfc3339
from finetune_operator.job.observed import Resource
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Conflict
from finetune_operator.kube.kinds import EVENT
from finetune_operator.plan.names import MANAGER
from finetune_operator.plan.plan import Note

log = logging.getLogger(__name__)


class EventRecorder:
    """Writes Events on jobs."""

    def __init__(self, client: KubeClient, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock

    async def record(self, job: Resource, note: Note) -> None:
        """Make the Event. Its name follows from what it says: said again after a crash, it is still one."""
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
            await self._renew(job, name, now)
        except ApiError as error:
            log.warning(
                "Event %s was not written: %s", note.reason, error, extra={"job": f"{job.namespace}/{job.name}"}
            )

    async def _renew(self, job: Resource, name: str, now: str) -> None:
        """The same Event was made before: it is moved to now."""
        try:
            await self._client.patch(EVENT, job.namespace, name, {"lastTimestamp": now})
        except ApiError as error:
            log.warning("Event %s was not renewed: %s", name, error, extra={"job": f"{job.namespace}/{job.name}"})
