"""A linear head fitted to vectors that stand still: the one best head for them, whatever it was before.

The task's own objective over all rows at once, with the weights' squares held small (for classes this is logistic
regression), by L-BFGS with line search in double precision (Liu & Nocedal 1989). It is convex, so where it starts, and
how often it was fitted before, does not show; nothing of it needs to be saved (I3).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from finetune_trainer.batches.micro_batch import MicroBatch
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.objectives.base import Objective

STEPS = 500
"""Iterations at most; a few dozen are the rule."""
TOLERANCE = 1e-8
"""On the largest entry of the gradient, in parts of the rows' losses."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Stands for the model in the objective: vectors in, scores out."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, pooled: torch.Tensor) -> Any:
        """As transformers' classifiers answer."""
        return SimpleNamespace(logits=F.linear(pooled, self.weight, self.bias))


def fit_head(
    layer: Any, vectors: torch.Tensor, labels: torch.Tensor, objective: Objective, ranks: Ranks, strength: float
) -> None:
    """Fit torch's linear `layer` to this rank's `vectors`, [rows, width], and `labels`: the sum over all ranks' rows of
    `objective`, and strength/2 times the sum of the squared weights, the bias left out, is least. Collective.
    """
    rows = MicroBatch({"pooled": vectors.double().to(ranks.device)}, labels.to(ranks.device), len(vectors), 0)
    count = max(1.0, ranks.sum([float(len(vectors))])[0])
    sizes, shape = (layer.weight.numel(), layer.bias.numel()), layer.weight.shape
    found = torch.zeros(sum(sizes), dtype=torch.float64, device=ranks.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [found],
        max_iter=STEPS,
        max_eval=4 * STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def losses() -> torch.Tensor:
        weight, bias = found.split(sizes)
        found.grad = None
        own = found.sum() * 0.0  # a rank without rows has a gradient too
        if rows.rows:
            own = own + objective(Scorer(weight.view(shape), bias), rows).total
        own.backward()
        assert found.grad is not None
        ranks.sum_tensor(found.grad)
        total = ranks.sum([float(own.detach())])[0] + strength / 2 * float(weight.detach().square().sum())
        found.grad[: sizes[0]] += strength * weight.detach()
        found.grad /= count
        return torch.tensor(total / count, dtype=torch.float64)

    solver.step(losses)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight, bias = found.split(sizes)
        layer.weight.copy_(weight.view(shape))
        layer.bias.copy_(bias)
