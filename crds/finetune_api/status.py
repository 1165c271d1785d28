"""FineTuneJob's status: what the operator says, and what no other system keeps on the resource.

Every list, map and string is bounded, and `finetune_api.status_budget` keeps the whole below 32 KiB in the worst case
(a test fills every bound). The conditions carry the truth, after the Kubernetes API conventions; the phase is derived
from them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from finetune_api.base import Keyed, Model

Text = Annotated[str, StringConstraints(max_length=1024)]
Short = Annotated[str, StringConstraints(max_length=128)]
MetricName = Annotated[str, StringConstraints(max_length=64)]
Metrics = Annotated[dict[MetricName, float], Field(max_length=12)]
ImageName = Annotated[str, StringConstraints(max_length=512)]


def _moment(text: str) -> str:
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        aware = False
    if not aware:
        raise PydanticCustomError("time", "must be a moment as RFC 3339 has it: 2026-01-31T12:00:00Z")
    return text


Time = Annotated[
    str,
    StringConstraints(max_length=32),
    AfterValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 32}),
]
"""RFC 3339 in UTC, to the second: 2026-01-31T12:00:00Z."""

HISTORY_POINTS = 128
CHECKPOINTS = 12
ATTEMPTS = 12
FINDINGS = 5
SETS = 8
VERDICTS = 6


class Phase(StrEnum):
    """Where the job is; derived from the conditions."""

    PENDING = "Pending"  # seen; nothing made yet, or waiting for its prepare pod
    VALIDATING = "Validating"  # the prepare step runs
    QUEUED = "Queued"  # checked; workers wait for a queue manager or for room
    STARTING = "Starting"  # workers are scheduled; no step reported yet
    RUNNING = "Running"  # steps are reported
    EVALUATING = "Evaluating"  # the final evaluation and export
    RESTARTING = "Restarting"  # an attempt ended; the next is being made
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Condition types; positive where the name says so."""

    VALIDATED = "Validated"  # the prepare step passed
    SUSPENDED = "Suspended"
    RUNNING = "Running"  # workers report steps
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REPORTS_DEGRADED = "ReportsDegraded"  # pods run, but are silent
    NAME_CONFLICT = "NameConflict"
    WATCHED = "Watched"  # false while the operator may not read the job's namespace
    FIELDS_IGNORED = "FieldsIgnored"  # a newer API wrote fields that this operator does not know


