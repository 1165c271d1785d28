"""Any number of classes a row: cross-entropy of each class against its absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective, in_full_precision


def binary_cross_entropy(weights: Sequence[tuple[float, float]] | None = None) -> Objective:
    """One loss a row, the mean over its classes; labels are [rows, classes] of 0 and 1, outputs the scores [rows,
    classes].

    `weights`: what a row without and a row with each class weighs; None: all the same. The divisor stays the count of
    rows.
    """

    def losses(model: Any, batch: MicroBatch) -> Losses:
        logits = model(**batch.inputs).logits
        scores = in_full_precision(logits)
        labels = batch.labels.to(scores.dtype)  # classes come as integers, and this loss takes numbers only
        each = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        if weights is not None:
            without, having = torch.tensor(weights, dtype=each.dtype, device=each.device).T
            each = each * torch.where(batch.labels > 0, having, without)
        return Losses(each.mean(1), batch.labels.new_ones(len(batch.labels)), logits)

    return losses
