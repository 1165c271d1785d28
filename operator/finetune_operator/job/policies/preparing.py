"""Where the prepare step is, and why its pod waits if it does."""

from __future__ import annotations

from finetune_api.status import ConditionType, Phase
from finetune_operator.job.attempt import queue_manager, waiting
from finetune_operator.job.draft import Draft
from finetune_operator.job.status.rest import QUEUED


def enforce(draft: Draft) -> bool:
    if draft.evidence.prepared:
        return False
    attempt = draft.evidence.prepare.attempt
    if attempt.held:
        draft.say(Phase.QUEUED, QUEUED, f"{queue_manager.whose(attempt)} has not admitted the prepare step")
        return True
    why = waiting.why(draft.observed, attempt)
    if any(p.begun for p in attempt.pods):
        draft.say(Phase.VALIDATING, "Preparing", "storage, credentials, model and data are being checked")
    elif why:
        draft.say(Phase.PENDING, why.reason, why.message)
    else:
        draft.say(Phase.PENDING, "Preparing", "the prepare pod is starting")
    draft.condition(ConditionType.VALIDATED, False, "Preparing", "the prepare step has not passed yet")
    return False
