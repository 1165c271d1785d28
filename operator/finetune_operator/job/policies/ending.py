"""The workers' attempt is about to end: why is known, and some of its pods are still leaving."""

from __future__ import annotations

from finetune_api.status import ConditionType, Phase
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    workers = draft.evidence.workers
    cause = workers.cause
    if not draft.evidence.prepared or cause is None or not workers.certain:
        return False
    draft.condition(ConditionType.RUNNING, False, cause.reason, cause.message)
    words = f"{cause.message}; the next attempt starts when all pods of this one have ended"
    draft.say(Phase.RESTARTING, cause.reason, words)
    draft.wake_in(workers.attempt.until_lost(draft.now))
    return True
