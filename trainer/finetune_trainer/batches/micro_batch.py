"""The tensors of a few rows, as an objective takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`inputs` go to the model as keywords, `labels` is what the objective compares with; `tokens` counts real ones."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: int
    tokens: int

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        moved = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return MicroBatch(moved, self.labels.to(device, non_blocking=True), self.rows, self.tokens)
