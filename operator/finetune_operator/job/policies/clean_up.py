"""A finished job: what is still at work is stopped, the last pods stay for their logs, and the time to live runs."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_operator.job.attempt.attempt import attempts
from finetune_operator.job.children import objects
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import JobView, ServiceView
from finetune_operator.job.policies import ttl
from finetune_operator.plan import names
from finetune_operator.plan.plan import Delete

KEEP = 2


def keep(draft: Draft) -> None:
    """Keep a finished job as it is; its status is the last word."""
    for component in (names.PREPARE, names.WORKER):
        made = attempts(draft.observed, component)
        newest = max((t.number for t in made), default=0)
        for attempt in made:
            job = attempt.job
            if job is None or job.deleting:
                continue
            if not attempt.done or attempt.number <= newest - KEEP:
                draft.delete.extend(objects.removal(job.name, component, job.uid))
    ttl.apply(draft)


def tidy(draft: Draft) -> None:
    """The names of an attempt that has ended are of no use to anybody: its Service goes, the pods stay for their
    logs."""
    gone = {(d.kind, d.name) for d in draft.delete}
    for service in idle(draft.observed.services, draft.observed.jobs):
        if ("Service", service.name) not in gone:
            draft.delete.append(Delete("Service", service.name, service.uid))


def idle(services: Iterable[ServiceView], jobs: Iterable[JobView]) -> list[ServiceView]:
    """The Services of attempts that have ended."""
    ended = {job.name for job in jobs if job.terminal}
    return [service for service in services if service.name in ended]
