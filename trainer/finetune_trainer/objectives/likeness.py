"""Texts of one class lie near each other, texts of others apart: the square of what the cosine of two embeddings misses
1 or 0 by, as CosineSimilarityLoss of sentence-transformers has it (Tunstall et al. 2022, arXiv 2209.11055).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.objectives.base import Losses, in_full_precision


def likeness(model: Any, batch: MicroBatch) -> Losses:
    """One loss a group; labels are [groups, members], the members' classes, and inputs [groups, members, …].

    Every two members of a group are compared. Pairs of one class weigh as much as pairs of two, however many there are
    of each. `model.pooled` gives the embeddings, [texts, width].
    """
    groups, members = batch.labels.shape
    texts = {name: tensor.flatten(0, 1) for name, tensor in batch.inputs.items()}
    lengths = in_full_precision(model.pooled(**texts))
    directions = F.normalize(lengths, dim=-1).unflatten(0, (groups, members))
    pairs = torch.ones(members, members, dtype=torch.bool, device=directions.device).triu(1)
    same = (batch.labels[:, :, None] == batch.labels[:, None, :])[:, pairs]
    missed = ((directions @ directions.mT)[:, pairs] - same.to(directions.dtype)).square()
    kinds = torch.stack([_mean(missed, same), _mean(missed, ~same)])
    found = torch.stack([same.any(1), (~same).any(1)])
    return Losses(kinds.sum(0) / found.sum(0), torch.ones_like(batch.labels[:, 0]))


def _mean(values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of the wanted ones in each row; 0 where there are none."""
    return (values * wanted).sum(1) / wanted.sum(1).clamp(min=1)
