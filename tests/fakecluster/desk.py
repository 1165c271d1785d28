"""A report server with a job that has one worker pod, and what it takes to send to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from fakecluster.api import FakeApi
from fakecluster.driver import NAMESPACE, SPEC, child
from finetune_api.report import Report
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD
from finetune_operator.metrics import Metrics
from finetune_operator.queue import WorkQueue
from finetune_operator.report_server.server import ReportServer
from finetune_operator.report_server.tokens import Tokens
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

UID, OTHER = "11111111-u", "22222222-u"
PATH = f"/v1/namespaces/{NAMESPACE}/jobs/spam-filter/report"


class Desk:
    """A report server with a job that has one worker pod, and what it takes to send to it."""

    def __init__(self, api: FakeApi, mode: str = "auto") -> None:
        self.api, self.now, self.leading = api, 1000.0, True
        self.kube = KubeClient(Access(api.url))
        self.store, self.queue, self.metrics = Store(), WorkQueue[Key](), Metrics()
        for name, uid in (("spam-filter", UID), ("other", OTHER)):
            self.store.put(FINETUNE_JOB, self.resource(name, uid))
            self.store.put(JOB, child("Job", "", uid, uid=f"j-{name}", version=2, job=name))
            self.store.put(POD, self.pod(f"p-{name}", uid, f"j-{name}"))
        self.tokens = Tokens(self.kube, mode, clock=lambda: self.now)  # type: ignore[arg-type]
        self.server = ReportServer(
            self.store,
            self.queue,
            self.tokens,
            self.metrics,
            interval=5.0,
            leading=lambda: self.leading,
            clock=lambda: self.now,
        )
        self.client = TestClient(TestServer(self.server.app()))
        self.let_in("good", UID, "p-spam-filter")
        self.let_in("others", OTHER, "p-other")

    @staticmethod
    def resource(name: str, uid: str, version: int = 1, **status: Any) -> dict[str, Any]:
        meta = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        return {"metadata": meta, "spec": SPEC | {"output": {"uri": f"s3://out/{name}"}}, "status": status}

    @staticmethod
    def pod(name: str, owner: str, controller: str, version: int = 3, attempt: int = 1) -> dict[str, Any]:
        job = "other" if owner == OTHER else "spam-filter"
        return child("Pod", name, owner, uid=name, version=version, controller=controller, job=job, attempt=attempt)

    def let_in(self, token: str, audience: str, pod: str, namespace: str = NAMESPACE) -> None:
        extra = {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [pod]}
        self.api.tokens[token] = (audience, {"username": f"system:serviceaccount:{namespace}:default", "extra": extra})

    async def send(
        self,
        sequence: int = 1,
        *,
        token: str | None = "good",
        path: str = PATH,
        body: bytes | None = None,
        **fields: Any,
    ) -> tuple[int, str]:
        report = Report(
            job_id=fields.pop("job_id", UID),
            attempt=fields.pop("attempt", 1),
            sequence=sequence,
            time=1,
            stage=fields.pop("stage", "training"),
            **fields,
        )
        data = body if body is not None else report.model_dump_json(by_alias=True).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.post(path, data=data, headers=headers) as answer:
            return answer.status, (await answer.json()).get("error", "taken")

    def taken(self) -> Report | None:
        received = self.store.memory(UID).report
        return received.unpack() if received else None

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("finetune_operator_reports_total", {"result": result}) or 0.0


@contextlib.asynccontextmanager
async def opened(api: FakeApi, mode: str = "auto") -> AsyncIterator[Desk]:
    desk = Desk(api, mode)
    await desk.client.start_server()
    try:
        yield desk
    finally:
        await desk.client.close()
        await desk.kube.close()
