"""A queue manager has taken the workers' place back: that is said, and its Event that says why is read."""

from __future__ import annotations

from finetune_operator.job.attempt import queue_manager
from finetune_operator.job.draft import Draft

AGAIN_SECONDS = 11.0


def enforce(draft: Draft) -> bool:
    admissions, attempts = draft.evidence.admissions, draft.evidence.workers.attempts
    if admissions.preempted:
        words = (
            f"{queue_manager.whose(attempts[-1])} took the workers' place back; the job goes on from its last"
            " checkpoint when it is admitted again"
        )
        draft.note("Warning", "Preempted", words)
    if admissions.unexplained:
        attempt = attempts[-1]
        draft.read_events.append(draft.observed.child(attempt.component, attempt.number))
        draft.wake_in(AGAIN_SECONDS)
    return False
