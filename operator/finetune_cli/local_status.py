"""The status of a local job, in the cluster's words: the same model, filled from the same reports.

What only a cluster knows (pods, generations, the scheduler's words) is absent; nothing else differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from finetune_api.job import Spec
from finetune_api.report import Report
from finetune_api.status import (
    ATTEMPTS,
    Attempt,
    Condition,
    ConditionType,
    Display,
    Failure,
    OutputStatus,
    Phase,
    Progress,
    Status,
)  # fmt: skip
from finetune_cli.folder import Record
from finetune_cli.outcome import End
from finetune_cli.terminal import duration


def timestamp() -> str:
    """Now, as the status writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a run: the prepare step's last report, the workers', and how the last step ended."""

    prepared: Report | None = None
    report: Report | None = None
    end: End | None = None

    def but(self, **changes: object) -> Known:
        """The same with some parts newer."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def step(self) -> int:
        """The last step done."""
        progress = self.report.progress if self.report else None
        outcome = self.end.outcome if self.end else None
        return max(progress.step if progress else 0, (outcome.step if outcome else None) or 0)

    def checkpoint_step(self) -> int | None:
        """The step of the newest checkpoint."""
        steps = [c.step for c in self.report.checkpoints] if self.report else []
        if self.end and self.end.outcome and self.end.outcome.checkpoint:
            steps.append(self.end.outcome.checkpoint.step)
        return max(steps, default=None)


def attempt_of(record: Record, known: Known, started: str) -> Attempt:
    """The status entry of the attempt that just ended."""
    assert known.end is not None
    failure, report = known.end.failure, known.report
    return Attempt(
        number=record.attempt, start_time=started, end_time=timestamp(), reason=failure.reason if failure else "Completed",
        message=failure.message[:256] if failure else None, exit_code=known.end.code,
        from_step=report.resumed_from_step if report else None, last_step=known.step(),
        lost_steps=max(0, known.step() - (known.checkpoint_step() or 0)) if failure else 0,
        seconds=dict(report.seconds) if report else None,
    )  # fmt: skip


def local_status(
    spec: Spec, record: Record, known: Known, phase: Phase, failure: Failure | None, message: str | None
) -> Status:
    """The status at the end of a run."""
    report, prepared = known.report, known.prepared
    outcome = known.end.outcome if known.end else None
    last = report or prepared
    progress = report.progress if report else None
    best = (report.best if report else None) or (outcome.best if outcome else None)
    output = (report.output if report else None) or (outcome.output if outcome else None)
    listed = report.checkpoints if report else ()
    if not listed and outcome and outcome.checkpoint:
        listed = (outcome.checkpoint,)
    now = timestamp()
    done = phase in (Phase.SUCCEEDED, Phase.FAILED)
    reason = failure.reason if failure else {Phase.SUCCEEDED: "Completed", Phase.SUSPENDED: "Interrupted"}.get(phase)
    return Status(
        phase=phase, reason=reason, message=failure.message if failure else message,
        conditions=_conditions(phase, reason or phase.value, message or (failure.message if failure else ""), prepared, now),
        failure=failure, start_time=record.start_time or None, completion_time=now if done else None,
        resolved=(report.resolved if report else None) or (prepared.resolved if prepared else None) or (outcome.resolved if outcome else None),
        data=(report.data if report else None) or (prepared.data if prepared else None) or (outcome.data if outcome else None),
        progress=progress, evaluation=report.evaluation if report else None,
        test=(report.test if report else None) or (outcome.test if outcome else None), best=best,
        history=report.history if report else (), checkpoints=listed, attempt=record.attempt or None, restarts=record.restarts,
        attempts=tuple(Attempt.model_validate_json(json.dumps(a)) for a in record.attempts[:ATTEMPTS]), output=_output(output, phase),
        last_report_time=_time(last.time) if last else None, display=_display(spec, progress, best, phase),
    )  # fmt: skip


def _conditions(phase: Phase, reason: str, message: str, prepared: Report | None, now: str) -> tuple[Condition, ...]:
    ends = {
        Phase.SUCCEEDED: ConditionType.SUCCEEDED,
        Phase.FAILED: ConditionType.FAILED,
        Phase.SUSPENDED: ConditionType.SUSPENDED,
    }
    said = []
    if prepared is not None and prepared.problem is None and prepared.data is not None:
        said.append(
            Condition(
                type=ConditionType.VALIDATED,
                status="True",
                reason="Checked",
                message="The prepare step passed.",
                last_transition_time=now,
            )
        )
    if phase in ends:
        said.append(
            Condition(type=ends[phase], status="True", reason=reason, message=message[:1024], last_transition_time=now)
        )
    return tuple(said)


def _output(output: OutputStatus | None, phase: Phase) -> OutputStatus | None:
    return output if phase is Phase.SUCCEEDED else None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _display(spec: Spec, progress: Progress | None, best: object, phase: Phase) -> Display:
    metric, value = getattr(best, "metric", None), getattr(best, "value", None)
    return Display(
        model=spec.model.uri.rstrip("/").rpartition("/")[2][:128],
        progress=f"{progress.percent:.0f}%" if progress else None,
        loss=f"{progress.loss:.4g}" if progress and progress.loss is not None else None,
        best=f"{metric}={value:.4g}" if metric else None,
        eta=duration(progress.eta_seconds)
        if progress and progress.eta_seconds is not None and phase is not Phase.SUCCEEDED
        else None,
    )
