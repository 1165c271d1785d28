"""How a worker ended: what it wrote down before it exited, else what its exit code says; and which one is to blame."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from finetune_api.exits import BY_CODE, COMPLETE, EXITS, Reason
from finetune_api.report import Problem

log = logging.getLogger(__name__)

INTERNAL = EXITS[Reason.INTERNAL_ERROR].code or 44
INTERRUPTED = EXITS[Reason.INTERRUPTED].code or 40
PEER_LOST = EXITS[Reason.PEER_LOST].code or 41


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How one worker ended.

    `time` is the monotonic clock's, the same for all processes of the node; `code` as a shell has it.
    """

    rank: int
    code: int
    time: float
    problem: Problem | None = None
    by_us: bool = False  # killed by the launcher, after another had failed


def root_cause(ends: list[WorkerEnd]) -> WorkerEnd:
    """The worker to blame: the first that failed by itself; those that only lost a peer, or that we killed, come last.

    All zero is success; nothing else is.
    """
    assert ends
    failed = [e for e in ends if e.code != COMPLETE]
    if not failed:
        return ends[0]
    return min(failed, key=lambda e: (e.by_us, e.code == PEER_LOST, e.code == INTERRUPTED, e.time))


def exit_worker(folder: Path, rank: int, code: int, problem: Problem | None) -> NoReturn:
    """In the worker: write down how it ended, and exit with that code."""
    record = {"code": code, "time": time.monotonic(), "problem": problem and problem.to_json()}
    path = _record(folder, rank)
    try:
        path.with_suffix(".new").write_text(json.dumps(record))
        os.replace(path.with_suffix(".new"), path)
    except OSError as error:  # the exit code says most of it
        log.error("rank %d could not leave word: %s; it was: %s", rank, error, problem and problem.message)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no destructor of a process group or thread pool may hang the exit


def read_end(folder: Path, rank: int, exitcode: int, *, by_us: bool, told: bool) -> WorkerEnd:
    """In the launcher: what the worker wrote down, or what its exit code says.

    `by_us`: the launcher killed it; `told`: after it had passed a signal on.
    """
    now = time.monotonic()
    record = _read(_record(folder, rank))
    if record is not None and exitcode == record["code"]:
        problem = Problem.model_validate_json(json.dumps(record["problem"])) if record.get("problem") else None
        return WorkerEnd(rank, exitcode, record["time"], problem)
    if exitcode < 0:
        return _killed(rank, -exitcode, now, by_us=by_us, told=told)
    if exitcode in BY_CODE:  # it could not write the record, as where the disk is full
        row = BY_CODE[exitcode]
        words = f"{row.cause} (rank {rank} left no other word in {folder})"
        return WorkerEnd(rank, exitcode, now, problem_of(row.reason, words, rank))
    words = f"rank {rank} ended with exit code {exitcode} and said nothing"
    code = exitcode if exitcode != COMPLETE else INTERNAL
    return WorkerEnd(rank, code, now, problem_of(Reason.CRASHED, words, rank))


def problem_of(reason: Reason, message: str, rank: int) -> Problem:
    """A worker's problem, with the hint that its reason has."""
    return Problem(reason=reason, message=message, hint=EXITS[reason].hint, rank=rank)


def _killed(rank: int, number: int, now: float, *, by_us: bool, told: bool) -> WorkerEnd:
    """It ended by a signal."""
    if by_us and told:
        words = (
            f"rank {rank} did not stop within the grace period and was killed; the run goes on from the newest"
            " checkpoint"
        )
        return WorkerEnd(rank, INTERRUPTED, now, problem_of(Reason.INTERRUPTED, words, rank), by_us=True)
    if by_us:
        words = f"rank {rank} did not end after a peer had failed, and was killed"
        return WorkerEnd(rank, 128 + number, now, problem_of(Reason.CRASHED, words, rank), by_us=True)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    memory = ": most likely it used more memory than the container may" if number == signal.SIGKILL else ""
    words = f"rank {rank} was killed by {name}{memory}"
    return WorkerEnd(rank, 128 + number, now, problem_of(Reason.CRASHED, words, rank))


def _record(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
