"""spec.activeDeadlineSeconds: the job fails when it has not finished so long after its start, rest not counted."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_api.status import ConditionType, Failure
from finetune_api.times import seconds
from finetune_operator.job.draft import Draft
from finetune_operator.job.policies.suspend import suspended_for


def passed(draft: Draft) -> bool:
    """Whether the deadline has passed (the job is then failed); otherwise a wake-up is set for it."""
    limit = draft.spec.active_deadline_seconds
    start = seconds(draft.status.start_time)
    if limit is None or start is None or draft.holds(ConditionType.SUSPENDED):
        return False
    left = start + limit + suspended_for(draft) - draft.now
    if left > 0:
        draft.wake_in(left)
        return False
    hint = EXITS[Reason.DEADLINE_EXCEEDED].hint
    newest = max(draft.status.checkpoints, key=lambda c: c.step, default=None)
    if newest:
        hint = f"{hint} The last checkpoint is {newest.uri}"
    message = f"the job has not finished {limit} s after its start (spec.activeDeadlineSeconds)"
    failure = Failure(
        reason=Reason.DEADLINE_EXCEEDED, message=message, hint=hint[:512], field="spec.activeDeadlineSeconds"
    )
    draft.fail(failure)
    return True
