"""The pod's entry: brings the model to this node, starts the workers, and ends with the root cause's own exit code.

Ranks are static: the node's is JOB_COMPLETION_INDEX (torchrun's rendezvous sorts host names, job-10 before job-2). The
workers are forked from a process that has imported torch and transformers once. SIGTERM is passed on; the workers
checkpoint and leave with Interrupted. Exit 0 means only that the run is complete and its artefacts are committed: a
worker
that dies by a signal, says nothing, or ends early never yields 0. The last word goes to the termination message.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from finetune_api.exits import BY_CODE, COMPLETE, EXITS, JobError, Reason
from finetune_api.report import Problem
from finetune_api.run import RunConfig
from finetune_trainer.distributed import waits
from finetune_trainer.distributed.rank_info import RankInfo
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.launch.completed import tell_again
from finetune_trainer.launch.signals import StopFlag
from finetune_trainer.report.outcome import load_snapshot, outcome_for, write_outcome
from finetune_trainer.storage import trust

log = logging.getLogger(__name__)

PEER_SECONDS = 15.0
"""After one worker failed, the others have so long to notice, and to finish an upload. After one was interrupted, which
all
agree on, they have the grace period: rank 0 is still saving the step."""
MARGIN_SECONDS = 5.0
"""Before the kubelet kills us, we kill the workers and write the last word."""

HANDLED = (signal.SIGTERM, signal.SIGINT)
_PEER_LOST = EXITS[Reason.PEER_LOST].code
_INTERRUPTED = EXITS[Reason.INTERRUPTED].code
_INTERNAL = EXITS[Reason.INTERNAL_ERROR].code or 44


@dataclass(frozen=True, slots=True)
class End:
    """How one worker ended.

    `time` is the monotonic clock's, the same for all processes of the node; `code` as a shell has it.
    """

    rank: int
    code: int
    time: float
    problem: Problem | None = None
    by_us: bool = False  # killed by the launcher, after another had failed


def launch(config: RunConfig) -> int:
    """Run this node's workers to their end; the exit code. Writes the outcome."""
    started = time.monotonic()
    folder: Path | None = None
    stop = _Signals()
    try:
        folder = Path(tempfile.mkdtemp(prefix="launch-", dir=_scratch(config)))
        first = _node_rank(config) * config.world.processes_per_worker
        log.info("attempt %d, worker %d of %d", config.attempt, _node_rank(config), config.world.workers)
        trust(config.storage)
        if tell_again(config, folder / "snapshot.json" if first == 0 else None):
            end = End(first, COMPLETE, time.monotonic())
        else:
            model = _prepare_node(config)
            log.info("the model is here and its classes are imported, after %.1f s", time.monotonic() - started)
            end = root_cause(_run_workers(config, model, folder, stop, started))
    except Exception as error:
        problem = problem_for(error, None, [config.scratch])
        if problem.reason is Reason.INTERNAL_ERROR:
            log.exception("the launcher failed")
        rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0")) * config.world.processes_per_worker
        end = End(rank, EXITS[problem.reason].code or _INTERNAL, time.monotonic(), problem)
    _say_last_word(config, folder, end)
    return end.code


def root_cause(ends: list[End]) -> End:
    """The worker to blame: the first that failed by itself; those that only lost a peer, or that we killed, come last.

    All zero is success; nothing else is.
    """
    assert ends
    failed = [e for e in ends if e.code != COMPLETE]
    if not failed:
        return ends[0]
    return min(failed, key=lambda e: (e.by_us, e.code == _PEER_LOST, e.code == _INTERRUPTED, e.time))


def _node_rank(config: RunConfig) -> int:
    rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    if not 0 <= rank < config.world.workers:
        raise JobError(
            Reason.INVALID_CONFIG, f"JOB_COMPLETION_INDEX is {rank}, and there are {config.world.workers} workers"
        )
    return rank


def _scratch(config: RunConfig) -> Path:
    folder = Path(config.scratch)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _prepare_node(config: RunConfig) -> Path:
    """Fetch and import once what every worker needs, before they are forked.

    No thread runs afterwards, and CUDA stays untouched.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost peer is told once, in words, not by a stack of C++
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(config)))
    from finetune_trainer.train.loop import warm_up

    return warm_up(config)


def _threads(config: RunConfig) -> int:
    return config.world.threads_per_process or max(1, len(os.sched_getaffinity(0)) // config.world.processes_per_worker)


class _Signals:
    """SIGTERM and SIGINT: before the workers run they end the launcher at once; afterwards they are passed on."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.number: int = signal.SIGTERM
        self.running = False
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in HANDLED:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.at is None:
            self.at, self.number = time.monotonic(), number
        os.write(self._woken, b".")
        if not self.running:
            raise JobError(Reason.INTERRUPTED, "the run was told to stop before the first step")

    @property
    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._wake


