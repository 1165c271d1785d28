"""A whole operator with Kopf's watches, in this process, before a fake cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from fakecluster.api import FakeApi
from fakecluster.certificates import self_signed
from fakecluster.driver import NAMESPACE, job
from fakecluster.node import COMPONENT, Node
from fakecluster.objects import Object
from finetune_operator.kube.access import Access
from finetune_operator.kube.lease import LeaseLost
from finetune_operator.lifecycle import Operator
from finetune_operator.settings import Settings
from support.control_plane import free_ports

SECONDS = 30


class Run:
    """A running operator, and a node that ticks by itself."""

    def __init__(self, api: FakeApi, folder: Path, **options: Any) -> None:
        self.api, self.node = api, Node(api.objects)
        self.ports = free_ports(3)
        self_signed(folder, "reports")
        values: dict[str, Any] = {
            "trainer_image": "trainer:test",
            "report_url": "https://localhost:8443",
            "report_cert_dir": folder,
            "lease_namespace": "system",
            "identity": "me",
            "metrics_port": self.ports[0],
            "probe_port": self.ports[1],
            "report_port": self.ports[2],
            "report_write_seconds": 0.2,
        }
        self.operator = Operator(Settings(**(values | options)), Access(api.url))
        self.task: asyncio.Task[None] | None = None

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(SECONDS):
            while not true():
                assert self.task
                if self.task.done():
                    await self.task
                self.node.tick()
                await asyncio.sleep(0.05)

    def phase(self, name: str = "spam-filter") -> str:
        found = self.api.objects.all.get(("finetunejobs", NAMESPACE, name)) or {}
        return str((found.get("status") or {}).get("phase"))

    async def get(self, port: int, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def running(api: FakeApi, folder: Path, **options: Any) -> AsyncIterator[Run]:
    run = Run(api, folder, **options)
    run.task = asyncio.create_task(run.operator.run())
    try:
        yield run
    finally:
        run.operator.stop()
        with contextlib.suppress(LeaseLost):
            await asyncio.wait_for(run.task, 15)


def make(api: FakeApi, name: str = "spam-filter", **spec: Any) -> Object:
    return api.objects.create("finetunejobs", NAMESPACE, job(name, output={"uri": f"s3://out/{name}"}, **spec))


def workers(api: FakeApi) -> list[Object]:
    return [
        p for p in api.objects.list("pods", NAMESPACE, f"{COMPONENT}=worker") if p["status"].get("phase") == "Running"
    ]
