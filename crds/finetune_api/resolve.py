"""Choose what the spec left open: pure functions of the config and of what the prepare step measured.

The prepare step calls this once and stores the result, so that every rank of every attempt sees the same values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finetune_api.job import TaskName
from finetune_api.method import DEFAULT_EPOCHS, METHODS, MethodInfo
from finetune_api.metrics import AUTO
from finetune_api.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerInfo
from finetune_api.run import RunConfig
from finetune_api.status import Resolved
from finetune_api.tasks import TASKS, TaskInfo
from finetune_api.tuning import MetricChoice, Training


def resolve(
    config: RunConfig,
    *,
    train_rows: int,
    model_max_length: int,
    longest_row: int,
    p99_length: int,
    width: int | None = None,
    rounds: Sequence[int] = (),
) -> Resolved:
    """The values in force. Lengths in tokens; train_rows counts usable rows; width: of the model's layers, if known.

    `rounds`: how many rows the job learns from in each round before the last one, which learns from all. Only the total
    of the steps counts them.
    """
    t, task = config.training, TASKS[config.task]
    batch = t.global_batch_size or default_batch(t, train_rows)
    per_epoch = steps_per_epoch(train_rows, batch)
    total = round_steps(config, train_rows, batch)
    processes = config.world.workers * config.world.processes_per_worker
    share = math.ceil(batch / processes)
    longest = max_length(t, task, model_max_length, longest_row, p99_length)
    e, method, settings = config.evaluation, METHODS[config.method.type], config.method.settings
    every = e.every_steps or max(1, math.ceil((e.every_epochs or method.epochs / DEFAULT_EPOCHS) * per_epoch))
    return Resolved(
        epochs=round(total / per_epoch, 4),
        total_steps=total + sum(round_steps(config, rows, batch) for rows in rounds),
        global_batch_size=batch,
        micro_batch_size=min(t.micro_batch_size or default_micro_batch(longest), share * method.group),
        learning_rate=t.learning_rate or learning_rate(task, method, t.optimizer_info, width, settings),
        learning_rate_rule=None if t.learning_rate else rate_rule(task, method, t.optimizer_info, width, settings),
        warmup_steps=warmup_steps(t, total),
        max_length=longest,
        metric=metric(config.task, e.metric),
        evaluate_every_steps=every,
    )


def steps_per_epoch(train_rows: int, batch: int) -> int:
    """Optimizer steps of one pass; the last batch may be smaller."""
    return max(1, math.ceil(train_rows / batch))


def round_steps(config: RunConfig, train_rows: int, batch: int) -> int:
    """Optimizer steps of one tuning from start to end on so many rows."""
    t = config.training
    epochs = t.epochs if t.epochs is not None else (None if t.max_steps else METHODS[config.method.type].epochs)
    most = [] if t.max_steps is None else [t.max_steps]
    return min([*most, *([] if epochs is None else [math.ceil(epochs * steps_per_epoch(train_rows, batch))])])


def warmup_steps(training: Training, steps: int) -> int:
    """How many of them the learning rate rises in."""
    return min(steps, math.ceil(training.warmup_ratio * steps))


def default_batch(training: Training, train_rows: int) -> int:
    """32 rows a step; fewer where an epoch would have less than 10 steps; never less than a given microBatchSize."""
    return max(training.micro_batch_size or 1, min(32, max(4, 1 << int(math.log2(max(1, train_rows / 10))))))


def default_micro_batch(longest: int) -> int:
    """8 rows at once; of short rows as many as make 2,048 tokens, at most 32.

    Fewer leave cores idle, more gain nothing (measured).
    """
    return max(8, min(32, 2048 // longest))


def max_length(training: Training, task: TaskInfo, model_max_length: int, longest_row: int, p99_length: int) -> int:
    """A given length, else the 99th percentile up to a multiple of 8.

    The prepare step refuses a given length above the model's.
    """
    if training.max_length:
        return training.max_length
    wanted = longest_row if longest_row <= 128 else math.ceil(p99_length / 8) * 8
    return max(8, min(wanted, task.default_max_length, model_max_length))


def learning_rate(
    task: TaskInfo,
    method: MethodInfo,
    optimizer: OptimizerInfo = OPTIMIZERS[DEFAULT_OPTIMIZER],
    width: int | None = None,
    settings: object = None,
) -> float:
    """The peak rate: the task's, by the factors of the method and its settings, the optimizer and the width."""
    return math.prod(factor for factor, _ in _rate_factors(task, method, optimizer, width, settings))


def rate_rule(
    task: TaskInfo, method: MethodInfo, optimizer: OptimizerInfo, width: int | None, settings: object = None
) -> str:
    """How the peak rate came about, for people: its factors that are not 1."""
    (base, kind), *factors = _rate_factors(task, method, optimizer, width, settings)
    return " ".join((f"{base:g} for {kind}", *(f"× {value:.3g} for {why}" for value, why in factors if value != 1)))


def _rate_factors(
    task: TaskInfo, method: MethodInfo, optimizer: OptimizerInfo, width: int | None, settings: object
) -> tuple[tuple[float, str], ...]:
    setting, value, slower = method.slower or ("", "", 1.0)
    by_method = method.rate_factor_new_head if task.new_head else method.rate_factor
    return (
        (task.learning_rate, task.kind),
        (by_method, f"method {method.name}"),
        (slower if setting and getattr(settings, setting, None) == value else 1.0, f"{setting} {value}"),
        (optimizer.rate_factor, optimizer.name),
        (width_factor(width) if method.by_width and width else 1.0, f"width {width}"),
    )


def width_factor(width: int) -> float:
    """By how much a model wider than BERT's 768 learns slower where every weight is tuned: √(768/width), at least 1/4.

    Between what is in use for encoders of 768 to 1,024 (Devlin et al. 2018) and decoders of 4,096 (1e-5 to 2e-5), and
    the 1/width that holds for training from the start (Yang et al. 2022).
    """
    return min(1.0, max(0.25, math.sqrt(768 / width)))


def metric(task: TaskName, wanted: MetricChoice) -> str:
    """The metric that chooses the best checkpoint."""
    return TASKS[task].default_metric if wanted == AUTO else wanted
