"""How a job tunes: method, hyper-parameters, evaluation, checkpoints and output.

A field left out that says "chosen when absent" is resolved from the model and the data (see resolve.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import Keyed, Model, OneOf, Rule
from finetune_api.method import DEFAULT_EPOCHS, DEFAULT_METHOD, METHODS
from finetune_api.metrics import AUTO, METRICS
from finetune_api.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerInfo
from finetune_api.rules import beta_rules, schedule_rules, settings_rules
from finetune_api.schedules import DEFAULT_CYCLES, DEFAULT_DECAY_RATIO, DEFAULT_SCHEDULE, SCHEDULES
from finetune_api.sources import EvaluationSet
from finetune_api.tasks import TASKS
from finetune_api.text import listed
from finetune_api.uris import Column, OutputUri, S3Uri, no_file

MethodName = Annotated[str, OneOf(*METHODS)]
OptimizerName = Annotated[str, OneOf(*OPTIMIZERS)]
ScheduleName = Annotated[str, OneOf(*SCHEDULES)]
MetricChoice = Annotated[str, OneOf(AUTO, *METRICS)]


WeightPattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
ModuleName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Lora(Model):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, le=512, description="Rank of the update.")
    alpha: float | None = Field(None, gt=0, le=4096, description="Scale of the update is alpha/rank, and alpha/√rank with rsLora. When absent 2·rank, and 8 with rsLora: the scale is then 2 at every rank, and with rsLora 2 at rank 16.")
    rs_lora: bool | None = Field(None, description="Scale by the root of the rank, so that high ranks learn as fast as low ones (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732).")
    dora: bool | None = Field(None, description="Learn the length of each weight's rows apart from their direction: often better at low ranks, and slower (DoRA, Liu et al. 2024, arXiv 2402.09353).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    rate_ratio: float | None = Field(None, ge=1, le=1024, description="The learning rate of the matrices B, which start at zero, over that of the matrices A: 16 is usual, beside a learningRate lower than without; the same when absent (LoRA+, Hayou et al. 2024, arXiv 2402.12354).")
    target_modules: tuple[ModuleName, ...] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Names of the modules to adapt; all linear layers but the head when absent.",
    )
    modules_to_save: tuple[ModuleName, ...] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Names of modules to train whole, and to write beside the adapters; a new head always is.",
    )


class Unfreeze(Model):
    """When one more layer is trained."""

    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="One more layer after every so many optimizer steps.")
    every_epochs: float | None = Field(None, gt=0, le=1000, description="One more layer after every so many epochs.")

    RULES = (
        Rule(
            "has(self.everySteps) != has(self.everyEpochs)",
            "set either everySteps or everyEpochs",
            lambda s: (s.every_steps is None) != (s.every_epochs is None),
        ),
    )


class Freeze(Model):
    """Train the head and the last layers only."""

    last_layers: int = Field(0, ge=0, le=1024, description="How many of the last layers to train besides the head.")
    trainable: tuple[WeightPattern, ...] | None = Field(None, min_length=1, max_length=64, description="What else to train: names of modules, or patterns for names of weights, as *.bias or *.layer.5.attention.*.")
    eval_trunk: bool | None = Field(None, description="Whether what is frozen runs as in an evaluation, that is without dropout: the trunk then gives the same features of a text each time; true when absent.")
    unfreeze: Unfreeze | None = Field(None, description="Train one more layer from the top at each boundary, until all are (gradual unfreezing, Howard & Ruder 2018, arXiv 1801.06146); embeddings stay frozen. The head and lastLayers are trained from the start.")


POOLINGS = ("auto", "mean", "cls", "last")
POOLED_HEADS = ("linear", "mlp")


class Features(Model):
    """A new head on pooled outputs of a model that stays as it was."""

    pooling: Annotated[str, OneOf(*POOLINGS)] | None = Field(None, description="How a row's outputs become one vector; auto when absent: mean for encoders, last for decoders, what the family itself takes for images. mean: over all tokens, or an image's positions; cls: that of the first token; last: that of the last.")
    head: Annotated[str, OneOf(*POOLED_HEADS)] | None = Field(None, description="linear when absent; mlp: one hidden layer, with GELU and dropout, before it.")
    hidden: int | None = Field(None, ge=1, le=65_536, description="Width of the hidden layer of head mlp; that of the vectors when absent.")

    RULES = (
        Rule(
            "!has(self.hidden) || (has(self.head) && self.head == 'mlp')",
            "only with head mlp; remove it or set head: mlp",
            lambda s: s.hidden is None or s.head == "mlp",
            field="hidden",
        ),
    )


class Setfit(Model):
    """Comparing few rows (Tunstall et al. 2022, arXiv 2209.11055), each with one of its class and two of another."""

    pooling: Annotated[str, OneOf(*POOLINGS)] | None = Field(None, description="How a row's outputs become the vector that is compared; auto when absent: mean for encoders, last for decoders. mean: over all tokens; cls: that of the first token; last: that of the last.")
    l2: float | None = Field(None, gt=0, le=1e6, description="How small the head's weights are held: half the sum of their squares counts so many times beside the sum of the rows' losses; 1 when absent.")


class Ia3(Model):
    """Learned scales ((IA)³, Liu et al. 2022, arXiv 2205.05638)."""

    target_modules: tuple[ModuleName, ...] | None = Field(None, min_length=1, max_length=64, description="Names of the linear layers to scale; those of keys and values and the last of each feed-forward block when absent.")
    modules_to_save: tuple[ModuleName, ...] | None = Field(None, min_length=1, max_length=64, description="Names of modules to train whole, and to write beside the scales; a new head always is.")


class PromptTuning(Model):
    """Virtual tokens before each row (Lester et al. 2021, arXiv 2104.08691)."""

    virtual_tokens: int = Field(20, ge=1, le=1024, description="How many; a row has so many tokens less.")
    init_text: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = Field(None, description="Start from the embeddings of this text, over and over; of tokens drawn by the seed when absent.")


class PrefixTuning(Model):
    """Virtual tokens before each row, in every layer (Li & Liang 2021, arXiv 2101.00190)."""

    virtual_tokens: int = Field(20, ge=1, le=1024, description="How many; a row has so many tokens less.")


class Method(Model):
    """How to tune."""

    type: MethodName = Field(DEFAULT_METHOD, description="; ".join(f"{method.name}: {method.trains}" for method in METHODS.values()) + ".")
    setfit: Setfit | None = Field(None, description="Settings of type setfit.")
    lora: Lora | None = Field(None, description="Settings of type lora.")
    freeze: Freeze | None = Field(None, description="Settings of type freeze.")
    features: Features | None = Field(None, description="Settings of type features.")
    ia3: Ia3 | None = Field(None, description="Settings of type ia3.")
    prompt_tuning: PromptTuning | None = Field(None, description="Settings of type prompt-tuning.")
    prefix_tuning: PrefixTuning | None = Field(None, description="Settings of type prefix-tuning.")

    RULES = settings_rules(METHODS)

    @property
    def settings(self) -> Lora | Freeze | Features | Setfit | Ia3 | PromptTuning | PrefixTuning | None:
        """The settings of the type, as given."""
        info = METHODS[self.type]
        return getattr(self, info.attribute) if info.settings else None


def _betas(beta: str) -> str:
    """The values in force, by optimizer."""
    values = {row.name: getattr(row, beta) for row in OPTIMIZERS.values() if getattr(row, beta) is not None}
    return ", ".join(f"{value} for {name}" for name, value in values.items())


def _epochs() -> str:
    """The usual ones, and those of methods that have their own."""
    own = [f"{row.epochs:g} with method {row.name}" for row in METHODS.values() if row.epochs != DEFAULT_EPOCHS]
    return f"{DEFAULT_EPOCHS:g} ({', '.join(own)})"


class Training(Model):
    """Hyper-parameters; those without a default are chosen from model and data, and written to status.resolved."""

    epochs: float | None = Field(None, gt=0, le=1000, description=f"Passes over the training rows; {_epochs()} when absent and maxSteps is absent too.")
    max_steps: int | None = Field(None, ge=1, le=100_000_000, description="Stop after so many optimizer steps, whatever the epochs.")
    global_batch_size: int | None = Field(None, ge=1, le=65_536, description="Rows in one optimizer step, over all workers; chosen when absent.")
    micro_batch_size: int | None = Field(None, ge=1, le=65_536, description="Most rows that one process takes through the model at once; chosen when absent. Never changes the result but by rounding.")
    optimizer: OptimizerName | None = Field(None, description=f"What makes a step of a gradient; {DEFAULT_OPTIMIZER} when absent; " + "; ".join(f"{row.name}: {row.what}" for row in OPTIMIZERS.values()) + ".")
    beta1: float | None = Field(None, ge=0, lt=1, description=f"Share that the optimizer's running mean of gradients keeps at each step; {_betas('beta1')} when absent.")
    beta2: float | None = Field(None, ge=0, lt=1, description=f"The same of the longer running mean, of squares or of gradients; {_betas('beta2')} when absent.")
    learning_rate: float | None = Field(None, gt=0, le=10, description="Peak learning rate; chosen by task, method and optimizer when absent.")
    schedule: ScheduleName = Field(DEFAULT_SCHEDULE, description="How the learning rate falls after the warm-up; " + "; ".join(f"{row.name}: {row.what}" for row in SCHEDULES.values()) + ".")
    decay_ratio: float | None = Field(None, gt=0, le=1, description=f"Share of the steps in which the learning rate of schedule wsd falls; {DEFAULT_DECAY_RATIO} when absent.")
    schedule_cycles: int | None = Field(None, ge=1, le=1000, description=f"How often schedule cosine-restarts falls to zero; {DEFAULT_CYCLES} when absent.")
    warmup_ratio: float = Field(0.06, ge=0, le=1, description="Share of the steps in which the learning rate rises from zero.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Weight decay, decoupled from the gradient but for sgd; not on biases and norms.")
    layer_decay: float | None = Field(None, gt=0, le=1, description="Each layer's learning rate is that of the layer above it times this, the head's the full one (Howard & Ruder 2018); all the same when absent.")
    label_smoothing: float | None = Field(None, ge=0, le=0.5, description="Share of a target that is spread over all classes or tokens (Szegedy et al. 2016); in training only, evaluations have the plain loss; 0 when absent.")
    dropout: float | None = Field(None, ge=0, le=0.9, description="Dropout in training, in place of each probability in the model's config.json; the output keeps the model's own.")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Judge and keep a running mean of the trained weights: at step t it keeps min(emaDecay, (1+t)/(10+t)) of itself (Polyak & Juditsky 1992). Takes as much memory as the trained weights once more; off when absent.")
    max_grad_norm: float = Field(1.0, ge=0, le=1e6, description="Clip the gradient's norm to this; 0 does not clip.")
    max_length: int | None = Field(None, ge=8, le=1_048_576, description="Most tokens of a row, longer ones are cut and counted; chosen from the rows' lengths and the model's limit when absent.")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="Seed of the order of the rows, of dropout and of new weights.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on accelerators that have it, fp32 on CPUs.")
    class_weights: Literal["none", "balanced"] | None = Field(None, description="What a row's loss weighs; none when absent: all the same. balanced: rows of rare classes as much as those of frequent ones, by n/(k·n_c) for a class of n_c of the n training rows and k classes, 1 in the mean over the training rows (King and Zeng 2001, as scikit-learn has it); where rows have several classes, each is weighed by itself against the rows without it (k = 2).")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass: less memory, about a third more time.")

    RULES = (
        Rule(
            "!has(self.microBatchSize) || !has(self.globalBatchSize) || self.microBatchSize <= self.globalBatchSize",
            "may not be larger than globalBatchSize; lower it",
            lambda s: (
                s.micro_batch_size is None or s.global_batch_size is None or s.micro_batch_size <= s.global_batch_size
            ),
            field="microBatchSize",
        ),
        *beta_rules(OPTIMIZERS),
        *schedule_rules(SCHEDULES),
    )

    @property
    def optimizer_info(self) -> OptimizerInfo:
        """The row of the optimizer in force."""
        return OPTIMIZERS[self.optimizer or DEFAULT_OPTIMIZER]


class EarlyStopping(Model):
    """Stop when the metric no longer improves."""

    patience: int = Field(3, ge=1, le=1000, description="Evaluations without improvement before the job stops.")
    min_delta: float = Field(0.0, ge=0, le=1e6, description="How much better counts as an improvement.")


def _defaults() -> str:
    """Which metric is the default of which kinds of tasks."""
    chosen = dict.fromkeys(task.default_metric for task in TASKS.values())
    return ", ".join(
        f"{name} for {listed([t.kind for t in TASKS.values() if t.default_metric == name])}" for name in chosen
    )


class Folds(Model):
    """Cross-validation: train once for each fold of the training rows, on the others, and judge on the fold."""

    count: int = Field(ge=2, le=20, description="How many folds. Each has its share of every class, and equal rows are in one fold; where numbers are learned, each has its share of low and high ones.")
    group_by: Column | None = Field(None, description="Column whose rows of one value are all in one fold, as those of one customer or document. The model sees nothing of it. Rows without a value stand for themselves.")


DEFAULT_WRONG_ANSWERS = 20


class Evaluation(Model):
    """When and by what the model is judged."""

    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="Evaluate every so many optimizer steps.")
    every_epochs: float | None = Field(None, gt=0, le=1000, description="Evaluate every so many epochs; 1 when everySteps is absent too.")
    metric: MetricChoice = Field(AUTO, description=f"Which metric chooses the best checkpoint; {AUTO}: {_defaults()}.")
    early_stopping: EarlyStopping | None = Field(None, description="Stop when the metric no longer improves; off when absent.")
    wrong_answers: int | None = Field(None, ge=0, le=100, description="How many of the answers that are most wrong, of each kind, the output shows with their rows' texts, in report.html and errors.jsonl: of the test rows, or of the validation rows where there are no test rows. The model card never has texts of rows; leave these two files out where you publish the model and not its data, or set 0: none. " f"{DEFAULT_WRONG_ANSWERS} when absent.")
    folds: Folds | None = Field(None, description="Cross-validation over the training rows; off when absent.")
    sets: Annotated[tuple[EvaluationSet, ...], Field(max_length=8), Keyed("name")] | None = Field(None, description="More sets of rows on which the result is judged once at the end, beside test; they choose nothing.")
    base: bool | None = Field(None, description="Whether the result is compared with what it started from, on the test rows (without these the validation rows): with the model before tuning, where that has a trained head of the task, and with the best constant answer; true when absent.")

    RULES = (
        Rule(
            "!(has(self.everySteps) && has(self.everyEpochs))",
            "set either everySteps or everyEpochs",
            lambda s: s.every_steps is None or s.every_epochs is None,
            field="everySteps",
        ),
    )


class Checkpoints(Model):
    """When the state is saved, so that nothing but the steps since then can be lost."""

    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="Save every so many optimizer steps.")
    every_minutes: float | None = Field(None, gt=0, le=10_080, description="Save every so many minutes; 10 when everySteps is absent too.")
    keep_last: int = Field(2, ge=1, le=100, description="How many of the newest checkpoints to keep.")
    keep_best: bool = Field(True, description="Keep the checkpoint that is best on the validation rows, and make it the output.")
    average_best: int | None = Field(None, ge=2, le=10, description="Keep so many of the best checkpoints, and make the mean of their weights the output where it is not worse than the best alone on the validation rows (Wortsman et al. 2022); off when absent.")
    resume_from: S3Uri | None = Field(None, description="A checkpoint of another job to go on from: s3://…/ckpt/<generation>/<step>, as listed in its status.checkpoints.")

    RULES = (
        no_file("resumeFrom", optional=True),
        Rule(
            "!has(self.averageBest) || self.keepBest",
            "needs keepBest; remove it or set keepBest to true",
            lambda s: s.average_best is None or s.keep_best,
            field="averageBest",
        ),
        Rule(
            "!(has(self.everySteps) && has(self.everyMinutes))",
            "set either everySteps or everyMinutes",
            lambda s: s.every_steps is None or s.every_minutes is None,
            field="everySteps",
        ),
    )


class Output(Model):
    """Where the result goes."""

    uri: OutputUri = Field(description="Prefix for the tuned model, its report and the checkpoints; one job each.")
    merge: bool = Field(False, description=f"Method {listed([m.name for m in METHODS.values() if m.merges])}: also write the full model with the adapters merged in, under merged/.")
    overwrite: bool = Field(False, description="Take the prefix over from an earlier job whose result may go.")

    RULES = (no_file(),)
