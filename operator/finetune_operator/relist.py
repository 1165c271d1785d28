"""The full list of everything, at start and every few minutes: what a watch cannot promise, this does.

Before the first plan after a start the store must be full, or children would be made again and deletions missed. Later
lists find what a watch lost (after 410 nothing ever reports a deletion), and show a watch that has gone silent: one
that has delivered nothing since the last list, though this one finds changes.

A namespace that we may not read any more (its roles are gone, or all of it) is hidden until it can be read again:
nothing is concluded from what is not seen there, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Forbidden, NotFound
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD, SERVICE, Kind
from finetune_operator.metrics import Metrics
from finetune_operator.plan import names
from finetune_operator.queue import WorkQueue
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store, uid_of

log = logging.getLogger(__name__)

CHILDREN = f"{names.MANAGED_BY}={names.MANAGER}"
"""The label selector of all that we make."""
WATCHED: tuple[tuple[Kind, str], ...] = ((FINETUNE_JOB, ""), (JOB, CHILDREN), (POD, CHILDREN))
"""Kinds and their selectors, owners first."""
LISTED: tuple[tuple[Kind, str], ...] = (*WATCHED, (SERVICE, CHILDREN))
"""Services are not watched: only we make and delete them."""
HIDDEN_SECONDS = 30.0
"""All is listed again so soon while a namespace is hidden."""


class Relister:
    """Lists every kind in every namespace watched. `namespaces` empty: all."""

    def __init__(
        self,
        store: Store,
        client: KubeClient,
        queue: WorkQueue[Key],
        metrics: Metrics,
        *,
        namespaces: Iterable[str],
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._client, self._queue, self._metrics = store, client, queue, metrics
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._seconds, self._clock = seconds, clock
        self._heard: Counter[str] = Counter()  # watch events by kind since the last list
        self.synced = asyncio.Event()
        self.last: float | None = None  # loop time of the last full list
        self.silent: frozenset[str] = frozenset()  # kinds whose watch seems dead
        self.hidden: dict[str, str] = {}  # namespaces that we may not read, and the API server's words

    def watch_delivered(self, kind: Kind) -> None:
        """The watch is alive: an event of this kind has come."""
        self._heard[kind.kind] += 1
        if kind.kind in self.silent:
            self.silent -= {kind.kind}

    async def run(self) -> None:
        """List at once and then for ever; a failed list is tried again soon, with back-off."""
        failures = 0
        while True:
            try:
                await self.once()
                failures = 0
            except ApiError as error:
                failures += 1
                self._metrics.relisted("error")
                if isinstance(error, NotFound):
                    log.error("The FineTuneJob resource is not known to the API server: install the CRD (%s)", error)
                else:
                    log.warning("The full list failed: %s", error)
            pause = min(self._seconds, HIDDEN_SECONDS) if self.hidden else self._seconds
            await asyncio.sleep(min(pause, 2.0 ** min(failures, 10)) if failures else pause)

    async def once(self) -> int:
        """List everything. Returns how many objects differed from the store. Raises ApiError."""
        corrections, silent, hidden = 0, set(), dict[str, str]()
        for kind, selector in LISTED:
            changed = await self._list(kind, selector, hidden)
            if self.synced.is_set() and changed:
                corrections += changed
                if kind is not SERVICE and not self._heard[kind.kind]:
                    silent.add(kind.kind)
        self._hide(hidden)
        self._heard.clear()
        self.silent = frozenset(silent)
        if silent:
            log.warning(
                "The watch of %s has delivered nothing since the last list, which has found changes",
                ", ".join(sorted(silent)),
            )
        self.enqueue()
        self.last = asyncio.get_running_loop().time()
        self.synced.set()
        self._metrics.relisted("ok", corrections)
        return corrections

    def enqueue(self, namespace: str | None = None) -> None:
        """Put all jobs, or those of one namespace, into the queue for when they need work."""
        now = self._clock()
        for key in self._store.keys():  # noqa: SIM118 - no mapping
            due = self._store.due(key) if namespace in (None, key.namespace) else None
            if due is not None:
                self._queue.add_after(key, due - now)

    async def _list(self, kind: Kind, selector: str, hidden: dict[str, str]) -> int:
        """List one kind; a namespace that may not be read is put into `hidden`, unless it is the last.

        Raises ApiError.
        """
        before, seen, changed = self._store.begin_relist(kind), set(), 0
        for namespace in self._namespaces:
            if namespace in hidden:
                continue
            try:
                async for obj in self._client.list(kind, namespace, labels=selector):
                    seen.add(uid_of(obj))
                    keys = self._store.put(kind, obj)
                    changed += bool(keys) and namespace not in self.hidden  # of one just found again all is news
                    self._add(keys)
            except Forbidden as error:
                if namespace is None:
                    raise
                hidden[namespace] = error.message
                if len(hidden) == len(self._namespaces):
                    self._hide(hidden)
                    raise
        for key in self._store.end_relist(kind, before, seen, hidden):
            changed += 1
            self._add({key})
        return changed

    def _hide(self, hidden: dict[str, str]) -> None:
        """Say which namespaces are out of sight now, and enqueue their jobs."""
        for namespace in sorted(hidden.keys() - self.hidden.keys()):
            log.warning("Namespace %s cannot be read, and is left alone until it can: %s", namespace, hidden[namespace])
        for namespace in sorted(self.hidden.keys() - hidden.keys()):
            log.info("Namespace %s can be read again", namespace)
        changed, self.hidden = hidden.keys() ^ self.hidden.keys(), hidden
        for key in self._store.keys():  # noqa: SIM118 - no mapping
            if key.namespace in changed:
                self._queue.add(key)

    def _add(self, keys: set[Key]) -> None:
        """What has changed needs work; of the first list, where everything is new, `once` enqueues what does."""
        if self.synced.is_set():
            for key in keys:
                self._queue.add(key)
