"""Gradients in one flat buffer, for CPUs: one reduction in buckets of fixed size, one norm, one scale.

The order of summation never depends on the step (torch's DDP builds its buckets anew after the first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from finetune_trainer.distributed import tensors as named
from finetune_trainer.distributed.ranks import Ranks


class FlatGradients:
    """All gradients in one flat buffer, of which each parameter's is a view; every rank holds the whole model."""

    def __init__(self, model: Any, ranks: Ranks) -> None:
        self.model, self._ranks = model, ranks
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len({p.dtype for p in trained}) == 1, "one dtype"
        self._flat = torch.zeros(sum(p.numel() for p in trained), dtype=trained[0].dtype, device=trained[0].device)
        for parameter, view in zip(trained, self._flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = view.view_as(parameter)

    def begin(self) -> None:
        """Zero in place: the views stay."""
        self._flat.zero_()

    def backward(self, loss: torch.Tensor) -> None:
        """Autograd adds into the views."""
        loss.backward()

    def reduce(self, count: float) -> float:
        """Sum over ranks in fixed buckets, then one division."""
        self._ranks.sum_tensor(self._flat)
        self._flat.div_(count)
        return float(torch.linalg.vector_norm(self._flat))

    def clip(self, factor: float) -> None:
        """Scale all."""
        self._flat.mul_(factor)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all that is trained."""
        return {name: tuple(tensor.shape) for name, tensor in named.of_model(self.model).items()}

    def state(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """The same on every rank."""
        return named.of_model(self.model) | named.of_optimizer(self.model, optimizer)

    def load_state(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
        """Every rank takes all."""
        self.load_weights(tensors)
        named.into_optimizer(self.model, optimizer, tensors)

    def load_weights(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Every rank takes all."""
        named.into_model(self.model, tensors)
