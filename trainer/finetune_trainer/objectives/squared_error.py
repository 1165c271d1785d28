"""One number a row: the square of what the model misses it by, in units of the numbers' own spread."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective, in_full_precision


def squared_error(unit: float = 1.0) -> Objective:
    """One loss a row, in the square of `unit`; labels are [rows], outputs [rows, 1], both in the data's units."""

    def losses(model: Any, batch: MicroBatch) -> Losses:
        logits = model(**batch.inputs).logits
        missed = (in_full_precision(logits).squeeze(1) - batch.labels.to(logits.device)) / unit
        return Losses(missed.square(), torch.ones_like(batch.labels), logits)

    return losses
