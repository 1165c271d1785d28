"""An operator without Kopf, driven by hand: full lists instead of watches, one reconcile after the other, a clock of
its own.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

from fakecluster.api import Cut, FakeApi, parse
from fakecluster.node import Node
from fakecluster.objects import Refusal
from finetune_api import KIND
from finetune_api.times import rfc3339
from finetune_operator.job.observed import PlanSettings
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient, Recorder
from finetune_operator.kube.errors import ApiError, Fenced, Unavailable, to_error
from finetune_operator.kube.kinds import Kind
from finetune_operator.metrics import Metrics
from finetune_operator.plan import names
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.loop import Reconciler
from finetune_operator.relist import Relister
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

NAMESPACE = "team"
KEY = Key(KIND, NAMESPACE, "spam-filter")
REF = ("finetunejobs", NAMESPACE, "spam-filter")  # where the fake API server keeps that job
SPEC: dict[str, Any] = {
    "task": "text-classification",
    "model": {"uri": "s3://models/minilm"},
    "data": {
        "train": {"uri": "s3://mail/train/*.jsonl.zst"},
        "validation": {"fraction": 0.1},
        "columns": {"text": "body", "label": "label"},
    },
    "method": {"type": "lora", "lora": {"rank": 8}},
    "output": {"uri": "s3://models/spam-filter"},
    "workers": {"replicas": 2},
    "storage": {"endpoint": "http://s3.minio.svc:9000", "credentialsSecret": "s3"},
}
SETTINGS = PlanSettings(
    trainer_image="trainer:test", report_url="https://reports.finetune-system.svc:8443", report_ca="PEM"
)


def job(name: str = "spam-filter", namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": SPEC | spec,
    }


def child(
    kind: str,
    name: str,
    owner: str,
    *,
    uid: str,
    version: int,
    controller: str | None = None,
    job: str = "spam-filter",
    component: str = names.WORKER,
    attempt: int = 1,
) -> dict[str, Any]:
    """A Job or Pod of ours as the API server sends it; `owner` is the UID of the FineTuneJob `job`.

    A Job has the name that we give it, and `name` is a pod's. `controller` is the UID of what controls it: another
    FineTuneJob for a Job, the Job for a pod.
    """
    made = names.child(job, owner, component, attempt)
    whose = (KIND, job, controller or owner) if kind == "Job" else ("Job", made, controller or f"job-of-{owner}")
    return {
        "kind": kind,
        "metadata": {
            "name": made if kind == "Job" else name,
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": names.labels(job, owner, component, attempt),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"kind": whose[0], "name": whose[1], "uid": whose[2], "controller": True}],
        },
        "spec": {},
        "status": {"phase": "Running"} if kind == "Pod" else {},
    }


class Killed(BaseException):
    """SIGKILL, as far as the operator's code can tell: nothing it does comes after this."""


@dataclass
class Kill:
    """Kill the operator before or after its write number `at` (from 1), once."""

    at: int
    after: bool
    seen: int = 0

    @property
    def done(self) -> bool:
        return self.seen >= self.at


class _Mortal(KubeClient):
    """A client that dies as told, and asks the fake API server without a socket between: hundreds of runs take
    seconds.
    """

    def __init__(self, api: FakeApi, kill: Kill | None, record: Recorder) -> None:
        super().__init__(Access("http://direct"), record=record)
        self._api, self._kill = api, kill

    async def _send(self, verb: str, kind: Kind, method: str, path: str, **options: Any) -> dict[str, Any]:
        if self._kill is None or method == "GET" or self._kill.done:
            return self._ask(method, path, **options)
        self._kill.seen += 1
        if self._kill.done and not self._kill.after:
            raise Killed
        answer = self._ask(method, path, **options)
        if self._kill.done:
            raise Killed
        return answer

    def _ask(
        self, method: str, path: str, body: Any = None, media: str = "", params: dict[str, str] | None = None, **_: Any
    ) -> dict[str, Any]:
        try:
            call = parse(
                method, [p for p in path.split("/") if p], params or {}, body and json.loads(json.dumps(body)), media
            )
            return json.loads(json.dumps(self._api.ask(call)))
        except Refusal as refusal:
            status = {"reason": refusal.reason, "message": refusal.message}
            raise to_error(refusal.code, status, str(refusal.retry_after or "")) from None
        except Cut:
            raise Unavailable(0, "Unreachable", "the connection broke") from None


class Driver:
    """One operator process at a time; `restart` throws away all it knew."""

    def __init__(
        self,
        api: FakeApi,
        node: Node | None = None,
        start: float = 1_800_000_000.0,
        kill: Kill | None = None,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self.kill, self.namespaces = kill, namespaces
        self.api, self.node, self.now = api, node or Node(api.objects), start
        self.restarts, self.settings = 0, SETTINGS
        api.objects.clock = lambda: rfc3339(self.now)
        self._begin()

    def _begin(self) -> None:
        self.metrics = Metrics()
        self.kube = _Mortal(self.api, self.kill, self.metrics.requested)
        self.store, self.queue = Store(self.metrics.malformed), WorkQueue[Key]()
        self.store.listen(self.now)
        self.relister = Relister(
            self.store,
            self.kube,
            self.queue,
            self.metrics,
            namespaces=self.namespaces,
            seconds=300,
            clock=lambda: self.now,
        )
        self.reconciler = Reconciler(
            self.store,
            self.kube,
            self.queue,
            self.metrics,
            plan_settings=lambda: self.settings,
            clock=lambda: self.now,
            why_hidden=lambda namespace: self.relister.hidden.get(namespace),
        )

    async def restart(self) -> None:
        self.restarts += 1
        await self.close()
        self._begin()

    async def close(self) -> None:
        self.queue.close()
        await self.kube.close()

    async def round(self, seconds: float = 5.0) -> None:
        """A full list, and one reconcile of every job. Raises what a crash would."""
        self.now += seconds
        await self.relister.once()
        for key in sorted(self.store.keys()):
            await self.reconciler.reconcile(key)

    async def settle(self, rounds: int = 60, seconds: float = 5.0) -> None:
        """Rounds and ticks of the node until nothing changes; errors of the API are survived, as the queue would."""
        quiet = 0
        for _ in range(rounds):
            before = self.api.objects.version
            with contextlib.suppress(ApiError, Fenced):
                await self.round(seconds)
            self.node.tick()
            quiet = quiet + 1 if self.api.objects.version == before else 0
            if quiet >= 3:
                return
        raise AssertionError(f"not settled after {rounds} rounds:\n{self.picture()}")

    def status(self, name: str = "spam-filter") -> dict[str, Any]:
        return self.api.objects.get(("finetunejobs", NAMESPACE, name)).get("status") or {}

    def picture(self) -> str:
        return json.dumps({"/".join(ref): obj.get("status") for ref, obj in self.api.objects.all.items()}, indent=1)[
            :6000
        ]
