"""The tensors of a few rows, as an objective takes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from finetune_trainer.batches.example import Example


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`inputs` go to the model as keywords, `labels` is what the objective compares with; `tokens` counts real ones.

    `rows` counts examples; `examples` are what the tensors were made of, for whoever judges the model's answers.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: int
    tokens: int
    examples: tuple[Example, ...] = ()

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        moved = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return dataclasses.replace(self, inputs=moved, labels=self.labels.to(device, non_blocking=True))
