"""A queue manager takes the workers' place back, and gives it again later: it suspends their Job and resumes it.

The Job stays, and with it the attempt's number; but each admission has its own entry in status.attempts, so that what
was
done, and lost, before the preemption is told.
"""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import Attempt
from finetune_api.text import clip
from finetune_api.times import rfc3339, seconds
from finetune_operator.job.attempt.attempt import Try
from finetune_operator.job.draft import Draft

STOPPED = "Stopped"
"""Reason of Kueue's Event on a Job that says why it was suspended."""
WORDS_SECONDS = 30.0
"""That Event comes after the suspension: it is looked for so long."""
AGAIN_SECONDS = 11.0


def note(draft: Draft, of: Try) -> None:
    """Close the attempt's entry when its Job is suspended in mid-run, and open another when it is admitted again."""
    entry = next((a for a in draft.status.attempts if a.number == of.number), None)
    if entry is None or of.job is None:
        return
    if of.held and _begun(entry) and entry.end_time is None:
        words = (
            f"{whose(of)} took the workers' place back; the job goes on from its last checkpoint when it is admitted"
            " again"
        )
        draft.note("Warning", "Preempted", words)
        _close(draft, of, entry, rfc3339(draft.now))
    elif of.held and preempted(entry) and draft.now < (seconds(entry.end_time) or 0.0) + WORDS_SECONDS:
        _close(draft, of, entry, entry.end_time)
    elif preempted(entry) and not (of.held or of.failing or of.job.terminal or of.job.deleting):
        again = Attempt(number=of.number, start_time=entry.end_time or rfc3339(draft.now))
        draft.update(attempts=(again, *draft.status.attempts), restarts=(draft.status.restarts or 0) + 1)


def preempted(entry: Attempt) -> bool:
    """Whether the entry ended by a preemption."""
    return entry.end_time is not None and entry.reason == Reason.PREEMPTED


def earlier(entries: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Of entries, newest first, those of earlier admissions of an attempt."""
    return tuple(a for i, a in enumerate(entries) if any(later.number == a.number for later in entries[:i]))


def whose(of: Try) -> str:
    """Who holds the Job back."""
    queue = of.job.queue_name if of.job else None
    return f"queue {queue}" if queue else "whoever set spec.suspend on the Job"


def _begun(entry: Attempt) -> bool:
    """Whether its pods were seen at work."""
    return entry.from_step is not None or bool(entry.seconds)


def _close(draft: Draft, of: Try, entry: Attempt, at: str | None) -> None:
    """Write down why the entry ended, in the queue manager's words as soon as they are there."""
    assert of.job is not None
    told = [e for e in draft.observed.events.get(of.job.name, ()) if e.reason == STOPPED and e.time >= _start(entry)]
    if not told:
        draft.read_events.append(of.job.name)
        draft.wake_in(AGAIN_SECONDS)
    words = f": {max(told, key=lambda e: e.time).message}" if told else ""
    message = clip(f"{whose(of)} took the workers' place back{words}", 256)
    closed = entry.model_copy(update={"reason": Reason.PREEMPTED.value, "message": message, "end_time": at})
    draft.update(attempts=tuple(closed if a is entry else a for a in draft.status.attempts))


def _start(entry: Attempt) -> float:
    return seconds(entry.start_time) or 0.0
