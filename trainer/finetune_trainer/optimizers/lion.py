"""Lion: each weight steps by the rate, in the direction of a running mean's sign (Chen et al. 2023, algorithm 2).

torch and transformers have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """State: exp_avg, the running mean of gradients. Weight decay is decoupled, as AdamW's."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            rate, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                mean = state["exp_avg"]
                p.mul_(1.0 - rate * group["weight_decay"])
                p.add_(mean.lerp(p.grad, 1.0 - beta1).sign_(), alpha=-rate)
                mean.lerp_(p.grad, 1.0 - beta2)
