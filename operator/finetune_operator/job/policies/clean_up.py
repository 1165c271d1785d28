"""A finished job: what is still at work is stopped, and the last pods stay for their logs."""

from __future__ import annotations

from finetune_operator.job.attempt.attempt import KEEP, attempts
from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names


def enforce(draft: Draft) -> bool:
    for component in (names.PREPARE, names.WORKER):
        made = attempts(draft.observed, component)
        newest = max((a.number for a in made), default=0)
        for attempt in made:
            job = attempt.job
            if job is None or job.deleting:
                continue
            if not attempt.done or attempt.number <= newest - KEEP:
                draft.delete.extend(objects.removal(job.name, component, job.uid))
    return False
