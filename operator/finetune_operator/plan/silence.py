"""ReportsDegraded: worker 0 runs, but nothing is heard of it. Training goes on all the same; only the status is old."""

from __future__ import annotations

from finetune_api.status import ConditionType
from finetune_operator.plan import conditions
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.times import seconds
from finetune_operator.plan.tries import Try

QUIET_SECONDS = 60.0


def judge(draft: Draft, of: Try) -> None:
    """Set the condition when the silence is longer than a minute and three reporting intervals."""
    observed = draft.observed
    limit = max(QUIET_SECONDS, 3 * observed.settings.report_interval)
    first = next((p for p in of.pods if p.index == 0 and p.running), None)
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
