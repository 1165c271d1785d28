"""A job in a namespace that the operator may not read: nothing is decided of what cannot be seen, and that is said."""

from __future__ import annotations

from finetune_api.status import ConditionType
from finetune_api.status_budget import within_budget
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Observed
from finetune_operator.plan import conditions
from finetune_operator.plan.plan import Plan

REASON = "NamespaceHidden"


def plan(observed: Observed, why: str) -> Plan:
    """The whole plan as long as the namespace is hidden; a job that is over, or not readable, stays as it is."""
    job, status = observed.job, observed.job.status
    if job.spec is None or job.deleting:
        return Plan(status=status)
    if not conditions.finished(status.conditions):
        words = f"the operator may not read all of namespace {job.namespace}, and waits until it may: {why}"
        found = conditions.put(
            status.conditions, ConditionType.WATCHED, False, REASON, words, job.generation, observed.now
        )
        status = status.model_copy(update={"conditions": found})
    return Plan(status=within_budget(status))


def enforce(draft: Draft) -> bool:
    """The namespace is in sight: a condition that says otherwise is taken back."""
    if conditions.get(draft.status.conditions, ConditionType.WATCHED):
        draft.condition(ConditionType.WATCHED, True, "Watched")
    return False
