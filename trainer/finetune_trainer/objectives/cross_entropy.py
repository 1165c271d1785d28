"""One class a row: cross-entropy between the model's scores and the row's class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def cross_entropy(model: Any, batch: MicroBatch) -> Losses:
    """One loss a row; labels are [rows], outputs the scores [rows, classes]."""
    logits = model(**batch.inputs).logits
    sums = F.cross_entropy(in_full_precision(logits), batch.labels, reduction="none")
    return Losses(sums, torch.ones_like(batch.labels), logits)
