"""AdamW with decoupled decay on matrices only, its learning rate as a function of the step, and its state by names.

AdamW: Loshchilov & Hutter 2019. Biases and norm weights (one dimension) are not decayed. The rate is computed from the
step alone, so that a resumed run needs no scheduler state (I3).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from finetune_api.job import Training

_STATE = ("exp_avg", "exp_avg_sq", "step")


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


def optimizer_tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state as optimizer.<parameter>.<what>; empty before the first update."""
    found = {}
    for name, parameter in model.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{name}.{what}"] = value
    return found


def load_optimizer(model: Any, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Take the state over, on each parameter's device."""
    for name, parameter in model.named_parameters():
        state = {what: tensors[f"optimizer.{name}.{what}"] for what in _STATE if f"optimizer.{name}.{what}" in tensors}
        if state:
            optimizer.state[parameter] = {
                what: value.to(device=parameter.device, copy=True) for what, value in state.items()
            }
