"""Training rows that are learned from by comparing them, and the head that is fitted to them.

All of a split's rows are held, as the task encodes them: memory goes by the rows, and so does the time of a fit. Which
rows are compared in a step hangs on the rows of its global batch, the seed and the epoch alone (I2), and the head on
the other weights alone, so that a checkpoint needs to know of neither (I3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.batches.group_example import GroupExample
from finetune_trainer.batches.layout import micro_batches
from finetune_trainer.batches.rank_batch import RankBatch, lay_out
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.methods import method_for
from finetune_trainer.methods.base import Lesson
from finetune_trainer.methods.fitted_head import fit_head
from finetune_trainer.stream.companions import MEMBERS, Companions
from finetune_trainer.tasks.base import Draw
from finetune_trainer.train.data import TrainingData


class Comparison:
    """Of the rows of one split, the same on every rank."""

    def __init__(self, data: TrainingData, lesson: Lesson, split: str) -> None:
        self._data, self._lesson = data, lesson
        with dataclasses.replace(data, rank=0, size=1).stream(split) as stream:
            self._examples: list[Example | None] = [
                examples[0] if examples else None for examples in data.encoded(stream.numbered())
            ]
        self._classes = [-1 if example is None else int(example.labels(0)) for example in self._examples]
        self._companions = Companions(self._classes)

    def rank_batch(self, rows: Sequence[int], epoch: int) -> RankBatch:
        """What is learned from these rows in an epoch."""
        data, groups = self._data, [self.group(row, epoch) for row in rows]
        at_once = max(1, data.micro_batch_size // MEMBERS)
        return lay_out(groups, at_once, data.tokenizer.pad_id, data.max_length)

    def group(self, row: int, epoch: int) -> Sequence[GroupExample]:
        """What is learned from a row in an epoch; nothing where nothing of it is left to learn."""
        if self._examples[row] is None:
            return ()
        draw = Draw(self._data.config.training.seed, epoch, row).generator()
        rows = self._companions.group(row, draw)
        members = tuple(example for r in rows if (example := self._examples[r]) is not None)
        return (GroupExample(members, tuple(self._classes[r] for r in rows)),)

    def fit(self, model: Any, ranks: Ranks) -> None:
        """Fit the model's head to the task's objective on these rows, as the model has them now. Collective."""
        data, layer = self._data, self._lesson.layer(model)
        own = [example for example in self._examples[ranks.rank :: ranks.size] if example is not None]
        vectors, labels = [torch.empty(0, layer.in_features)], [torch.empty(0, dtype=torch.long)]
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), ranks.autocast():
                for batch in micro_batches(own, data.micro_batch_size, data.tokenizer.pad_id, data.max_length):
                    batch = batch.to(ranks.device)
                    vectors.append(model.pooled(**batch.inputs).cpu())
                    labels.append(batch.labels.cpu())
        finally:
            model.train(was_training)
        strength = self._lesson.strength(method_for(data.config.method).settings(data.config.method))
        objective = data.task.objective(data.facts)
        fit_head(layer, torch.cat(vectors), torch.cat(labels), objective, ranks, strength)
