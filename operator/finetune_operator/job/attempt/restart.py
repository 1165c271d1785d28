"""Whether to try again after an attempt ended, and when: by cause, within the budget, at once but for crash loops.

The budget counts restarts in a row without a newer checkpoint. What is used of it travels in an annotation of each Job,
so that a crash of the operator neither forgets nor doubles a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetune_api.exits import Reason, Retry
from finetune_api.status import Failure
from finetune_operator.job.attempt.causes import Cause

AT_ONCE = 2
"""So many attempts in a row that come to nothing are followed by the next at once; then it waits longer each time."""
FIRST_DELAY, LONGEST_DELAY = 10.0, 300.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Try again, `delay` seconds after the end of the last attempt, with so much of the budget used."""

    used: int
    delay: float


def after(
    cause: Cause, *, used: int, progress: bool, fruitless: int, max_restarts: int, before: str | None = None
) -> Restart | Failure:
    """What follows the end of an attempt.

    `used`: of the budget, when the attempt was made. `progress`: it left a newer checkpoint. `fruitless`: attempts in a
    row that left none, this one included. `before`: the place of the unexpected error that ended the attempt before it.
    """
    if cause.retry is Retry.NEVER:
        return cause.failure()
    if cause.reason is Reason.INTERNAL_ERROR and cause.place is not None and cause.place == before and not progress:
        return _again_at_the_same_place(cause)
    spent = (0 if progress else used) + (1 if cause.counts else 0)
    if spent > max_restarts:
        return _exhausted(cause, max_restarts)
    return Restart(spent, delay(0 if progress else fruitless))


def delay(fruitless: int) -> float:
    """Seconds to wait before the next try: 0, 0, 10, 20, 40 ... 300."""
    if fruitless <= AT_ONCE:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(fruitless - AT_ONCE - 1, 10))


def _again_at_the_same_place(cause: Cause) -> Failure:
    """What is wrong there stays wrong: another attempt would end like the last two."""
    return replace(
        cause, message=f"the same unexpected error, at the same place, ended two tries in a row: {cause.message}"
    ).failure()


def _exhausted(cause: Cause, max_restarts: int) -> Failure:
    last = cause.failure()
    times = (
        "no restart is allowed"
        if max_restarts == 0
        else f"{max_restarts} restarts in a row brought no newer checkpoint"
    )
    found = Cause(
        Reason.TOO_MANY_RESTARTS,
        f"{times} (spec.restartPolicy.maxRestarts); the last try ended with {last.reason}: {last.message}",
        field=last.field,
        rank=last.rank,
        exit_code=last.exit_code,
        hint=f"{last.hint} Then start the job anew, or raise spec.restartPolicy.maxRestarts.",
    )
    return found.failure()
