"""The phase of a job whose workers' try is going on, derived from its pods and the last report."""

from __future__ import annotations

from finetune_api.report import Report, Stage
from finetune_api.status import Phase, Status
from finetune_operator.job.attempt.attempt import Attempt

_STAGES = {
    Stage.TRAINING: Phase.RUNNING,
    Stage.EVALUATING: Phase.RUNNING,
    Stage.SAVING: Phase.RUNNING,
    Stage.TESTING: Phase.EVALUATING,
    Stage.EXPORTING: Phase.EVALUATING,
    Stage.FINISHED: Phase.EVALUATING,
}


def of_workers(attempt: Attempt, report: Report | None, status: Status) -> Phase:
    """`report` is one of this attempt, or None; `status` is what was said last."""
    placed = [p for p in attempt.pods if p.scheduled is not None or p.node or p.terminal]
    begun = [p for p in attempt.pods if p.begun]
    wanted = attempt.job.parallelism if attempt.job else len(attempt.pods)
    if attempt.number > 1 and not attempt.pods and not attempt.held:
        return Phase.RESTARTING
    if attempt.held or len(placed) < wanted:
        return Phase.QUEUED
    if len(begun) < wanted:
        return Phase.STARTING
    if report is not None:
        return _STAGES.get(report.stage, Phase.STARTING)
    if status.attempt == attempt.number and status.phase in (Phase.RUNNING, Phase.EVALUATING):
        return status.phase  # the operator is new, and the next report on its way
    return Phase.STARTING
