"""What a trainer says, merged into a status: one function for reports, one for the launcher's last word.

The command line uses the same ones for a run without a cluster, so that both show the same status. Equal input gives
equal output: no moment is put in that was not given.
"""

from __future__ import annotations

from typing import Any

from finetune_api.job import Spec
from finetune_api.report import Outcome, Report, Stage
from finetune_api.status import (
    CHECKPOINTS,
    Checkpoint,
    ConditionType,
    Failure,
    OutputStatus,
    Phase,
    Progress,
    Resolved,
    Status,
)
from finetune_api.times import rfc3339
from finetune_operator.job.status.display import display
from finetune_operator.plan import conditions


def with_report(status: Status, report: Report, received: float | None, *, ended: bool = False) -> Status:
    """The status with all that a report says; parts that it leaves out stay.

    `ended`: the process that sent it is gone, so what its last word added since (steps, a checkpoint) stays too.
    """
    progress, checkpoints = report.progress, report.checkpoints
    if ended and progress and status.progress and status.progress.step > progress.step:
        progress = status.progress
    if ended and checkpoints:
        added = tuple(c for c in status.checkpoints if c.step > checkpoints[0].step)
        checkpoints = (*added, *checkpoints)[:CHECKPOINTS]
    given: dict[str, Any] = {
        "progress": progress,
        "evaluation": report.evaluation,
        "test": report.test,
        "sets": report.sets,
        "verdicts": report.verdicts,
        "best": report.best,
        "folds": report.folds,
        "history": report.history or None,
        "checkpoints": checkpoints or None,
        "data": report.data,
        "output": report.output,
        "resolved": resolved(status.resolved, report.resolved),
        "last_report_time": rfc3339(received) if received is not None else None,
    }
    return status.model_copy(update={name: value for name, value in given.items() if value is not None})


def with_outcome(status: Status, said: Outcome) -> Status:
    """The status with the launcher's last word: it adds what no report told."""
    given: dict[str, Any] = {
        "progress": _advanced(status.progress, said),
        "test": said.test,
        "sets": said.sets,
        "verdicts": said.verdicts,
        "best": said.best,
        "folds": said.folds,
        "data": said.data if status.data is None else None,
        "output": said.output,
        "resolved": resolved(status.resolved, said.resolved),
        "checkpoints": _with_checkpoint(status.checkpoints, said.checkpoint),
    }
    return status.model_copy(update={name: value for name, value in given.items() if value is not None})


def resolved(known: Resolved | None, told: Resolved | None) -> Resolved | None:
    """The trainer's values over the prepare step's."""
    if known is None or told is None:
        return told or known
    return known.model_copy(update={k: v for k, v in told if v is not None})


def status_from_report(report: Report | None, previous: Status | None, spec: Spec, *, now: float) -> Status:
    """The status of a run without a cluster after a report, or before the first (None)."""
    status = previous or Status(phase=Phase.PENDING, start_time=rfc3339(now), attempt=1)
    if report is not None:
        status = with_report(status, report, now)
        preparing = report.stage is Stage.PREPARING
        final = report.stage in (Stage.TESTING, Stage.EXPORTING, Stage.FINISHED)
        loading = report.stage is Stage.LOADING
        phase = (
            Phase.VALIDATING
            if preparing
            else Phase.STARTING
            if loading
            else Phase.EVALUATING
            if final
            else Phase.RUNNING
        )
        status = status.model_copy(update={"phase": phase, "attempt": report.attempt})
        status = _state(status, ConditionType.VALIDATED, not preparing, "Passed" if not preparing else "Running", now)
        status = _state(status, ConditionType.RUNNING, phase in (Phase.RUNNING, Phase.EVALUATING), phase.value, now)
    return status.model_copy(update={"display": display(status, spec.model.uri)})


def status_at_end(status: Status, spec: Spec, *, failure: Failure | None, said: Outcome | None, now: float) -> Status:
    """The status of a run without a cluster that has ended: succeeded, or failed for the reason given."""
    if said is not None:
        status = with_outcome(status, said)
    status = _state(status, ConditionType.RUNNING, False, "Ended", now)
    status = _state(status, ConditionType.SUCCEEDED, failure is None, failure.reason if failure else "Completed", now)
    status = status.model_copy(
        update={"completion_time": rfc3339(now), "phase": Phase.FAILED if failure else Phase.SUCCEEDED}
    )
    if failure:
        status = _state(status, ConditionType.FAILED, True, failure.reason, now, failure.message)
        status = status.model_copy(update={"failure": failure, "reason": failure.reason, "message": failure.message})
    else:
        output = status.output or OutputStatus(uri=spec.output.uri)
        words = {"output": output, "reason": "Completed", "message": f"the result is at {output.uri}", "failure": None}
        status = status.model_copy(update=words)
    return status.model_copy(update={"display": display(status, spec.model.uri)})


def _state(status: Status, type_: ConditionType, holds: bool, reason: str, now: float, message: str = "") -> Status:
    found = conditions.put(status.conditions, type_, holds, reason, message, 1, now)
    return status.model_copy(update={"conditions": found})


def _advanced(progress: Progress | None, said: Outcome) -> Progress | None:
    if said.step is None:
        return None
    known = progress or Progress(total_steps=(said.resolved.total_steps if said.resolved else None) or 0)
    if said.step < known.step:
        return None
    percent = min(100.0, 100.0 * said.step / known.total_steps) if known.total_steps else known.percent
    return known.model_copy(update={"step": said.step, "percent": percent})


def _with_checkpoint(known: tuple[Checkpoint, ...], new: Checkpoint | None) -> tuple[Checkpoint, ...] | None:
    if new is None or any(c.uri == new.uri for c in known):
        return None
    return tuple(sorted((new, *known), key=lambda c: -c.step))[:CHECKPOINTS]
