"""Position t predicts token t+1; only the positions that are learned go through the softmax."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def next_token(model: Any, batch: MicroBatch) -> Losses:
    """One loss for each learned token; labels are [rows, tokens], IGNORE where a token is not learned."""
    logits = model(**batch.inputs).logits
    targets = batch.labels[:, 1:]
    learned = targets != IGNORE
    losses = F.cross_entropy(in_full_precision(logits[:, :-1][learned]), targets[learned], reduction="none")
    rows = learned.nonzero()[:, 0]
    return Losses(losses.new_zeros(targets.shape[0]).index_add(0, rows, losses), learned.sum(1))
