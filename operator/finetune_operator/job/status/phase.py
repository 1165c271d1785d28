"""The phase of a job whose workers' try is going on, derived from its pods and the last report."""

from __future__ import annotations

from finetune_api.report import Report, Stage
from finetune_api.status import Phase, Status
from finetune_operator.job.attempt.attempt import Try

_STAGES = {
    Stage.TRAINING: Phase.RUNNING,
    Stage.EVALUATING: Phase.RUNNING,
    Stage.SAVING: Phase.RUNNING,
    Stage.TESTING: Phase.EVALUATING,
    Stage.EXPORTING: Phase.EVALUATING,
    Stage.FINISHED: Phase.EVALUATING,
}


def of_workers(of: Try, report: Report | None, status: Status) -> Phase:
    """`report` is one of this attempt, or None; `status` is what was said last."""
    placed = [p for p in of.pods if p.scheduled is not None or p.node or p.terminal]
    begun = [p for p in of.pods if p.begun]
    wanted = of.job.parallelism if of.job else len(of.pods)
    if of.number > 1 and not of.pods and not of.held:
        return Phase.RESTARTING
    if of.held or len(placed) < wanted:
        return Phase.QUEUED
    if len(begun) < wanted:
        return Phase.STARTING
    if report is not None:
        return _STAGES.get(report.stage, Phase.STARTING)
    if status.attempt == of.number and status.phase in (Phase.RUNNING, Phase.EVALUATING):
        return status.phase  # the operator is new, and the next report on its way
    return Phase.STARTING