def _run_workers(config: RunConfig, model: Path, folder: Path, stop: _Signals, started: float) -> list[End]:
    if config.world.workers == 1:
        config = config.model_copy(
            update={
                "world": config.world.model_copy(update={"master_address": "127.0.0.1", "master_port": _free_port()})
            }
        )
    first, size = (
        _node_rank(config) * config.world.processes_per_worker,
        config.world.workers * config.world.processes_per_worker,
    )
    fork = multiprocessing.get_context("fork")
    workers: dict[int, BaseProcess] = {}
    for local in range(config.world.processes_per_worker):
        info = RankInfo(first + local, size, local)
        workers[info.rank] = fork.Process(
            target=_worker, args=(config, info, model, folder, started), name=f"rank {info.rank}"
        )
    stop.running = True
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until the child has handlers of its own
    try:
        for worker in workers.values():
            worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return _watch(config, folder, workers, stop)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(config: RunConfig, folder: Path, workers: dict[int, BaseProcess], stop: _Signals) -> list[End]:
    """Wait for all. The first failure, or a signal, starts a clock after which the rest is killed."""
    ends: list[End] = []
    deadline: float | None = None
    told = False
    while alive := {rank: w for rank, w in workers.items() if rank not in {e.rank for e in ends}}:
        if stop.at is not None and not told:
            told = True
            until = stop.at + _grace(config)
            deadline = min(deadline, until) if deadline else until
            _signal(alive, stop.number)
        late = deadline is not None and time.monotonic() >= deadline
        if late:
            _signal(alive, signal.SIGKILL)
        left = None if deadline is None or late else max(0.0, deadline - time.monotonic())
        wait([*(w.sentinel for w in alive.values()), *([] if told else [stop.fileno])], left)
        for rank, worker in alive.items():
            if worker.exitcode is not None:
                ends.append(_end(folder, rank, worker.exitcode, by_us=late, told=told))
                if ends[-1].code != COMPLETE and deadline is None:
                    patience = _grace(config) if ends[-1].code == _INTERRUPTED else PEER_SECONDS
                    deadline = time.monotonic() + patience
                    _signal({r: w for r, w in alive.items() if r != rank}, signal.SIGTERM)
    return ends


def _grace(config: RunConfig) -> float:
    """Seconds from a signal until the workers that are left are killed."""
    return max(1.0, config.grace_period_seconds - MARGIN_SECONDS)


def _signal(workers: dict[int, BaseProcess], number: int) -> None:
    for worker in workers.values():
        if worker.pid is not None and worker.exitcode is None:
            os.kill(worker.pid, number)


def _end(folder: Path, rank: int, exitcode: int, *, by_us: bool, told: bool) -> End:
    """What a worker said, or what its exit says of it."""
    now = time.monotonic()
    said = _read(folder / f"rank-{rank}.json")
    if said is not None and exitcode == said["code"]:
        problem = Problem.model_validate_json(json.dumps(said["problem"])) if said.get("problem") else None
        return End(rank, exitcode, said["time"], problem)
    if exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in set(signal.Signals) else f"signal {-exitcode}"
        if by_us and told:
            late = (
                f"rank {rank} did not stop within the grace period and was killed; the run goes on from the newest"
                " checkpoint"
            )
            return End(rank, _INTERRUPTED or 40, now, _problem(Reason.INTERRUPTED, late, rank), by_us=True)
        if by_us:
            late = f"rank {rank} did not end after a peer had failed, and was killed"
            return End(rank, 128 - exitcode, now, _problem(Reason.CRASHED, late, rank), by_us=True)
        memory = ": most likely it used more memory than the container may" if -exitcode == signal.SIGKILL else ""
        return End(
            rank, 128 - exitcode, now, _problem(Reason.CRASHED, f"rank {rank} was killed by {name}{memory}", rank)
        )
    if exitcode in BY_CODE:  # its word could not be written down, as where the disk is full
        row = BY_CODE[exitcode]
        words = f"{row.cause} (rank {rank} left no other word in {folder})"
        return End(rank, exitcode, now, _problem(row.reason, words, rank))
    code = exitcode if exitcode != COMPLETE else _INTERNAL
    return End(
        rank, code, now, _problem(Reason.CRASHED, f"rank {rank} ended with exit code {exitcode} and said nothing", rank)
    )


def _problem(reason: Reason, message: str, rank: int) -> Problem:
    return Problem(reason=reason, message=message, hint=EXITS[reason].hint, rank=rank)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _worker(config: RunConfig, info: RankInfo, model: Path, folder: Path, started: float) -> None:
    """A forked worker: trains, leaves word of how it ended, and exits with that code."""
    stop = StopFlag().install()
    waits.watch(lambda seconds: _leave_silent_peer(folder, info.rank, seconds))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    code, problem = COMPLETE, None
    try:
        from finetune_trainer.train.loop import train

        train(config, info, model, folder, started, stop)
    except BaseException as error:
        problem = problem_for(error, info.rank, [config.scratch])
        code = EXITS[problem.reason].code or _INTERNAL
        if not isinstance(error, JobError):
            log.exception("rank %s failed", info.rank)
    _leave(folder, info.rank, code, problem)


def _leave_silent_peer(folder: Path, rank: int, seconds: float) -> None:
    message = f"rank {rank} was told to stop while another worker had not answered for {seconds:.0f} s"
    _leave(folder, rank, _PEER_LOST or 41, _problem(Reason.PEER_LOST, message, rank))


def _leave(folder: Path, rank: int, code: int, problem: Problem | None) -> NoReturn:
    """Leave word of how the worker ended, and exit with that code."""
    told = {"code": code, "time": time.monotonic(), "problem": problem and problem.to_json()}
    path = folder / f"rank-{rank}.json"
    try:
        path.with_suffix(".new").write_text(json.dumps(told))
        os.replace(path.with_suffix(".new"), path)
    except OSError as error:  # the exit code says most of it
        log.error("rank %d could not leave word: %s; it was: %s", rank, error, problem and problem.message)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no destructor of a process group or thread pool may hang the exit


def _say_last_word(config: RunConfig, folder: Path | None, end: End) -> None:
    outcome = outcome_for(config, None, load_snapshot(folder / "snapshot.json") if folder else None)
    write_outcome(config, outcome.model_copy(update={"exit_code": end.code, "problem": end.problem}))
    if end.problem is not None:
        log.error("%s: %s (%s)", end.problem.reason, end.problem.message, end.problem.hint)