class Condition(Model):
    """meta/v1 Condition."""

    type: Annotated[str, StringConstraints(max_length=64)] = Field(description="What is said.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(description="Why, in one CamelCase word.")
    message: Text = Field("", description="Why, for people.")
    observed_generation: int | None = Field(None, ge=0, description="The spec's generation that this was said of.")
    last_transition_time: Time = Field(description="When status last changed.")


class Failure(Model):
    """Why the job failed, and what to do."""

    reason: Short = Field(description="One of the closed list of reasons.")
    message: Text = Field(description="What happened, naming the field, or the file and line.")
    hint: Annotated[str, StringConstraints(max_length=512)] = Field("", description="What to do.")
    field: Short | None = Field(None, description="The field of the manifest to blame, if one is.")
    rank: int | None = Field(None, ge=0, description="The rank that failed first.")
    exit_code: int | None = Field(None, description="Its container's exit code.")


class Image(Model):
    """The trainer image that all workers of the job run, fixed when the prepare step has passed."""

    name: ImageName = Field(description="As the spec, or else the operator, named it for the prepare step.")
    reference: ImageName = Field(description="What the workers ask for: the name with the digest, where a registry gave one.")
    digest: Short | None = Field(None, description="What the prepare step's node ran by that name.")


class Resolved(Model):
    """The values in force where the spec left the choice to us."""

    epochs: float | None = Field(None, description="Passes over the training rows.")
    total_steps: int | None = Field(None, ge=0, description="Optimizer steps of the whole job.")
    global_batch_size: int | None = Field(None, ge=1, description="Rows in one optimizer step.")
    micro_batch_size: int | None = Field(None, ge=1, description="Most rows that one process takes at once.")
    learning_rate: float | None = Field(None, description="Peak learning rate.")
    learning_rate_rule: Short | None = Field(None, description="How the peak learning rate was chosen; absent where it was given.")
    warmup_steps: int | None = Field(None, ge=0, description="Steps of the warm-up.")
    max_length: int | None = Field(None, ge=1, description="Most tokens of a row.")
    columns: Annotated[dict[MetricName, Short], Field(max_length=4)] | None = Field(None, description="Which column plays which role.")
    metric: Short | None = Field(None, description="Which metric chooses the best checkpoint.")
    evaluate_every_steps: int | None = Field(None, ge=1, description="Steps between evaluations.")
    model_revision: Short | None = Field(None, description="Commit of an hf:// model.")
    data_revision: Short | None = Field(None, description="Commit of an hf:// data set.")
    architecture: Short | None = Field(None, description="Class of the model.")
    model_bytes: int | None = Field(None, ge=0, description="Size of the model's files that each node fetches.")
    parameters: int | None = Field(None, ge=0, description="Weights of the model.")
    trainable_parameters: int | None = Field(None, ge=0, description="Weights that are trained.")
    frozen_trunk: Short | None = Field(None, description="What was kept of the frozen part of the model, which then runs once a row; absent where it runs in each pass.")
    precision: Short | None = Field(None, description="Number format of the computation.")
    device: Short | None = Field(None, description="Kind of device.")


class Finding(Model):
    """Something about the data that its owner should know."""

    kind: Short = Field(description="Kind of finding, such as InvalidJson, MissingColumn or Truncated.")
    count: int = Field(1, ge=0, description="How many rows.")
    file: Annotated[str, StringConstraints(max_length=256)] | None = Field(None, description="First object in which it was seen.")
    line: int | None = Field(None, ge=1, description="Line (jsonl, csv, text: from 1, header included) or row (parquet, JSON arrays: from 1) of the first.")
    message: Annotated[str, StringConstraints(max_length=384)] = Field(description="What was found, and what to do.")


class Lengths(Model):
    """Tokens of the rows, estimated from a sample."""

    p50: int = Field(ge=0, description="Median.")
    p95: int = Field(ge=0, description="95th percentile.")
    max: int = Field(ge=0, description="Longest in the sample.")
    truncated_fraction: float = Field(0.0, ge=0, le=1, description="Share of rows that are cut at maxLength.")


class DataProfile(Model):
    """What the prepare step found out about the data."""

    train_rows: int = Field(0, ge=0, description="Usable rows to learn from.")
    validation_rows: int = Field(0, ge=0, description="Usable rows of the evaluations.")
    test_rows: int = Field(0, ge=0, description="Usable rows of the final evaluation.")
    bad_rows: int = Field(0, ge=0, description="Rows left out.")
    objects: int = Field(0, ge=0, description="Objects read.")
    bytes: int = Field(0, ge=0, description="Their size as stored.")
    tokens_per_epoch: int | None = Field(None, ge=0, description="Estimated tokens of one pass over the training rows.")
    lengths: Lengths | None = Field(None, description="Tokens of the rows.")
    labels: tuple[Annotated[str, StringConstraints(max_length=64)], ...] | None = Field(None, max_length=20, description="The classes, at most 20 of them.")
    label_count: int | None = Field(None, ge=0, description="How many classes there are.")
    manifest_digest: Short | None = Field(None, description="SHA-256 of the data manifest.")
    findings: tuple[Finding, ...] = Field((), max_length=FINDINGS, description="The most important findings.")


class Progress(Model):
    """How far the job is."""

    step: int = Field(0, ge=0, description="Optimizer steps done.")
    total_steps: int = Field(0, ge=0, description="Optimizer steps of the whole job.")
    part: Annotated[str, StringConstraints(max_length=32)] | None = Field(None, description="What is being tuned, of a job with evaluation.folds: fold 2 of 5, or all rows.")
    epoch: float = Field(0.0, ge=0, description="Passes over the training rows done; of a job with evaluation.folds, in this part.")
    percent: float = Field(0.0, ge=0, le=100, description="Share of the steps done.")
    loss: float | None = Field(None, description="Mean training loss of the last reporting interval.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    grad_norm: float | None = Field(None, description="Norm of the last gradient, before clipping.")
    rows_per_second: float | None = Field(None, ge=0, description="Rows a second over all workers.")
    tokens_per_second: float | None = Field(None, ge=0, description="Real (unpadded) tokens a second over all workers.")
    eta_seconds: float | None = Field(None, ge=0, description="Estimated time to the end.")


class Point(Model):
    """One point of the history."""

    step: int = Field(ge=0, description="Optimizer step.")
    loss: float | None = Field(None, description="Training loss.")
    metrics: Annotated[dict[MetricName, float], Field(max_length=2)] | None = Field(None, description="Evaluation metrics, if the model was evaluated here: the chosen one and eval_loss.")


class FoldScores(Model):
    """What the folds of evaluation.folds came to so far."""

    count: int = Field(0, ge=0, description="How many folds there are.")
    done: int = Field(0, ge=0, description="How many are judged.")
    metric: MetricName | None = Field(None, description="Name of the metric that chooses.")
    last: float | None = Field(None, description="Its value on the last fold that was judged.")
    mean: float | None = Field(None, description="Its mean over those that are judged.")
    deviation: float | None = Field(None, description="Its sample standard deviation over them, from the second on.")
    last_loss: float | None = Field(None, description="The loss on the last fold that was judged.")
    mean_loss: float | None = Field(None, description="The mean of the loss.")
    loss_deviation: float | None = Field(None, description="The sample standard deviation of the loss.")


class Best(Model):
    """The best evaluation so far."""

    step: int = Field(ge=0, description="Optimizer step.")
    metric: MetricName = Field(description="Name of the metric.")
    value: float = Field(description="Its value.")


class SetScore(Model):
    """How the result does on one of evaluation.sets."""

    name: Annotated[str, StringConstraints(max_length=32)] = Field(description="The set's name.")
    rows: int = Field(ge=0, description="Its usable rows.")
    metrics: Annotated[dict[MetricName, float], Field(max_length=4)] = Field(description="The metric that chooses the best checkpoint, its confidence bounds, and the loss.")


class Verdict(Model):
    """What the final evaluations show, in a sentence."""

    kind: Annotated[str, StringConstraints(max_length=32)] = Field(description="What it is about and how it ended, of the metric that chooses, and by 95 % intervals where it has such. (No|Perhaps)BetterThan(Base|Constant): than the model before tuning, than a constant answer; perhaps where intervals overlap. Forgetting: a set's error is 5 % or more above what it was before tuning. Overfitting: training rows are better than held-out ones by 0.05, or by 10 % of a loss or an error, and the intervals part. Underfitting: on both less than a tenth of the way from a constant answer to a perfect one is gone, and less than a quarter by the intervals' better bounds; perhaps: of a metric whose best is 1, less than half on training rows.")
    warning: bool = Field(False, description="Whether the model may not be fit for use as it is.")
    message: Annotated[str, StringConstraints(max_length=384)] = Field(description="The figures, and what to do.")


class Checkpoint(Model):
    """A verified checkpoint: its manifest exists."""

    step: int = Field(ge=0, description="Optimizer step.")
    uri: Annotated[str, StringConstraints(max_length=768)] = Field(description="Where it lies; usable as checkpoints.resumeFrom.")
    bytes: int = Field(ge=0, description="Size of all its parts.")
    digest: Short = Field(description="SHA-256 of its manifest.")
    time: Time = Field(description="When its manifest was written.")
    metrics: Annotated[dict[MetricName, float], Field(max_length=4)] | None = Field(None, description="Evaluation at this step, if there was one.")
    best: bool = Field(False, description="Whether it is the best so far.")


class AttemptStatus(Model):
    """One set of worker pods."""

    number: int = Field(ge=1, description="Counts from 1; twice the same where a queue manager took the workers' place back and gave it again.")
    start_time: Time = Field(description="When its objects were made.")
    end_time: Time | None = Field(None, description="When it ended.")
    reason: Short | None = Field(None, description="Why it ended.")
    message: Annotated[str, StringConstraints(max_length=256)] | None = Field(None, description="What happened.")
    exit_code: int | None = Field(None, description="Exit code of the container that failed first.")
    place: Annotated[str, StringConstraints(max_length=64)] | None = Field(None, description="Where an unexpected error was raised; the same place twice in a row ends the job.")
    pod: Annotated[str, StringConstraints(max_length=253)] | None = Field(None, description="Pod that failed first.")
    from_step: int | None = Field(None, ge=0, description="Step it started from.")
    last_step: int | None = Field(None, ge=0, description="Last step reported.")
    lost_steps: int | None = Field(None, ge=0, description="Steps done again by the next attempt.")
    seconds: Annotated[dict[MetricName, float], Field(max_length=12)] | None = Field(None, description="Seconds by what they went into: queue, start, load, train, evaluate, checkpoint, export.")


class OutputStatus(Model):
    """The committed result."""

    uri: Annotated[str, StringConstraints(max_length=640)] = Field(description="Where it lies.")
    bytes: int | None = Field(None, ge=0, description="Size of all files.")
    report: Annotated[str, StringConstraints(max_length=768)] | None = Field(None, description="The HTML report.")


class Display(Model):
    """Ready strings for kubectl's columns."""

    model: Short | None = Field(None, description="Short name of the model.")
    progress: Short | None = Field(None, description="Share of the steps done, as 42%.")
    loss: Short | None = Field(None, description="Training loss.")
    best: Short | None = Field(None, description="Best evaluation, as macro-f1=0.981.")
    eta: Short | None = Field(None, description="Time to the end, as 3m10s.")


class Status(Model):
    """What the operator says about the job."""

    observed_generation: int | None = Field(None, ge=0, description="The spec's generation that this status is about.")
    phase: Phase | None = Field(None, description="Where the job is.")
    reason: Short | None = Field(None, description="Why it is there, in one word.")
    message: Text | None = Field(None, description="Why it is there, for people; the scheduler's words while pods wait.")
    conditions: Annotated[tuple[Condition, ...], Field(max_length=12), Keyed("type")] = Field((), description="What holds.")
    failure: Failure | None = Field(None, description="Why the job failed, and what to do.")
    start_time: Time | None = Field(None, description="When the operator first saw the job.")
    completion_time: Time | None = Field(None, description="When it succeeded or failed.")
    suspended_seconds: float | None = Field(None, ge=0, description="Time spent suspended; does not count against the deadline.")
    resolved: Resolved | None = Field(None, description="The values in force where the spec left the choice to us.")
    image: Image | None = Field(None, description="The trainer image that all workers run, whatever the operator names for new jobs meanwhile.")
    data: DataProfile | None = Field(None, description="What the prepare step found out about the data.")
    progress: Progress | None = Field(None, description="How far the job is.")
    evaluation: Metrics | None = Field(None, description="The last evaluation during training.")
    test: Metrics | None = Field(None, description="The final evaluation on the test rows, confidence bounds included.")
    sets: tuple[SetScore, ...] | None = Field(None, max_length=SETS, description="The final evaluations on the rows of evaluation.sets.")
    verdicts: tuple[Verdict, ...] | None = Field(None, max_length=VERDICTS, description="What the final evaluations show: against the model before tuning, and against a constant answer.")
    best: Best | None = Field(None, description="The best evaluation so far.")
    folds: FoldScores | None = Field(None, description="Cross-validation, of a job with evaluation.folds.")
    history: tuple[Point, ...] = Field((), max_length=HISTORY_POINTS, description="Loss and metrics over the steps, thinned out.")
    checkpoints: tuple[Checkpoint, ...] = Field((), max_length=CHECKPOINTS, description="Verified checkpoints, newest first.")
    attempt: int | None = Field(None, ge=0, description="Number of the current attempt.")
    restarts: int | None = Field(None, ge=0, description="Restarts so far.")
    attempts: tuple[AttemptStatus, ...] = Field((), max_length=ATTEMPTS, description="The last attempts, newest first.")
    goodput: float | None = Field(None, ge=0, le=1, description="Share of the workers' time that went into steps that were kept.")
    output: OutputStatus | None = Field(None, description="The committed result.")
    last_report_time: Time | None = Field(None, description="When the trainer was last heard of.")
    display: Display | None = Field(None, description="Ready strings for kubectl's columns.")
