"""The leases that fence an overlap of two operators; they never speed anything up.

There is one operator of a scope: of all namespaces, or of each namespace that it is to watch. The lease lies where the
scope says, not where the operator does, so two releases that watch the same notice each other, and one stands by.

If a node is cut off and a second operator starts, the first must have stopped writing before the second takes over: a
write may take only what is left until our hold runs out, counted from when the last renewal was *sent*, by our own
clock. Others' clocks are never compared: a foreign lease has run out when it has not changed for its whole duration
while we watched.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Mapping

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Conflict, Fenced, NotFound
from finetune_operator.kube.kinds import LEASE, Object

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another operator holds the lease; this process must end."""


class Lease:
    """A coordination.k8s.io Lease. Renewed every fifth of its `seconds`; writes stop when two thirds have passed."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._seconds, self._clock, self._on_open = seconds, clock, on_open
        self._failing = False
        self._open_until = float("-inf")
        self._held: Object | None = None  # as the server stored it
        self._foreign: tuple[str, float] | None = None  # resourceVersion of another's lease, and since when we see it
        self._renewed = asyncio.Event()
        self.holder: str | None = None  # another operator, while we stand by for it

    def fence(self) -> float:
        """Seconds that a write may take from now. Raises Fenced when there are none."""
        left = self._open_until - self._clock()
        if left <= 0:
            raise Fenced("the lease was not renewed in time")
        return left

    @property
    def is_open(self) -> bool:
        return self._open_until > self._clock()

    async def opened(self) -> None:
        """Return once writes may be made: at once, or woken by the next renewal. Nothing polls."""
        while not self.is_open:
            self._renewed.clear()
            await self._renewed.wait()

    async def run(self) -> None:
        """Acquire, then renew for ever. Raises LeaseLost once another holds it.

        An API server away only closes the fence.
        """
        while True:
            begun, pause = self._clock(), self._seconds / 5
            try:
                await self.step()
                self._failing = False
            except ApiError as error:
                level = logging.DEBUG if self._failing else logging.WARNING  # once, not every time
                log.log(level, "Lease %s/%s could not be renewed: %s", self._namespace, self._name, error)
                self._failing, pause = True, self._seconds / 15
            await asyncio.sleep(max(0.0, begun + pause - self._clock()))  # the step's own time counts

    async def step(self) -> None:
        """One attempt to acquire or renew. Raises LeaseLost, or ApiError."""
        sent = self._clock()
        if self._held is None:
            await self._acquire(sent)
            return
        try:
            self._hold(await self._write(self._held, self._identity), sent)
        except (Conflict, NotFound):
            await self._look_again(sent)

    async def release(self) -> None:
        """Let the next operator start at once. The fence is closed first."""
        self._open_until = float("-inf")
        held, self._held = self._held, None
        if held is None:
            return
        try:
            await self._write(held, "")
        except ApiError as error:
            log.warning("Lease %s/%s was not released and runs out by itself: %s", self._namespace, self._name, error)

    async def _acquire(self, sent: float) -> None:
        try:
            found = await self._read()
        except NotFound:
            body = self._body({}, self._identity)
            try:
                self._hold(
                    await self._client.create(LEASE, self._namespace, body, fenced=False, seconds=self._seconds / 3),
                    sent,
                )
            except Conflict:
                log.debug("Another operator has just created the lease")
            return
        if self._free(found):
            try:
                self._hold(await self._write(found, self._identity), sent)
            except Conflict:
                self._foreign = None

    def _free(self, found: Object) -> bool:
        """Whether the lease is ours, nobody's, or has not changed for its duration while we watched."""
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        version = found["metadata"]["resourceVersion"]
        if self.holder != holder:
            log.warning("Standing by: %s holds the lease %s/%s", holder, self._namespace, self._name)
            self.holder = holder
        if self._foreign is None or self._foreign[0] != version:
            self._foreign = (version, self._clock())
        return self._clock() - self._foreign[1] >= float(spec.get("leaseDurationSeconds") or self._seconds)

    async def _look_again(self, sent: float) -> None:
        """Our write met a change: a lost answer of our own, or another holder."""
        self._held = None
        try:
            found = await self._read()
        except NotFound:
            await self._acquire(sent)
            return
        holder = (found.get("spec") or {}).get("holderIdentity")
        if holder != self._identity:
            self._open_until = float("-inf")
            raise LeaseLost(f"the lease {self._namespace}/{self._name} is now held by {holder or 'nobody'}")
        self._hold(await self._write(found, self._identity), sent)

    def _hold(self, stored: Object, sent: float) -> None:
        was_open, self._held, self._foreign, self.holder = self.is_open, stored, None, None
        self._open_until = sent + self._seconds * 2 / 3
        self._renewed.set()
        if not was_open and self.is_open:
            log.info("Holding the lease %s/%s as %s", self._namespace, self._name, self._identity)
            self._on_open()

    async def _read(self) -> Object:
        return await self._client.get(LEASE, self._namespace, self._name, seconds=self._seconds / 3)

    async def _write(self, found: Object, holder: str) -> Object:
        body = self._body(found, holder)
        return await self._client.replace(
            LEASE, self._namespace, self._name, body, seconds=self._seconds / 3, fenced=False
        )

    def _body(self, found: Object, holder: str) -> Object:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = found.get("spec") or {}
        changed = old.get("holderIdentity") != holder
        meta = {"name": self._name, "namespace": self._namespace}
        if found:
            meta["resourceVersion"] = found["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "acquireTime": now if changed else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed and holder else 0),
            },
        }


class Leases:
    """The leases of all that one operator watches: by namespace, or one under None for all namespaces."""

    def __init__(self, leases: Mapping[str | None, Lease]) -> None:
        self._leases = dict(leases)

    def fence(self, namespace: str | None) -> float:
        """Seconds that a write to this namespace may take from now. Raises Fenced when there are none."""
        lease = self._leases.get(None) or self._leases.get(namespace)
        if lease is None:
            raise Fenced(f"namespace {namespace} is not watched")
        return lease.fence()

    @property
    def is_open(self) -> bool:
        """Whether any may be written to."""
        return any(lease.is_open for lease in self._leases.values())

    @property
    def standing_by(self) -> dict[str, str]:
        """Namespaces ("" for all) that another operator has, and which."""
        return {namespace or "": lease.holder for namespace, lease in self._leases.items() if lease.holder}

    async def opened(self) -> None:
        """Return once any may be written to. Nothing polls."""
        if self.is_open:
            return
        waits = [asyncio.ensure_future(lease.opened()) for lease in self._leases.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def run(self) -> None:
        """Acquire and renew all for ever. Raises LeaseLost once another holds one that we held."""
        await asyncio.gather(*(lease.run() for lease in self._leases.values()))

    async def release(self) -> None:
        """Let the next operator start at once."""
        await asyncio.gather(*(lease.release() for lease in self._leases.values()))
