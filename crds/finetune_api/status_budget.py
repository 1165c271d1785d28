"""Keep a status within its budget: each part has a bound of its own, and all of them at once would be too much.

A list of 128 points, 12 checkpoints and 12 attempts, each with everything set, is about 100 KiB; etcd and every watcher
pay for that on each write. So the least important parts go first, step by step, until the whole is at most
STATUS_BYTES: what the job is, why, and what to do about it always stay. The full record lies beside the output
(events.jsonl). Equal input gives equal output, and what fits is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.status import Checkpoint, Status
from finetune_api.text import clip

STATUS_BYTES = 32 * 1024
"""Of the status as JSON in UTF-8."""


def within_budget(status: Status) -> Status:
    """The status, less what does not fit."""
    for reduce in _STEPS:
        if size(status) <= STATUS_BYTES:
            return status
        status = reduce(status)
    return status


def size(status: Status) -> int:
    """Bytes of the status as it is stored."""
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


def _points(count: int) -> Callable[[Status], Status]:
    """Points at equal distances, the first and the last among them."""

    def reduce(status: Status) -> Status:
        have = len(status.history)
        if have <= count:
            return status
        kept = tuple(status.history[i * (have - 1) // (count - 1)] for i in range(count))
        return status.model_copy(update={"history": kept})

    return reduce


def _attempts(count: int) -> Callable[[Status], Status]:
    def reduce(status: Status) -> Status:
        return status.model_copy(update={"attempts": status.attempts[:count]})

    return reduce


def _checkpoints(count: int) -> Callable[[Status], Status]:
    """The newest, and the best."""

    def reduce(status: Status) -> Status:
        def rank(of: tuple[int, Checkpoint]) -> tuple[bool, bool, int]:
            return of[0] != 0, not of[1].best, of[0]

        kept = sorted(i for i, _ in sorted(enumerate(status.checkpoints), key=rank)[:count])
        return status.model_copy(update={"checkpoints": tuple(status.checkpoints[i] for i in kept)})

    return reduce


def _old_attempts_in_short(status: Status) -> Status:
    short = {"seconds": None, "message": None}
    attempts = status.attempts[:1] + tuple(a.model_copy(update=short) for a in status.attempts[1:])
    return status.model_copy(update={"attempts": attempts})


def _data_in_short(findings: int) -> Callable[[Status], Status]:
    def reduce(status: Status) -> Status:
        short = {"labels": None, "findings": status.data.findings[:findings] if status.data else ()}
        return status.model_copy(update={"data": status.data and status.data.model_copy(update=short)})

    return reduce


def _condition_messages(length: int) -> Callable[[Status], Status]:
    def reduce(status: Status) -> Status:
        conditions = tuple(c.model_copy(update={"message": clip(c.message, length)}) for c in status.conditions)
        return status.model_copy(update={"conditions": conditions})

    return reduce


def _verdicts(length: int) -> Callable[[Status], Status]:
    """What each is about and whether it warns always stays."""

    def reduce(status: Status) -> Status:
        verdicts = status.verdicts and tuple(
            v.model_copy(update={"message": clip(v.message, length)}) for v in status.verdicts
        )
        return status.model_copy(update={"verdicts": verdicts})

    return reduce


def _no_sets(status: Status) -> Status:
    """What is worst of them a verdict says; all stands in the report."""
    return status.model_copy(update={"sets": None})


def _message(length: int) -> Callable[[Status], Status]:
    """Of a failed job the failure says it in full."""

    def reduce(status: Status) -> Status:
        return status.model_copy(update={"message": status.message and clip(status.message, length)})

    return reduce


_STEPS = (
    _points(64),
    _old_attempts_in_short,
    _points(32),
    _attempts(6),
    _checkpoints(6),
    _condition_messages(256),
    _data_in_short(1),
    _verdicts(256),
    _points(8),
    _attempts(3),
    _checkpoints(3),
    _condition_messages(64),
    _verdicts(128),
    _message(256),
    _checkpoints(1),
    _attempts(1),
    _points(2),
    _condition_messages(1),
    _data_in_short(0),
    _verdicts(64),
    _no_sets,
    _verdicts(16),
    _message(64),
)
