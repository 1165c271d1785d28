"""Report: a full snapshot of what a trainer knows; Outcome: its launcher's last word (the termination message).

A report carries everything, so that any later one replaces any earlier one: late, repeated and lost reports do no harm.
The operator takes a report only if (attempt, sequence) is higher than what it has.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import Model
from finetune_api.exits import Reason
from finetune_api.status import (
    CHECKPOINTS,
    HISTORY_POINTS,
    SETS,
    VERDICTS,
    Best,
    Checkpoint,
    DataProfile,
    FoldScores,
    MetricName,
    Metrics,
    OutputStatus,
    Point,
    Progress,
    Resolved,
    SetScore,
    Verdict,
)

TERMINATION_BYTES = 4096
"""The kubelet keeps so many bytes of /dev/termination-log."""


class Stage(StrEnum):
    """What the trainer is doing; hang rules and the job's phase depend on it."""

    PREPARING = "preparing"
    LOADING = "loading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"
    TESTING = "testing"  # the final evaluation
    EXPORTING = "exporting"
    FINISHED = "finished"


class Problem(Model):
    """A failure as the process that failed tells it."""

    reason: Reason = Field(description="One of the closed list.", strict=False)
    message: Annotated[str, StringConstraints(max_length=1024)] = Field(description="What happened; never a secret's value.")
    hint: Annotated[str, StringConstraints(max_length=512)] = Field("", description="What to do.")
    field: Annotated[str, StringConstraints(max_length=128)] | None = Field(None, description="Field of the manifest to blame.")
    rank: int | None = Field(None, ge=0, description="The global rank that failed.")
    place: Annotated[str, StringConstraints(max_length=64)] | None = Field(None, description="Where an unexpected error was raised: the same text for the same error at the same place.")


class Report(Model):
    """A full snapshot, from rank 0 or the prepare step."""

    version: Literal[1] = 1
    job_id: str = Field(max_length=64, description="RunConfig.job.id.")
    attempt: int = Field(ge=1, description="RunConfig.attempt.")
    sequence: int = Field(ge=0, description="Rises with each report of this attempt.")
    time: float = Field(ge=0, description="Seconds since the epoch, by the trainer's clock; for people only.")
    stage: Stage = Field(description="What the trainer is doing.", strict=False)
    progress: Progress | None = None
    evaluation: Metrics | None = Field(None, description="The last evaluation on the validation rows.")
    test: Metrics | None = Field(None, description="The final evaluation on the test rows.")
    sets: tuple[SetScore, ...] | None = Field(None, max_length=SETS, description="The final evaluations on the rows of evaluation.sets.")
    verdicts: tuple[Verdict, ...] | None = Field(None, max_length=VERDICTS, description="What the final evaluations show.")
    best: Best | None = None
    folds: FoldScores | None = None
    history: tuple[Point, ...] = Field((), max_length=HISTORY_POINTS, description="Thinned out by the trainer, over all attempts.")
    checkpoints: tuple[Checkpoint, ...] = Field((), max_length=CHECKPOINTS, description="Those that exist now, newest first.")
    resumed_from_step: int | None = Field(None, ge=0, description="The step this attempt started from.")
    seconds: Annotated[dict[MetricName, float], Field(max_length=12)] = Field(default_factory=dict, description="Seconds of this attempt by what they went into: import, load, data, train, evaluate, checkpoint, export.")
    resolved: Resolved | None = None
    data: DataProfile | None = None
    output: OutputStatus | None = Field(None, description="Set once the artefacts are committed.")
    problem: Problem | None = Field(None, description="Set when the process is about to fail.")


class Outcome(Model):
    """The launcher's last word, at most TERMINATION_BYTES as JSON; has the end result if no report got through."""

    version: Literal[1] = 1
    job_id: str = Field(max_length=64)
    attempt: int = Field(ge=1)
    exit_code: int = Field(description="What the container exits with.")
    problem: Problem | None = None
    step: int | None = Field(None, ge=0, description="Last step done.")
    resumed_from_step: int | None = Field(None, ge=0)
    best: Best | None = None
    folds: FoldScores | None = None
    test: Metrics | None = None
    sets: tuple[SetScore, ...] | None = Field(None, max_length=SETS)
    verdicts: tuple[Verdict, ...] | None = Field(None, max_length=VERDICTS)
    output: OutputStatus | None = None
    resolved: Resolved | None = Field(None, description="The prepare step's, and the trainer's.")
    data: DataProfile | None = Field(None, description="The prepare step's; findings dropped first when space is short.")
    checkpoint: Checkpoint | None = Field(None, description="The newest checkpoint.")
    seconds: Annotated[dict[MetricName, float], Field(max_length=12)] = Field(default_factory=dict)

    def to_message(self) -> str:
        """JSON of at most TERMINATION_BYTES; the least important parts are dropped until it fits."""
        value = self
        for drop in (
            None, "seconds", "data.findings", "data", "sets", "verdicts", "checkpoint", "folds", "test", "resolved"
        ):
            if drop == "data.findings":
                value = value.model_copy(update={"data": value.data and value.data.model_copy(update={"findings": ()})})
            elif drop:
                value = value.model_copy(update={drop: {} if drop == "seconds" else None})
            text = value.model_dump_json(by_alias=True, exclude_none=True)
            if len(text.encode()) <= TERMINATION_BYTES:
                return text
        problem = value.problem and value.problem.model_copy(
            update={"message": value.problem.message[:256], "hint": value.problem.hint[:128]}
        )
        return Outcome(
            job_id=value.job_id, attempt=value.attempt, exit_code=value.exit_code, problem=problem, step=value.step
        ).model_dump_json(by_alias=True, exclude_none=True)
