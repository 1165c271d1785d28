"""`kubectl finetune logs`: the prepare step's and the workers' logs of an attempt, each line saying whose it is.

Pods are read side by side, and a followed job is followed over its restarts: a pod that appears later is joined in.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from finetune_cli.kubectl.api import JobsApi
from finetune_cli.kubectl.show import status_of
from finetune_cli.terminal import Stop
from finetune_operator.plan import names

POLL_SECONDS = 2.0
_COLORS = ("cyan", "green", "magenta", "yellow", "blue")


@dataclass(frozen=True, slots=True)
class Source:
    """A pod whose log is read."""

    pod: str
    prefix: str
    started: bool
    done: bool


def sources(pods: list[Any], *, everyone: bool, attempt: int | None) -> list[Source]:
    """Whose logs are wanted, in order: the prepare step and rank 0, or all ranks; of the newest attempt or the one
    given.
    """
    workers = [p for p in pods if _label(p, names.COMPONENT) == names.WORKER]
    numbers = [int(_label(p, names.ATTEMPT)) for p in workers]
    wanted = attempt if attempt is not None else max(numbers, default=None)
    chosen = [p for p in workers if int(_label(p, names.ATTEMPT)) == wanted and (everyone or _index(p) == 0)]
    prepared = [p for p in pods if _label(p, names.COMPONENT) == names.PREPARE] if attempt is None else []
    latest = max(prepared, key=lambda p: int(_label(p, names.ATTEMPT)), default=None)
    found = [Source(latest.metadata.name, "prepare", *_state(latest))] if latest is not None else []
    return found + [Source(p.metadata.name, f"worker-{_index(p)}", *_state(p)) for p in sorted(chosen, key=_index)]


def _label(pod: Any, name: str) -> str:
    return (pod.metadata.labels or {}).get(name, "0")


def _index(pod: Any) -> int:
    text = (pod.metadata.annotations or {}).get(names.INDEX) or (pod.metadata.labels or {}).get(names.INDEX) or "0"
    return int(text)


def _state(pod: Any) -> tuple[bool, bool]:
    done = pod.status.phase in ("Succeeded", "Failed")
    statuses = pod.status.container_statuses or []
    return done or any(s.state and (s.state.running or s.state.terminated) for s in statuses), done


def show_logs(
    api: JobsApi,
    name: str,
    *,
    follow: bool,
    everyone: bool,
    attempt: int | None,
    tail: int | None,
    echo: Callable[[str], None],
) -> None:
    """Print what there is, or go on until the job is over."""
    uid = api.job(name)["metadata"]["uid"]
    if not follow:
        found = [s for s in sources(api.pods(uid), everyone=everyone, attempt=attempt) if s.started]
        if not found:
            raise Stop(
                f"{name} has no pod with a log yet", hint=f"kubectl finetune status {name} says what it waits for."
            )
        for number, source in enumerate(found):
            for line in api.log(source.pod, follow=False, tail=tail):
                echo(_prefixed(source, number, line))
        return
    for line in _followed(api, name, uid, everyone=everyone, attempt=attempt, tail=tail):
        echo(line)


def _prefixed(source: Source, number: int, line: str) -> str:
    return f"{click.style(f'[{source.prefix}]', fg=_COLORS[number % len(_COLORS)])} {line}"


def _followed(
    api: JobsApi, name: str, uid: str, *, everyone: bool, attempt: int | None, tail: int | None
) -> Iterator[str]:
    lines: queue.Queue[str] = queue.Queue(maxsize=10_000)
    readers: dict[str, threading.Thread] = {}

    def read(source: Source, number: int) -> None:
        try:
            for line in api.log(source.pod, follow=True, tail=tail):
                lines.put(_prefixed(source, number, line))
        except Stop as error:
            lines.put(_prefixed(source, number, f"({error.message})"))

    while True:
        over = status_of(api.job(name)).completion_time is not None
        for source in sources(api.pods(uid), everyone=everyone, attempt=attempt):
            if source.started and source.pod not in readers:
                readers[source.pod] = threading.Thread(target=read, args=(source, len(readers)), daemon=True)
                readers[source.pod].start()
        until = time.monotonic() + POLL_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                yield lines.get(timeout=left)
            except queue.Empty:
                break
        if over and lines.empty() and not any(reader.is_alive() for reader in readers.values()):
            return
