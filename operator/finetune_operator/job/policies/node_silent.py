"""A pod's node is not heard of: no step can be made, and Kubernetes deletes the pod if it stays so."""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import ConditionType, Phase
from finetune_operator.job.draft import Draft
from finetune_operator.plan import names

_ELSEWHERE = {
    names.PREPARE: "the prepare step is tried again elsewhere",
    names.WORKER: "the job goes on elsewhere, from its last checkpoint,",
}


def enforce(draft: Draft) -> bool:
    attempt = draft.evidence.active.attempt
    silent = next((p for p in attempt.pods if p.silent is not None and not p.terminal), None)
    if silent is None:
        return False
    message = (
        f"node {silent.node} of pod {silent.name} is not heard of; {_ELSEWHERE[attempt.component]} "
        "when Kubernetes gives the pod up (spec.workers.nodeLossSeconds)"
    )
    if draft.condition(ConditionType.RUNNING, False, Reason.NODE_LOST, message):
        draft.note("Warning", "NodeSilent", message)
    draft.say(Phase.RESTARTING, Reason.NODE_LOST, message)
    draft.resolve(ConditionType.REPORTS_DEGRADED, "NodeSilent")
    return True
