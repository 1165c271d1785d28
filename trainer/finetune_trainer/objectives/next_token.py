"""Position t predicts token t+1; only the positions that are learned go through the softmax."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective, in_full_precision


def next_token(*, smoothing: float | None = None) -> Objective:
    """One loss for each learned token; labels are [rows, tokens], IGNORE where a token is not learned.

    `smoothing`: share of a target that is spread over the vocabulary.
    """

    def losses(model: Any, batch: MicroBatch) -> Losses:
        logits = model(**batch.inputs).logits
        targets = batch.labels[:, 1:]
        learned = targets != IGNORE
        scores = in_full_precision(logits[:, :-1][learned])
        each = F.cross_entropy(scores, targets[learned], reduction="none", label_smoothing=smoothing or 0.0)
        rows = learned.nonzero()[:, 0]
        return Losses(each.new_zeros(targets.shape[0]).index_add(0, rows, each), learned.sum(1))

    return losses
