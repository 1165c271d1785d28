"""The prepare step waits until the pod of its last attempt has left: two of them never overlap."""

from __future__ import annotations

from finetune_api.status import Phase
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    step = draft.evidence.prepare
    if draft.evidence.prepared or not any(a.alive(draft.now) for a in step.attempts if a is not step.attempt):
        return False
    draft.say(Phase.PENDING, "Preparing", "waiting for the pod of the last try to leave")
    return True
