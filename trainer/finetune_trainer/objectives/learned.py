"""Cross-entropy at the positions that are learned, summed row by row."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from finetune_trainer.objectives.base import Losses, in_full_precision


def learned_losses(
    logits: torch.Tensor, targets: torch.Tensor, learned: torch.Tensor, smoothing: float | None
) -> Losses:
    """One loss for each learned position; logits are [rows, positions, outputs], targets and `learned` [rows,
    positions]. `outputs` are the logits at the learned positions alone, one after the other: [losses, outputs].

    `smoothing`: share of a target that is spread over all outputs.
    """
    found = logits[learned]
    losses = F.cross_entropy(
        in_full_precision(found), targets[learned], reduction="none", label_smoothing=smoothing or 0.0
    )
    rows = learned.nonzero()[:, 0]
    return Losses(losses.new_zeros(len(targets)).index_add(0, rows, losses), learned.sum(1), found)
