"""Where an answer begins and where it ends: two softmaxes over the context's tokens and the place for "no answer".

As Devlin et al. 2018 (BERT), 4.3; tokens of the question and padding take no part, so a window's loss does not depend
on what it is padded to (I1).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def answer_span(model: Any, batch: MicroBatch) -> Losses:
    """One loss a window, the mean of start and end; the windows of a row weigh one together.

    Labels are [windows, 6] as `SpanExample` has them; outputs the logits [windows, 2, tokens], -inf where no answer can
    begin or end.
    """
    found = model(**batch.inputs)
    logits = in_full_precision(torch.stack([found.start_logits, found.end_logits], 1))
    null, low, high, windows = batch.labels[:, 2:].T[:, :, None]
    weights = torch.where(windows > 0, 1 / windows.to(logits.dtype), 0)[:, 0]
    places = torch.arange(logits.shape[-1], device=logits.device)
    possible = ((places >= low) & (places < high)) | (places == null)
    logits = logits.masked_fill(~possible[:, None], -torch.inf)
    losses = F.cross_entropy(logits.flatten(0, 1), batch.labels[:, :2].flatten(), reduction="none").view(-1, 2).mean(1)
    return Losses(losses * weights, weights, logits)
