"""An HTTP server of ours behind a guard: a port that anybody in the cluster may connect to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from finetune_operator.report_server.guard import TLS_BUFFER, Guard, Limits

BACKLOG = 256


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, port: int, tls: ssl.SSLContext | None, *, limits: Limits, count: Callable[[str], None]
) -> AsyncIterator[Guard]:
    """Serve `app` on all interfaces until left. `count` takes the cause of each connection that is cut."""
    app.middlewares.append(_watched(lambda: guard))
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        shutdown_timeout=2.0,
        keepalive_timeout=limits.receive,
        lingering_time=2.0,
        read_bufsize=TLS_BUFFER,
    )
    await runner.setup()
    assert runner.server is not None
    guard = Guard(runner.server, tls, limits=limits, count=count)
    try:
        server = await asyncio.get_running_loop().create_server(guard, None, port, backlog=BACKLOG)
        try:
            yield guard
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _watched(guard: Callable[[], Guard]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware that notifies the guard of each request's begin and end."""

    @web.middleware
    async def watched(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        guard().working(peer)
        success = False
        try:
            response = await handler(request)
            success = response.status < 400
            return response
        finally:
            guard().answered(peer, success)

    return watched
