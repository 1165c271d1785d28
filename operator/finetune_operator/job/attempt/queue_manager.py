"""A queue manager takes the workers' place back, and gives it again later: it suspends their Job and resumes it.

The Job stays, and with it the attempt's number; but each admission has its own entry in status.attempts, so that what
was done, and lost, before the preemption is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.exits import Reason
from finetune_api.status import AttemptStatus
from finetune_api.text import clip
from finetune_api.times import rfc3339, seconds
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.plan.views.event import EventView

STOPPED = "Stopped"
"""Reason of Kueue's Event on a Job that says why it was suspended."""
EVENT_SECONDS = 30.0
"""That Event comes after the suspension: it is looked for so long."""


@dataclass(frozen=True, slots=True)
class Admissions:
    """The entries of status.attempts, brought up to what the queue manager has done, and what was new in that."""

    entries: tuple[AttemptStatus, ...]
    preempted: bool = False  # the workers' place was taken back
    unexplained: bool = False  # and the Event that says why is not there yet
    readmitted: bool = False  # and given again: another entry was opened


def admissions(
    entries: tuple[AttemptStatus, ...], attempt: Attempt | None, events: Sequence[EventView], now: float
) -> Admissions:
    """Close the newest attempt's entry when its Job is suspended in mid-run, open another when it is admitted again.

    `events` are those about the attempt's Job.
    """
    entry = next((a for a in entries if attempt and a.number == attempt.number), None)
    if attempt is None or entry is None or attempt.job is None:
        return Admissions(entries)
    if attempt.held and entry.end_time is None and _begun(entry):
        closed = entry.model_copy(update={"reason": Reason.PREEMPTED.value, "end_time": rfc3339(now)})
        found, unexplained = _explained(_with(entries, entry, closed), closed, attempt, events, now)
        return Admissions(found, preempted=True, unexplained=unexplained)
    ended = next((a for a in entries if a.number == attempt.number and was_preempted(a)), None)
    found, unexplained = (entries, False) if ended is None else _explained(entries, ended, attempt, events, now)
    if was_preempted(entry) and not (attempt.held or attempt.failing or attempt.job.terminal or attempt.job.deleting):
        again = AttemptStatus(number=attempt.number, start_time=entry.end_time or rfc3339(now))
        return Admissions((again, *found), unexplained=unexplained, readmitted=True)
    return Admissions(found, unexplained=unexplained)


def was_preempted(entry: AttemptStatus) -> bool:
    """Whether the entry ended by a preemption."""
    return entry.end_time is not None and entry.reason == Reason.PREEMPTED


def earlier(entries: tuple[AttemptStatus, ...]) -> tuple[AttemptStatus, ...]:
    """Of entries, newest first, those of earlier admissions of an attempt."""
    return tuple(a for i, a in enumerate(entries) if any(later.number == a.number for later in entries[:i]))


def whose(attempt: Attempt) -> str:
    """Who holds the Job back."""
    queue = attempt.job.queue_name if attempt.job else None
    return f"queue {queue}" if queue else "whoever set spec.suspend on the Job"


def _begun(entry: AttemptStatus) -> bool:
    """Whether its pods were seen at work."""
    return entry.from_step is not None or bool(entry.seconds)


def _explained(
    entries: tuple[AttemptStatus, ...], ended: AttemptStatus, attempt: Attempt, events: Sequence[EventView], now: float
) -> tuple[tuple[AttemptStatus, ...], bool]:
    """The entries with why that one ended, in the queue manager's words as soon as they are there, also where the
    workers are admitted again by then; and whether these are still looked for.
    """
    plain = f"{whose(attempt)} took the workers' place back"
    looked_for = now < (seconds(ended.end_time) or 0.0) + EVENT_SECONDS and ended.message in (None, plain)
    told = [e for e in events if e.reason == STOPPED and e.time >= (seconds(ended.start_time) or 0.0)]
    if not looked_for:
        return entries, False
    words = f": {max(told, key=lambda e: e.time).message}" if told else ""
    said = ended.model_copy(update={"message": clip(f"{plain}{words}", 256)})
    return _with(entries, ended, said), not told


def _with(entries: tuple[AttemptStatus, ...], old: AttemptStatus, new: AttemptStatus) -> tuple[AttemptStatus, ...]:
    return tuple(new if a is old else a for a in entries)
