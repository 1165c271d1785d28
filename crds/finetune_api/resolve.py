"""Choose what the spec left open: pure functions of the config and of what the prepare step measured.

The prepare step calls this once and stores the result, so that every rank of every attempt sees the same values.
"""

from __future__ import annotations

import math

from finetune_api.job import TaskName
from finetune_api.method import METHODS, MethodInfo
from finetune_api.metrics import AUTO
from finetune_api.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerInfo
from finetune_api.run import RunConfig
from finetune_api.status import Resolved
from finetune_api.tasks import TASKS, TaskInfo
from finetune_api.tuning import MetricChoice, Training

DEFAULT_EPOCHS = 3.0


def resolve(
    config: RunConfig, *, train_rows: int, model_max_length: int, longest_row: int, p99_length: int
) -> Resolved:
    """The values in force. Lengths in tokens; train_rows counts usable rows."""
    t, task = config.training, TASKS[config.task]
    batch = t.global_batch_size or default_batch(t, train_rows)
    per_epoch = steps_per_epoch(train_rows, batch)
    epochs = t.epochs if t.epochs is not None else (None if t.max_steps else DEFAULT_EPOCHS)
    total = t.max_steps if epochs is None else math.ceil(epochs * per_epoch)
    assert total is not None
    if t.max_steps is not None:
        total = min(total, t.max_steps)
    processes = config.world.workers * config.world.processes_per_worker
    share = math.ceil(batch / processes)
    longest = max_length(t, task, model_max_length, longest_row, p99_length)
    e = config.evaluation
    every = e.every_steps or max(1, math.ceil((e.every_epochs or 1.0) * per_epoch))
    return Resolved(
        epochs=round(total / per_epoch, 4),
        total_steps=total,
        global_batch_size=batch,
        micro_batch_size=min(t.micro_batch_size or default_micro_batch(longest), share),
        learning_rate=t.learning_rate or learning_rate(task, METHODS[config.method.type], t.optimizer_info),
        warmup_steps=min(total, math.ceil(t.warmup_ratio * total)),
        max_length=longest,
        metric=metric(config.task, e.metric),
        evaluate_every_steps=every,
    )


def steps_per_epoch(train_rows: int, batch: int) -> int:
    """Optimizer steps of one pass; the last batch may be smaller."""
    return max(1, math.ceil(train_rows / batch))


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
    task: TaskInfo, method: MethodInfo, optimizer: OptimizerInfo = OPTIMIZERS[DEFAULT_OPTIMIZER]
) -> float:
    """The peak rate: the task's, by the method's factor, by the optimizer's."""
    factor = method.rate_factor_new_head if task.new_head else method.rate_factor
    return task.learning_rate * factor * optimizer.rate_factor


def metric(task: TaskName, wanted: MetricChoice) -> str:
    """The metric that chooses the best checkpoint."""
    return TASKS[task].default_metric if wanted == AUTO else wanted
