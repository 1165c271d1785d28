"""FineTuneJob's spec: what a user writes. Nothing is accepted and then ignored.

A field left out that says "chosen when absent" is resolved from the model and the data, and the value used is written to
status.resolved. The spec is frozen from creation, but for the fields marked `mutable`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import Form, Keyed, Model, Rule
from finetune_api.pod import (
    Affinity,
    EnvVar,
    Key,
    LabelKey,
    LabelValue,
    Name,
    ObjectRef,
    QuantityText,
    Resources,
    Toleration,
    exact_quantity,
)  # fmt: skip
from finetune_api.status import Status

Task = Literal["text-classification", "causal-lm"]
MethodType = Literal["full", "freeze", "lora"]

# No spaces, control characters, fragments or credentials; \p{Z} since \s means different things to RE2 and Rust.
_PATH, _GLOB = r"[^\p{Z}\p{Cc}?#*]", r"[^\p{Z}\p{Cc}#]"
_S3, _HF, _FILE = r"s3://[A-Za-z0-9][-A-Za-z0-9._]*(/{0}*)?", r"hf://[A-Za-z0-9]{0}*", r"file:///{0}+"


def _uri(path: str, *schemes: str) -> str:
    return "^(" + "|".join(scheme.replace("{0}", path) for scheme in schemes) + ")$"


_S3_URI = Form(_uri(_PATH, _S3, _FILE), "must be s3://bucket/prefix, or file:///folder with `finetune run`")
S3Uri = Annotated[str, StringConstraints(max_length=1024), _S3_URI]
OutputUri = Annotated[str, StringConstraints(max_length=640), _S3_URI]
"""Shorter: what lies below it must stay within S3's 1024 bytes and the status' bounds."""
ModelUri = Annotated[str, StringConstraints(max_length=1024), Form(
    _uri(_PATH, _S3, _HF, _FILE), "must be s3://bucket/prefix, hf://organisation/name, or file:///folder with `finetune run`")]  # fmt: skip
DataUri = Annotated[str, StringConstraints(max_length=1024), Form(
    _uri(_GLOB, _S3, _HF, _FILE), "must be s3://bucket/prefix/*.jsonl, hf://organisation/data-set, or file:///path with `finetune run`")]  # fmt: skip
Endpoint = Annotated[str, StringConstraints(max_length=512), Form(
    r"^https?://[^\p{Z}\p{Cc}/?#@]+/?$", "must be http://host:port or https://host:port, without a path or credentials")]  # fmt: skip
Revision = Annotated[
    str, StringConstraints(max_length=128), Form(r"^[^\p{Z}\p{Cc}]+$", "must be a branch, tag or commit")
]
Split = Annotated[
    str, StringConstraints(max_length=128), Form(r"^[^\p{Z}\p{Cc}]+$", "must be the name of a split, such as train")
]
Region = Annotated[
    str,
    StringConstraints(max_length=64),
    Form(r"^[-A-Za-z0-9._]+$", "must be the name of a region, such as eu-central-1"),
]
Image = Annotated[
    str,
    StringConstraints(max_length=512),
    Form(r"^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$", "must be an image, such as registry.example.org/trainer:1.0"),
]
Namespace = Annotated[str, StringConstraints(max_length=63), Form(
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "must be lower-case letters, digits and -, starting and ending with a letter or digit")]  # fmt: skip
Column = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_NO_FILE = "file:// is for `finetune run` on this machine; pods cannot see it: upload the files to s3:// and name them"


def _no_file(field: str = "uri", optional: bool = False) -> Rule:
    guard = f"!has(self.{field}) || " if optional else ""
    snake = {"resumeFrom": "resume_from"}.get(field, field)
    return Rule(
        f"{guard}!self.{field}.startsWith('file://')", _NO_FILE,
        lambda s: not (getattr(s, snake) or "").startswith("file://"), field=field, cluster_only=True,
    )  # fmt: skip


_REVISION = Rule(
    "!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
    "only hf:// URIs have revisions; remove it, or put the version into the path",
    lambda s: s.revision is None or (s.uri or "").startswith("hf://"),
    field="revision",
)


class ModelSource(Model):
    """The pre-trained model to start from."""

    uri: ModelUri = Field(
        description="Where the model lies: s3://bucket/prefix, hf://organisation/name, or file:///folder with `finetune run`. Holds config.json, tokenizer files and *.safetensors."
    )
    revision: Revision | None = Field(
        None, description="Branch, tag or commit of an hf:// model. Resolved to a commit once, and recorded."
    )

    RULES = (_no_file(), _REVISION)


class TrainSource(Model):
    """The training data."""

    uri: DataUri = Field(
        description="Objects to read: s3://bucket/prefix/*.jsonl.zst (globs * ? and ** allowed), hf://organisation/data-set, or file:///path with `finetune run`."
    )
    revision: Revision | None = Field(
        None, description="Branch, tag or commit of an hf:// data set. Resolved to a commit once, and recorded."
    )
    split: Split | None = Field(None, description='Split of an hf:// data set; "train" when absent.')

    RULES = (
        _no_file(),
        _REVISION,
        Rule(
            "!has(self.split) || self.uri.startsWith('hf://')",
            "only hf:// data sets have named splits; use a URI that matches the files wanted",
            lambda s: s.split is None or s.uri.startswith("hf://"),
            field="split",
        ),
    )


class HeldOutSource(Model):
    """Data kept apart from training: other objects, or a fraction of the training rows."""

    uri: DataUri | None = Field(None, description="Objects to read, as for train.")
    revision: Revision | None = Field(None, description="Branch, tag or commit of an hf:// data set.")
    split: Split | None = Field(None, description='Split of an hf:// data set; "validation" or "test" when absent.')
    fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training rows to hold out, chosen by a fixed hash of each row's place, whatever the seed.",
    )

    RULES = (
        _no_file(optional=True),
        _REVISION,
        Rule(
            "has(self.uri) != has(self.fraction)",
            "set exactly one of uri and fraction",
            lambda s: (s.uri is None) != (s.fraction is None),
        ),
        Rule(
            "!has(self.split) || (has(self.uri) && self.uri.startsWith('hf://'))",
            "only hf:// data sets have named splits; use a URI that matches the files wanted",
            lambda s: s.split is None or (s.uri or "").startswith("hf://"),
            field="split",
        ),
    )


class Columns(Model):
    """Which columns hold what. Columns left out are found by their usual names (text, label, messages, prompt, completion)."""

    text: Column | None = Field(None, description="The text to classify.")
    text_pair: Column | None = Field(None, description="A second text, for pairs of sentences.")
    label: Column | None = Field(None, description="The class: a string, integer or boolean.")
    messages: Column | None = Field(None, description="A chat: a list of {role, content}.")
    prompt: Column | None = Field(None, description="The text that the model is given.")
    completion: Column | None = Field(None, description="The text that the model learns to write.")

    RULES = (
        Rule(
            "has(self.prompt) == has(self.completion)", "prompt and completion go together; set both or neither",
            lambda s: (s.prompt is None) == (s.completion is None),
        ),
        Rule(
            "!(has(self.messages) && has(self.prompt))", "set either messages or prompt and completion",
            lambda s: s.messages is None or s.prompt is None, field="messages",
        ),
        Rule(
            "!has(self.textPair) || has(self.text)", "set text too", lambda s: s.text_pair is None or s.text is not None, field="textPair",
        ),
    )  # fmt: skip


class Data(Model):
    """What to learn from, and what to judge by. Objects are streamed; nothing is downloaded whole."""

    train: TrainSource = Field(description="Rows to learn from.")
    validation: HeldOutSource | None = Field(
        None, description="Rows for the evaluations during training; these choose the best checkpoint."
    )
    test: HeldOutSource | None = Field(
        None, description="Rows for the one evaluation at the end; never used to choose anything."
    )
    format: Literal["auto", "jsonl", "csv", "parquet"] = Field(
        "auto", description="Format of the objects; auto goes by the name (.jsonl, .csv, .parquet, with .gz or .zst)."
    )
    columns: Columns | None = Field(
        None, description="Which columns hold what; found by their usual names when absent."
    )
    labels: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] | None = Field(
        None, min_length=2, max_length=256, description="The classes, in the order of the model's outputs; all that occur, sorted, when absent.")  # fmt: skip
    max_bad_rows: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="How many unreadable or unusable rows to leave out, counted and reported, before the job is refused.",
    )

    RULES = (
        Rule(
            "!has(self.labels) || self.labels.all(x, self.labels.exists_one(y, y == x))", "each label may be named once; remove the repeated ones",
            lambda s: s.labels is None or len(set(s.labels)) == len(s.labels), field="labels",
        ),
        Rule(
            "!(has(self.validation) && has(self.validation.fraction) && has(self.test) && has(self.test.fraction)) || self.validation.fraction + self.test.fraction <= 0.5",
            "validation.fraction and test.fraction together may be 0.5 at most; lower one of them",
            lambda s: sum(h.fraction for h in (s.validation, s.test) if h and h.fraction) <= 0.5, field="test",
        ),
    )  # fmt: skip


class Lora(Model):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, le=512, description="Rank of the update.")
    alpha: float | None = Field(
        None, gt=0, le=4096, description="Scale of the update is alpha/rank; 2·rank when absent."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    target_modules: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] | None = Field(
        None, min_length=1, max_length=64, description="Names of the modules to adapt; all linear layers but the head when absent.")  # fmt: skip


class Freeze(Model):
    """Train the head and the last layers only."""

    last_layers: int = Field(0, ge=0, le=1024, description="How many of the last layers to train besides the head.")


class Method(Model):
    """How to tune."""

    type: MethodType = Field(
        "full", description="full: every weight; freeze: the head and the last layers; lora: low-rank adapters."
    )
    lora: Lora | None = Field(None, description="Settings of type lora.")
    freeze: Freeze | None = Field(None, description="Settings of type freeze.")

    RULES = (
        Rule(
            "!has(self.lora) || self.type == 'lora'",
            "only with type lora; remove it or set type: lora",
            lambda s: s.lora is None or s.type == "lora",
            field="lora",
        ),
        Rule(
            "!has(self.freeze) || self.type == 'freeze'",
            "only with type freeze; remove it or set type: freeze",
            lambda s: s.freeze is None or s.type == "freeze",
            field="freeze",
        ),
    )


class Training(Model):
    """Hyper-parameters. Those without a default are chosen from the model and the data, and written to status.resolved."""

    epochs: float | None = Field(
        None, gt=0, le=1000, description="Passes over the training rows; 3 when absent and maxSteps is absent too."
    )
    max_steps: int | None = Field(
        None, ge=1, le=100_000_000, description="Stop after so many optimizer steps, whatever the epochs."
    )
    global_batch_size: int | None = Field(
        None, ge=1, le=65_536, description="Rows in one optimizer step, over all workers; chosen when absent."
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Most rows that one process takes through the model at once; chosen when absent. Never changes the result but by rounding.",
    )
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Peak learning rate of AdamW; chosen by method when absent."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup_ratio: float = Field(
        0.06, ge=0, le=1, description="Share of the steps in which the learning rate rises from zero."
    )
    weight_decay: float = Field(
        0.01, ge=0, le=10, description="AdamW's decoupled weight decay; not on biases and norms."
    )
    max_grad_norm: float = Field(1.0, ge=0, le=1e6, description="Clip the gradient's norm to this; 0 does not clip.")
    max_length: int | None = Field(
        None,
        ge=8,
        le=1_048_576,
        description="Most tokens of a row, longer ones are cut and counted; chosen from the rows' lengths and the model's limit when absent.",
    )
    seed: int = Field(
        42, ge=0, le=2**32 - 1, description="Seed of the order of the rows, of dropout and of new weights."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on accelerators that have it, fp32 on CPUs."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )

    RULES = (
        Rule(
            "!has(self.microBatchSize) || !has(self.globalBatchSize) || self.microBatchSize <= self.globalBatchSize",
            "may not be larger than globalBatchSize; lower it",
            lambda s: (
                s.micro_batch_size is None or s.global_batch_size is None or s.micro_batch_size <= s.global_batch_size
            ),
            field="microBatchSize",
        ),
    )


class EarlyStopping(Model):
    """Stop when the metric no longer improves."""

    patience: int = Field(3, ge=1, le=1000, description="Evaluations without improvement before the job stops.")
    min_delta: float = Field(0.0, ge=0, le=1e6, description="How much better counts as an improvement.")


Metric = Literal["auto", "loss", "accuracy", "macro-f1", "perplexity"]


class Evaluation(Model):
    """When and by what the model is judged on the validation rows."""

    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="Evaluate every so many optimizer steps.")
    every_epochs: float | None = Field(
        None, gt=0, le=1000, description="Evaluate every so many epochs; 1 when everySteps is absent too."
    )
    metric: Metric = Field(
        "auto",
        description="Which metric chooses the best checkpoint; auto: macro-f1 for classification, loss for language models.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop when the metric no longer improves; off when absent."
    )

    RULES = (
        Rule(
            "!(has(self.everySteps) && has(self.everyEpochs))", "set either everySteps or everyEpochs",
            lambda s: s.every_steps is None or s.every_epochs is None, field="everySteps",
        ),
    )  # fmt: skip


class Checkpoints(Model):
    """When the state is saved, so that nothing but the steps since then can be lost."""

    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="Save every so many optimizer steps.")
    every_minutes: float | None = Field(
        None, gt=0, le=10_080, description="Save every so many minutes; 10 when everySteps is absent too."
    )
    keep_last: int = Field(2, ge=1, le=100, description="How many of the newest checkpoints to keep.")
    keep_best: bool = Field(
        True, description="Keep the checkpoint that is best on the validation rows, and make it the output."
    )
    resume_from: S3Uri | None = Field(
        None,
        description="A checkpoint of another job to go on from: s3://…/ckpt/<generation>/<step>, as listed in its status.checkpoints.",
    )

    RULES = (
        _no_file("resumeFrom", optional=True),
        Rule(
            "!(has(self.everySteps) && has(self.everyMinutes))", "set either everySteps or everyMinutes",
            lambda s: s.every_steps is None or s.every_minutes is None, field="everySteps",
        ),
    )  # fmt: skip


class Output(Model):
    """Where the result goes."""

    uri: OutputUri = Field(description="Prefix for the tuned model, its report and the checkpoints; one job each.")
    merge: bool = Field(
        False, description="Method lora: also write the full model with the adapters merged in, under merged/."
    )
    overwrite: bool = Field(False, description="Take the prefix over from an earlier job whose result may go.")

    RULES = (_no_file(),)


class Prepare(Model):
    """The pod that checks everything before a worker is asked for."""

    resources: Resources | None = Field(None, description="Its resources; 1 CPU and 2Gi when absent.")
    node_selector: dict[LabelKey, LabelValue] | None = Field(
        None, max_length=16, description="Labels that its node must have."
    )
    tolerations: tuple[Toleration, ...] | None = Field(None, max_length=16, description="Taints that it tolerates.")


def _shared_memory_fits(workers: Workers) -> bool:
    limit = (workers.resources.limits or {}).get("memory") if workers.resources else None
    return (
        limit is None
        or workers.shared_memory_size is None
        or exact_quantity(workers.shared_memory_size) < exact_quantity(limit)
    )


class Workers(Model):
    """The pods that train, and the pod fields that a job may set. Labels, annotations, env, image pull secrets and service account hold for the prepare pod too."""

    replicas: int = Field(1, ge=1, le=512, description="How many pods train together.")
    processes_per_worker: int | None = Field(
        None, ge=1, le=64, description="Processes in each pod; one for each accelerator, else one, when absent."
    )
    resources: Resources | None = Field(
        None, description="Resources of each worker pod; accelerators go into limits, as nvidia.com/gpu: 1."
    )
    shared_memory_size: QuantityText | None = Field(
        None,
        description="Size of /dev/shm, held in memory and counted against the memory limit; 1Gi with accelerators, 64Mi else, but half of the limit at most, when absent.",
    )
    scratch_size: QuantityText = Field("10Gi", description="Most disk that /tmp and the caches may use.")
    termination_grace_period_seconds: int = Field(
        120, ge=15, le=86_400, description="Time to write a checkpoint when the pod is told to stop."
    )
    node_selector: dict[LabelKey, LabelValue] | None = Field(
        None, max_length=16, description="Labels that the workers' nodes must have."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        None, max_length=16, description="Taints that the workers tolerate."
    )
    affinity: Affinity | None = Field(None, description="Where the workers may run.")
    priority_class_name: Name | None = Field(None, description="Priority class of the workers.")
    runtime_class_name: Name | None = Field(None, description="Runtime class of the workers, such as nvidia.")
    scheduler_name: Name | None = Field(None, description="Scheduler of the workers.")
    image_pull_secrets: Annotated[tuple[ObjectRef, ...], Field(max_length=8), Keyed("name")] | None = Field(
        None, description="Secrets for private registries."
    )
    service_account_name: Name | None = Field(
        None, description="Service account of the pods, for workload identity; its token is not mounted."
    )
    labels: dict[LabelKey, LabelValue] | None = Field(None, max_length=32, description="More labels for the pods.")
    annotations: dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]] | None = Field(
        None, max_length=32, description="More annotations for the pods."
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), Keyed("name")] | None = Field(
        None, description="More environment variables for the containers, such as HTTPS_PROXY."
    )

    RULES = (
        Rule(
            "!has(self.labels) || self.labels.all(k, !k.contains('finetune-operator.io/') && !k.startsWith('batch.kubernetes.io/') && k != 'app.kubernetes.io/managed-by')",
            "the prefixes finetune-operator.io/ and batch.kubernetes.io/ and app.kubernetes.io/managed-by are the operator's; choose other keys",
            lambda s: (
                not any(
                    "finetune-operator.io/" in k
                    or k.startswith("batch.kubernetes.io/")
                    or k == "app.kubernetes.io/managed-by"
                    for k in s.labels or {}
                )
            ),
            field="labels",
        ),
        Rule(
            "!has(self.sharedMemorySize) || !has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || "
            "quantity(self.sharedMemorySize).isLessThan(quantity(string(self.resources.limits['memory'])))",
            "is held in memory and must be less than resources.limits.memory; raise the limit",
            _shared_memory_fits,
            field="sharedMemorySize",
        ),
    )


class CertificateAuthority(Model):
    """A CA bundle in PEM, in a ConfigMap or Secret of the job's namespace."""

    config_map: Name | None = Field(None, description="Name of the ConfigMap.")
    secret: Name | None = Field(None, description="Name of the Secret.")
    key: Key = Field("ca.crt", description="Key within it.")

    RULES = (
        Rule(
            "has(self.configMap) != has(self.secret)",
            "set exactly one of configMap and secret",
            lambda s: (s.config_map is None) != (s.secret is None),
        ),
    )


