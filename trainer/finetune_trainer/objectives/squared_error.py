"""One number a row: the square of what the model misses it by."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def squared_error(model: Any, batch: MicroBatch) -> Losses:
    """One loss a row, in the square of the number's unit; labels are [rows], outputs [rows, 1]."""
    logits = model(**batch.inputs).logits
    missed = in_full_precision(logits).squeeze(1) - batch.labels.to(logits.device)
    return Losses(missed.square(), torch.ones_like(batch.labels), logits)
