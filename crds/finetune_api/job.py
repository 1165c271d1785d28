"""FineTuneJob's spec: what a user writes. Nothing is accepted and then ignored.

A field left out that says "chosen when absent" is resolved from the model and the data, and the value used is written
to status.resolved. The spec is frozen from creation, but for the fields marked `mutable`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from finetune_api import API_VERSION, KIND
from finetune_api.answering import QuestionAnswering
from finetune_api.base import Model, OneOf, Rule
from finetune_api.images import ImageClassification
from finetune_api.masking import MaskedLm
from finetune_api.method import METHODS
from finetune_api.metrics import AUTO
from finetune_api.pod import LabelKey, LabelValue, Name
from finetune_api.rules import (
    class_weights_rule,
    column_rules,
    labels_rule,
    merge_rule,
    metric_rule,
    per_class_rule,
    recompute_rule,
    smoothing_rule,
    suits_rules,
    task_settings_rules,
)
from finetune_api.sources import Data, ModelSource
from finetune_api.status import Status
from finetune_api.storage import Hub, Storage
from finetune_api.tasks import TASKS
from finetune_api.tuning import Checkpoints, Evaluation, Method, Output, Training
from finetune_api.uris import Image, Namespace, reads, reads_cel
from finetune_api.workers import Prepare, Workers

TaskName = Annotated[str, OneOf(*TASKS)]


class RestartPolicy(Model):
    """How often the operator tries again. Evictions and preemptions never count."""

    max_restarts: int = Field(5, ge=0, le=1000, description="Restarts in a row without a new checkpoint before the job fails.")


def mutable(default: Any, **kwargs: Any) -> Any:
    """A field that may change after creation; every other field of the spec is frozen."""
    return Field(default, json_schema_extra={"x-finetune-mutable": True}, **kwargs)


def _not_in(role: str) -> Rule:
    """The output is not among the data: a job would read what it writes itself."""
    source = f"self.data.{role}"
    there = f"!has({source}) || !has({source}.uri) || " if role != "train" else ""

    def check(spec: Any) -> bool:
        found = getattr(spec.data, role)
        return found is None or found.uri is None or not reads(found.uri, spec.output.uri)

    return Rule(
        f"{there}!{reads_cel(f'{source}.uri', 'self.output.uri')}",
        f"lies among the objects that data.{role}.uri names, so the job would read what it writes itself;"
        " choose another prefix",
        check,
        field="output.uri",
    )


_OUTPUT_OF_SETS = Rule(
    f"!has(self.evaluation.sets) || !self.evaluation.sets.exists(s, {reads_cel('s.uri', 'self.output.uri')})",
    "lies among the objects that a set of evaluation.sets names, so the job would read what it writes itself; choose"
    " another prefix",
    lambda s: not any(reads(each.uri, s.output.uri) for each in s.evaluation.sets or ()),
    field="output.uri",
)


class Spec(Model):
    """What to tune, on what, how, and where."""

    task: TaskName = Field(description="What the model learns to do.")
    model: ModelSource = Field(description="The pre-trained model to start from.")
    data: Data = Field(description="What to learn from, and what to judge by.")
    method: Method = Field(Method(), description="How to tune.")
    masked_lm: MaskedLm | None = Field(None, description="What is hidden for the model to guess.")
    image_classification: ImageClassification | None = Field(None, description="What only jobs on images ask.")
    training: Training = Field(Training(), description="Hyper-parameters.")
    question_answering: QuestionAnswering | None = Field(None, description="Settings of the task of this name.")
    evaluation: Evaluation = Field(Evaluation(), description="When and by what the model is judged.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="When the state is saved.")
    output: Output = Field(description="Where the result goes.")
    prepare: Prepare = Field(Prepare(), description="The pod that checks everything first.")
    workers: Workers = Field(Workers(), description="The pods that train.")
    storage: Storage = Field(Storage(), description="The S3-compatible storage.")
    hub: Hub = Field(Hub(), description="The Hugging Face hub.")
    restart_policy: RestartPolicy = mutable(RestartPolicy(), description="How often the operator tries again.")
    active_deadline_seconds: int | None = mutable(None, ge=1, le=31_536_000, description="Fail the job when it has not finished so long after its start; time suspended does not count.")
    ttl_seconds_after_finished: int | None = mutable(None, ge=0, le=31_536_000, description="Delete the job and its pods so long after it finished; what it stored stays.")
    suspend: bool = mutable(False, description="Checkpoint, remove the pods and wait; false goes on.")
    image: Image | None = Field(None, description="Trainer image of both pods; the operator's default when absent.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(None, description="When the image is pulled; the operator's default when absent.")

    RULES = (
        *column_rules(TASKS),
        labels_rule(TASKS),
        metric_rule(TASKS),
        smoothing_rule(TASKS),
        class_weights_rule(TASKS),
        per_class_rule(TASKS),
        *task_settings_rules(TASKS),
        Rule(
            "!has(self.questionAnswering) || !has(self.questionAnswering.stride) || !has(self.training.maxLength)"
            " || self.questionAnswering.stride < self.training.maxLength",
            "must be less than training.maxLength, or windows would not move on; lower it",
            lambda s: (
                s.question_answering is None
                or s.question_answering.stride is None
                or s.training.max_length is None
                or s.question_answering.stride < s.training.max_length
            ),
            field="questionAnswering.stride",
        ),
        Rule(
            "has(self.data.validation) || !(has(self.evaluation.everySteps) || has(self.evaluation.everyEpochs)"
            " || self.evaluation.metric != 'auto')",
            "needs data.validation to judge by; add it, as {fraction: 0.1}, or remove everySteps, everyEpochs"
            " and metric",
            lambda s: (
                s.data.validation is not None
                or (
                    s.evaluation.every_steps is None
                    and s.evaluation.every_epochs is None
                    and s.evaluation.metric == AUTO
                )
            ),
            field="evaluation",
        ),
        Rule(
            "!has(self.checkpoints.averageBest) || has(self.data.validation)",
            "needs data.validation to judge by; add it, as {fraction: 0.1}, or remove averageBest",
            lambda s: s.checkpoints.average_best is None or s.data.validation is not None,
            field="checkpoints.averageBest",
        ),
        Rule(
            "!has(self.evaluation.earlyStopping) || has(self.data.validation)",
            "needs data.validation to judge by; add it, as {fraction: 0.1}",
            lambda s: s.evaluation.early_stopping is None or s.data.validation is not None,
            field="evaluation.earlyStopping",
        ),
        Rule(
            "!has(self.evaluation.folds) || !has(self.checkpoints.resumeFrom)",
            "each fold starts from the model of model.uri, and a checkpoint would bring what was learned of its rows;"
            " remove it, or remove evaluation.folds",
            lambda s: s.evaluation.folds is None or s.checkpoints.resume_from is None,
            field="checkpoints.resumeFrom",
        ),
        merge_rule(METHODS),
        recompute_rule(METHODS),
        *suits_rules(TASKS, METHODS),
        Rule(
            "!(self.output.uri + '/').startsWith(self.model.uri.endsWith('/') ? self.model.uri : self.model.uri + '/')",
            "must not lie in model.uri; choose another prefix",
            lambda s: not f"{s.output.uri}/".startswith(f"{s.model.uri.removesuffix('/')}/"),
            field="output.uri",
        ),
        _not_in("train"),
        _not_in("validation"),
        _not_in("test"),
        _OUTPUT_OF_SETS,
    )


class Metadata(Model):
    """An object's metadata: name, namespace, labels and annotations count.

    The rest is the API server's, as `kubectl get -o yaml` shows it.
    """

    name: Name = Field(description="Name, unique in its namespace.")
    namespace: Namespace | None = Field(None, description="Namespace; the current one when absent.")
    labels: dict[LabelKey, LabelValue] | None = Field(None, description="Labels.")
    annotations: dict[LabelKey, str] | None = Field(None, description="Annotations.")
    generate_name: str | None = Field(None, description="Not used: the name is given.")
    finalizers: list[str] | None = Field(None, description="Kept by the API server.")
    owner_references: list[dict[str, Any]] | None = Field(None, description="Kept by the API server.")
    creation_timestamp: str | None = Field(None, description="Written by the API server.")
    deletion_timestamp: str | None = Field(None, description="Written by the API server.")
    deletion_grace_period_seconds: int | None = Field(None, description="Written by the API server.")
    generation: int | None = Field(None, description="Written by the API server.")
    resource_version: str | None = Field(None, description="Written by the API server.")
    self_link: str | None = Field(None, description="Written by the API server.")
    uid: str | None = Field(None, description="Written by the API server.")
    managed_fields: list[dict[str, Any]] | None = Field(None, description="Written by the API server.")


class Manifest(Model):
    """A FineTuneJob as a user writes it to a file, or as `kubectl get -o yaml` shows it."""

    api_version: Annotated[str, OneOf(API_VERSION)] = Field(description="The API's version.")
    kind: Annotated[str, OneOf(KIND)] = Field(description="The kind.")
    metadata: Metadata = Field(description="Name and labels.")
    spec: Spec = Field(description="What to tune, on what, how, and where.")
    status: Status | None = Field(None, description="What the operator said; never read from a file.")
