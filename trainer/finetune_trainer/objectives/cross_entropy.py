"""One class a row: cross-entropy between the model's scores and the row's class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective, in_full_precision


def cross_entropy(*, weights: Sequence[float] | None = None, smoothing: float | None = None) -> Objective:
    """One loss a row; labels are [rows], outputs the scores [rows, classes].

    `weights`: what a row of each class weighs, 1 in the mean; None: all the same. The divisor stays the count of rows.
    `smoothing`: share of a target that is spread over all classes.
    """

    def losses(model: Any, batch: MicroBatch) -> Losses:
        logits = model(**batch.inputs).logits
        scores = in_full_precision(logits)
        sums = F.cross_entropy(scores, batch.labels, reduction="none", label_smoothing=smoothing or 0.0)
        if weights is not None:
            sums = sums * torch.tensor(weights, dtype=sums.dtype, device=sums.device)[batch.labels]
        return Losses(sums, torch.ones_like(batch.labels), logits)

    return losses
