"""The worker processes of a node: forked, watched, told to stop, and killed where they do not end in time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from finetune_api.exits import COMPLETE
from finetune_api.run import RunConfig
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.launch.signals import HANDLED, LauncherSignals
from finetune_trainer.launch.worker import worker
from finetune_trainer.launch.worker_end import INTERRUPTED, WorkerEnd, read_end

PEER_SECONDS = 15.0
"""After one worker failed, the others have so long to notice, and to finish an upload. After one was interrupted, which
all agree on, they have the grace period: rank 0 is still saving the step."""
MARGIN_SECONDS = 5.0
"""Before the kubelet kills us, we kill the workers and write the outcome."""


def run_workers(
    config: RunConfig, first_rank: int, model: Path, folder: Path, signals: LauncherSignals, started: float
) -> list[WorkerEnd]:
    """Fork this node's workers, whose ranks begin at `first_rank`, and wait for all of them."""
    if config.world.workers == 1:
        update = {"master_address": "127.0.0.1", "master_port": free_port()}
        config = config.model_copy(update={"world": config.world.model_copy(update=update)})
    size = config.world.workers * config.world.processes_per_worker
    fork = multiprocessing.get_context("fork")
    processes: dict[int, BaseProcess] = {}
    for local in range(config.world.processes_per_worker):
        info = RankInfo(first_rank + local, size, local)
        processes[info.rank] = fork.Process(
            target=worker, args=(config, info, model, folder, started), name=f"rank {info.rank}"
        )
    signals.running = True
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until the child has handlers of its own
    try:
        for process in processes.values():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return watch(config, folder, processes, signals)


def watch(
    config: RunConfig, folder: Path, processes: Mapping[int, BaseProcess], signals: LauncherSignals
) -> list[WorkerEnd]:
    """Wait for all. The first failure, or a signal, starts a clock after which the rest is killed."""
    ends: list[WorkerEnd] = []
    deadline: float | None = None
    told = False
    while alive := {rank: p for rank, p in processes.items() if rank not in {e.rank for e in ends}}:
        if signals.at is not None and not told:
            told = True
            until = signals.at + _grace(config)
            deadline = min(deadline, until) if deadline else until
            _signal(alive, signals.number)
        late = deadline is not None and time.monotonic() >= deadline
        if late:
            _signal(alive, signal.SIGKILL)
        left = None if deadline is None or late else max(0.0, deadline - time.monotonic())
        wait([*(p.sentinel for p in alive.values()), *([] if told else [signals.fileno])], left)
        for rank, process in alive.items():
            if process.exitcode is not None:
                ends.append(read_end(folder, rank, process.exitcode, by_us=late, told=told))
                if ends[-1].code != COMPLETE and deadline is None:
                    patience = _grace(config) if ends[-1].code == INTERRUPTED else PEER_SECONDS
                    deadline = time.monotonic() + patience
                    _signal({r: p for r, p in alive.items() if r != rank}, signal.SIGTERM)
    return ends


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _grace(config: RunConfig) -> float:
    """Seconds from a signal until the workers that are left are killed."""
    return max(1.0, config.grace_period_seconds - MARGIN_SECONDS)


def _signal(processes: Mapping[int, BaseProcess], number: int) -> None:
    for process in processes.values():
        if process.pid is not None and process.exitcode is None:
            os.kill(process.pid, number)
