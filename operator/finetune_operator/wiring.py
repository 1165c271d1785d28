"""Kopf as the watching shell: its handlers write to the store and put keys into the queue, and do nothing else.

An exception in such a handler would be logged and the event lost, so nothing that can fail stands in one. Kopf's login
takes our own credentials. Nothing of Kopf is known outside this module.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from finetune_api import GROUP
from finetune_operator.kube.access import Access
from finetune_operator.kube.kinds import Kind
from finetune_operator.metrics import Metrics
from finetune_operator.queue import WorkQueue
from finetune_operator.relist import WATCHED, Relister
from finetune_operator.settings import Settings
from finetune_operator.store.key import Key
from finetune_operator.store.store import Store


def register(access: Access, take: Callable[[Kind, Any], None]) -> kopf.OperatorRegistry:
    """All of Kopf's handlers, in a registry of our own: one for each kind watched, and the login."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(access)

    for kind, _selector in WATCHED:
        _watch(registry, kind, take)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, take: Callable[[Kind, Any], None]) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"observe-{kind.plural}")
    async def observe(event: Any, **_: Any) -> None:
        take(kind, event)


def taker(store: Store, queue: WorkQueue[Key], relister: Relister, metrics: Metrics) -> Callable[[Kind, Any], None]:
    """What becomes of a watch event: {"type": None | ADDED | MODIFIED | DELETED, "object": …}."""

    def take(kind: Kind, event: Any) -> None:
        obj, deleted = event["object"], event["type"] == "DELETED"
        if event["type"] is not None:  # None: Kopf's own first list, which is no sign of life of the watch
            relister.watch_delivered(kind)
            metrics.watched(kind.kind)
        for key in store.gone(kind, obj) if deleted else store.put(kind, obj):
            queue.add(key)

    return take


async def watch(
    settings: Settings, registry: kopf.OperatorRegistry, stop: asyncio.Event, started: Callable[[], None]
) -> None:
    """Watch until `stop` is set. `started` is called once Kopf has taken the signal handlers, to take them back."""
    before = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(settings),
        clusterwide=settings.clusterwide,
        namespaces=list(settings.watch_namespaces),
        stop_flag=stop,
    )
    started()
    # Tasks older than Kopf's are ours: it leaves them alone when it ends.
    await kopf.run_tasks(tasks, ignored=before | {t for t in asyncio.all_tasks() if t is asyncio.current_task()})


class Backoffs:
    """Pauses between Kopf's attempts at a request, without end: a watch that may not be made (403: a namespace's roles
    are gone) or finds no API server comes back when it can, and never ends the operator.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 3.0), itertools.repeat(5.0))


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Kopf as a watcher and nothing more: no finalizer, no annotations, no events, no peering, no scanning.

    Measured: with on.event handlers alone it sends no mutating request.
    """
    k = kopf.OperatorSettings()
    k.peering.standalone = True  # a foreign peering object named "default" would pause us silently
    k.scanning.disabled = True  # the CRD exists before we start; needs no rights on namespaces and CRDs
    k.posting.enabled = False
    k.persistence.finalizer = f"{GROUP}/unused"
    k.watching.chunk_size = 250
    k.queueing.idle_timeout = 0.5  # each object seen holds a task and its whole body for so long
    k.watching.inactivity_timeout = 70  # bookmarks come every 60 s: a silent stream is a dead one
    for kind, selector in WATCHED:
        if selector:
            k.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
    k.networking.error_backoffs = Backoffs()
    k.networking.request_timeout = 30
    k.networking.connect_timeout = 10
    k.process.ultimate_exiting_timeout = 60
    return k


def _connection(access: Access) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=access.server,
        ca_path=access.ca_path,
        ca_data=None if access.ca_path else access.ca,
        token=access.bearer(),
        username=access.username,
        password=access.password,
        certificate_data=access.certificate,
        private_key_data=access.key,
        insecure=access.insecure or None,
    )
