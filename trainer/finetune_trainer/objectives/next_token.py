"""Position t predicts token t+1; only the positions that are learned go through the softmax."""

from __future__ import annotations

import dataclasses
from typing import Any

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective
from finetune_trainer.objectives.learned import learned_losses


def next_token(*, smoothing: float | None = None) -> Objective:
    """One loss for each learned token; labels are [rows, tokens], IGNORE where a token is not learned.

    `smoothing`: share of a target that is spread over the vocabulary.
    """

    def losses(model: Any, batch: MicroBatch) -> Losses:
        logits, targets = model(**batch.inputs).logits, batch.labels[:, 1:]
        found = learned_losses(logits[:, :-1], targets, targets != IGNORE, smoothing)
        return dataclasses.replace(found, outputs=None)  # too large to be kept

    return losses
