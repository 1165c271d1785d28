"""An attempt ends for a cause that another attempt would meet again: the job fails at once."""

from __future__ import annotations

from finetune_api.exits import Retry
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    cause = draft.evidence.active.cause
    if cause is None or cause.retry is not Retry.NEVER:
        return False
    draft.fail_attempt(cause.failure(), cause.at)
    return True
