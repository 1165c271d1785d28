"""The status of a local job, in the cluster's words: built from the reports by the operator's own pure functions.

What only a cluster knows (pods, generations, the scheduler's words) is absent; nothing else differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from finetune_api.job import Spec
from finetune_api.report import Outcome, Report
from finetune_api.status import AttemptStatus, ConditionType, Failure, Phase, Status
from finetune_api.text import clip
from finetune_api.times import rfc3339
from finetune_cli.local.state_dir import RunRecord
from finetune_operator.job.attempt.history import kept
from finetune_operator.job.status.display import display
from finetune_operator.job.status.goodput import goodput
from finetune_operator.job.status.merge import status_at_end, status_from_report, with_outcome
from finetune_operator.plan import conditions


@dataclass(frozen=True, slots=True)
class RunState:
    """What is known of a run so far: the status, and the current process's last report."""

    status: Status
    report: Report | None = None
    from_step: int | None = None
    """The step that the current process started from; None before it has told."""

    def after_report(self, report: Report, spec: Spec, now: float) -> RunState:
        """After a report."""
        status = status_from_report(report, self.status, spec, now=now)
        return RunState(status, report, self._start(report.resumed_from_step, told=report.progress is not None))

    def after_outcome(self, outcome: Outcome | None) -> RunState:
        """After a process has ended, by its termination message."""
        if outcome is None:
            return self
        start = self._start(outcome.resumed_from_step, told=outcome.step is not None)
        return RunState(with_outcome(self.status, outcome), self.report, start)

    def before_process(self) -> RunState:
        """Before the next process: its first report says where it starts."""
        return RunState(self.status)

    @property
    def step(self) -> int:
        """The last step done."""
        return self.status.progress.step if self.status.progress else 0

    @property
    def checkpoint_step(self) -> int | None:
        """The step of the newest checkpoint."""
        return max((c.step for c in self.status.checkpoints), default=None)

    @property
    def progressed(self) -> bool:
        """Whether the current process has left a newer checkpoint than it started from: one that never came to its
        steps has not, whatever those before it left.
        """
        newest = self.checkpoint_step
        return self.from_step is not None and newest is not None and newest > self.from_step

    def _start(self, resumed_from: int | None, *, told: bool) -> int | None:
        if self.from_step is not None:
            return self.from_step
        return (resumed_from or 0) if told or resumed_from is not None else None


def initial_state(record: RunRecord) -> RunState:
    """Before the first report."""
    return RunState(Status(phase=Phase.PENDING, start_time=record.start_time or None))


def attempt_entry(
    record: RunRecord, state: RunState, code: int, failure: Failure | None, started: float, now: float
) -> AttemptStatus:
    """The status entry of the attempt that just ended; what it lost is what its checkpoints do not hold, until the
    next attempt tells where it starts.
    """
    from_step = state.from_step
    last_step = state.step if from_step is not None else None
    lost = max(0, state.step - max(state.checkpoint_step or 0, from_step)) if from_step is not None else None
    return AttemptStatus(
        number=record.attempt,
        start_time=rfc3339(started),
        end_time=rfc3339(now),
        reason=failure.reason if failure else "Completed",
        message=clip(failure.message, 256) if failure else None,
        exit_code=code,
        from_step=from_step,
        last_step=last_step,
        lost_steps=lost if failure else 0,
        seconds=dict(state.report.seconds) if state.report else None,
    )


def final_status(
    spec: Spec, record: RunRecord, state: RunState, now: float, *, failure: Failure | None, stopped_by: str | None
) -> Status:
    """The status at the end: succeeded, failed, or stopped by a signal."""
    attempts = kept(AttemptStatus.model_validate_json(json.dumps(entry)) for entry in record.attempts)
    known = {
        "attempt": record.attempt or None,
        "restarts": record.restarts,
        "attempts": attempts,
        "goodput": goodput(attempts),
    }
    status = state.status.model_copy(update=known)
    if stopped_by is None:
        return status_at_end(status, spec, failure=failure, said=None, now=now)
    message = f"stopped by {stopped_by} at step {state.step}; the same command goes on"
    said = conditions.put(status.conditions, ConditionType.RUNNING, False, "Interrupted", "", 1, now)
    said = conditions.put(said, ConditionType.SUSPENDED, True, "Interrupted", message, 1, now)
    words = {"conditions": said, "phase": Phase.SUSPENDED, "reason": "Interrupted", "message": message}
    status = status.model_copy(update=words)
    return status.model_copy(update={"display": display(status, spec.model.uri)})