class Storage(Model):
    """The S3-compatible storage of all s3:// URIs. Without credentialsSecret the default chain is used: service account, instance profile or environment."""

    endpoint: Endpoint | None = Field(None, description="URL of the S3 server; AWS when absent.")
    region: Region | None = Field(None, description="Region; us-east-1 when absent.")
    path_style: bool | None = Field(
        None,
        description="Put the bucket into the path, not the host name; true when an endpoint is set and this is absent.",
    )
    credentials_secret: Name | None = Field(
        None,
        description="Secret in the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN.",
    )
    ca: CertificateAuthority | None = Field(
        None, description="CA of the endpoint's certificate, if it is not a public one."
    )


class Hub(Model):
    """The Hugging Face hub, for hf:// URIs."""

    endpoint: Endpoint | None = Field(
        None, description="URL of the hub or of a mirror (HF_ENDPOINT); huggingface.co when absent."
    )
    token_secret: ObjectRef | None = Field(
        None, description="Secret in the job's namespace with the key HF_TOKEN, for gated and private repositories."
    )


class RestartPolicy(Model):
    """How often the operator tries again. Evictions and preemptions never count."""

    max_restarts: int = Field(
        5, ge=0, le=1000, description="Restarts in a row without a new checkpoint before the job fails."
    )


