"""AdamW with decoupled decay on matrices only, and its learning rate as a function of the step.

AdamW: Loshchilov & Hutter 2019. Biases and norm weights (one dimension) are not decayed. The rate is computed from the
step alone, so that a resumed run needs no scheduler state (I3).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from finetune_api.tuning import Training


def adamw(model: Any, training: Training) -> torch.optim.AdamW:
    """The optimizer over what is trained; fused: one pass over memory for each tensor."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def rate_at(update: int, *, peak: float, total: int, warmup: int, schedule: str) -> float:
    """Learning rate of update 1..total: rises linearly over `warmup` updates to the peak, then falls to (nearly) zero
    or stays.
    """
    if update <= warmup:
        return peak * update / warmup
    done = (update - 1 - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return peak * max(0.0, 1.0 - done)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return peak
