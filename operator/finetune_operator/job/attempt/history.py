"""The list of attempts in status: what each went through, why it ended, and what of its work had to be done again.

It is the planner's memory of pods that are gone: a cause is written down when it is first seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetune_api.exits import Reason
from finetune_api.report import Outcome, Report
from finetune_api.status import ATTEMPTS, AttemptStatus, Status
from finetune_api.text import clip
from finetune_api.times import rfc3339, seconds
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.attempt.causes import Cause, from_record

SUSPENDED = "spec.suspend was set"
"""Message of an attempt that the user's suspend ended."""


def opened(attempt: Attempt, now: float) -> AttemptStatus:
    """The attempt's entry, made when its Job is first seen."""
    start = attempt.job.created if attempt.job else min((p.created for p in attempt.pods), default=now)
    return AttemptStatus(number=attempt.number, start_time=rfc3339(start))


def with_report(entry: AttemptStatus, report: Report, attempt: Attempt) -> AttemptStatus:
    """The entry with what a report of this attempt says."""
    started = report.resumed_from_step is not None or report.progress is not None
    fields = {
        "from_step": (report.resumed_from_step or 0) if started else entry.from_step,
        "last_step": max(report.progress.step, entry.last_step or 0) if report.progress else entry.last_step,
        "seconds": {**(entry.seconds or {}), **waited(entry, attempt), **report.seconds} or None,
    }
    return entry.model_copy(update=fields)


def with_outcome(entry: AttemptStatus, said: Outcome, attempt: Attempt) -> AttemptStatus:
    """The entry with the launcher's last word."""
    known = said.step is not None or said.resumed_from_step is not None
    fields = {
        "from_step": entry.from_step if entry.from_step is not None or not known else said.resumed_from_step or 0,
        "last_step": max(said.step, entry.last_step or 0) if said.step is not None else entry.last_step,
        "seconds": {**(entry.seconds or {}), **waited(entry, attempt), **said.seconds} or None,
    }
    return entry.model_copy(update=fields)


def waited(entry: AttemptStatus, attempt: Attempt) -> dict[str, float]:
    """Seconds from the entry's start to the last pod's place on a node (queue), and to its container's start
    (start)."""
    placed = [p.scheduled for p in attempt.pods if p.scheduled is not None]
    started = [p.container.started_at for p in attempt.pods if p.container and p.container.started_at is not None]
    if attempt.job is None or len(placed) < attempt.job.parallelism or len(started) < attempt.job.parallelism:
        return {}
    since = seconds(entry.start_time) or attempt.job.created
    return {"queue": max(0.0, max(placed) - since), "start": max(0.0, max(started) - max(placed))}


def with_cause(entry: AttemptStatus, cause: Cause | None) -> AttemptStatus:
    """The entry with why it ends."""
    if cause is None:
        return entry
    fields = {
        "reason": cause.reason.value,
        "message": clip(cause.message, 256),
        "exit_code": cause.exit_code,
        "place": cause.place,
        "pod": cause.pod,
    }
    return entry.model_copy(update=fields)


def ended(entry: AttemptStatus, attempt: Attempt, cause: Cause | None, now: float) -> AttemptStatus:
    """The entry closed: at the Job's end, else at its last pod's, else now."""
    if entry.end_time is not None:
        return entry
    finishes = [p.container.finished_at for p in attempt.pods if p.container and p.container.finished_at is not None]
    moment = (attempt.job.finished if attempt.job else None) or max(finishes, default=None) or now
    return with_cause(entry, cause).model_copy(update={"end_time": rfc3339(moment)})


def suspended(entry: AttemptStatus) -> bool:
    """Whether the user's suspend ended the attempt."""
    return entry.reason == Reason.INTERRUPTED and entry.message == SUSPENDED


def interrupted(entry: AttemptStatus) -> AttemptStatus:
    """The entry of an attempt that the user's suspend ends."""
    return entry.model_copy(update={"reason": Reason.INTERRUPTED.value, "message": SUSPENDED})


def resumed(entry: AttemptStatus, attempt: Attempt, *, suspend: bool) -> AttemptStatus:
    """The entry, less a suspend that was written down but taken back before the Job was deleted: the pods go on."""
    stays = attempt.job is not None and not attempt.job.deleting and entry.end_time is None
    if suspend or not stays or not suspended(entry):
        return entry
    return entry.model_copy(update={"reason": None, "message": None})


def kept(entries: Iterable[AttemptStatus]) -> tuple[AttemptStatus, ...]:
    """The last attempts, newest first, each with the steps that the next one had to do again.

    A worker that vanishes may have stored a checkpoint that its last report did not tell of: where the next attempt
    starts beyond the last step that was told, the attempt came that far.
    """
    found = sorted(entries, key=lambda a: (a.number, a.start_time), reverse=True)[:ATTEMPTS]
    later: AttemptStatus | None = None
    kept_entries: list[AttemptStatus] = []
    for entry in found:
        if later is not None and later.from_step is not None and entry.last_step is not None:
            last_step = max(entry.last_step, later.from_step)
            entry = entry.model_copy(update={"last_step": last_step, "lost_steps": last_step - later.from_step})
        kept_entries.append(entry)
        later = entry
    return tuple(kept_entries)


@dataclass(frozen=True, slots=True)
class Record:
    """What the attempts so far mean for the restart budget."""

    progress: bool  # the last attempt left a newer checkpoint than it started from
    fruitless: int  # attempts in a row, the last included, that left none
    used: int  # of the budget before the last attempt, as far as status tells


def record(status: Status) -> Record:
    """The record of status.attempts; those that the user suspended are not fruitless."""
    entries = status.attempts
    newest = max((c.step for c in status.checkpoints), default=None)
    last = entries[0]
    progress = last.from_step is not None and newest is not None and newest > last.from_step
    fruitless, used, reached = 0, 0, newest
    for i, entry in enumerate(entries):
        if entry.from_step is not None and reached is not None and reached > entry.from_step:
            break
        if not suspended(entry):
            fruitless += 1
            if i > 0 and _counts(entry):
                used += 1
        reached = entry.from_step if entry.from_step is not None else reached
    return Record(progress, fruitless, used)


def _counts(entry: AttemptStatus) -> bool:
    cause = from_record(entry)
    return cause is not None and cause.counts
