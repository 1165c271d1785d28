"""What is not heard of: a node, so that its pods may be lost; or worker 0 alone (ReportsDegraded), which trains all
the same."""

from __future__ import annotations

from finetune_api.exits import Reason
from finetune_api.status import ConditionType, Phase
from finetune_api.times import seconds
from finetune_operator.job.attempt.attempt import Attempt
from finetune_operator.job.draft import Draft
from finetune_operator.plan import conditions, names

QUIET_SECONDS = 60.0
_ELSEWHERE = {
    names.PREPARE: "the prepare step is tried again elsewhere",
    names.WORKER: "the job goes on elsewhere, from its last checkpoint,",
}


def of_node(draft: Draft, attempt: Attempt) -> bool:
    """Say that a pod's node is not heard of, if one is: no step can be made.

    Kubernetes deletes the pod if it stays so.
    """
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
    _heard(draft, "NodeSilent")
    return True


def judge(draft: Draft, attempt: Attempt) -> None:
    """Set the condition when the silence is longer than a minute and three reporting intervals."""
    observed = draft.observed
    limit = max(QUIET_SECONDS, 3 * observed.settings.report_interval)
    first = next((p for p in attempt.pods if p.index == 0 and p.running), None)
    if first is None or first.container is None or first.container.started_at is None:
        _heard(draft, "NoPods")
        return
    last = max(
        first.container.started_at,
        observed.listening_since,
        observed.report_received or 0.0,
        seconds(draft.status.last_report_time) or 0.0,
    )
    quiet = observed.now - last
    if quiet < limit:
        _heard(draft, "Reporting")
        draft.wake_in(limit - quiet)
        return
    message = (
        f"no report from {first.name} for more than {limit:g} s; training goes on, and its checkpoints are kept. "
        "Check that pods may reach the operator's report Service (NetworkPolicy, DNS)."
    )
    if draft.condition(ConditionType.REPORTS_DEGRADED, True, "Silent", message):
        draft.note("Warning", "ReportsDegraded", message)


def _heard(draft: Draft, reason: str) -> None:
    if conditions.get(draft.status.conditions, ConditionType.REPORTS_DEGRADED):
        draft.condition(ConditionType.REPORTS_DEGRADED, False, reason)
