"""A running mean of the trained weights, which is judged and kept in their place (Polyak & Juditsky 1992).

After update t it keeps d = min(decay, (1 + t) / (10 + t)) of itself: young, it follows the weights closely, so that it
is not biased to those of the start (as TensorFlow's ExponentialMovingAverage with num_updates).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

PREFIX = "average."


class WeightAverage:
    """The mean of what requires gradients, on the weights' device."""

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._means = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that update number `step` (from 1) has made."""
        keep = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([*self._means.values()], [*self._weights.values()], 1.0 - keep)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the mean in the weights' place, and the weights in its."""
        for name, weight in self._weights.items():
            held = weight.detach().clone()
            weight.copy_(self._means[name])
            self._means[name].copy_(held)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mean is in the weights' place within."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, as average.<parameter>: the tensors themselves."""
        return {PREFIX + name: mean for name, mean in self._means.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state` gave; of a checkpoint without, the weights as they are now."""
        for name, mean in self._means.items():
            mean.copy_(tensors.get(PREFIX + name, self._weights[name]))
