"""The report server: takes snapshots from trainers over HTTPS, and lets the queue write them to the status now and
then.

A report is taken only from a live pod of that very job, and only if it is later than the last one taken; everything
else is dropped and counted. A change of stage, a problem or a result is written at once, progress at most once an
interval. Losing any report does no harm: the next one replaces it, and the termination message carries the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from finetune_api import KIND
from finetune_api.base import FieldError, parse_stored
from finetune_api.report import Report
from finetune_operator.job.observed import TERMINAL
from finetune_operator.kube.errors import ApiError
from finetune_operator.metrics import Metrics
from finetune_operator.plan.names import WORKER
from finetune_operator.plan.views.pod import PodView
from finetune_operator.queue import WorkQueue
from finetune_operator.report_server.rate_limit import RateLimit
from finetune_operator.report_server.tokens import Tokens, Unauthenticated
from finetune_operator.store.key import Key
from finetune_operator.store.memory import Received
from finetune_operator.store.store import Store

log = logging.getLogger(__name__)

BODY_BYTES = 64 * 1024
RATE, BURST = 2.0, 20.0
"""Requests a second that the pods of one job may send on the average, and at once."""
PEER_RATE, PEER_BURST = 20.0, 100.0
"""Tokens that one address may have checked a second on the average, and at once; many pods may stand behind one."""
BODY_SECONDS = 8.0
"""A body must have come after so long."""
TRANSITION_SECONDS = 1.0
"""Even transitions of one job are written at most so often."""


class Dropped(Exception):
    """A report that is not taken: HTTP code, the cause for the count, and a line for the sender."""

    def __init__(self, code: int, cause: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.cause, self.retry_after = code, cause, retry_after


class ReportServer:
    """`interval`: at most one status write a job in so many seconds, but for transitions.

    `leading`: whether we may write.
    """

    def __init__(
        self,
        store: Store,
        queue: WorkQueue[Key],
        tokens: Tokens,
        metrics: Metrics,
        *,
        interval: float,
        leading: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._queue, self._tokens, self._metrics = store, queue, tokens, metrics
        self._interval, self._leading, self._clock = interval, leading, clock
        self._nobody = uuid.uuid4().hex
        self._jobs, self._peers = RateLimit(RATE, BURST), RateLimit(PEER_RATE, PEER_BURST)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        app.add_routes([web.post("/v1/namespaces/{namespace}/jobs/{name}/report", self._handle)])
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        key = Key(KIND, request.match_info["namespace"], request.match_info["name"])
        try:
            await self._take(key, request)
        except Dropped as drop:
            self._metrics.reported(drop.cause)
            log.debug("Report dropped (%s): %s", drop.cause, drop, extra={"job": str(key)})
            headers = {"Retry-After": str(drop.retry_after)} if drop.retry_after else None
            return web.json_response({"error": drop.cause, "message": str(drop)}, status=drop.code, headers=headers)
        self._metrics.reported("taken")
        return web.json_response({"taken": True})

    async def _take(self, key: Key, request: web.Request) -> None:
        """Every check, the cheapest first. Raises Dropped."""
        if not self._leading():
            raise Dropped(503, "not-leading", "this operator does not hold the lease yet", 2)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > 16_384:
            raise Dropped(401, "no-token", "send the projected service-account token as a bearer token")
        # Nobody learns that a job is not there: its token is judged all the same, for an audience that none is made
        # for.
        uid, token = self._store.uid(key) or self._nobody, token.strip()
        if not self._tokens.known(token, uid) and not self._peers.spend(request.remote or ""):
            raise Dropped(429, "too-many", "this address sends too many tokens", 1)
        pod = await self._pod(key, uid, token)
        if not self._jobs.spend(uid):  # only now: nobody else can use the job's allowance up
            raise Dropped(429, "too-many", "this job reports too often", 1)
        if (request.content_length or 0) > BODY_BYTES:
            raise Dropped(413, "too-large", f"a report may have {BODY_BYTES} bytes at most")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Dropped(413, "too-large", f"a report may have {BODY_BYTES} bytes at most") from None
        except TimeoutError:
            raise Dropped(408, "slow", f"the report did not come within {BODY_SECONDS:g} s") from None
        self._offer(key, uid, pod, _parse(body))

    async def _pod(self, key: Key, uid: str, token: str) -> PodView:
        """The live pod of this job that the token was made for. Raises Dropped."""
        try:
            sender = await self._tokens.sender(token, uid)
        except Unauthenticated as error:
            raise Dropped(401, "bad-token", str(error)) from None
        except ApiError as error:
            raise Dropped(503, "unverified", f"the token cannot be checked now ({error.reason})", 5) from None
        if sender.namespace != key.namespace:
            raise Dropped(403, "foreign-pod", "the token is from another namespace")
        pod = self._store.pod(uid, sender.pod_uid)
        if pod is None or pod.name != (sender.pod_name or pod.name):
            raise Dropped(403, "foreign-pod", "the token's pod is not one of this job's")
        if pod.terminal:
            raise Dropped(403, "dead-pod", "the token's pod has ended")
        return pod

    def _offer(self, key: Key, uid: str, pod: PodView, report: Report) -> None:
        """Keep the report if it is the latest, and see to it that it is written. Raises Dropped."""
        if report.job_id != uid:
            raise Dropped(403, "foreign-job", "jobId: is another job's")
        if pod.component == WORKER and report.attempt != pod.attempt:
            raise Dropped(409, "foreign-attempt", f"attempt: the pod is of attempt {pod.attempt}, not {report.attempt}")
        if self._store.phase(key) in TERMINAL:
            raise Dropped(409, "late", "the job has finished")
        if (pod.component == WORKER, pod.attempt) < self._store.newest(uid):
            raise Dropped(409, "late", "a newer attempt of the job has been made")
        memory, now = self._store.memory(uid), self._clock()
        last, new = memory.report, Received.of(report, pod, now)
        if last and new.order <= last.order:
            raise Dropped(409, "late", f"sequence: {report.sequence} is not later than what was taken before")
        memory.report_received(new)
        transition = last is None or (last.component, last.stage, last.order[:3]) != (
            new.component,
            new.stage,
            new.order[:3],
        )
        transition = transition or report.problem is not None or report.output is not None
        wait = (TRANSITION_SECONDS if transition else self._interval) - (now - memory.written)
        self._queue.add_after(key, wait)


def _parse(body: bytes) -> Report:
    """Unknown fields of a newer trainer are left out. Raises Dropped naming the fields that do not fit."""
    try:
        data = json.loads(body)
        if not isinstance(data, dict):
            raise ValueError("is no object")
        return parse_stored(Report, data)[0]
    except FieldError as error:
        raise Dropped(400, "malformed", str(error)[:1000]) from None
    except (ValueError, RecursionError):
        raise Dropped(400, "malformed", "the body is not a JSON object") from None


class Certificate:
    """The certificate in a folder: the context serves new connections with whatever is there now.

    `made_later`: there is none yet; whoever makes it calls `load`.
    """

    def __init__(self, folder: Path, *, made_later: bool = False) -> None:
        self._folder = folder
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._stamp: tuple[float, ...] = ()
        self.ca: str | None = None
        if not made_later:
            self.load()

    def load(self) -> bool:
        """Read the files if they have changed. Raises OSError or ssl.SSLError, and keeps the old certificate then."""
        files = [self._folder / name for name in ("tls.crt", "tls.key", "ca.crt")]
        stamp = tuple(file.stat().st_mtime for file in files if file.exists())
        if stamp == self._stamp:
            return False
        self.context.load_cert_chain(files[0], files[1])
        self.ca = files[2].read_text() if files[2].exists() else None
        self._stamp = stamp
        return True

    async def follow(self, seconds: float = 10.0) -> None:
        """Look for a new certificate for ever."""
        while True:
            await asyncio.sleep(seconds)
            try:
                if self.load():
                    log.info("The report server's certificate was read again")
            except (OSError, ssl.SSLError) as error:  # half-way through a rotation: the old one serves on
                log.warning("The report server's certificate in %s cannot be read: %s", self._folder, error)
