"""Worker 0 is not heard of, though it runs: the condition ReportsDegraded says so, and it trains all the same."""

from __future__ import annotations

from finetune_api.status import ConditionType
from finetune_api.times import seconds
from finetune_operator.job.draft import Draft

QUIET_SECONDS = 60.0


def enforce(draft: Draft) -> bool:
    """The condition is set when the silence is longer than a minute and three reporting intervals."""
    if not draft.evidence.prepared:
        return False
    observed = draft.observed
    limit = max(QUIET_SECONDS, 3 * observed.settings.report_interval)
    first = next((p for p in draft.evidence.workers.attempt.pods if p.index == 0 and p.running), None)
    if first is None or first.container is None or first.container.started_at is None:
        draft.resolve(ConditionType.REPORTS_DEGRADED, "NoPods")
        return False
    last = max(
        first.container.started_at,
        observed.listening_since,
        observed.report_received or 0.0,
        seconds(draft.status.last_report_time) or 0.0,
    )
    quiet = observed.now - last
    if quiet < limit:
        draft.resolve(ConditionType.REPORTS_DEGRADED, "Reporting")
        draft.wake_in(limit - quiet)
        return False
    message = (
        f"no report from {first.name} for more than {limit:g} s; training goes on, and its checkpoints are kept. "
        "Check that pods may reach the operator's report Service (NetworkPolicy, DNS)."
    )
    if draft.condition(ConditionType.REPORTS_DEGRADED, True, "Silent", message):
        draft.note("Warning", "ReportsDegraded", message)
    return False
