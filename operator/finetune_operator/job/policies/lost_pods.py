"""A pod that is leaving may never go: it is looked at again when it counts as lost."""

from __future__ import annotations

from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    draft.wake_in(draft.evidence.active.attempt.until_lost(draft.now))
    return False
