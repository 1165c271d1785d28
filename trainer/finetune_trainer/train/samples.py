"""Texts that the model writes to a few validation rows, for the report: before the tuning and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.tasks.base import Decision, Sampling
from finetune_trainer.train.data import TrainingData


def write_samples(
    model: Any, data: TrainingData, ranks: Ranks, stop: Callable[[], bool], decision: Decision
) -> list[dict[str, Any]]:
    """`decision`: how outputs become answers. None where the task writes none, or without validation rows. Rank 0."""
    task, profile, tokenizer = data.task, data.profile, data.tokenizer
    if task.samples is None or not data.rows_in("validation"):
        return []
    with data.stream("validation") as stream, torch.inference_mode(), ranks.autocast():
        ends = {*(profile.ends or ()), tokenizer.eos_id}
        given = Sampling(data.facts, tokenizer, data.max_length, decision, ends, stop)
        return task.samples(model, map(data.named, stream.rows()), given)
