"""The tasks by name. A new task is a module beside this one, and a line here."""

from __future__ import annotations

import dataclasses

from finetune_api.run import RunConfig
from finetune_trainer.methods import head_of
from finetune_trainer.tasks import (
    causal_lm,
    image_classification,
    masked_lm,
    multi_label_classification,
    question_answering,
    text_classification,
    text_regression,
    token_classification,
)
from finetune_trainer.tasks.base import Task

_ALL = (
    text_classification,
    multi_label_classification,
    text_regression,
    causal_lm,
    masked_lm,
    question_answering,
    image_classification,
    token_classification,
)
TASKS = {module.TASK.info.name: module.TASK for module in _ALL}


def task_for(name: str) -> Task:
    """The task of this name; the contract lets no other name through."""
    return TASKS[name]


def task_of(config: RunConfig) -> Task:
    """A job's: its task, with the head that its method gives the model."""
    task = task_for(config.task)
    return dataclasses.replace(task, head=head_of(config.method, task.head))
