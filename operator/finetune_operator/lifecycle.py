"""The running operator: all parts put together, started in order, and stopped in the reverse one.

Start: servers listen, the first full list fills the store, watches begin, the lease is acquired, and only then work
begins.

Stop: no key is handed out any more, reconciles that run finish their writes, the lease is released, watches end. If any
part ends by itself, all do, and the process exits non-zero: a half-dead operator is worse than a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import time
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from finetune_operator import wiring
from finetune_operator.kube.access import Access
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.lease import Lease, Leases
from finetune_operator.metrics import Metrics, metrics_app
from finetune_operator.probe import Watchdog, probe_app
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.loop import Reconciler
from finetune_operator.relist import Relister
from finetune_operator.report_server.guard import Guard, Limits
from finetune_operator.report_server.issuer import Issuer
from finetune_operator.report_server.server import Certificate, ReportServer
from finetune_operator.report_server.serving import serving
from finetune_operator.report_server.tokens import Tokens
from finetune_operator.settings import Settings
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store

log = logging.getLogger(__name__)

DRAIN_SECONDS = 8.0
"""How long running reconciles may take to finish after SIGTERM."""


class Operator:
    """One process. `run` returns once stopped by `stop` or a signal; raises what ended it otherwise."""

    def __init__(self, settings: Settings, access: Access) -> None:
        self.settings = settings
        self.metrics = Metrics(max_jobs=settings.metrics_max_jobs)
        self.client = KubeClient(access, record=self.metrics.requested)
        self._lease_client = KubeClient(access, record=self.metrics.requested)  # no renewal waits for a connection
        self.lease = Leases({namespace: self._lease(namespace) for namespace in settings.watch_namespaces or (None,)})
        self.client.set_fence(self.lease.fence)
        self.store = Store(self.metrics.malformed)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.relister = Relister(
            self.store,
            self.client,
            self.queue,
            self.metrics,
            namespaces=settings.watch_namespaces,
            seconds=settings.relist_seconds,
        )
        self.watchdog = Watchdog(
            self.queue,
            self.relister,
            stall=settings.stall_seconds,
            relist=settings.relist_seconds,
            leading=self._leading,
        )
        self.certificate = Certificate(settings.report_cert_dir, made_later=bool(settings.report_secret))
        self._issuer = self._make_issuer() if settings.report_secret else None
        self.reconciler = Reconciler(
            self.store,
            self.client,
            self.queue,
            self.metrics,
            plan_settings=lambda: settings.plan_settings(self.certificate.ca),
            opened=self.lease.opened,
            fence=self.lease.fence,
            why_hidden=lambda namespace: self.relister.hidden.get(namespace),
        )
        mode = "jwt" if settings.report_auth == "auto" and not settings.clusterwide else settings.report_auth
        self.reports = ReportServer(
            self.store,
            self.queue,
            Tokens(self.client, mode),
            self.metrics,
            interval=settings.report_write_seconds,
            leading=self._leading,
        )
        self.metrics.track(
            phases=self.store.phases,
            depth=lambda: self.queue.depth,
            delayed=lambda: self.queue.delayed,
            oldest=self.queue.oldest,
            leading=self._leading,
            hidden=lambda: self.relister.hidden,
            standing_by=lambda: self.lease.standing_by,
        )
        self._handlers = wiring.register(access, wiring.taker(self.store, self.queue, self.relister, self.metrics))
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End gracefully."""
        self._stop.set()

    async def close(self) -> None:
        """End all connections to the API server."""
        await self.client.close()
        await self._lease_client.close()

    def _make_issuer(self) -> Issuer:
        s = self.settings
        return Issuer(
            self.client, s.namespace, s.report_secret, s.report_names, s.report_cert_dir, days=s.report_ca_days
        )

    def _lease(self, namespace: str | None) -> Lease:
        """The lease of one namespace lies within it; that of all, where every operator of all looks for it."""
        settings = self.settings
        return Lease(
            self._lease_client,
            namespace or settings.lease_namespace,
            settings.lease_name,
            settings.identity,
            seconds=settings.lease_seconds,
            on_open=lambda: self.relister.enqueue(namespace),
        )

    def _why_not_ready(self) -> str:
        """Empty once this operator works."""
        if self._leading():
            return ""
        for namespace, holder in self.lease.standing_by.items():
            return f"standing by: {holder} works on {namespace or 'all namespaces'}"
        return "waiting for the lease or the first list"

    def _leading(self) -> bool:
        return self.lease.is_open and self.relister.synced.is_set() and not self._stop.is_set()

    async def run(self) -> None:
        """Start everything, wait for the end of anything, stop everything."""
        self._take_signals()
        kopf_stop, tasks = asyncio.Event(), set[asyncio.Task[Any]]()

        def spawn(name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            task = asyncio.create_task(coroutine, name=name)
            tasks.add(task)
            return task

        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.close)
            for app, port in self._plain_servers():
                await stack.enter_async_context(self._serving(app, port, None))
            if self._issuer:
                if not await self._certified(self._issuer):
                    return
                spawn("issuer", self._issuer.follow())
            tls = self.certificate.context
            await stack.enter_async_context(self._serving(self.reports.app(), self.settings.report_port, tls))
            stopped = spawn("stop", self._stop.wait())
            spawn("relist", self.relister.run())
            spawn("lease", self.lease.run())
            spawn("certificate", self.certificate.follow())
            for number in range(self.settings.workers):
                spawn(f"worker-{number}", self._work())
            watch = spawn("watch", self._watch(kopf_stop))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            log.info("Stopping")
            self._stop.set()
            await self._drain()
            await self.lease.release()
            kopf_stop.set()
            if watch not in done:
                await asyncio.wait([watch], timeout=5)
            for task in tasks - done:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done - {stopped}:
                if task.exception():
                    raise task.exception()  # type: ignore[misc]
                raise RuntimeError(f"{task.get_name()} has ended by itself")

    async def _work(self) -> None:
        await self.relister.synced.wait()
        await self.lease.opened()
        self.store.listen(time.time())
        await self.reconciler.work()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Watching starts after the first list: by then the CRD is there."""
        await self.relister.synced.wait()
        await wiring.watch(self.settings, self._handlers, stop, self._take_signals)

    async def _drain(self) -> None:
        """Hand out nothing more, and let what runs finish."""
        self.queue.close()
        end = time.monotonic() + DRAIN_SECONDS
        while self.queue.active and time.monotonic() < end:  # noqa: ASYNC110 - bounded by time
            await asyncio.sleep(0.02)

    async def _certified(self, issuer: Issuer) -> bool:
        """Wait for a certificate. Returns False if stopped before there was one."""
        made, stopped = asyncio.ensure_future(issuer.first()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({made, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not made.done():
            made.cancel()
            return False
        made.result()
        self.certificate.load()
        return True

    def _plain_servers(self) -> list[tuple[web.Application, int]]:
        """Metrics and probes: there from the first moment on, whatever the API server does."""
        ready = metrics_app(self.metrics, self._why_not_ready)
        return [(ready, self.settings.metrics_port), (probe_app(self.watchdog), self.settings.probe_port)]

    def _serving(
        self, app: web.Application, port: int, tls: ssl.SSLContext | None
    ) -> contextlib.AbstractAsyncContextManager[Guard]:
        return serving(app, port, tls, limits=Limits(), count=self.metrics.connection_cut)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread, as in tests
                loop.add_signal_handler(number, self.stop)
