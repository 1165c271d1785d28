"""A queue manager takes the workers' place back, and gives it again later: it suspends their Job and resumes it.

The Job stays, and with it the attempt's number; but each admission has its own entry in status.attempts, so that what was
done, and lost, before the preemption is told.
"""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import Attempt
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.text import clip
from finetune_operator.plan.times import rfc3339
from finetune_operator.plan.tries import Try

STOPPED = ("Stopped", "Suspended")
"""Events on a Job that tell why it was suspended: Kueue's, the Job controller's."""


def note(draft: Draft, of: Try) -> None:
    """Close the attempt's entry when its Job is suspended in mid-run, and open another when it is admitted again."""
    entry = next((a for a in draft.status.attempts if a.number == of.number), None)
    if entry is None or of.job is None:
        return
    if of.held and _begun(entry) and entry.end_time is None:
        _close(draft, of, entry)
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


def _close(draft: Draft, of: Try, entry: Attempt) -> None:
    assert of.job is not None
    draft.read_events.append(of.job.name)
    told = [e for e in draft.observed.events.get(of.job.name, ()) if e.reason in STOPPED]
    words = max(told, key=lambda e: (STOPPED.index(e.reason) == 0, e.time)).message if told else ""
    message = f"{whose(of)} took the workers' place back{f': {words}' if words else ''}"
    closed = entry.model_copy(
        update={"reason": Reason.PREEMPTED.value, "message": clip(message, 256), "end_time": rfc3339(draft.now)}
    )
    draft.update(attempts=tuple(closed if a is entry else a for a in draft.status.attempts))
    draft.note("Warning", "Preempted", f"{message}; the job goes on from its last checkpoint when it is admitted again")
