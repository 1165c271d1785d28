"""A queue manager takes the workers' place back, and gives it again later: it suspends their Job and resumes it.

The Job stays, and with it the attempt's number; but each admission has its own entry in status.attempts, so that what
was done, and lost, before the preemption is told.
"""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import AttemptStatus
from finetune_api.text import clip
from finetune_api.times import rfc3339, seconds
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.draft import Draft

STOPPED = "Stopped"
"""Reason of Kueue's Event on a Job that says why it was suspended."""
WORDS_SECONDS = 30.0
"""That Event comes after the suspension: it is looked for so long."""
AGAIN_SECONDS = 11.0


def note(draft: Draft, attempt: Attempt) -> None:
    """Close the attempt's entry when its Job is suspended in mid-run, and open another when it is admitted again."""
    entry = next((a for a in draft.status.attempts if a.number == attempt.number), None)
    if entry is None or attempt.job is None:
        return
    if attempt.held and _begun(entry) and entry.end_time is None:
        words = (
            f"{whose(attempt)} took the workers' place back; the job goes on from its last checkpoint when it is"
            " admitted again"
        )
        draft.note("Warning", "Preempted", words)
        _close(draft, attempt, entry, rfc3339(draft.now))
    elif attempt.held and preempted(entry) and draft.now < (seconds(entry.end_time) or 0.0) + WORDS_SECONDS:
        _close(draft, attempt, entry, entry.end_time)
    elif preempted(entry) and not (attempt.held or attempt.failing or attempt.job.terminal or attempt.job.deleting):
        again = AttemptStatus(number=attempt.number, start_time=entry.end_time or rfc3339(draft.now))
        draft.update(attempts=(again, *draft.status.attempts), restarts=(draft.status.restarts or 0) + 1)


def preempted(entry: AttemptStatus) -> bool:
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


def _close(draft: Draft, attempt: Attempt, entry: AttemptStatus, at: str | None) -> None:
    """Write down why the entry ended, in the queue manager's words as soon as they are there."""
    assert attempt.job is not None
    told = [
        e for e in draft.observed.events.get(attempt.job.name, ()) if e.reason == STOPPED and e.time >= _start(entry)
    ]
    if not told:
        draft.read_events.append(attempt.job.name)
        draft.wake_in(AGAIN_SECONDS)
    words = f": {max(told, key=lambda e: e.time).message}" if told else ""
    message = clip(f"{whose(attempt)} took the workers' place back{words}", 256)
    closed = entry.model_copy(update={"reason": Reason.PREEMPTED.value, "message": message, "end_time": at})
    draft.update(attempts=tuple(closed if a is entry else a for a in draft.status.attempts))


def _start(entry: AttemptStatus) -> float:
    return seconds(entry.start_time) or 0.0
