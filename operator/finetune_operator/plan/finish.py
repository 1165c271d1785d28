"""A finished job: what is still at work is stopped, the last pods stay for their logs, and the time to live runs."""

from __future__ import annotations

from finetune_operator.plan import names, objects, ttl
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.tries import tries

KEEP = 2


def keep(draft: Draft) -> None:
    """Keep a finished job as it is; its status is the last word."""
    for component in (names.PREPARE, names.WORKER):
        made = tries(draft.observed, component)
        newest = max((t.number for t in made), default=0)
        for of in made:
            job = of.job
            if job is None or job.deleting:
                continue
            if not of.done or of.number <= newest - KEEP:
                draft.delete.extend(objects.removal(job.name, component, job.uid))
    ttl.apply(draft)
