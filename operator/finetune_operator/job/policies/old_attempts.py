"""The Jobs of the last attempts stay, so that `kubectl logs` works after a failure; older ones go, and so do those
that wait for a lost pod."""

from __future__ import annotations

from finetune_operator.job.attempt.attempt import KEEP
from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft


def enforce(draft: Draft) -> bool:
    step = draft.evidence.active
    for old in step.attempts:
        if old.job is not None and (old.number <= step.attempt.number - KEEP or old.stranded(draft.now)):
            draft.delete.extend(objects.removal(old.job.name, old.component, old.job.uid))
    return False
