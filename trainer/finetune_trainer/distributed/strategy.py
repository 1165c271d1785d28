"""What a gradient strategy is: how a step's gradients are made and come together, and how its state is saved.

A strategy knows where the tensors of model and optimizer lie, so it says what a checkpoint holds of them and takes it
back: a sharded model will gather and scatter there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch


class GradientStrategy(Protocol):
    """Each step: begin, backward for each micro-batch, reduce, and perhaps clip."""

    model: Any  # what the forward pass calls

    def begin(self) -> None:
        """Forget the last step's gradients."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's gradient of the SUM of losses."""

    def reduce(self, count: float) -> float:
        """Sum over ranks, divide by the global count; the norm of the result. Collective."""

    def clip(self, factor: float) -> None:
        """Scale the gradients."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the model's tensors in `state`."""

    def state(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """What a checkpoint holds: "model.<parameter>" of what is trained, "optimizer.<parameter>.<what>".

        The tensors themselves, not copies.
        """

    def load_state(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put what `state` gave back into the model and the optimizer."""

    def load_weights(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put a checkpoint's "model.…" tensors into the model."""
