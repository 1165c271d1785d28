"""A forked process uses no connection, lock or thread of its parent: else ranks read each other's answers."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from finetune_api.run import HubAccess
from finetune_trainer.storage import Location, location
from finetune_trainer.storage.process_local import ProcessLocal
from finetune_trainer.stream.sources.hub_store import HubStore
from support.hub import Hub
from support.s3 import S3Server, serve
from support.sockets import connections

ROUNDS, RANKS = 40, 4
LONG = hashlib.sha256(b"long").digest() * 200_000  # 6 MB: more than a reader and the sockets hold


def content(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest() * 2000


def forked(*targets: Callable[[], Any]) -> list[Any]:
    """What each returns in a process of its own, forked from here; all at once."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in targets]

    def run(target: Callable[[], Any], end: Any) -> None:
        end.send(target())
        end.close()
        os._exit(0)

    children = [fork.Process(target=run, args=(t, end)) for t, (_, end) in zip(targets, pipes, strict=True)]
    for child in children:
        child.start()
    for _, end in pipes:
        end.close()
    try:
        return [ours.recv() if ours.poll(60) else "it hangs" for ours, _ in pipes]
    except EOFError:
        return ["it died"]
    finally:
        for child in children:
            child.kill()
            child.join()


@pytest.fixture(scope="module", params=["keep-alive", "tls"])
def server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """Servers that keep connections open."""
    yield from serve(request.param)


@pytest.fixture
def place(server: S3Server, s3_credentials: None) -> Location:
    """With an object for each rank and round."""
    found = location(f"s3://{server.bucket()}/p", server.access, patience=5)
    found.put("a", content("a"))
    found.put("long", LONG)
    for rank in range(RANKS):
        found.put(f"rank-{rank}", content(f"rank-{rank}"))
    return found


def test_ranks_read_their_own_answers(place: Location) -> None:
    assert place.get("a") == content("a")  # leaves a connection open, as the launcher's warm-up does

    def rank(n: int) -> Callable[[], list[int]]:
        key = f"rank-{n}"
        return lambda: [i for i in range(ROUNDS) if place.get(key) != content(key)]

    assert forked(*(rank(n) for n in range(RANKS))) == [[]] * RANKS


def test_a_child_inherits_no_connection_that_rests(place: Location, server: S3Server) -> None:
    port = urlsplit(server.endpoint).port or 0
    place.get("a")
    ours = connections(port)
    assert ours
    found = forked(lambda: (connections(port), place.get("a"), connections(port)))
    inherited, read, opened = found[0]
    assert read == content("a")
    assert inherited == set()
    assert opened
    assert not opened & ours


def test_a_child_leaves_alone_what_is_in_use_in_its_parent(place: Location, server: S3Server) -> None:
    port = urlsplit(server.endpoint).port or 0
    reader = place.open("long")
    begun = reader.read(10)
    assert place.get("a") == content("a")
    ours = connections(port)
    assert len(ours) == 2  # one is in the middle of an answer, one rests

    def child() -> tuple[bytes, bytes, bool]:
        inherited = connections(port)
        whole, other = begun + reader.read(), place.get("a")
        reader.close()
        return whole, other, bool(connections(port) - inherited)

    (found,) = forked(child)
    assert found == (LONG, content("a"), True)  # by connections of its own
    assert begun + reader.read() == LONG  # and the parent's answer is still its own


def test_the_hubs_connections_stay_with_the_parent(hub: Hub) -> None:
    commit = hub.add("datasets", "me/mails", {name: content(name) for name in ("a", "b")})
    store = HubStore("hf://me/mails", commit, HubAccess(endpoint=hub.endpoint))
    assert store.get("a") == content("a")
    ours = connections(hub.server_port)
    assert ours

    def child() -> dict[str, Any]:
        inherited = connections(hub.server_port)
        read = store.get("b")
        return {"inherited": inherited, "opened": connections(hub.server_port), "b": read}

    (found,) = forked(child)
    assert found["b"] == content("b")
    assert found["inherited"] == set()
    assert found["opened"]
    assert not found["opened"] & ours


def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child(place: Location) -> None:
    from finetune_trainer.storage.s3 import client

    place.get("a")
    with client._clients().lock:  # a thread of the parent is making a client
        (found,) = forked(lambda: place.get("a"))
    assert found == content("a")


def test_a_value_of_ones_own_is_made_anew_in_each_child() -> None:
    local = ProcessLocal(lambda: {"process": os.getpid(), "lock": threading.Lock()})
    mine = local()
    assert local() is mine
    (child,) = forked(lambda: (local()["process"], os.getpid(), local() is mine))
    assert child[0] == child[1] != mine["process"]
    assert child[2] is False
    assert local() is mine
