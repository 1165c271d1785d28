"""What the workers report, and how each of their attempts went, goes into status."""

from __future__ import annotations

from finetune_operator.job.draft import Draft
from finetune_operator.job.status.merge import with_outcome, with_report


def enforce(draft: Draft) -> bool:
    evidence = draft.evidence
    if not evidence.prepared:
        return False
    workers = evidence.workers
    draft.update(attempts=evidence.admissions.entries, restarts=evidence.restarts, attempt=workers.attempt.number)
    if workers.report is not None:
        ended = not any(p.running for p in workers.attempt.pods if p.index == 0)
        draft.status = with_report(draft.status, workers.report, draft.observed.report_received, ended=ended)
    if workers.outcome is not None:
        draft.status = with_outcome(draft.status, workers.outcome)
    if workers.attempt.number:
        draft.record(evidence.entries.values())
    return False
