"""Numbers are learned in units of their own spread, whatever the data's are, and given in the data's.

A head starts near 0, and an optimizer's steps are as large as its rate, so that it would never come to prices of
thousands. While it learns, the output layer's answer is therefore multiplied by the targets' deviation and put around
their mean; weights, losses and rates stay as they are for targets about 0 and 1. At the end both are folded into the
layer's weights, so that what is written is a plain model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune_trainer.model.load import output_layer
from finetune_trainer.model.weights import read_tensors


class InUnits(nn.Linear):
    """A linear layer whose answer is in the data's units: (x W + b) · unit + middle."""

    unit: float
    middle: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], in float32 or better."""
        found = super().forward(input)
        found = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
        return found * self.unit + self.middle


class Folded(nn.Linear):
    """One whose weights are as large as the data's units: rounded, they would lose digits that count."""


def answer_in_units(model: Any, folder: Path, mean: float, deviation: float) -> bool:
    """Let the model's output layer answer in the units of targets of this mean and deviation; whether it has one.

    A head that came trained with the base (from `folder`) gives the answers that it gave; a new one starts around the
    mean. Without a bias there is nothing that the mean could be folded into: the unit then is the root of the targets'
    mean square.
    """
    place = output_layer(model)
    if place is None:
        return False
    name, layer = place
    kept = _is_stored(name, layer, folder)
    layer.__class__ = InUnits
    plain = layer.bias is None
    layer.unit = float((mean**2 + deviation**2) ** 0.5 if plain else deviation) or 1.0
    layer.middle = 0.0 if plain else float(mean)
    if kept:
        with torch.no_grad():
            layer.weight /= layer.unit
            if layer.bias is not None:
                layer.bias.sub_(layer.middle).div_(layer.unit)
    return True


def fold_units(model: Any) -> None:
    """Into the weights, in place: the model then is a plain one, and its answers are the same but for rounding."""
    for module in model.modules():
        if isinstance(module, InUnits):
            with torch.no_grad():
                module.weight *= module.unit
                if module.bias is not None:
                    module.bias.mul_(module.unit).add_(module.middle)
            module.__class__ = Folded


def folded_weights(model: Any) -> set[int]:
    """The ids of the tensors that are to stay as exact as they are."""
    return {id(tensor) for module in model.modules() if isinstance(module, Folded) for tensor in module.parameters()}


def _is_stored(name: str, layer: Any, folder: Path) -> bool:
    """Whether the layer's weights are those of the base's files."""
    ours = dict(layer.named_parameters(prefix=name, recurse=False))
    stored = read_tensors(folder, ours)
    return all(full in stored and torch.equal(stored[full].to(tensor), tensor) for full, tensor in ours.items())
