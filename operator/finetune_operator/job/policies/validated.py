"""What the prepare step finds out goes into status; once it has passed, the condition Validated says so, and the
step is never made again."""

from __future__ import annotations

from finetune_api.status import ConditionType, Status
from finetune_operator.job.children import image
from finetune_operator.job.draft import Draft
from finetune_operator.job.status.merge import with_outcome, with_report


def enforce(draft: Draft) -> bool:
    if draft.holds(ConditionType.VALIDATED):
        return False
    step, observed = draft.evidence.prepare, draft.observed
    if step.report is not None:
        draft.status = with_report(draft.status, step.report, observed.report_received)
    elif step.outcome is not None and step.outcome.data is not None:
        draft.update(data=None)
    if step.outcome is not None:
        draft.status = with_outcome(draft.status, step.outcome)
    if draft.evidence.prepared:
        message = _summary(draft.status)
        if step.attempt.job is not None:
            draft.update(image=image.ran(step.attempt, draft.spec, observed.settings))
        draft.condition(ConditionType.VALIDATED, True, "Passed", message)
        draft.note("Normal", "Validated", message)
    return False


def _summary(status: Status) -> str:
    data, resolved = status.data, status.resolved
    found = []
    if data is not None:
        found.append(f"{data.train_rows} rows to learn from in {data.objects} objects")
        if data.bad_rows:
            found.append(f"{data.bad_rows} bad rows left out")
    if resolved is not None and resolved.total_steps is not None:
        found.append(f"{resolved.total_steps} steps")
    return ", ".join(found) or "storage, model and data are in order"
