"""spec.ttlSecondsAfterFinished: a finished job is deleted so long after its end, with its pods; what it stored
stays."""

from __future__ import annotations

from finetune_api.times import seconds
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    """Ask for the job's deletion when its time is over, else for a wake-up then."""
    ttl, end = draft.spec.ttl_seconds_after_finished, seconds(draft.status.completion_time)
    if ttl is None or end is None:
        return False
    left = end + ttl - draft.now
    if not draft.observed.job.ended:
        draft.wake_in(0.0)  # only once it is written how the job ended, and its owner could see it
    elif left > 0:
        draft.wake_in(left)
    else:
        draft.delete_self = True
    return False