def mutable(default: Any, **kwargs: Any) -> Any:
    """A field that may change after creation; every other field of the spec is frozen."""
    return Field(default, json_schema_extra={"x-finetune-mutable": True}, **kwargs)


class Spec(Model):
    """What to tune, on what, how, and where."""

    task: Task = Field(description="What the model learns to do.")
    model: ModelSource = Field(description="The pre-trained model to start from.")
    data: Data = Field(description="What to learn from, and what to judge by.")
    method: Method = Field(Method(), description="How to tune.")
    training: Training = Field(Training(), description="Hyper-parameters.")
    evaluation: Evaluation = Field(Evaluation(), description="When and by what the model is judged.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="When the state is saved.")
    output: Output = Field(description="Where the result goes.")
    prepare: Prepare = Field(Prepare(), description="The pod that checks everything first.")
    workers: Workers = Field(Workers(), description="The pods that train.")
    storage: Storage = Field(Storage(), description="The S3-compatible storage.")
    hub: Hub = Field(Hub(), description="The Hugging Face hub.")
    restart_policy: RestartPolicy = mutable(RestartPolicy(), description="How often the operator tries again.")
    active_deadline_seconds: int | None = mutable(
        None,
        ge=1,
        le=31_536_000,
        description="Fail the job when it has not finished so long after its start; time suspended does not count.",
    )
    ttl_seconds_after_finished: int | None = mutable(
        None,
        ge=0,
        le=31_536_000,
        description="Delete the job and its pods so long after it finished; what it stored stays.",
    )
    suspend: bool = mutable(False, description="Checkpoint, remove the pods and wait; false goes on.")
    image: Image | None = Field(None, description="Trainer image of both pods; the operator's default when absent.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When the image is pulled; the operator's default when absent."
    )

    RULES = (
        Rule(
            "self.task == 'text-classification' || !has(self.data.columns) || !(has(self.data.columns.text) || has(self.data.columns.label))",
            "text and label are for text-classification; for causal-lm map messages, or prompt and completion",
            lambda s: s.task == "text-classification" or not s.data.columns or not (s.data.columns.text or s.data.columns.label), field="data.columns",
        ),
        Rule(
            "self.task == 'causal-lm' || !has(self.data.columns) || !(has(self.data.columns.messages) || has(self.data.columns.prompt))",
            "messages, prompt and completion are for causal-lm; for text-classification map text and label",
            lambda s: s.task == "causal-lm" or not s.data.columns or not (s.data.columns.messages or s.data.columns.prompt), field="data.columns",
        ),
        Rule(
            "self.task == 'text-classification' || !has(self.data.labels)", "only text-classification has labels; remove it",
            lambda s: s.task == "text-classification" or s.data.labels is None, field="data.labels",
        ),
        Rule(
            "self.evaluation.metric in ['auto', 'loss'] || (self.task == 'text-classification') == (self.evaluation.metric in ['accuracy', 'macro-f1'])",
            "text-classification has loss, accuracy and macro-f1; causal-lm has loss and perplexity",
            lambda s: s.evaluation.metric in ("auto", "loss") or (s.task == "text-classification") == (s.evaluation.metric in ("accuracy", "macro-f1")), field="evaluation.metric",
        ),
        Rule(
            "has(self.data.validation) || !(has(self.evaluation.everySteps) || has(self.evaluation.everyEpochs) || self.evaluation.metric != 'auto')",
            "needs data.validation to judge by; add it, as {fraction: 0.1}, or remove everySteps, everyEpochs and metric",
            lambda s: s.data.validation is not None
            or (s.evaluation.every_steps is None and s.evaluation.every_epochs is None and s.evaluation.metric == "auto"), field="evaluation",
        ),
        Rule(
            "!has(self.evaluation.earlyStopping) || has(self.data.validation)", "needs data.validation to judge by; add it, as {fraction: 0.1}",
            lambda s: s.evaluation.early_stopping is None or s.data.validation is not None, field="evaluation.earlyStopping",
        ),
        Rule(
            "!self.output.merge || self.method.type == 'lora'", "only method lora has adapters to merge; remove it",
            lambda s: not s.output.merge or s.method.type == "lora", field="output.merge",
        ),
        Rule(
            "!(self.output.uri + '/').startsWith(self.model.uri.endsWith('/') ? self.model.uri : self.model.uri + '/')",
            "must not lie in model.uri; choose another prefix",
            lambda s: not f"{s.output.uri}/".startswith(f"{s.model.uri.removesuffix('/')}/"), field="output.uri",
        ),
    )  # fmt: skip


class Metadata(Model):
    """An object's metadata. We read name, namespace, labels and annotations; the rest is the API server's, as `kubectl get -o yaml` shows it."""

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

    api_version: Literal["finetune-operator.io/v1alpha1"] = Field(description="The API's version.")
    kind: Literal["FineTuneJob"] = Field(description="The kind.")
    metadata: Metadata = Field(description="Name and labels.")
    spec: Spec = Field(description="What to tune, on what, how, and where.")
    status: Status | None = Field(None, description="What the operator said; never read from a file.")
