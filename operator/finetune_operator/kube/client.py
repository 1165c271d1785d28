"""A thin client of the Kubernetes API: what the operator needs, and nothing more.

Each call is one request, with no retry of its own: the queue retries. Errors have types, so that callers say what they
expect. Every write passes the fence (see kube/lease.py) before it is sent, and deletes carry the UID they mean (I6).
Children are created once by POST; only our own status is applied server-side.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp

from finetune_operator.kube.access import Access
from finetune_operator.kube.errors import Conflict, Invalid, NotFound, Unavailable, to_error
from finetune_operator.kube.kinds import FINETUNE_JOB, Kind, Object
from finetune_operator.plan.names import MANAGER

READ_SECONDS = 30.0
PAGE = 250
BREATH = 10
"""After so many listed objects the event loop sees to everything else."""


class Recorder(Protocol):
    """Takes a figure of every request: verb, kind, HTTP code (0: no answer), seconds."""

    def __call__(self, verb: str, kind: str, code: int, seconds: float) -> None: ...


class KubeClient:
    """Requests to one API server.

    `fence` returns the seconds that a write to a namespace may take, or raises Fenced.
    """

    def __init__(
        self, access: Access, *, fence: Callable[[str | None], float] | None = None, record: Recorder | None = None
    ) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._stamp = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._fence = fence or (lambda namespace: READ_SECONDS)
        self._record = record or (lambda verb, kind, code, seconds: None)

    def set_fence(self, fence: Callable[[str | None], float]) -> None:
        """From now on every write asks `fence` first."""
        self._fence = fence

    async def close(self) -> None:
        for task in tuple(self._closing):
            task.cancel()
        if self._session:
            await self._session.close()
            self._session = None

    async def get(self, kind: Kind, namespace: str | None, name: str, *, seconds: float = READ_SECONDS) -> Object:
        return await self._send("get", kind, "GET", kind.path(namespace, name), seconds=seconds)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "", limit: int = PAGE
    ) -> AsyncIterator[Object]:
        """Every object, in pages of `limit`; others run every few objects.

        One that expired half-way (410) raises ApiError.
        """
        params = (
            {"limit": str(limit)}
            | ({"labelSelector": labels} if labels else {})
            | ({"fieldSelector": fields} if fields else {})
        )
        while True:
            page = await self._send("list", kind, "GET", kind.path(namespace), params=params)
            if "items" not in page:
                raise Unavailable(0, "Unreadable", f"the list of {kind.plural} has no items")
            for count, item in enumerate(page.pop("items") or ()):
                if count % BREATH == 0:
                    await asyncio.sleep(0)
                yield item
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def create(
        self, kind: Kind, namespace: str | None, body: Object, *, fenced: bool = True, seconds: float = READ_SECONDS
    ) -> Object:
        """POST. Raises Conflict where the name is taken."""
        return await self._send("create", kind, "POST", kind.path(namespace), body=body, fenced=fenced, seconds=seconds)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object, *, uid: str | None = None) -> Object:
        """Merge patch; with `uid` only of that very object (else Conflict)."""
        if uid:
            body = body | {"metadata": (body.get("metadata") or {}) | {"uid": uid}}
        try:
            return await self._send(
                "patch", kind, "PATCH", kind.path(namespace, name), body=body, media="application/merge-patch+json"
            )
        except Invalid as error:
            if uid and "metadata.uid" in error.message:  # how it says that this is another object
                raise Conflict(error.code, error.reason, error.message) from None
            raise

    async def replace(
        self, kind: Kind, namespace: str, name: str, body: Object, *, seconds: float, fenced: bool = True
    ) -> Object:
        """PUT; a resourceVersion in the body makes it conditional. For the lease."""
        return await self._send(
            "update", kind, "PUT", kind.path(namespace, name), body=body, fenced=fenced, seconds=seconds
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """DELETE that object with its dependants in the background; gone already, or another by that name, is
        success.
        """
        body: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._send("delete", kind, "DELETE", kind.path(namespace, name), body=body)
        except (NotFound, Conflict):
            return

    async def apply_status(self, namespace: str, name: str, version: str, status: Object) -> Object:
        """Server-side apply of the whole status; fields left out are removed. Raises Conflict if the object is not at
        `version`.

        A UID would not do: the API server ignores one in a status (seen on 1.34), and a job made anew by the same name
        would get the status of the old one.
        """
        kind = FINETUNE_JOB
        meta = {"name": name, "namespace": namespace, "resourceVersion": version}
        body = {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.kind, "metadata": meta, "status": status}
        return await self._send(
            "apply_status",
            kind,
            "PATCH",
            f"{kind.path(namespace, name)}/status",
            body=body,
            media="application/apply-patch+yaml",
            params={"fieldManager": MANAGER, "force": "true"},
        )

    async def raw(self, path: str) -> Object:
        """GET of a path that is no resource, such as /openid/v1/jwks."""
        return await self._send("get", Kind("raw", "", "", ""), "GET", path)

    async def _send(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        media: str = "application/json",
        params: dict[str, str] | None = None,
        fenced: bool = True,
        seconds: float = READ_SECONDS,
    ) -> Object:
        if method != "GET" and fenced:
            seconds = min(seconds, self._fence(_namespace(path)))
        session = await self._ready()
        headers = self._access.headers() | {"Accept": "application/json, */*;q=0.5", "User-Agent": MANAGER}
        data = None if body is None else json.dumps(body, allow_nan=False)
        if data is not None:
            headers["Content-Type"] = media
        started, code = time.monotonic(), 0
        try:
            async with session.request(
                method,
                self._access.server + path,
                data=data,
                headers=headers,
                params=params,
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=10),
            ) as response:
                code = response.status
                body_read = await response.read()
                if code < 300:
                    return _answer(body_read, f"{method} {path}")
                answer = _parse(body_read)
                raise to_error(code, answer, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(0, "Unreachable", f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            self._record(verb, kind.kind, code, time.monotonic() - started)

    async def _ready(self) -> aiohttp.ClientSession:
        """The session; made anew when the CA has changed."""
        stamp = self._access.stamp()
        if self._session is None or stamp != self._stamp:
            old, self._stamp = self._session, stamp
            connector = aiohttp.TCPConnector(ssl=self._access.tls() or True, limit=64)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
            if old:
                task = asyncio.create_task(_close_later(old))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return self._session


def _namespace(path: str) -> str | None:
    """The namespace that a path of the API names."""
    parts = path.split("/")
    return parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else None


async def _close_later(session: aiohttp.ClientSession) -> None:
    try:
        await asyncio.sleep(READ_SECONDS)  # requests on it may still run
    finally:
        await session.close()


def _answer(body: bytes, request: str) -> Object:
    """The object of an answer of 2xx. Raises Unavailable: half an answer must not pass for an empty one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unavailable(0, "Unreadable", f"{request}: {type(error).__name__}: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Unavailable(0, "Unreadable", f"{request}: the answer is no JSON object")
    return value


def _parse(body: bytes) -> Object:
    """What an answer of an error says."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"message": body[:500].decode(errors="replace")}
