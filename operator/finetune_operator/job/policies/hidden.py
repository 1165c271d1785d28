"""A job in a namespace that the operator may not read: nothing is decided of what cannot be seen, and that is said."""

from __future__ import annotations

from finetune_api.status import ConditionType
from finetune_operator.job.draft import Draft
from finetune_operator.job.observed import Observed
from finetune_operator.plan import conditions
from finetune_operator.plan.plan import Plan

REASON = "NamespaceHidden"


def plan(observed: Observed, why: str) -> Plan:
    """The status with the condition `Watched` false; one that is finished, or not readable, stays as it is."""
    job = observed.job
    if job.spec is None or job.deleting:
        return Plan(status=job.status)
    draft = Draft(observed, job.spec, job.status)
    if not draft.finished:
        words = f"the operator may not read all of namespace {job.namespace}, and waits until it may: {why}"
        draft.condition(ConditionType.WATCHED, False, REASON, words)
    return draft.seal()


def seen(draft: Draft) -> None:
    """The namespace is in sight: a condition that says otherwise is taken back."""
    if conditions.get(draft.status.conditions, ConditionType.WATCHED):
        draft.condition(ConditionType.WATCHED, True, "Watched")
