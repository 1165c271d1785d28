"""A peer that falls silent, as on a node without power: told to stop, a worker does not wait for the collective's
time-out.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import EXITS, JobError, Reason
from finetune_api.run import RunConfig, World
from finetune_trainer.distributed import waits
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.distributed.rendezvous import join, meet
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch import processes
from finetune_trainer.launch.worker import worker as worker_main
from finetune_trainer.train import worker as train_worker
from support.jobs import job_config


def adds_up(
    config: RunConfig, info: RankInfo, model: Path, folder: Path, started: float, stop: Callable[[], bool]
) -> None:
    """A run that is nothing but collectives; a stop is agreed on."""
    ranks = join(meet(info, config.world, stop), config.world, "fp32")
    try:
        while not ranks.sum([float(stop())])[0]:
            (folder / f"adds-{info.rank}").touch()
            time.sleep(0.01)
    except JobError as error:
        ranks.peers.report_failure(problem_for(error, info.rank))
        raise
    (folder / f"agreed-{info.rank}").touch()


@pytest.fixture
def timeout() -> float:
    """Seconds that a collective waits."""
    return 300.0


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float) -> Iterator[list[Any]]:
    """Two workers of one group, forked as the launcher does, that add up."""
    monkeypatch.setattr(train_worker, "run_worker", adds_up)
    world = World(
        device="cpu",
        processes_per_worker=2,
        timeout_seconds=timeout,
        threads_per_process=1,
        master_address="127.0.0.1",
        master_port=processes.free_port(),
    )
    config = job_config(tmp_path, world=world)
    fork = multiprocessing.get_context("fork")
    places = [RankInfo(rank, 2, rank) for rank in range(2)]
    workers = [fork.Process(target=worker_main, args=(config, p, tmp_path, tmp_path, 0.0)) for p in places]
    for worker in workers:
        worker.start()
    while not all((tmp_path / f"adds-{rank}").exists() for rank in range(2)):
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.05)
    yield workers
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()


@pytest.mark.parametrize("silent", [0, 1])
def test_told_to_stop_it_leaves_the_silent_peer(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path, silent: int
) -> None:
    monkeypatch.setattr(waits, "SILENT_SECONDS", 1.0)
    workers = request.getfixturevalue("two")
    os.kill(workers[silent].pid, signal.SIGSTOP)
    left = workers[1 - silent]
    left.join(3)
    assert left.is_alive(), "nobody has told it to stop"
    os.kill(left.pid, signal.SIGTERM)
    left.join(30)
    assert left.exitcode == EXITS[Reason.PEER_LOST].code
    told = json.loads((tmp_path / f"rank-{1 - silent}.json").read_text())
    assert "told to stop" in told["problem"]["message"]


@pytest.mark.parametrize("timeout", [3.0])
def test_the_collectives_time_out_ends_it_though_the_store_is_silent_too(two: list[Any]) -> None:
    """Rank 0 holds the store that ranks tell each other by: it says nothing, and its connection never ends."""
    os.kill(two[0].pid, signal.SIGSTOP)
    two[1].join(60)
    assert two[1].exitcode == EXITS[Reason.PEER_LOST].code


def test_a_peer_that_answers_is_heard_out(tmp_path: Path, two: list[Any]) -> None:
    os.kill(two[0].pid, signal.SIGTERM)
    for worker in two:
        worker.join(30)
    assert [worker.exitcode for worker in two] == [0, 0]
    assert (tmp_path / "agreed-1").exists()


def test_a_peer_that_was_slow_before_is_not_called_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(waits, "_recent", waits._recent.__class__(maxlen=64))
    with waits.waiting():
        now += 19
        assert waits.silent_for() is None
        with waits.waiting():  # nested: still the same wait
            now += 2
        assert waits.silent_for() == 21
    assert waits.silent_for() is None, "nobody is waited for"
    with waits.waiting():
        now += 80
        assert waits.silent_for() is None, "it took 21 s before"
        now += 5
        assert waits.silent_for() == 85
