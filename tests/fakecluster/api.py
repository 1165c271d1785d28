"""The fake API server over HTTP: discovery, CRUD, paged lists, watches with bookmarks, TokenReview; and faults on
request.

`faults` are asked before each request, and may raise a Refusal (429, 500 …) or drop the connection before or after the
request took effect. `watch_fault` may drop or double a watch event, and `hang`/`expire` stall or invalidate all
watches.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from fakecluster.objects import RESOURCES, Object, Objects, Refusal, selected
from fakecluster.rights import Right, granted

Fault = Callable[["Call"], None]


class Cut(Exception):
    """The connection breaks; `after` the request took effect, or before."""

    def __init__(self, after: bool) -> None:
        super().__init__(after)
        self.after = after


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    verb: str  # get list watch create update patch delete
    plural: str
    namespace: str | None
    name: str | None
    subresource: str | None
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    media: str = ""

    @property
    def writes(self) -> bool:
        return self.verb in ("create", "update", "patch", "delete") and self.plural in RESOURCES


@dataclass
class FakeApi:
    """`url` once running. `calls` records every request; `tokens` maps a token to its TokenReview status."""

    objects: Objects = field(default_factory=Objects)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rights: frozenset[Right] = field(default_factory=granted)  # everything else is forbidden
    watch_fault: Callable[[str, Object], int] = lambda event, obj: 1  # how often the event is delivered
    tokens: dict[str, tuple[str, Object]] = field(default_factory=dict)  # token -> audience, user
    documents: dict[str, Object] = field(default_factory=dict)  # /openid/v1/jwks and the like
    forbidden: set[str] = field(default_factory=set)  # namespaces where nothing is granted
    bookmark_seconds: float = 60.0
    url: str = ""
    _hung: bool = False
    _wakers: set[asyncio.Event] = field(default_factory=set)
    _epoch: int = 0
    _lists: dict[tuple[Any, ...], list[Object]] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def running(self, port: int | None = None) -> AsyncIterator[FakeApi]:
        app = web.Application(client_max_size=4 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = TestServer(app, port=port)
        await server.start_server(shutdown_timeout=0.1)
        self.objects.changed.append(self._wake)
        self.url = str(server.make_url("")).rstrip("/")
        try:
            yield self
        finally:
            self.end_watches()
            await server.close()

    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.writes]

    def hang(self, hung: bool = True) -> None:
        """Watches stay open and deliver nothing."""
        self._hung = hung
        self._wake()

    def expire(self) -> None:
        """Every watch gets 410, and so does every version up to now."""
        self.objects.oldest = self.objects.version + 1
        self._wake()

    def end_watches(self) -> None:
        self._epoch += 1
        self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = [p for p in request.path.split("/") if p]
        if request.path in self.documents:
            if "*/*" not in request.headers.get("Accept", "") and request.path.endswith("jwks"):
                return web.Response(status=406, text="Available representations: application/jwk-set+json")
            return web.json_response(self.documents[request.path])
        discovery = _discovery(parts)
        if discovery is not None:
            return web.json_response(discovery)
        try:
            data = await request.read()
            call = parse(
                request.method, parts, dict(request.query), json.loads(data) if data else None, request.content_type
            )
            if call.verb == "watch":
                self.calls.append(call)
                self._authorize(call)
                return await self._watch(request, call)
            return web.json_response(self.ask(call), status=201 if call.verb == "create" else 200)
        except Cut:
            assert request.transport
            request.transport.abort()
            return web.Response(status=500)
        except Refusal as refusal:
            status = {
                "kind": "Status",
                "status": "Failure",
                "code": refusal.code,
                "reason": refusal.reason,
                "message": refusal.message,
            }
            headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after is not None else None
            return web.json_response(status, status=refusal.code, headers=headers)

    def ask(self, call: Call) -> Object:
        """One request but a watch. Raises Refusal, or Cut."""
        self.calls.append(call)
        self._authorize(call)
        cut = None
        try:
            for fault in tuple(self.faults):
                fault(call)
        except Cut as fault_cut:
            if not fault_cut.after:
                raise
            cut = fault_cut
        answer = self._answer(call)
        if cut:
            raise cut
        return answer

    def _authorize(self, call: Call) -> None:
        resource = "/".join(filter(None, (call.plural, call.subresource)))
        if (call.verb, resource) not in self.rights or call.namespace in self.forbidden:
            raise Refusal(403, "Forbidden", f'User "operator" cannot {call.verb} resource "{resource}"')

    def _answer(self, call: Call) -> Object:
        objects, ref = self.objects, (call.plural, call.namespace or "", call.name or "")
        if call.plural == "tokenreviews":
            return self._review(call.body)
        if call.verb == "get":
            return objects.get(ref)
        if call.verb == "list":
            return self._list(call)
        if call.verb == "create":
            return objects.create(call.plural, call.namespace or "", call.body)
        if call.verb == "update":
            return objects.replace(ref, call.body)
        if call.verb == "delete":
            objects.delete(ref, call.body)
            return {"kind": "Status", "status": "Success"}
        if "apply-patch" in call.media:
            assert call.subresource == "status", "only the status is applied"
            return objects.apply_status(ref, call.body)
        return objects.merge(ref, call.body, status=call.subresource == "status")

    def _list(self, call: Call) -> Object:
        query = call.query
        asked = (call.plural, call.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        if not start or asked not in self._lists:
            self._lists[asked] = self.objects.list(*asked)
        items = self._lists[asked]  # later pages are of the same moment, as etcd's
        page = items[start : start + limit] if limit else items[start:]
        meta: Object = {"resourceVersion": str(self.objects.version)}
        if limit and start + limit < len(items):
            meta["continue"] = str(start + limit)
        group, version, kind = RESOURCES[call.plural]
        return {"kind": f"{kind}List", "apiVersion": f"{group}/{version}".lstrip("/"), "metadata": meta, "items": page}

    def _review(self, body: Object) -> Object:
        audience, user = self.tokens.get(body["spec"]["token"], (None, {}))
        if audience is None or audience not in body["spec"]["audiences"]:
            return body | {"status": {"authenticated": False, "error": "invalid bearer token"}}
        return body | {"status": {"authenticated": True, "audiences": [audience], "user": user}}

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        at, labels, epoch = (
            int(request.query.get("resourceVersion") or self.objects.version),
            request.query.get("labelSelector", ""),
            self._epoch,
        )
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while epoch == self._epoch:
                waker.clear()
                if not self._hung:
                    if at < self.objects.oldest:
                        gone = {
                            "kind": "Status",
                            "code": 410,
                            "reason": "Expired",
                            "message": "too old resource version",
                        }
                        await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                        break
                    for version, plural, event, obj in self.objects.history[
                        bisect.bisect_right(self.objects.history, at, key=lambda h: h[0]) :
                    ]:
                        at = version
                        if (
                            plural == call.plural
                            and call.namespace in (None, obj["metadata"]["namespace"])
                            and selected(obj, labels)
                        ):
                            for _ in range(self.watch_fault(event, obj)):
                                await response.write(json.dumps({"type": event, "object": obj}).encode() + b"\n")
                try:
                    await asyncio.wait_for(waker.wait(), self.bookmark_seconds)
                except TimeoutError:
                    if not self._hung:
                        group, version_, kind = RESOURCES[call.plural]
                        mark = {
                            "kind": kind,
                            "apiVersion": f"{group}/{version_}".lstrip("/"),
                            "metadata": {"resourceVersion": str(at)},
                        }
                        await response.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
        finally:
            self._wakers.discard(waker)
        return response


def parse(method: str, parts: list[str], query: dict[str, str], body: Any, media: str) -> Call:
    """A request as a call. Raises Refusal for what no API server of ours serves."""
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = None
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = [*rest, None, None, None][:3]
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, "")
    verb = verb or ("get" if name else "watch" if query.get("watch") == "true" else "list")
    if plural not in RESOURCES and plural != "tokenreviews":
        raise Refusal(404, "NotFound", f"the server could not find the requested resource /{'/'.join(parts)}")
    return Call(verb, str(plural), namespace, name, sub, body, query, media)


_NAMED = {
    "namespaces": ("", "v1", "Namespace"),
    "customresourcedefinitions": ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
}
"""Kinds that Kopf waits to see in the discovery, and never asks for."""


def _discovery(parts: list[str]) -> Object | None:
    known = RESOURCES | _NAMED
    groups: dict[str, str] = {group: version for group, version, _ in known.values() if group}
    if parts == ["version"]:
        return {"major": "1", "minor": "34"}
    if parts == ["api"]:
        return {"versions": ["v1"]}
    if parts == ["apis"]:
        listed = [
            {"name": g, "versions": [{"groupVersion": f"{g}/{v}", "version": v}], "preferredVersion": {"version": v}}
            for g, v in groups.items()
        ]
        return {"groups": listed}
    for group, version in [("", "v1"), *groups.items()]:
        if parts == (["apis", group, version] if group else ["api", "v1"]):
            mine = [(p, k) for p, (g, _, k) in known.items() if g == group]
            verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
            resources = [
                {"name": p, "singularName": k.lower(), "kind": k, "namespaced": True, "verbs": verbs} for p, k in mine
            ]
            status = [
                {
                    "name": "finetunejobs/status",
                    "singularName": "",
                    "kind": "FineTuneJob",
                    "namespaced": True,
                    "verbs": ["get", "patch"],
                }
            ]
            return {
                "groupVersion": f"{group}/{version}".lstrip("/"),
                "resources": resources + (status if group == "finetune-operator.io" else []),
            }
    return None
