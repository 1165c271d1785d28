"""SIGKILL at any instant of a real writer process: the reader always finds a good checkpoint, and none that was
acknowledged is lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.storage import Location
from support.checkpoints import config, same, state


class Server:
    """Talks to crash_server.py."""

    def __init__(self) -> None:
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, str(Path(__file__).parent / "crash_server.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)

    def start(self, order: dict) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Wait status of the writer."""
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> str:
        """Stop; returns what writers said on stderr."""
        return self.process.communicate(timeout=30)[1]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.close()


def _check(out: Location, settings: RunConfig, attempt: int, acks: Path) -> int:
    """The newest good checkpoint: exactly the state of its step, not older than what was acknowledged.

    Returns its step.
    """
    reader = Checkpointer(config(settings.output.uri, attempt=attempt, access=settings.storage), out, 0)
    ref = reader.latest()
    acknowledged = max((int(line) for line in acks.read_text().split()), default=0) if acks.exists() else 0
    assert reader.notes == []  # a kill leaves nothing torn that counts
    if ref is None:
        assert acknowledged == 0
        return 0
    assert ref.step >= acknowledged
    assert same(reader.load(ref), state(ref.step))
    best = reader.best()
    assert best is not None
    assert same(reader.load(best), state(best.step))
    return ref.step


def _order(settings: RunConfig, attempt: int, acks: Path, kill: int | None, steps: int) -> dict:
    return {
        "uri": settings.output.uri,
        "access": settings.storage.to_json(),
        "attempt": attempt,
        "kill": kill,
        "steps": steps,
        "acks": str(acks),
    }


def test_killed_at_every_single_storage_operation(
    anywhere: tuple[Location, RunConfig], server: Server, tmp_path: Path
) -> None:
    out, settings = anywhere
    acks, step = tmp_path / "acks", 0
    for kill in range(1, 41, 1 if settings.output.uri.startswith("file:") else 3):
        server.start(_order(settings, kill, acks, kill, steps=9))
        assert server.end() == signal.SIGKILL, "the writer was to die at this operation"
        now = _check(out, settings, kill, acks)
        assert now >= step
        step = now
    assert step > 5
    server.start(_order(settings, 41, acks, None, steps=3))
    assert server.end() == 0
    assert server.close() == ""
    assert len({info.key.split("/")[2] for info in out.list("ckpt/")}) <= 3  # keepLast 2 and the best: no orphans


def test_killed_at_random_times(anywhere: tuple[Location, RunConfig], server: Server, tmp_path: Path) -> None:
    out, settings = anywhere
    rng, acks, step = random.Random(20), tmp_path / "acks", 0
    for attempt in range(1, 17):
        seen = acks.stat().st_size if acks.exists() else 0
        pid = server.start(_order(settings, attempt, acks, None, steps=10_000))
        while attempt % 2 == 0 and not (acks.exists() and acks.stat().st_size > seen):
            time.sleep(0.01)  # every other writer is killed while it is saving, the others mostly while they start
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(pid, signal.SIGKILL)
        assert server.end() == signal.SIGKILL
        now = _check(out, settings, attempt, acks)
        assert now >= step
        step = now
    assert step > 0
