"""The names of an attempt that has ended are of no use to anybody: its Service goes, the pods stay for their logs."""

from __future__ import annotations

from finetune_operator.job.children.objects import idle_services
from finetune_operator.job.draft import Draft
from finetune_operator.plan.plan import Delete


def enforce(draft: Draft) -> bool:
    gone = {(d.kind, d.name) for d in draft.delete}
    for service in idle_services(draft.observed.services, draft.observed.jobs):
        if ("Service", service.name) not in gone:
            draft.delete.append(Delete("Service", service.name, service.uid))
    return False
