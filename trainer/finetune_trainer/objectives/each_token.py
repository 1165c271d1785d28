"""Each position is told apart by itself, with all of its row before its eyes."""

from __future__ import annotations

from typing import Any

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, Objective
from finetune_trainer.objectives.learned import learned_losses


def each_token(*, smoothing: float | None = None) -> Objective:
    """One loss for each learned position; labels are [rows, tokens], IGNORE where a position is not learned. Outputs
    are the scores at the learned positions [losses, classes], in the order of rows and positions.

    `smoothing`: share of a target that is spread over all classes.
    """

    def losses(model: Any, batch: MicroBatch) -> Losses:
        return learned_losses(model(**batch.inputs).logits, batch.labels, batch.labels != IGNORE, smoothing)

    return losses
