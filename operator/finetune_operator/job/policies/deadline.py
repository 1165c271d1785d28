"""spec.activeDeadlineSeconds: the job fails when it has not finished so long after its start, rest not counted."""

from __future__ import annotations

from finetune_api.exits import EXITS, Reason
from finetune_api.status import Checkpoint, ConditionType, Failure
from finetune_api.times import seconds
from finetune_operator.job.draft import Draft
from finetune_operator.job.status.rest import rested


def enforce(draft: Draft) -> bool:
    limit = draft.spec.active_deadline_seconds
    start = seconds(draft.status.start_time)
    if limit is None or start is None or draft.holds(ConditionType.SUSPENDED):
        return False
    left = start + limit + rested(draft.status, draft.now) - draft.now
    if left > 0:
        draft.wake_in(left)
        return False
    draft.fail(_failure(limit, draft.status.checkpoints))
    return True


def _failure(limit: int, checkpoints: tuple[Checkpoint, ...]) -> Failure:
    hint = EXITS[Reason.DEADLINE_EXCEEDED].hint
    newest = max(checkpoints, key=lambda c: c.step, default=None)
    if newest:
        hint = f"{hint} The last checkpoint is {newest.uri}"
    message = f"the job has not finished {limit} s after its start (spec.activeDeadlineSeconds)"
    return Failure(
        reason=Reason.DEADLINE_EXCEEDED, message=message, hint=hint[:512], field="spec.activeDeadlineSeconds"
    )
